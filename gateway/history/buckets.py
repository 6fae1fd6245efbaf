"""From entries (sums of single minutes, or single values) of one tag to buckets of any length, and to points of a line. Pure.

Two means are told. ``avg`` is weighted by time: a value holds until the next one, but no longer than ``hold`` (what is
silent for longer is a gap), not past a bad value, and not over records that were lost. That is the mean of what was
there, also where a tag only reports changes. ``mean`` is that of the values as they were stored, each counting the same.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from gateway.history.sums import BAD, MS, NAMES, TYPES, UNCERTAIN, Floats, Ints, Sums
from protocols.model import Tag

Span = tuple[int, int]
"""From and to, nanoseconds UTC."""
SECOND_NS: Final = 1_000_000_000
UNKNOWN_HOLD_S: Final = 900.0


@dataclass(frozen=True, slots=True, eq=False)
class Entries:
    """Sums of stretches that follow each other; each has values, good or bad."""

    began_ns: Ints
    sums: Sums

    @property
    def first_ns(self) -> Ints:
        return np.asarray(self.began_ns + self.sums.first_at * MS, dtype=np.int64)

    @property
    def last_ns(self) -> Ints:
        return np.asarray(self.began_ns + self.sums.last_at * MS, dtype=np.int64)


@dataclass(frozen=True, slots=True, eq=False)
class Buckets:
    """Columns, an entry for each bucket; NaN where nothing is known."""

    start_ns: Ints
    count: Ints
    bad: Ints
    low: Floats
    high: Floats
    avg: Floats
    mean: Floats
    first: Floats
    last: Floats
    good_share: Floats


def hold_ns(tag: Tag) -> int:
    """How long a value of ``tag`` stands for itself: half as long again as its longest silence, or two scans, allow."""
    longest = max(tag.max_silence_s, 2 * tag.scan_s)
    return round(1.5 * (longest or UNKNOWN_HOLD_S / 1.5) * SECOND_NS)


def of_values(time_ns: Ints, value: Floats, quality: NDArray[np.uint32]) -> Entries:
    """Single values, in order of time, as entries."""
    usable = (quality < BAD) & ~np.isnan(value)
    zero, number = np.zeros(len(value), dtype=np.int64), np.where(usable, value, np.nan)
    columns: dict[str, NDArray[Any]] = dict.fromkeys(NAMES, zero) | dict.fromkeys(("low", "high", "first", "last"), number)
    columns |= {"count": usable.astype(np.int64), "bad": (~usable).astype(np.int64), "ended": usable}
    columns |= {"uncertain": (usable & (quality >= UNCERTAIN)).astype(np.int64), "total": np.where(usable, value, 0.0)}
    return Entries(time_ns, Sums(**{name: column.astype(TYPES[name], copy=False) for name, column in columns.items()}))


def buckets(entries: Entries, from_ns: int, bucket_ns: int, count: int, hold: int, now_ns: int, losses: Sequence[Span]) -> Buckets:
    """``count`` buckets from ``from_ns`` on. Entries lie in one bucket each, or before the first: these only tell what it begins with."""
    sums = entries.sums
    place = (entries.began_ns - from_ns) // bucket_ns
    inside = (place >= 0) & (place < count)

    def added(column: NDArray[np.float64] | NDArray[np.int64]) -> Floats:
        return np.asarray(np.bincount(place[inside], weights=column[inside], minlength=count), dtype=np.float64)

    edges_ns = from_ns + bucket_ns * np.arange(count + 1, dtype=np.int64)
    area, held = _between(entries, edges_ns, hold, now_ns, losses)
    area, held = area + added(sums.area), held + added(sums.held)
    counted, uncertain, bad = added(sums.count), added(sums.uncertain), added(sums.bad)
    some = inside & (sums.count > 0)
    with np.errstate(invalid="ignore", divide="ignore"):
        mean = np.where(counted > 0, added(np.where(sums.count > 0, sums.total, 0.0)) / counted, np.nan)
        avg = np.where(held > 0, area / held, mean)
        good_share = (counted - uncertain) / (counted + bad)
    return Buckets(
        start_ns=edges_ns[:-1],
        count=counted.astype(np.int64),
        bad=bad.astype(np.int64),
        low=_of_each(np.fmin, sums.low[some], place[some], count),
        high=_of_each(np.fmax, sums.high[some], place[some], count),
        avg=avg,
        mean=mean,
        first=_of_each(None, sums.first[some][::-1], place[some][::-1], count),
        last=_of_each(None, sums.last[some], place[some], count),
        good_share=good_share,
    )


def _of_each(combine: np.ufunc | None, column: Floats, place: Ints, count: int) -> Floats:
    """What ``combine`` makes of the entries of each bucket; without it the last one of each."""
    found = np.full(count, np.nan)
    if combine is None:
        found[place] = column
    elif len(place):
        starts = np.flatnonzero(np.concatenate(([True], place[1:] != place[:-1])))
        found[place[starts]] = combine.reduceat(column, starts)
    return found


def _between(entries: Entries, edges_ns: Ints, hold: int, now_ns: int, losses: Sequence[Span]) -> tuple[Floats, Floats]:
    """Area and seconds of what is held from one entry to the next, for each bucket."""
    sums = entries.sums
    if not len(sums.count):
        nothing = np.zeros(len(edges_ns) - 1)
        return nothing, nothing
    start = entries.last_ns
    end = np.append(entries.first_ns[1:], min(now_ns, int(start[-1]) + hold))
    clean = np.append((sums.count[1:] > 0) & (sums.bad[1:] == 0), True)
    goes_on = sums.ended & (sums.count > 0) & clean & (end > start) & (end - start <= hold) & np.isfinite(sums.last)
    for lost_from, lost_to in losses:
        goes_on &= (end <= lost_from) | (start >= lost_to)
    start, end, value = start[goes_on], end[goes_on], sums.last[goes_on]
    if not len(start):
        nothing = np.zeros(len(edges_ns) - 1)
        return nothing, nothing
    knots = np.stack([start, end], axis=1).ravel()
    at, seconds = (edges_ns - edges_ns[0]) * 1e-9, (end - start) * 1e-9
    knots_s = (knots - edges_ns[0]) * 1e-9
    return _steps(at, knots_s, value * seconds), _steps(at, knots_s, seconds)


def _steps(at: Floats, knots: Floats, gains: Floats) -> Floats:
    """How much of ``gains``, each gathered evenly between two knots, falls between each two of ``at``."""
    total = np.cumsum(gains)
    heights = np.stack([total - gains, total], axis=1).ravel()
    return np.diff(np.interp(at, knots, heights))


def points(entries: Entries) -> tuple[Ints, Floats, Ints]:
    """The line through first, least, greatest and last value of each entry: times (rising), values, and the entry of each."""
    sums, some = entries.sums, np.flatnonzero(entries.sums.count > 0)
    moments = np.stack([sums.first_at[some], sums.low_at[some], sums.high_at[some], sums.last_at[some]], axis=1)
    values = np.stack([sums.first[some], sums.low[some], sums.high[some], sums.last[some]], axis=1)
    order = np.argsort(moments, axis=1, kind="stable")
    time_ns = (entries.began_ns[some][:, np.newaxis] + np.take_along_axis(moments, order, axis=1) * MS).ravel()
    value, entry = np.take_along_axis(values, order, axis=1).ravel(), np.repeat(some, 4)
    fresh = np.concatenate(([True], (np.diff(time_ns) > 0))) & np.isfinite(value)
    return time_ns[fresh], value[fresh], entry[fresh]


def breaks(entries: Entries, time_ns: Ints, entry: Ints, hold: int, losses: Sequence[Span]) -> Ints:
    """Which of the points of :func:`points` do not belong to the one before: bad values, silence or a loss lie between."""
    if len(time_ns) < 2:
        return np.zeros(0, dtype=np.int64)
    before, after = entry[:-1], entry[1:]
    cut = (time_ns[1:] - time_ns[:-1] > hold) | ((before != after) & ~entries.sums.ended[before]) | (after - before > 1)
    for lost_from, lost_to in losses:
        cut |= (time_ns[:-1] < lost_to) & (time_ns[1:] > lost_from)
    return np.flatnonzero(cut) + 1
