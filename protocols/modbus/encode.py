"""From a command's value to the bytes or bits that are written, and how to see that they arrived.

Pure. The inverse of ``decode.py``: scaling undone, range checked, order restored. NaN and infinity are refused: no
device promises what it does with them, and a set point that is no number is a mistake.
"""

from __future__ import annotations

import struct
from typing import Final

from protocols.modbus import config
from protocols.modbus.wire import Wire, whole_numbers
from protocols.model import Kind
from protocols.values import Unwritable, Value, bounded_number, said, unscaled

NO_VALUE: Final = "{} would lie in the registers as one of the numbers that mean no value (invalid)"


def to_bytes(value: Value, tag: config.Tag, wire: Wire) -> bytes:
    """The value in wire order of bytes: one byte for bits and 8-bit kinds, else two for each register.

    Raises Unwritable.
    """
    if wire.raw is Kind.BOOL:
        return bytes((_truth(value),))
    if wire.raw in (Kind.STRING, Kind.BYTES):
        return placed(_text(value, tag, wire), wire)
    number = bounded_number(value, tag)
    if wire.raw is Kind.FLOAT32 or wire.raw is Kind.FLOAT64:
        return placed(_float(number, tag, wire), wire)
    return placed(_integer(number, tag, wire), wire)


def placed(ordered: bytes, wire: Wire) -> bytes:
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


def _float(number: int | float, tag: config.Tag, wire: Wire) -> bytes:
    form = "<f" if wire.raw is Kind.FLOAT32 else "<d"
    try:
        content = struct.pack(form, unscaled(number, tag))
    except OverflowError:
        raise Unwritable(f"{said(number)} is out of range for {wire.raw}") from None
    if wire.invalid and struct.unpack(form, content)[0] in wire.invalid:
        raise Unwritable(NO_VALUE.format(said(number)))
    return content


def _integer(number: int | float, tag: config.Tag, wire: Wire) -> bytes:
    if not wire.is_scaled and number != int(number):
        raise Unwritable(f"{said(number)} is no whole number, and the tag is {wire.raw}")
    raw = round(unscaled(number, tag)) if wire.is_scaled else int(number)
    low, high = whole_numbers(wire.raw, bcd=wire.bcd)
    if not low <= raw <= high:
        scaled = " before scaling" if wire.is_scaled else ""
        raise Unwritable(f"{said(number)} is out of range: the registers hold {low} to {high}{scaled}")
    if raw in wire.invalid:
        raise Unwritable(NO_VALUE.format(said(number)))
    if wire.bcd:
        raw = int(str(raw), 16)
    return raw.to_bytes(len(wire.order), "little", signed=raw < 0)


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
