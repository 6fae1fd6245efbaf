"""The hot path: a batch of columns becomes the metrics of a DDATA by patching prepared rows of bytes.

For each column kind a matrix holds one row of bytes for each tag: alias, keys and lengths are there beforehand, and
encoding a batch gathers the rows of its tags and writes timestamps and values into them, column by column. Where rows
differ in length (integers, qualities, aliases of mixed size) a second matrix says which bytes are kept. No Python
object is made for a value; text and bytes, and times before 1971 or after 2109, go through ``metric.py`` one by one.

What a batch of a hundred values costs is not its bytes but the number of NumPy calls (0.3 to 1 us each). So the times are
looked at once, as *runs*: a scan has one for each of its requests, and a run is stamped by one assignment.

The result is byte for byte what a protobuf library writes for the same metrics.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Final, TypeVar

import numpy as np
from numpy.typing import NDArray

from protocols.model import COLUMN_OF, COLUMN_OF_DTYPE, Batch, Column, Device, Kind, is_one_moment, rows_of
from protocols.quiet import quietly
from protocols.sparkplug import wire
from protocols.sparkplug.kinds import DATATYPE_OF, FIELD_OF, SIGNED_BITS, Field
from protocols.sparkplug.metric import HISTORICAL, NULL, data_metric, properties, to_ms

Bytes2D = NDArray[np.uint8]
Mask2D = NDArray[np.bool_]
Cell = TypeVar("Cell", np.uint8, np.bool_)

MAX_ALIAS: Final = 2**28 - 1
"""Four bytes of varint, so that a metric that is no text is always shorter than 128 bytes."""
_FIRST_NS: Final = 2**35 * 1_000_000
_END_NS: Final = 2**42 * 1_000_000
"""Between these a timestamp in milliseconds is six bytes of varint."""
_MANY_RUNS: Final = 6
"""Beyond so many runs of equal times, all stamps at once are cheaper than one assignment for each run."""
_TIME_SHIFTS: Final = np.arange(0, 42, 7, dtype=np.int64)
_LOW7: Final = np.uint8(0x7F)
_TIME_MORE: Final = np.array([0x80] * 5 + [0], dtype=np.uint8)
_SHIFTS: Final = np.arange(0, 70, 7, dtype=np.uint64)
_STEPS: Final = np.array([1 << bits for bits in range(7, 64, 7)], dtype=np.uint64)
"""From the n-th of these on, a varint has n + 2 bytes (n from 0)."""
_MORE: Final = np.array([[0x80 if at < size - 1 else 0 for at in range(10)] for size in range(11)], dtype=np.uint8)
_USED: Final = np.array([[at < size for at in range(10)] for size in range(11)], dtype=np.bool_)
_PROPERTIES_ROOM: Final = 48

_ALIAS: Final = wire.key(Field.ALIAS, wire.VARINT)
_KEY_OF: Final[dict[Field, bytes]] = {
    Field.INT: wire.key(Field.INT, wire.VARINT),
    Field.LONG: wire.key(Field.LONG, wire.VARINT),
    Field.FLOAT: wire.key(Field.FLOAT, wire.FIXED32),
    Field.DOUBLE: wire.key(Field.DOUBLE, wire.FIXED64),
    Field.BOOLEAN: wire.key(Field.BOOLEAN, wire.VARINT),
}
_WIDTH_OF: Final[dict[Field, int]] = {Field.INT: 0, Field.LONG: 0, Field.FLOAT: 4, Field.DOUBLE: 8, Field.BOOLEAN: 1}
"""Bytes that a value takes; 0 where that depends on the value."""
_ROOM_OF: Final[dict[Column, int]] = {Column.BOOL: 1, Column.INT: 10, Column.UINT: 10, Column.FLOAT: 8}


@dataclass(frozen=True, slots=True)
class _Layout:
    """Prepared rows for all tags of one column kind; the rows of other tags are never used."""

    rows: Bytes2D
    keep: Mask2D | None
    """Which bytes count; None where all do."""
    at_time: int
    at_null: int
    """Where null and properties stand, in a layout that has room for them."""
    at_key: int
    narrow: NDArray[np.bool_]
    """Float tags that take four bytes."""
    all_narrow: bool
    any_narrow: bool
    mask: NDArray[np.uint64]
    """For each tag the bits of an integer that are sent."""


class Template:
    """The prepared bytes of one device's metrics. ``aliases[slot]`` is 1 to MAX_ALIAS."""

    def __init__(self, device: Device, aliases: Sequence[int]) -> None:
        if len(aliases) != len(device.tags) or not all(0 < alias <= MAX_ALIAS for alias in aliases):
            raise ValueError(f"device {device.name}: one alias from 1 to {MAX_ALIAS} is needed for each of {len(device.tags)} tags")
        self.device = device
        self._aliases = tuple(aliases)
        self._layouts: dict[tuple[str, bool, bool], _Layout] = {}

    def encode(self, batch: Batch, *, historical: bool) -> bytes:
        """The metrics of ``batch`` as fields of a Payload: in its order, live ones in the order of their times."""
        starts, times = _runs(batch.time_ns)
        if not historical and any(after < before for before, after in pairwise(times)):
            batch = _in_time(batch)
            starts, times = _runs(batch.time_ns)
        dtype = batch.value.dtype.kind
        if dtype == "O" or min(times) < _FIRST_NS or max(times) >= _END_NS:
            return self._one_by_one(batch, historical=historical)
        qualified = bool(np.count_nonzero(batch.quality))
        layout = self._layouts.get((dtype, historical, qualified)) or self._prepare(dtype, historical, qualified)
        tag = batch.tag
        at = rows_of(tag)
        rows = _gathered(layout.rows, at)
        keep = None if layout.keep is None else _gathered(layout.keep, at)
        _put_times(rows, layout.at_time, starts, times, batch.time_ns)
        if dtype == "f":
            _put_floats(rows, layout, tag, batch.value)
        elif dtype == "b":
            rows[:, layout.at_key + 1] = batch.value
        else:
            assert keep is not None
            _put_integers(rows, keep, layout, tag, batch.value)
        if qualified:
            assert keep is not None
            _put_qualities(rows, keep, layout, batch.quality)
        return rows.tobytes() if keep is None else rows[keep].tobytes()

    def _one_by_one(self, batch: Batch, *, historical: bool) -> bytes:
        tags, aliases = self.device.tags, self._aliases
        columns = zip(batch.tag.tolist(), batch.value.tolist(), batch.quality.tolist(), batch.time_ns.tolist(), strict=True)
        return b"".join(
            data_metric(aliases[slot], tags[slot].kind, value, status, time_ns, historical=historical)
            for slot, value, status, time_ns in columns
        )

    def _prepare(self, dtype: str, historical: bool, qualified: bool) -> _Layout:
        layout = _lay_out(self.device, self._aliases, COLUMN_OF_DTYPE[dtype], historical=historical, qualified=qualified)
        self._layouts[dtype, historical, qualified] = layout
        return layout


def _lay_out(device: Device, aliases: Sequence[int], column: Column, *, historical: bool, qualified: bool) -> _Layout:
    slots = [slot for slot, tag in enumerate(device.tags) if COLUMN_OF[tag.kind] is column]
    alias_room = max((len(wire.varint(aliases[slot])) for slot in slots), default=1)
    at_time = 3 + alias_room + 1
    at_null = at_time + 6 + (len(HISTORICAL) if historical else 0)
    at_key = at_null + (len(NULL) + _PROPERTIES_ROOM if qualified else 0)
    rows, keep = _prepared(device, aliases, slots, at_time, at_key, _ROOM_OF[column], HISTORICAL if historical else b"")
    narrow = np.array([tag.kind is Kind.FLOAT32 for tag in device.tags], dtype=np.bool_)
    fixed = not qualified and column in (Column.BOOL, Column.FLOAT)
    end = rows.shape[1]
    if column is Column.FLOAT and fixed and all(narrow[slot] for slot in slots):
        end -= 4
    uniform = fixed and bool(keep[slots, :end].all())
    return _Layout(
        rows=np.ascontiguousarray(rows[:, :end]),
        keep=None if uniform else np.ascontiguousarray(keep[:, :end]),
        at_time=at_time,
        at_null=at_null,
        at_key=at_key,
        narrow=narrow,
        all_narrow=bool(slots) and all(narrow[slot] for slot in slots),
        any_narrow=any(narrow[slot] for slot in slots),
        mask=np.array([_bits(tag.kind) for tag in device.tags], dtype=np.uint64),
    )


def _prepared(
    device: Device, aliases: Sequence[int], slots: Sequence[int], at_time: int, at_key: int, value_room: int, marked: bytes
) -> tuple[Bytes2D, Mask2D]:
    """The rows of ``slots`` with everything but time, quality and value in them, and which of their bytes count."""
    width = at_key + 1 + value_room
    rows, keep = [bytes(width)] * len(device.tags), [bytes(width)] * len(device.tags)
    stamp = wire.key(Field.TIMESTAMP, wire.VARINT) + bytes(6) + marked
    room = bytes(at_key - (at_time - 1) - len(stamp))
    for slot in slots:
        field = FIELD_OF[device.tags[slot].kind]
        alias = wire.varint(aliases[slot])
        known = len(alias) + len(stamp) + _WIDTH_OF[field] + 2  # and the keys of alias and value
        short = bytes(at_time - 4 - len(alias))
        rest = bytes(value_room - _WIDTH_OF[field])
        rows[slot] = b"".join((b"\x12", bytes((known,)), _ALIAS, alias, short, stamp, room, _KEY_OF[field], bytes(value_room)))
        keep[slot] = b"".join((b"\1" * (3 + len(alias)), short, b"\1" * len(stamp), room, b"\1" * (1 + _WIDTH_OF[field]), rest))
    shape = (len(device.tags), width)
    return (
        np.frombuffer(b"".join(rows), dtype=np.uint8).reshape(shape),
        np.frombuffer(b"".join(keep), dtype=np.bool_).reshape(shape),
    )


def _bits(kind: Kind) -> int:
    """Signed integers up to 32 bits are sent as 32 bits of two's complement."""
    return 0xFFFF_FFFF if SIGNED_BITS.get(DATATYPE_OF[kind], 64) <= 32 else 0xFFFF_FFFF_FFFF_FFFF


def _runs(time_ns: NDArray[np.int64]) -> tuple[list[int], list[int]]:
    """Where runs of equal times begin, and their times."""
    if is_one_moment(time_ns):
        return [0], [int(time_ns[0])]
    starts = [0, *((time_ns[1:] != time_ns[:-1]).nonzero()[0] + 1).tolist()]
    return starts, time_ns[starts].tolist()


def _in_time(batch: Batch) -> Batch:
    """``batch`` with its rows in the order of their times (tck-id-operational-behavior-data-publish-dbirth-order)."""
    times = batch.time_ns
    order = np.argsort(times, kind="stable")
    return Batch(batch.device, batch.tag[order], batch.value[order], batch.quality[order], times[order], batch.lost)


def _gathered(prepared: NDArray[Cell], at: slice | NDArray[np.uint32]) -> NDArray[Cell]:
    """A copy of the prepared rows of some tags."""
    return prepared[at].copy() if isinstance(at, slice) else prepared.take(at, axis=0)


def _put_times(rows: Bytes2D, at: int, starts: list[int], times: list[int], time_ns: NDArray[np.int64]) -> None:
    """``times`` are those of the runs that begin at ``starts``."""
    if len(starts) > _MANY_RUNS:
        rows[:, at : at + 6] = _stamps(time_ns)
        return
    for start, time in zip(starts, times, strict=True):  # a later run is written over the end of the one before
        rows[start:, at : at + 6] = np.frombuffer(wire.stamp(time // 1_000_000), dtype=np.uint8)


def _stamps(times: NDArray[np.int64]) -> Bytes2D:
    ms = times // 1_000_000
    return (ms[:, None] >> _TIME_SHIFTS).astype(np.uint8) & _LOW7 | _TIME_MORE


def _put_floats(rows: Bytes2D, layout: _Layout, tag: NDArray[np.uint32], value: NDArray[Any]) -> None:  # Any: see Batch
    at, (count, width) = layout.at_key + 1, rows.shape
    if not layout.all_narrow:
        np.ndarray(count, "<f8", rows, at, (width,))[:] = value
    if not layout.any_narrow:
        return
    small = quietly(value.astype, "<f4")  # beyond float32 is infinity, which a host can see
    column = np.ndarray(count, "<f4", rows, at, (width,))
    if layout.all_narrow:
        column[:] = small
    else:
        which = layout.narrow.take(tag)
        column[which] = small[which]


def _put_integers(rows: Bytes2D, keep: Mask2D, layout: _Layout, tag: NDArray[np.uint32], value: NDArray[Any]) -> None:  # Any: see Batch
    at = layout.at_key + 1
    bits = np.ascontiguousarray(value).view(np.uint64) & layout.mask.take(tag)
    size = np.searchsorted(_STEPS, bits, side="right") + 1
    most = int(size.max())
    more = _MORE.take(size, axis=0)
    rows[:, at : at + most] = (bits[:, None] >> _SHIFTS[:most]).astype(np.uint8) & _LOW7 | more[:, :most]
    keep[:, at : at + 10] = _USED.take(size, axis=0)
    rows[:, 1] += size.astype(np.uint8)


def _put_qualities(rows: Bytes2D, keep: Mask2D, layout: _Layout, quality: NDArray[np.uint32]) -> None:
    at = layout.at_null + len(NULL)
    for status in np.unique(quality).tolist():
        if not status:
            continue
        which = np.flatnonzero(quality == status)
        told = np.frombuffer(properties(status), dtype=np.uint8)
        rows[which, at : at + len(told)] = told
        keep[which, at : at + len(told)] = True
        if status & 0x8000_0000:
            rows[which, layout.at_null : at] = np.frombuffer(NULL, dtype=np.uint8)
            keep[which, layout.at_null : at] = True
            keep[which, layout.at_key :] = False
    rows[:, 1] = keep[:, 2:].sum(axis=1)


def assemble(metrics: Iterable[bytes], *, seq: int | None, time_ns: int | None, body: bytes = b"") -> bytes:
    """A Payload from the bytes of its metrics. ``seq`` is None in an NDEATH alone."""
    head = b"" if time_ns is None else b"\x08" + wire.stamp(to_ms(time_ns))
    tail = b"" if seq is None else b"\x18" + wire.varint(seq)
    if body:
        tail += b"\x2a" + wire.varint(len(body)) + body
    return b"".join((head, *metrics, tail))
