"""A row whose BLOB has become a NULL is a damaged row, not a reason not to start."""

from __future__ import annotations

from pathlib import Path

from gateway.journal import Lane
from tests.faults.journal.plant import inspect, unpacked


async def test_a_null_among_the_entries_is_survived(tmp_path: Path) -> None:
    found = await inspect(unpacked(Path(__file__).parent, tmp_path / "journal"))
    assert len(found.numbers[Lane.EVENTS]) == 30
    assert not found.lost
