"""How another process looks into the journal of a running gateway: it asks the gateway, and never opens its files.

A Unix socket in the journal's folder, readable by the service's own user alone. One request a connection: a line of
JSON; the answer is lines of JSON until the end, the last of which is ``{"end": true}`` or ``{"error": "..."}``, so that
a broken answer cannot be taken for a whole one.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import aclosing, asynccontextmanager
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final

import msgspec
import structlog

from gateway import questions, wires
from gateway.journal import Journal, StorageError
from gateway.objections import Objection, Unavailable
from gateway.tasks import cancel
from protocols.clock import Clock, SystemClock

log = structlog.get_logger("holdfast.control")

SOCKET: Final = "control.sock"
MAX_LINE: Final = 24 * 1024 * 1024
"""A site document of 16 MiB fits, in base64."""
REQUEST_TIMEOUT_S: Final = 10.0
LISTEN_AGAIN_S: Final = 1.0
_Answer = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]
_Lines = Callable[[questions.Request], questions.Lines]
Answers = Mapping[Any, Callable[[Any], questions.Lines]]  # Any: a union of questions, and one of them
"""What answers each kind of question that is not about the journal or a connection. Raises Objection."""


class NotRunning(Exception):
    """No gateway serves this journal."""


class ControlError(Exception):
    """The gateway answered that it cannot; the text is its own."""


@asynccontextmanager
async def serving(
    journal: Journal,
    folder: Path,
    find: wires.Find = wires.nothing_runs,
    clock: Clock | None = None,
    answers: Answers = MappingProxyType({}),
) -> AsyncIterator[None]:
    """Answer questions about ``journal``, about the connections that ``find`` gives, and those of ``answers``, on
    ``folder/control.sock`` until left."""
    time = clock or SystemClock()

    def lines(request: questions.Request) -> questions.Lines:
        if isinstance(request, questions.OfConnection):
            return wires.answer(find, request, time)
        if isinstance(request, questions.OfJournal):
            return questions.answer(journal, request)
        for form, answer in answers.items():
            if isinstance(request, form):
                return answer(request)
        raise Unavailable(f"nothing in this gateway answers {type(request).__name__}")

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(ConnectionError):  # whoever asked has gone: nobody is left to tell
            await _answer(lines, reader, writer)
        writer.close()

    with _short(folder) as path:
        first = await _listen(answer, path)
        later = asyncio.create_task(_listen_later(answer, path)) if first is None else None
        try:
            yield
        finally:
            if later is not None:
                await cancel(later)
            if first is not None:
                first.close()
            _unlink(path)


async def _listen(answer: _Answer, path: str) -> asyncio.Server | None:
    """None where the disk has no room for one more name. Raises OSError for anything else."""
    _unlink(path)  # left by a crash: the journal's lock says that nobody else serves
    mask = os.umask(0o177)
    try:
        return await asyncio.start_unix_server(answer, path, limit=MAX_LINE)
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
        return None
    finally:
        os.umask(mask)


async def _listen_later(answer: _Answer, path: str) -> None:
    """Try until there is room, then listen until cancelled: a full disk keeps nothing else of the gateway from running."""
    log.warning("questions_not_answered", advice="the disk has no room for the socket; it is tried again every second")
    while (server := await _listen(answer, path)) is None:  # noqa: ASYNC110 - a file system tells nobody that it has room
        await asyncio.sleep(LISTEN_AGAIN_S)
    log.info("questions_answered")
    async with server:
        await server.serve_forever()


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


async def _answer(lines: _Lines, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    try:
        async with asyncio.timeout(REQUEST_TIMEOUT_S):
            request = msgspec.json.decode(await reader.readline(), type=questions.Request)
    except (ValueError, RecursionError, TimeoutError) as error:  # msgspec's errors are ValueErrors; the second is endless nesting
        writer.write(msgspec.json.encode({"error": f"not a request: {error}"}) + b"\n")
        await writer.drain()
        return
    end: dict[str, object] = {"end": True}
    try:
        async with aclosing(lines(request)) as answers:  # closed at once where whoever asked goes away
            async for line in answers:
                writer.write(msgspec.json.encode(line) + b"\n")
                await writer.drain()
    except (
        StorageError,
        wires.CannotLook,
        Objection,
    ) as error:  # that is an answer too, and everything else goes on
        end = {"error": str(error)}
    writer.write(msgspec.json.encode(end) + b"\n")
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
