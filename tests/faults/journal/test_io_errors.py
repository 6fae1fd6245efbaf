"""The disk refuses the n-th write or sync, for every n: nothing that was confirmed is lost, and storing goes on."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Iterator
from pathlib import Path

import apsw
import pytest

from gateway.journal import Journal, Lane, NotStored, StorageError
from protocols.clock import SystemClock
from tests.faults.journal.plant import LONG, copied, inspect, look, number_of, options, reading

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


async def test_a_number_follows_from_its_reading() -> None:
    assert all(number_of(reading(number)) == number for number in range(10))
