"""A person at a terminal: a pseudo-terminal whose session is the console's own, as sshd and getty make it.

What is typed goes in as keys, what is seen is kept whole, and waiting is for words on the screen.
"""

from __future__ import annotations

import asyncio
import fcntl
import os
import struct
import sys
import termios
from asyncio.subprocess import Process
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Final

from tests.gateway.api.conftest import DEADLINE_S, Running
from tests.gateway.identity.rig import PASSWORD

ROOT: Final = Path(__file__).parents[2]
ROWS: Final = 24
PROMPT: Final = "\nedge> "
"""The gateway of the tests is called edge."""


class Person:
    """Types, and sees."""

    def __init__(self, process: Process, terminal: int) -> None:
        self.process, self._terminal = process, terminal
        self.seen = ""
        self._read_to = 0

    def type(self, keys: str) -> None:
        os.write(self._terminal, keys.encode())

    async def say(self, line: str, expected: str = PROMPT) -> str:
        """Type a line; what is seen until ``expected`` is."""
        self.type(line + "\n")
        return await self.sees(expected)

    async def sees(self, expected: str) -> str:
        """Wait until ``expected`` is seen; everything since the last look, up to its end."""
        async with asyncio.timeout(DEADLINE_S):
            while (at := self.seen.find(expected, self._read_to)) < 0:
                assert self.process.returncode is None, f"it ended without {expected!r}: {self.seen}"
                await asyncio.sleep(0.02)
        said, self._read_to = self.seen[self._read_to : at + len(expected)], at + len(expected)
        return said

    async def signs_in(self, name: str, password: str = PASSWORD) -> str:
        """Sign in, and see how the gateway is; with no name, by a token."""
        await self.sees("User: ")
        await self.say(name, "Password: " if name else "Token: ")
        return await self.say(password)

    def hangs_up(self) -> None:
        """The cable is pulled."""
        asyncio.get_running_loop().remove_reader(self._terminal)
        os.close(self._terminal)
        self._terminal = -1

    async def ends(self) -> int:
        async with asyncio.timeout(DEADLINE_S):
            return await self.process.wait()

    def look(self) -> None:
        try:
            self.seen += os.read(self._terminal, 65536).decode(errors="replace").replace("\r\n", "\n")
        except OSError:  # nobody has the other end any more
            asyncio.get_running_loop().remove_reader(self._terminal)

    def close(self) -> None:
        if self._terminal >= 0:
            self.hangs_up()


@asynccontextmanager
async def person(gateway: Running, *options: str, columns: int = 80) -> AsyncIterator[Person]:
    """The console of ``gateway`` on a terminal that obeys nothing, so that what is seen is what was sent."""
    mine, its = os.openpty()
    fcntl.ioctl(its, termios.TIOCSWINSZ, struct.pack("HHHH", ROWS, columns, 0, 0))
    ca = str(gateway.appliance.authority.certificate_file)
    process = await asyncio.create_subprocess_exec(
        *("setsid", "--ctty", sys.executable, "-m", "tui", "--url", gateway.url, "--ca", ca, *options),
        stdin=its,
        stdout=its,
        stderr=its,
        cwd=ROOT,
        env={"TERM": "dumb", "LANG": "C.UTF-8", "PATH": os.environ["PATH"]},
    )
    os.close(its)
    here = Person(process, mine)
    asyncio.get_running_loop().add_reader(mine, here.look)
    try:
        yield here
    finally:
        here.close()
        if process.returncode is None:
            process.kill()
        await process.wait()
