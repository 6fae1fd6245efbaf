"""A lane on disk: sealed segments and one that is appended to; opening after anything, rolling, reading, mending.

Each segment holds records of one epoch, so the raw bytes of a file never mix two lives of the journal. An unclean end
is followed by a new epoch in a new segment; the old one is looked at once, completed from what its WAL still holds,
and sealed. What a segment should hold is known from its successor, so that what is absent is noticed, looked for in
the raw bytes, and else counted in the book. Runs on the writer thread.
"""

from __future__ import annotations

import contextlib
import re
from bisect import bisect_right
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import msgspec
import structlog

from gateway.journal import codec, salvage
from gateway.journal.age import Moment, Stored
from gateway.journal.codec import PART_BITS, Definition, FrameKind, Unreadable
from gateway.journal.heads import Head
from gateway.journal.ledger import Book, BookState, decode_state
from gateway.journal.record import DropReason, Lane, Lost, Record
from gateway.journal.segment import (
    PAGE,
    Broken,
    Damaged,
    DiskFull,
    Row,
    Segment,
    StorageError,
    contents,
    inode_of,
    side_files,
    size_of,
    sync_folder,
    translated,
)
from gateway.journal.spans import MISSING, QUARANTINED, Facts
from protocols.model import Device

log = structlog.get_logger("holdfast.journal")

NAME: Final = re.compile(r"^(\d{1,20})-(\d{1,20})\.seg$")
STATE_EVERY_S: Final = 1.0
"""How long acknowledgements may wait for a commit that carries them."""
OPEN_FOR_READING: Final = 2
ROWS_AT_ONCE: Final = 4096
TRY_AGAIN_S: Final = 60.0
"""How long a segment that the disk would not let us seal is left alone."""
CHECK_BYTES: Final = 1024 * 1024
MOST_QUARANTINE: Final = 4 * 1024 * 1024
MOST_SEQ: Final = 1 << 54
PART_MASK: Final = (1 << PART_BITS) - 1


@dataclass(slots=True, eq=False)
class Group:
    """Records of one lane that become durable together."""

    first: int
    next: int
    """The seq after the last one. Seqs between that have no row are gaps that the book knows."""
    rows: list[Row]
    definitions: dict[int, Definition]
    bytes: int
    values: int
    first_ns: int
    last_ns: int


@dataclass(slots=True)
class Damage:
    """What opening or reading found wrong."""

    repaired: list[str] = field(default_factory=list)
    quarantined: int = 0
    missing: int = 0


class Chain:
    """The segments of one lane."""

    def __init__(self, folder: Path, lane: Lane, book: Book, definitions: dict[int, Definition], roll_bytes: int) -> None:
        self.folder = folder
        self.lane = lane
        self.book = book
        self.damage = Damage()
        self.sealed: list[Segment] = []
        """Everything but the active segment, oldest first."""
        self.active: Segment | None = None
        self.durable = 1
        """Seq after the last durable record."""
        self.told_bytes = 0
        self.roll_bytes = roll_bytes
        self.wal_pages = max(32, min(512, roll_bytes // 4 // PAGE))
        """Length of the WAL at which it is moved into the file."""
        self._definitions = definitions
        self._reading: list[Segment] = []
        self._state_at = float("-inf")
        self._stored = Stored(0, 0)
        self._is_open = False
        """What nobody can read is waited for, but not with opening: the gateway has to start."""
        self._empty: list[Segment] = []
        """Files without records, kept for their state until a newer one is durable."""
        self._rescued: dict[Path, dict[int, bytes]] = {}
        """Rows of damaged segments that could not be written anew."""

    # opening

    def open(self, head: Head | None = None, renew: bool = False) -> bool:
        """Find out what is there and mend it. ``head`` is what is known beside the segments. Returns whether the last close was a
        clean one, so that the epoch goes on; never with ``renew``."""
        with translated(self.folder):
            self.folder.mkdir(parents=True, exist_ok=True)
            sync_folder(self.folder.parent)
            self._tidy()
            segments = self._found()
        told, state = self._recall(segments)
        if state is not None:
            self.book.restore(state)
            self._stored = Stored(state.trusted_ns, state.ahead_ns)
        elif head is not None and not segments:
            self.book.begin_at(head.first)
        _know_times(segments, told, state)
        clean = not renew and bool(segments) and state is not None and self._resume(segments[-1], state)
        self._take_over(segments, told, clean, head)
        if head is not None:
            self._absent(self.book.next, head.next - 1, head.epoch)
            self.book.next = self.durable = max(self.book.next, head.next)
        self._is_open = True
        return clean

    def _tidy(self) -> None:
        for path in self.folder.glob(f"*{salvage.RESCUED}"):
            salvage.finish(path.with_name(path.name.removesuffix(salvage.RESCUED)))
        for path in self.folder.glob(f"*{salvage.TMP}"):
            path.unlink()

    def _found(self) -> list[Segment]:
        """Segments by name, oldest first; one of which only the WAL is left is counted too."""
        names = {path.name.removesuffix("-wal") for path in self.folder.iterdir()}
        found: list[Segment] = []
        for match in filter(None, map(NAME.match, names)):
            epoch, first = int(match[1]), int(match[2])
            segment = Segment(self.folder, self.lane, Facts(epoch, first, first - 1))
            segment.sealed = False
            found.append(segment)
        return sorted(found, key=lambda each: (each.facts.first, each.facts.epoch))

    def _recall(self, segments: list[Segment]) -> tuple[dict[tuple[int, int], Facts], BookState | None]:
        """Facts about sealed segments by epoch and first seq, and the newest state that can be read."""
        told: dict[tuple[int, int], Facts] = {}
        for segment in reversed(segments):
            states: list[BookState] = []
            for (kind, _), body in contents(self._entries(segment)).items():
                if kind == FrameKind.FACTS:
                    told = _facts(body) | told
                elif kind == FrameKind.STATE and (state := decode_state(body)) is not None:
                    states.append(state)
            if states:
                return told, max(states, key=lambda each: each.counter)
        return told, None

    def _entries(self, segment: Segment) -> list[bytes]:
        """Every frame that is no record, from the file, and from its WAL even where SQLite ignores it."""
        finds = salvage.Finds()
        wal = salvage.read_raw(side_files(segment.path)[0])
        salvage.search(wal, self.lane, segment.facts.epoch, finds)
        try:
            segment.sealed = not wal
            return finds.entries + segment.entries()
        except StorageError:
            return salvage.look(segment.path, self.lane, segment.facts.epoch).entries
        finally:
            segment.close()
            segment.sealed = False

    def _resume(self, segment: Segment, state: BookState) -> bool:
        """Go on with the newest segment if it was closed cleanly and nobody touched it since."""
        facts = state.active
        if not state.clean or state.clean != inode_of(segment.path) or _has_side_files(segment.path):
            return False
        if (facts.epoch, facts.first) != (segment.facts.epoch, segment.facts.first) or facts.bytes != size_of(segment.path):
            return False
        try:
            segment.open()
            if segment.span(facts.first, facts.last)[0] != self._expected(facts.first, facts.last):
                raise Damaged(f"{segment.path}: records are absent")
            segment.known = {number for (kind, number) in contents(segment.entries()) if kind == FrameKind.DEFINITION}
        except StorageError:
            segment.abandon()
            return False
        segment.facts, segment.fill = facts, facts.bytes
        self.book.urgent = True  # the first commit takes back that all is clean
        return True

    def _take_over(self, segments: list[Segment], told: dict[tuple[int, int], Facts], clean: bool, head: Head | None) -> None:
        """Settle for each segment what it holds, and count in the book what is absent between them."""
        expected = self.book.first
        for index, segment in enumerate(segments):
            more: list[Segment] = []
            is_last = index == len(segments) - 1
            limit = None if is_last else segments[index + 1].facts.first - 1
            facts = told.get((segment.facts.epoch, segment.facts.first))
            if is_last and clean:
                self.active = segment
            elif facts is not None and not is_last and _stands(segment, facts):
                segment.facts, segment.sealed = facts, True
            else:
                least = head.next - 1 if is_last and head is not None and head.epoch == segment.facts.epoch else -1
                more = self._close_unclean(segment, facts.last if facts is not None and not is_last else limit, least)
            for each in (segment, *more):
                self._absent(expected, each.facts.first - 1, each.facts.epoch)
                expected = max(expected, each.facts.last + 1)
                self._place(each)
        if segments:
            self._absent(expected, self.book.next - 1, segments[-1].facts.epoch)
        self.book.next = self.durable = max(self.book.next, expected)

    def _place(self, segment: Segment) -> None:
        if segment is self.active:
            return
        if segment.facts.last >= self.book.first and segment.facts.last >= segment.facts.first:
            self.sealed.append(segment)
        else:  # without records, or counted as removed just before the power went
            self._empty.append(segment)

    def _close_unclean(self, segment: Segment, limit: int | None, least: int) -> list[Segment]:
        """Seal a segment that was left open; search its raw bytes if it does not hold what it should: up to ``limit``, or in the
        newest ``least`` or more. Records that only raw bytes hold (behind a damaged or torn place SQLite sees nothing) go
        into a segment of their own."""
        finds = salvage.Finds()
        salvage.search(salvage.read_raw(side_files(segment.path)[0]), self.lane, segment.facts.epoch, finds)
        try:
            last = self._seen(segment, limit, least)
            if limit is None and (finds.damaged or last != least):
                # nobody else says how many there are; and what looks damaged in the WAL may be the rest of a row that SQLite
                # has moved, which the file has whole
                salvage.search(salvage.read_raw(segment.path), self.lane, segment.facts.epoch, finds)
            behind = {row: each for row, each in salvage.whole(finds.rows).items() if last < row >> PART_BITS <= (limit or MOST_SEQ)}
            if limit is None:
                self._count_behind(segment, finds, max([last, *(row >> PART_BITS for row in behind)]))
            if behind and last < segment.facts.first:
                raise Damaged(f"{segment.path}: records are not where they belong")
            more = [self._split_off(segment, behind, finds)] if behind else []
            if not segment.sealed:
                segment.seal()
            segment.close()
            segment.facts.bytes = size_of(segment.path)
        except StorageError as error:
            log.warning("segment_damaged", segment=segment.path.name, trouble=str(error))
            self._mend(segment, limit, least)
            return []
        return more

    def _seen(self, segment: Segment, limit: int | None, least: int) -> int:
        """The last record that SQLite sees, after a look at whether it sees all before; the facts are measured. Raises Damaged."""
        if inode_of(segment.path) == 0:
            raise Damaged(f"{segment.path}: only its WAL is left")
        segment.sealed = limit is not None and not _has_side_files(segment.path)
        if not segment.sealed:
            segment.open()
        count, _, last = segment.span(segment.facts.first, limit)
        if limit is not None and limit >= segment.facts.first:
            last = limit
        behind = self._expected(max(last + 1, segment.facts.first), least)
        if behind or (count != self._expected(segment.facts.first, last) and (count or last)):
            raise Damaged(f"{segment.path}: records are absent")
        self._measure(segment, segment.facts.first, last if count else segment.facts.first - 1)
        return segment.facts.last

    def _count_behind(self, segment: Segment, finds: salvage.Finds, last: int) -> None:
        """Damaged records at the very end, which no successor proves."""
        intact = {row >> PART_BITS for row in finds.rows}
        holes = {seq for a, b in self.book.gaps.outside(segment.facts.first, last) for seq in range(a, b + 1)} - intact
        top = salvage.behind(finds.spoilt(), holes, segment.facts.first, last)
        if top > last:
            self.damage.quarantined += self.book.lose(last + 1, top, segment.facts.epoch, QUARANTINED)
            self.book.next = max(self.book.next, top + 1)

    def _split_off(self, segment: Segment, rows: dict[int, bytes], finds: salvage.Finds) -> Segment:
        first = min(rows) >> PART_BITS
        fresh = Segment(self.folder, self.lane, Facts(segment.facts.epoch, first, max(rows) >> PART_BITS))
        rows = self._readable(rows, finds)
        log.info("records_rescued", segment=segment.path.name, into=fresh.path.name, rows=len(rows))
        salvage.rewrite(fresh.path, sorted(rows.items()), self._kept_entries(segment, finds, rows))
        fresh.facts.bytes = size_of(fresh.path)
        _remeasure(fresh.facts, rows.values())
        self._count_absent(fresh, rows, fresh.facts.last, finds.spoilt())
        return fresh

    def _expected(self, first: int, last: int) -> int:
        return sum(b + 1 - a for a, b in self.book.gaps.outside(first, last))

    def _measure(self, segment: Segment, first: int, last: int) -> None:
        """Facts of a segment from its rows."""
        facts = segment.facts
        facts.first, facts.last, facts.values = first, last, 0
        for row, each in self._scan(segment):
            if row & PART_MASK == 0:
                values, stamp = codec.peek(each)
                facts.values += values
                facts.first_ns = facts.first_ns or stamp
                facts.last_ns = stamp

    def _scan(self, segment: Segment) -> Iterator[Row]:
        """All rows of a segment, a few at a time."""
        at, last = segment.facts.first, segment.facts.last
        while at <= last:
            rows = self._rows(segment, at, last, ROWS_AT_ONCE)
            yield from rows
            if len(rows) < ROWS_AT_ONCE:
                return
            at = (rows[-1][0] >> PART_BITS) + 1

    def _absent(self, first: int, last: int, epoch: int) -> None:
        """Records that must have been there and are in no file. Epochs rise along a lane: what lies before a gap that is known
        is of the gap's epoch at most."""
        with self.book.lock:
            known = self.book.gaps.within(first, last)
        lost, at = 0, first
        for begin, end, its_epoch, _ in known:
            lost += self._missing(at, begin - 1, min(epoch, its_epoch))
            at = end + 1
        lost += self._missing(at, last, epoch)
        if lost:
            self.damage.missing += lost
            log.warning("records_missing", lane=self.lane.value, first=first, last=last, records=lost)

    def _missing(self, first: int, last: int, epoch: int) -> int:
        return self.book.lose(first, last, epoch, MISSING) if first <= last else 0

    # writing

    def begin(self, epoch: int) -> None:
        """A new epoch: seqs could have been used before. What was found at opening is to be stored at once."""
        self.book.epoch = epoch
        self.book.urgent = self.book.dirty = bool(self.sealed or self._empty)
        self.active = None

    def commit(self, group: Group | None, moment: Moment) -> None:
        """Make a group (and the book, where it is due) durable. A file that failed is left behind and the group goes
        into a new one. Raises DiskFull or Broken; then nothing of the group is stored."""
        if self.active is not None and (self.active.fill < self.roll_bytes or self.active.facts.last < self.active.facts.first):
            try:
                self._commit(self.active, group, moment, ())
                return
            except DiskFull:
                raise
            except StorageError as error:
                log.error("segment_failed", segment=self.active.path.name, trouble=str(error))
                self._leave(self.active)
        self._roll(group, moment)

    def _commit(self, segment: Segment, group: Group | None, moment: Moment, known: Iterable[Facts]) -> None:
        book = self.book
        facts = _grown(segment.facts, group, moment.trusted_ns)
        due = book.urgent or (book.dirty and moment.monotonic - self._state_at >= STATE_EVERY_S) or group is None or known
        durable = group.next if group is not None else self.durable
        lane, epoch = self.lane, segment.facts.epoch
        state = codec.frames(FrameKind.STATE, lane, epoch, *book.state(durable, 0, moment, facts)) if due else []
        told = codec.frames(FrameKind.FACTS, lane, epoch, 0, msgspec.msgpack.encode(list(known))) if known else []
        try:
            segment.commit(
                group.rows if group is not None else (),
                group.definitions.values() if group is not None else (),
                state,
                told,
                group.bytes if group is not None else 0,
            )
        except StorageError:
            book.dirty = book.urgent = True
            raise
        segment.facts = facts
        self.durable = durable
        if state:
            self._state_at = moment.monotonic
        if segment.wal_pages >= self.wal_pages:
            self._checkpoint(segment)

    def _checkpoint(self, segment: Segment) -> None:
        """What is committed is safe in the WAL: a checkpoint that fails for want of space is tried again later."""
        try:
            segment.checkpoint()
        except DiskFull as error:
            log.warning("checkpoint_deferred", segment=segment.path.name, trouble=str(error))
        except StorageError as error:
            log.error("segment_failed", segment=segment.path.name, trouble=str(error))
            self._leave(segment)

    def _roll(self, group: Group | None, moment: Moment) -> None:
        """Go on in a new segment, which tells of all the others; then seal the one before."""
        first = group.first if group is not None else self.durable
        before = self.active
        began_ns = moment.trusted_ns
        fresh = Segment(self.folder, self.lane, Facts(self.book.epoch, first, first - 1, opened_ns=began_ns, closed_ns=began_ns))
        if before is not None and before.path == fresh.path:
            raise Broken(f"{fresh.path}: the segment is full without a record: the journal's limits are too small")
        known = [each.facts for each in self.sealed]
        if before is not None:
            known.append(before.expected())
        try:
            fresh.open()
            self._commit(fresh, group, moment, known or [fresh.facts])
            with translated(self.folder):
                sync_folder(self.folder)
        except StorageError:
            fresh.abandon()
            _discard(fresh.path)
            raise
        self.active = fresh
        if before is not None:
            self.sealed.append(before)
            self.seal_up(before)
        for empty in self._empty:
            _discard(empty.path)
        self._empty = []

    def seal_up(self, segment: Segment) -> None:
        """Seal a segment that is not written any more; where the disk refuses it stays readable and is tried again."""
        try:
            if segment.writable:
                segment.seal()
            elif not segment.sealed:
                self._mend(segment, segment.facts.last)
        except StorageError as error:
            log.warning("seal_deferred", segment=segment.path.name, trouble=str(error))

    def mend_files(self, monotonic: float) -> None:
        """What was put off, and a file that somebody deleted while it was open."""
        active = self.active
        if active is not None and not active.is_linked():
            log.error("segment_deleted", segment=active.path.name)
            self._restore(active)
        for segment in [each for each in self.sealed if not each.sealed and each.try_again_at <= monotonic]:
            segment.try_again_at = monotonic + TRY_AGAIN_S
            self.seal_up(segment)

    def _restore(self, segment: Segment) -> None:
        """Write a deleted file again, from what the open connection still sees."""
        try:
            rows, entries = list(self._scan(segment)), segment.entries()
        except StorageError:
            rows, entries = [], []
        segment.abandon()
        self.active = None
        if segment.facts.last < segment.facts.first:
            return
        self.sealed.append(segment)
        try:
            _discard(segment.path)
            salvage.rewrite(segment.path, rows, entries)
            segment.sealed = True
            segment.facts.bytes = size_of(segment.path)
        except StorageError as error:
            log.warning("repair_deferred", segment=segment.path.name, trouble=str(error))
            self._rescued[segment.path] = dict(rows)

    def roll_if_older(self, than_ns: int, moment: Moment) -> None:
        """Close the active segment if it was begun before ``than_ns`` of trusted time."""
        active = self.active
        if active is not None and active.facts.last >= active.facts.first and active.facts.opened_ns < than_ns:
            try:
                self._roll(None, moment)
            except StorageError as error:
                log.warning("roll_deferred", segment=active.path.name, trouble=str(error))

    def _leave(self, segment: Segment) -> None:
        """Never write to this file again."""
        segment.abandon()
        self.active = None
        if segment.facts.last >= segment.facts.first:
            self.sealed.append(segment)
        else:
            _discard(segment.path)

    def close(self, moment: Moment) -> None:
        """Store the book, marked as closed cleanly, and leave one file a segment. Raises StorageError."""
        for segment in self._reading:
            segment.close()
        self._reading = []
        if self.active is None:
            if not self.book.dirty and not self._empty:
                return
            self._roll(None, moment)
        active = self.active
        assert active is not None
        self._park(active, moment)

    def _park(self, segment: Segment, moment: Moment) -> None:
        segment.checkpoint()
        segment.facts.bytes = 0
        for _ in range(2):  # the first state may lengthen the file, whose size the second one tells
            segment.facts.bytes = segment.length()
            content = self.book.state(self.durable, inode_of(segment.path), moment, segment.facts)
            segment.commit((), (), codec.frames(FrameKind.STATE, self.lane, segment.facts.epoch, *content), [], 0)
        segment.park()

    def let_go(self) -> None:
        """Close every file as it is."""
        for segment in (*self.sealed, *self._empty, *([self.active] if self.active else [])):
            segment.abandon()

    def highest_epoch(self) -> int:
        segments = (*self.sealed, *self._empty, *([self.active] if self.active else []))
        return max([self.book.epoch, *(each.facts.epoch for each in segments)])

    def stored_time(self) -> Stored:
        """What the newest state told of the time; where none could be read, what is known of the segments."""
        return self._stored if self._stored.trusted_ns else Stored(max([0, *(each.facts.closed_ns for each in self.sealed)]), 0)

    def date(self, now_ns: int) -> None:
        """Where the trusted time of a segment is unknown it takes that of the next one, or now: rather too young than too old."""
        next_ns = now_ns
        for segment in reversed(self.segments()):
            facts = segment.facts
            facts.closed_ns = min(facts.closed_ns or next_ns, now_ns)
            facts.opened_ns = next_ns = min(facts.opened_ns or facts.closed_ns, facts.closed_ns)

    def settled(self, segment: Segment) -> bool:
        return self.book.settled(segment.facts.first, segment.facts.last)

    # room

    def oldest(self) -> Segment | None:
        """The oldest segment that may be removed."""
        return self.sealed[0] if self.sealed else None

    def retire(self, segment: Segment, cause: str, moment: Moment) -> None:
        """Remove the oldest segment: count first, durably, then unlink. May be repeated.

        Raises StorageError where the count cannot be stored: the file stays, so that after a crash its records are not missing
        but pending. Only where the disk is full, and full is why, the file has to go first. Raises Broken if it cannot be removed."""
        facts = segment.facts
        self.book.retire(facts.first, facts.last, facts.epoch, cause)
        try:
            self.commit(None, moment)
        except DiskFull as error:
            if cause != DropReason.FULL:
                raise
            log.warning("count_deferred", lane=self.lane.value, trouble=str(error))  # unlinking makes the room it lacks
        segment.abandon()
        if segment in self._reading:
            self._reading.remove(segment)
        with translated(segment.path):
            _unlink(segment.path)
            sync_folder(self.folder)
        self.sealed.remove(segment)
        self._rescued.pop(segment.path, None)
        log.info("segment_removed", lane=self.lane.value, first=facts.first, last=facts.last, cause=cause)

    def size(self) -> int:
        """Bytes on disk, side files included."""
        self.told_bytes = sum(each.size() for each in (*self.sealed, *self._empty)) + (self.active.size() if self.active else 0)
        return self.told_bytes

    def segments(self) -> list[Segment]:
        return [*self.sealed, *([self.active] if self.active is not None else [])]

    def stamp(self, seq: int) -> int:
        """UTC stamp at or shortly before record ``seq``; 0 where it is in no file."""
        segment = self._holding(seq)
        return segment.facts.first_ns if segment is not None else 0

    # reading

    def read(self, first: int, last: int, max_records: int, max_bytes: int) -> list[Record | Lost]:
        """What is stored of ``first`` to ``last``, gaps as Lost, all of one epoch. Whatever is neither is missing, and counted."""
        found: list[Record | Lost] = []
        size = 0
        at = first
        while at <= last and len(found) < max_records and (size < max_bytes or not found):
            gap = self._gap(at, last)
            if gap is not None:
                if found and found[0].epoch != gap.epoch:
                    break
                found.append(gap)
                at = gap.last + 1
                continue
            segment = self._holding(at)
            if segment is None:
                self._absent(at, self._before_next(at, last), self.book.epoch)
                continue
            if found and found[0].epoch != segment.facts.epoch:
                break
            records, size = self._records(segment, at, last, max_records - len(found), size, max_bytes)
            if not records:
                self._mend(segment, segment.facts.last)
                continue
            found += records
            at = records[-1].seq + 1
        return found

    def _gap(self, at: int, last: int) -> Lost | None:
        with self.book.lock:
            gaps = self.book.gaps.within(at, at)
            if gaps:
                _, end, epoch, reason = self.book.gaps.spanning(at)
                return Lost(epoch, at, min(end, last), reason)
            if at < self.book.first:  # so long gone that nobody remembers why
                return Lost(self._first_epoch(), at, min(self.book.first - 1, last), DropReason.FULL)
        return None

    def _first_epoch(self) -> int:
        """Of the oldest that is known: a record, or a gap."""
        known = [each.facts.epoch for each in self.segments()[:1]] + [epoch for _, _, epoch, _ in self.book.gaps.spans[:1]]
        return min(known, default=self.book.epoch)

    def _holding(self, seq: int) -> Segment | None:
        active, sealed = self.active, self.sealed
        if active is not None and active.facts.first <= seq <= active.facts.last:
            return active
        index = bisect_right(sealed, seq, key=lambda each: each.facts.first) - 1
        return sealed[index] if index >= 0 and seq <= sealed[index].facts.last else None

    def _before_next(self, seq: int, last: int) -> int:
        starts = [each.facts.first for each in (*self.sealed, *([self.active] if self.active else [])) if each.facts.first > seq]
        return min([last, *(start - 1 for start in starts)])

    def _records(self, segment: Segment, first: int, last: int, most: int, size: int, max_bytes: int) -> tuple[list[Record], int]:
        """Records from ``first`` on without a hole; stops before anything that is not as it was written."""
        last = min(last, segment.facts.last)
        records: list[Record] = []
        try:
            rows = self._rows(segment, first, last, min(most, ROWS_AT_ONCE))
            for expected, parts in enumerate(_by_record(rows), first):
                if parts[0][0] >> PART_BITS != expected:
                    break
                head, body = codec.join([each for _, each in parts])
                if head.seq != expected:
                    break
                records.append(codec.unpack(head, body, self._device(head.definition, segment)))
                size += len(body)
                if size >= max_bytes:
                    break
        except Unreadable as error:
            log.warning("record_damaged", segment=segment.path.name, trouble=str(error))
        except StorageError as error:
            log.warning("segment_damaged", segment=segment.path.name, trouble=str(error))
        return records, size

    def _rows(self, segment: Segment, first: int, last: int, limit: int) -> list[Row]:
        """Rows in order; never ends in the middle of a record, but where its parts are absent."""
        rescued = self._rescued.get(segment.path)
        if rescued is not None:
            ids = sorted(row for row in rescued if first <= row >> PART_BITS <= last)
            return [(row, rescued[row]) for row in ids]
        self._keep_open(segment)
        rows = segment.rows(first, last, limit)
        if rows and len(rows) == limit:
            final = rows[-1][0] >> PART_BITS
            rows = [row for row in rows if row[0] >> PART_BITS != final] + segment.rows(final, final, -1)
        return rows

    def _keep_open(self, segment: Segment) -> None:
        """At most a few sealed segments are open for reading."""
        if segment.writable:
            return
        if segment in self._reading:
            self._reading.remove(segment)
        self._reading.append(segment)
        for each in self._reading[:-OPEN_FOR_READING]:
            each.close()
        del self._reading[:-OPEN_FOR_READING]

    def _device(self, number: int, segment: Segment) -> Device:
        if number not in self._definitions:
            self._learn(segment)
        if number not in self._definitions:
            for each in (*self.sealed, *([self.active] if self.active else [])):
                self._learn(each)
        try:
            return self._definitions[number].device
        except KeyError:
            raise Unreadable("the definition of its device is lost") from None

    def _learn(self, segment: Segment) -> None:
        """Definitions from a segment into the common store of them."""
        try:
            frames = segment.entries()
        except StorageError:
            frames = salvage.look(segment.path, self.lane, segment.facts.epoch).entries
        for (kind, number), body in contents(frames).items():
            if kind == FrameKind.DEFINITION and number not in self._definitions:
                with contextlib.suppress(Unreadable):
                    self._definitions[number] = codec.undefine(number, body)

    # mending

    def _mend(self, segment: Segment, limit: int | None, least: int = 0) -> None:
        """Find every intact record in the raw bytes, write them anew, count what is absent, up to ``limit`` or at least to ``least``."""
        if segment is self.active:
            self._leave(segment)
        segment.abandon()
        finds = salvage.look(segment.path, self.lane, segment.facts.epoch, patient=self._is_open)
        rows = {
            row: each
            for row, each in sorted(salvage.whole(finds.rows).items())
            if segment.facts.first <= row >> PART_BITS <= (limit if limit is not None else row >> PART_BITS)
        }
        last = max(limit or 0, least, max((row >> PART_BITS for row in rows), default=segment.facts.first - 1))
        rows = self._readable(rows, finds)
        if limit is None:
            self._count_behind(segment, finds, last)
        self._count_absent(segment, rows, last, finds.spoilt())
        self.damage.repaired.append(segment.path.name)
        try:
            salvage.rewrite(segment.path, rows.items(), self._kept_entries(segment, finds, rows))
            self._rescued.pop(segment.path, None)
            segment.sealed = True
            log.warning("segment_repaired", segment=segment.path.name, rows=len(rows))
        except StorageError as error:
            log.warning("repair_deferred", segment=segment.path.name, trouble=str(error))
            self._rescued[segment.path] = rows
            segment.sealed = False
        segment.facts.last = last
        segment.facts.bytes = size_of(segment.path) if segment.sealed else 0
        _remeasure(segment.facts, rows.values())
        self._set_aside(segment, finds)

    def _readable(self, rows: dict[int, bytes], finds: salvage.Finds) -> dict[int, bytes]:
        """Without the records whose device nobody knows any more."""
        for (kind, number), body in contents(finds.entries).items():
            if kind == FrameKind.DEFINITION and number not in self._definitions:
                with contextlib.suppress(Unreadable):
                    self._definitions[number] = codec.undefine(number, body)
        if {codec.definition_of(each) for each in rows.values()} - self._definitions.keys():
            for other in self.segments():
                self._learn(other)
        return {row: each for row, each in rows.items() if codec.definition_of(each) in self._definitions}

    def _count_absent(self, segment: Segment, rows: dict[int, bytes], last: int, damaged: set[int]) -> None:
        """A lone hole, or one whose damaged frame was found, is damage; anything else the file system lost."""
        expected = segment.facts.first
        for seq in [*sorted({row >> PART_BITS for row in rows}), last + 1]:
            for a, b in self.book.gaps.outside(expected, seq - 1):
                spoilt = a == b or all(each in damaged for each in range(a, min(b, a + 1000) + 1))
                lost = self.book.lose(a, b, segment.facts.epoch, QUARANTINED if spoilt else MISSING)
                if spoilt:
                    self.damage.quarantined += lost
                else:
                    self.damage.missing += lost
                log.warning("records_lost", segment=segment.path.name, first=a, last=b, reason=QUARANTINED if spoilt else MISSING)
            expected = seq + 1

    def _kept_entries(self, segment: Segment, finds: salvage.Finds, rows: dict[int, bytes]) -> list[bytes]:
        """State and facts as found; every definition that is needed, twice."""
        kept = {}
        for each in finds.entries:
            head, _ = codec.open_frame(each)
            if head.kind != FrameKind.DEFINITION:
                kept[head.kind, head.seq, head.part] = each
        needed = {codec.definition_of(each) for each in rows.values()}
        made = [
            each
            for number in sorted(needed)
            for each in codec.frames(FrameKind.DEFINITION, self.lane, segment.facts.epoch, number, self._definitions[number].body)
        ]
        return [*kept.values(), *made, *made]

    def _set_aside(self, segment: Segment, finds: salvage.Finds) -> None:
        """Keep damaged bytes for a person, a bounded amount, if the disk takes them."""
        folder = self.folder.parent / "quarantine"
        with contextlib.suppress(OSError):
            folder.mkdir(exist_ok=True)
            if sum(path.stat().st_size for path in folder.iterdir()) >= MOST_QUARANTINE:
                return
            for seq, each in finds.damaged[:16]:
                (folder / f"{self.lane.value}-{segment.facts.epoch}-{seq}.bin").write_bytes(each)

    # checking

    def check(self, segment: Segment, at: int) -> tuple[int, int, int | None]:
        """Read records of a segment from ``at`` on: intact records, values, and where to go on (None at its end)."""
        records = values = 0
        entries = self.read(at, segment.facts.last, ROWS_AT_ONCE, CHECK_BYTES)
        for each in entries:
            if isinstance(each, Record):
                records, values = records + 1, values + each.values
        if not entries:
            return records, values, None
        final = entries[-1]
        end = final.seq if isinstance(final, Record) else final.last
        return records, values, end + 1 if end < segment.facts.last else None


def _facts(body: bytes) -> dict[tuple[int, int], Facts]:
    try:
        told = msgspec.msgpack.decode(body, type=list[Facts])
    except codec.UNDECODABLE:
        return {}
    return {(each.epoch, each.first): each for each in told}


def _know_times(segments: list[Segment], told: dict[tuple[int, int], Facts], state: BookState | None) -> None:
    """What is known of each segment's trusted time: of the newest only when it began, for it has grown since that was told. The
    stamps of records are the wall clock's, and say nothing of ages."""
    for segment in segments[:-1]:
        facts = segment.facts
        if (known := told.get((facts.epoch, facts.first))) is not None:
            facts.opened_ns, facts.closed_ns = known.opened_ns, known.closed_ns
    for segment in segments[-1:]:
        facts = segment.facts
        if state is not None and (state.active.epoch, state.active.first) == (facts.epoch, facts.first):
            facts.opened_ns = state.active.opened_ns


def _grown(facts: Facts, group: Group | None, trusted_ns: int) -> Facts:
    """The facts of a segment with one more group in it."""
    if group is None:
        return facts
    return Facts(
        facts.epoch,
        facts.first,
        group.next - 1,
        facts.values + group.values,
        0,
        facts.first_ns or group.first_ns,
        group.last_ns,
        facts.opened_ns,
        trusted_ns,
    )


def _remeasure(facts: Facts, rows: Iterable[bytes]) -> None:
    facts.values, facts.first_ns = 0, 0
    for each in rows:
        values, stamp = codec.peek(each)
        facts.values += values
        facts.first_ns = facts.first_ns or stamp
        facts.last_ns = stamp


def _by_record(rows: list[Row]) -> Iterator[list[Row]]:
    at = 0
    while at < len(rows):
        end = at + 1
        while end < len(rows) and rows[end][0] >> PART_BITS == rows[at][0] >> PART_BITS:
            end += 1
        yield rows[at:end]
        at = end


def _stands(segment: Segment, facts: Facts) -> bool:
    return bool(facts.bytes) and size_of(segment.path) == facts.bytes and not _has_side_files(segment.path)


def _has_side_files(path: Path) -> bool:
    return any(size_of(side) for side in side_files(path))


def _unlink(path: Path) -> None:
    for each in (*side_files(path), path):
        each.unlink(missing_ok=True)


def _discard(path: Path) -> None:
    """Remove a file without records, if the disk lets us; it is harmless where it stays."""
    with contextlib.suppress(OSError):
        _unlink(path)
