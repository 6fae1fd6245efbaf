"""S7 controllers that lie, stall or flood, by name; healed, each serves one data block that holds ``TRUTH`` everywhere."""

from __future__ import annotations

import asyncio
import contextlib
import struct
from collections.abc import Callable
from types import TracebackType
from typing import Final, Self

TRUTH: Final = 0x1234
PIECES: Final = 400
"""Pieces of a flood: 25 MB, more than anybody should keep."""
CONFIRM: Final = bytes.fromhex("0300000b06d00001000100")
Answer = Callable[[bytes], bytes]


def tpkt(pdu: bytes) -> bytes:
    return struct.pack(">BBH", 3, 0, 7 + len(pdu)) + b"\x02\xf0\x80" + pdu


def reply(request: bytes, parameters: bytes, data: bytes = b"", *, error: int = 0, kind: int = 3, number: int | None = None) -> bytes:
    """The PDU that answers ``request``."""
    asked = int.from_bytes(request[4:6], "big")
    head = struct.pack(">BBHHHHH", 0x32, kind, 0, asked if number is None else number, len(parameters), len(data), error)
    return head + parameters + data


def item(content: bytes, *, told: int | None = None, code: int = 0xFF) -> bytes:
    return struct.pack(">BBH", code, 4, 8 * len(content) if told is None else told) + content


def read(request: bytes, spoil: Answer | None = None) -> bytes:
    """The answer to a read of one item."""
    size = int.from_bytes(request[16:18], "big")
    content = (struct.pack(">H", TRUTH) * (size // 2 + 1))[:size]
    return tpkt(spoil(request) if spoil else reply(request, b"\x04\x01", item(content)))


MISDEEDS: Final[dict[str, Callable[[bytes], bytes | None] | None]] = {
    # name: what is answered to a read; None: see _misbehave
    "never-answer": None,
    "never-confirm": None,
    "slam": None,
    "http": None,
    "flood": None,
    "tiny-pdu": None,
    "refused-setup": None,
    "not-served": lambda request: tpkt(reply(request, b"", error=0x8104, kind=2)),
    "another-number": lambda request: read(request, lambda asked: reply(asked, b"\x04\x01", item(b"\0\7"), number=0xFFFF)),
    "another-function": lambda request: read(request, lambda asked: reply(asked, b"\x05\x01", item(b"\0\7"))),
    "more-items": lambda request: read(request, lambda asked: reply(asked, b"\x04\x02", item(b"\0\7") + item(b"\0\7"))),
    "long-item": lambda request: read(request, lambda asked: reply(asked, b"\x04\x01", item(b"\0\7" * 400))),
    "short-item": lambda request: read(request, lambda asked: reply(asked, b"\x04\x01", item(b"\7"))),
    "cut-item": lambda request: read(request, lambda asked: reply(asked, b"\x04\x01", item(b"\0", told=16))),
    "no-item": lambda request: read(request, lambda asked: reply(asked, b"\x04\x01")),
    "wrong-lengths": lambda request: read(request, lambda asked: reply(asked, b"\x04\x01", item(b"\0\7"))[:-1]),
    "refused-item": lambda request: read(request, lambda asked: reply(asked, b"\x04\x01", item(b"", told=4, code=5))),
    "not-s7": lambda request: read(request, lambda asked: b"\x72" + reply(asked, b"\x04\x01", item(b"\0\7"))[1:]),
    "empty-frame": lambda request: bytes.fromhex("03000007 02f080"),
    "short-frame": lambda request: bytes.fromhex("03000003"),
}


class HostileController:
    """``async with HostileController(misdeed) as peer``: on 127.0.0.1 at ``peer.port``, until ``peer.heal()``."""

    def __init__(self, misdeed: str) -> None:
        self._misdeed = misdeed
        self._server: asyncio.Server | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self.port = 0

    def heal(self) -> None:
        self._misdeed = ""

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        try:
            while True:
                head = await reader.readexactly(4)
                frame = await reader.readexactly(int.from_bytes(head[2:], "big") - 4)
                await self._answer(frame, writer)
        except (OSError, EOFError):
            return  # the client left, or was thrown out
        finally:
            self._tasks.discard(task)
            writer.transport.abort()

    async def _answer(self, frame: bytes, writer: asyncio.StreamWriter) -> None:
        misdeed, request = self._misdeed, frame[3:]
        if frame[1] == 0xE0:
            writer.write(b"" if misdeed == "never-confirm" else b"HTTP/1.1 400 Bad Request\r\n\r\n" if misdeed == "http" else CONFIRM)
        elif request[10:11] == b"\xf0":
            if misdeed == "refused-setup":
                writer.write(tpkt(reply(request, b"", error=0x8104)))
            else:
                writer.write(tpkt(reply(request, struct.pack(">BBHHH", 0xF0, 0, 1, 1, 20 if misdeed == "tiny-pdu" else 240))))
        elif misdeed == "flood":
            for _ in range(PIECES):
                writer.write(struct.pack(">BBH", 3, 0, 65535) + b"\x02\xf0\x80" + bytes(65528))
                await writer.drain()
        elif misdeed == "slam":
            writer.transport.abort()
        elif misdeed != "never-answer":
            spoilt = MISDEEDS.get(misdeed)
            writer.write((spoilt(request) if spoilt else read(request)) or b"")
        await writer.drain()

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.port = int(self._server.sockets[0].getsockname()[1])
        return self

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        assert self._server is not None
        self._server.close()
        for task in self._tasks:
            task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.gather(*self._tasks, return_exceptions=True)
