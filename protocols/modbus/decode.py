"""From the bytes of a scan's answers to columns: prepared once, executed without a Python object for each number.

The answers of a scan are joined into one buffer whose layout is known beforehand, because a read answer has exactly the
length that was asked for. Each column gathers its bytes with one precomputed index per wire type: byte order, word order
and place are folded into that index, so that what is gathered is little-endian and can be viewed as numbers.

Pure. Only strings and bytes become Python objects, as they must.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final, Protocol

import numpy as np
from numpy.typing import NDArray

from protocols.modbus.wire import Block, Wire
from protocols.model import COLUMN_OF, DTYPE_OF, Batch, Column, Device, Kind, Quality, one_moment
from protocols.quiet import quietly
from protocols.values import divisor

HEADER: Final = 2
"""A read answer begins with the function code and the byte count (V1.1b3, 6.1 to 6.4)."""

MANY_RUNS: Final = 5
"""Up to so many runs of values from the same block, writing the time of each run is cheaper than looking up each value's."""

_DTYPE: Final[dict[Kind, str]] = {
    Kind.INT8: "<i1",
    Kind.UINT8: "<u1",
    Kind.INT16: "<i2",
    Kind.UINT16: "<u2",
    Kind.INT32: "<i4",
    Kind.UINT32: "<u4",
    Kind.INT64: "<i8",
    Kind.UINT64: "<u8",
    Kind.FLOAT32: "<f4",
    Kind.FLOAT64: "<f8",
}

Bytes = NDArray[np.uint8]
Values = NDArray[Any]  # Any: bool_, int64, uint64, float64 or object, as in Batch.value
Broken = NDArray[np.uint32] | None
"""The qualities of a piece's values, where any of them is not good by what it holds; None where all are."""

NO_VALUE: Final = Quality.BAD_OUT_OF_SERVICE
"""What the device's own "no value" is: "the source of the data is not operational" (Part 8, 7.3.2), known to every client.

BadNoData and BadNoDataAvailable are about history and streams, and BadSensorFailure would claim a defect that nobody saw.
"""


class Piece(Protocol):
    """Values of one column that are decoded the same way, next to each other in the column."""

    def fill(self, raw: Bytes, out: Values) -> Broken: ...


@dataclass(frozen=True, slots=True)
class Scaling:
    """``value * factor / divisor + offset`` for each of some values; None where it would change nothing.

    A scale of 0.1 divides by 10: 2297 becomes 229.7, as the meter's display has it, and not 229.70000000000002.
    """

    factor: NDArray[np.float64] | None
    divisor: NDArray[np.float64] | None
    offset: NDArray[np.float64] | None

    def apply(self, out: Values) -> None:
        if self.factor is not None:
            out *= self.factor
        if self.divisor is not None:
            out /= self.divisor
        if self.offset is not None:
            out += self.offset


Sentinels = tuple[NDArray[Any], ...]  # Any: of the wire type
"""Raw numbers that mean "no value": the first of each value, the second of each, ...; who has fewer has one of his twice."""


@dataclass(frozen=True, slots=True)
class Numbers:
    """Integers and floats: gather, view, widen, scale."""

    index: NDArray[np.intp]
    dtype: np.dtype[Any]  # Any: one of _DTYPE
    scaling: Scaling
    invalid: Sentinels = ()

    def fill(self, raw: Bytes, out: Values) -> Broken:
        held = raw.take(self.index).view(self.dtype)
        out[:] = held
        self.scaling.apply(out)
        return _without_value(held, self.invalid) if self.invalid else None


@dataclass(frozen=True, slots=True)
class Decimals:
    """BCD: four bits a digit, most significant digit first after reordering. A digit above 9 makes a value broken."""

    index: NDArray[np.intp]
    dtype: np.dtype[Any]  # Any: an unsigned one of _DTYPE
    scaling: Scaling
    invalid: Sentinels = ()

    def fill(self, raw: Bytes, out: Values) -> Broken:
        digits = 2 * self.dtype.itemsize
        held = raw.take(self.index).view(self.dtype)
        packed = held.astype(np.uint64)
        nibbles = (packed[:, None] >> (4 * np.arange(digits, dtype=np.uint64))) & np.uint64(15)
        out[:] = (nibbles * 10 ** np.arange(digits, dtype=np.uint64)).sum(axis=1, dtype=np.uint64)
        self.scaling.apply(out)
        broken = np.any(nibbles > 9, axis=1)
        marks = _without_value(held, self.invalid) if self.invalid else None
        return _marks(broken, Quality.BAD_DECODING_ERROR, marks)


def _without_value(held: NDArray[Any], invalid: Sentinels) -> Broken:  # Any: of the wire type
    none = held == invalid[0]
    for more in invalid[1:]:
        none |= held == more
    return _marks(none, NO_VALUE)


def _marks(which: NDArray[np.bool_], quality: Quality, others: Broken = None) -> Broken:
    """``others`` with ``quality`` where ``which`` is true."""
    if not which.any():
        return others
    return np.where(which, np.uint32(quality), np.uint32(Quality.GOOD) if others is None else others)


@dataclass(frozen=True, slots=True)
class Bits:
    """Coils, discrete inputs and bits of registers: ``index`` counts bits, the least significant of each byte first."""

    index: NDArray[np.intp]

    def fill(self, raw: Bytes, out: Values) -> Broken:
        out[:] = np.unpackbits(raw, bitorder="little").take(self.index)
        return None


@dataclass(frozen=True, slots=True)
class NonZero:
    """A whole register read as a bool: anything but 0 is true."""

    index: NDArray[np.intp]

    def fill(self, raw: Bytes, out: Values) -> Broken:
        np.not_equal(raw.take(self.index).view("<u2"), 0, out=out)
        return None


@dataclass(frozen=True, slots=True)
class Texts:
    """Strings (ending at the first NUL, without trailing blanks) and bytes: one object each."""

    indexes: tuple[NDArray[np.intp], ...]
    charsets: tuple[str | None, ...]
    """None for bytes."""

    def fill(self, raw: Bytes, out: Values) -> Broken:
        broken = np.zeros(len(self.indexes), dtype=np.bool_)
        for at, (index, charset) in enumerate(zip(self.indexes, self.charsets, strict=True)):
            content = raw.take(index).tobytes()
            if charset is None:
                out[at] = content
                continue
            try:
                out[at] = content.partition(b"\0")[0].decode(charset).rstrip(" ")
            except UnicodeDecodeError:
                out[at], broken[at] = "", True
        return _marks(broken, Quality.BAD_DECODING_ERROR)


@dataclass(frozen=True, slots=True)
class ColumnRecipe:
    """How one column of a scan is made. Absent tags stand at its end and are always bad."""

    column: Column
    slots: NDArray[np.uint32]
    block: NDArray[np.intp]
    """Index of the block that holds each value; one past the last block for absent tags."""
    pieces: tuple[tuple[int, int, Piece], ...]
    blanks: Values
    """The meaningless value of each slot, for bad qualities."""
    present: int
    good: NDArray[np.uint32]
    """The qualities when every block was answered: shared by all batches, hence read-only."""
    runs: tuple[tuple[int, int], ...]
    """Where values of another block begin, and of which; empty where there are so many that ``block`` is cheaper to use."""

    def stamps(self, times_ns: Sequence[int]) -> NDArray[np.int64]:
        """The time of each value, from those of the blocks."""
        first = times_ns[0]
        if all(time_ns == first for time_ns in times_ns):
            return one_moment(first, len(self.slots))
        if not self.runs:
            return np.array(times_ns, np.int64).take(self.block)
        stamps = np.empty(len(self.slots), np.int64)
        for start, block in self.runs:  # a later run is written over the end of the one before
            stamps[start:] = times_ns[block]
        return stamps


@dataclass(frozen=True, slots=True)
class Recipe:
    """How the answers of one group become batches."""

    device: Device
    columns: tuple[ColumnRecipe, ...]
    blocks: int

    def decode(self, answers: bytes, times_ns: Sequence[int], statuses: Sequence[int] | None = None) -> list[Batch]:
        """Batches of one scan.

        ``answers``: the read answers' PDUs of all blocks, joined in order; anything of the right length stands for one
        that failed. ``times_ns``: UTC of each block's answer, and of the scan's end. ``statuses``: the quality of each
        block, None when all are good.
        """
        raw = np.frombuffer(answers, dtype=np.uint8)
        return [self._column(one, raw, times_ns, statuses) for one in self.columns]

    def _column(self, recipe: ColumnRecipe, raw: Bytes, times_ns: Sequence[int], statuses: Sequence[int] | None) -> Batch:
        size = len(recipe.slots)
        value = np.empty(size, dtype=recipe.blanks.dtype)
        quality = recipe.good
        if statuses is not None:
            quality = np.array([*statuses, Quality.BAD_NODE_ID_UNKNOWN], dtype=np.uint32).take(recipe.block)
        for start, stop, piece in recipe.pieces:
            broken = quietly(piece.fill, raw, value[start:stop])  # a signalling NaN stays one; what is scaled too far is an infinity
            if broken is not None:
                quality = _mark(quality, start, broken)
        if quality is not recipe.good:
            bad = (quality & np.uint32(0x80000000)) != 0
            value[bad] = recipe.blanks[bad]
        elif recipe.present < size:
            value[recipe.present :] = recipe.blanks[recipe.present :]
        return Batch(self.device, recipe.slots, value, quality, recipe.stamps(times_ns))


def _mark(quality: NDArray[np.uint32], start: int, broken: NDArray[np.uint32]) -> NDArray[np.uint32]:
    marked = quality.copy()
    part = marked[start : start + len(broken)]
    np.copyto(part, broken, where=part == Quality.GOOD)
    return marked


def compile_recipe(device: Device, wires: Sequence[Wire], blocks: Sequence[Block], absent: Sequence[int] = ()) -> Recipe:
    """The recipe for the answers to ``blocks``. ``wires`` are all the device's, by slot; ``absent`` slots do not exist."""
    base = [0]
    for block in blocks:
        base.append(base[-1] + HEADER + block.size)
    places: dict[Column, list[tuple[Wire, int, int]]] = {}
    for at, block in enumerate(blocks):
        for slot in block.slots:
            places.setdefault(_column_of(device, slot), []).append((wires[slot], at, base[at] + HEADER))
    lost: dict[Column, list[int]] = {}
    for slot in absent:
        lost.setdefault(_column_of(device, slot), []).append(slot)
    columns = [column for column in Column if column in places or column in lost]
    return Recipe(
        device=device,
        columns=tuple(_compile_column(device, one, places.get(one, []), lost.get(one, []), blocks) for one in columns),
        blocks=len(blocks),
    )


def _column_of(device: Device, slot: int) -> Column:
    return COLUMN_OF[device.tags[slot].kind]


def _compile_column(
    device: Device, column: Column, places: list[tuple[Wire, int, int]], lost: list[int], blocks: Sequence[Block]
) -> ColumnRecipe:
    places = sorted(places, key=lambda place: (_form(place[0]), place[0].slot))
    pieces: list[tuple[int, int, Piece]] = []
    start = 0
    while start < len(places):
        form = _form(places[start][0])
        stop = start + 1
        while stop < len(places) and _form(places[stop][0]) == form:
            stop += 1
        pieces.append((start, stop, _piece(form, places[start:stop], blocks)))
        start = stop
    slots = [wire.slot for wire, _, _ in places] + lost
    good = np.array([Quality.GOOD] * len(places) + [Quality.BAD_NODE_ID_UNKNOWN] * len(lost), dtype=np.uint32)
    blanks = _blanks(device, slots, column)
    block = np.array([at for _, at, _ in places] + [len(blocks)] * len(lost), dtype=np.intp)
    tags = np.array(slots, dtype=np.uint32)
    for shared in (good, tags):
        shared.setflags(write=False)
    starts = [0, *(np.flatnonzero(block[1:] != block[:-1]) + 1).tolist()]
    runs = tuple((start, int(block[start])) for start in starts) if len(starts) <= MANY_RUNS else ()
    return ColumnRecipe(column, tags, block, tuple(pieces), blanks, len(places), good, runs)


def _blanks(device: Device, slots: list[int], column: Column) -> Values:
    values: Values = np.zeros(len(slots), dtype=DTYPE_OF[column])
    if column is Column.OBJECT:
        values[:] = [b"" if device.tags[slot].kind is Kind.BYTES else "" for slot in slots]
    return values


Form = tuple[str, str, bool, bool, bool]


def _form(wire: Wire) -> Form:
    """What must be equal for two values to be decoded together: how, wire type, scaled, offset, whether some mean "no value"."""
    if wire.raw in (Kind.STRING, Kind.BYTES):
        return ("text", "", False, False, False)
    if wire.raw is Kind.BOOL:
        return ("nonzero" if wire.bit is None and not wire.table.is_bits else "bits", "", False, False, False)
    return ("bcd" if wire.bcd else "number", _DTYPE[wire.raw], wire.scale != 1.0, wire.offset != 0.0, bool(wire.invalid))


def _piece(form: Form, places: list[tuple[Wire, int, int]], blocks: Sequence[Block]) -> Piece:
    how, dtype, *_ = form
    if how == "text":
        indexes = tuple(_bytes_of(wire, blocks[at], base) for wire, at, base in places)
        return Texts(indexes, tuple(wire.charset if wire.raw is Kind.STRING else None for wire, _, _ in places))
    if how == "bits":
        return Bits(np.array([_bit_of(wire, blocks[at], base) for wire, at, base in places], dtype=np.intp))
    index = np.concatenate([_bytes_of(wire, blocks[at], base) for wire, at, base in places])
    if how == "nonzero":
        return NonZero(index)
    wires = [wire for wire, _, _ in places]
    return (Decimals if how == "bcd" else Numbers)(index, np.dtype(dtype), _scaling(wires), _sentinels(wires, np.dtype(dtype)))


def _sentinels(wires: Sequence[Wire], dtype: np.dtype[Any]) -> Sentinels:  # Any: one of _DTYPE
    """As the registers hold them: BCD digit by digit. All of ``wires`` have some, or none has."""
    most = max(len(wire.invalid) for wire in wires)
    held = [[int(str(one), 16) if wire.bcd else one for one in wire.invalid] for wire in wires]
    return tuple(np.array([one[min(at, len(one) - 1)] for one in held], dtype=dtype) for at in range(most))


def _scaling(wires: Sequence[Wire]) -> Scaling:
    divisors = np.array([divisor(wire.scale) for wire in wires])
    factors = np.array([wire.scale for wire in wires])
    factors[divisors != 1.0] = 1.0
    offsets = np.array([wire.offset for wire in wires])
    return Scaling(
        factor=factors if (factors != 1.0).any() else None,
        divisor=divisors if (divisors != 1.0).any() else None,
        offset=offsets if offsets.any() else None,
    )


def _bytes_of(wire: Wire, block: Block, base: int) -> NDArray[np.intp]:
    """Where the bytes of a register value lie in the buffer, in the order in which they are wanted."""
    return np.array(wire.order, dtype=np.intp) + (base + 2 * (wire.number - block.number))


def _bit_of(wire: Wire, block: Block, base: int) -> int:
    if wire.table.is_bits:
        return 8 * base + (wire.number - block.number)
    first = base + 2 * (wire.number - block.number)
    bit = wire.bit or 0
    return 8 * (first + wire.order[bit // 8]) + bit % 8
