"""The bench of history measures what it says: a tiny plant, all of whose values are there."""

from __future__ import annotations

from pathlib import Path

from tests.bench.history import measure, plant


async def test_a_tiny_plant_gives_every_figure(tmp_path: Path) -> None:
    figures = await measure(tmp_path, plant(2, 5), hours=0.02, times=2)
    assert figures["values"] == 2 * 5 * 72
    assert 0 < figures["history bytes"] < figures["journal bytes"]
    questions = ("buckets of a minute", "line of 1,440", "line of 300", "raw hour", "raw page of 1,000")
    assert all(0 < figures[f"{name}, p50"] <= figures[f"{name}, p99"] for name in questions)
    assert figures["export of a tag, csv, s"] > 0
