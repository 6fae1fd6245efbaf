"""Where a tag lies: ``holding:0``, ``coil:3``, a bit ``holding:7.3``, Modicon ``40001``, and how wide each kind is.

Pure. Modicon numbers count from 1 by definition, whatever ``address_base`` says (Modbus Application Protocol V1.1b3,
4.4: the data model counts from 1, the wire from 0).
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from protocols.model import Kind


class Table(StrEnum):
    """The four tables of the data model (V1.1b3, 4.3)."""

    COIL = "coil"
    DISCRETE = "discrete"
    HOLDING = "holding"
    INPUT = "input"

    @property
    def is_bits(self) -> bool:
        return self in (Table.COIL, Table.DISCRETE)

    @property
    def is_writable(self) -> bool:
        return self in (Table.COIL, Table.HOLDING)


READ_FUNCTION: Final[dict[Table, int]] = {Table.COIL: 1, Table.DISCRETE: 2, Table.HOLDING: 3, Table.INPUT: 4}
LAST_ADDRESS: Final = 0xFFFF

WORDS: Final[dict[Kind, int]] = {
    Kind.BOOL: 1,
    Kind.INT8: 1,
    Kind.UINT8: 1,
    Kind.INT16: 1,
    Kind.UINT16: 1,
    Kind.INT32: 2,
    Kind.UINT32: 2,
    Kind.FLOAT32: 2,
    Kind.INT64: 4,
    Kind.UINT64: 4,
    Kind.FLOAT64: 4,
}
"""Registers of each kind; strings and bytes say their own length."""

_PLAIN: Final = re.compile(r"(coil|discrete|holding|input):(0[xX][0-9a-fA-F]{1,4}|[0-9]{1,6})(?:\.([0-9]{1,2}))?")
_MODICON_TABLE: Final[dict[str, Table]] = {"0": Table.COIL, "1": Table.DISCRETE, "3": Table.INPUT, "4": Table.HOLDING}
_MODICON: Final = re.compile(r"[0-9]{1,6}(\.[0-9]{1,2})?")
_FORMS: Final = "write table:number (holding:0, input:10, coil:3, discrete:4, a bit holding:7.3) or Modicon (40001, 300001)"


@dataclass(frozen=True, slots=True)
class Address:
    """A place in a device, counted from 0 as on the wire."""

    table: Table
    number: int
    bit: int | None = None

    def __str__(self) -> str:
        return f"{self.table}:{self.number}" + ("" if self.bit is None else f".{self.bit}")


class Impossible(ValueError):
    """An address that no device can have. ``advice`` says what to write instead."""

    def __init__(self, message: str, advice: str) -> None:
        super().__init__(message)
        self.advice = advice


def parse(at: str | int, base: int) -> Address:
    """The place that ``at`` means for a device whose manual counts from ``base``. Raises Impossible."""
    text = str(at).strip().lower()
    if match := _PLAIN.fullmatch(text):
        table, number = Table(match[1]), int(match[2], 0) if match[2][:2].lower() == "0x" else int(match[2])
        return _checked(text, table, number - base, match[3], f"addresses of this device run from {base} to {LAST_ADDRESS + base}")
    return _modicon(text)


def _modicon(text: str) -> Address:
    """``40001`` or ``400001`` (five or six digits); a short number, as ``7`` or ``00007``, is a coil."""
    if not _MODICON.fullmatch(text):
        raise Impossible(f"{text!r} is not an address", _FORMS)
    digits, _, bit = text.partition(".")
    lead, rest = (digits[0], digits[1:]) if len(digits) >= 5 else ("0", digits)
    table = _MODICON_TABLE.get(lead)
    if table is None:
        raise Impossible(f"{text!r} is not a Modicon number: none begins with {lead}", _FORMS)
    most = 9999 if len(digits) <= 5 else 65536
    return _checked(text, table, int(rest) - 1, bit or None, f"Modicon numbers of {len(digits)} digits count from 1 to {most}")


def _checked(text: str, table: Table, number: int, bit_text: str | None, advice: str) -> Address:
    if not 0 <= number <= LAST_ADDRESS:
        raise Impossible(f"{text!r} does not exist", advice)
    if bit_text is None:
        return Address(table, number)
    bit = int(bit_text)
    if table.is_bits:
        raise Impossible(f"{text!r}: a {table} is a bit already", f"write {table}:{number}")
    if bit > 15:
        raise Impossible(f"{text!r}: a register has the bits 0 to 15", "0 is the least significant bit")
    return Address(table, number, bit)


def width(kind: Kind, table: Table, length: int) -> int:
    """Registers (or bits, of a bit table) that a value takes."""
    if table.is_bits:
        return 1
    return WORDS[kind] if kind in WORDS else max(1, (length + 1) // 2)
