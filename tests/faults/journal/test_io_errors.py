"""The disk refuses the n-th write or sync, for every n: nothing that was confirmed is lost, and storing goes on."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Iterator
from pathlib import Path

import apsw
import pytest

from gateway.journal import DropReason, Journal, Lane, NotStored, StorageError
from protocols.clock import SystemClock
from tests.faults.journal.plant import LONG, assert_balanced, copied, inspect, look, options, reading

LAST_CALL = 200 if LONG else 40


class FailingDisk(apsw.VFS):
    """Everything that SQLite does to files, with the n-th write or sync (and ``times`` in all) failing."""

    def __init__(self, fails_at: int, error: type[apsw.Error], times: int) -> None:
        self.calls = 0
        self._fails = range(fails_at, fails_at + times)
        self._error = error
        self.base = "unix"
        super().__init__("failing", base=self.base, makedefault=True)

    def xOpen(self, name: str | apsw.URIFilename | None, flags: list[int]) -> apsw.VFSFile:
        return _FailingFile(self, name, flags)

    def strike(self) -> None:
        self.calls += 1
        if self.calls in self._fails:
            raise self._error("the disk says no")


class _FailingFile(apsw.VFSFile):
    def __init__(self, disk: FailingDisk, name: str | apsw.URIFilename | None, flags: list[int]) -> None:
        self._disk = disk
        super().__init__(disk.base, name, flags)

    def xWrite(self, data: bytes, offset: int) -> None:
        self._disk.strike()
        super().xWrite(data, offset)

    def xSync(self, flags: int) -> None:
        self._disk.strike()
        super().xSync(flags)

    def xTruncate(self, newsize: int) -> None:
        self._disk.strike()
        super().xTruncate(newsize)


@contextlib.contextmanager
def failing(fails_at: int, error: type[apsw.Error], times: int) -> Iterator[FailingDisk]:
    disk = FailingDisk(fails_at, error, times)
    try:
        yield disk
    finally:
        disk.unregister()


async def write(journal: Journal, confirmed: dict[Lane, set[int]], first: int) -> None:
    """Sixty readings, ten at a time, on both lanes; what is confirmed is noted."""

    async def one(number: int, lane: Lane) -> None:
        with contextlib.suppress(NotStored):
            await journal.append(reading(number), lane)
            confirmed[lane].add(number)

    for start in range(first, first + 60, 10):
        async with asyncio.timeout(20):
            await asyncio.gather(*(one(number, Lane.TELEMETRY) for number in range(start, start + 10)), one(start, Lane.EVENTS))


@pytest.mark.parametrize("error", [apsw.IOError, apsw.FullError], ids=["EIO", "ENOSPC"])
@pytest.mark.parametrize("times", [1, 3])
async def test_a_refused_call_loses_nothing_confirmed(
    error: type[apsw.Error], times: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Fails the n-th write, sync or truncation, once or three times in a row; then the process dies."""
    monkeypatch.setattr("gateway.journal.journal.RETRY_S", 0.01)
    for fails_at in range(1, LAST_CALL + 1):
        folder = tmp_path / f"{fails_at}"
        confirmed: dict[Lane, set[int]] = {lane: set() for lane in Lane}
        with failing(fails_at, error, times) as disk:
            journal = await opened(folder)
            await write(journal, confirmed, 0)
            found = await look(journal)
            assert found.wrong == 0
            for lane in Lane:
                assert confirmed[lane] <= set(found.numbers[lane]), (fails_at, lane)
            killed = copied(folder, tmp_path / "killed")
            await journal.close()
            assert disk.calls >= fails_at, "the disk never failed: the campaign tests nothing"
        for left in (killed, folder):
            found = await inspect(left)
            assert found.wrong == 0
            for lane in Lane:
                assert confirmed[lane] <= set(found.numbers[lane]), (fails_at, lane, left.name)


async def opened(folder: Path) -> Journal:
    """A disk that fails while the journal is opened may make it refuse; the next try succeeds."""
    for _ in range(4):
        with contextlib.suppress(StorageError):
            journal = await Journal.open(options(folder, commit_window_ms=1), clock=SystemClock())
            journal._store.chains[Lane.TELEMETRY].roll_bytes = 6_000
            journal._store.chains[Lane.TELEMETRY].wal_pages = 8
            return journal
    raise AssertionError("the journal does not open")


class StallingDisk(FailingDisk):
    """A disk whose syncs hang while ``free`` is not set."""

    def __init__(self) -> None:
        self.free = threading.Event()
        self.free.set()
        super().__init__(0, apsw.IOError, 0)

    def strike(self) -> None:
        assert self.free.wait(30), "the test never let the disk go on"


async def test_a_stalled_disk_delays_nobody_and_what_memory_cannot_hold_is_counted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Offers return while a sync hangs; beyond the memory bound the oldest is dropped as ``stalled``; then all goes on."""
    monkeypatch.setattr("gateway.journal.journal.MOST_UNWRITTEN", 1_000_000)
    disk = StallingDisk()
    try:
        journal = await Journal.open(options(tmp_path, commit_window_ms=1), clock=SystemClock())
        reader = journal.reader("cloud")
        await journal.append(reading(0))
        disk.free.clear()
        for number in range(1, 3001):
            journal.offer(reading(number))
            await asyncio.sleep(0)
        during = journal.ledger()
        assert reader.head(Lane.TELEMETRY) == 2
        assert during.lanes["telemetry"].dropped["stalled"] > 0
        assert_balanced(during)
        disk.free.set()
        async with asyncio.timeout(20):
            await journal.append(reading(3001))
        found = await look(journal)
        assert len(found.numbers[Lane.TELEMETRY]) + found.lost["stalled"] == 3002
        assert found.numbers[Lane.TELEMETRY][-1] == 3001
        await journal.close()
    finally:
        disk.free.set()
        disk.unregister()
    again = await inspect(tmp_path)
    assert again.lost == found.lost


async def test_a_dying_disk_turns_records_away_with_their_reason_and_the_journal_closes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every write fails from some moment on: what memory cannot hold is ``unwritable``, close returns."""
    monkeypatch.setattr("gateway.journal.journal.MOST_UNWRITTEN", 300_000)
    monkeypatch.setattr("gateway.journal.journal.RETRY_S", 0.001)
    with failing(60, apsw.IOError, 10**9):
        journal = await opened(tmp_path)
        async with asyncio.timeout(20):
            first = 0
            while not journal.ledger().trouble:
                journal.offer(reading(first))
                first += 1
                await asyncio.sleep(0.001)
        for number in range(first, first + 1500):
            journal.offer(reading(number))
        with pytest.raises(NotStored) as refused:
            async with asyncio.timeout(20):
                await asyncio.gather(*(journal.append(reading(number), Lane.TELEMETRY) for number in range(first + 1500, first + 3500)))
        assert refused.value.reason is DropReason.UNWRITABLE
        assert_balanced(journal.ledger())
        async with asyncio.timeout(20):
            await journal.close()
    assert (await inspect(tmp_path)).wrong == 0
