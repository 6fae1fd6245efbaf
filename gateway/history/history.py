"""Questions about values of the past, by device, tag and time: raw values, buckets, lines for eyes; and which gaps there are.

Trends come from roll-ups of single minutes (or of 15, over weeks), raw values from the journal itself, whose records an index
names: so what is read is in proportion to what is asked, not to what is stored. Everything is read on the history's thread in
portions of a few milliseconds, between which the event loop and other questions get their turn; who goes away before the
answer is there ends the work at the next portion. Time is the source's: raw values are in order of (time, seq), and what came
late stands where its stamp says.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Literal

import numpy as np
from numpy.typing import NDArray

from gateway import links
from gateway.config.history import History as Options
from gateway.history import lttb
from gateway.history.buckets import Buckets, Entries, Span, breaks, buckets, hold_ns, of_values, points
from gateway.history.follower import LANE, Follower
from gateway.history.store import Loss, Store
from gateway.history.sums import CHUNK, MINUTE_NS, WINDOW_MINUTES, WINDOW_NS, Floats, Ints, Sums, joined, merge, nothing, whole
from gateway.journal import Journal, Lost, Record
from gateway.objections import NotThere, TooLarge, TooMany, Unfit
from protocols.clock import Clock
from protocols.model import COLUMN_OF, DTYPE_OF, Column, Device, Tag

RECORDS_AT_ONCE: Final = 128
"""Records that are read and decoded in one portion: about 2 ms."""
GROUP_RECORDS: Final = 1024
"""Whole minutes with about so many records are put in order together."""
WAITING: Final = 16
"""Questions that may wait, for each that is answered."""
FEW_VALUES: Final = 1000
"""A line is made of stored values where there are no more, or no more than twice the points wanted: each costs a record."""
COARSE_WINDOWS: Final = 3 * 96
"""From so many windows on (three days), lines are made of windows instead of minutes; so are buckets that consist of windows."""
LONGEST_LOOK_BACK: Final = 4
"""Windows before the asked time that are looked at for a value that holds."""
MOST_LOSSES: Final = 1000
MOST_NS: Final = 1 << 62


@dataclass(frozen=True, slots=True)
class Found:
    """A tag of which something may be known. ``places`` are sources and slots, of each configuration that the device has had."""

    device: str
    tag: Tag
    places: tuple[tuple[int, int], ...]


@dataclass(frozen=True, slots=True, eq=False)
class Samples:
    """Values as they were stored, in order of (time, seq)."""

    time_ns: Ints
    value: NDArray[Any]  # Any: see Batch.value
    quality: NDArray[np.uint32]
    epoch: Ints
    seq: Ints
    nth: Ints
    """Place in the record, for records that have several values of one tag."""

    def __len__(self) -> int:
        return len(self.time_ns)

    def pick(self, rows: Any) -> Samples:  # Any: what NumPy takes as an index
        return Samples(*(getattr(self, name)[rows] for name in self.__slots__))


@dataclass(frozen=True, slots=True)
class Gap:
    """A stretch of time in which records are lost, or gone."""

    from_ns: int
    to_ns: int
    reason: str
    records: int


@dataclass(frozen=True, slots=True)
class Page:
    """Raw values of one tag; ``more`` if there are some after them."""

    samples: Samples
    gaps: tuple[Gap, ...]
    more: bool


@dataclass(frozen=True, slots=True, eq=False)
class Line:
    """Points of one tag for eyes."""

    of: Literal["values", "minutes", "windows"]
    """What it was made of: stored values, or the first, least, greatest and last of each minute, or of each 15 minutes."""
    time_ns: Ints
    value: Floats
    breaks: Ints
    """Indices of points to which no line leads from the point before."""


Key = tuple[int, int, int]
"""Time, seq and nth of a value."""


class History:
    """The history of one gateway. ``device`` tells how a device is configured now, ``wiped`` before when one's past was wiped."""

    def __init__(
        self,
        options: Options,
        folder: Path,
        journal: Journal,
        clock: Clock,
        *,
        device: Callable[[str], Device | None] = lambda _name: None,
        wiped: Callable[[str], int | None] = lambda _name: None,
    ) -> None:
        self.options = options
        self.follower = Follower(Store(folder, options.max_bytes), journal, clock)
        self._journal = journal
        self._clock = clock
        self._device = device
        self._wiped = wiped
        self._slots = asyncio.Semaphore(options.concurrent)
        self._long = asyncio.Semaphore(max(1, options.concurrent // 2))
        self._waiting = 0

    @property
    def session(self) -> links.Session:
        """What a link keeps."""
        return self.follower.session

    @property
    def catching_up(self) -> bool:
        """True while older records are still being read: answers lack what comes after them."""
        return self.follower.behind > 0

    def find(self, device: str, tag: str) -> Found:
        """Raises NotThere for a tag that the device neither has nor had."""
        sources = [each for each in list(self.follower.store.sources.get(device, ())) if tag in each.slots]
        if sources:
            newest = sources[-1]
            places = tuple((each.id, each.slots[tag]) for each in sources)
            return Found(device, newest.device.tags[newest.slots[tag]], places)
        now = self._device(device)
        of_now = next((each for each in now.tags if each.name == tag), None) if now is not None else None
        if of_now is None:
            raise NotThere(f"device {device!r} has no tag {tag!r}", f"GET /api/v1/devices/{device} lists its tags")
        return Found(device, of_now, ())

    def check(self, series: int, from_ns: int, to_ns: int, *, bucket_ns: int = 0, points: int = 0) -> None:
        """Raises Unfit or TooLarge for a question that cannot be; ``points`` are those of one tag."""
        if not -MOST_NS < from_ns < to_ns < MOST_NS:
            raise Unfit("from must lie before to", "give both in nanoseconds since 1970, or as RFC 3339 says")
        if series > self.options.most_tags:
            raise TooLarge(f"{series} tags are more than are answered at once", f"ask for at most {self.options.most_tags}")
        each = -(-to_ns // bucket_ns) - from_ns // bucket_ns if bucket_ns else points
        if series * each > self.options.most_points:
            raise TooLarge(
                f"{series * each} buckets or points are more than are answered at once",
                f"ask for at most {self.options.most_points}, of all tags together",
            )

    @contextlib.asynccontextmanager
    async def turn(self, *, long: bool = False) -> AsyncIterator[None]:
        """Wait until this question may be answered, with all that is durable by then. ``long`` ones leave room for others.
        Raises TooMany where too many wait."""
        if self._waiting >= WAITING * self.options.concurrent:
            raise TooMany("too many questions about the past are waiting", "ask again", 2.0)
        async with contextlib.AsyncExitStack() as held:
            self._waiting += 1
            try:
                if long:
                    await held.enter_async_context(self._long)
                await held.enter_async_context(self._slots)
            finally:
                self._waiting -= 1
            await self.follower.catch_up()
            yield

    # questions, each inside a turn

    async def page(self, found: Found, from_ns: int, to_ns: int, limit: int, after: Key | None = None) -> Page:
        """At most ``limit`` raw values with from <= time < to, those after ``after``."""
        if after is not None and not all(-MOST_NS < each < MOST_NS for each in after):
            raise Unfit("this cursor is none of ours", "send next of the page before, or none for the first page")
        parts: list[Samples] = []
        gone: list[Gap] = []
        count = 0
        async for some in self.samples(found, max(from_ns, after[0]) if after else from_ns, to_ns, gone):
            fresh = some if after is None else some.pick(_is_after(some, after))
            parts.append(fresh)
            count += len(fresh)
            if count > limit:
                break
        samples = _put_together(parts, found)
        end_ns = int(samples.time_ns[limit]) if count > limit else to_ns
        gaps = [*gone, *await self.gaps(max(from_ns, after[0]) if after else from_ns, end_ns)]
        return Page(samples.pick(slice(limit)), tuple(gaps), count > limit)

    async def buckets(self, found: Found, from_ns: int, to_ns: int, bucket_ns: int) -> Buckets:
        """Buckets whose starts are multiples of their length since 1970, all that touch the asked time. Raises TooLarge."""
        first = from_ns // bucket_ns
        count = -(-to_ns // bucket_ns) - first
        self.check(1, from_ns, to_ns, bucket_ns=bucket_ns)
        begin_ns, end_ns, hold = first * bucket_ns, (first + count) * bucket_ns, hold_ns(found.tag)
        if bucket_ns % MINUTE_NS:
            entries = await self._values(found, begin_ns - min(hold, bucket_ns), end_ns)
        else:
            coarse = bucket_ns % WINDOW_NS == 0 and end_ns - begin_ns > COARSE_WINDOWS * WINDOW_NS
            entries = await self._entries(found, begin_ns - hold, end_ns, coarse=coarse)
        losses = [(each.from_ns, each.to_ns) for each in await self.gaps(begin_ns, end_ns)]
        return await self.follower.ask(buckets, entries, begin_ns, bucket_ns, count, hold, self._clock.time_ns(), losses)

    async def line(self, found: Found, from_ns: int, to_ns: int, most: int) -> Line:
        """At most ``most`` points by LTTB. Raises TooLarge, and Unfit for a tag of texts."""
        self.check(1, from_ns, to_ns, points=most)
        if COLUMN_OF[found.tag.kind] is Column.OBJECT:
            raise Unfit(f"{found.tag.name!r} is a {found.tag.kind.value}: there is no line through it", "ask for its raw values")
        coarse = to_ns - from_ns > COARSE_WINDOWS * WINDOW_NS
        of: Literal["values", "minutes", "windows"] = "windows" if coarse else "minutes"
        entries = await self._entries(found, from_ns, to_ns, coarse=coarse)
        if int((entries.sums.count + entries.sums.bad).sum()) <= min(self.options.most_raw, max(2 * most, FEW_VALUES)):
            of, entries = "values", await self._values(found, from_ns, to_ns)
        losses = [(each.from_ns, each.to_ns) for each in await self.gaps(from_ns, to_ns)]
        return await self.follower.ask(_line, of, entries, from_ns, to_ns, most, hold_ns(found.tag), losses)

    async def gaps(self, from_ns: int, to_ns: int) -> list[Gap]:
        """Records that were lost in this time, of whatever device."""
        stored: list[Loss] = await self.follower.ask(self.follower.store.losses, from_ns, to_ns, MOST_LOSSES)
        fresh = [each for each in self.follower.losses() if each.to_ns >= from_ns and each.from_ns <= to_ns]
        return [Gap(each.from_ns, each.to_ns, each.lost.reason, each.lost.records) for each in (*stored, *fresh)]

    async def samples(self, found: Found, from_ns: int, to_ns: int, gone: list[Gap]) -> AsyncIterator[Samples]:
        """All raw values with from <= time < to, in order, a portion at a time. What the index knows and the journal does not
        hold any more goes to ``gone``."""
        from_ns = self._visible(found, from_ns)
        ask = self.follower.ask
        for window in await ask(self._windows, found, from_ns // WINDOW_NS, (to_ns - 1) // WINDOW_NS):
            for first, last, seqs in await ask(self._places, found, window, from_ns // MINUTE_NS, (to_ns - 1) // MINUTE_NS):
                records = await self._records(seqs, (first * MINUTE_NS, (last + 1) * MINUTE_NS), gone)
                begin, end = max(from_ns, first * MINUTE_NS), min(to_ns, (last + 1) * MINUTE_NS)
                for at in range(0, max(len(records), 1), 8 * GROUP_RECORDS):
                    yield await ask(_samples, found, records[at : at + 8 * GROUP_RECORDS], begin, end)

    # what they are made of

    def _visible(self, found: Found, from_ns: int) -> int:
        wiped = self._wiped(found.device)
        return from_ns if wiped is None else max(from_ns, wiped)

    async def _values(self, found: Found, from_ns: int, to_ns: int) -> Entries:
        """Raw values as entries. Raises TooLarge."""
        parts: list[Samples] = []
        count = 0
        async for some in self.samples(found, from_ns, to_ns, []):
            parts.append(some)
            count += len(some)
            if count > self.options.most_raw:
                raise TooLarge(
                    f"{found.tag.name!r} has more than {self.options.most_raw} values in this time",
                    "ask for less of it, or for buckets of whole minutes",
                )
        samples = _put_together(parts, found)
        numbers = _numbers(samples.value)
        return await self.follower.ask(of_values, samples.time_ns, numbers, samples.quality)

    async def _entries(self, found: Found, from_ns: int, to_ns: int, *, coarse: bool) -> Entries:
        """Sums of the minutes (or windows) that begin from ``from_ns`` on and before ``to_ns``, and a little before."""
        from_ns = max(from_ns, (to_ns - 1) - 400 * 366 * 96 * WINDOW_NS)
        last = (to_ns - 1) // WINDOW_NS
        first = max(from_ns // WINDOW_NS, 0)
        visible_ns = self._visible(found, first * WINDOW_NS)
        entries: Entries = await self.follower.ask(self._read, found, first, last, coarse)
        shown = (entries.began_ns >= visible_ns) & (entries.began_ns < to_ns)
        return Entries(entries.began_ns[shown], entries.sums.pick(shown))

    def _read(self, found: Found, first: int, last: int, coarse: bool) -> Entries:
        """Sums of one tag from window ``first`` to ``last``, of every source, stored and fresh."""
        parts: dict[int, list[tuple[int, Sums]]] = {}
        for source, slot in found.places:
            for window, row, sums in self.follower.store.stretches(source, slot, first, last, whole=coarse):
                parts.setdefault(window, []).append((row, sums))
            for (its_source, window, chunk), stretch in self.follower.fresh.stretches.items():
                if (its_source, chunk) == (source, slot // CHUNK) and first <= window <= last:
                    at = slot % CHUNK
                    one = (
                        whole(stretch.pick((slice(None), slice(at, at + 1)))).pick((slice(None), 0))
                        if coarse
                        else stretch.pick((slice(None), at))
                    )
                    parts.setdefault(window, []).append((0, one))
        began, found_sums = [], []
        for window in sorted(parts):
            row, sums = _all_of(parts[window], 1 if coarse else WINDOW_MINUTES)
            began.append(window * WINDOW_NS + (row + np.arange(len(sums.count))) * MINUTE_NS)
            found_sums.append(sums)
        columns = joined(found_sums)
        some = (columns.count + columns.bad) > 0
        return Entries(np.concatenate([np.zeros(0, dtype=np.int64), *began])[some], columns.pick(some))

    def _windows(self, found: Found, first: int, last: int) -> list[int]:
        sources = [source for source, _ in found.places]
        fresh = {window for source, window in self.follower.fresh.places if source in sources and first <= window <= last}
        return sorted(fresh.union(self.follower.store.windows(sources, max(first, 0), last)))

    def _places(self, found: Found, window: int, first: int, last: int) -> list[tuple[int, int, list[int]]]:
        """Where raw values of ``window`` lie: stretches of minutes (from, to) between ``first`` and ``last``, each with its seqs."""
        where = [self.follower.store.places(source, window) for source, _ in found.places]
        for source, _ in found.places:
            where += self.follower.fresh.places.get((source, window), [])
        seqs, rows = np.concatenate([seqs for seqs, _ in where]), np.concatenate([rows for _, rows in where])
        minutes = rows.astype(np.int64) + window * WINDOW_MINUTES
        asked = (minutes >= first) & (minutes <= last)
        return list(_grouped(seqs[asked], minutes[asked]))

    async def _records(self, seqs: Sequence[int], span: Span, gone: list[Gap]) -> list[Record]:
        """Records by seq, from memory, sealed files or the writer; what is not there any more goes to ``gone``."""
        oldest = self._journal.first(LANE)
        lost = [seq for seq in seqs if seq < oldest]
        reasons = {each.reason for each in self._journal.gaps(LANE, lost[0], lost[-1])} if lost else set[str]()
        found: list[Record] = []
        for at in range(len(lost), len(seqs), RECORDS_AT_ONCE):
            records, rest = await self.follower.ask(self.follower.archive.fetch, seqs[at : at + RECORDS_AT_ONCE])
            found += records
            for entry in await self._journal.pick(LANE, rest) if rest else ():
                if isinstance(entry, Lost):
                    lost.append(entry.first)
                    reasons.add(entry.reason)
                else:
                    found.append(entry)
        if lost:
            gone.append(Gap(*span, ", ".join(sorted(reasons)) or "full", len(lost)))
        return found


def _grouped(seqs: Ints, minutes: Ints) -> Iterable[tuple[int, int, list[int]]]:
    """Whole minutes with about GROUP_RECORDS records together; each seq once in its group, rising."""
    order = np.argsort(minutes, kind="stable")
    seqs, minutes = seqs[order], minutes[order]
    starts = np.flatnonzero(np.concatenate(([True], minutes[1:] != minutes[:-1]))) if len(minutes) else np.zeros(0, dtype=np.int64)
    at = 0
    while at < len(minutes):
        beyond = starts[starts >= at + GROUP_RECORDS]
        end = int(beyond[0]) if len(beyond) else len(minutes)
        yield int(minutes[at]), int(minutes[end - 1]), np.unique(seqs[at:end]).tolist()
        at = end


def _all_of(parts: list[tuple[int, Sums]], rows: int) -> tuple[int, Sums]:
    """One tag's sums of one window, from all that speak of it."""
    if len(parts) == 1:
        return parts[0]
    found = nothing(rows)
    for row, sums in parts:
        at = slice(row, row + len(sums.count))
        found.put(at, merge(found.pick(at), sums))
    return 0, found


def _samples(found: Found, records: Sequence[Record], from_ns: int, to_ns: int) -> Samples:
    """The values of one tag in ``records`` with from <= time < to, in order."""
    slots = {slot for _, slot in found.places}
    parts: list[Samples] = []
    for record in records:
        batch = record.batch
        for slot in slots:
            if slot >= len(batch.device.tags) or batch.device.tags[slot].name != found.tag.name:
                continue
            rows = np.flatnonzero(batch.tag == slot)
            if len(rows):
                epoch, seq = np.full(len(rows), record.epoch), np.full(len(rows), record.seq)
                parts.append(Samples(batch.time_ns[rows], batch.value[rows], batch.quality[rows], epoch, seq, rows))
    together = _put_together(parts, found)
    together = together.pick((together.time_ns >= from_ns) & (together.time_ns < to_ns))
    return together.pick(np.lexsort((together.nth, together.seq, together.time_ns)))


def _put_together(parts: Sequence[Samples], found: Found) -> Samples:
    if not parts:
        none = np.zeros(0, dtype=np.int64)
        return Samples(none, np.zeros(0, dtype=DTYPE_OF[COLUMN_OF[found.tag.kind]]), np.zeros(0, dtype=np.uint32), none, none, none)
    values = [each.value for each in parts]
    if len({each.dtype.kind for each in values}) > 1:  # its kind was another one once
        values = [each.astype(object) for each in values]
    columns = (np.concatenate([getattr(each, name) for each in parts]) for name in Samples.__slots__[2:])
    return Samples(np.concatenate([each.time_ns for each in parts]), np.concatenate(values), *columns)


def _is_after(samples: Samples, key: Key) -> NDArray[np.bool_]:
    time_ns, seq, nth = key
    same = samples.time_ns == time_ns
    later = (samples.seq > seq) | ((samples.seq == seq) & (samples.nth > nth))
    return np.asarray((samples.time_ns > time_ns) | (same & later), dtype=np.bool_)


def _numbers(value: NDArray[Any]) -> Floats:  # Any: see Batch.value
    """As doubles; what is no number is NaN."""
    if value.dtype.kind != "O":
        return value.astype(np.float64)
    return np.array([float(each) if isinstance(each, int | float) else np.nan for each in value], dtype=np.float64)


def _line(
    of: Literal["values", "minutes", "windows"], entries: Entries, from_ns: int, to_ns: int, most: int, hold: int, losses: Sequence[Span]
) -> Line:
    time_ns, value, entry = points(entries)
    inside = (time_ns >= from_ns) & (time_ns < to_ns)
    time_ns, value, entry = time_ns[inside], value[inside], entry[inside]
    if not len(time_ns):
        return Line(of, time_ns, value, np.zeros(0, dtype=np.int64))
    taken, broken = lttb.lttb_with_gaps(time_ns, value, breaks(entries, time_ns, entry, hold, losses), most)
    return Line(of, time_ns[taken], value[taken], np.flatnonzero(broken))
