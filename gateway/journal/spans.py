"""Which records are settled, for one reader of one lane, and which gaps a lane has. Pure.

An account knows three things: everything below ``low`` is settled, some spans above it are, the rest is pending. A
record is settled once, by the first cause that comes (acknowledged, a drop reason, quarantined, missing); so
``appended == acknowledged + pending + dropped + quarantined`` cannot be broken: pending is what the spans leave over.

What was lost is settled, and yet somebody has to be told: it stays *untold* until the reader acknowledges it too.
"""

from __future__ import annotations

from bisect import bisect_right
from collections import Counter
from dataclasses import dataclass, field
from typing import Final

import msgspec

ACKNOWLEDGED: Final = "acknowledged"
QUARANTINED: Final = "quarantined"
MISSING: Final = "missing"

Span = tuple[int, int]
"""First and last seq, inclusive."""


@dataclass(slots=True)
class Account:
    """What one reader has settled of one lane."""

    start: int
    """The first seq that concerns this reader."""
    low: int
    """Everything before it is settled."""
    counts: Counter[str] = field(default_factory=Counter)
    """Settled records by cause."""
    spans: list[tuple[int, int, str]] = field(default_factory=list)
    """Settled spans above ``low`` with their cause; sorted, disjoint."""
    untold: list[Span] = field(default_factory=list)
    """What is settled by a loss that the reader has not acknowledged; sorted, disjoint, never adjacent."""

    def settle(self, first: int, last: int, cause: str) -> int:
        """Settle what is not settled yet between ``first`` and ``last``; how many records that were."""
        first = max(first, self.low)
        if last < first:
            return 0
        if first == self.low and not self.spans:  # the usual case: in order
            self.low = last + 1
            fresh = [(first, last)]
        elif fresh := self._unsettled(first, last):
            self.spans = _merged(sorted(self.spans + [(a, b, cause) for a, b in fresh]))
            self._raise_low()
        if cause != ACKNOWLEDGED:
            self.untold = union(self.untold + fresh)
        settled = sum(b + 1 - a for a, b in fresh)
        self.counts[cause] += settled
        return settled

    def acknowledge(self, first: int, last: int) -> bool:
        """The reader has delivered what is between ``first`` and ``last``, or told that it is lost. Whether that is news."""
        settled = self.settle(first, last, ACKNOWLEDGED)
        untold = [part for a, b in self.untold for part in ((a, min(b, first - 1)), (max(a, last + 1), b)) if part[0] <= part[1]]
        told = untold != self.untold
        self.untold = untold
        return bool(settled) or told

    def pending(self, until: int) -> tuple[Span, ...]:
        """Spans that are not settled, before ``until`` (exclusive), oldest first."""
        return tuple(self._unsettled(self.low, until - 1))

    def pending_within(self, first: int, last: int) -> list[Span]:
        return self._unsettled(max(first, self.low), last)

    def pending_records(self, until: int) -> int:
        """How many records before ``until`` are not settled."""
        return max(until - self.low, 0) - sum(min(b + 1, until) - a for a, b, _ in self.spans if a < until)

    def _unsettled(self, first: int, last: int) -> list[Span]:
        found: list[Span] = []
        for a, b, _ in self.spans[max(bisect_right(self.spans, (first, first, "")) - 1, 0) :]:
            if a > last:
                break
            if a > first:
                found.append((first, a - 1))
            first = max(first, b + 1)
        if first <= last:
            found.append((first, last))
        return found

    def _raise_low(self) -> None:
        done = 0
        for a, b, _ in self.spans:
            if a > self.low:
                break
            self.low = b + 1
            done += 1
        del self.spans[:done]


def union(spans: list[Span]) -> list[Span]:
    """``spans``, in any order, as the fewest that cover the same."""
    found: list[Span] = []
    for first, last in sorted(spans):
        if found and first <= found[-1][1] + 1:
            found[-1] = (found[-1][0], max(last, found[-1][1]))
        else:
            found.append((first, last))
    return found


def _merged(spans: list[tuple[int, int, str]]) -> list[tuple[int, int, str]]:
    merged = spans[:1]
    for first, last, cause in spans[1:]:
        before = merged[-1]
        if before[1] + 1 == first and before[2] == cause:
            merged[-1] = (before[0], last, cause)
        else:
            merged.append((first, last, cause))
    return merged


class Facts(msgspec.Struct, array_like=True):
    """What is known of a segment without opening it."""

    epoch: int
    first: int
    """Seq of its first record; also in its name."""
    last: int
    """Seq of its last record; ``first - 1`` when it has none."""
    values: int = 0
    bytes: int = 0
    """Size of the sealed file; 0 where unknown."""
    first_ns: int = 0
    last_ns: int = 0
    """Stamps of its first and last record."""
    opened_ns: int = 0
    closed_ns: int = 0
    """Trusted time at its beginning and of its last commit."""


@dataclass(slots=True)
class Gaps:
    """Seqs of a lane that no file holds, each span with its epoch and reason; sorted, disjoint."""

    spans: list[tuple[int, int, int, str]] = field(default_factory=list)

    def add(self, first: int, last: int, epoch: int, reason: str) -> list[Span]:
        """Note a gap; what was a gap already keeps its reason. Returns the spans that are new."""
        if self.spans and self.spans[-1][1] + 1 == first and self.spans[-1][2:] == (epoch, reason):
            self.spans[-1] = (self.spans[-1][0], last, epoch, reason)  # the usual case: one more at the end
            return [(first, last)]
        fresh = self.outside(first, last)
        self.spans = sorted(self.spans + [(a, b, epoch, reason) for a, b in fresh])
        self._merge()
        return fresh

    def outside(self, first: int, last: int) -> list[Span]:
        """The parts of ``first`` to ``last`` that are no gap."""
        found: list[Span] = []
        for a, b, _, _ in self.within(first, last):
            if a > first:
                found.append((first, a - 1))
            first = b + 1
        if first <= last:
            found.append((first, last))
        return found

    def within(self, first: int, last: int) -> list[tuple[int, int, int, str]]:
        """The gaps between ``first`` and ``last``, clipped to them."""
        found: list[tuple[int, int, int, str]] = []
        for a, b, epoch, reason in self.spans[max(bisect_right(self.spans, (first, first, 0, "")) - 1, 0) :]:
            if a > last:
                break
            if b >= first:
                found.append((max(a, first), min(b, last), epoch, reason))
        return found

    def spanning(self, seq: int) -> tuple[int, int, int, str]:
        """The gap in which ``seq`` lies. Raises IndexError if it lies in none."""
        for span in self.spans[max(bisect_right(self.spans, (seq, seq, 0, "")) - 1, 0) :]:
            if span[0] <= seq <= span[1]:
                return span
        raise IndexError(seq)

    def thin(self, limit: int) -> None:
        """Keep at most ``limit`` spans. The oldest are forgotten: nothing is stored there, and every account is settled."""
        if len(self.spans) > limit:
            del self.spans[: len(self.spans) - limit]

    def _merge(self) -> None:
        merged = self.spans[:1]
        for span in self.spans[1:]:
            before = merged[-1]
            if before[1] + 1 == span[0] and before[2:] == span[2:]:
                merged[-1] = (before[0], span[1], *span[2:])
            else:
                merged.append(span)
        self.spans = merged
