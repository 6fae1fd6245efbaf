"""How another process looks into the journal of a running gateway: it asks the gateway, and never opens its files.

A Unix socket in the journal's folder, readable by the service's own user alone. One request a connection: a line of
JSON; the answer is lines of JSON until the end, the last of which is ``{"end": true}`` or ``{"error": "..."}``, so that
a broken answer cannot be taken for a whole one.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Final

import msgspec

from gateway import questions
from gateway.journal import Journal

SOCKET: Final = "control.sock"
MAX_LINE: Final = 1024 * 1024
REQUEST_TIMEOUT_S: Final = 10.0


class NotRunning(Exception):
    """No gateway serves this journal."""


class ControlError(Exception):
    """The gateway answered that it cannot; the text is its own."""


@asynccontextmanager
async def serving(journal: Journal, folder: Path) -> AsyncIterator[None]:
    """Answer questions about ``journal`` on ``folder/control.sock`` until left."""

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(ConnectionError):  # whoever asked has gone: nobody is left to tell
            await _answer(journal, reader, writer)
        writer.close()

    with _short(folder) as path:
        _unlink(path)  # left by a crash: the journal's lock says that nobody else serves
        mask = os.umask(0o177)
        try:
            server = await asyncio.start_unix_server(answer, path, limit=MAX_LINE)
        finally:
            os.umask(mask)
        try:
            yield
        finally:
            server.close()
            _unlink(path)


async def ask(folder: Path, request: questions.Request) -> questions.Lines:
    """The lines that the gateway serving the journal in ``folder`` answers. Raises NotRunning, ControlError."""
    with _short(folder) as path:
        try:
            reader, writer = await asyncio.open_unix_connection(path, limit=MAX_LINE)
        except (FileNotFoundError, ConnectionRefusedError) as error:
            raise NotRunning(f"no gateway runs on the journal in {folder}") from error
    try:
        writer.write(msgspec.json.encode(request) + b"\n")
        while line := await reader.readline():
            answer = msgspec.json.decode(line)
            if "error" in answer:
                raise ControlError(answer["error"])
            if "end" in answer:
                return
            yield answer
        raise ControlError("the gateway ended in the middle of its answer: ask again when it is back")
    finally:
        writer.close()


async def _answer(journal: Journal, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    try:
        async with asyncio.timeout(REQUEST_TIMEOUT_S):
            request = msgspec.json.decode(await reader.readline(), type=questions.Request)
    except (ValueError, RecursionError, TimeoutError) as error:  # msgspec's errors are ValueErrors; the second is endless nesting
        writer.write(msgspec.json.encode({"error": f"not a request: {error}"}) + b"\n")
        await writer.drain()
        return
    async for line in questions.answer(journal, request):
        writer.write(msgspec.json.encode(line) + b"\n")
        await writer.drain()
    writer.write(b'{"end":true}\n')
    await writer.drain()


def _unlink(path: str) -> None:
    Path(path).unlink(missing_ok=True)


class _short:
    """A path to the socket that fits the 108 bytes of sockaddr_un(7) however deep the folder lies."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._fd = -1

    def __enter__(self) -> str:
        path = str(self._folder / SOCKET)
        if len(os.fsencode(path)) < 100:
            return path
        self._fd = os.open(self._folder, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        return f"/proc/self/fd/{self._fd}/{SOCKET}"

    def __exit__(self, *_: object) -> None:
        if self._fd >= 0:
            os.close(self._fd)
