"""Sets of whole numbers kept as spans: what is still to be sent, what has arrived, what is missing.

A span is ``(first, last)``, both inclusive. Spans are kept sorted, disjoint and never adjacent, so that a set of millions
of sequence numbers that came nearly in order takes a few tuples. Pure.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Iterator

Span = tuple[int, int]


class Spans:
    """A set of integers. Adding a span costs a binary search and the spans that it swallows."""

    def __init__(self, spans: Iterable[Span] = ()) -> None:
        self._firsts: list[int] = []
        self._lasts: list[int] = []
        for first, last in spans:
            self.add(first, last)

    def add(self, first: int, last: int) -> int:
        """Put ``first`` to ``last`` in; returns how many of them were new."""
        if last < first:
            return 0
        firsts, lasts = self._firsts, self._lasts
        if firsts and first == lasts[-1] + 1:  # the usual case: the next ones
            lasts[-1] = last
            return last - first + 1
        low = bisect_left(lasts, first - 1)
        high = bisect_right(firsts, last + 1)
        known = sum(min(last, lasts[i]) - max(first, firsts[i]) + 1 for i in range(low, high) if lasts[i] >= first and firsts[i] <= last)
        if low < high:
            firsts[low:high], lasts[low:high] = [min(first, firsts[low])], [max(last, lasts[high - 1])]
        else:
            firsts.insert(low, first)
            lasts.insert(low, last)
        return last - first + 1 - known

    def remove(self, first: int, last: int) -> None:
        """Take ``first`` to ``last`` out, whether they are in or not."""
        if last < first:
            return
        low = bisect_left(self._lasts, first)
        high = bisect_right(self._firsts, last)
        kept = [span for i in range(low, high) for span in _cut((self._firsts[i], self._lasts[i]), first, last)]
        self._firsts[low:high] = [span[0] for span in kept]
        self._lasts[low:high] = [span[1] for span in kept]

    def gaps(self, first: int, last: int) -> list[Span]:
        """The spans between ``first`` and ``last`` that are not in the set."""
        missing = Spans([(first, last)])
        for i in range(bisect_left(self._lasts, first), bisect_right(self._firsts, last)):
            missing.remove(self._firsts[i], self._lasts[i])
        return list(missing)

    def count(self) -> int:
        """How many numbers are in the set."""
        return sum(self._lasts) - sum(self._firsts) + len(self._firsts)

    def __contains__(self, number: int) -> bool:
        i = bisect_left(self._lasts, number)
        return i < len(self._lasts) and self._firsts[i] <= number

    def __iter__(self) -> Iterator[Span]:
        return zip(self._firsts, self._lasts, strict=True)

    def __len__(self) -> int:
        """How many spans there are."""
        return len(self._firsts)


def _cut(span: Span, first: int, last: int) -> list[Span]:
    """What is left of ``span`` without ``first`` to ``last``."""
    parts = ((span[0], min(span[1], first - 1)), (max(span[0], last + 1), span[1]))
    return [part for part in parts if part[0] <= part[1]]
