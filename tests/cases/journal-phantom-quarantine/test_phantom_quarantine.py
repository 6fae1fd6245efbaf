"""What SQLite leaves behind when it moves a row is no damaged record."""

from __future__ import annotations

from pathlib import Path

from gateway.journal import Lane
from tests.faults.journal.plant import inspect, unpacked


async def test_the_rest_of_a_moved_row_is_not_counted(tmp_path: Path) -> None:
    found = await inspect(unpacked(Path(__file__).parent, tmp_path / "journal"))
    assert len(found.numbers[Lane.TELEMETRY]) == 39
    assert not found.lost
