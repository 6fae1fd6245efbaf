"""Starting the writing process, hearing what it confirmed until it is gone, and judging what is left."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import sys
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from pathlib import Path

from gateway.journal import Lane
from protocols.clock import SystemClock
from tests.faults.journal.plant import Findings, Witness, inspect

ROOT = Path(__file__).parents[3]
WRITER = (sys.executable, str(Path(__file__).with_name("writer.py")))
LIFE = 100_000
"""More readings than any life stores."""
ENVIRONMENT = {**os.environ, "PYTHONPATH": str(ROOT), "OPENBLAS_NUM_THREADS": "1"}


def hear(witness: Witness, line: bytes) -> str:
    """What a writer says goes to the witness; the first word is returned. A pipe takes a line wholly or not at all."""
    words = line.decode().split() or [""]
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

    async def run_and_kill(
        self, folder: Path, witness: Witness, confirm_first: int, delay_s: float, cut: Callable[[], None] | None = None
    ) -> None:
        """Let a process write until ``confirm_first`` lines are heard and ``delay_s`` more, then kill it.

        With ``cut``, the power goes first, and what the process says afterwards is not heard: on a real machine it could not say
        it, and an fsync that ext4's shutdown meets in flight may return success for what it has thrown away.
        """
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
            if cut is not None:
                cut()
        finally:
            with contextlib.suppress(ProcessLookupError):  # without power it may end by itself
                os.kill(pid, signal.SIGKILL)
        async with asyncio.timeout(60):
            while (line := await self.process.stdout.readline()) != b"gone\n":
                assert line, "the starter of writers is gone"
                if cut is None:
                    hear(witness, line)


@contextlib.asynccontextmanager
async def writers() -> AsyncIterator[Writers]:
    process = await asyncio.create_subprocess_exec(
        *WRITER, stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.DEVNULL, env=ENVIRONMENT
    )
    try:
        yield Writers(process)
    finally:
        process.kill()
        await process.wait()


async def judge(folder: Path, witness: Witness) -> Findings:
    """Every confirmed reading is there with its (epoch, seq), bit for bit and in order, none is lost, and the ledger balances."""
    return await inspect(folder, SystemClock(), witness=witness)
