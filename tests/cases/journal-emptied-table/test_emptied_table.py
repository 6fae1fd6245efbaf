"""A newest segment that seems empty is searched before that is believed."""

from __future__ import annotations

from pathlib import Path

from gateway.journal import Lane
from tests.faults.journal.plant import inspect, unpacked


async def test_a_damaged_schema_costs_no_record(tmp_path: Path) -> None:
    found = await inspect(unpacked(Path(__file__).parent, tmp_path / "journal"))
    assert len(found.numbers[Lane.EVENTS]) == 30
    assert not found.lost
    assert found.noticed
