"""Brokers that misbehave, by name. ``heal`` makes them hand every further connection on to a real one."""

from __future__ import annotations

import asyncio
import contextlib
import struct
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Final

CONNACK: Final = bytes.fromhex("2003000000")
LEVEL_TOPIC: Final = b"plant/one/state"
CHUNK: Final = b"x" * 65536


def packet(kind: int, content: bytes) -> bytes:
    return bytes((kind,)) + varint(len(content)) + content


def varint(length: int) -> bytes:
    encoded = bytearray()
    while True:
        length, low = length >> 7, length & 0x7F
        encoded.append(low | 0x80 if length else low)
        if not length:
            return bytes(encoded)


def publish(topic: bytes, payload: bytes) -> bytes:
    return packet(0x30, struct.pack(">H", len(topic)) + topic + b"\0" + payload)


Talk = tuple[asyncio.StreamReader, asyncio.StreamWriter]


async def _packet(reader: asyncio.StreamReader) -> tuple[int, bytes]:
    kind = (await reader.readexactly(1))[0]
    length = shift = 0
    while True:
        byte = (await reader.readexactly(1))[0]
        length |= (byte & 0x7F) << shift
        shift += 7
        if byte < 0x80:
            return kind, await reader.readexactly(length)


async def greet(talk: Talk, reason: int = 1) -> None:
    """CONNECT, CONNACK; SUBSCRIBE, SUBACK."""
    await connected(talk)
    await subscribed(talk, reason)


async def connected(talk: Talk) -> None:
    reader, writer = talk
    await _packet(reader)
    writer.write(CONNACK)


async def subscribed(talk: Talk, reason: int) -> None:
    reader, writer = talk
    kind, content = await _packet(reader)
    assert kind == 0x82
    writer.write(packet(0x90, content[:2] + b"\0" + bytes((reason,))))
    await writer.drain()


async def _close_at_once(talk: Talk) -> None:
    return


async def _never_answer(talk: Talk) -> None:
    await talk[0].read()


async def _http(talk: Talk) -> None:
    talk[1].write(b"HTTP/1.1 400 Bad Request\r\n\r\n")
    await talk[0].read()


async def _refuse(talk: Talk) -> None:
    await _packet(talk[0])
    talk[1].write(bytes.fromhex("2003008700"))
    await talk[0].read()


async def _refuse_subscription(talk: Talk) -> None:
    await greet(talk, 0x87)
    await talk[0].read()


async def _never_suback(talk: Talk) -> None:
    await _packet(talk[0])
    talk[1].write(CONNACK)
    await talk[0].read()


async def _repeat(talk: Talk, make: Callable[[], bytes]) -> None:
    await greet(talk)
    while True:
        talk[1].write(make())
        await talk[1].drain()
        await asyncio.sleep(0.01)


async def _garbage(talk: Talk) -> None:
    await _repeat(talk, lambda: publish(LEVEL_TOPIC, b"\xff\x00{]" * 10))


async def _wrong_kinds(talk: Talk) -> None:
    await _repeat(talk, lambda: publish(LEVEL_TOPIC, b'{"level": {"a": [1e308, null, "7"]}}'))


async def _nested(talk: Talk) -> None:
    await _repeat(talk, lambda: publish(LEVEL_TOPIC, b"[" * 500_000))


async def _many_values(talk: Talk) -> None:
    await _repeat(talk, lambda: publish(LEVEL_TOPIC, b"[" + b"[]," * 300_000 + b"[]]"))


async def _huge(talk: Talk) -> None:
    """Packets of 16 MB."""
    await greet(talk)
    head = struct.pack(">H", len(LEVEL_TOPIC)) + LEVEL_TOPIC + b"\0"
    while True:
        talk[1].write(b"\x30" + varint(len(head) + 256 * len(CHUNK)) + head)
        for _ in range(256):
            talk[1].write(CHUNK)
            await talk[1].drain()


async def _endless(talk: Talk) -> None:
    """A packet of 256 MB whose end never comes."""
    await greet(talk)
    talk[1].write(b"\x30\xff\xff\xff\x7f" + struct.pack(">H", len(LEVEL_TOPIC)) + LEVEL_TOPIC)
    await talk[0].read()


async def _malformed(talk: Talk) -> None:
    await greet(talk)
    talk[1].write(bytes.fromhex("f00118") + b"\x30\x02\x00\x50")
    await talk[0].read()


async def _cut(talk: Talk) -> None:
    await greet(talk)
    talk[1].write(publish(LEVEL_TOPIC, b'{"level": 1}')[:-4])
    await talk[1].drain()


async def _flood(talk: Talk) -> None:
    """Messages of nobody, each on a topic of its own, as fast as they are taken."""
    await greet(talk)
    number = 0
    while True:
        talk[1].write(b"".join(publish(b"plant/%d/state" % (number + each), b"{}") for each in range(200)))
        await talk[1].drain()
        number += 200
        await asyncio.sleep(0)


async def _no_pong(talk: Talk) -> None:
    await greet(talk)
    await talk[0].read()


MISDEEDS: Final[dict[str, Callable[[Talk], Awaitable[None]]]] = {
    "close-at-once": _close_at_once,
    "never-answer": _never_answer,
    "http": _http,
    "refuse": _refuse,
    "refuse-subscription": _refuse_subscription,
    "never-suback": _never_suback,
    "garbage": _garbage,
    "wrong-kinds": _wrong_kinds,
    "nested": _nested,
    "many-values": _many_values,
    "huge": _huge,
    "endless": _endless,
    "malformed": _malformed,
    "cut": _cut,
    "flood": _flood,
    "no-pong": _no_pong,
}


class HostileBroker:
    """Misbehaves as ``misdeed`` says until it is healed; then it is the broker at ``well``."""

    def __init__(self, misdeed: str, well: int) -> None:
        self._deed = MISDEEDS[misdeed]
        self._well = well
        self.healed = False
        self.port = 0
        self._talks: set[asyncio.Task[None]] = set()

    @asynccontextmanager
    async def serving(self) -> AsyncIterator[HostileBroker]:
        server = await asyncio.start_server(self._welcome, "127.0.0.1", 0)
        self.port = server.sockets[0].getsockname()[1]
        try:
            yield self
        finally:
            server.close()
            for talk in self._talks:
                talk.cancel()
            await asyncio.gather(*self._talks, return_exceptions=True)

    def _welcome(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.get_running_loop().create_task(self._talk(reader, writer))
        self._talks.add(task)
        task.add_done_callback(self._talks.discard)

    async def _talk(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            if self.healed:
                await self._hand_on(reader, writer)
            else:
                await self._deed((reader, writer))
        except (OSError, asyncio.IncompleteReadError):
            pass  # the gateway hung up
        finally:
            writer.transport.abort()

    async def _hand_on(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        there, back = await asyncio.open_connection("127.0.0.1", self._well)
        ways = [asyncio.ensure_future(_pass_on(reader, back)), asyncio.ensure_future(_pass_on(there, writer))]
        try:
            await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
        finally:
            back.transport.abort()
            for way in ways:
                way.cancel()
            await asyncio.gather(*ways, return_exceptions=True)


async def _pass_on(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with contextlib.suppress(OSError):
        while content := await reader.read(65536):
            writer.write(content)
            await writer.drain()
