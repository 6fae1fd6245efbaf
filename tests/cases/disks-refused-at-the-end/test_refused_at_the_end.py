"""Records that were refused are told although none is stored after them."""

from __future__ import annotations

import asyncio
import contextlib
import json
from pathlib import Path
from typing import Any, Final

import numpy as np

from gateway.config.model import JournalOptions
from gateway.journal import Journal, Lane, Lost, NotStored
from gateway.uplink.feed import Feed
from protocols.clock import ManualClock
from protocols.model import Batch, Device, Kind, Tag

STEPS: Final[dict[str, Any]] = json.loads((Path(__file__).parent / "steps.json").read_text())  # Any: JSON
VALUES: Final[int] = STEPS["values"]
METER: Final = Device("line", "meter", tuple(Tag(name=f"t{n}", kind=Kind.FLOAT64) for n in range(VALUES)))
NOISE: Final = np.random.default_rng(1).normal(size=VALUES)  # nothing that compression makes small


def reading(number: int) -> Batch:
    times = np.full(VALUES, number, dtype=np.int64)
    return Batch(METER, np.arange(VALUES, dtype=np.uint32), NOISE + number, np.zeros(VALUES, dtype=np.uint32), times)


async def test_what_was_refused_is_told_although_nothing_follows(tmp_path: Path) -> None:
    clock = ManualClock()
    journal = await Journal.open(JournalOptions(path=str(tmp_path), **STEPS["options"]), clock=clock)
    reader = journal.reader("cloud")
    for number in range(STEPS["records"]):
        if number % 50:
            journal.offer(reading(number))
        else:  # waits for the writer, so that the disk is the only thing that is too small
            with contextlib.suppress(NotStored):
                await journal.append(reading(number))
    async with asyncio.timeout(20):
        while reader.head(Lane.TELEMETRY) <= STEPS["records"]:
            await clock.advance(1)
            await asyncio.sleep(0.01)
    ledger = journal.ledger()
    refused = ledger.lanes["telemetry"].dropped["full"]
    assert ledger.lanes["telemetry"].unwritten == 0
    assert reader.untold(Lane.TELEMETRY)[-1] == (STEPS["records"] - refused + 1, STEPS["records"])

    feed = Feed(reader, clock=clock, backfill_share=0.5, max_records=100, max_bytes=1 << 20)
    feed.begin()
    records = lost = 0
    while feed.has_history(Lane.TELEMETRY):
        async with asyncio.timeout(10):
            portion = await feed.next()
        feed.passed(portion)
        feed.acknowledge(portion)
        for entry in portion.entries:
            if isinstance(entry, Lost):
                lost += entry.last - entry.first + 1
            else:
                records += 1
    assert (records, lost) == (STEPS["records"] - refused, refused)
    assert reader.untold(Lane.TELEMETRY) == ()
    await journal.close()
