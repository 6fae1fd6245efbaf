"""``at`` as Step 7 writes it: DB10.DBX4.3, DB10.DBW2, IW4, MB7, Q0.1; an area, a byte, and how wide. Pure.

The letter is the width in memory: X a bit, B a byte, W two, D four. What is wider than four bytes (64 bits, text, bytes) has no letter
in Step 7 and is written by its first byte, with B.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import IntEnum
from typing import Final

from protocols.model import Kind

_IN_DB: Final = re.compile(r"DB([1-9]\d{0,4})\.DB(?:X(\d{1,5})\.([0-7])|([BWD])(\d{1,5}))", re.ASCII)
_IN_AREA: Final = re.compile(r"([IQM])(?:(\d{1,5})\.([0-7])|([BWD])(\d{1,5}))", re.ASCII)
_GERMAN: Final = re.compile(r"[EA][BWD]?\d")
LAST_BYTE: Final = 65535

WIDTH: Final[dict[Kind, int]] = {
    Kind.BOOL: 0,
    Kind.INT8: 1,
    Kind.UINT8: 1,
    Kind.INT16: 2,
    Kind.UINT16: 2,
    Kind.INT32: 4,
    Kind.UINT32: 4,
    Kind.FLOAT32: 4,
    Kind.INT64: 8,
    Kind.UINT64: 8,
    Kind.FLOAT64: 8,
}
"""Bytes in memory; a bool is a bit."""
LETTER: Final = {0: "X (in a data block; else no letter)", 1: "B", 2: "W", 4: "D"}


class Area(IntEnum):
    """Memory areas by their code on the wire."""

    INPUTS = 0x81
    OUTPUTS = 0x82
    FLAGS = 0x83
    DATA = 0x84


@dataclass(frozen=True, slots=True)
class Address:
    """A place in a controller's memory."""

    area: Area
    block: int
    """Number of the data block; 0 in the other areas."""
    byte: int
    bit: int | None
    width: int
    """Bytes as its letter says; 0 for a bit."""


class BadAddress(ValueError):
    """The text is no address. It says what to write."""


def parse(text: str) -> Address:
    """Raises BadAddress."""
    if found := _IN_DB.fullmatch(text):
        block, bit_byte, bit, letter, byte = found.groups()
        area, number = Area.DATA, int(block)
    elif found := _IN_AREA.fullmatch(text):
        name, bit_byte, bit, letter, byte = found.groups()
        area, number = {"I": Area.INPUTS, "Q": Area.OUTPUTS, "M": Area.FLAGS}[name], 0
    else:
        raise BadAddress(f"{text!r} is no address: {_advice(text)}")
    first = int(bit_byte or byte)
    if first > LAST_BYTE or number > 65535:
        raise BadAddress(f"{text!r} is beyond what a controller has: bytes and blocks go up to 65535")
    return Address(area, number, first, int(bit) if bit is not None else None, {"B": 1, "W": 2, "D": 4}[letter] if letter else 0)


def _advice(text: str) -> str:
    if text.startswith("%"):
        return "leave the % away"
    if _GERMAN.match(text):
        return "write I for E (Eingang) and Q for A (Ausgang)"
    if text.upper() != text:
        return "write it in capitals"
    if re.match(r"[TC]\d", text):
        return "timers and counters are not read: copy them into a data block"
    return "write it as DB10.DBX4.3, DB10.DBW2, DB10.DBD4, M7.0, MB7, IW4 or QD8"
