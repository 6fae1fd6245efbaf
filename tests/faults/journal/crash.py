"""Starting the writing process, hearing what it confirmed until it is gone, and judging what is left."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import sys
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

from gateway.journal import Lane
from protocols.clock import SystemClock
from tests.faults.journal.plant import Findings, Witness, inspect
from tests.peers.disk import Disk
from tests.peers.leash import leashed

ROOT = Path(__file__).parents[3]
WRITER = (sys.executable, str(Path(__file__).with_name("writer.py")))
WORDS = ("pid", "open", "stored", "given", "gone", "")
LIFE = 100_000
"""More readings than any life stores."""
ENVIRONMENT = {**os.environ, "PYTHONPATH": str(ROOT), "OPENBLAS_NUM_THREADS": "1"}


def hear(witness: Witness, line: bytes) -> str:
    """What a writer says goes to the witness; the first word is returned, "" at the end. A pipe takes a line wholly or not at all."""
    words = line.decode().split() or [""]
    assert words[0] in WORDS, f"a writer says nothing else: {line!r}"
    if words[0] in ("stored", "given"):
        note = witness.confirm if words[0] == "stored" else witness.give
        note(Lane(words[1]), int(words[2]), (int(words[3]), int(words[4])))
    return words[0]


@dataclass(slots=True)
class Writers:
    """A process with everything imported, which becomes a writer again and again."""

    process: asyncio.subprocess.Process
    first: int = 0
    """Of the next life's readings. Far above the last one's: what a life has stored and nobody has heard of is there too."""

    async def run_and_kill(self, folder: Path, witness: Witness, confirm_first: int, delay_s: float, power: Disk | None = None) -> bool:
        """Let a process write until ``confirm_first`` lines are heard and ``delay_s`` more, then kill it.

        With ``power``, that goes first, under a process that stands still: all that it has said, it has said before. Whether that
        cut off a call to the disk in its middle is returned.
        """
        inside = False
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(f"{folder} {self.first}\n".encode())
        self.first += LIFE
        words = (await self.process.stdout.readline()).split()
        pid = int(words[1])
        try:
            async with asyncio.timeout(60):
                for _ in range(confirm_first + 1):
                    assert hear(witness, await self.process.stdout.readline()) not in ("gone", ""), "the writer died by itself"
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(delay_s):
                    while hear(witness, await self.process.stdout.readline()) != "gone":
                        pass
                    raise AssertionError("the writer died by itself")
            if power is not None:
                inside = power.cut_under(pid)
        finally:
            with contextlib.suppress(ProcessLookupError):  # it died by itself, which was told above
                os.kill(pid, signal.SIGKILL)
        async with asyncio.timeout(60):
            while (word := hear(witness, await self.process.stdout.readline())) != "gone":
                assert word, "the starter of writers is gone"
        return inside


@contextlib.asynccontextmanager
async def writers() -> AsyncIterator[Writers]:
    process = await asyncio.create_subprocess_exec(
        *leashed(*WRITER), stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.DEVNULL, env=ENVIRONMENT
    )
    try:
        yield Writers(process)
    finally:
        process.kill()
        await process.wait()


async def judge(folder: Path, witness: Witness) -> Findings:
    """Every confirmed reading is there with its (epoch, seq), bit for bit and in order, none is lost, and the ledger balances."""
    return await inspect(folder, SystemClock(), witness=witness)
