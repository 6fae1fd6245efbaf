"""Journals to harm: as a killed process leaves them, and as a clean stop leaves them."""

from __future__ import annotations

import os
import random
import shutil
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from gateway.journal import Journal, Lane
from protocols.clock import ManualClock
from tests.faults.journal.plant import Victim, copied, fill, options

RECORDS = 1000
EVENTS = 50


@dataclass(frozen=True, slots=True)
class Victims:
    """Two folders, never to be changed: harm copies."""

    live: Path
    closed: Path


@pytest.fixture
async def victims(tmp_path: Path) -> Victims:
    """Six segments."""
    journal = await Journal.open(options(tmp_path / "closed"), clock=ManualClock())
    journal._store.chains[Lane.TELEMETRY].roll_bytes = 60_000  # many small segments
    reader = journal.reader("cloud")
    await fill(journal, 0, RECORDS - 100)
    await fill(journal, 0, EVENTS, Lane.EVENTS)
    reader.acknowledge(Lane.TELEMETRY, 1, 100)
    await fill(journal, RECORDS - 100, 100)
    live = copied(tmp_path / "closed", tmp_path / "live")
    await journal.close()
    return Victims(live, tmp_path / "closed")


@pytest.fixture
def scratch() -> Iterator[Path]:
    """A folder in memory where there is one: thousands of cases need no disk, their fault is in the files."""
    memory = Path("/dev/shm")
    folder = Path(tempfile.mkdtemp(prefix="holdfast-", dir=memory if os.access(memory, os.W_OK) else None))
    yield folder
    shutil.rmtree(folder)


@pytest.fixture
async def rotten(scratch: Path) -> list[Victim]:
    """Small journals for many cases: several segments, reused WALs, records of several frames, accounts; stopped and killed."""
    clock = ManualClock()
    journal = await Journal.open(options(scratch / "made"), clock=clock)
    for chain in journal._store.chains.values():
        chain.roll_bytes, chain.wal_pages = 20_000, 8
    journal._store._roll_bytes = 20_000
    reader = journal.reader("cloud")
    for first in range(0, 150, 30):
        await fill(journal, first, 30, group=4)
        await fill(journal, first, 6, Lane.EVENTS, group=2)
        reader.acknowledge(Lane.TELEMETRY, 1, first + 10)
        await clock.advance(1.1)
    await fill(journal, 150, 10, group=2)
    return await killed_and_stopped(journal, scratch)


@pytest.fixture
async def truncated(scratch: Path) -> list[Victim]:
    """Small journals whose files are longer than 64 KiB each: a sealed one, the newest one, its WAL."""
    journal = await Journal.open(options(scratch / "made"), clock=ManualClock())
    telemetry = journal._store.chains[Lane.TELEMETRY]
    telemetry.roll_bytes, telemetry.wal_pages = 70_000, 16
    journal.reader("cloud")
    await fill(journal, 45, 10, Lane.EVENTS, group=2)
    for first in range(48, 698, 50):  # two small readings to a large one
        await fill(journal, first, 3, group=3)
        if telemetry.sealed:
            telemetry.roll_bytes = 10**9
    return await killed_and_stopped(journal, scratch)


async def killed_and_stopped(journal: Journal, scratch: Path) -> list[Victim]:
    killed = Victim(copied(scratch / "made", scratch / "killed"), scratch, "killed")
    await journal.close()
    return [killed, Victim(scratch / "made", scratch, "stopped")]


@pytest.fixture
def dice(request: pytest.FixtureRequest) -> random.Random:
    """Chance that can be repeated: the seed is printed, and taken from HOLDFAST_SEED where that is set."""
    seed = int(os.environ.get("HOLDFAST_SEED", random.SystemRandom().randrange(10**6)))
    print(f"{request.node.name}: HOLDFAST_SEED={seed}")  # noqa: T201 - who repeats a failure needs it
    return Seeded(seed)


class Seeded(random.Random):
    """Chance that knows where it began, for the figures of a campaign."""

    def __init__(self, seed: int) -> None:
        super().__init__(seed)
        self.begun_with = seed
