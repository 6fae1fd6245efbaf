"""A TCP proxy that does to a connection what networks do: cut, reset, black hole, refusal, delay, little bandwidth.

It stands between a client and a peer on loopback and is switched while it runs. A *black hole* keeps connections open
and swallows what is sent into them, as a firewall that forgot or a cable that was pulled does, both ways or (half-open)
one way only; a *cut* says goodbye (FIN), a *reset* does not (RST), a *tear* is a cut in the middle of what is sent.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import ssl
import struct
from types import TracebackType
from typing import Final, Self

CHUNK: Final = 16 * 1024
LINGER_NOT: Final = struct.pack("ii", 1, 0)
"""SO_LINGER with no time: closing sends RST."""


class Proxy:
    """``async with Proxy("127.0.0.1", broker.port) as proxy: ... proxy.port``."""

    def __init__(self, host: str, port: int, *, tls: ssl.SSLContext | None = None) -> None:
        """With ``tls`` clients speak TLS to the proxy, and the proxy speaks in the clear to the target."""
        self.target = (host, port)
        """Where new connections lead."""
        self._tls = tls
        self.port = 0
        self.delay_s = 0.0
        """How long each chunk waits before it is passed on, each way."""
        self.bytes_per_s = 0.0
        """Bandwidth of each connection and direction; 0 is no limit."""
        self.accepted = 0
        self.up_bytes = self.down_bytes = 0
        self._open = {True: asyncio.Event(), False: asyncio.Event()}
        """By direction, True is from the client to the target: whether anything passes."""
        for way in self._open.values():
            way.set()
        self._tear_after: int | None = None
        self._server: asyncio.Server | None = None
        self._held: socket.socket | None = None
        self._connections: dict[asyncio.Task[None], list[asyncio.StreamWriter]] = {}

    @property
    def connections(self) -> int:
        return len(self._connections)

    async def cut(self) -> None:
        """Close every connection politely. New ones are let through."""
        await self._end_all()

    async def reset(self) -> None:
        """Break every connection without a word. New ones are let through."""
        for writer in (writer for writers in self._connections.values() for writer in writers):
            if not writer.is_closing():
                writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, LINGER_NOT)
        await self._end_all()

    def black_hole(self, *, up: bool = True, down: bool = True) -> None:
        """From now on nothing passes on any connection, old or new; nobody is told. Half-open: only ``up``, to the
        target, or only ``down`` is dead."""
        for way, dead in ((True, up), (False, down)):
            if dead:
                self._open[way].clear()

    def tear(self, after_bytes: int) -> None:
        """Let so many more bytes up, over all connections, then cut the one that sends the next."""
        self._tear_after = after_bytes

    async def refuse(self) -> None:
        """Break every connection and refuse new ones."""
        if self._server is not None:
            self._server.close()
            self._server = None
            self._held = socket.socket()  # bound and not listening: it refuses, and nobody else gets the port meanwhile
            self._held.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            self._held.bind(("127.0.0.1", self.port))
        await self.reset()

    async def heal(self) -> None:
        """Let everything pass again. What a black hole swallowed while it was one is delivered late, as TCP would."""
        self._tear_after = None
        for way in self._open.values():
            way.set()
        if self._server is None:
            self._server = await asyncio.start_server(self._welcome, sock=self._held, ssl=self._tls)
            self._held = None

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._welcome, "127.0.0.1", self.port, ssl=self._tls)
        self.port = int(self._server.sockets[0].getsockname()[1])
        return self

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        await self.refuse()
        if self._held is not None:
            self._held.close()

    def _welcome(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.accepted += 1
        task = asyncio.get_running_loop().create_task(self._join(reader, writer))
        self._connections[task] = [writer]
        task.add_done_callback(self._connections.pop)

    async def _end_all(self) -> None:
        tasks = tuple(self._connections)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _join(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        writers = self._connections[task]
        try:
            await self._open[True].wait()
            target_reader, target_writer = await asyncio.open_connection(*self.target)
            writers.append(target_writer)
            await self._pump_both((reader, target_writer, True), (target_reader, writer, False))
        except OSError:
            pass  # the target is gone: the client is hung up on
        finally:
            for each in writers:
                each.close()
            for each in writers:
                with contextlib.suppress(OSError):
                    await each.wait_closed()

    async def _pump_both(self, *ways: tuple[asyncio.StreamReader, asyncio.StreamWriter, bool]) -> None:
        pumps = [asyncio.ensure_future(self._pump(*way)) for way in ways]
        try:
            await asyncio.wait(pumps, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for pump in pumps:
                pump.cancel()
            await asyncio.gather(*pumps, return_exceptions=True)

    async def _pump(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, up: bool) -> None:
        way = self._open[up]
        while chunk := await reader.read(CHUNK):
            await way.wait()
            pause = self.delay_s + (len(chunk) / self.bytes_per_s if self.bytes_per_s else 0.0)
            if pause:
                await asyncio.sleep(pause)
                await way.wait()
            part = self._whole_or_torn(chunk) if up else chunk
            if up:
                self.up_bytes += len(part)
            else:
                self.down_bytes += len(part)
            writer.write(part)
            await writer.drain()
            if len(part) < len(chunk):
                return

    def _whole_or_torn(self, chunk: bytes) -> bytes:
        """What of ``chunk`` still passes."""
        if self._tear_after is None:
            return chunk
        part = chunk[: self._tear_after]
        self._tear_after = None if len(part) < len(chunk) else self._tear_after - len(part)
        return part
