"""Follows the journal: folds what becomes durable into roll-ups and saves them now and then. A reader without a voice.

It has no account in the journal: nothing waits for it, nothing is kept for it, and what it makes can be made again. While it
keeps up it is told of the very batches that have become durable, and only puts them by; where it is behind (after a stop,
or when its file was thrown away) it reads sealed files beside the writer, in small portions, and leaves as much time to
others as it takes itself. All folding, saving and reading is done by one thread, the history's.
"""

from __future__ import annotations

import asyncio
import contextlib
import sqlite3
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Final, ParamSpec, TypeVar

import structlog

from gateway.history.fresh import Fresh, by_device
from gateway.history.store import Cursor, Loss, Store, is_damage
from gateway.history.sums import WINDOW_NS, Spoilt
from gateway.journal import Archive, Journal, Lane, Lost, Record
from gateway.links import Up
from gateway.objections import Unavailable
from gateway.tasks import first_to_end
from protocols.clock import Clock
from protocols.contract import Refused

log = structlog.get_logger("holdfast.history")

P = ParamSpec("P")
T = TypeVar("T")

LANE: Final = Lane.TELEMETRY
LOOK_S: Final = 1.0
RECORDS_AT_ONCE: Final = 1000
FROM_FILES: Final = 256
FROM_WRITER: Final = 64
FOLD_VALUES: Final = 500_000
MOST_GATHERED: Final = 1_500_000
"""Values that may wait to be folded, each some 30 bytes: beyond them the files are read later."""
FOLD_AFTER_S: Final = 20.0
"""What gathers is folded at the latest then: rows of one device fold together, and the more there are the less each costs."""
MOST_FRESH_BYTES: Final = 32 * 1024 * 1024
GRACE_S: Final = 5.0
"""A window is saved so long after its end, so that what belongs to it is there."""


class Follower:
    """Owner of the history's thread and of everything that only it may touch."""

    def __init__(self, store: Store, journal: Journal, clock: Clock) -> None:
        self.store = store
        self.fresh = Fresh()
        self.archive: Archive = journal.archive(LANE)
        self.folded = 0
        """Values since the start."""
        self._journal = journal
        self._clock = clock
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="history")
        self._turn = asyncio.Lock()
        self._enough = asyncio.Event()
        """So much has gathered that it is to be folded now."""
        self._deaf: Callable[[], None] = _nothing
        self._serving = False
        self._cursor = self._folded = Cursor()
        """How far records have been taken, and how far they are folded."""
        self._gathered: list[Record] = []
        self._gathered_values = 0
        self._losses: list[Loss] = []
        self._stamp_ns = 0
        """Of the newest record that was seen."""
        self._fold_at = self._save_at = float("inf")
        self._doubtful = False
        """Folding has failed half-way: all that is not saved is to be read again."""

    @property
    def behind(self) -> int:
        """Durable records that have not been looked at."""
        return max(0, self._journal.head(LANE) - self._cursor.next)

    async def session(self, up: Up) -> None:
        """Follow until cancelled. Raises Refused where the file cannot be used; whatever is not saved then is read again."""
        try:
            await self._begin()
            up()
            while True:
                wait_s = await self._look()
                await first_to_end(self._clock.sleep_until(self._clock.monotonic() + wait_s), self._enough.wait())
        except (sqlite3.DatabaseError, OSError, Spoilt) as error:
            await self._give_up(error)
        finally:
            self._serving = False
            self._deaf()
            self._deaf = _nothing
            await self._end()

    async def ask(self, work: Callable[P, T], *args: P.args, **more: P.kwargs) -> T:
        """What ``work`` says on the history's thread. Raises Unavailable where there is no history just now."""
        if not self._serving:
            raise _not_there()
        try:
            return await self._do(work, *args, **more)
        except (sqlite3.DatabaseError, Spoilt) as error:
            if is_damage(error):
                await self._throw_away(error)
            raise Unavailable(f"history cannot be read ({error})", "ask again: what was damaged is made anew") from error

    async def catch_up(self) -> None:
        """Fold all that is durable and still in memory, so that an answer ends now. Raises Unavailable."""
        if not self._serving:
            raise _not_there()
        async with self._turn:
            try:
                while self._absorb(self._recent()):
                    if self._gathered_values >= FOLD_VALUES:
                        await self._fold()
                await self._fold()
            except (sqlite3.DatabaseError, Spoilt) as error:
                raise Unavailable(f"history cannot be kept ({error})", "look at its disk; ask again") from error

    def shut(self) -> None:
        self._thread.shutdown(wait=False)

    # one look

    async def _look(self) -> float:
        """Take what has become durable; returns how long to wait until the next look, in seconds."""
        async with self._turn:
            if self._doubtful:
                await self._start_over(await self._do(self.store.cursor, LANE.value))
            began = self._clock.monotonic()
            self._enough.clear()
            while self._absorb(self._recent()):
                if self._gathered_values >= FOLD_VALUES:
                    await self._fold()
            wait_s = LOOK_S
            if self.archive.is_open:
                await self._do(self.archive.tidy)
            if self._cursor.next < self._journal.head(LANE):
                self._absorb(await self._from_files())
                wait_s = self._clock.monotonic() - began
            if self._gathered_values >= FOLD_VALUES or self._clock.monotonic() >= self._fold_at:
                await self._fold()
            if self._clock.monotonic() >= self._save_at or self.fresh.bytes > MOST_FRESH_BYTES:
                await self._save()
            return wait_s

    def _hear(self, records: Sequence[Record]) -> None:
        """Put by what has become durable, if it is what comes next."""
        if records[0].seq == self._cursor.next and self._gathered_values < MOST_GATHERED and _follow_each_other(records):
            self._absorb(records)
            if self._gathered_values >= FOLD_VALUES:
                self._enough.set()

    def _recent(self) -> Sequence[Record | Lost]:
        """What comes next, as far as it is known without looking into files: records in memory, or a gap."""
        first, head = self._cursor.next, self._journal.head(LANE)
        found: Sequence[Record | Lost] = self._journal.recent(LANE, first, max_records=RECORDS_AT_ONCE)
        return found or [gap for gap in self._journal.gaps(LANE, first, head - 1)[:1] if gap.first == first]

    async def _from_files(self) -> Sequence[Record | Lost]:
        first = self._cursor.next
        if found := await self._do(self.archive.after, first, FROM_FILES):
            return found
        return await self._journal.read(LANE, first, max_records=FROM_WRITER)

    def _absorb(self, entries: Sequence[Record | Lost]) -> bool:
        for entry in entries:
            if isinstance(entry, Record):
                self._gathered.append(entry)
                self._gathered_values += entry.values
                if self._losses and self._losses[-1].to_ns == 0:
                    self._losses[-1] = Loss(self._losses[-1].lost, self._losses[-1].from_ns, entry.written_ns)
                self._stamp_ns = entry.written_ns
                self._cursor = Cursor(entry.epoch, entry.seq + 1)
            else:
                self._losses.append(Loss(entry, self._stamp_ns, 0))
                self._cursor = Cursor(entry.epoch, entry.last + 1)
        if entries and self._fold_at == float("inf"):
            self._fold_at = self._clock.monotonic() + FOLD_AFTER_S
        return bool(entries)

    async def _fold(self) -> None:
        records, self._gathered, self._gathered_values, self._fold_at = self._gathered, [], 0, float("inf")
        self._folded = self._cursor
        # who asked may go, what was taken must be folded; and what somebody who went has left to the thread is waited for
        await asyncio.shield(self._do(self._fold_records, records))

    def _fold_records(self, records: list[Record]) -> None:
        if self._doubtful:
            return
        self._doubtful = True
        for device, some in by_device(records).items():
            self.fresh.take(self.store.source(device), some)
        self._doubtful = False
        self.folded += sum(record.values for record in records)

    async def save(self) -> None:
        """Save what has been folded, now."""
        async with self._turn:
            await self._save()

    async def _save(self) -> None:
        await self._fold()
        now_ns = self._clock.time_ns()
        losses = [each if each.to_ns else Loss(each.lost, each.from_ns, now_ns) for each in self._losses]
        self._losses = []
        await asyncio.shield(self._do(self._save_fresh, self._folded, losses))
        self._set_alarm()

    def _save_fresh(self, cursor: Cursor, losses: list[Loss]) -> None:
        if self._doubtful:
            return
        self.store.save(self.fresh, LANE.value, cursor, losses)
        self.fresh.clear()

    def _set_alarm(self) -> None:
        """The next window's end, and a little."""
        left_s = (WINDOW_NS - self._clock.time_ns() % WINDOW_NS) * 1e-9
        self._save_at = self._clock.monotonic() + left_s + GRACE_S

    def losses(self) -> list[Loss]:
        """What was lost and is not saved yet."""
        return [each if each.to_ns else Loss(each.lost, each.from_ns, self._clock.time_ns()) for each in self._losses]

    # beginning and end

    async def _begin(self) -> None:
        await self._do(self.store.open)
        await self._start_over(await self._do(self.store.cursor, LANE.value))
        self._serving = True
        self._deaf = self._journal.listen(LANE, self._hear)

    async def _start_over(self, cursor: Cursor) -> None:
        """Go on from what is saved. Where the journal is another one than that speaks of, nothing is where it was."""
        await self._do(self._forget)
        if cursor.next > 1 and not await self._is_ours(cursor):
            log.warning("history_of_another_journal", advice="roll-ups are kept, single values of before are not found any more")
            await self._do(self.store.forget_places)
            cursor = Cursor()
        self._gathered, self._gathered_values, self._losses, self._stamp_ns = [], 0, [], 0
        self._cursor = self._folded = Cursor(cursor.epoch, max(cursor.next, self._journal.first(LANE)))
        self._set_alarm()

    def _forget(self) -> None:
        self.fresh.clear()
        self._doubtful = False

    async def _is_ours(self, cursor: Cursor) -> bool:
        if cursor.next > self._journal.head(LANE):
            return False
        before = await self._journal.read(LANE, cursor.next - 1, max_records=1, last=cursor.next - 1)
        return not before or not isinstance(before[0], Record) or before[0].epoch == cursor.epoch

    async def _throw_away(self, error: Exception) -> None:
        async with self._turn:
            await self._do(self.store.begin_anew, str(error))
            await self._start_over(Cursor())

    async def _give_up(self, error: Exception) -> None:
        """Say why there is no history, so that it is tried again. Raises Refused."""
        if is_damage(error):
            with contextlib.suppress(sqlite3.Error, OSError):  # the next session meets it again, and says it
                await self._do(self.store.begin_anew, str(error))
        raise Refused(f"history: {error}: look at its disk and its max_bytes; readings are not touched by it") from error

    async def _end(self) -> None:
        with contextlib.suppress(sqlite3.Error, OSError, Spoilt):  # what is not saved is read again
            self._absorb(self._recent())
            await self._fold()
            if self.fresh.values:
                await self._do(self._save_fresh, self._folded, self.losses())
        await self._do(self._close)

    def _close(self) -> None:
        self.archive.close()
        self.store.close()

    async def _do(self, work: Callable[P, T], *args: P.args, **more: P.kwargs) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._thread, lambda: work(*args, **more))


def _follow_each_other(records: Sequence[Record]) -> bool:
    return records[-1].seq - records[0].seq == len(records) - 1


def _nothing() -> None:
    """Nobody listens."""


def _not_there() -> Unavailable:
    return Unavailable("history is not there yet, or its file cannot be used", "look at the log, or ask again")
