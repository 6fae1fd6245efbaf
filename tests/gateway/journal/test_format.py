"""What a release does with a journal that a newer one wrote: nothing."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from gateway.config.model import JournalOptions
from gateway.journal import Journal, Lane
from gateway.journal.format import FORMAT, MARK, NewerFormat, format_of
from protocols.clock import ManualClock
from tests.builders import batch, floats

HEAD = (60, 68)
"""Where user_version and application_id stand."""


async def opened(folder: Path) -> Journal:
    return await Journal.open(JournalOptions(path="journal", commit_window_ms=1), clock=ManualClock(), base=folder)


async def filled(folder: Path) -> Path:
    """A journal of ten records, closed; its one segment of telemetry."""
    journal = await opened(folder)
    for value in range(10):
        await journal.append(batch(floats(1), [float(value)]))
    await journal.close()
    (segment,) = (folder / "journal" / "telemetry").glob("*.seg")
    return segment


def content(folder: Path) -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file() and path.name != "lock"}


@pytest.mark.parametrize("place", ["user_version", "application_id"])
async def test_a_segment_of_a_newer_format_is_left_as_it_is_and_so_is_all_beside_it(tmp_path: Path, place: str) -> None:
    segment = await filled(tmp_path)
    with closing(sqlite3.connect(segment)) as db:
        db.execute(f"PRAGMA {place}={MARK | FORMAT + 1}")
    before = content(tmp_path)
    for _ in range(2):
        with pytest.raises(NewerFormat, match="newer release"):
            await opened(tmp_path)
    assert content(tmp_path) == before
    with closing(sqlite3.connect(segment)) as db:
        db.execute(f"PRAGMA {place}=0")
    journal = await opened(tmp_path)
    try:
        assert len(await journal.read(Lane.TELEMETRY, 1)) == 10
    finally:
        await journal.close()


async def test_no_flipped_bit_makes_a_newer_file_of_an_old_one_or_an_old_one_of_a_newer(tmp_path: Path) -> None:
    segment = await filled(tmp_path)
    old = segment.read_bytes()
    assert format_of(segment) == FORMAT
    newer = bytearray(old)
    for place in HEAD:
        newer[place : place + 4] = (MARK | FORMAT + 1).to_bytes(4, "big")
    for at in range(32):
        for place in HEAD:
            segment.write_bytes(flipped(old, place, at))
            assert format_of(segment) == FORMAT
            segment.write_bytes(flipped(bytes(newer), place, at))
            assert format_of(segment) > FORMAT


async def test_what_is_written_carries_the_numbers_of_the_first_release(tmp_path: Path) -> None:
    """Release 0.1.0 opens it: nothing stands where it would not look, and where it looks is what it wrote."""
    head = (await filled(tmp_path)).read_bytes()[:100]
    assert [head[place : place + 4] for place in HEAD] == [bytes(4), bytes(4)]


def flipped(data: bytes, place: int, bit: int) -> bytes:
    changed = bytearray(data)
    changed[place + bit // 8] ^= 1 << bit % 8
    return bytes(changed)
