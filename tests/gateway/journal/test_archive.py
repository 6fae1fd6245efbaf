"""Sealed files are read beside the writer: the same records, and never a wrong one."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import numpy as np
import pytest

from gateway.config.model import JournalOptions
from gateway.journal import Journal, Lane, Lost, Record
from protocols.clock import SystemClock
from protocols.model import Batch, Device, Kind, Tag

METER = Device("hall", "meter", tuple(Tag(name=f"t{at}", kind=Kind.FLOAT64) for at in range(500)))
NOTE = Device("hall", "note", (Tag(name="text", kind=Kind.STRING),))
RECORDS = 900


@pytest.fixture
async def journal(tmp_path: Path) -> AsyncIterator[Journal]:
    """Some sealed segments of a MiB, and an active one; now and then a record of many frames."""
    one = await Journal.open(JournalOptions(path=str(tmp_path / "journal"), max_bytes=16 * 2**20), clock=SystemClock())
    for at in range(RECORDS):
        if at % 30 == 29:
            await one.append(_batch(at))
        else:
            one.offer(_batch(at))
    yield one
    await one.close()


def _batch(at: int) -> Batch:
    if at % 50 == 7:
        return Batch(
            NOTE, np.zeros(1, np.uint32), np.array(["x" * 30_000 + str(at)], object), np.zeros(1, np.uint32), np.array([at], np.int64)
        )
    count = len(METER.tags)
    return Batch(METER, np.arange(count, dtype=np.uint32), np.full(count, at + 0.5), np.zeros(count, np.uint32), np.full(count, at))


def same(record: Record | Lost, at: int) -> bool:
    assert isinstance(record, Record)
    return record.seq == at + 1 and record.batch.value[0] == _batch(at).value[0] and record.batch.device.name == _batch(at).device.name


def sealed_upto(journal: Journal) -> int:
    return journal._store.chains[Lane.TELEMETRY].sealed[-1].facts.last


async def test_records_by_seq_are_those_that_were_stored(journal: Journal) -> None:
    archive = journal.archive(Lane.TELEMETRY)
    seqs = list(range(1, RECORDS + 1, 3))
    found, rest = archive.fetch(seqs)
    assert len(journal._store.chains[Lane.TELEMETRY].sealed) >= 2
    assert all(same(record, record.seq - 1) for record in found)
    assert [record.seq for record in found] + rest == seqs
    assert rest == [seq for seq in seqs if seq > sealed_upto(journal)]
    archive.close()


async def test_what_follows_a_record_ends_with_its_file(journal: Journal) -> None:
    archive, at, seen = journal.archive(Lane.TELEMETRY), 1, 0
    while some := archive.after(at, 100):
        assert [same(record, at - 1 + place) for place, record in enumerate(some)] == [True] * len(some)
        seen, at = seen + len(some), some[-1].seq + 1
    assert seen == sealed_upto(journal)
    assert archive.after(10**9, 5) == []
    archive.close()


async def test_the_journal_gives_the_others_from_memory_or_from_its_files(journal: Journal) -> None:
    seqs = [1, 2, 58, RECORDS, RECORDS + 1]
    for _ in range(2):
        picked = await journal.pick(Lane.TELEMETRY, seqs)
        assert [same(each, seq - 1) for each, seq in zip(picked, seqs, strict=False)] == [True] * 4
        for state in journal._lanes.values():
            state.tail.clear()  # as after a restart
    assert journal.recent(Lane.TELEMETRY, 1) == []


async def test_a_damaged_or_absent_file_gives_less_and_nothing_wrong(journal: Journal) -> None:
    chain = journal._store.chains[Lane.TELEMETRY]
    first, second = chain.sealed[:2]
    content = bytearray(first.path.read_bytes())
    for at in range(30_000, len(content), 20_011):
        content[at] ^= 0x40
    first.path.write_bytes(content)
    second.path.unlink()
    archive = journal.archive(Lane.TELEMETRY)
    found, rest = archive.fetch(list(range(1, second.facts.last + 1)))
    assert all(same(record, record.seq - 1) for record in found)
    assert rest
    assert {record.seq for record in found}.isdisjoint(range(second.facts.first, second.facts.last + 1))
    assert archive.after(second.facts.first, 10) == []
    archive.close()
    picked = await journal.pick(Lane.TELEMETRY, rest[:5])
    assert [entry.seq if isinstance(entry, Record) else entry.first for entry in picked] == rest[:5]


async def test_files_that_the_journal_has_removed_are_let_go(journal: Journal) -> None:
    """Else their space would not be free."""
    archive, chain = journal.archive(Lane.TELEMETRY), journal._store.chains[Lane.TELEMETRY]
    oldest = chain.sealed[0]
    archive.fetch([1])
    assert len(_open_files(oldest.path)) >= 1
    while oldest in chain.sealed:
        await journal.append(_batch(1))
        for at in range(200):
            journal.offer(_batch(at))
    archive.fetch([chain.sealed[-1].facts.first])
    archive.tidy()
    assert archive.is_open
    assert _open_files(oldest.path) == []
    assert archive.fetch([1]) == ([], [1])
    archive.close()


def _open_files(path: Path) -> list[str]:
    """Descriptors of this process that lead to ``path``, unlinked or not."""
    links = [str(each.readlink()) for each in Path("/proc/self/fd").iterdir() if each.is_symlink()]
    return [each for each in links if each.removesuffix(" (deleted)") == str(path)]
