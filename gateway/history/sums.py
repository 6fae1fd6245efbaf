"""What is kept of the values that tags had in a stretch of time, in columns: folded from values, merged, packed. Pure.

A :class:`Sums` is a set of arrays of one shape, an entry for each tag (and stretch). It can be folded from a table of values
in a few NumPy calls for all tags together, and two of them merge into that of both, in whatever order they come: late and
backfilled values find their place. What only neighbours in time can say (how long a value was held) is exact for values
that come in order, and leaves out what comes late.

Good and uncertain values count, unless they are NaN; bad ones, and NaN, are only counted (``bad``). Texts and bytes have no
least or greatest: all their numbers are NaN. Integers beyond 2**53 are rounded to doubles here, and here alone.
"""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from dataclasses import dataclass, fields
from struct import Struct
from struct import error as StructError
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
_Column = NDArray[Any]  # Any: the type stands in TYPES

MINUTE_NS: Final = 60_000_000_000
WINDOW_MINUTES: Final = 15
WINDOW_NS: Final = WINDOW_MINUTES * MINUTE_NS
CHUNK: Final = 128
"""Most tags that are packed together: what has to be unpacked to look at one."""
BAD: Final = 0x80000000
UNCERTAIN: Final = 0x40000000
MS: Final = 1_000_000


@dataclass(slots=True, eq=False)
class Sums:
    """Arrays of one shape. Moments are milliseconds since the stretch began."""

    count: _Column
    """Values that count: not bad, and a number."""
    uncertain: _Column
    """How many of them are uncertain."""
    bad: _Column
    """Values that do not count."""
    low: _Column
    high: _Column
    low_at: _Column
    high_at: _Column
    total: _Column
    first: _Column
    last: _Column
    first_at: _Column
    last_at: _Column
    area: _Column
    """Integral of the value over ``held``, each value held until the next one: value x seconds."""
    held: _Column
    """Seconds between values of which the former counts."""
    ended: _Column
    """Whether the newest value counts: only then it goes on until the next stretch."""

    def pick(self, at: Any) -> Sums:  # Any: whatever NumPy takes as an index
        return Sums(*(getattr(self, name)[at] for name in NAMES))

    def put(self, at: Any, other: Sums) -> None:  # Any: as pick
        for name in NAMES:
            getattr(self, name)[at] = getattr(other, name)


NAMES: Final = tuple(each.name for each in fields(Sums))
TYPES: Final[dict[str, np.dtype[Any]]] = {  # Any: that is what the table says
    **{name: np.dtype("<i8") for name in ("count", "uncertain", "bad", "low_at", "high_at", "first_at", "last_at")},
    **{name: np.dtype("<f8") for name in ("low", "high", "total", "first", "last", "area", "held")},
    "ended": np.dtype("?"),
}
KEPT: Final = {
    name: np.dtype("<i4") if dtype == np.dtype("<i8") else np.dtype("<f4") if name == "held" else dtype for name, dtype in TYPES.items()
}
"""How open stretches are kept in memory."""
NUMBERS: Final = ("low", "high", "first", "last")
ROUNDED: Final = ("total", "area")
"""Kept in single precision where every value was one: what a mean of them is told with is a few parts in 10**8."""


def nothing(shape: int | tuple[int, ...]) -> Sums:
    """Sums of no values, as they are kept in memory."""
    made = {name: np.zeros(shape, dtype=dtype) for name, dtype in KEPT.items()}
    for name in NUMBERS:
        made[name].fill(np.nan)
    return Sums(**made)


# ------------------------------------------------------------------------------------------------------------- folding


def fold(value: Floats, quality: NDArray[np.uint32], time_ns: Ints, began_ns: int) -> Sums:
    """Sums of a table of values, a row for each scan and a column for each tag, in order of time; one entry for each column."""
    usable = (quality < BAD) & ~np.isnan(value)
    with np.errstate(invalid="ignore", over="ignore"):  # infinities are values too
        if usable.all():
            return _fold_all(value, quality, (time_ns - began_ns) // MS, _seconds(time_ns))
        return _fold_some(value, quality, (time_ns - began_ns) // MS, _seconds(time_ns), usable)


def fold_texts(quality: NDArray[np.uint32], time_ns: Ints, began_ns: int) -> Sums:
    """The same for texts and bytes, of which only counts and moments are kept."""
    found = fold(np.zeros(quality.shape), quality, time_ns, began_ns)
    for name in (*NUMBERS, *ROUNDED):
        getattr(found, name).fill(np.nan)
    return found


def _seconds(time_ns: Ints) -> Floats:
    """From each row to the next."""
    return (time_ns[1:] - time_ns[:-1]) * np.float64(1e-9)


def _fold_all(value: Floats, quality: NDArray[np.uint32], at: Ints, seconds: Floats) -> Sums:
    rows, tags = value.shape
    every = np.arange(tags)
    least, most = value.argmin(axis=0), value.argmax(axis=0)
    return Sums(
        count=np.full(tags, rows),
        uncertain=np.count_nonzero(quality >= UNCERTAIN, axis=0),
        bad=np.zeros(tags, dtype=np.int64),
        low=value[least, every],
        high=value[most, every],
        low_at=at[least, every],
        high_at=at[most, every],
        total=value.sum(axis=0),
        first=value[0],
        last=value[-1],
        first_at=at[0],
        last_at=at[-1],
        area=(value[:-1] * seconds).sum(axis=0),
        held=seconds.sum(axis=0),
        ended=np.ones(tags, dtype=np.bool_),
    )


def _fold_some(value: Floats, quality: NDArray[np.uint32], at: Ints, seconds: Floats, usable: NDArray[np.bool_]) -> Sums:
    rows, tags = value.shape
    every = np.arange(tags)
    count = np.count_nonzero(usable, axis=0)
    lows, highs = np.where(usable, value, np.inf), np.where(usable, value, -np.inf)
    least, most = lows.argmin(axis=0), highs.argmax(axis=0)
    began, ended = usable.argmax(axis=0), rows - 1 - usable[::-1].argmax(axis=0)
    counted = np.where(usable, value, 0.0)
    found = Sums(
        count=count,
        uncertain=np.count_nonzero(usable & (quality >= UNCERTAIN), axis=0),
        bad=rows - count,
        low=lows[least, every],
        high=highs[most, every],
        low_at=at[least, every],
        high_at=at[most, every],
        total=counted.sum(axis=0),
        first=value[began, every],
        last=value[ended, every],
        first_at=at[began, every],
        last_at=at[ended, every],
        area=(counted[:-1] * seconds).sum(axis=0),
        held=(seconds * usable[:-1]).sum(axis=0),
        ended=usable[-1],
    )
    for name in NUMBERS:
        getattr(found, name)[count == 0] = np.nan
    return found


# ------------------------------------------------------------------------------------------------------------- merging


def merge(old: Sums, new: Sums) -> Sums:
    """Sums of both, entry by entry: ``new`` came later, and mostly is of later moments. Shapes are the same."""
    had, has = old.count > 0, new.count > 0
    both = had & has
    follows = both & (new.first_at >= old.last_at)
    gap = np.where(follows & old.ended, (new.first_at - old.last_at) * 1e-3, 0.0)
    lower, higher = has & ~(had & (old.low <= new.low)), has & ~(had & (old.high >= new.high))
    sooner, later = has & ~(had & (old.first_at <= new.first_at)), has & ~(had & (new.last_at < old.last_at))
    with np.errstate(invalid="ignore", over="ignore"):
        total = old.total + new.total
        area = old.area + new.area + np.where(gap > 0, old.last * gap, 0.0)
    return Sums(
        count=old.count + new.count,
        uncertain=old.uncertain + new.uncertain,
        bad=old.bad + new.bad,
        low=np.where(lower, new.low, old.low),
        high=np.where(higher, new.high, old.high),
        low_at=np.where(lower, new.low_at, old.low_at),
        high_at=np.where(higher, new.high_at, old.high_at),
        total=total,
        first=np.where(sooner, new.first, old.first),
        last=np.where(later, new.last, old.last),
        first_at=np.where(sooner, new.first_at, old.first_at),
        last_at=np.where(later, new.last_at, old.last_at),
        area=area,
        held=old.held + new.held + gap,
        ended=np.where(later | ((new.bad > 0) & ~has), new.ended, old.ended),
    )


# ------------------------------------------------------------------------------------------------------------- packing

_HEAD: Final = Struct("<IHHHB")
"""crc, tags, first row, rows, version"""
_VERSION: Final = 1
_ONE, _EACH_ROW, _ALL = range(3)
_STORED: Final = tuple(np.dtype(name) for name in ("?", "<u1", "<u2", "<u4", "<i8", "<f4", "<f8"))
_WHOLE: Final = ("<u1", "<u2", "<u4", "<i8")


class Spoilt(Exception):
    """Bytes that are not what was packed."""


def pack(sums: Sums) -> bytes:
    """Sums of shape (rows, tags) as bytes that prove themselves; rows without values at the beginning and the end are left out."""
    filled = np.flatnonzero((sums.count + sums.bad).any(axis=1))
    first, end = (int(filled[0]), int(filled[-1]) + 1) if len(filled) else (0, 0)
    rows = slice(first, end)
    single = all(_is_single(getattr(sums, name)[rows]) for name in NUMBERS)
    parts: list[bytes] = []
    for name in NAMES:
        parts += _pack(name, getattr(sums, name)[rows], single=single)
    tags = sums.count.shape[1]
    body = b"".join(parts)
    head = _HEAD.pack(0, tags, first, end - first, _VERSION)[4:]
    return b"".join((zlib.crc32(body, zlib.crc32(head)).to_bytes(4, "little"), head, body))


def _is_single(column: _Column) -> bool:
    with np.errstate(over="ignore"):
        short = column.astype("<f4")
    return bool(((short == column) | np.isnan(column)).all())


def _pack(name: str, column: _Column, *, single: bool) -> list[bytes]:
    """Form, type and bytes of one column: one value for all, one for each row, or all of them, as narrow as can be."""
    if name == "held":
        column = column.astype("<f4")
    elif name in NUMBERS or name in ROUNDED:
        with np.errstate(over="ignore"):
            column = column.astype("<f4" if single else "<f8")
    elif column.dtype.kind == "i":
        column = column.astype(_narrowest(column))
    form = _ALL
    if column.size:
        bits = column.view(f"u{column.itemsize}") if column.dtype.kind == "f" else column
        if (bits == bits[:, :1]).all():
            form, column = (_ONE, column[:1, :1]) if (bits == bits[0, 0]).all() else (_EACH_ROW, column[:, :1])
    return [bytes((form, _STORED.index(column.dtype))), np.ascontiguousarray(column).tobytes()]


def _narrowest(column: _Column) -> str:
    if not column.size:
        return "<u1"
    least, most = int(column.min()), int(column.max())
    if least < 0:
        return "<i8"
    return next(name for name in _WHOLE if most <= np.iinfo(name).max)


def unpack(body: bytes, tags: slice | int = slice(None)) -> tuple[int, Sums]:
    """The first row and the Sums (rows, tags) in ``body``, or of one tag alone (rows). Raises Spoilt."""
    try:
        crc, width, first, rows, version = _HEAD.unpack_from(body)
        if zlib.crc32(memoryview(body)[4:]) != crc or version != _VERSION:
            raise Spoilt("a roll-up is damaged")
        at, columns = _HEAD.size, {}
        for name in NAMES:
            columns[name], at = _unpack(body, at, rows, width, tags)
    except (ValueError, IndexError, StructError) as error:
        raise Spoilt(f"a roll-up is damaged: {error}") from error
    return first, Sums(**columns)


def _unpack(body: bytes, at: int, rows: int, width: int, tags: slice | int) -> tuple[_Column, int]:
    form, dtype = body[at], _STORED[body[at + 1]]
    size = {_ONE: 1, _EACH_ROW: rows, _ALL: rows * width}[form] if rows else 0
    held = np.frombuffer(body, dtype=dtype, count=size, offset=at + 2)
    at += 2 + size * dtype.itemsize
    if form == _ALL:
        return held.reshape(rows, width)[:, tags], at
    if isinstance(tags, int):
        return np.broadcast_to(held, (rows,)), at
    return np.broadcast_to(held if form == _ONE else held[:, None], (rows, width))[:, tags], at


def joined(parts: Sequence[Sums]) -> Sums:
    """One after the other, in the types that are reckoned with."""
    if not parts:
        return Sums(**{name: np.zeros(0, dtype=dtype) for name, dtype in TYPES.items()})
    return Sums(**{name: np.concatenate([getattr(each, name) for each in parts]).astype(dtype) for name, dtype in TYPES.items()})


def whole(sums: Sums) -> Sums:
    """Sums of shape (rows, tags) of minutes that follow each other as those of their whole, shape (1, tags)."""
    step = MINUTE_NS // MS
    found: Sums | None = None
    for row in range(sums.count.shape[0]):
        one = sums.pick(row)
        moved = Sums(**{name: getattr(one, name).astype(dtype) for name, dtype in TYPES.items()})
        for name in ("low_at", "high_at", "first_at", "last_at"):
            getattr(moved, name)[...] += row * step
        found = moved if found is None else merge(found, moved)
    assert found is not None, "a window has minutes"
    return found.pick(np.newaxis)
