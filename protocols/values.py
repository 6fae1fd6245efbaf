"""From what a device says to columns, and from a command to what a device is told: for protocols whose values come one by one.

(Modbus decodes whole blocks of registers and has its own, faster way.) A reading that cannot be what its tag is gets a
bad quality, alone; a command that cannot be is refused with the reason.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Iterable, Sequence
from typing import Any, Final

import numpy as np

from protocols.model import COLUMN_OF, DTYPE_OF, SEVERITY_MASK, Batch, Column, Device, Kind, Quality
from protocols.options import TagOptions

Value = bool | int | float | str | bytes

LONGEST_TEXT: Final = 64 * 1024
"""Characters or bytes of one value; more is out of range."""

RANGE: Final[dict[Kind, tuple[int, int]]] = {
    Kind.INT8: (-(2**7), 2**7 - 1),
    Kind.INT16: (-(2**15), 2**15 - 1),
    Kind.INT32: (-(2**31), 2**31 - 1),
    Kind.INT64: (-(2**63), 2**63 - 1),
    Kind.UINT8: (0, 2**8 - 1),
    Kind.UINT16: (0, 2**16 - 1),
    Kind.UINT32: (0, 2**32 - 1),
    Kind.UINT64: (0, 2**64 - 1),
}

Reading = tuple[int, Any, int, int]  # Any: whatever the peer sent, judged by the tag's kind
"""Slot, raw value (before scaling), quality (an OPC UA status code), time (UTC, nanoseconds)."""

_BLANK: Final[dict[Column, Value]] = {Column.BOOL: False, Column.INT: 0, Column.UINT: 0, Column.FLOAT: 0.0}
_KNOWN: Final = frozenset(int(each) for each in Quality)


class Unwritable(ValueError):
    """The value cannot be what this tag holds. The text says why."""


class Composer:
    """Makes batches of one device's readings. ``tags[slot]`` are the options that ``device.tags[slot]`` came from."""

    def __init__(self, device: Device, tags: Sequence[TagOptions]) -> None:
        self.device = device
        self._tags = tuple(tags)
        self._columns = tuple(COLUMN_OF[tag.kind_after_scaling] for tag in tags)

    def batches(self, readings: Iterable[Reading]) -> list[Batch]:
        """One batch for each column kind that occurs; a slot that comes twice goes into a further batch, in order."""
        parts: list[dict[Column, dict[int, tuple[Value, int, int]]]] = [{}]
        times_seen: dict[int, int] = {}
        for slot, raw, said_quality, time_ns in readings:
            at = times_seen.get(slot, 0)
            times_seen[slot] = at + 1
            if at == len(parts):
                parts.append({})
            value, quality = self._judged(slot, raw, said_quality)
            parts[at].setdefault(self._columns[slot], {})[slot] = (value, quality, time_ns)
        return [self._batch(column, rows) for part in parts for column, rows in part.items()]

    def _batch(self, column: Column, rows: dict[int, tuple[Value, int, int]]) -> Batch:
        values, qualities, times = zip(*rows.values(), strict=True)
        value = np.empty(len(rows), dtype=DTYPE_OF[column])
        value[:] = values
        return Batch(
            device=self.device,
            tag=np.array(list(rows), dtype=np.uint32),
            value=value,
            quality=np.array(qualities, dtype=np.uint32),
            time_ns=np.array(times, dtype=np.int64),
        )

    def _judged(self, slot: int, raw: Any, quality: int) -> tuple[Value, int]:  # Any: see Reading
        tag = self._tags[slot]
        if quality & SEVERITY_MASK < Quality.BAD:
            value, verdict = value_of(raw, tag)
            if verdict is Quality.GOOD:
                return value, named(quality)
            quality = verdict
        column = self._columns[slot]
        return (b"" if tag.kind is Kind.BYTES else "") if column is Column.OBJECT else _BLANK[column], named(quality)


def named(quality: int) -> int:
    """``quality`` if it is one that we name, else what stands for its severity."""
    if quality in _KNOWN:
        return quality
    severity = quality & SEVERITY_MASK
    return int(Quality.BAD if severity >= Quality.BAD else severity)


def value_of(raw: Any, tag: TagOptions) -> tuple[Value, Quality]:  # Any: see Reading
    """``raw`` as ``tag`` has it, scaled, with GOOD; else a meaningless value, and what is wrong with it as a quality."""
    kind = tag.kind
    if isinstance(raw, np.generic):
        raw = raw.item()
    if kind is Kind.STRING or kind is Kind.BYTES:
        if not isinstance(raw, str if kind is Kind.STRING else bytes):
            return "", Quality.BAD_DECODING_ERROR
        return (raw, Quality.GOOD) if len(raw) <= LONGEST_TEXT else ("", Quality.BAD_OUT_OF_RANGE)
    if kind is Kind.BOOL:
        is_truth = isinstance(raw, bool) or (isinstance(raw, int | float) and raw in (0, 1))
        return (bool(raw), Quality.GOOD) if is_truth else (False, Quality.BAD_DECODING_ERROR)
    if isinstance(raw, bool) or not isinstance(raw, int | float):
        return 0, Quality.BAD_DECODING_ERROR
    return _number_of(raw, tag)


def _number_of(raw: int | float, tag: TagOptions) -> tuple[Value, Quality]:
    limits = RANGE.get(tag.kind)
    if limits is not None:
        if isinstance(raw, float) and not raw.is_integer():
            return 0, Quality.BAD_DECODING_ERROR
        raw = int(raw)
        if not limits[0] <= raw <= limits[1]:
            return 0, Quality.BAD_OUT_OF_RANGE
        if not tag.is_scaled:
            return raw, Quality.GOOD
    try:
        value = float(raw)
        whole = divisor(tag.scale)
        scaled = (value / whole if whole != 1.0 else value * tag.scale) + tag.offset
    except OverflowError:
        return 0.0, Quality.BAD_OUT_OF_RANGE
    if math.isfinite(value) and not math.isfinite(scaled):
        return 0.0, Quality.BAD_OUT_OF_RANGE
    if tag.kind is Kind.FLOAT32 and as_float32(value) is None:
        return 0.0, Quality.BAD_OUT_OF_RANGE
    return scaled if tag.is_scaled else value, Quality.GOOD


def divisor(scale: float) -> float:
    """The whole number whose reciprocal ``scale`` is, as 10 for 0.1; 1 if there is none.

    Dividing by it gives what a display shows: 229.7 for 2297, not 229.70000000000002.
    """
    whole = round(1 / scale) if 1e-12 <= abs(scale) < 1 else 1
    return float(whole) if 1 / whole == scale else 1.0


def raw_of(value: Value, tag: TagOptions) -> Value:
    """What a device is told so that ``tag`` becomes ``value``: of the tag's kind, scaling undone, within its bounds.

    Raises Unwritable.
    """
    if tag.kind is Kind.BOOL:
        if isinstance(value, bool) or (isinstance(value, int | float) and value in (0, 1)):
            return bool(value)
        raise Unwritable("the tag is a bool: write true or false")
    if tag.kind is Kind.STRING or tag.kind is Kind.BYTES:
        return _text(value, tag)
    number = bounded_number(value, tag)
    raw = unscaled(number, tag) if tag.is_scaled else number
    limits = RANGE.get(tag.kind)
    if limits is None:
        return _float(raw, tag)
    if not tag.is_scaled and raw != int(raw):
        raise Unwritable(f"{said(raw)} is no whole number, and the tag is {tag.kind}")
    whole = round(raw)
    if not limits[0] <= whole <= limits[1]:
        raise Unwritable(f"{said(number)} is out of range for {tag.kind}")
    return whole


def is_same(told: Value, seen: Any, tag: TagOptions) -> bool:  # Any: see Reading
    """Whether what was read back, raw, is what was written: exactly, but for the rounding of a float32."""
    if tag.kind is Kind.FLOAT32 and isinstance(told, int | float) and isinstance(seen, int | float):
        return as_float32(told) == as_float32(seen)
    return type(told) is type(seen) and told == seen if tag.kind in (Kind.BOOL, Kind.STRING, Kind.BYTES) else bool(told == seen)


def bounded_number(value: Value, tag: TagOptions) -> int | float:
    """``value`` if it is a number that ``tag`` may be given. Raises Unwritable."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise Unwritable("the tag is a number: write a number")
    if isinstance(value, float) and not math.isfinite(value):
        raise Unwritable("NaN and infinity are not written")
    if (tag.minimum is not None and value < tag.minimum) or (tag.maximum is not None and value > tag.maximum):
        low = "-∞" if tag.minimum is None else f"{tag.minimum:g}"
        high = "∞" if tag.maximum is None else f"{tag.maximum:g}"
        raise Unwritable(f"{said(value)} is out of range: the tag takes {low} to {high}")
    return value


def unscaled(number: int | float, tag: TagOptions) -> float:
    """The raw number behind a scaled one. Raises Unwritable."""
    try:
        raw = (number - tag.offset) / tag.scale if tag.is_scaled else float(number)
    except OverflowError:
        raw = math.inf
    if not math.isfinite(raw):
        raise Unwritable(f"{said(number)} is out of range for {tag.kind}")
    return raw


def said(number: int | float) -> str:
    """A number for a text; whole numbers without end are not spelled out."""
    return str(number) if abs(number) < 10**30 else "the number"


def _text(value: Value, tag: TagOptions) -> Value:
    if not isinstance(value, str if tag.kind is Kind.STRING else bytes):
        raise Unwritable("the tag is a string: write text" if tag.kind is Kind.STRING else "the tag holds bytes: write bytes")
    if len(value) > LONGEST_TEXT:
        raise Unwritable(f"the value is too long: a tag takes {LONGEST_TEXT} characters")
    return value


def _float(raw: int | float, tag: TagOptions) -> float:
    try:
        told = float(raw)
    except OverflowError:
        raise Unwritable(f"{said(raw)} is out of range for {tag.kind}") from None
    if tag.kind is Kind.FLOAT32 and as_float32(told) is None:
        raise Unwritable(f"{said(raw)} is out of range for {tag.kind}")
    return told


def as_float32(number: int | float) -> float | None:
    """``number`` rounded to a float32; None where it is beyond the largest one."""
    try:
        rounded: float = struct.unpack("<f", struct.pack("<f", number))[0]
    except OverflowError:
        return None
    return rounded
