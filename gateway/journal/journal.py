"""The durable record of everything that happened: what the rest of the gateway sees of it.

The event loop packs a batch, numbers it and puts it by; the writer thread makes what has gathered durable, one
transaction for all, and tells the loop. So ``offer`` never waits for a disk, and a disk that stalls costs memory up to
a bound and then counted records. Readers get what is durable: mostly from memory, as the very batches that were
offered, else from the files. Gaps are said, never skipped.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import OrderedDict, deque
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, Literal

import structlog

from gateway.config.model import JournalOptions
from gateway.journal import codec
from gateway.journal.archive import Archive
from gateway.journal.chain import Chain, Group
from gateway.journal.codec import LANE_NUMBER, LANES, Definition, Piece
from gateway.journal.ledger import Book, LaneLedger, Ledger, ReaderLane, VerifyReport
from gateway.journal.record import DropReason, Lane, Lost, Record
from gateway.journal.segment import Row, StorageError
from gateway.journal.spans import QUARANTINED, Span
from gateway.journal.store import Store
from gateway.tasks import cancel
from protocols.clock import Clock
from protocols.model import Batch, Device

log = structlog.get_logger("holdfast.journal")

MOST_UNWRITTEN: Final = 64 * 1024 * 1024
"""Bytes that may wait in memory for a disk that takes nothing."""
MOST_TAIL: Final = 12 * 1024 * 1024
"""Bytes of durable batches kept in memory for readers that keep up."""
FLUSH_BYTES: Final = 512 * 1024
"""So much is stored at once, without waiting for the window."""
SETTLE_S: Final = 0.005
"""When nothing has come for so long, a burst of scans is over: what belongs together is stored together, and delivered, at once."""
IDLE_S: Final = 1.0
RETRY_S: Final = 0.5
MOST_DEFINITIONS: Final = 10_000
PICK_AT_ONCE: Final = 64
"""Records that the writer looks up one by one before it turns to what waits."""
OBJECT_BYTES: Final = 700
"""What a record in memory weighs besides its columns, about."""


Listener = Callable[[Sequence[Record]], None]


class NotStored(Exception):
    """A record that was to be stored will not be. It has been counted."""

    def __init__(self, reason: DropReason) -> None:
        super().__init__(f"the record was dropped ({reason.value}): see the journal's ledger and the disk")
        self.reason = reason


@dataclass(slots=True, eq=False)
class _Entry:
    """A record on its way to the disk."""

    record: Record
    rows: list[Row]
    definition: Definition
    bytes: int
    weight: int
    """Bytes that the batch takes in memory."""
    stored: asyncio.Future[tuple[int, int]] | None


@dataclass(slots=True, eq=False)
class _LaneState:
    """What the event loop knows of a lane."""

    lane: Lane
    number: int
    book: Book
    head: int = 1
    """Everything before it is stored, or counted as lost."""
    due: int = 1
    """Where the head will be when the commit that runs is over."""
    gathered: deque[_Entry] = field(default_factory=deque)
    in_flight: list[_Entry] = field(default_factory=list)
    tail: OrderedDict[int, tuple[Record, int, int]] = field(default_factory=OrderedDict)
    """Durable records by seq, with their stored size and their weight."""


class Journal:
    """One folder of records. Every method but ``open`` belongs to the event loop that opened it."""

    def __init__(
        self, store: Store, options: JournalOptions, clock: Clock, books: dict[Lane, Book], definitions: dict[int, Definition]
    ) -> None:
        self._store = store
        self._options = options
        self._clock = clock
        self._window_s = options.commit_window_ms / 1000
        self._definitions = definitions
        self._known: dict[Device, Definition] = {}
        self._lanes = {lane: _LaneState(lane, LANE_NUMBER[lane], books[lane]) for lane in LANES}
        self._readers: dict[str, Reader] = {}
        self._loop = asyncio.get_running_loop()
        self._writer = ThreadPoolExecutor(max_workers=1, thread_name_prefix="journal")
        self._unwritten = 0
        self._gathered_bytes = 0
        self._tail_bytes = 0
        self._since = float("inf")
        """When the oldest gathered record came."""
        self._newest = 0.0
        """When the newest record came."""
        self._flushed = float("-inf")
        """When records were last handed to the writer."""
        self._gathering = asyncio.Event()
        self._committing = False
        self._again = False
        self._soon = False
        self._idle = True
        """Nothing was stored since the house was last looked after."""
        self._failed = False
        self._closed = False
        self._waiting: list[asyncio.Future[None]] = []
        """Who waits for the end of the commit that runs or comes next."""
        self._tasks: list[asyncio.Task[None]] = []
        self._listeners: list[tuple[Lane, Listener]] = []

    @classmethod
    async def open(cls, options: JournalOptions, *, clock: Clock, base: Path = Path(), renew: bool = False) -> Journal:
        """Open the journal in ``options.path`` (relative to ``base``), creating or mending it as need be. ``renew``: it is a copy, and
        begins a new epoch whatever it says, for the original may have gone on with the same numbers.

        Raises JournalBusy if another process has it open, StorageError if the folder cannot be used at all.
        """
        books = {lane: Book(lane) for lane in LANES}
        definitions: dict[int, Definition] = {}
        store = Store(base / options.path, options, books, definitions)
        journal = cls(store, options, clock, books, definitions)
        try:
            await journal._loop.run_in_executor(journal._writer, store.open, clock, renew)
        except BaseException:
            journal._writer.shutdown(wait=False)
            raise
        for lane, state in journal._lanes.items():
            state.head = state.due = store.chains[lane].durable
        journal._tasks = [asyncio.create_task(journal._gather()), asyncio.create_task(journal._keep_house())]
        return journal

    # writing

    def offer(self, batch: Batch, lane: Lane = Lane.TELEMETRY) -> None:
        """Take a batch; it is durable within the commit window. Never blocks; what cannot be kept is counted."""
        self._take(batch, lane, None)

    async def append(self, batch: Batch, lane: Lane = Lane.TELEMETRY) -> tuple[int, int]:
        """Store a batch and return (epoch, seq) of its last record once it survives power loss.

        Raises NotStored, with the reason, if it (or a part of it) was dropped and counted instead.
        """
        stored: asyncio.Future[tuple[int, int]] = self._loop.create_future()
        self._take(batch, lane, stored)
        if not self._soon:
            self._soon = True
            self._loop.call_soon(self._flush_soon)
        return await stored

    def _take(self, batch: Batch, lane: Lane, stored: asyncio.Future[tuple[int, int]] | None) -> None:
        if self._closed:
            raise RuntimeError("the journal is closed")
        state = self._lanes[lane]
        book = state.book
        definition = self._known.get(batch.device) or self._define(batch.device)
        stamp = self._clock.time_ns()
        pieces = codec.pack(batch, definition)
        last = pieces[-1]
        for piece in pieces:
            seq = book.next
            book.next = seq + 1
            book.values += len(piece.batch.tag)
            if piece.too_large:
                self._drop(state, seq, DropReason.TOO_LARGE, stored)
            elif self._store.full and lane is Lane.TELEMETRY:
                self._drop(state, seq, DropReason.FULL, stored)
            else:
                self._put_by(state, piece, definition, seq, stamp, stored if piece is last else None)
        if self._unwritten > MOST_UNWRITTEN:
            self._relieve(state)
        if self._gathered_bytes >= FLUSH_BYTES:
            self._flush()

    def _put_by(
        self, state: _LaneState, piece: Piece, definition: Definition, seq: int, stamp: int, stored: asyncio.Future[tuple[int, int]] | None
    ) -> None:
        epoch = state.book.epoch
        rows = codec.record_frames(piece, definition.id, state.number, epoch, seq, stamp)
        size = len(rows[0][1]) if len(rows) == 1 else sum(len(row) for _, row in rows)
        weight = size + OBJECT_BYTES + 24 * len(piece.batch.tag)
        state.gathered.append(_Entry(Record(epoch, seq, state.lane, stamp, piece.batch), rows, definition, size, weight, stored))
        self._unwritten += weight
        self._gathered_bytes += size
        self._newest = self._clock.monotonic()
        if self._since == float("inf"):
            self._since = self._newest
            self._gathering.set()

    def _define(self, device: Device) -> Definition:
        """The definition of a device that was not seen before. The live device serves readers from now on."""
        definition = codec.define(device)
        if len(self._known) >= MOST_DEFINITIONS:
            self._known.clear()
        self._known[device] = definition
        self._definitions[definition.id] = definition
        return definition

    def _drop(self, state: _LaneState, seq: int, reason: DropReason, stored: asyncio.Future[tuple[int, int]] | None) -> None:
        state.book.lose(seq, seq, state.book.epoch, reason.value)
        if stored is not None and not stored.done():
            stored.set_exception(NotStored(reason))

    def _relieve(self, state: _LaneState) -> None:
        """The memory bound is reached: drop from what waits, telemetry first, oldest or newest as configured."""
        reason = DropReason.UNWRITABLE if self._failed else DropReason.STALLED
        for each in (self._lanes[Lane.TELEMETRY], self._lanes[Lane.EVENTS]):
            while self._unwritten > MOST_UNWRITTEN and each.gathered:
                newest = self._options.when_full == "drop-newest"
                entry = each.gathered.pop() if newest else each.gathered.popleft()
                self._unwritten -= entry.weight
                self._gathered_bytes -= entry.bytes
                self._drop(each, entry.record.seq, reason, entry.stored)

    # committing

    async def _gather(self) -> None:
        """Store what has gathered when it is due."""
        while True:
            await self._gathering.wait()
            self._gathering.clear()
            while self._since < float("inf"):
                if self._clock.monotonic() >= (due := self._due()):
                    self._flush()
                else:
                    await self._clock.sleep_until(due)

    def _due(self) -> float:
        """A burst is stored when it is over; but not within a window of the last commit, and never later than a window after it began."""
        return min(self._since + self._window_s, max(self._newest + SETTLE_S, self._flushed + self._window_s))

    async def _keep_house(self) -> None:
        """Age, space, and accounts that changed, where nothing was stored meanwhile: each commit sees to them as well."""
        while True:
            await self._clock.sleep_until(self._clock.monotonic() + IDLE_S)
            if self._idle:
                await self._loop.run_in_executor(self._writer, self._store.look, self._clock)
                if any(state.book.dirty for state in self._lanes.values()):
                    self._flush()
            self._idle = True

    def _flush_soon(self) -> None:
        self._soon = False
        self._flush()

    def _flush(self) -> None:
        """Hand what has gathered to the writer, unless it is still busy with the last group."""
        self._since, self._flushed = float("inf"), self._clock.monotonic()
        if self._committing:
            self._again = True
            return
        self._committing, self._again, self._idle, self._gathered_bytes = True, False, False, 0
        groups: dict[Lane, Group | None] = {}
        for lane, state in self._lanes.items():
            if state.gathered:
                state.in_flight.extend(state.gathered)
                state.gathered.clear()
            groups[lane] = _group(state.in_flight) if state.in_flight else None
            state.due = state.book.next
        self._writer.submit(self._store.commit, groups, self._clock).add_done_callback(self._on_committed)

    def _on_committed(self, done: Future[dict[Lane, StorageError | None]]) -> None:
        """On the writer thread."""
        with contextlib.suppress(RuntimeError):  # the loop is gone: nobody is left to be told
            self._loop.call_soon_threadsafe(self._committed, done)

    def _committed(self, done: Future[dict[Lane, StorageError | None]]) -> None:
        self._committing = self._failed = False
        bug = done.exception()
        for lane, state in self._lanes.items():
            if bug is None and done.result()[lane] is None:
                self._stored(state)
            else:
                self._failed = True
                state.gathered.extendleft(reversed(state.in_flight))
                state.in_flight = []
        for waiter in self._waiting:
            if not waiter.done():
                waiter.set_result(None)
        self._waiting.clear()
        if self._failed:
            self._since = self._flushed = self._clock.monotonic() + RETRY_S
            self._gathering.set()
        elif self._again:
            self._flush()
        if bug is not None:
            raise bug

    def _stored(self, state: _LaneState) -> None:
        """What was in flight is durable, and so is the account of what was refused after it."""
        tail = state.tail
        for entry in state.in_flight:
            record = entry.record
            tail[record.seq] = (record, entry.bytes, entry.weight)
            self._unwritten -= entry.weight
            self._tail_bytes += entry.weight
            if entry.stored is not None and not entry.stored.done():
                entry.stored.set_result((record.epoch, record.seq))
        state.head = state.due
        for lane, listener in self._listeners:
            if lane is state.lane and state.in_flight:
                listener([entry.record for entry in state.in_flight])
        state.in_flight = []
        while self._tail_bytes > MOST_TAIL:
            self._shorten_tail()

    def _shorten_tail(self) -> None:
        """Let go of the oldest records in memory, in the lane that has most there.

        With a plain dict, asking for the first key would walk over all that were removed before it: quadratic.
        """
        tail = max((state.tail for state in self._lanes.values()), key=len)
        while self._tail_bytes > MOST_TAIL and tail:
            _, (_, _, weight) = tail.popitem(last=False)
            self._tail_bytes -= weight

    # reading

    def reader(self, name: str, start: Literal["oldest", "newest"] = "oldest") -> Reader:
        """The reader called ``name``; the same name has the same cursor, also after a restart."""
        if name not in self._readers:
            for state in self._lanes.values():
                state.book.reader(name, state.book.first if start == "oldest" else state.book.next)
            self._readers[name] = Reader(self, name)
        return self._readers[name]

    def forget(self, name: str) -> None:
        """Remove a reader that will not come back: nothing waits for it any more."""
        self._readers.pop(name, None)
        for state in self._lanes.values():
            state.book.forget(name)

    async def read(
        self, lane: Lane, first: int, *, max_records: int = 1000, max_bytes: int = 1 << 20, last: int | None = None
    ) -> list[Record | Lost]:
        """Durable entries from seq ``first`` on, in order, gaps as Lost, all of one epoch; [] if ``first`` is the head or beyond."""
        state = self._lanes[lane]
        end = state.head - 1 if last is None else min(last, state.head - 1)
        first = max(first, 1)
        if first > end or max_records < 1:
            return []
        found = self._from_tail(state, first, end, max_records, max_bytes)
        if found:
            return found
        chain = self._store.chains[lane]
        return await self._loop.run_in_executor(self._writer, chain.read, first, end, max_records, max_bytes)

    def _from_tail(self, state: _LaneState, first: int, end: int, max_records: int, max_bytes: int) -> list[Record | Lost]:
        """As many entries as memory holds without a hole. What was counted as lost is one, although memory may have it still."""
        with state.book.lock:
            lost = state.book.gaps.within(first, end)
        if lost:
            end = lost[0][0] - 1
        found: list[Record | Lost] = []
        tail, size = state.tail, 0
        for seq in range(first, min(end, first + max_records - 1) + 1):
            each = tail.get(seq)
            if each is None or (found and each[0].epoch != found[0].epoch) or size >= max_bytes:
                break
            found.append(each[0])
            size += each[1]
        return found

    def listen(self, lane: Lane, listener: Listener) -> Callable[[], None]:
        """Have ``listener`` told of every record that becomes durable from now on, in order, until what is returned is called.
        It is called in the loop, between other things: it must be quick, and raise nothing."""
        told = (lane, listener)
        self._listeners.append(told)
        return lambda: self._listeners.remove(told)

    def recent(self, lane: Lane, first: int, *, max_records: int = 1000) -> list[Record | Lost]:
        """What memory holds of durable entries from ``first`` on, as :meth:`read` gives them; [] where the files have to be asked."""
        state = self._lanes[lane]
        if not 1 <= first < state.head:
            return []
        return self._from_tail(state, first, state.head - 1, max_records, MOST_TAIL)

    async def pick(self, lane: Lane, seqs: Sequence[int]) -> list[Record | Lost]:
        """The durable entries of ``seqs``, in their order: from memory, else from the files in small portions, between which others
        get their turn. What is beyond the head is left out."""
        state = self._lanes[lane]
        found: dict[int, Record | Lost] = {seq: state.tail[seq][0] for seq in seqs if seq in state.tail}
        asked = [seq for seq in seqs if seq not in found and 1 <= seq < state.head]
        chain = self._store.chains[lane]
        for at in range(0, len(asked), PICK_AT_ONCE):
            some = asked[at : at + PICK_AT_ONCE]
            found |= await self._loop.run_in_executor(self._writer, _each, chain, some)
        return [found[seq] for seq in seqs if seq in found]

    def archive(self, lane: Lane) -> Archive:
        """The sealed files of ``lane``, for one thread that reads them beside the writer; whoever takes it closes it there."""
        return Archive(self._store.chains[lane], self._definitions)

    def gaps(self, lane: Lane, first: int, last: int) -> list[Lost]:
        """What is known to be lost, or removed, between ``first`` and ``last``."""
        book = self._lanes[lane].book
        with book.lock:
            return [Lost(epoch, a, b, reason) for a, b, epoch, reason in book.gaps.within(first, last)]

    def first(self, lane: Lane) -> int:
        """Seq of the oldest record of ``lane`` that is kept; its head when none is."""
        return self._lanes[lane].book.first

    def head(self, lane: Lane) -> int:
        """Seq after the last entry of ``lane`` that can be read: a durable record, or one that is counted as lost."""
        return self._lanes[lane].head

    async def wait(self, heads: Mapping[Lane, int]) -> None:
        """Return when the head of some lane is beyond the one given for it."""
        while not any(self._lanes[lane].head > head for lane, head in heads.items()):
            await self._turn()

    def _turn(self) -> asyncio.Future[None]:
        """Done when the next commit is over, however it ended."""
        waiter: asyncio.Future[None] = self._loop.create_future()
        self._waiting.append(waiter)
        return waiter

    # the account

    def ledger(self) -> Ledger:
        """The account of every record, at this moment."""
        lanes: dict[str, LaneLedger] = {}
        readers: dict[str, dict[str, ReaderLane]] = {}
        for lane, state in self._lanes.items():
            chain = self._store.chains[lane]
            book = state.book
            with book.lock:
                stamps = {name: chain.stamp(account.low) for name, account in book.readers.items()}
                for name, account in book.reader_lanes(stamps).items():
                    readers.setdefault(name, {})[lane.value] = account
                lanes[lane.value] = self._lane_ledger(state)
        return Ledger(
            lanes=lanes,
            readers=readers,
            bytes=self._store.bytes,
            max_bytes=self._options.max_bytes,
            free_bytes=self._store.free_bytes,
            trouble=self._store.trouble,
        )

    def _lane_ledger(self, state: _LaneState) -> LaneLedger:
        book, chain = state.book, self._store.chains[state.lane]
        lost = dict(book.lost)
        quarantined = lost.pop(QUARANTINED, 0)
        unwritten = len(state.gathered) + len(state.in_flight)
        appended = book.next - 1
        return LaneLedger(
            appended=appended,
            values=book.values,
            unwritten=unwritten,
            kept=appended - unwritten - book.retired - quarantined - sum(lost.values()),
            retired=book.retired,
            dropped=lost,
            quarantined=quarantined,
            first=book.first,
            head=state.head,
            epoch=book.epoch,
            oldest_ns=chain.stamp(book.first),
            bytes=chain.told_bytes,
            segments=len(chain.sealed) + (chain.active is not None),
        )

    async def verify(self) -> VerifyReport:
        """Read and check every stored record, mending what is damaged, without stopping the writer for long."""
        segments = records = values = 0
        before = {lane: _damage(self._store, lane) for lane in LANES}
        for lane in LANES:
            chain = self._store.chains[lane]
            for segment in await self._loop.run_in_executor(self._writer, chain.segments):
                segments += 1
                at: int | None = segment.facts.first
                while at is not None:
                    more, its_values, at = await self._loop.run_in_executor(self._writer, chain.check, segment, at)
                    records, values = records + more, values + its_values
        after = {lane: _damage(self._store, lane) for lane in LANES}
        return VerifyReport(
            segments=segments,
            records=records,
            values=values,
            quarantined=sum(after[lane][0] - before[lane][0] for lane in LANES),
            missing=sum(after[lane][1] - before[lane][1] for lane in LANES),
            repaired=tuple(name for lane in LANES for name in after[lane][2][len(before[lane][2]) :]),
        )

    async def roll(self) -> None:
        """Begin new segments: what is durable now lies in files that are sealed, and can be copied."""
        await self._loop.run_in_executor(self._writer, self._store.roll, self._clock)

    async def close(self) -> None:
        """Store what has gathered and let go of the folder. What cannot be stored is lost, and said."""
        if self._closed:
            return
        self._closed = True
        for task in self._tasks:
            await cancel(task)
        while self._committing:
            await self._turn()
        if any(state.gathered for state in self._lanes.values()):
            self._flush()
            await self._turn()
        try:
            await self._loop.run_in_executor(self._writer, self._store.close, self._clock)
        except StorageError as error:
            log.error("closed_unclean", trouble=str(error))
        finally:
            self._give_up()
            self._writer.shutdown(wait=True)

    def _give_up(self) -> None:
        for state in self._lanes.values():
            for entry in state.gathered:
                self._drop(state, entry.record.seq, DropReason.UNWRITABLE, entry.stored)
            if state.gathered:
                log.error("not_stored", lane=state.lane.value, records=len(state.gathered))


class Reader:
    """One uplink's view of the journal. Get it from :meth:`Journal.reader`."""

    def __init__(self, journal: Journal, name: str) -> None:
        self.name = name
        self._journal = journal

    def head(self, lane: Lane) -> int:
        """Seq after the last entry of ``lane`` that can be read: a durable record, or one that is counted as lost."""
        return self._journal.head(lane)

    def pending(self, lane: Lane) -> tuple[Span, ...]:
        """Durable spans (first, last) that are neither acknowledged nor lost, oldest first."""
        state = self._journal._lanes[lane]
        return state.book.pending(self.name, state.head)

    def untold(self, lane: Lane) -> tuple[Span, ...]:
        """Spans before the head that were lost and have not been acknowledged, in this life or an earlier one, oldest first:
        whoever receives them is still to be told."""
        state = self._journal._lanes[lane]
        return state.book.untold(self.name, state.head)

    async def read(self, lane: Lane, first: int, *, max_records: int, max_bytes: int, last: int | None = None) -> list[Record | Lost]:
        """Durable entries from ``first`` on in order of seq, gaps as explicit Lost, all of one epoch.

        What is acknowledged already is not skipped. [] if nothing durable is there. ``max_bytes`` counts stored bytes;
        one entry is returned however large it is.
        """
        return await self._journal.read(lane, first, max_records=max_records, max_bytes=max_bytes, last=last)

    def acknowledge(self, lane: Lane, first: int, last: int) -> None:
        """``first`` to ``last`` have been delivered, or told as lost: any span, in any order. Durable within two seconds, or at close."""
        state = self._journal._lanes[lane]
        state.book.acknowledge(self.name, first, min(last, state.head - 1))

    async def wait(self, lane_heads: Mapping[Lane, int]) -> None:
        """Return when the head of some lane is beyond the one given for it."""
        await self._journal.wait(lane_heads)


def _group(entries: list[_Entry]) -> Group:
    rows: list[Row] = []
    definitions: dict[int, Definition] = {}
    size = values = 0
    for entry in entries:
        rows += entry.rows
        definitions[entry.definition.id] = entry.definition
        size += entry.bytes
        values += len(entry.record.batch.tag)
    first, last = entries[0].record, entries[-1].record
    return Group(first.seq, last.seq + 1, rows, definitions, size, values, first.written_ns, last.written_ns)


def _each(chain: Chain, seqs: Sequence[int]) -> dict[int, Record | Lost]:
    return {seq: entry for seq in seqs for entry in chain.read(seq, seq, 1, 1)}


def _damage(store: Store, lane: Lane) -> tuple[int, int, list[str]]:
    damage = store.chains[lane].damage
    return damage.quarantined, damage.missing, list(damage.repaired)
