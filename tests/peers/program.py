"""A peer that is another program, steered by one-line commands on its standard input.

It says ``ready ...`` when it serves, answers each command by one line (``ok ...`` or ``error ...``), and ends when its
standard input ends, or the test run (``leash.py``).
"""

from __future__ import annotations

import asyncio
from pathlib import Path
from types import TracebackType
from typing import Final, Self

from tests.peers.leash import leashed

PATIENCE_S: Final = 10.0
MAX_LINE: Final = 4 * 1024**2


class PeerFailed(Exception):
    """The peer did not start, ended, or did not understand a command."""


class Program:
    """``async with Program(path, arg, ...) as peer``: runs until the block ends."""

    def __init__(self, program: Path, *arguments: str) -> None:
        self._command = (str(program), *arguments)
        self._process: asyncio.subprocess.Process | None = None
        self._talk = asyncio.Lock()
        self.ready: list[str] = []
        """The words after ``ready``."""

    @property
    def pid(self) -> int:
        return self._running().pid

    async def ask(self, command: str) -> list[str]:
        """Send ``command``; the words after ``ok``. Raises PeerFailed for any other answer."""
        process = self._running()
        assert process.stdin is not None
        async with self._talk:
            process.stdin.write(command.encode() + b"\n")
            await process.stdin.drain()
            words = (await self._line(command)).split()
        if words[:1] != ["ok"]:
            raise PeerFailed(f"{self._command[0]}: {command[:80]!r} was answered {' '.join(words)!r}")
        return words[1:]

    async def start(self) -> None:
        pipe = asyncio.subprocess.PIPE
        self._process = await asyncio.create_subprocess_exec(*leashed(*self._command), stdin=pipe, stdout=pipe, limit=MAX_LINE)
        words = (await self._line("start")).split()
        if words[:1] != ["ready"]:
            await self.stop()
            raise PeerFailed(f"{' '.join(self._command)} did not start")
        self.ready = words[1:]

    async def stop(self) -> None:
        """End the program at once, as a power cut would end a device. Twice is fine."""
        if self._process is None:
            return
        process, self._process = self._process, None
        if process.returncode is None:
            process.kill()
        await process.wait()
        assert process.stdin is not None
        process.stdin.close()

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        await self.stop()

    def _running(self) -> asyncio.subprocess.Process:
        if self._process is None:
            raise PeerFailed(f"{self._command[0]} does not run")
        return self._process

    async def _line(self, doing: str) -> str:
        process = self._running()
        assert process.stdout is not None
        async with asyncio.timeout(PATIENCE_S):
            line = await process.stdout.readline()
        if not line.endswith(b"\n"):
            raise PeerFailed(f"{' '.join(self._command)} ended ({doing[:80]})")
        return line.decode()
