"""Starting the writing process, reading what it confirmed until it is gone, and judging what is left."""

from __future__ import annotations

import asyncio
import contextlib
import os
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from gateway.journal import Lane
from protocols.clock import SystemClock
from tests.faults.journal.plant import Findings, inspect

ROOT = Path(__file__).parents[3]


@dataclass(slots=True)
class Confirmed:
    """What all writers so far were told to be durable."""

    numbers: dict[Lane, dict[int, tuple[int, int]]] = field(default_factory=lambda: {lane: {} for lane in Lane})
    """(epoch, seq) by number."""

    def hear(self, line: str) -> None:
        words = line.split()
        if len(words) == 4:
            self.numbers[Lane(words[0])][int(words[1])] = (int(words[2]), int(words[3]))

    @property
    def next_number(self) -> int:
        return max((number for numbers in self.numbers.values() for number in numbers), default=-1) + 1000


async def run_and_kill(
    folder: Path, confirmed: Confirmed, confirm_first: int, delay_s: float, cut: Callable[[], None] | None = None
) -> None:
    """Let a process write until ``confirm_first`` readings are confirmed and ``delay_s`` more, then kill it.

    With ``cut``, the power goes first, and what the process says afterwards is not heard: on a real machine it could not say
    it, and an fsync that ext4's shutdown meets in flight may return success for what it has thrown away.
    """
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        str(Path(__file__).with_name("writer.py")),
        str(folder),
        str(confirmed.next_number),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.DEVNULL,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )
    assert process.stdout is not None
    try:
        async with asyncio.timeout(60):
            for _ in range(confirm_first + 1):
                line = await process.stdout.readline()
                assert line, "the writer died by itself"
                confirmed.hear(line.decode())
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(delay_s):
                while line := await process.stdout.readline():
                    confirmed.hear(line.decode())
        if cut is not None:
            cut()
    finally:
        process.kill()
        rest = await process.stdout.read()
        await process.wait()
    for line in rest.splitlines(keepends=True) if cut is None else ():
        if line.endswith(b"\n"):
            confirmed.hear(line.decode())


async def judge(folder: Path, confirmed: Confirmed) -> Findings:
    """Every confirmed reading is there with its (epoch, seq), bit for bit and in order, and the ledger balances."""
    found = await inspect(folder, SystemClock())
    assert found.wrong == 0
    for lane, numbers in confirmed.numbers.items():
        absent = {number: name for number, name in numbers.items() if found.identities[lane].get(number) != name}
        assert not absent, f"{lane}: {len(absent)} of {len(numbers)} confirmed readings are not there, such as {sorted(absent)[:5]}"
    return found
