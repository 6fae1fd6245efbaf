"""A journal with six segments to harm: as a killed process leaves it, and as a clean stop leaves it."""

from __future__ import annotations

import os
import random
from dataclasses import dataclass
from pathlib import Path

import pytest

from gateway.journal import Journal, Lane
from protocols.clock import ManualClock
from tests.faults.journal.plant import copied, fill, options

RECORDS = 1000
EVENTS = 50


@dataclass(frozen=True, slots=True)
class Victims:
    """Two folders, never to be changed: harm copies."""

    live: Path
    closed: Path


@pytest.fixture
async def victims(tmp_path: Path) -> Victims:
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
def dice(request: pytest.FixtureRequest) -> random.Random:
    """Chance that can be repeated: the seed is printed, and taken from HOLDFAST_SEED where that is set."""
    seed = int(os.environ.get("HOLDFAST_SEED", random.SystemRandom().randrange(10**6)))
    print(f"{request.node.name}: HOLDFAST_SEED={seed}")  # noqa: T201 - who repeats a failure needs it
    return random.Random(seed)
