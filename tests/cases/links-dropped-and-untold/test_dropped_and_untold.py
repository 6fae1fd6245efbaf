"""What was dropped before a restart is told after it."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any, Final

from gateway.config.model import JournalOptions
from gateway.journal import Journal, Lane, Lost
from gateway.uplink.feed import Feed
from protocols.clock import ManualClock
from tests.faults.journal.plant import reading

STEPS: Final[dict[str, Any]] = json.loads((Path(__file__).parent / "steps.json").read_text())  # Any: JSON


async def test_what_was_dropped_before_a_restart_is_told_after_it(tmp_path: Path) -> None:
    options = JournalOptions(path=str(tmp_path), **STEPS["options"])
    clock = ManualClock()
    journal = await Journal.open(options, clock=clock)
    journal.reader("cloud")
    for number in range(STEPS["records"]):
        await journal.append(reading(number))
    await clock.advance(STEPS["roll_after_s"])
    await clock.advance(STEPS["drop_after_s"])
    while not (dropped := journal.ledger().readers["cloud"]["telemetry"].dropped):
        await clock.advance(1)
    assert dropped == {STEPS["reason"]: STEPS["records"]}
    await journal.append(reading(STEPS["records"]))
    await journal.close()

    for _ in range(2):  # as long as nobody says that it was told
        assert await _told(options, clock, acknowledge=False) == [(1, STEPS["records"], STEPS["reason"])]
    assert await _told(options, clock, acknowledge=True) == [(1, STEPS["records"], STEPS["reason"])]
    assert await _told(options, clock, acknowledge=True) == []


async def _told(options: JournalOptions, clock: ManualClock, *, acknowledge: bool) -> list[tuple[int, int, str]]:
    """What a life of the gateway tells as lost: first and last seq, and the reason."""
    journal = await Journal.open(options, clock=clock)
    feed = Feed(journal.reader("cloud"), clock=clock, backfill_share=0.5, max_records=100, max_bytes=1 << 20)
    feed.begin()
    told: list[tuple[int, int, str]] = []
    while feed.has_history(Lane.TELEMETRY):
        async with asyncio.timeout(10):
            portion = await feed.next()
        feed.passed(portion)
        told += [(entry.first, entry.last, entry.reason) for entry in portion.entries if isinstance(entry, Lost)]
        if acknowledge:
            feed.acknowledge(portion)
    await journal.close()
    return told
