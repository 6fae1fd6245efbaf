"""What the journal counts as dropped is read as Lost, even while memory still has it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Final

from gateway.config.model import JournalOptions
from gateway.journal import Journal, Lane, Lost
from protocols.clock import ManualClock
from tests.faults.journal.plant import reading

STEPS: Final[dict[str, Any]] = json.loads((Path(__file__).parent / "steps.json").read_text())  # Any: JSON


async def test_what_was_dropped_is_read_as_lost(tmp_path: Path) -> None:
    clock = ManualClock()
    journal = await Journal.open(JournalOptions(path=str(tmp_path), **STEPS["options"]), clock=clock)
    reader = journal.reader("cloud")
    for number in range(STEPS["records"]):
        await journal.append(reading(number))
    await clock.advance(STEPS["roll_after_s"])
    await clock.advance(STEPS["drop_after_s"])
    while not (dropped := journal.ledger().readers["cloud"]["telemetry"].dropped):
        await clock.advance(1)
    assert dropped == {STEPS["reason"]: STEPS["records"]}
    found = await reader.read(Lane.TELEMETRY, 1, max_records=100, max_bytes=1 << 20)
    assert found == [Lost(found[0].epoch, 1, STEPS["records"], found[0].reason)] if isinstance(found[0], Lost) else False, found
    await journal.close()
