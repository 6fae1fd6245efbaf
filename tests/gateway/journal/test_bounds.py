"""The journal stays within its bounds, drops what it must in the right order, and counts every record."""

from __future__ import annotations

import asyncio
import contextlib
import shutil
from pathlib import Path

import numpy as np
import pytest

from gateway.config.model import JournalOptions
from gateway.journal import DropReason, Journal, Lane, Lost, NotStored, Record
from protocols.clock import ManualClock
from protocols.model import Batch, Device, Kind, Tag
from tests.faults.journal.plant import assert_balanced

MAX_BYTES = 16 * 1024**2
SIZE = 850
METER = Device("c1", "meter", tuple(Tag(name=f"t{n}", kind=Kind.FLOAT64) for n in range(SIZE)))
NOISE = np.random.default_rng(1).normal(size=SIZE)


def large(number: int) -> Batch:
    """A reading of about 7 kB."""
    return Batch(
        METER,
        np.arange(SIZE, dtype=np.uint32),
        NOISE + number,
        np.zeros(SIZE, dtype=np.uint32),
        np.full(SIZE, number, dtype=np.int64),
    )


async def opened(folder: Path, clock: ManualClock | None = None, **more: object) -> Journal:
    options = JournalOptions(path=str(folder), **{"max_bytes": MAX_BYTES, "min_free_bytes": 0, **more})  # type: ignore[arg-type]  # by name
    return await Journal.open(options, clock=clock or ManualClock())


async def store(journal: Journal, first: int, count: int, lane: Lane = Lane.TELEMETRY) -> None:
    for number in range(first, first + count - 1):
        journal.offer(large(number), lane)
        if number % 50 == 49:
            with contextlib.suppress(NotStored):
                await journal.append(large(number), lane)
    with contextlib.suppress(NotStored):
        await journal.append(large(first + count - 1), lane)


def on_disk(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


async def read_all(journal: Journal, lane: Lane = Lane.TELEMETRY) -> tuple[list[Record], list[Lost]]:
    reader = journal.reader("cloud")
    records: list[Record] = []
    lost: list[Lost] = []
    at = 1
    while at < reader.head(lane):
        for each in await reader.read(lane, at, max_records=100, max_bytes=1 << 20):
            if isinstance(each, Record):
                assert each.seq == at
                records.append(each)
                at = each.seq + 1
            else:
                assert each.first == at
                lost.append(each)
                at = each.last + 1
    return records, lost


async def test_the_oldest_is_dropped_counted_and_said(tmp_path: Path) -> None:
    journal = await opened(tmp_path)
    journal.reader("cloud")
    most = 0
    for first in range(0, 4000, 100):
        await store(journal, first, 100)
        most = max(most, on_disk(tmp_path))
        assert_balanced(journal.ledger())
    assert MAX_BYTES * 0.75 < most <= MAX_BYTES
    account = journal.ledger().readers["cloud"]["telemetry"]
    records, lost = await read_all(journal)
    assert account.dropped == {"full": sum(each.records for each in lost)}
    assert account.pending == len(records)
    assert lost[0].first == 1
    assert records[-1].batch.value.tobytes() == large(3999).value.tobytes()
    await journal.close()

    journal = await opened(tmp_path)
    assert journal.ledger().readers["cloud"]["telemetry"] == account
    assert on_disk(tmp_path) <= MAX_BYTES
    await journal.close()


async def test_what_everybody_has_retires_without_being_counted_as_dropped(tmp_path: Path) -> None:
    journal = await opened(tmp_path)
    reader = journal.reader("cloud")
    for first in range(0, 4000, 100):
        await store(journal, first, 100)
        reader.acknowledge(Lane.TELEMETRY, 1, reader.head(Lane.TELEMETRY) - 1)
    ledger = journal.ledger()
    assert ledger.lanes["telemetry"].retired > 0
    assert ledger.lanes["telemetry"].dropped == {}
    assert ledger.readers["cloud"]["telemetry"].dropped == {}
    assert_balanced(ledger)
    await journal.close()


async def test_the_newest_is_refused_where_that_is_wanted_until_there_is_room(tmp_path: Path) -> None:
    clock = ManualClock()
    journal = await opened(tmp_path, clock, when_full="drop-newest")
    reader = journal.reader("cloud")
    await store(journal, 0, 4000)
    ledger = journal.ledger()
    account = ledger.readers["cloud"]["telemetry"]
    assert account.dropped["full"] > 0
    assert reader.pending(Lane.TELEMETRY)[0][0] == 1
    assert on_disk(tmp_path) <= MAX_BYTES
    assert_balanced(ledger)
    with pytest.raises(NotStored) as refused:
        await journal.append(large(1))
    assert refused.value.reason is DropReason.FULL
    await journal.append(large(1), Lane.EVENTS)

    reader.acknowledge(Lane.TELEMETRY, 1, reader.head(Lane.TELEMETRY) - 1)
    while journal._store.full:
        await clock.advance(1.1)
    await journal.append(large(2))
    assert journal.ledger().readers["cloud"]["telemetry"].dropped["full"] == account.dropped["full"] + 1
    await journal.close()


async def test_events_outlive_telemetry(tmp_path: Path) -> None:
    journal = await opened(tmp_path)
    journal.reader("cloud")
    await store(journal, 0, 200, Lane.EVENTS)
    await store(journal, 0, 4000)
    assert "full" in journal.ledger().readers["cloud"]["telemetry"].dropped
    assert journal.ledger().readers["cloud"]["events"].dropped == {}
    records, _ = await read_all(journal, Lane.EVENTS)
    assert len(records) == journal.ledger().lanes["events"].appended
    await journal.close()


async def test_a_flood_of_events_leaves_telemetry_its_place(tmp_path: Path) -> None:
    journal = await opened(tmp_path)
    journal.reader("cloud")
    await store(journal, 0, 500)
    await store(journal, 0, 4000, Lane.EVENTS)
    assert journal.ledger().readers["cloud"]["telemetry"].dropped == {}
    assert journal.ledger().readers["cloud"]["events"].dropped["full"] > 0
    assert on_disk(tmp_path) <= MAX_BYTES
    await journal.close()


async def until(clock: ManualClock, journal: Journal, reason: str) -> None:
    """The writer is a thread of its own: while it takes its time, only a little goes by on the journal's clock."""
    async with asyncio.timeout(60):
        while not journal.ledger().readers["cloud"]["telemetry"].dropped.get(reason):
            await clock.advance(1.1)
            await asyncio.sleep(0.01)


async def test_the_aged_are_dropped_and_counted_even_on_a_lane_that_is_silent(tmp_path: Path) -> None:
    clock = ManualClock()
    journal = await opened(tmp_path, clock, max_age_s=3600.0)
    journal.reader("cloud")
    await store(journal, 0, 10)
    await clock.advance(1000)
    assert journal.ledger().readers["cloud"]["telemetry"].dropped == {}
    await clock.advance(3000)
    await until(clock, journal, "age")
    account = journal.ledger().readers["cloud"]["telemetry"]
    assert (account.pending, account.dropped["age"]) == (0, account.appended)
    await journal.close()


async def test_what_a_crash_left_open_is_as_old_as_its_newest_record(tmp_path: Path) -> None:
    """A state is stored rarely while nobody acknowledges: what it says of the open segment may be long ago."""
    clock = ManualClock()
    journal = await opened(tmp_path / "before", clock, max_age_s=8000.0)
    journal.reader("cloud")
    await store(journal, 0, 10)
    await clock.advance(900)
    await store(journal, 10, 10)
    shutil.copytree(tmp_path / "before", tmp_path / "after")
    await journal.close()

    clock = ManualClock(clock.time_ns())
    journal = await opened(tmp_path / "after", clock, max_age_s=8000.0)
    await clock.advance(7500)
    for number in range(20, 23):
        await store(journal, number, 1)
        await clock.advance(1.1)  # between two of them the writer has looked at the ages
    account = journal.ledger().readers["cloud"]["telemetry"]
    assert (account.dropped, account.pending) == ({}, 23)
    await until(clock, journal, "age")
    assert journal.ledger().readers["cloud"]["telemetry"].dropped == {"age": 20}
    await journal.close()


@pytest.mark.parametrize("jump_s", [3600, -3600, 86400, -86400, 12 * 365 * 86400, -40 * 365 * 86400])
async def test_a_jump_of_the_wall_clock_loses_nothing(jump_s: int, tmp_path: Path) -> None:
    """An hour, a day, 2038, 1983: seqs go on, nothing ages, also over restarts."""
    clock = ManualClock()
    journal = await opened(tmp_path, clock, max_age_s=3600.0)
    journal.reader("cloud")
    before = await journal.append(large(0))
    clock.set_time_ns(clock.time_ns() + jump_s * 10**9)
    await clock.advance(5)
    assert await journal.append(large(1)) > before
    await journal.close()
    journal = await opened(tmp_path, clock, max_age_s=3600.0)
    await clock.advance(5)
    after = await journal.append(large(2))
    assert after[1] == 3
    clock.set_time_ns(clock.time_ns() - jump_s * 10**9)
    await clock.advance(5)
    await journal.append(large(3))
    await journal.close()
    journal = await opened(tmp_path, clock, max_age_s=3600.0)
    records, lost = await read_all(journal)
    assert [each.seq for each in records] == [1, 2, 3, 4]
    assert lost == []
    await journal.close()
