"""What is sent, as bytes: each frame is made once and goes to everybody who shares a view. Pure.

A frame says in which lane it lies and where, so that whoever leaves it out can say what was left out.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import msgspec
import numpy as np
from numpy.typing import NDArray

from gateway import readable
from gateway.journal import Lane, Lost, Record
from gateway.live.view import View
from protocols.model import Batch, Column, Device

LARGEST: Final = 128 * 1024
"""A frame is closed when it has grown to this; one record may be larger."""
At = tuple[int, int]
"""Epoch and seq."""
AT_ONCE: Final = 1000
"""Latest values in one frame, about: to make one should not hold the loop."""
FRAME_BYTES: Final = 300
"""What a frame weighs besides its data, about."""


@dataclass(frozen=True, slots=True, eq=False)
class Frame:
    type: str
    data: bytes
    lane: Lane | None = None
    first: At | None = None
    last: At | None = None
    records: int = 0
    devices: frozenset[str] = frozenset()
    """Of whom it speaks."""

    @property
    def weight(self) -> int:
        return len(self.data) + FRAME_BYTES


def said(type: str, lane: Lane | None = None, place: At | None = None, /, **fields: Any) -> Frame:  # Any: JSON
    """A message of few words."""
    message = {"type": type, **({"lane": lane.value} if lane is not None else {}), **fields}
    return Frame(type, msgspec.json.encode(message), lane, place, place)


def position(at: At) -> dict[str, int]:
    return {"epoch": at[0], "seq": at[1]}


def places(at: Mapping[Lane, At]) -> dict[str, dict[str, int]]:
    return {lane.value: position(place) for lane, place in at.items()}


def frames(entries: Sequence[Record | Lost], lane: Lane, view: View) -> Iterator[Frame]:
    """``entries`` of the journal as ``view`` shows them."""
    pending = _Pending(lane)
    for each in entries:
        if isinstance(each, Lost):
            yield from pending.close()
            first, last = (each.epoch, each.first), (each.epoch, each.last)
            fields = {"epoch": each.epoch, "first": each.first, "last": each.last, "records": each.records, "reason": each.reason}
            data = msgspec.json.encode({"type": "lost", "lane": lane.value, **fields})
            yield Frame("lost", data, lane, first, last, each.records)
            continue
        batch = view.values(each.batch) if lane is Lane.TELEMETRY else view.event(each.batch)
        if batch is not None:
            pending.add(each, batch)
            if pending.bytes >= LARGEST:
                yield from pending.close()
    yield from pending.close()


@dataclass(slots=True)
class _Pending:
    """A frame of records that is not closed."""

    lane: Lane
    lines: list[bytes] = field(default_factory=list)
    bytes: int = 0
    first: At | None = None
    last: At | None = None
    devices: set[str] = field(default_factory=set)

    def add(self, record: Record, batch: Batch) -> None:
        line = msgspec.json.encode(readable.entry(Record(record.epoch, record.seq, record.lane, record.written_ns, batch)))
        self.lines.append(line)
        self.bytes += len(line)
        self.last = (record.epoch, record.seq)
        self.first = self.first or self.last
        self.devices.add(batch.device.name)

    def close(self) -> Iterator[Frame]:
        if self.lines:
            data = b'{"type":"records","lane":"%s","records":[%s]}' % (self.lane.value.encode(), b",".join(self.lines))
            yield Frame("records", data, self.lane, self.first, self.last, len(self.lines), frozenset(self.devices))
        self.lines, self.bytes, self.first, self.last, self.devices = [], 0, None, None, set()


def latest(batches: Iterable[Batch], *, replaced: int = 0, first: At | None = None, last: At | None = None, records: int = 0) -> Frame:
    """Values without a place in the journal: the latest of each tag."""
    lines, devices = [], set()
    for batch in batches:
        line = readable.entry(Record(0, 0, Lane.TELEMETRY, 0, batch))
        for name in ("epoch", "seq", "lane"):
            del line[name]
        lines.append(line)
        devices.add(batch.device.name)
    message = {"type": "latest", "entries": lines, "replaced": replaced}
    return Frame("latest", msgspec.json.encode(message), Lane.TELEMETRY, first, last, records, frozenset(devices))


@dataclass(slots=True)
class _Column:
    """What has changed of one device in one column kind since it was last told, by slot."""

    value: NDArray[Any]  # Any: see Batch.value
    quality: NDArray[np.uint32]
    time_ns: NDArray[np.int64]
    changed: NDArray[np.bool_]
    lost: bool = False


class Gathered:
    """The newest value of each tag among records, and how many it replaced."""

    def __init__(self) -> None:
        self._columns: dict[tuple[Device, Column], _Column] = {}
        self._replaced = 0
        self._records = 0
        self._first: At | None = None
        self._last: At | None = None

    def add(self, record: Record, batch: Batch) -> None:
        key = (batch.device, batch.column)
        column = self._columns.get(key)
        if column is None:
            many = len(batch.device.tags)
            column = self._columns[key] = _Column(
                np.zeros(many, batch.value.dtype), np.zeros(many, np.uint32), np.zeros(many, np.int64), np.zeros(many, np.bool_)
            )
        self._replaced += int(np.count_nonzero(column.changed[batch.tag]))
        column.value[batch.tag] = batch.value
        column.quality[batch.tag] = batch.quality
        column.time_ns[batch.tag] = batch.time_ns
        column.changed[batch.tag] = True
        column.lost = batch.lost
        self._records += 1
        self._last = (record.epoch, record.seq)
        self._first = self._first or self._last

    def take(self) -> Iterator[Frame]:
        """All of it, once, some values a frame. What comes while the frames are made is of the next time."""
        columns, self._columns = self._columns, {}
        first, last, records, replaced = self._first, self._last, self._records, self._replaced
        self._replaced = self._records = 0
        self._first = self._last = None
        batches: list[Batch] = []
        for (device, _), column in columns.items():
            batches.append(_batch(device, column))
            if sum(map(len, batches)) >= AT_ONCE:
                yield latest(batches, replaced=replaced, first=first, last=last, records=records)
                batches, replaced, records = [], 0, 0
        if batches:
            yield latest(batches, replaced=replaced, first=first, last=last, records=records)


def _batch(device: Device, column: _Column) -> Batch:
    at = np.flatnonzero(column.changed).astype(np.uint32)
    return Batch(device, at, column.value[at], column.quality[at], column.time_ns[at], column.lost)
