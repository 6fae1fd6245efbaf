"""From a command's value to the bytes or bits that are written, and how to see that they arrived.

Pure. The inverse of ``decode.py``: scaling undone, range checked, order restored. NaN and infinity are refused: no
device promises what it does with them, and a set point that is no number is a mistake.
"""

from __future__ import annotations

import math
import struct
from typing import Final

from protocols.modbus import config
from protocols.modbus.wire import Wire
from protocols.model import Kind

Value = bool | int | float | str | bytes

_RANGE: Final[dict[Kind, tuple[int, int]]] = {
    Kind.INT8: (-(2**7), 2**7 - 1),
    Kind.INT16: (-(2**15), 2**15 - 1),
    Kind.INT32: (-(2**31), 2**31 - 1),
    Kind.INT64: (-(2**63), 2**63 - 1),
    Kind.UINT8: (0, 2**8 - 1),
    Kind.UINT16: (0, 2**16 - 1),
    Kind.UINT32: (0, 2**32 - 1),
    Kind.UINT64: (0, 2**64 - 1),
}


class Unwritable(ValueError):
    """The value cannot be what this tag holds. The text says why."""


def to_bytes(value: Value, tag: config.Tag, wire: Wire) -> bytes:
    """The value in wire order of bytes: one byte for bits and 8-bit kinds, else two for each register.

    Raises Unwritable.
    """
    if wire.raw is Kind.BOOL:
        return bytes((_truth(value),))
    if wire.raw in (Kind.STRING, Kind.BYTES):
        return _placed(_text(value, tag, wire), wire)
    number = _number(value, tag)
    if wire.raw is Kind.FLOAT32 or wire.raw is Kind.FLOAT64:
        return _placed(_float(number, wire), wire)
    return _placed(_integer(number, wire), wire)


def _placed(ordered: bytes, wire: Wire) -> bytes:
    """Bytes in decoding order, put where they lie on the wire."""
    if len(wire.order) == 1:
        return ordered
    registers = bytearray(2 * wire.count)
    for place, byte in zip(wire.order, ordered, strict=True):
        registers[place] = byte
    return bytes(registers)


def _truth(value: Value) -> bool:
    if isinstance(value, bool) or (isinstance(value, int | float) and value in (0, 1)):
        return bool(value)
    raise Unwritable("the tag is a bool: write true or false")


def _text(value: Value, tag: config.Tag, wire: Wire) -> bytes:
    if wire.raw is Kind.BYTES:
        if not isinstance(value, bytes):
            raise Unwritable("the tag holds bytes: write bytes")
        content = value
    else:
        if not isinstance(value, str):
            raise Unwritable("the tag is a string: write text")
        try:
            content = value.encode(wire.charset)
        except UnicodeEncodeError:
            raise Unwritable(f"the text has characters that {wire.charset} lacks") from None
    room = len(wire.order)
    if len(content) > room:
        raise Unwritable(f"{len(content)} bytes are too long: the tag holds {room}")
    return content.ljust(room, b"\0")


def _number(value: Value, tag: config.Tag) -> int | float:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise Unwritable("the tag is a number: write a number")
    if isinstance(value, float) and not math.isfinite(value):
        raise Unwritable("NaN and infinity are not written")
    if (tag.minimum is not None and value < tag.minimum) or (tag.maximum is not None and value > tag.maximum):
        low = "-∞" if tag.minimum is None else f"{tag.minimum:g}"
        high = "∞" if tag.maximum is None else f"{tag.maximum:g}"
        raise Unwritable(f"{_said(value)} is out of range: the tag takes {low} to {high}")
    return value


def _unscaled(number: int | float, wire: Wire) -> float:
    """The raw number behind a scaled one."""
    try:
        raw = (number - wire.offset) / wire.scale if wire.is_scaled else float(number)
    except OverflowError:
        raw = math.inf
    if not math.isfinite(raw):
        raise Unwritable(f"{_said(number)} is out of range for {wire.raw}")
    return raw


def _float(number: int | float, wire: Wire) -> bytes:
    try:
        return struct.pack("<f" if wire.raw is Kind.FLOAT32 else "<d", _unscaled(number, wire))
    except OverflowError:
        raise Unwritable(f"{_said(number)} is out of range for {wire.raw}") from None


def _integer(number: int | float, wire: Wire) -> bytes:
    if not wire.is_scaled and number != int(number):
        raise Unwritable(f"{_said(number)} is no whole number, and the tag is {wire.raw}")
    raw = round(_unscaled(number, wire)) if wire.is_scaled else int(number)
    digits = 2 * len(wire.order)
    low, high = (0, 10**digits - 1) if wire.bcd else _RANGE[wire.raw]
    if not low <= raw <= high:
        scaled = " before scaling" if wire.is_scaled else ""
        raise Unwritable(f"{_said(number)} is out of range: the registers hold {low} to {high}{scaled}")
    if wire.bcd:
        raw = int(str(raw), 16)
    return raw.to_bytes(len(wire.order), "little", signed=raw < 0)


def _said(number: int | float) -> str:
    """A number for a text; whole numbers without end are not spelled out."""
    return str(number) if abs(number) < 10**30 else "the number"


def registers_of(content: bytes) -> list[int]:
    """Register values of bytes in wire order."""
    return list(struct.unpack(f">{len(content) // 2}H", content))


def mask_of(wire: Wire) -> int | None:
    """Which bits of its one register a value takes; None where it takes whole registers or a coil."""
    if wire.table.is_bits:
        return None
    if wire.raw is Kind.BOOL and wire.bit is not None:
        half = wire.order[wire.bit // 8]  # 1 is the low byte of a register as Modbus sends it
        return 1 << (wire.bit % 8 + (8 if half == 0 else 0))
    if wire.raw in (Kind.INT8, Kind.UINT8):
        return 0xFF00 if wire.order[0] == 0 else 0x00FF
    return None
