"""The journal as the rest of the gateway sees it: what is stored, what is read, what is counted."""

from __future__ import annotations

import asyncio
import shutil
from pathlib import Path

import msgspec
import numpy as np
import pytest

from gateway.config.model import JournalOptions
from gateway.journal import DropReason, Journal, JournalBusy, Lane, Lost, NotStored, Record, salvage
from gateway.journal.chain import Group
from gateway.journal.codec import MAX_VALUE, PART_BITS
from gateway.journal.segment import StorageError
from protocols.clock import Clock, ManualClock
from protocols.model import Batch, Device, Kind, Tag

BOILER = Device("c1", "boiler", tuple(Tag(name=f"t{n}", kind=Kind.FLOAT32) for n in range(10)))


def batch(number: int) -> Batch:
    return Batch(
        BOILER,
        np.arange(10, dtype=np.uint32),
        np.arange(10, dtype=np.float64) + number,
        np.zeros(10, dtype=np.uint32),
        np.full(10, number, dtype=np.int64),
    )


def options(folder: Path) -> JournalOptions:
    return JournalOptions(path=str(folder), max_bytes=16 * 1024**2, min_free_bytes=0)


async def test_what_was_appended_is_there_after_a_restart(tmp_path: Path) -> None:
    journal = await Journal.open(options(tmp_path), clock=ManualClock())
    reader = journal.reader("cloud")
    stored = [await journal.append(batch(n)) for n in range(5)]
    reader.acknowledge(Lane.TELEMETRY, 1, 2)
    await journal.close()

    journal = await Journal.open(options(tmp_path), clock=ManualClock())
    reader = journal.reader("cloud")
    assert reader.pending(Lane.TELEMETRY) == ((3, 5),)
    found = await reader.read(Lane.TELEMETRY, 1, max_records=10, max_bytes=1 << 20)
    assert [(each.epoch, each.seq) for each in found if isinstance(each, Record)] == stored
    assert isinstance(found[4], Record)
    assert found[4].batch.value.tolist() == batch(4).value.tolist()
    await journal.close()


async def test_what_was_acknowledged_is_stored_although_nothing_follows(tmp_path: Path) -> None:
    clock = ManualClock()
    journal = await Journal.open(options(tmp_path / "one"), clock=clock)
    await journal.append(batch(0))
    journal.reader("cloud").acknowledge(Lane.TELEMETRY, 1, 1)
    for _ in range(2):
        await clock.advance(1.0)
        await journal.verify()  # goes through the writer's queue, behind what is under way
    shutil.copytree(tmp_path / "one", tmp_path / "two")
    await journal.close()

    journal = await Journal.open(options(tmp_path / "two"), clock=clock)
    assert journal.reader("cloud").pending(Lane.TELEMETRY) == ()
    await journal.close()


async def test_age_and_space_are_looked_after_while_records_flow(tmp_path: Path) -> None:
    """No second goes by without a commit: they have to do it."""
    clock = ManualClock()
    journal = await Journal.open(msgspec.structs.replace(options(tmp_path), max_age_s=40.0), clock=clock)
    for n in range(100):
        await journal.append(batch(n))
        await clock.advance(0.7)
    assert 1 < journal.ledger().lanes["telemetry"].first < 80
    await journal.close()


async def test_a_journal_in_use_is_refused(tmp_path: Path) -> None:
    journal = await Journal.open(options(tmp_path), clock=ManualClock())
    with pytest.raises(JournalBusy, match="in use by process"):
        await Journal.open(options(tmp_path), clock=ManualClock())
    await journal.close()


async def test_a_new_reader_begins_where_it_is_told_to(tmp_path: Path) -> None:
    journal = await Journal.open(options(tmp_path), clock=ManualClock())
    await journal.append(batch(0))
    assert journal.reader("old").pending(Lane.TELEMETRY) == ((1, 1),)
    assert journal.reader("new", "newest").pending(Lane.TELEMETRY) == ()
    await journal.append(batch(1))
    assert journal.reader("new", "oldest").pending(Lane.TELEMETRY) == ((2, 2),)
    assert journal.ledger().readers["new"]["telemetry"].appended == 1
    await journal.close()


async def test_a_forgotten_reader_holds_nothing_back_and_begins_anew(tmp_path: Path) -> None:
    journal = await Journal.open(options(tmp_path), clock=ManualClock())
    reader = journal.reader("cloud")
    await journal.append(batch(0))
    reader.acknowledge(Lane.TELEMETRY, 1, 1)
    journal.forget("cloud")
    assert journal.ledger().readers == {}
    await journal.close()
    journal = await Journal.open(options(tmp_path), clock=ManualClock())
    assert journal.ledger().readers == {}
    assert journal.reader("cloud").pending(Lane.TELEMETRY) == ((1, 1),)
    await journal.close()


async def test_spans_are_acknowledged_in_any_order_and_only_where_durable(tmp_path: Path) -> None:
    journal = await Journal.open(options(tmp_path), clock=ManualClock())
    reader = journal.reader("cloud")
    for number in range(10):
        await journal.append(batch(number))
    reader.acknowledge(Lane.TELEMETRY, 4, 6)
    reader.acknowledge(Lane.TELEMETRY, 9, 99)
    assert reader.pending(Lane.TELEMETRY) == ((1, 3), (7, 8))
    reader.acknowledge(Lane.TELEMETRY, 1, 7)
    assert reader.pending(Lane.TELEMETRY) == ((8, 8),)
    await journal.append(batch(10))
    assert reader.pending(Lane.TELEMETRY) == ((8, 8), (11, 11))
    assert journal.ledger().readers["cloud"]["telemetry"].acknowledged == 9
    await journal.close()


async def test_live_readers_get_the_very_batch_and_old_ones_an_equal_one(tmp_path: Path) -> None:
    journal = await Journal.open(options(tmp_path), clock=ManualClock())
    offered = batch(0)
    await journal.append(offered)
    (live,) = await journal.read(Lane.TELEMETRY, 1)
    assert isinstance(live, Record)
    assert live.batch is offered
    await journal.close()
    journal = await Journal.open(options(tmp_path), clock=ManualClock())
    (old,) = await journal.read(Lane.TELEMETRY, 1)
    assert isinstance(old, Record)
    assert old.batch.device.tags == BOILER.tags
    await journal.close()


async def test_a_record_is_read_with_the_device_of_its_time(tmp_path: Path) -> None:
    """The configuration changed: the old record still tells the old unit; records of one definition share a Device."""
    journal = await Journal.open(options(tmp_path), clock=ManualClock())
    await journal.append(batch(0))
    await journal.append(batch(1))
    await journal.close()
    journal = await Journal.open(options(tmp_path), clock=ManualClock())
    changed = Device("c1", "boiler", tuple(Tag(name=f"t{n}", kind=Kind.FLOAT64, unit="bar") for n in range(10)))
    new = Batch(changed, batch(2).tag, batch(2).value, batch(2).quality, batch(2).time_ns)
    await journal.append(new)
    first, second, third = [
        each for n in (1, 2, 3) for each in await journal.read(Lane.TELEMETRY, n, max_records=1) if isinstance(each, Record)
    ]
    assert first.batch.device.tags == BOILER.tags
    assert first.batch.device is second.batch.device
    assert third.batch.device.tags == changed.tags
    await journal.close()


async def head_after(journal: Journal, clock: ManualClock, seconds: float) -> int:
    """The head when all is stored that was due by then: a verification goes through the writer's queue, behind what is under way."""
    await clock.advance(seconds)
    await journal.verify()
    return journal.head(Lane.TELEMETRY)


async def test_a_burst_is_stored_when_it_is_over(tmp_path: Path) -> None:
    clock = ManualClock()
    journal = await Journal.open(options(tmp_path), clock=clock)
    journal.offer(batch(0))
    assert await head_after(journal, clock, 0.004) == 1
    journal.offer(batch(1))
    assert await head_after(journal, clock, 0.004) == 1
    assert journal.ledger().lanes["telemetry"].unwritten == 2
    assert await head_after(journal, clock, 0.002) == 3
    await journal.close()


async def test_the_window_gathers_and_append_does_not_wait_for_it(tmp_path: Path) -> None:
    """What follows a commit waits until a window has passed since: a disk is written so often and no oftener."""
    clock = ManualClock()
    journal = await Journal.open(options(tmp_path), clock=clock)
    journal.offer(batch(0))
    assert await head_after(journal, clock, 0.006) == 2
    journal.offer(batch(1))
    assert await head_after(journal, clock, 0.09) == 2
    assert await head_after(journal, clock, 0.01) == 3
    journal.offer(batch(2))
    assert (await journal.append(batch(3)))[1] == 4
    await journal.close()


async def test_what_never_pauses_waits_no_longer_than_the_window(tmp_path: Path) -> None:
    clock = ManualClock()
    journal = await Journal.open(options(tmp_path), clock=clock)
    for number in range(25):
        journal.offer(batch(number))
        assert await head_after(journal, clock, 0.004) == (26 if number == 24 else 1)
    await journal.close()


async def test_a_disk_is_left_alone_while_nothing_comes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = ManualClock()
    journal = await Journal.open(options(tmp_path), clock=clock)
    commit, committed = journal._store.commit, 0

    def counted(groups: dict[Lane, Group | None], clock: Clock) -> dict[Lane, StorageError | None]:
        nonlocal committed
        committed += 1
        return commit(groups, clock)

    monkeypatch.setattr(journal._store, "commit", counted)
    journal.offer(batch(0))
    assert await head_after(journal, clock, 10.0) == 2
    assert committed == 1
    await journal.close()


async def test_closing_stores_what_was_offered(tmp_path: Path) -> None:
    journal = await Journal.open(options(tmp_path), clock=ManualClock())
    for number in range(100):
        journal.offer(batch(number))
    await journal.close()
    journal = await Journal.open(options(tmp_path), clock=ManualClock())
    assert len(await journal.read(Lane.TELEMETRY, 1)) == 100
    await journal.close()


async def test_a_clean_restart_keeps_the_epoch_and_a_copied_folder_does_not(tmp_path: Path) -> None:
    """A backup that is put back must not number other records alike."""
    journal = await Journal.open(options(tmp_path / "a"), clock=ManualClock())
    epoch, _ = await journal.append(batch(0))
    await journal.close()
    shutil.copytree(tmp_path / "a", tmp_path / "b")
    journal = await Journal.open(options(tmp_path / "a"), clock=ManualClock())
    assert await journal.append(batch(1)) == (epoch, 2)
    await journal.close()
    journal = await Journal.open(options(tmp_path / "b"), clock=ManualClock())
    assert (await journal.append(batch(1)))[0] > epoch
    await journal.close()


async def test_one_read_is_of_one_epoch_and_lanes_never_share_one(tmp_path: Path) -> None:
    journal = await Journal.open(options(tmp_path / "a"), clock=ManualClock())
    telemetry, events = await journal.append(batch(0)), await journal.append(batch(0), Lane.EVENTS)
    assert telemetry[0] != events[0]
    shutil.copytree(tmp_path / "a", tmp_path / "b")
    await journal.close()
    journal = await Journal.open(options(tmp_path / "b"), clock=ManualClock())
    await journal.append(batch(1))
    assert [each.epoch for each in await journal.read(Lane.TELEMETRY, 1)] == [telemetry[0]]
    assert len(await journal.read(Lane.TELEMETRY, 2)) == 1
    await journal.close()


async def test_a_value_that_is_too_large_is_refused_and_counted(tmp_path: Path) -> None:
    journal = await Journal.open(options(tmp_path), clock=ManualClock())
    journal.reader("cloud")
    value = np.empty(1, dtype=np.object_)
    value[0] = "x" * (MAX_VALUE + 100)
    one = np.zeros(1, dtype=np.uint32)
    with pytest.raises(NotStored) as refused:
        await journal.append(Batch(Device("c", "d", (Tag(name="t", kind=Kind.STRING),)), one, value, one, np.ones(1, dtype=np.int64)))
    assert refused.value.reason is DropReason.TOO_LARGE
    await journal.append(batch(0))
    assert journal.ledger().readers["cloud"]["telemetry"].dropped == {"too-large": 1}
    lost, record = await journal.read(Lane.TELEMETRY, 1)
    assert isinstance(lost, Lost)
    assert (lost.first, lost.last, lost.reason) == (1, 1, "too-large")
    assert isinstance(record, Record)
    await journal.close()


async def test_a_large_value_survives_a_restart(tmp_path: Path) -> None:
    value = np.empty(1, dtype=np.object_)
    value[0] = b"\xf5HF\xa9" * 50_000
    one = np.zeros(1, dtype=np.uint32)
    journal = await Journal.open(options(tmp_path), clock=ManualClock())
    await journal.append(Batch(Device("c", "d", (Tag(name="t", kind=Kind.BYTES),)), one, value, one, np.ones(1, dtype=np.int64)))
    await journal.close()
    journal = await Journal.open(options(tmp_path), clock=ManualClock())
    (found,) = await journal.read(Lane.TELEMETRY, 1)
    assert isinstance(found, Record)
    assert found.batch.value[0] == value[0]
    assert (await journal.verify()).ok
    await journal.close()


async def test_files_deleted_while_they_are_open_are_written_again(tmp_path: Path) -> None:
    clock = ManualClock()
    journal = await Journal.open(options(tmp_path), clock=clock)
    for number in range(20):
        await journal.append(batch(number))
    for path in (tmp_path / "telemetry").iterdir():
        path.unlink()
    async with asyncio.timeout(10):
        while not list((tmp_path / "telemetry").glob("*.seg")):
            await clock.advance(1.1)
    await journal.append(batch(20))
    await journal.close()
    journal = await Journal.open(options(tmp_path), clock=clock)
    assert len(await journal.read(Lane.TELEMETRY, 1)) in (20, 21)
    assert journal.ledger().lanes["telemetry"].kept == 21
    await journal.close()


async def test_verify_finds_what_rots_while_the_journal_runs(tmp_path: Path) -> None:
    journal = await Journal.open(options(tmp_path), clock=ManualClock())
    for number in range(49):
        journal.offer(batch(number))
    epoch, _ = await journal.append(batch(49))
    await journal.close()
    (segment,) = (tmp_path / "telemetry").glob("*.seg")
    content = segment.read_bytes()
    at = content.index(salvage.look(segment, Lane.TELEMETRY, epoch).rows[20 << PART_BITS]) + 70
    segment.write_bytes(content[:at] + bytes([content[at] ^ 1]) + content[at + 1 :])
    journal = await Journal.open(options(tmp_path), clock=ManualClock())
    report = await journal.verify()
    assert (report.records, report.quarantined, report.missing) == (49, 1, 0)
    assert report.repaired == (segment.name,)
    assert (await journal.verify()).ok
    assert list((tmp_path / "quarantine").iterdir())
    await journal.close()
