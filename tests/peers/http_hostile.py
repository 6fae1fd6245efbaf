"""HTTP servers that lie, stall, flood or speak something else, by name. Healed, they answer as they should.

Each misdeed is a coroutine that has one connection to itself; its requests are read by the few lines below, not by a library.
The one right answer holds ``TRUTH``; wherever a misdeed smuggles in a value that nobody asked for, it is ``LIE``.
"""

from __future__ import annotations

import asyncio
import contextlib
import gzip
import ssl
import zlib
from collections.abc import Awaitable, Callable
from types import TracebackType
from typing import Final, Self

TRUTH: Final = 4242
LIE: Final = 666
RIGHT: Final = b'{"level":%d}' % TRUTH
WRONG: Final = b'{"level":%d}' % LIE


def whole(body: bytes, *headers: bytes, status: bytes = b"200 OK", kind: bytes = b"application/json") -> bytes:
    """A right answer with ``body``."""
    lines = [b"HTTP/1.1 " + status, b"Content-Type: " + kind, b"Content-Length: %d" % len(body), *headers]
    return b"\r\n".join(lines) + b"\r\n\r\n" + body


class Talk:
    """One connection as seen by the server."""

    def __init__(self, peer: HostileServer, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.peer, self._reader, self._writer = peer, reader, writer

    async def request(self) -> bytes:
        """The head of the next request, whose body (if any) is read over."""
        head = await self._reader.readuntil(b"\r\n\r\n")
        for line in head.split(b"\r\n"):
            if line.lower().startswith(b"content-length:"):
                await self._reader.readexactly(int(line.split(b":")[1]))
        return head

    async def say(self, data: bytes) -> None:
        self._writer.write(data)
        await self._writer.drain()

    async def flood(self, head: bytes, part: bytes, most: int) -> None:
        """``part`` again and again, as long as the other side takes it, at most ``most`` bytes."""
        await self.say(head)
        sent = 0
        while sent < most:
            await self.say(part)
            sent += len(part)


Misdeed = Callable[[Talk], Awaitable[None]]
FLOOD: Final = 200_000_000


def _says(answer: bytes) -> Misdeed:
    async def misdeed(talk: Talk) -> None:
        while True:
            await talk.request()
            await talk.say(answer)

    return misdeed


def _says_and_closes(answer: bytes) -> Misdeed:
    async def misdeed(talk: Talk) -> None:
        await talk.request()
        await talk.say(answer)

    return misdeed


def _floods(head: bytes, part: bytes) -> Misdeed:
    async def misdeed(talk: Talk) -> None:
        await talk.request()
        await talk.flood(head, part, FLOOD)

    return misdeed


async def _close_at_once(talk: Talk) -> None:
    """Nothing is read, nothing said."""


async def _never_answer(talk: Talk) -> None:
    await talk.request()
    await asyncio.Event().wait()


async def _slow_drip(talk: Talk) -> None:
    await talk.request()
    for byte in whole(WRONG + b" " * 100000):
        await talk.say(bytes((byte,)))
        await asyncio.sleep(0.02)  # it drips: that is what it does


async def _banner(talk: Talk) -> None:
    await talk.say(b"SSH-2.0-OpenSSH_9.2\r\n")
    await asyncio.Event().wait()


async def _smuggle(talk: Talk) -> None:
    """A second answer hangs at the first: to the next request it would be a lie."""
    while True:
        await talk.request()
        await talk.say(whole(b'{"other":1}') + whole(WRONG))


async def _redirect(talk: Talk) -> None:
    """To a server on loopback that tells a lie: ourselves, at another port."""
    while True:
        await talk.request()
        location = b"Location: http://127.0.0.1:%d/level" % talk.peer.trap_port
        await talk.say(whole(b"", location, status=b"302 Found"))


async def _redirect_round(talk: Talk) -> None:
    while True:
        await talk.request()
        await talk.say(whole(b"", b"Location: /level", status=b"302 Found"))


def _bomb() -> bytes:
    """300 MB of blanks around a lie, in a few hundred kB."""
    packer = zlib.compressobj(9, zlib.DEFLATED, 31)
    packed = b"".join(packer.compress(b" " * 1_000_000) for _ in range(300))
    return packed + packer.compress(WRONG) + packer.flush()


MISDEEDS: Final[dict[str, Callable[[], Misdeed]]] = {
    "close-at-once": lambda: _close_at_once,
    "never-answer": lambda: _never_answer,
    "slow-drip": lambda: _slow_drip,
    "banner": lambda: _banner,
    "endless-body": lambda: _floods(b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n\r\n" + WRONG, b" " * 65536),
    "endless-chunks": lambda: _floods(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", b"10000\r\n" + b" " * 65536 + b"\r\n"),
    "endless-tiny-chunks": lambda: _floods(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", b"1\r\n \r\n" * 5000),
    "endless-headers": lambda: _floods(b"HTTP/1.1 200 OK\r\n", b"X-Flood: " + b"x" * 4000 + b"\r\n"),
    "one-endless-header": lambda: _floods(b"HTTP/1.1 200 OK\r\nX-Flood: ", b"x" * 65536),
    "endless-status-line": lambda: _floods(b"HTTP/1.1 200 ", b"O" * 65536),
    "endless-100-continue": lambda: _floods(b"", b"HTTP/1.1 100 Continue\r\n\r\n" * 1000),
    "endless-trailers": lambda: _floods(
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n", b"X-Flood: " + b"x" * 4000 + b"\r\n"
    ),
    "huge-length": lambda: _says_and_closes(b"HTTP/1.1 200 OK\r\nContent-Length: 999999999999\r\n\r\n" + WRONG),
    "negative-length": lambda: _says_and_closes(b"HTTP/1.1 200 OK\r\nContent-Length: -5\r\n\r\n" + WRONG),
    "two-lengths": lambda: _says_and_closes(b"HTTP/1.1 200 OK\r\nContent-Length: 13\r\nContent-Length: 5\r\n\r\n" + WRONG),
    "length-and-chunks": lambda: _says_and_closes(
        b"HTTP/1.1 200 OK\r\nContent-Length: 13\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n" + WRONG
    ),
    "closed-in-the-body": lambda: _says_and_closes(b"HTTP/1.1 200 OK\r\nContent-Length: 500\r\n\r\n" + WRONG),
    "closed-in-the-head": lambda: _says_and_closes(b"HTTP/1.1 200 OK\r\nContent-Le"),
    "closed-in-a-chunk": lambda: _says_and_closes(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nff\r\n" + WRONG),
    "chunked-garbage": lambda: _says_and_closes(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n\xff\xfe\x00zz\r\n" + WRONG),
    "chunk-overflow": lambda: _says_and_closes(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nffffffffffffffffff\r\n" + WRONG),
    "short-length": lambda: _says(b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 6\r\n\r\n" + WRONG),
    "smuggle": lambda: _smuggle,
    "gzip-bomb": lambda: _says(whole(_bomb(), b"Content-Encoding: gzip")),
    "gzip-garbage": lambda: _says(whole(WRONG, b"Content-Encoding: gzip")),
    "gzip-cut": lambda: _says(whole(gzip.compress(WRONG + b" " * 5000)[:-9], b"Content-Encoding: gzip")),
    "unknown-packing": lambda: _says(whole(WRONG, b"Content-Encoding: br")),
    "deep-json": lambda: _says(whole(b"[" * 200_000)),
    "no-json": lambda: _says(whole(b"<html>lost</html>", kind=b"text/html")),
    "half-text": lambda: _says(whole(b'{"level":"\xff\xfe"}')),
    "redirect-to-loopback": lambda: _redirect,
    "redirect-round": lambda: _redirect_round,
    "never-changed": lambda: _says(b'HTTP/1.1 304 Not Modified\r\nETag: "x"\r\n\r\n'),
    "busy-for-ever": lambda: _says(whole(b"", b"Retry-After: 99999999999999999999", status=b"503 Busy")),
    "strange-status": lambda: _says(whole(WRONG, status=b"799 \x1b[2J\x07")),
    "upgrade": lambda: _says(b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: upgrade\r\n\r\n" + WRONG),
    "digest-nonsense": lambda: _says(whole(b"", b'WWW-Authenticate: Digest realm="' + b"\\" * 4000 + b"=,=,=", status=b"401 No")),
}


class HostileServer:
    """``async with HostileServer("gzip-bomb") as peer``: on 127.0.0.1 at ``peer.port``."""

    def __init__(self, misdeed: str, *, tls: ssl.SSLContext | None = None) -> None:
        self._misdeed = MISDEEDS[misdeed]()
        self._tls = tls
        self._healed = False
        self._servers: list[asyncio.Server] = []
        self._talks: set[asyncio.Task[None]] = set()
        self.port = self.trap_port = 0
        self.visits = 0
        """How many connections there were."""
        self.trapped = 0
        """How often somebody came to where a redirect led."""

    def heal(self) -> None:
        self._healed = True
        for talk in self._talks:
            talk.cancel()

    async def __aenter__(self) -> Self:
        server = await asyncio.start_server(self._welcome, "127.0.0.1", 0, ssl=self._tls)
        trap = await asyncio.start_server(self._trap, "127.0.0.1", 0)
        self._servers = [server, trap]
        self.port, self.trap_port = (int(each.sockets[0].getsockname()[1]) for each in self._servers)
        return self

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        for server in self._servers:
            server.close()
        for talk in self._talks:
            talk.cancel()
        await asyncio.gather(*self._talks, return_exceptions=True)

    def _welcome(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.visits += 1
        talk = asyncio.get_running_loop().create_task(self._talk(reader, writer))
        self._talks.add(talk)
        talk.add_done_callback(self._talks.discard)

    async def _talk(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            with contextlib.suppress(OSError, asyncio.IncompleteReadError):  # the client has had enough
                await (_says(whole(RIGHT)) if self._healed else self._misdeed)(Talk(self, reader, writer))
        finally:
            writer.close()

    async def _trap(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.trapped += 1
        writer.write(whole(WRONG))
        writer.close()
