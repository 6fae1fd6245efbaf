"""The account of every record: what people and metrics read, and the book behind it.

One book a lane. The event loop counts what comes and what is acknowledged, the writer thread counts what it has to
drop; a lock makes every look at the book a whole one. A book is stored in the lane's newest segment together with the
records it speaks of, so it survives what they survive.
"""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Mapping
from typing import Final

import msgspec

from gateway.journal.age import Moment
from gateway.journal.codec import UNDECODABLE
from gateway.journal.record import Lane
from gateway.journal.spans import ACKNOWLEDGED, MISSING, QUARANTINED, Account, Facts, Gaps, Span, union

MOST_GAPS: Final = 4000
MOST_SPANS: Final = 1000
MOST_UNTOLD: Final = 500


class ReaderLane(msgspec.Struct, frozen=True, kw_only=True):
    """One reader's account of one lane, in records: ``appended == acknowledged + pending + sum(dropped) + quarantined``."""

    appended: int
    """Records that concern this reader: all since it began."""
    acknowledged: int
    pending: int
    dropped: dict[str, int]
    """By DropReason, or ``missing`` for what the file system lost."""
    quarantined: int
    oldest_pending_ns: int
    """UTC stamp at or shortly before the oldest pending record; 0 when nothing is pending."""
    untold: int
    """How many of those that it will never get the reader has not acknowledged as lost."""


class LaneLedger(msgspec.Struct, frozen=True, kw_only=True):
    """One lane: ``appended == kept + unwritten + retired + sum(dropped) + quarantined``, in records."""

    appended: int
    values: int
    """Values in all records ever appended."""
    unwritten: int
    """Accepted, and not yet durable."""
    kept: int
    retired: int
    """Removed to make room after every reader had settled them."""
    dropped: dict[str, int]
    quarantined: int
    first: int
    """Seq of the oldest record that is kept; equal to ``head`` when none is."""
    head: int
    """Seq after the last durable record."""
    epoch: int
    oldest_ns: int
    bytes: int
    segments: int


class Ledger(msgspec.Struct, frozen=True, kw_only=True):
    """The account of every record, at one moment."""

    lanes: dict[str, LaneLedger]
    readers: dict[str, dict[str, ReaderLane]]
    """By reader's name and lane."""
    bytes: int
    max_bytes: int
    free_bytes: int
    """Free space of the file system, at the last look."""
    trouble: str
    """Why nothing can be stored just now; empty while all is well."""


class VerifyReport(msgspec.Struct, frozen=True, kw_only=True):
    """What a check of every stored byte found."""

    segments: int
    records: int
    """Intact records."""
    values: int
    quarantined: int
    """Records found damaged by this check; they are counted in the ledger and will never be delivered."""
    missing: int
    repaired: tuple[str, ...]
    """Segments that were damaged and have been written anew."""

    @property
    def ok(self) -> bool:
        return not (self.quarantined or self.missing or self.repaired)


class _ReaderState(msgspec.Struct, array_like=True):
    start: int
    low: int
    counts: dict[str, int]
    spans: list[tuple[int, int, str]]
    untold: list[Span] = []
    """A journal of before has none."""


class BookState(msgspec.Struct, array_like=True):
    """A book as it is stored."""

    counter: int
    """Rises with each state of the lane: the highest valid one counts."""
    epoch: int
    next: int
    """Seq after the last record that was durable with this state."""
    clean: int
    """The inode of the segment if the journal was closed cleanly, else 0: a copied file is another journal's life."""
    trusted_ns: int
    values: int
    lost: dict[str, int]
    retired: int
    gaps: list[tuple[int, int, int, str]]
    readers: dict[str, _ReaderState]
    first: int
    active: Facts
    """The segment that the state lies in."""
    ahead_ns: int = 0
    """How far the wall clock stood ahead of ``trusted_ns``. (A journal of before has none: there the two agreed.)"""


class Book:
    """All accounts of one lane."""

    def __init__(self, lane: Lane) -> None:
        self.lane = lane
        self.lock = threading.Lock()
        self.epoch = 0
        self.first = 1
        """The first seq that this journal knows of."""
        self.next = 1
        """The seq that the next record gets."""
        self.values = 0
        self.lost: Counter[str] = Counter()
        self.retired = 0
        self.gaps = Gaps()
        self.readers: dict[str, Account] = {}
        self.counter = 0
        self.dirty = False
        """Something changed since the state was last stored."""
        self.urgent = False
        """What changed must be durable with the next commit."""

    def reader(self, name: str, start: int) -> None:
        with self.lock:
            if name not in self.readers:
                self.readers[name] = account = Account(start, start)
                for first, last, _, reason in self.gaps.within(start, self.next):
                    account.settle(first, last, reason)
                self.dirty = self.urgent = True

    def forget(self, name: str) -> None:
        with self.lock:
            if self.readers.pop(name, None) is not None:
                self.dirty = self.urgent = True

    def acknowledge(self, name: str, first: int, last: int) -> None:
        with self.lock:
            account = self.readers.get(name)
            if account is not None and account.acknowledge(first, last):
                self.dirty = True

    def lose(self, first: int, last: int, epoch: int, cause: str) -> int:
        """Records that no file holds (any more), for a reason other than retirement. Returns how many are newly lost."""
        with self.lock:
            fresh = self.gaps.add(first, last, epoch, cause)
            for account in self.readers.values():
                for a, b in fresh:
                    account.settle(a, b, cause)
            lost = sum(b + 1 - a for a, b in fresh)
            if lost:
                self.lost[cause] += lost
                self.dirty = self.urgent = True
            return lost

    def retire(self, first: int, last: int, epoch: int, cause: str) -> None:
        """A segment is about to be removed: what somebody still waited for is dropped, the rest retires."""
        with self.lock:
            for a, b in self.gaps.outside(first, last):
                dropped = _size(union([span for account in self.readers.values() for span in account.pending_within(a, b)]))
                if dropped:
                    self.lost[cause] += dropped
                self.retired += b + 1 - a - dropped
            self.gaps.add(first, last, epoch, cause)
            for account in self.readers.values():
                account.settle(first, last, cause)
            self.first = max(self.first, last + 1)
            self.dirty = self.urgent = True

    def settled(self, first: int, last: int) -> bool:
        """Whether no reader waits for anything between ``first`` and ``last``."""
        with self.lock:
            return not any(account.pending_within(first, last) for account in self.readers.values())

    def pending(self, name: str, until: int) -> tuple[Span, ...]:
        with self.lock:
            account = self.readers.get(name)
            return account.pending(until) if account else ()

    def untold(self, name: str, until: int) -> tuple[Span, ...]:
        """Spans before ``until`` (exclusive) that are lost, and that the reader has not acknowledged yet."""
        with self.lock:
            account = self.readers.get(name)
            return tuple((a, min(b, until - 1)) for a, b in account.untold if a < until) if account else ()

    def state(self, durable: int, clean: int, moment: Moment, active: Facts) -> tuple[int, bytes]:
        """The book as bytes, with the number of this state. ``durable`` is the seq after the last record of the commit it goes with."""
        with self.lock:
            self.counter += 1
            self.gaps.thin(MOST_GAPS)
            self.dirty = self.urgent = False
            return self.counter, msgspec.msgpack.encode(
                BookState(
                    self.counter,
                    self.epoch,
                    durable,
                    clean,
                    moment.trusted_ns,
                    self.values,
                    dict(self.lost),
                    self.retired,
                    self.gaps.spans,
                    {name: _stored(account) for name, account in self.readers.items()},
                    self.first,
                    active,
                    moment.ahead_ns,
                )
            )

    def restore(self, state: BookState) -> None:
        self.epoch, self.next, self.values, self.counter = state.epoch, state.next, state.values, state.counter
        self.first = state.first
        self.lost, self.retired = Counter(state.lost), state.retired
        self.gaps = Gaps(list(state.gaps))
        self.readers = {
            name: Account(each.start, each.low, Counter(each.counts), list(each.spans), list(each.untold))
            for name, each in state.readers.items()
        }
        if self.gaps.spans:
            self.next = max(self.next, self.gaps.spans[-1][1] + 1)

    def begin_at(self, first: int) -> None:
        """Nothing is known but that records before ``first`` had been removed, for whatever reason, and that none of them is missing."""
        self.first = self.next = first
        self.retired = first - 1

    def reader_lanes(self, stamp_of: Mapping[str, int]) -> dict[str, ReaderLane]:
        """Every reader's account. The caller holds the lock."""
        told: dict[str, ReaderLane] = {}
        for name, account in self.readers.items():
            counts = account.counts
            pending = account.pending_records(self.next)
            told[name] = ReaderLane(
                appended=max(self.next - account.start, 0),
                acknowledged=counts[ACKNOWLEDGED],
                pending=pending,
                dropped={cause: n for cause, n in counts.items() if n and cause not in (ACKNOWLEDGED, QUARANTINED)},
                quarantined=counts[QUARANTINED],
                oldest_pending_ns=stamp_of.get(name, 0) if pending else 0,
                untold=_size(account.untold),
            )
        return told


def decode_state(content: bytes) -> BookState | None:
    try:
        return msgspec.msgpack.decode(content, type=BookState)
    except UNDECODABLE:
        return None


def _stored(account: Account) -> _ReaderState:
    """Beyond MOST_SPANS, what was settled out of order is forgotten: after a restart it is delivered once more. Beyond
    MOST_UNTOLD, that the oldest losses were not told is: they stay counted as dropped."""
    counts = Counter(account.counts)
    for first, last, cause in account.spans[MOST_SPANS:]:
        counts[cause] -= last + 1 - first
    return _ReaderState(account.start, account.low, dict(counts), account.spans[:MOST_SPANS], account.untold[-MOST_UNTOLD:])


def _size(spans: list[Span]) -> int:
    return sum(last + 1 - first for first, last in spans)


__all__ = ["MISSING", "Book", "BookState", "LaneLedger", "Ledger", "ReaderLane", "VerifyReport", "decode_state"]
