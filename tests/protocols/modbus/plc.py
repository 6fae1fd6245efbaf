"""A small PLC of ours, to be told how to misbehave: registers and bits of many units, over TCP, TLS, RTU over TCP, or a pty.

What libmodbus's server cannot be made to do is done here: late, foreign, cut, mangled and endless answers.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import ssl
import struct
import termios
import tty
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any, Literal

import msgspec

from protocols.modbus.config import AnyConnection
from protocols.model import Batch

Framing = Literal["tcp", "rtu"]
Handler = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


def crc(frame: bytes) -> bytes:
    """CRC-16/MODBUS, bit by bit: written apart from the code under test (MODBUS over serial line V1.02, 6.2.2)."""
    value = 0xFFFF
    for byte in frame:
        value ^= byte
        for _ in range(8):
            value = value >> 1 ^ 0xA001 if value & 1 else value >> 1
    return value.to_bytes(2, "little")


@dataclass
class Unit:
    """One device."""

    words: dict[int, int] = field(default_factory=dict)
    """Holding and input registers alike."""
    bits: dict[int, bool] = field(default_factory=dict)
    """Coils and discrete inputs alike."""
    holes: set[int] = field(default_factory=set)
    """Registers that a read must not touch."""
    most: int = 125
    refused: dict[int, int] = field(default_factory=dict)
    """Exception code by function code."""
    fixed: set[int] = field(default_factory=set)
    """Registers and bits that acknowledge a write and stay as they are."""

    def set(self, address: int, content: bytes) -> None:
        """Put ``content``, as it goes over the wire, into the registers from ``address`` on."""
        for at, word in enumerate(struct.unpack(f">{len(content) // 2}H", content)):
            self.words[address + at] = word

    def answer(self, pdu: bytes) -> bytes:
        function = pdu[0]
        if function in self.refused:
            return bytes((function | 0x80, self.refused[function]))
        if function in (1, 2, 3, 4):
            return self._read(function, *struct.unpack(">HH", pdu[1:5]))
        return self._write(function, pdu)

    def _read(self, function: int, address: int, count: int) -> bytes:
        if count > (2000 if function < 3 else self.most):
            return bytes((function | 0x80, 3))
        if any(at in self.holes for at in range(address, address + count)):
            return bytes((function | 0x80, 2))
        if function < 3:
            bits = sum(self.bits.get(address + at, False) << at for at in range(count))
            content = bits.to_bytes((count + 7) // 8, "little")
        else:
            content = b"".join(self.words.get(address + at, 0).to_bytes(2, "big") for at in range(count))
        return bytes((function, len(content))) + content

    def _write(self, function: int, pdu: bytes) -> bytes:
        address, value = struct.unpack(">HH", pdu[1:5])
        match function:
            case 5:
                self._put_bits(address, [value == 0xFF00])
            case 6:
                self._put_words(address, [value])
            case 15:
                self._put_bits(address, [bool(pdu[6 + at // 8] >> at % 8 & 1) for at in range(value)])
            case 16:
                self._put_words(address, list(struct.unpack(f">{value}H", pdu[6:])))
            case 22:
                mask, more = struct.unpack(">HH", pdu[3:7])
                self._put_words(address, [self.words.get(address, 0) & mask | more & ~mask & 0xFFFF])
            case _:
                return bytes((function | 0x80, 1))
        return pdu[:5] if function in (15, 16) else pdu

    def _put_words(self, address: int, values: list[int]) -> None:
        self.words.update({address + at: value for at, value in enumerate(values) if address + at not in self.fixed})

    def _put_bits(self, address: int, values: list[bool]) -> None:
        self.bits.update({address + at: value for at, value in enumerate(values) if address + at not in self.fixed})


class Plc:
    """Units behind one connection. ``asked`` lists what was asked: (unit id, PDU)."""

    def __init__(self, *unit_ids: int) -> None:
        self.units = {unit_id: Unit() for unit_id in unit_ids or (1,)}
        self.asked: list[tuple[int, bytes]] = []
        self.silent: set[int] = set()
        self.connections = 0
        self.send: Callable[[bytes], list[bytes]] = lambda frame: [frame]
        """What is sent for an answer: pieces, each in its own segment as far as TCP lets them."""
        self.gate: asyncio.Event | None = None
        """While set aside, answers wait for it."""
        self._writers: set[asyncio.StreamWriter] = set()

    @property
    def unit(self) -> Unit:
        return next(iter(self.units.values()))

    def functions(self) -> list[int]:
        return [pdu[0] for _, pdu in self.asked]

    def answer(self, unit_id: int, pdu: bytes) -> bytes | None:
        self.asked.append((unit_id, pdu))
        if unit_id in self.silent or unit_id not in self.units:
            return None
        return self.units[unit_id].answer(pdu)

    def frame(self, framing: Framing, request: bytes) -> bytes | None:
        """The frame that answers a request frame."""
        if framing == "tcp":
            pdu = self.answer(request[6], request[7:])
            return None if pdu is None else request[:4] + (len(pdu) + 1).to_bytes(2, "big") + request[6:7] + pdu
        assert crc(request[:-2]) == request[-2:]
        pdu = self.answer(request[0], request[1:-2])
        return None if pdu is None else (body := request[:1] + pdu) + crc(body)

    async def talk(self, framing: Framing, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        self._writers.add(writer)
        with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
            while True:
                request = await read_frame(framing, reader)
                if self.gate is not None:
                    await self.gate.wait()
                if (frame := self.frame(framing, request)) is not None:
                    for piece in self.send(frame):
                        writer.write(piece)
                        await writer.drain()
                        await asyncio.sleep(0)
        self._writers.discard(writer)
        writer.close()

    def kick(self) -> None:
        for writer in tuple(self._writers):
            writer.transport.abort()

    @asynccontextmanager
    async def serve(self, framing: Framing = "tcp", tls: ssl.SSLContext | None = None) -> AsyncIterator[int]:
        """Listen on loopback; gives the port."""
        async with listening(lambda reader, writer: self.talk(framing, reader, writer), tls) as port:
            yield port


async def read_frame(framing: Framing, reader: asyncio.StreamReader) -> bytes:
    """One request frame."""
    if framing == "tcp":
        head = await reader.readexactly(6)
        return head + await reader.readexactly(int.from_bytes(head[4:], "big"))
    head = await reader.readexactly(7)
    return head + await reader.readexactly(head[6] + 2 if head[1] in (15, 16) else 3 if head[1] == 22 else 1)


@asynccontextmanager
async def listening(handler: Handler, tls: ssl.SSLContext | None = None) -> AsyncIterator[int]:
    """A TCP server on loopback that runs ``handler`` for each connection; its tasks end with it."""
    tasks: set[asyncio.Task[Any]] = set()  # Any: a handler's result is nobody's concern

    async def run(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        tasks.add(task)
        with contextlib.suppress(asyncio.CancelledError, ConnectionError, asyncio.IncompleteReadError):
            await handler(reader, writer)
        writer.close()
        tasks.discard(task)

    server = await asyncio.start_server(run, "127.0.0.1", 0, ssl=tls)
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        server.close()
        for task in tuple(tasks):
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


class PtyLine:
    """A PLC at the far end of a pty pair, speaking RTU. ``path`` is the gateway's end."""

    def __init__(self, plc: Plc) -> None:
        self.plc = plc
        self.fd, self._other = os.openpty()
        tty.setraw(self._other, termios.TCSANOW)
        self.path = os.ttyname(self._other)
        self.closed = False
        self._buffer = b""
        asyncio.get_running_loop().add_reader(self.fd, self._readable)

    def _readable(self) -> None:
        try:
            self._buffer += os.read(self.fd, 4096)
        except OSError:  # the other end is closed
            asyncio.get_running_loop().remove_reader(self.fd)
            return
        while len(self._buffer) >= 8:
            size = self._buffer[6] + 9 if self._buffer[1] in (15, 16) else 10 if self._buffer[1] == 22 else 8
            if len(self._buffer) < size:
                return
            request, self._buffer = self._buffer[:size], self._buffer[size:]
            if (frame := self.plc.frame("rtu", request)) is not None:
                for piece in self.plc.send(frame):
                    os.write(self.fd, piece)

    def close(self) -> None:
        if not self.closed:
            self.closed = True
            asyncio.get_running_loop().remove_reader(self.fd)
            os.close(self.fd)
            os.close(self._other)


def options(type_name: str = "modbus-tcp", **fields: Any) -> AnyConnection:  # Any: fields of any kind, checked by msgspec
    """A connection, given as people write it."""
    place = {"serial_port": "/dev/null"} if type_name == "modbus-rtu" else {"host": "127.0.0.1"}
    made: AnyConnection = msgspec.convert({"type": type_name, "name": "line", **place, **fields}, AnyConnection)
    return made


def device(*tags: dict[str, Any], **fields: Any) -> dict[str, Any]:  # Any: as above
    """A device, given as people write it."""
    return {"name": "plc", "tags": list(tags), **fields}


def tag(at: str | int, kind: str = "uint16", **fields: Any) -> dict[str, Any]:  # Any: as above
    """A tag, given as people write it; called as its address where no name is given."""
    return {"name": str(at), "at": at, "kind": kind, **fields}


async def until(true: Callable[[], bool]) -> None:
    """Wait for a condition, 10 s at most."""
    async with asyncio.timeout(10):
        while not true():  # noqa: ASYNC110 - what is waited for lies in another process or in a callback
            await asyncio.sleep(0.001)


def values(batches: list[Batch]) -> dict[str, object]:
    """Tag name to value, of several batches."""
    return {batch.device.tags[slot].name: batch.value[at] for batch in batches for at, slot in enumerate(batch.tag.tolist())}


def qualities(batches: list[Batch]) -> dict[str, int]:
    """Tag name to quality, of several batches."""
    return {batch.device.tags[slot].name: int(batch.quality[at]) for batch in batches for at, slot in enumerate(batch.tag.tolist())}
