"""A record is as old as the time that has passed since it was stored, also when the wall clock has been set meanwhile."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Final

from gateway.journal import Journal
from protocols.clock import ManualClock
from tests.faults.journal.plant import fill, options

STEPS: Final[dict[str, Any]] = json.loads((Path(__file__).parent / "steps.json").read_text())  # Any: JSON
SECOND: Final = 10**9


async def test_nothing_is_too_old_a_day_after_the_clock_was_set(tmp_path: Path) -> None:
    clock = ManualClock(STEPS["boot_unix_s"] * SECOND)
    journal = await Journal.open(options(tmp_path), clock=clock)
    journal.reader("cloud")
    stored = STEPS["records"]
    await fill(journal, 0, stored)
    await clock.advance(STEPS["set_after_s"])
    clock.set_time_ns(STEPS["set_to_unix_s"] * SECOND)
    for _ in range(STEPS["hours"] * 3600 // STEPS["every_s"]):
        await fill(journal, stored, STEPS["records"])
        stored += STEPS["records"]
        await clock.advance(STEPS["every_s"])
    await fill(journal, stored, 1)  # the writer has looked at the ages of all before
    account = journal.ledger().lanes["telemetry"]
    await journal.close()
    assert (account.dropped, account.kept) == ({}, stored + 1)
