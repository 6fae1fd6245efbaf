"""Somebody else fills the disk: nothing confirmed is lost without being counted, and storing goes on by itself."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from gateway.config.model import JournalOptions
from gateway.journal import Journal, Lane, Record
from protocols.clock import SystemClock
from tests.faults.journal.plant import assert_balanced, is_true, number_of, reading
from tests.peers.disk import disk


async def store(journal: Journal, first: int, count: int) -> None:
    for number in range(first, first + count):
        journal.offer(reading(number))
        if number % 50 == 0:
            await asyncio.sleep(0)


async def test_a_full_disk_is_survived_counted_and_healed(tmp_path: Path) -> None:
    """The journal keeps its confirmed records, takes new ones into memory, and stores them when there is space again."""
    with disk(tmp_path, 24) as small:
        options = JournalOptions(path=str(small.mount / "journal"), max_bytes=16 * 1024**2, min_free_bytes=0, commit_window_ms=5)
        journal = await Journal.open(options, clock=SystemClock())
        reader = journal.reader("cloud")
        await journal.append(reading(0))
        foreign = small.fill()
        await store(journal, 1, 6000)
        async with asyncio.timeout(20):
            while not journal.ledger().trouble:  # noqa: ASYNC110 - a ledger is asked, it tells nobody
                await asyncio.sleep(0.01)
        full = journal.ledger()
        assert "full" in full.trouble
        assert_balanced(full)

        foreign.unlink()
        async with asyncio.timeout(60):
            await journal.append(reading(6001))
        healed = journal.ledger()
        assert healed.trouble == ""
        assert_balanced(healed)
        numbers: list[int] = []
        at = 1
        while at < reader.head(Lane.TELEMETRY):
            for each in await reader.read(Lane.TELEMETRY, at, max_records=1000, max_bytes=1 << 20):
                at = each.seq + 1 if isinstance(each, Record) else each.last + 1
                if isinstance(each, Record):
                    assert is_true(each.batch)
                    numbers.append(number_of(each.batch))
        dropped = sum(healed.readers["cloud"]["telemetry"].dropped.values())
        assert len(numbers) + dropped == 6002
        await journal.close()


async def test_a_file_system_that_dies_is_survived(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every call fails. Live readers go on, nothing is confirmed, close returns; all confirmed is there when it is mounted again."""
    monkeypatch.setattr("gateway.journal.journal.RETRY_S", 0.05)
    with disk(tmp_path, 24) as small:
        options = JournalOptions(path=str(small.mount / "journal"), max_bytes=16 * 1024**2, min_free_bytes=0, commit_window_ms=5)
        journal = await Journal.open(options, clock=SystemClock())
        await journal.append(reading(0))
        await journal.append(reading(1), Lane.EVENTS)
        small.cut()
        waiting = asyncio.create_task(journal.append(reading(2)))
        async with asyncio.timeout(20):
            while not journal.ledger().trouble:  # noqa: ASYNC110 - a ledger is asked, it tells nobody
                await asyncio.sleep(0.01)
        assert len(await journal.read(Lane.TELEMETRY, 1)) == 1
        assert not waiting.done()
        assert_balanced(journal.ledger())
        waiting.cancel()
        async with asyncio.timeout(20):
            await journal.close()
        small.restore()
        journal = await Journal.open(options, clock=SystemClock())
        found = await journal.read(Lane.TELEMETRY, 1)
        assert [number_of(each.batch) for each in found if isinstance(each, Record)][:1] == [0]
        await journal.append(reading(3))
        await journal.close()
