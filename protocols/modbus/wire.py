"""How a tag lies on the wire, and the blocks of registers or bits that are asked for. Values, no decisions.

``Wire.order`` lists the byte offsets of a value, relative to its first register, in the order in which decoding wants
them: least significant first for numbers and bits, first character first for strings and bytes.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from protocols.modbus import config
from protocols.modbus.address import READ_FUNCTION, Table, parse, width
from protocols.model import Kind
from protocols.values import RANGE

_EXACT: Final = {Kind.FLOAT32: 2**24, Kind.FLOAT64: 2**53}
"""Beyond, a float does not hold every whole number (IEEE 754)."""


@dataclass(frozen=True, slots=True)
class Wire:
    """One tag as the device holds it."""

    slot: int
    table: Table
    number: int
    count: int
    """Registers, or bits of a bit table."""
    bit: int | None
    raw: Kind
    """What the registers hold, before scaling."""
    order: tuple[int, ...]
    bcd: bool = False
    scale: float = 1.0
    offset: float = 0.0
    charset: str = "utf-8"
    scan_s: float = 1.0
    invalid: tuple[int, ...] = ()
    """Raw numbers that mean "no value"."""

    @property
    def end(self) -> int:
        """One past the last register or bit."""
        return self.number + self.count

    @property
    def is_scaled(self) -> bool:
        return self.scale != 1.0 or self.offset != 0.0


@dataclass(frozen=True, slots=True)
class Block:
    """One read request: ``count`` registers or bits from ``number``, and the tags that it brings."""

    table: Table
    number: int
    count: int
    slots: tuple[int, ...]
    """In order of their place."""

    @property
    def end(self) -> int:
        return self.number + self.count

    @property
    def size(self) -> int:
        """Bytes that the answer carries after its header."""
        return (self.count + 7) // 8 if self.table.is_bits else 2 * self.count

    @property
    def pdu(self) -> bytes:
        """The request: function, first address, quantity (V1.1b3, 6.1 to 6.4)."""
        return bytes((READ_FUNCTION[self.table],)) + self.number.to_bytes(2, "big") + self.count.to_bytes(2, "big")

    def __str__(self) -> str:
        last = f"..{self.end - 1}" if self.count > 1 else ""
        return f"{self.table}:{self.number}{last}"


def wire_of(slot: int, tag: config.Tag, device: config.Device) -> Wire:
    """The wire form of one tag. Raises address.Impossible."""
    place = parse(tag.at, device.address_base)
    words_first = (tag.word_order or device.word_order) == "big"
    high_first = (tag.byte_order or device.byte_order) == "big"
    count = width(tag.kind, place.table, tag.length)
    return Wire(
        slot=slot,
        table=place.table,
        number=place.number,
        count=count,
        bit=place.bit,
        raw=tag.kind,
        order=() if place.table.is_bits else byte_order(tag.kind, count, tag.length, words_first=words_first, high_first=high_first),
        bcd=tag.encoding == "bcd",
        scale=tag.scale,
        offset=tag.offset,
        charset=tag.charset,
        scan_s=tag.scan_s if tag.scan_s is not None else device.scan_s,
        invalid=tag.invalid,
    )


def whole_numbers(kind: Kind, *, bcd: bool = False) -> tuple[int, int]:
    """The least and the greatest of the whole numbers that registers of a numeric ``kind`` hold, each of them exactly."""
    if kind in _EXACT:
        return -_EXACT[kind], _EXACT[kind]
    low, high = RANGE[kind]
    return (0, 10 ** (high.bit_length() // 4) - 1) if bcd else (low, high)


def byte_order(kind: Kind, count: int, length: int, *, words_first: bool, high_first: bool) -> tuple[int, ...]:
    """Byte offsets of a value of ``count`` registers; see the module's text for their order."""
    registers = range(count) if words_first else range(count - 1, -1, -1)
    spelled = [2 * register + (half if high_first else 1 - half) for register in registers for half in (0, 1)]
    if kind in (Kind.STRING, Kind.BYTES):
        return tuple(spelled[: length or 2 * count])
    if kind in (Kind.INT8, Kind.UINT8):  # half a register: the low byte, or the high one where bytes are swapped
        return (spelled[1],)
    return tuple(reversed(spelled))
