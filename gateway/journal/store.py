"""Both lanes on disk, within their bounds: the one place that decides what is removed, and when.

Room is made before it is needed, by unlinking whole sealed segments, which needs no space itself. What goes first:
segments that every reader has settled where new records would otherwise be refused, the events above their reserve,
the oldest telemetry, and last of all the events. When somebody else fills the file system the journal shrinks, down to its active segments,
and goes on as soon as there is space. Everything in this module runs on the writer thread.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
from pathlib import Path
from typing import Final

import structlog

from gateway.config.model import JournalOptions
from gateway.journal.age import Moment, TrustedTime
from gateway.journal.chain import Chain, Group
from gateway.journal.codec import LANE_NUMBER, LANES, Definition
from gateway.journal.format import refuse_newer
from gateway.journal.heads import Heads
from gateway.journal.ledger import Book
from gateway.journal.record import DropReason, Lane
from gateway.journal.segment import PAGE, DiskFull, Segment, StorageError, sync_folder, translated
from protocols.clock import Clock

log = structlog.get_logger("holdfast.journal")

LOCK: Final = "lock"
"""The file in the journal's folder that whoever has it open holds locked."""
SMALLEST_SEGMENT: Final = 1024 * 1024
LARGEST_SEGMENT: Final = 64 * 1024 * 1024
EVENTS_SHARE: Final = 8
"""The events lane may always keep this fraction of the bytes."""
AGE_SHARE: Final = 8
"""A segment is closed after this fraction of the greatest age, so that a slow lane can forget too."""
RENEWED: Final = 1 << 24
"""A copy goes on somewhere in so many generations: also where no clock is to be trusted it hardly meets one of the original's."""
RESERVE_BYTES: Final = 256 * 1024
"""Space held back so that a count can be stored on a disk that somebody else has filled."""
COMMIT_BYTES: Final = 4 * PAGE
"""What a commit takes besides its records: pages that are only partly new."""
LOOK_BYTES: Final = 4 * 1024 * 1024
LOOK_EVERY_S: Final = 1.0
PLAUSIBLE_S: Final = 1_577_836_800
"""1 January 2020: a wall clock before it was never set."""


class JournalBusy(Exception):
    """Another process has the journal open."""


class Store:
    """The folder of the journal."""

    def __init__(self, folder: Path, options: JournalOptions, books: dict[Lane, Book], definitions: dict[int, Definition]) -> None:
        self.folder = folder
        self.options = options
        roll = max(SMALLEST_SEGMENT, min(LARGEST_SEGMENT, options.max_bytes // 32))
        self.chains = {lane: Chain(folder / lane.value, lane, books[lane], definitions, roll) for lane in LANES}
        self.full = False
        """New telemetry is to be refused (``drop-newest``)."""
        self.trouble = ""
        self.free_bytes = 0
        self.bytes = 0
        self._heads = Heads(folder)
        self._roll_bytes = roll
        self._lock = -1
        self._budget = 0
        """Bytes that may be written before the files have to be looked at again."""
        self._trusted: TrustedTime | None = None
        self._looked_at = float("-inf")

    # opening

    def open(self, clock: Clock, renew: bool = False) -> None:
        """Take the lock and open both lanes, mending what needs it. Raises JournalBusy or StorageError."""
        with translated(self.folder):
            self.folder.mkdir(parents=True, exist_ok=True)
            sync_folder(self.folder.parent)
        self._take_lock()
        try:
            refuse_newer(self.folder)
            self._open(clock, renew)
        except BaseException:
            self._let_go()
            raise

    def _open(self, clock: Clock, renew: bool) -> None:
        self._heads.recall()
        told = self._heads.told
        clean = {lane: chain.open(told.get(lane), renew) for lane, chain in self.chains.items()}
        epochs = [chain.highest_epoch() for chain in self.chains.values()] + [each.epoch for each in told.values()]
        known = max(epochs) // len(LANES)
        ahead = 1 + (int.from_bytes(os.urandom(4), "little") % RENEWED if renew else 0)
        generation = max(known + ahead, self._first_generation(clock))
        for lane, chain in self.chains.items():
            if not clean[lane]:
                chain.begin(generation * len(LANES) + LANE_NUMBER[lane])
        stored = max((chain.stored_time() for chain in self.chains.values()), key=lambda each: each.trusted_ns)
        self._trusted = TrustedTime(stored, clock.time_ns(), clock.monotonic(), self.options.max_age_s / AGE_SHARE)
        for chain in self.chains.values():
            chain.date(self._now(clock).trusted_ns)
        self._hold_reserve()
        self.look(clock)
        for lane, chain in self.chains.items():  # what was found and counted must not be counted again
            if chain.book.urgent and not clean[lane]:
                self._commit(lane, None, self._now(clock))
        self._tell_heads()

    def _let_go(self) -> None:
        for chain in self.chains.values():
            chain.let_go()
        self._heads.close()
        os.close(self._lock)
        self._lock = -1

    def _take_lock(self) -> None:
        with translated(self.folder):
            self._lock = os.open(self.folder / LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o640)
            try:
                fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                holder = os.pread(self._lock, 32, 0).decode("ascii", "replace").strip()
                os.close(self._lock)
                raise JournalBusy(
                    f"{self.folder}: the journal is in use by process {holder or 'unknown'}: ask that gateway, or stop it first"
                ) from None
            with contextlib.suppress(OSError):  # who holds it is said for people alone: a disk that refuses this may take records
                os.ftruncate(self._lock, 0)
                os.pwrite(self._lock, str(os.getpid()).encode(), 0)

    def _first_generation(self, clock: Clock) -> int:
        """Where a journal that knows nothing begins: wall-clock seconds, so that a wiped folder repeats no epoch. A clock
        that was never set cannot tell two lives apart: chance does."""
        seconds = clock.time_ns() // 1_000_000_000
        return seconds if seconds >= PLAUSIBLE_S else 1 + int.from_bytes(os.urandom(4), "little") % (PLAUSIBLE_S - 1)

    def close(self, clock: Clock) -> None:
        """Store what is due, mark the end as clean, let go. Raises StorageError; the lock is released in any case."""
        try:
            for chain in self.chains.values():
                chain.close(self._now(clock))
            self._tell_heads()
        finally:
            self._let_go()

    # writing

    def commit(self, groups: dict[Lane, Group | None], clock: Clock) -> dict[Lane, StorageError | None]:
        """Make each lane's group durable. What went wrong stands in the answer, by lane."""
        if clock.monotonic() - self._looked_at >= LOOK_EVERY_S:
            self.look(clock)
        moment = self._now(clock)
        need = sum(2 * group.bytes + COMMIT_BYTES for group in groups.values() if group is not None)
        if need > self._budget:
            self._make_room(need, moment)
        self._budget -= need
        answers = {lane: self._commit(lane, group, moment) for lane, group in groups.items()}
        self._tell_heads()
        return answers

    def _commit(self, lane: Lane, group: Group | None, moment: Moment) -> StorageError | None:
        chain = self.chains[lane]
        if group is None and not (chain.book.dirty or chain.book.urgent):
            return None
        while True:
            try:
                chain.commit(group, moment)
            except DiskFull as error:
                if not self._free_something(moment):
                    return self._troubled(error)
            except StorageError as error:
                return self._troubled(error)
            else:
                if self.trouble:
                    log.info("storing_again")
                self.trouble = ""
                return None

    def _tell_heads(self) -> None:
        news = [self._heads.tell(lane, chain.book.epoch, chain.durable, chain.book.first) for lane, chain in self.chains.items()]
        if any(news):
            self._heads.write()

    def _troubled(self, error: StorageError) -> StorageError:
        if not self.trouble:
            log.error("not_storing", trouble=str(error))
        self.trouble = str(error)
        return error

    def _free_something(self, moment: Moment) -> bool:
        """After the disk was found full: the reserve, then the oldest segment."""
        reserve = self.folder / "reserve"
        with contextlib.suppress(OSError):
            if reserve.exists():
                reserve.unlink()
                return True
        return self._remove_one(DropReason.FULL, moment)

    # room

    def look(self, clock: Clock) -> None:
        """Age, space and what was put off: about once a second. Commits call it themselves; where none come, somebody has to."""
        moment = self._now(clock)
        self._looked_at = moment.monotonic
        for chain in self.chains.values():
            chain.mend_files(moment.monotonic)
        age_ns = int(self.options.max_age_s * 1e9)
        oldest_ns = moment.trusted_ns - age_ns
        for chain in self.chains.values():
            chain.roll_if_older(moment.trusted_ns - age_ns // AGE_SHARE, moment)
            while (oldest := chain.oldest()) is not None and oldest.facts.closed_ns < oldest_ns:
                if not self._retire(chain, oldest, DropReason.AGE, moment):
                    break
        self._make_room(0, moment)
        if self.free_bytes > self.options.min_free_bytes:
            self._hold_reserve()
        self._tell_heads()

    def roll(self, clock: Clock) -> None:
        """Close every active segment that has records."""
        moment = self._now(clock)
        for chain in self.chains.values():
            chain.roll_if_older(moment.trusted_ns + 1, moment)
        self._tell_heads()

    def _make_room(self, need: int, moment: Moment) -> None:
        """Remove segments until ``need`` bytes more fit below the bound."""
        pages = sum(chain.active.wal_pages for chain in self.chains.values() if chain.active is not None)
        need += pages * PAGE
        while (short := self._short(need)) and self._remove_one(DropReason.FULL, moment, squeezed=self._fits(need)):
            pass
        room, spare = self.options.max_bytes - self.bytes - pages * PAGE, self.free_bytes - self.options.min_free_bytes
        self._budget = max(0, min(room, spare, LOOK_BYTES))
        squeezed = spare < 0
        self.full = short and self.options.when_full == "drop-newest"
        self.chains[Lane.TELEMETRY].roll_bytes = SMALLEST_SEGMENT if squeezed else self._roll_bytes

    def _short(self, need: int) -> bool:
        """Whether ``need`` bytes more would break a bound."""
        self.bytes = sum(chain.size() for chain in self.chains.values()) + RESERVE_BYTES
        with contextlib.suppress(OSError):
            space = os.statvfs(self.folder)
            self.free_bytes = space.f_bavail * space.f_frsize
        return not self._fits(need) or self.free_bytes < self.options.min_free_bytes

    def _fits(self, need: int) -> bool:
        return self.bytes + need <= self.options.max_bytes

    def _remove_one(self, cause: DropReason, moment: Moment, *, squeezed: bool = False) -> bool:
        victim = self._victim(squeezed)
        return victim is not None and self._retire(*victim, cause, moment)

    def _victim(self, squeezed: bool) -> tuple[Chain, Segment] | None:
        """Whose oldest segment goes next, if any may. Events do not give way to a foreign writer (``squeezed``) while
        there is any space at all."""
        events, telemetry = self.chains[Lane.EVENTS], self.chains[Lane.TELEMETRY]
        over = sum(each.size() for each in events.sealed) > self.options.max_bytes // EVENTS_SHARE
        for chain in (telemetry,) if squeezed else (events, telemetry) if over else (telemetry, events):
            oldest = chain.oldest()
            if oldest is not None and (self.options.when_full == "drop-oldest" or chain.settled(oldest)):
                return chain, oldest
        return None

    def _retire(self, chain: Chain, segment: Segment, cause: DropReason, moment: Moment) -> bool:
        try:
            chain.retire(segment, cause.value, moment)
        except StorageError as error:
            self._troubled(error)
            return False
        return True

    def _hold_reserve(self) -> None:
        reserve = self.folder / "reserve"
        with contextlib.suppress(OSError):
            if reserve.exists() and reserve.stat().st_size == RESERVE_BYTES:
                return
            descriptor = os.open(reserve, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o640)
            try:
                os.posix_fallocate(descriptor, 0, RESERVE_BYTES)
            finally:
                os.close(descriptor)

    def _now(self, clock: Clock) -> Moment:
        assert self._trusted is not None
        return self._trusted.now(clock.time_ns(), clock.monotonic())
