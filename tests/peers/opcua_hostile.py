"""An OPC UA server gone wrong: a proxy in front of a real one that spoils what passes, until it is healed.

What it does it does to what the server sends: rubbish, a chunk without end, chunks without end, silence, a cut in the middle, bits
turned over. The client's side passes untouched.
"""

from __future__ import annotations

import asyncio
import random
import struct
from collections.abc import Callable
from types import TracebackType
from typing import Final, Self

MISDEEDS: Final = (
    "close-at-once",
    "never-answer",
    "rubbish",
    "http",
    "huge-chunk",
    "endless-chunks",
    "endless-bytes",
    "cut",
    "silent-later",
    "spoiled",
    "huge-count",
    "error",
)
LATER: Final = 2000
"""Bytes that pass before a misdeed that comes later."""


class HostileOpcUa:
    """``async with HostileOpcUa("huge-chunk", port) as peer: peer.port ... peer.heal()``."""

    def __init__(self, misdeed: str, target: int) -> None:
        assert misdeed in MISDEEDS
        self._misdeed, self._target = misdeed, target
        self._healed = False
        self._server: asyncio.Server | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self._random = random.Random(misdeed)
        self.port = 0

    def heal(self) -> None:
        """From now on everything passes; what is open is closed."""
        self._healed = True
        for task in tuple(self._tasks):
            task.cancel()

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._welcome, "127.0.0.1", 0)
        self.port = int(self._server.sockets[0].getsockname()[1])
        return self

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        assert self._server is not None
        self._server.close()
        tasks = tuple(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def _welcome(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.get_running_loop().create_task(self._serve(reader, writer))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        target: asyncio.StreamWriter | None = None
        try:
            if not self._healed and await self._at_once(reader, writer):
                return
            inner, target = await asyncio.open_connection("127.0.0.1", self._target)
            up = asyncio.ensure_future(_pump(reader, target))
            down = asyncio.ensure_future(_pump(inner, writer) if self._healed else self._spoil(inner, writer))
            try:
                await asyncio.wait({up, down}, return_when=asyncio.FIRST_COMPLETED)
            finally:
                up.cancel()
                down.cancel()
                await asyncio.gather(up, down, return_exceptions=True)
        except OSError:
            pass  # the client hung up, as it should
        finally:
            writer.close()
            if target is not None:
                target.close()

    async def _at_once(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        """Whether the misdeed is done before anything is served."""
        misdeed = self._misdeed
        if misdeed == "close-at-once":
            return True
        if misdeed not in ("never-answer", "rubbish", "http", "endless-bytes", "error"):
            return False
        await reader.read(100)
        if misdeed == "never-answer":
            await reader.read()
        elif misdeed == "rubbish":
            writer.write(self._random.randbytes(5000))
        elif misdeed == "http":
            writer.write(b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n")
        elif misdeed == "error":
            writer.write(b"ERRF" + struct.pack("<IIi", 16 + 3, 0x80830000, 3) + b"no!")
        else:
            await self._endlessly(writer, lambda: b"MSGC" + b"\xff" * 65536)
        await writer.drain()
        return True

    async def _spoil(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Pass the server's answers on for a while, then misbehave."""
        passed = 0
        while chunk := await reader.read(16384):
            passed += len(chunk)
            if passed > LATER:
                await self._misbehave(chunk, writer)
                if self._misdeed != "spoiled":
                    return
            else:
                writer.write(chunk)
            await writer.drain()

    async def _misbehave(self, chunk: bytes, writer: asyncio.StreamWriter) -> None:
        channel = chunk[8:12]
        if self._misdeed == "cut":
            writer.write(chunk[: len(chunk) // 2])
            await writer.drain()
        elif self._misdeed == "silent-later":
            await asyncio.Event().wait()
        elif self._misdeed == "spoiled":
            spoiled = bytearray(chunk)
            for _ in range(1 + len(spoiled) // 50):
                spoiled[self._random.randrange(min(24, len(spoiled) - 1), len(spoiled))] ^= 1 << self._random.randrange(8)
            writer.write(bytes(spoiled))
        elif self._misdeed == "huge-chunk":
            await self._endlessly(writer, lambda: b"\0" * 65536, first=b"MSGF" + struct.pack("<I", 0x7FFFFFFF) + channel)
        elif self._misdeed == "huge-count":
            # a well-made chunk whose array says that it has 2^31 - 1 elements
            header = b"\x01\x00\x3d\x03" + b"\0" * 17 + struct.pack("<i", 2**31 - 1) + b"\0" * 3
            body = chunk[:4] + struct.pack("<I", 24 + len(header)) + chunk[8:24] + header
            writer.write(body)
            await writer.drain()
        else:
            sequence = int.from_bytes(chunk[16:20], "little")

            def following() -> bytes:
                nonlocal sequence
                found = b"MSGC" + struct.pack("<I", 24 + 60000) + chunk[8:16] + struct.pack("<I", sequence) + chunk[20:24] + b"\0" * 60000
                sequence += 1
                return found

            await self._endlessly(writer, following)

    async def _endlessly(self, writer: asyncio.StreamWriter, content: Callable[[], bytes], first: bytes = b"") -> None:
        writer.write(first)
        for _ in range(4000):  # 240 MB: more than anybody may take
            writer.write(content())
            await writer.drain()


async def _pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while chunk := await reader.read(65536):
        writer.write(chunk)
        await writer.drain()
