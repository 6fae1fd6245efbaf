"""TCP peers that are no good Modbus device: broken, slow, lying, silent, or something else altogether.

``MISDEEDS`` is the list, by name; each is a coroutine that has the connection to itself. A peer that answers at all knows
one unit (:class:`tests.peers.unit.Unit`) and speaks TCP or RTU frames, so that exactly one thing is wrong with it.
Between misdeeds it can be healed: a healed peer answers as it should.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import ssl
import struct
from collections.abc import Awaitable, Callable
from types import TracebackType
from typing import Final, Literal, Self

from tests.peers.unit import Unit, rtu_frame, tcp_frame

Framing = Literal["tcp", "rtu"]
MAX_REQUEST: Final = 300


class Talk:
    """One connection as seen by the peer: requests in, answers out."""

    def __init__(self, peer: HostilePeer, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.peer, self.reader, self.writer = peer, reader, writer

    async def request(self) -> tuple[int, int, bytes]:
        """Transaction id (0 for RTU), unit id and PDU of the next request. Raises IncompleteReadError at its end."""
        if self.peer.framing == "tcp":
            transaction, _, length, unit_id = struct.unpack(">HHHB", await self.reader.readexactly(7))
            pdu = await self.reader.readexactly(min(length, MAX_REQUEST) - 1)
        else:
            transaction, (unit_id, function) = 0, await self.reader.readexactly(2)
            pdu = bytes([function]) + await self._rest_of_rtu(function)
        self.peer.requests += 1
        return transaction, unit_id, pdu

    async def _rest_of_rtu(self, function: int) -> bytes:
        if function not in (15, 16):
            return (await self.reader.readexactly(8 if function == 22 else 6))[:-2]
        head = await self.reader.readexactly(5)
        return head + (await self.reader.readexactly(head[4] + 2))[:-2]

    def frame(self, transaction: int, unit_id: int, pdu: bytes) -> bytes:
        return tcp_frame(transaction, unit_id, pdu) if self.peer.framing == "tcp" else rtu_frame(unit_id, pdu)

    async def send(self, content: bytes) -> None:
        self.writer.write(content)
        await self.writer.drain()

    async def answer(self) -> tuple[int, int, bytes]:
        """Take a request; what a good device would answer: transaction id, unit id, PDU."""
        transaction, unit_id, pdu = await self.request()
        return transaction, unit_id, self.peer.unit.answer(pdu)


Misdeed = Callable[[Talk], Awaitable[None]]


async def behave(talk: Talk) -> None:
    """Every answer as it should be."""
    while True:
        await talk.send(talk.frame(*await talk.answer()))


def _each(change: Callable[[Talk, int, int, bytes], bytes]) -> Misdeed:
    """A peer that gives ``change(talk, transaction, unit id, pdu)`` for each answer."""

    async def misdeed(talk: Talk) -> None:
        while True:
            await talk.send(change(talk, *await talk.answer()))

    return misdeed


async def _close_at_once(talk: Talk) -> None:
    talk.writer.close()


async def _close_on_request(talk: Talk) -> None:
    await talk.request()


async def _half_an_answer(talk: Talk) -> None:
    frame = talk.frame(*await talk.answer())
    await talk.send(frame[: len(frame) // 2])


async def _never_answer(talk: Talk) -> None:
    while await talk.reader.read(4096):
        talk.peer.requests += 1


async def _trickle(talk: Talk) -> None:
    """One byte a second of an answer that would be right."""
    while True:
        for byte in talk.frame(*await talk.answer()):
            await talk.send(bytes([byte]))
            await asyncio.sleep(talk.peer.pace_s)


async def _late(talk: Talk) -> None:
    """The answer to each request comes when the next is asked: always a right frame, always too late."""
    owed = b""
    while True:
        answer = talk.frame(*await talk.answer())
        await talk.send(owed)
        owed = answer


async def _endless(talk: Talk) -> None:
    while True:
        await talk.send(os.urandom(4096))


async def _endless_zeros(talk: Talk) -> None:
    while True:
        await talk.send(bytes(4096))


async def _huge_length(talk: Talk) -> None:
    """A header that promises 65,535 bytes (RTU: 255 where 250 can be), and then bytes without end."""
    transaction, unit_id, _ = await talk.request()
    await talk.send(
        struct.pack(">HHHBBB", transaction, 0, 0xFFFF, unit_id, 3, 255) if talk.peer.framing == "tcp" else bytes([unit_id, 3, 255])
    )
    while True:
        await talk.send(bytes(1024))
        await asyncio.sleep(0.005)


async def _http(talk: Talk) -> None:
    await talk.reader.read(64)
    await talk.send(b"HTTP/1.1 400 Bad Request\r\nContent-Type: text/html\r\nConnection: close\r\n\r\n<h1>400 Bad Request</h1>\n")


async def _ssh(talk: Talk) -> None:
    await talk.send(b"SSH-2.0-OpenSSH_9.2p1 Debian-2\r\n")
    await talk.reader.read()


async def _twice(talk: Talk) -> None:
    while True:
        frame = talk.frame(*await talk.answer())
        await talk.send(frame + frame)


MISDEEDS: Final[dict[str, Misdeed]] = {
    "close-at-once": _close_at_once,
    "close-on-request": _close_on_request,
    "half-an-answer": _half_an_answer,
    "never-answer": _never_answer,
    "trickle": _trickle,
    "late": _late,
    "twice": _twice,
    "endless": _endless,
    "endless-zeros": _endless_zeros,
    "huge-length": _huge_length,
    "http": _http,
    "ssh": _ssh,
    "rubbish": _each(lambda talk, transaction, unit, pdu: os.urandom(len(pdu) + 7)),
    "wrong-transaction": _each(lambda talk, transaction, unit, pdu: talk.frame(transaction + 1 & 0xFFFF, unit, pdu)),
    "wrong-unit": _each(lambda talk, transaction, unit, pdu: talk.frame(transaction, unit + 1 & 0xFF, pdu)),
    "wrong-function": _each(lambda talk, transaction, unit, pdu: talk.frame(transaction, unit, bytes([pdu[0] ^ 7]) + pdu[1:])),
    "wrong-count": _each(lambda talk, transaction, unit, pdu: talk.frame(transaction, unit, _shortened(pdu))),
    "wrong-byte-count": _each(lambda talk, transaction, unit, pdu: talk.frame(transaction, unit, pdu[:1] + b"\x03" + pdu[2:])),
    "wrong-protocol": _each(lambda talk, transaction, unit, pdu: _other_protocol(talk.frame(transaction, unit, pdu))),
    "short-length": _each(lambda talk, transaction, unit, pdu: struct.pack(">HHHB", transaction, 0, 0, unit) + pdu),
    "unknown-exception": _each(lambda talk, transaction, unit, pdu: talk.frame(transaction, unit, bytes([pdu[0] | 0x80, 0x63]))),
    "every-exception": _each(lambda talk, transaction, unit, pdu: talk.frame(transaction, unit, bytes([pdu[0] | 0x80, 4]))),
    "empty-exception": _each(lambda talk, transaction, unit, pdu: talk.frame(transaction, unit, bytes([pdu[0] | 0x80]))),
}
TCP_ONLY: Final = frozenset({"wrong-transaction", "wrong-protocol", "short-length"})
"""Misdeeds that need a field that RTU frames do not have."""


def _shortened(pdu: bytes) -> bytes:
    """A well-formed answer that holds less than was asked for."""
    keep = max(2, len(pdu[2:]) // 4 * 2)
    return bytes([pdu[0], keep]) + pdu[2 : 2 + keep]


def _other_protocol(frame: bytes) -> bytes:
    return frame[:2] + b"\x12\x34" + frame[4:]


class HostilePeer:
    """``async with HostilePeer("late") as peer: ... peer.port``."""

    def __init__(
        self, misdeed: str, *, framing: Framing = "tcp", unit: Unit | None = None, pace_s: float = 1.0, tls: ssl.SSLContext | None = None
    ) -> None:
        """``pace_s`` is the pause between the bytes of a trickle; with ``tls`` everything happens inside TLS."""
        self.misdeed, self.framing, self.unit, self.pace_s = misdeed, framing, unit or Unit(), pace_s
        self._tls = tls
        self.port = 0
        self.accepted = 0
        self.requests = 0
        self._server: asyncio.Server | None = None
        self._talks: set[asyncio.Task[None]] = set()

    def heal(self) -> None:
        """Behave from the next connection on, and hang up on the present ones."""
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
        self.accepted += 1
        task = asyncio.get_running_loop().create_task(self._talk(reader, writer))
        self._talks.add(task)
        task.add_done_callback(self._talks.discard)

    async def _talk(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        misdeed = MISDEEDS[self.misdeed] if self.misdeed else behave
        try:
            with contextlib.suppress(asyncio.IncompleteReadError, OSError):
                await misdeed(Talk(self, reader, writer))
        finally:
            writer.close()
            with contextlib.suppress(OSError):
                await writer.wait_closed()
