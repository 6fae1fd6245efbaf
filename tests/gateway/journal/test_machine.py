"""Whatever is done to a journal in whatever order, what it holds and counts agrees with a model in memory."""

from __future__ import annotations

import asyncio
import shutil
import tempfile
from collections.abc import Coroutine
from pathlib import Path
from typing import Any

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from gateway.config.model import JournalOptions
from gateway.journal import Journal, Lane, Lost, Record
from gateway.journal.segment import StorageError
from protocols.clock import ManualClock
from tests.faults.journal.plant import assert_balanced, copied, files, is_true, number_of, reading

LANES = st.sampled_from(list(Lane))
DICE = st.integers(0, 10**9)
"""What is drawn must not hang on the writer thread's pace."""
READERS = ("cloud", "historian")


class JournalMachine(RuleBasedStateMachine):
    """The model: which numbers were confirmed under which (epoch, seq), and what was acknowledged in this life."""

    def __init__(self) -> None:
        super().__init__()
        self.loop = asyncio.new_event_loop()
        self.home = Path(tempfile.mkdtemp(prefix="journal-machine-"))
        self.lives = 0
        self.folder = self.home / "0"
        self.clock = ManualClock()
        self.number = 0
        self.confirmed: dict[Lane, dict[int, tuple[int, int]]] = {lane: {} for lane in Lane}
        self.identities: set[tuple[int, int]] = set()
        self.acknowledged: dict[tuple[str, Lane], set[int]] = {}
        self.damaged = 0
        self.retiring = False

    def do(self, work: Coroutine[Any, Any, Any]) -> Any:  # Any: whatever the journal's method returns
        return self.loop.run_until_complete(asyncio.wait_for(work, 20))

    @initialize(newest=st.booleans())
    def start(self, newest: bool) -> None:
        self.options = JournalOptions(
            path="journal", max_bytes=16 * 1024**2, min_free_bytes=0, when_full="drop-newest" if newest else "drop-oldest"
        )
        self.open()

    def open(self) -> None:
        self.journal: Journal = self.do(Journal.open(self.options, clock=self.clock, base=self.folder))
        for chain in self.journal._store.chains.values():
            chain.roll_bytes, chain.wal_pages = 20_000, 8
        for name in READERS:
            self.journal.reader(name)

    # what happens to a journal

    @rule(lane=LANES, count=st.integers(1, 40))
    def append(self, lane: Lane, count: int) -> None:
        async def store() -> list[tuple[int, int]]:
            return await asyncio.gather(*(self.journal.append(reading(self.number + n), lane) for n in range(count)))

        for name in self.do(store()):
            assert name not in self.identities
            self.identities.add(name)
            self.confirmed[lane][self.number] = name
            self.number += 1

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
            assert not any(first <= b and a <= first + more for a, b in reader.pending(lane))

    @rule()
    def house(self) -> None:
        self.do(self.clock.advance(1.1))

    @rule()
    def verify(self) -> None:
        self.do(self.journal.verify())

    @rule()
    def stop_and_start(self) -> None:
        pending = {(name, lane): self.journal.reader(name).pending(lane) for name in READERS for lane in Lane}
        heads = {lane: self.journal._lanes[lane].book.next for lane in Lane}
        self.do(self.journal.close())
        self.open()
        for (name, lane), spans in pending.items():
            now = self.journal.reader(name).pending(lane)
            before = {n for a, b in spans for n in range(a, b + 1)}
            after = {n for a, b in now for n in range(a, b + 1)}
            assert before <= after <= before | set(range(1, heads[lane]))

    @rule()
    def die(self) -> None:
        self._leave()
        self.open()

    @precondition(lambda self: any(self.confirmed.values()) and self.damaged < 3)
    @rule(file=DICE, place=DICE)
    def die_and_rot(self, file: int, place: int) -> None:
        self._leave()
        targets = files(self.folder / "journal")
        target = targets[file % len(targets)]
        content = bytearray(target.read_bytes())
        content[place // 8 % len(content)] ^= 1 << place % 8
        target.write_bytes(content)
        self.damaged += 1
        self.open()

    @rule()
    def squeeze(self) -> None:
        """The bound is suddenly small: retention has to make room."""
        store = self.journal._store
        telemetry = store.chains[Lane.TELEMETRY]
        oldest = telemetry.oldest()
        if oldest is not None:
            self.retiring = True
            try:
                self.do(self.loop.run_in_executor(self.journal._writer, telemetry.retire, oldest, "full", self.clock.monotonic(), 0))  # type: ignore[arg-type]  # a future serves as well
            except StorageError as error:
                raise AssertionError("unlinking needs no space") from error

    def _leave(self) -> None:
        """What a killed process leaves: the files as they are."""

        async def rest() -> None:
            for _ in range(4):  # the writer thread, and what its end may start
                await self.loop.run_in_executor(self.journal._writer, int)
                while self.journal._committing:
                    await self.journal._turn()

        self.do(rest())
        self.lives += 1
        copied(self.folder, self.home / str(self.lives))
        self.do(self.journal.close())
        shutil.rmtree(self.folder)
        self.folder = self.home / str(self.lives)

    # what always holds

    @invariant()
    def the_ledger_balances(self) -> None:
        if hasattr(self, "journal"):
            assert_balanced(self.journal.ledger())

    @rule(lane=LANES)
    def everything_confirmed_is_there_or_counted(self, lane: Lane) -> None:
        found, lost = self.do(self._read_all(lane))
        absent = {number: name for number, name in self.confirmed[lane].items() if found.get(number) != name}
        covered = {seq for each in lost for seq in range(each.first, each.last + 1)}
        assert {seq for _, seq in absent.values()} <= covered
        if not self.retiring:
            assert len(absent) <= self.damaged

    async def _read_all(self, lane: Lane) -> tuple[dict[int, tuple[int, int]], list[Lost]]:
        reader = self.journal.reader(READERS[0])
        found: dict[int, tuple[int, int]] = {}
        lost: list[Lost] = []
        at = 1
        while at < reader.head(lane):
            for each in await reader.read(lane, at, max_records=100, max_bytes=100_000):
                if isinstance(each, Record):
                    assert each.seq == at
                    assert is_true(each.batch)
                    found[number_of(each.batch)] = (each.epoch, each.seq)
                    at += 1
                else:
                    assert each.first == at
                    lost.append(each)
                    at = each.last + 1
        assert list(found) == sorted(found)
        return found, lost

    def teardown(self) -> None:
        if hasattr(self, "journal"):
            for lane in Lane:
                self.everything_confirmed_is_there_or_counted(lane)
            self.do(self.journal.close())
        self.loop.close()
        shutil.rmtree(self.home)


TestJournalMachine = JournalMachine.TestCase
TestJournalMachine.settings = settings(
    max_examples=60, stateful_step_count=25, deadline=None, suppress_health_check=list(HealthCheck), print_blob=True
)
