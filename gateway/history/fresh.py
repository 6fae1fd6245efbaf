"""What was read lately and is not in the store yet: records folded into open stretches of 15 minutes, and where records lie.

Records come in portions. Those of one device that speak of the same tags become one table, and a table becomes Sums with a few
NumPy calls: nothing is done for a single value. Tables whose rows are not each of one minute, or not in order (clocks that
went back, values pushed with old stamps), are taken apart first, which costs more and is rare. Not thread-safe: it belongs
to the history's thread.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from gateway.history.sums import CHUNK, MINUTE_NS, WINDOW_MINUTES, Ints, Sums, fold, fold_texts, merge, nothing
from gateway.journal import Record
from protocols.model import Column, Device

CELL_BYTES: Final = 84
"""What a minute of a tag takes in memory."""
Place = tuple[int, int, int]
"""Source, window (its number since 1970) and chunk."""
Where = tuple[NDArray[np.int64], NDArray[np.uint8]]
"""Seqs of records, and for each the minute of the window in which it has values; a record of several minutes stands here several times."""


@dataclass(frozen=True, slots=True, eq=False)
class _Table:
    """Values of the same tags of one device from several records: a row for each record."""

    device: Device
    slots: NDArray[np.uint32]
    seqs: Ints
    value: NDArray[Any]  # Any: see Batch.value
    quality: NDArray[np.uint32]
    time_ns: Ints


@dataclass(slots=True)
class Fresh:
    """Open stretches. ``number`` gives each device the number of its source."""

    stretches: dict[Place, Sums] = field(default_factory=dict)
    """Sums of shape (15, tags of the chunk)."""
    places: dict[tuple[int, int], list[Where]] = field(default_factory=dict)
    """By source and window."""
    values: int = 0
    """Folded since the last :meth:`clear`."""

    @property
    def bytes(self) -> int:
        return sum(each.count.size for each in self.stretches.values()) * CELL_BYTES

    def clear(self) -> None:
        self.stretches.clear()
        self.places.clear()
        self.values = 0

    def take(self, source: int, records: Sequence[Record]) -> None:
        """Fold records of one device."""
        for table in _tables(records):
            self.values += table.value.size
            minutes = table.time_ns // MINUTE_NS
            if _is_plain(table, minutes):
                self._take_plain(source, table, minutes[:, 0])
            else:
                self._take_any(source, table, minutes)

    def _take_plain(self, source: int, table: _Table, minutes: Ints) -> None:
        """Rows of one minute each, in order."""
        starts = [0, *(np.flatnonzero(np.diff(minutes)) + 1).tolist(), len(minutes)]
        for first, end in itertools.pairwise(starts):
            rows, minute = slice(first, end), int(minutes[first])
            self._add(source, len(table.device.tags), minute, table.slots, table.value[rows], table.quality[rows], table.time_ns[rows])
            self._note(source, minute, table.seqs[rows])

    def _take_any(self, source: int, table: _Table, minutes: Ints) -> None:
        """Whatever it is: by minute, then by tag, in order of time, as tables that are plain."""
        rows, tags = table.value.shape
        flat_minute, time_ns = minutes.ravel(), table.time_ns.ravel()
        slots, value, quality = np.tile(table.slots, rows), table.value.ravel(), table.quality.ravel()
        order = np.lexsort((time_ns, slots, flat_minute))
        edges = [0, *(np.flatnonzero(np.diff(flat_minute[order])) + 1).tolist(), len(order)]
        for first, end in itertools.pairwise(edges):
            some = order[first:end]
            minute = int(flat_minute[some[0]])
            for mine in _plain_parts(slots[some]):
                at = some[mine]
                self._add(source, len(table.device.tags), minute, slots[at[0]], value[at], quality[at], time_ns[at])
            self._note(source, minute, table.seqs[np.unique(some // tags)])

    def _add(
        self,
        source: int,
        tags: int,
        minute: int,
        slots: NDArray[np.uint32],
        value: NDArray[Any],  # Any: see Batch.value
        quality: NDArray[np.uint32],
        time_ns: Ints,
    ) -> None:
        began_ns = minute * MINUTE_NS
        if value.dtype.kind == "O":
            sums = fold_texts(quality, time_ns, began_ns)
        else:
            sums = fold(value.astype(np.float64, copy=False), quality, time_ns, began_ns)
        window, row = divmod(minute, WINDOW_MINUTES)
        chunks = slots // CHUNK
        for chunk in (int(chunks[0]),) if chunks[0] == chunks[-1] and (chunks == chunks[0]).all() else np.unique(chunks).tolist():
            mine = chunks == chunk
            width = min(CHUNK, tags - chunk * CHUNK)
            self._merge((source, window, chunk), row, width, slots[mine] % CHUNK, sums if mine.all() else sums.pick(mine))

    def _merge(self, place: Place, row: int, width: int, slots: NDArray[np.uint32], sums: Sums) -> None:
        stretch = self.stretches.get(place)
        if stretch is None:
            stretch = self.stretches[place] = nothing((WINDOW_MINUTES, width))
        at = (row, slice(int(slots[0]), int(slots[-1]) + 1) if _follow_each_other(slots) else slots)
        old = stretch.pick(at)
        stretch.put(at, merge(old, sums) if (old.count + old.bad).any() else sums)

    def _note(self, source: int, minute: int, seqs: Ints) -> None:
        window, row = divmod(minute, WINDOW_MINUTES)
        self.places.setdefault((source, window), []).append((seqs, np.full(len(seqs), row, dtype=np.uint8)))


def by_device(records: Iterable[Record]) -> dict[Device, list[Record]]:
    found: dict[Device, list[Record]] = {}
    for record in records:
        found.setdefault(record.batch.device, []).append(record)
    return found


def _tables(records: Sequence[Record]) -> Iterator[_Table]:
    groups: dict[tuple[Column, bytes], list[Record]] = {}
    for record in records:
        groups.setdefault((record.batch.column, record.batch.tag.tobytes()), []).append(record)
    for some in groups.values():
        batches = [record.batch for record in some]
        yield _Table(
            batches[0].device,
            batches[0].tag,
            np.array([record.seq for record in some], dtype=np.int64),
            _stacked([each.value for each in batches]),
            _stacked([each.quality for each in batches]),
            _stacked([each.time_ns for each in batches]),
        )


def _stacked(columns: list[NDArray[Any]]) -> NDArray[Any]:  # Any: see Batch.value
    return columns[0][np.newaxis] if len(columns) == 1 else np.concatenate(columns).reshape(len(columns), -1)


def _is_plain(table: _Table, minutes: Ints) -> bool:
    """Whether every row is of one minute, each tag stands in it once, and rows follow each other in time."""
    in_order = len(minutes) == 1 or bool((table.time_ns[1:] >= table.time_ns[:-1]).all())
    one_each = bool((minutes == minutes[:, :1]).all())
    return in_order and one_each and (_follow_each_other(table.slots) or len(np.unique(table.slots)) == len(table.slots))


def _follow_each_other(slots: NDArray[np.uint32]) -> bool:
    return int(slots[-1]) - int(slots[0]) == len(slots) - 1 and bool((slots[1:] > slots[:-1]).all())


def _plain_parts(slots: NDArray[np.uint32]) -> Iterator[NDArray[np.int64]]:
    """Values of one minute, sorted by slot and time: tables (of indices; a column for each tag) that hold each once, older ones first."""
    starts = np.flatnonzero(np.concatenate(([True], slots[1:] != slots[:-1])))
    counts = np.diff(np.append(starts, len(slots)))
    for size in np.unique(counts).tolist():
        yield starts[counts == size] + np.arange(size)[:, np.newaxis]
