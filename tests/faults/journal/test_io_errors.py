"""The disk refuses the n-th write or sync, for every n: nothing that was confirmed is lost, and storing goes on."""

from __future__ import annotations

import asyncio
import contextlib
import shutil
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NoReturn

import apsw
import pytest

from gateway.journal import DropReason, Journal, Lane, NotStored, StorageError
from protocols.clock import ManualClock, SystemClock
from tests.faults import figures
from tests.faults.journal.plant import LONG, Witness, assert_balanced, copied, fill, inspect, look, options, reading

LAST_CALL = 200 if LONG else 40

# where SQLite asks and does not care for the answer, apsw has nowhere to raise what our disk raises
pytestmark = pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")

WRITES = frozenset({"xWrite", "xSync", "xTruncate"})
NAMES = frozenset({"xOpen", "xDelete", "xFileSize"})
READS = frozenset({"xRead"})


class FailingDisk(apsw.VFS):
    """Everything that SQLite does to files, with the n-th of some calls (and ``times`` in all) failing; ``torn`` writes do half."""

    def __init__(self, fails_at: int, error: type[apsw.Error], times: int, calls: frozenset[str] = WRITES, *, torn: bool = False) -> None:
        self.calls = 0
        self.torn = torn
        self._names = calls
        self._fails = range(fails_at, fails_at + times)
        self._error = error
        self.base = "unix"
        super().__init__("failing", base=self.base, makedefault=True)

    def xOpen(self, name: str | apsw.URIFilename | None, flags: list[int]) -> apsw.VFSFile:
        self.strike("xOpen")
        return _FailingFile(self, name, flags)

    def xDelete(self, filename: str, syncdir: bool) -> None:
        self.strike("xDelete")
        super().xDelete(filename, syncdir)

    def heal(self) -> None:
        self._fails = range(0)

    def fail_from_now_on(self) -> None:
        self._fails = range(self.calls + 1, 1 << 62)

    def fails(self, call: str) -> bool:
        self.calls += call in self._names
        return call in self._names and self.calls in self._fails

    def strike(self, call: str) -> None:
        if self.fails(call):
            self.refuse()

    def refuse(self) -> NoReturn:
        raise self._error("the disk says no")


class _FailingFile(apsw.VFSFile):
    def __init__(self, disk: FailingDisk, name: str | apsw.URIFilename | None, flags: list[int]) -> None:
        self._disk = disk
        super().__init__(disk.base, name, flags)

    def xWrite(self, data: bytes, offset: int) -> None:
        if self._disk.fails("xWrite"):
            if self._disk.torn:
                super().xWrite(data[: len(data) // 2], offset)
            self._disk.refuse()
        super().xWrite(data, offset)

    def xSync(self, flags: int) -> None:
        self._disk.strike("xSync")
        super().xSync(flags)

    def xTruncate(self, newsize: int) -> None:
        self._disk.strike("xTruncate")
        super().xTruncate(newsize)

    def xFileSize(self) -> int:
        self._disk.strike("xFileSize")
        return super().xFileSize()

    def xRead(self, amount: int, offset: int) -> bytes:
        self._disk.strike("xRead")
        return super().xRead(amount, offset)


@contextlib.contextmanager
def failing(disk: FailingDisk) -> Iterator[FailingDisk]:
    try:
        yield disk
    finally:
        disk.unregister()


async def write(journal: Journal, witness: Witness, first: int) -> None:
    """Sixty readings, ten at a time, on both lanes; what is confirmed is noted."""

    async def one(number: int, lane: Lane) -> None:
        with contextlib.suppress(NotStored):
            witness.confirm(lane, number, await journal.append(reading(number), lane))

    for start in range(first, first + 60, 10):
        async with asyncio.timeout(20):
            await asyncio.gather(*(one(number, Lane.TELEMETRY) for number in range(start, start + 10)), one(start, Lane.EVENTS))


@pytest.mark.parametrize(
    ("calls", "error", "times", "torn"),
    [
        pytest.param(WRITES, apsw.IOError, 1, False, id="EIO"),
        pytest.param(WRITES, apsw.IOError, 3, False, id="EIO thrice"),
        pytest.param(WRITES, apsw.FullError, 1, False, id="ENOSPC"),
        pytest.param(WRITES, apsw.FullError, 3, False, id="ENOSPC thrice"),
        pytest.param(WRITES, apsw.FullError, 1, True, id="short write"),
        pytest.param(NAMES, apsw.CantOpenError, 1, False, id="opening, deleting, measuring"),
        pytest.param(READS, apsw.IOError, 1, False, id="reading"),
        pytest.param(READS, apsw.IOError, 3, False, id="reading thrice"),
    ],
)
async def test_a_refused_call_loses_nothing_confirmed(
    calls: frozenset[str], error: type[apsw.Error], times: int, torn: bool, scratch: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Fails the n-th call, once or three times in a row; then the process dies. Twice: before and after a restart that mends."""
    monkeypatch.setattr("gateway.journal.journal.RETRY_S", 0.01)
    reached = 0
    for fails_at in range(1, LAST_CALL + 1):
        folder = scratch / f"{fails_at}"
        witness = Witness(excused=frozenset({"full"}) if error is apsw.FullError else frozenset())
        with failing(FailingDisk(fails_at, error, times, calls, torn=torn)) as disk:
            journal = await opened(folder)
            await write(journal, witness, 0)
            if calls is WRITES:
                witness.judge(await look(journal))
            killed = copied(folder, scratch / "killed")
            await journal.close()
            reached += disk.calls >= fails_at
        for left in (killed, folder):
            await inspect(left, witness=witness)
        shutil.rmtree(folder)
        if reached < fails_at:
            break
    assert reached >= 10, "the disk hardly ever failed: the campaign tests nothing"
    figures.record(
        "journal.refused-calls", calls=" ".join(sorted(calls)), error=error.__name__, times=times, torn=torn, reached=reached, lost=0
    )


async def test_while_no_sync_succeeds_nothing_is_confirmed(scratch: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Writes succeed and syncs do not: what a reader would find in the files was never promised. It is stored once syncs succeed."""
    monkeypatch.setattr("gateway.journal.journal.RETRY_S", 0.001)
    with failing(FailingDisk(1 << 62, apsw.IOError, 1, frozenset({"xSync"}))) as disk:
        journal = await opened(scratch)
        await journal.append(reading(0))
        disk.fail_from_now_on()
        before = disk.calls
        waiting = [asyncio.create_task(journal.append(reading(number))) for number in range(1, 4)]
        async with asyncio.timeout(20):
            while disk.calls < before + 20:  # noqa: ASYNC110 - a disk is asked, it tells nobody
                await asyncio.sleep(0.001)
        assert not any(each.done() for each in waiting)
        assert journal.head(Lane.TELEMETRY) == 2
        assert journal.ledger().lanes["telemetry"].unwritten == 3
    async with asyncio.timeout(20):
        await asyncio.gather(*waiting)
    assert (await look(journal)).numbers[Lane.TELEMETRY] == [0, 1, 2, 3]
    await journal.close()


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

    def fails(self, call: str) -> bool:
        assert call not in WRITES or self.free.wait(30), "the test never let the disk go on"
        return False


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
    with failing(FailingDisk(60, apsw.IOError, 10**9)):
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


async def test_what_is_too_old_stays_until_it_can_be_counted(tmp_path: Path) -> None:
    """The file is not removed while the count cannot be stored: after a crash its records are there, and nobody calls them missing.
    (On a full disk it would be: what is removed there makes the room.)"""
    clock = ManualClock()
    with failing(FailingDisk(1 << 62, apsw.IOError, 0)) as disk:
        journal = await Journal.open(options(tmp_path / "made", max_age_s=3600.0), clock=clock)
        journal.reader("cloud")
        await fill(journal, 0, 40)
        (oldest,) = (tmp_path / "made" / "telemetry").glob("*.seg")
        await later(clock, 1000, lambda: journal.ledger().lanes["telemetry"].segments == 2)
        disk.fail_from_now_on()
        await later(clock, 4000, lambda: bool(journal.ledger().trouble))
        assert oldest.exists()
        crashed = copied(tmp_path / "made", tmp_path / "crashed")
        disk.heal()
        await later(clock, 1, lambda: not oldest.exists())
        account = journal.ledger().readers["cloud"]["telemetry"]
        assert (account.dropped, account.pending) == ({"age": 40}, 0)
        assert_balanced(journal.ledger())
        await journal.close()
    found = await inspect(crashed, clock=ManualClock())
    assert (found.lost, len(found.numbers[Lane.TELEMETRY])) == ({}, 40)


async def later(clock: ManualClock, seconds: float, condition: Callable[[], bool]) -> None:
    """After ``seconds``, until ``condition`` holds: the writer is a thread of its own."""
    await clock.advance(seconds)
    async with asyncio.timeout(20):
        while not condition():
            await clock.advance(1.1)
            await asyncio.sleep(0.01)
