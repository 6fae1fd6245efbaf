"""Whatever is done to a journal in whatever order, what it holds and counts agrees with a model in memory.

The model knows which readings were confirmed under which (epoch, seq), what each reader was given and acknowledged, and which faults
were inflicted. Time, age and bytes move by the ways that they move in the gateway: the clock is advanced, options are
changed at a restart, the disk (a VFS) is full or refuses for a while.
"""

from __future__ import annotations

import asyncio
import contextlib
import shutil
import tempfile
from collections.abc import Coroutine
from pathlib import Path
from typing import Any

import apsw
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from gateway.config.model import JournalOptions
from gateway.journal import Journal, Lane, NotStored, Record
from protocols.clock import ManualClock
from tests.faults.journal.plant import LONG, Witness, assert_balanced, copied, files, is_true, look, number_of, reading

LANES = st.sampled_from(list(Lane))
DICE = st.integers(0, 10**9)
"""What is drawn must not hang on the writer thread's pace."""
READERS = ("cloud", "historian")
MAX_AGE_S = 3600.0
MAX_BYTES = 16 * 1024**2


class Tap(apsw.VFS):
    """A disk that can be full, or broken, for a while."""

    def __init__(self, name: str) -> None:
        self.error: type[apsw.Error] | None = None
        super().__init__(name, base="unix", makedefault=True)

    def xOpen(self, name: str | apsw.URIFilename | None, flags: list[int]) -> apsw.VFSFile:
        return _TappedFile(self, name, flags)


class _TappedFile(apsw.VFSFile):
    def __init__(self, tap: Tap, name: str | apsw.URIFilename | None, flags: list[int]) -> None:
        self._tap = tap
        super().__init__("unix", name, flags)

    def xWrite(self, data: bytes, offset: int) -> None:
        if self._tap.error is not None:
            raise self._tap.error("the disk says no")
        super().xWrite(data, offset)

    def xSync(self, flags: int) -> None:
        if self._tap.error is apsw.IOError:
            raise self._tap.error("the disk says no")
        super().xSync(flags)


class JournalMachine(RuleBasedStateMachine):
    """The model: what was confirmed, given and acknowledged, and what may have been lost by now."""

    def __init__(self) -> None:
        super().__init__()
        self.loop = asyncio.new_event_loop()
        self.home = Path(tempfile.mkdtemp(prefix="journal-machine-", dir="/dev/shm" if Path("/dev/shm").is_dir() else None))
        self.tap = Tap("tapped")
        self.lives = 0
        self.folder = self.home / "0"
        self.clock = ManualClock()
        self.number = 0
        self.witness = Witness()
        self.acknowledged: dict[tuple[str, Lane], set[int]] = {(name, lane): set() for name in READERS for lane in Lane}
        """Seqs, in this life."""
        self.waiting: dict[asyncio.Task[tuple[int, int]], tuple[Lane, int]] = {}
        self.damaged = 0
        self.retiring = False
        """Whether a bound has been reached, so that whole segments may be dropped and counted."""

    def do(self, work: Coroutine[Any, Any, Any]) -> Any:  # Any: whatever the journal's method returns
        return self.loop.run_until_complete(asyncio.wait_for(work, 20))

    @initialize(newest=st.booleans())
    def start(self, newest: bool) -> None:
        self.newest = newest
        self.max_bytes = MAX_BYTES
        self.open()

    def open(self) -> None:
        options = JournalOptions(
            path="journal",
            max_bytes=self.max_bytes,
            max_age_s=MAX_AGE_S,
            min_free_bytes=0,
            when_full="drop-newest" if self.newest else "drop-oldest",
        )
        self.journal: Journal = self.do(Journal.open(options, clock=self.clock, base=self.folder))
        self.journal._store._roll_bytes = 20_000
        for chain in self.journal._store.chains.values():
            chain.roll_bytes, chain.wal_pages = 20_000, 8
        for name in READERS:
            self.journal.reader(name)

    # what happens to a journal

    @precondition(lambda self: self.tap.error is None)
    @rule(lane=LANES, count=st.integers(1, 40))
    def append(self, lane: Lane, count: int) -> None:
        async def store(number: int) -> None:
            with contextlib.suppress(NotStored):  # counted: drop-newest, at its bound
                self.witness.confirm(lane, number, await self.journal.append(reading(number), lane))

        async def store_all() -> None:
            await asyncio.gather(*(store(self.number + n) for n in range(count)))

        self.do(store_all())
        self.number += count

    @rule(lane=LANES)
    def offer(self, lane: Lane) -> None:
        self.journal.offer(reading(self.number), lane)
        self.number += 1

    @rule(lane=LANES, name=st.sampled_from(READERS), place=DICE, more=st.integers(0, 60))
    def acknowledge(self, lane: Lane, name: str, place: int, more: int) -> None:
        reader = self.journal.reader(name)
        if reader.head(lane) > 1:
            first = 1 + place % (reader.head(lane) - 1)
            reader.acknowledge(lane, first, first + more)
            self.acknowledged[name, lane].update(range(first, min(first + more + 1, reader.head(lane))))
            assert not any(first <= b and a <= first + more for a, b in reader.pending(lane))

    @rule(lane=LANES, name=st.sampled_from(READERS), place=DICE, count=st.integers(1, 30), size=st.integers(1, 50_000))
    def read(self, lane: Lane, name: str, place: int, count: int, size: int) -> None:
        """From the middle, under small limits, as an uplink does whose link is slow."""
        reader = self.journal.reader(name)
        if reader.head(lane) == 1:
            return
        first = at = 1 + place % (reader.head(lane) - 1)
        entries = self.do(reader.read(lane, first, max_records=count, max_bytes=size))
        assert 0 < len(entries) <= count
        for each in entries:
            assert (each.seq if isinstance(each, Record) else each.first) == at
            at = each.seq + 1 if isinstance(each, Record) else each.last + 1
            if isinstance(each, Record):
                assert is_true(each.batch)
                self.witness.give(lane, number_of(each.batch), (each.epoch, each.seq))
        assert at <= reader.head(lane)

    @rule(lane=LANES, name=st.sampled_from(READERS))
    def what_was_acknowledged_is_pending_no_more(self, lane: Lane, name: str) -> None:
        reader = self.journal.reader(name)
        pending = {seq for a, b in reader.pending(lane) for seq in range(a, b + 1)}
        assert not pending & self.acknowledged[name, lane]
        assert not pending or max(pending) < reader.head(lane)

    @rule()
    def forget(self) -> None:
        """A reader that is forgotten and comes back begins with the oldest that is kept."""
        self.journal.forget("historian")
        assert all("historian" not in self.journal._lanes[lane].book.readers for lane in Lane)
        self.journal.reader("historian")
        for lane in Lane:
            self.acknowledged["historian", lane] = set()

    @rule()
    def house(self) -> None:
        self.do(self.clock.advance(1.1))

    @rule(seconds=st.sampled_from((MAX_AGE_S / 10, MAX_AGE_S / 2, 1.5 * MAX_AGE_S)))
    def time_goes_by(self, seconds: float) -> None:
        """Sealed segments beyond the greatest age are dropped; in steps, as the journal sees time go by."""
        self.retiring = True
        for _ in range(3):
            self.do(self.clock.advance(seconds / 3))

    @rule(hours=st.integers(-48, 48))
    def the_wall_clock_jumps(self, hours: int) -> None:
        """Nothing is old because of that."""
        self.clock.set_time_ns(max(self.clock.time_ns() + hours * 3600 * 10**9, 1_600_000_000 * 10**9))
        before = {lane: self.journal._lanes[lane].book.first for lane in Lane}
        self.do(self.clock.advance(1.1))
        assert self.retiring or before == {lane: self.journal._lanes[lane].book.first for lane in Lane}

    @precondition(lambda self: self.tap.error is None)
    @rule()
    def verify(self) -> None:
        self.do(self.journal.verify())

    @precondition(lambda self: self.tap.error is None)
    @rule(full=st.booleans(), lane=LANES, count=st.integers(1, 30))
    def fill(self, full: bool, lane: Lane, count: int) -> None:
        """The disk is full, or refuses; who waits for an append goes on waiting, unless room was made by dropping."""
        self.retiring |= full
        self.tap.error = apsw.FullError if full else apsw.IOError

        async def store() -> None:
            for _ in range(count):
                task = asyncio.create_task(self.journal.append(reading(self.number), lane))
                self.waiting[task] = (lane, self.number)
                self.number += 1
            await self._quiet()

        self.do(store())
        assert full or not any(task.done() for task in self.waiting), "confirmed though every sync failed"

    @precondition(lambda self: self.tap.error is not None)
    @rule()
    def space_returns(self) -> None:
        """All that waited is stored, without a restart."""
        self.tap.error = None

        async def settle() -> None:
            while not all(task.done() for task in self.waiting):
                await self.clock.advance(0.6)
                await self._quiet()

        self.do(settle())
        self._hear()
        self.do(self.clock.advance(0.6))
        self.do(self._quiet())
        assert self.journal.ledger().trouble == ""

    def _hear(self) -> None:
        for task, (lane, number) in self.waiting.items():
            if task.done() and not task.cancelled():
                with contextlib.suppress(NotStored):
                    self.witness.confirm(lane, number, task.result())
        self.waiting = {task: each for task, each in self.waiting.items() if not task.done()}

    async def _quiet(self) -> None:
        """Return when the writer thread has nothing to do, nor will by its own end."""
        for _ in range(4):
            await self.loop.run_in_executor(self.journal._writer, int)
            while self.journal._committing:
                await self.journal._turn()

    @precondition(lambda self: self.tap.error is None)
    @rule(newest=st.booleans(), small=st.booleans())
    def stop_and_start(self, newest: bool, small: bool) -> None:
        """With other options, perhaps."""
        pending = {(name, lane): self.journal.reader(name).pending(lane) for name in READERS for lane in Lane}
        heads = {lane: self.journal._lanes[lane].book.next for lane in Lane}
        epochs = {lane: self.journal._lanes[lane].book.epoch for lane in Lane}
        self.do(self.journal.close())
        self.newest, self.max_bytes = newest, MAX_BYTES if small else 2 * MAX_BYTES
        self.open()
        for lane in Lane:
            assert self.journal._lanes[lane].book.next == heads[lane]
            assert self.journal._lanes[lane].book.epoch == epochs[lane] or self.damaged or heads[lane] == 1
        for (name, lane), spans in pending.items():
            now = self.journal.reader(name).pending(lane)
            before = {n for a, b in spans for n in range(a, b + 1)}
            after = {n for a, b in now for n in range(a, b + 1)}
            assert self.retiring or before <= after
            assert after <= before | set(range(1, heads[lane]))

    @rule()
    def die(self) -> None:
        self._leave()
        self.open()

    @precondition(lambda self: any(self.witness.stored.values()) and self.damaged < 3)
    @rule(file=DICE, place=DICE)
    def die_and_rot(self, file: int, place: int) -> None:
        self._leave()
        targets = files(self.folder / "journal")
        if targets:  # none where all that was stored has retired and the new file was refused
            target = targets[file % len(targets)]
            content = bytearray(target.read_bytes())
            content[place // 8 % len(content)] ^= 1 << place % 8
            target.write_bytes(content)
            self.damaged += 1
        self.open()

    @precondition(lambda self: self.tap.error is None)
    @rule()
    def squeeze(self) -> None:
        """The bound is small for a moment: retention has to make room."""
        self.retiring = True
        store, options = self.journal._store, self.journal._store.options
        store.options = JournalOptions(
            path="journal", max_bytes=300_000, max_age_s=MAX_AGE_S, min_free_bytes=0, when_full=options.when_full
        )
        self.do(self.clock.advance(1.1))
        self.do(self._quiet())
        store.options = options
        self.do(self.clock.advance(1.1))
        self.do(self._quiet())

    def _leave(self) -> None:
        """What a killed process leaves: the files as they are."""
        self.do(self._quiet())
        self._hear()
        self.lives += 1
        copied(self.folder, self.home / str(self.lives))
        self.tap.error = None
        for task in self.waiting:
            task.cancel()
        self.waiting = {}
        self.do(self.journal.close())
        shutil.rmtree(self.folder)
        self.folder = self.home / str(self.lives)
        self.acknowledged = {key: set() for key in self.acknowledged}  # the last second of them may come again

    # what always holds

    @invariant()
    def the_ledger_balances(self) -> None:
        if hasattr(self, "journal"):
            assert_balanced(self.journal.ledger())

    @precondition(lambda self: self.tap.error is None)
    @rule()
    def everything_confirmed_is_there_or_counted(self) -> None:
        self.do(self._quiet())
        found = self.do(look(self.journal))
        self.witness.judge(found, None if self.retiring else self.damaged)

    def teardown(self) -> None:
        if hasattr(self, "journal"):
            if self.tap.error is not None:
                self.space_returns()
            self.everything_confirmed_is_there_or_counted()
            self.do(self.journal.close())
        self.tap.unregister()
        self.loop.close()
        shutil.rmtree(self.home)


TestJournalModel = JournalMachine.TestCase
TestJournalModel.settings = settings(
    max_examples=2000 if LONG else 60,
    stateful_step_count=50 if LONG else 30,
    deadline=None,
    suppress_health_check=list(HealthCheck),
    print_blob=True,
)
