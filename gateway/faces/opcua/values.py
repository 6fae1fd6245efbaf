"""The latest values as OPC UA has them: encoded at once for subscribers, as asyncua's objects for those who read.

A subscriber's notification is bytes of ours (OPC 10000-6, 5.2.2.17 and 10000-4, 7.25.2): asyncua would make and copy five objects for
each value of each subscriber. Where the quality is bad there is no value.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any, Final

import numpy as np
from asyncua import ua
from numpy.typing import NDArray

from gateway.faces.opcua.numbers import moment
from gateway.latest import Latest
from protocols.clock import Clock
from protocols.model import SEVERITY_MASK, Batch, Device, Kind, Quality
from protocols.values import Value

TYPE_OF: Final[dict[Kind, ua.VariantType]] = {
    Kind.BOOL: ua.VariantType.Boolean,
    Kind.INT8: ua.VariantType.SByte,
    Kind.UINT8: ua.VariantType.Byte,
    Kind.INT16: ua.VariantType.Int16,
    Kind.UINT16: ua.VariantType.UInt16,
    Kind.INT32: ua.VariantType.Int32,
    Kind.UINT32: ua.VariantType.UInt32,
    Kind.INT64: ua.VariantType.Int64,
    Kind.UINT64: ua.VariantType.UInt64,
    Kind.FLOAT32: ua.VariantType.Float,
    Kind.FLOAT64: ua.VariantType.Double,
    Kind.STRING: ua.VariantType.String,
    Kind.BYTES: ua.VariantType.ByteString,
}
_LETTER: Final[dict[Kind, str]] = {
    Kind.BOOL: "?",
    Kind.INT8: "b",
    Kind.UINT8: "B",
    Kind.INT16: "h",
    Kind.UINT16: "H",
    Kind.INT32: "i",
    Kind.UINT32: "I",
    Kind.INT64: "q",
    Kind.UINT64: "Q",
    Kind.FLOAT32: "f",
    Kind.FLOAT64: "d",
}
_GOOD: Final = {kind: struct.Struct(f"<IBB{letter}qq") for kind, letter in _LETTER.items()}
_UNCERTAIN: Final = {kind: struct.Struct(f"<IBB{letter}Iqq") for kind, letter in _LETTER.items()}
_BAD: Final = struct.Struct("<IBIqq")
_TEXT: Final = struct.Struct("<IBBi")
_TAIL: Final = struct.Struct("<Iqq")
TICKS_1970: Final = 116_444_736_000_000_000
FRESH_S: Final = 0.02
"""So long values that were taken out together are used for what else is asked."""

Point = tuple[Value, int, int]
"""Value, quality, time (UTC, nanoseconds; 0 where there never was a value)."""


def ticks(time_ns: int) -> int:
    """OPC UA's DateTime: 100 ns since 1601; 0 for never."""
    return time_ns // 100 + TICKS_1970 if time_ns else 0


def notification(handle: int, kind: Kind, point: Point, now: int) -> bytes:
    """A MonitoredItemNotification. ``now`` in ticks."""
    value, quality, time_ns = point
    if quality & SEVERITY_MASK < Quality.BAD:
        try:
            if kind not in _GOOD:
                return _text(handle, kind, point, now)
            if quality == 0:
                return _GOOD[kind].pack(handle, 0x0D, TYPE_OF[kind].value, value, ticks(time_ns), now)
            return _UNCERTAIN[kind].pack(handle, 0x0F, TYPE_OF[kind].value, value, quality, ticks(time_ns), now)
        except (struct.error, OverflowError, AttributeError):
            quality = Quality.BAD_OUT_OF_RANGE  # scaling made it more than its type holds
    return _BAD.pack(handle, 0x0E, quality, ticks(time_ns), now)


def _text(handle: int, kind: Kind, point: Point, now: int) -> bytes:
    value, quality, time_ns = point
    raw = value.encode() if isinstance(value, str) else value if isinstance(value, bytes) else b""
    return _TEXT.pack(handle, 0x0F, TYPE_OF[kind].value, len(raw)) + raw + _TAIL.pack(quality, ticks(time_ns), now)


def data_value(kind: Kind, point: Point, now_ns: int) -> ua.DataValue:
    """For those who read."""
    value, quality, time_ns = point
    if quality & SEVERITY_MASK < Quality.BAD and kind in _GOOD:
        try:
            _GOOD[kind].pack(0, 0, 0, value, 0, 0)
        except (struct.error, OverflowError):
            quality = Quality.BAD_OUT_OF_RANGE
    is_bad = quality & SEVERITY_MASK >= Quality.BAD
    found = ua.DataValue(
        ua.Variant(None, ua.VariantType.Null) if is_bad else ua.Variant(value, TYPE_OF[kind]),
        StatusCode=ua.StatusCode(ua.UInt32(quality)),
        ServerTimestamp=moment(now_ns),
    )
    if time_ns:
        found.SourceTimestamp = moment(time_ns)
    return found


@dataclass(slots=True)
class _Taken:
    """One device's values at one moment."""

    at: float
    batches: list[Batch]
    where: list[tuple[int, int]]
    """Of each slot: which batch, and where in it."""


class Readings:
    """The latest values by device and slot. Taking one out copies its device's columns, so what was taken serves for a moment."""

    def __init__(self, latest: Latest, clock: Clock) -> None:
        self._latest = latest
        self._clock = clock
        self._taken: dict[Device, _Taken] = {}

    def point(self, device: Device, slot: int) -> Point:
        taken = self._taken.get(device)
        now = self._clock.monotonic()
        if taken is None or now - taken.at > FRESH_S:
            taken = self._take(device, taken, now)
        if not taken.batches:
            return 0, int(Quality.BAD_OUT_OF_SERVICE), 0
        column, row = taken.where[slot]
        batch = taken.batches[column]
        value: Any = batch.value[row]  # Any: what the column holds
        return (value if batch.value.dtype == object else value.item()), int(batch.quality[row]), int(batch.time_ns[row])

    def batches(self, device: Device) -> list[Batch]:
        """All values; none where the device is gone."""
        return list(self._latest.batches(device)) if self._latest.device(device.name) is device else []

    def _take(self, device: Device, before: _Taken | None, now: float) -> _Taken:
        batches = self.batches(device)
        where = before.where if before is not None else _places(device, batches)
        taken = self._taken[device] = _Taken(now, batches, where)
        return taken


def _places(device: Device, batches: list[Batch]) -> list[tuple[int, int]]:
    where = [(0, 0)] * len(device.tags)
    for column, batch in enumerate(batches):
        for row, slot in enumerate(batch.tag.tolist()):
            where[slot] = (column, row)
    return where


@dataclass(slots=True)
class Changes:
    """Compares one device's values with those of the look before."""

    device: Device
    _before: list[Batch] = field(default_factory=list)

    def since_last(self, batches: list[Batch], slots: NDArray[np.bool_], *, times: bool) -> Iterable[tuple[NDArray[np.uint32], Batch]]:
        """Slots among ``slots`` (a mask over all) that have another value or quality (or time), and rows to find them by."""
        before, self._before = self._before, batches
        for at, batch in enumerate(batches):
            wanted = slots[batch.tag]
            if at < len(before):
                wanted &= _differs(before[at], batch, times=times)
            rows = np.flatnonzero(wanted).astype(np.uint32)
            if len(rows):
                yield rows, batch


def _differs(old: Batch, new: Batch, *, times: bool) -> NDArray[np.bool_]:
    found: NDArray[np.bool_]
    if new.value.dtype.kind == "f":
        found = old.value.view(np.int64) != new.value.view(np.int64)  # NaN is itself
    else:
        found = np.asarray(old.value != new.value, dtype=np.bool_)
    found |= old.quality != new.quality
    if times:
        found |= old.time_ns != new.time_ns
    return found
