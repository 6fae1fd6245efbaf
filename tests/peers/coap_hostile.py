"""CoAP devices on UDP that lie, stall or flood. One thing is wrong with each; healed, it answers as it should.

The resource is one text, ``TRUTH``. ``MISDEEDS`` is the list by name: each is given a request and the address that it came from.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import ssl
from collections.abc import Callable
from types import TracebackType
from typing import Any, Final, Self

import msgspec

from protocols.coap.message import (
    ABORT,
    CONTENT,
    CSM,
    EMPTY,
    PING,
    Block,
    Broken,
    Frames,
    Message,
    Option,
    Type,
    decode_udp,
    encode_tcp,
    encode_udp,
    ordered,
    uint,
)

TRUTH: Final = 42
BURST: Final = 400

Answers = Callable[["HostileDevice", Message], list[bytes]]


def _answer(request: Message, payload: bytes = b"%d" % TRUTH, *options: tuple[int, bytes], **changes: Any) -> bytes:  # Any: fields
    """What a good device would answer, but for ``changes``."""
    fields: dict[str, Any] = {  # Any: as above
        "code": CONTENT,
        "type": Type.ACK,
        "id": request.id,
        "token": request.token,
        "options": ordered((int(Option.CONTENT_FORMAT), b""), *options),
        "payload": payload,
    }
    return encode_udp(Message(**{**fields, **changes}))


def _block(request: Message, number: int, more: bool, size: int = 64, *options: tuple[int, bytes]) -> bytes:
    block = Block(number=number, more=more, exponent=size.bit_length() - 5)
    return _answer(request, b"4" * size, block.option(Option.BLOCK2), *options)


def _wanted(request: Message) -> int:
    block = request.block(Option.BLOCK2)
    return block.number if block else 0


def _late(peer: HostileDevice, request: Message) -> list[bytes]:
    if peer.owed and peer.owed[0][2:4] == _answer(request)[2:4]:
        return []  # a repetition: that answer would be in time
    owed, peer.owed = peer.owed, [_answer(request, b"7")]
    return owed


def _observed(request: Message, order: int, payload: bytes = b"%d" % TRUTH) -> bytes:
    return _answer(request, payload, (int(Option.OBSERVE), uint(order)), type=Type.NON, id=random.randrange(1 << 16))


def _flood(peer: HostileDevice, request: Message) -> list[bytes]:
    """An observation that is honoured four hundred times at once, and again with every request."""
    peer.order += BURST
    return [_answer(request, b"%d" % TRUTH, (int(Option.OBSERVE), uint(peer.order)))] + [
        _observed(request, peer.order + at + 1) for at in range(BURST)
    ]


MISDEEDS: Final[dict[str, Answers]] = {
    "silent": lambda peer, request: [],
    "rubbish": lambda peer, request: [os.urandom(random.randrange(1, 100)) for _ in range(5)],
    "text": lambda peer, request: [b"HTTP/1.1 400 Bad Request\r\n\r\n"],
    "cut": lambda peer, request: [_answer(request)[:-3] + b"\xff"],
    "wrong-token": lambda peer, request: [_answer(request, b"7", token=os.urandom(6))],
    "wrong-id": lambda peer, request: [_answer(request, b"7", id=request.id ^ 1)],
    "confirmable-wrong-token": lambda peer, request: [_answer(request, b"7", token=b"x", type=Type.CON)],
    "reset": lambda peer, request: [encode_udp(Message(code=EMPTY, type=Type.RST, id=request.id))],
    "only-acknowledges": lambda peer, request: [encode_udp(Message(code=EMPTY, type=Type.ACK, id=request.id))],
    "pings": lambda peer, request: [encode_udp(Message(code=EMPTY, type=Type.CON, id=at)) for at in range(BURST)],
    "requests": lambda peer, request: [encode_udp(Message(code=1, type=Type.CON, id=at, token=request.token)) for at in range(BURST)],
    "unasked": lambda peer, request: [_answer(request, b"7", token=os.urandom(8), type=Type.NON) for _ in range(BURST)],
    "huge-options": lambda peer, request: [_answer(request, b"%d" % TRUTH, *((60000, bytes(900)) for _ in range(60)))],
    "many-options": lambda peer, request: [_answer(request, b"%d" % TRUTH, *((2048, b"") for _ in range(5000)))],
    "critical-option": lambda peer, request: [_answer(request, b"7", (9999, b"x"))],
    "long-token": lambda peer, request: [bytes((0x6F,)) + _answer(request)[1:]],
    "huge-datagram": lambda peer, request: [_answer(request, b"4" * 60000)],
    "endless-blocks": lambda peer, request: [_block(request, _wanted(request), True)],
    "empty-blocks": lambda peer, request: [_answer(request, b"", Block(number=_wanted(request), more=True, exponent=0).option(23))],
    "same-block": lambda peer, request: [_block(request, 0, True)],
    "changing-blocks": lambda peer, request: [_block(request, _wanted(request), True, 64, (int(Option.ETAG), os.urandom(4)))],
    "far-block": lambda peer, request: [_block(request, 1 << 19, False)],
    "short-blocks": lambda peer, request: [_answer(request, b"4" * 3, Block(number=_wanted(request), more=True, exponent=6).option(23))],
    "unavailable": lambda peer, request: [_answer(request, b"", code=0xA3)],
    "odd-code": lambda peer, request: [_answer(request, b"7", code=0x5E + 0x60)],
    "unknown-format": lambda peer, request: [_answer(request, b"7", options=((int(Option.CONTENT_FORMAT), b"\xff\xff"),))],
    "no-number": lambda peer, request: [_answer(request, b"\xff\xfe" * 20)],
    "twice": lambda peer, request: [_answer(request)] * 2,
    "late": _late,
    "flood": _flood,
}


class HostileDevice(asyncio.DatagramProtocol):
    """``async with HostileDevice("late") as peer: ... peer.port``."""

    def __init__(self, misdeed: str) -> None:
        self.misdeed = misdeed
        self.port = 0
        self.requests = 0
        self.order = 1
        self.owed: list[bytes] = []
        self._transport: asyncio.DatagramTransport | None = None

    def heal(self) -> None:
        self.misdeed = ""

    async def __aenter__(self) -> Self:
        loop = asyncio.get_running_loop()
        self._transport, _ = await loop.create_datagram_endpoint(lambda: self, local_addr=("127.0.0.1", 0))
        self.port = int(self._transport.get_extra_info("sockname")[1])
        return self

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        assert self._transport is not None
        self._transport.close()
        await asyncio.sleep(0)

    def datagram_received(self, data: bytes, addr: Any) -> None:  # Any: as asyncio says
        assert self._transport is not None
        try:
            request = decode_udp(data)
        except Broken:
            return
        if not request.is_request:
            return
        self.requests += 1
        for answer in MISDEEDS[self.misdeed](self, request) if self.misdeed else [_answer(request)]:
            self._transport.sendto(answer, addr)


# ---------------------------------------------------------------------------------------------------------------- TCP

_CSM: Final = encode_tcp(Message(code=CSM))


def _reply(request: Message, payload: bytes = b"%d" % TRUTH, **changes: Any) -> bytes:  # Any: fields
    fields: dict[str, Any] = {"code": CONTENT, "token": request.token, "options": ((int(Option.CONTENT_FORMAT), b""),), "payload": payload}
    return encode_tcp(Message(**{**fields, **changes}))


STREAM_MISDEEDS: Final[dict[str, tuple[bytes, Callable[[Message], bytes | None]]]] = {
    # what is sent at once, and what for each request (None hangs up)
    "close-at-once": (b"", lambda request: None),
    "never-answer": (_CSM, lambda request: b""),
    "no-settings": (b"", _reply),
    "http": (b"HTTP/1.1 400 Bad Request\r\n\r\n", lambda request: None),
    "rubbish": (_CSM, lambda request: os.urandom(200)),
    "half-a-message": (_CSM, lambda request: _reply(request)[:-1]),
    "huge-length": (_CSM, lambda request: b"\xf0" + b"\xff" * 4 + b"\x45" + bytes(60_000)),
    "wrong-token": (_CSM, lambda request: _reply(request, b"7", token=os.urandom(6))),
    "unasked": (_CSM, lambda request: _reply(request, b"7", token=b"?") * BURST),
    "pings": (_CSM, lambda request: encode_tcp(Message(code=PING, token=b"?")) * 4 * BURST),
    "abort": (_CSM, lambda request: encode_tcp(Message(code=ABORT, payload=b"no"))),
    "requests": (_CSM, lambda request: encode_tcp(Message(code=1, token=b"?")) * BURST),
}


class HostileStream:
    """The same on TCP: ``async with HostileStream("pings") as peer: ... peer.port``."""

    def __init__(self, misdeed: str, tls: ssl.SSLContext | None = None) -> None:
        self.misdeed, self._tls = misdeed, tls
        self.port = 0
        self._server: asyncio.Server | None = None
        self._talks: set[asyncio.Task[None]] = set()

    def heal(self) -> None:
        self.misdeed = ""
        for talk in self._talks:
            talk.cancel()

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._welcome, "127.0.0.1", 0, ssl=self._tls)
        self.port = int(self._server.sockets[0].getsockname()[1])
        return self

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        assert self._server is not None
        self._server.close()
        for talk in tuple(self._talks):
            talk.cancel()
        await asyncio.gather(*self._talks, return_exceptions=True)

    def _welcome(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.get_running_loop().create_task(self._talk(reader, writer))
        self._talks.add(task)
        task.add_done_callback(self._talks.discard)

    async def _talk(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        greeting, answer_to = STREAM_MISDEEDS[self.misdeed] if self.misdeed else (_CSM, _reply)
        frames = Frames(1 << 16)
        try:
            with contextlib.suppress(OSError, Broken):
                writer.write(greeting)
                while data := await reader.read(1 << 16):
                    for request in frames.feed(data):
                        answer = answer_to(request) if request.is_request else b""
                        if answer is None:
                            return
                        writer.write(answer)
                    await writer.drain()
        finally:
            writer.transport.abort()


# ------------------------------------------------------------------------------------------------------------- OSCORE

MEDDLING: Final = ("silent", "flip", "replay", "strip", "plain", "swap")


class Meddler:
    """Stands between a gateway and a device that speak OSCORE on UDP, and spoils what the device answers."""

    def __init__(self, misdeed: str, device_port: int) -> None:
        self.misdeed, self._device_port = misdeed, device_port
        self.port = 0
        self._kept: list[bytes] = []
        self._inside: dict[Any, asyncio.DatagramTransport] = {}  # Any: an address
        self._outside: asyncio.DatagramTransport | None = None

    def heal(self) -> None:
        self.misdeed = ""

    async def __aenter__(self) -> Self:
        loop = asyncio.get_running_loop()
        self._outside, _ = await loop.create_datagram_endpoint(lambda: _Ear(self._asked), local_addr=("127.0.0.1", 0))
        self.port = int(self._outside.get_extra_info("sockname")[1])
        self._tasks: set[asyncio.Task[None]] = set()
        return self

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        assert self._outside is not None
        await asyncio.gather(*self._tasks)
        for transport in (self._outside, *self._inside.values()):
            transport.close()
        await asyncio.sleep(0)

    def _asked(self, data: bytes, address: Any) -> None:  # Any: as asyncio says
        task = asyncio.get_running_loop().create_task(self._pass_on(data, address))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _pass_on(self, data: bytes, address: Any) -> None:  # Any: as above
        if address not in self._inside:
            loop = asyncio.get_running_loop()
            ear = _Ear(lambda answer, _: self._answered(answer, address))
            self._inside[address], _ = await loop.create_datagram_endpoint(lambda: ear, remote_addr=("127.0.0.1", self._device_port))
        self._inside[address].sendto(data)

    def _answered(self, data: bytes, address: Any) -> None:  # Any: as above
        assert self._outside is not None
        for each in self._spoilt(data):
            self._outside.sendto(each, address)

    def _spoilt(self, data: bytes) -> list[bytes]:
        message = decode_udp(data)
        self._kept = [*self._kept[-20:], data]
        match self.misdeed:
            case "silent":
                return []
            case "flip":
                at = random.randrange(len(data) - 8, len(data))
                return [data[:at] + bytes((data[at] ^ 1,)) + data[at + 1 :]]
            case "replay":
                old = decode_udp(self._kept[0])
                return [encode_udp(msgspec.structs.replace(old, token=message.token, id=message.id))]
            case "swap":
                other = decode_udp(random.choice(self._kept))
                return [encode_udp(msgspec.structs.replace(message, payload=other.payload))]
            case "strip":
                return [encode_udp(msgspec.structs.replace(message, options=()))]
            case "plain":
                return [encode_udp(msgspec.structs.replace(message, code=CONTENT, options=(), payload=b"7"))]
        return [data]


class _Ear(asyncio.DatagramProtocol):
    def __init__(self, heard: Callable[[bytes, Any], None]) -> None:  # Any: as above
        self._heard = heard

    def datagram_received(self, data: bytes, addr: Any) -> None:  # Any: as above
        self._heard(data, addr)
