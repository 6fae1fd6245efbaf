"""From what a server sent to batches: one row for each value, straight into the columns of its device. Pure.

A value whose builtin type is its tag's kind goes in as it is; any other is judged (scaled, taken out of a structure, refused)
on its own. A value that cannot be what its tag is gets a bad quality, alone.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from protocols import model
from protocols.model import DTYPE_OF, SEVERITY_MASK, Batch, Column, Kind, Quality
from protocols.opcua.binary import MAX_DEPTH, TICKS_1970, Changes, Extension, Kept, Malformed, Moment, Packed
from protocols.opcua.nodes import NodeId
from protocols.opcua.plan import Item, Plan
from protocols.opcua.structures import Absent, Types, fields, find
from protocols.values import LONGEST_TEXT, Value, named, value_of

OVERFLOW: Final = 0x0480
"""Info bits: this is a data value, and some before it were thrown away (OPC 10000-4, 7.39.1)."""
_OLDEST_TICKS: Final = TICKS_1970 + 946_684_800 * 10_000_000
"""2000-01-01: nothing measured is older, but clocks that were never set are."""
_LEAD_TICKS: Final = 86_400 * 10_000_000
"""A server's clock may be ahead of ours by so much and is still believed."""
_BLANK: Final[dict[Column, Value]] = {Column.BOOL: False, Column.INT: 0, Column.UINT: 0, Column.FLOAT: 0.0, Column.OBJECT: ""}


@dataclass(slots=True)
class _Rows:
    """What has come for one column of one device."""

    device: model.Device
    column: Column
    slots: list[int] = field(default_factory=list)
    values: list[Value] = field(default_factory=list)
    qualities: list[int] = field(default_factory=list)
    ticks: list[int] = field(default_factory=list)


class Columns:
    """Makes batches of one plan's values."""

    def __init__(self, plan: Plan) -> None:
        self._items = plan.items
        rows: dict[tuple[int, Column], _Rows] = {}
        self._rows = [rows.setdefault((item.device, item.column), _Rows(plan.devices[item.device], item.column)) for item in plan.items]
        """By handle."""
        self._all = list(rows.values())
        self.types = Types.none()
        self.overflows: list[int] = []
        """Handles whose queue at the server overflowed, since somebody last looked."""
        self.unknown = 0
        """Values with a handle that we never gave."""

    def changes(self, told: Changes, now_ns: int, skip: dict[int, int] | None = None) -> list[Batch]:
        """The batches of what a publish brought. ``skip``: by handle, the time of a value that is known already."""
        items, rows, total = self._items, self._rows, len(self._items)
        for handle, builtin, value, status, ticks in zip(*told, strict=True):
            if handle >= total:
                self.unknown += 1
                continue
            if skip and skip.pop(handle, None) == ticks:
                continue
            into = rows[handle]
            into.slots.append(items[handle].slot)
            into.ticks.append(ticks)
            if builtin == items[handle].direct and status == 0:
                into.values.append(value)
                into.qualities.append(0)
            else:
                judged, quality = self._judged(handle, value, status)
                into.values.append(judged)
                into.qualities.append(quality)
        return self._taken(now_ns)

    def bad(self, qualities: Iterable[tuple[int, int]], now_ns: int) -> list[Batch]:
        """Batches that give each handle a bad quality."""
        for handle, quality in qualities:
            into = self._rows[handle]
            into.slots.append(self._items[handle].slot)
            into.ticks.append(0)
            into.values.append(_blank(self._items[handle]))
            into.qualities.append(named(quality))
        return self._taken(now_ns)

    def event(self, handle: int, text: str, ticks: int, now_ns: int) -> list[Batch]:
        """The batch of one event."""
        into = self._rows[handle]
        into.slots.append(self._items[handle].slot)
        into.ticks.append(ticks)
        into.values.append(text)
        into.qualities.append(0)
        return self._taken(now_ns)

    def _judged(self, handle: int, raw: Any, status: int) -> tuple[Value, int]:  # Any: see binary.Reading
        item = self._items[handle]
        if status & OVERFLOW == OVERFLOW:
            self.overflows.append(handle)
        quality = status & 0xFFFF0000
        if quality & SEVERITY_MASK >= Quality.BAD:
            return _blank(item), named(quality)
        try:
            value = plain(find(raw, item.place.steps, self.types), item.tag.kind, self.types)
        except Absent:
            return _blank(item), Quality.BAD_NODE_ID_UNKNOWN
        except Malformed:
            return _blank(item), Quality.BAD_DECODING_ERROR
        if value is None:
            return _blank(item), Quality.BAD_WAITING_FOR_INITIAL_DATA
        judged, verdict = value_of(value, item.tag)
        return (judged, named(quality)) if verdict is Quality.GOOD else (_blank(item), int(verdict))

    def _taken(self, now_ns: int) -> list[Batch]:
        batches: list[Batch] = []
        for rows in self._all:
            if rows.slots:
                batches.extend(_batches(rows, now_ns))
                rows.slots, rows.values, rows.qualities, rows.ticks = [], [], [], []
        return batches


def _blank(item: Item) -> Value:
    return b"" if item.tag.kind is Kind.BYTES else _BLANK[item.column]


def _batches(rows: _Rows, now_ns: int) -> list[Batch]:
    """One batch, or several where a slot came more than once: each has it once, in order."""
    slots = np.array(rows.slots, dtype=np.uint32)
    values = np.empty(len(slots), dtype=DTYPE_OF[rows.column])
    values[:] = rows.values
    qualities = np.array(rows.qualities, dtype=np.uint32)
    times = times_of(rows.ticks, now_ns)
    if len(set(rows.slots)) == len(slots):
        return [Batch(rows.device, slots, values, qualities, times)]
    turn = _turns(rows.slots)
    return [
        Batch(rows.device, slots[which], values[which], qualities[which], times[which])
        for which in (np.flatnonzero(turn == number) for number in range(int(turn.max()) + 1))
    ]


def _turns(slots: Sequence[int]) -> NDArray[np.int64]:
    """For each row, how often its slot came before."""
    seen: dict[int, int] = {}
    found = []
    for slot in slots:
        found.append(seen.get(slot, 0))
        seen[slot] = found[-1] + 1
    return np.array(found, dtype=np.int64)


def times_of(ticks: Sequence[int], now_ns: int) -> NDArray[np.int64]:
    """UTC nanoseconds of DateTimes; the time of the answer where there is none or it makes no sense."""
    moments = np.array(ticks, dtype=np.int64)
    latest = TICKS_1970 + now_ns // 100 + _LEAD_TICKS
    strange = (moments < _OLDEST_TICKS) | (moments > latest)
    moments[strange] = TICKS_1970
    found: NDArray[np.int64] = (moments - TICKS_1970) * 100
    found[strange] = now_ns
    return found


def plain(value: Any, kind: Kind, types: Types) -> Any:  # Any: see binary.Reading
    """A value of any builtin type as one that a tag can be judged by; structures and arrays as JSON where the tag is text."""
    if kind is Kind.STRING:
        if isinstance(value, str):
            return str(value)
        if isinstance(value, Moment | NodeId):
            return str(value)
        if isinstance(value, Packed | Kept | Extension | dict):
            return as_json(value, types)
        return value
    return int(value) if isinstance(value, Moment) else value


def as_json(value: Any, types: Types) -> str:  # Any: as above
    """JSON of any value; one that is longer than a tag may be is given back longer still, to be judged out of range."""
    return json.dumps(_jsonable(value, types, 0), ensure_ascii=False, separators=(",", ":"), default=str)


def _jsonable(value: Any, types: Types, depth: int) -> Any:  # Any: JSON
    if depth > MAX_DEPTH:
        raise Malformed("values in values without end")
    if isinstance(value, Extension):
        value = fields(value, types)
    if isinstance(value, dict):
        return {key: _jsonable(inner, types, depth + 1) for key, inner in value.items()}
    if isinstance(value, Packed):
        if value.length * 2 > LONGEST_TEXT:
            return " " * (LONGEST_TEXT + 1)
        return [_jsonable(value.element(at), types, depth + 1) for at in range(value.length)]
    if isinstance(value, Kept):
        return [_jsonable(inner, types, depth + 1) for inner in value]
    if isinstance(value, bytes):
        return value.hex()
    if isinstance(value, Moment | NodeId):
        return str(value)
    return None if isinstance(value, float) and not np.isfinite(value) else value
