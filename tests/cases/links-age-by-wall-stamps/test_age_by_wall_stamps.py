"""What was stored a minute ago is a minute old, whatever the wall clock said when the power went."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any, Final

import pytest

from gateway.journal import Journal
from protocols.clock import ManualClock
from tests.faults.journal.plant import fill, options

LIVES: Final[list[dict[str, Any]]] = json.loads((Path(__file__).parent / "steps.json").read_text())["lives"]  # Any: JSON
SECOND: Final = 10**9


@pytest.mark.parametrize("wrong", ["1970", "2040"])
async def test_nothing_is_too_old_after_a_power_cut_at_a_wrong_time(tmp_path: Path, wrong: str) -> None:
    before, life, after = LIVES
    await _live(tmp_path / "1", before["unix_s"], 0, before["records"], tmp_path / "2")
    second = tmp_path / before["goes_on_in"][wrong]
    await _live(second, life["unix_s"][wrong], before["records"], life["records"], tmp_path / "3")
    journal = await Journal.open(options(tmp_path / "3"), clock=ManualClock(after["unix_s"] * SECOND))
    account = journal.ledger().lanes["telemetry"]
    await journal.close()
    assert (account.dropped, account.kept) == ({}, before["records"] + life["records"])


async def _live(folder: Path, unix_s: int, first: int, records: int, cut: Path) -> None:
    """One life of the journal, closed properly; ``cut`` is what a power cut at its end would have left."""
    clock = ManualClock(unix_s * SECOND)
    journal = await Journal.open(options(folder), clock=clock)
    journal.reader("cloud")
    await fill(journal, first, records)
    await clock.advance(3.0)
    shutil.copytree(folder, cut)
    await journal.close()
