"""How kinds and qualities look in Sparkplug: three tables and the constants of a metric's wire form.

Two things differ from what the specification's table of datatypes suggests, because every decoder in use agrees on
them: negative Int8 to Int32 are sign-extended to 32 bits before they go into ``int_value``, and UInt32 goes into
``long_value`` (as in Eclipse Tahu; the npm decoder reads 0 from anything else). Decoding accepts both fields.
"""

from __future__ import annotations

from enum import IntEnum
from typing import Final

from protocols.model import SEVERITY_MASK, Kind


class Datatype(IntEnum):
    """Sparkplug 3.0, 6.4.16: the basic types and Bytes. Others are carried by nobody here."""

    INT8 = 1
    INT16 = 2
    INT32 = 3
    INT64 = 4
    UINT8 = 5
    UINT16 = 6
    UINT32 = 7
    UINT64 = 8
    FLOAT = 9
    DOUBLE = 10
    BOOLEAN = 11
    STRING = 12
    DATETIME = 13
    TEXT = 14
    UUID = 15
    DATASET = 16
    BYTES = 17
    FILE = 18


DATATYPE_OF: Final[dict[Kind, Datatype]] = {
    Kind.BOOL: Datatype.BOOLEAN,
    Kind.INT8: Datatype.INT8,
    Kind.INT16: Datatype.INT16,
    Kind.INT32: Datatype.INT32,
    Kind.INT64: Datatype.INT64,
    Kind.UINT8: Datatype.UINT8,
    Kind.UINT16: Datatype.UINT16,
    Kind.UINT32: Datatype.UINT32,
    Kind.UINT64: Datatype.UINT64,
    Kind.FLOAT32: Datatype.FLOAT,
    Kind.FLOAT64: Datatype.DOUBLE,
    Kind.STRING: Datatype.STRING,
    Kind.BYTES: Datatype.BYTES,
}


class Field(IntEnum):
    """Field numbers of ``Metric`` (6.4.1)."""

    NAME = 1
    ALIAS = 2
    TIMESTAMP = 3
    DATATYPE = 4
    IS_HISTORICAL = 5
    IS_NULL = 7
    PROPERTIES = 9
    INT = 10
    LONG = 11
    FLOAT = 12
    DOUBLE = 13
    BOOLEAN = 14
    STRING = 15
    BYTES = 16


FIELD_OF: Final[dict[Kind, Field]] = {
    Kind.BOOL: Field.BOOLEAN,
    Kind.INT8: Field.INT,
    Kind.INT16: Field.INT,
    Kind.INT32: Field.INT,
    Kind.INT64: Field.LONG,
    Kind.UINT8: Field.INT,
    Kind.UINT16: Field.INT,
    Kind.UINT32: Field.LONG,
    Kind.UINT64: Field.LONG,
    Kind.FLOAT32: Field.FLOAT,
    Kind.FLOAT64: Field.DOUBLE,
    Kind.STRING: Field.STRING,
    Kind.BYTES: Field.BYTES,
}
"""The member of the ``value`` oneof that carries a kind."""

SIGNED_BITS: Final[dict[int, int]] = {Datatype.INT8: 8, Datatype.INT16: 16, Datatype.INT32: 32, Datatype.INT64: 64}
UNSIGNED_BITS: Final[dict[int, int]] = {Datatype.UINT8: 8, Datatype.UINT16: 16, Datatype.UINT32: 32, Datatype.UINT64: 64}

QUALITY: Final = "Quality"
"""The one property that Sparkplug defines (6.4.7.2): 0, 192 or 500, an Int32."""
STATUS_CODE: Final = "StatusCode"
"""The whole OPC UA status code, a UInt32: present wherever the quality is not plain good. A property of Holdfast's own."""
ENG_UNIT: Final = "engUnit"
"""Engineering unit of a metric, a String, in births. The name that hosts know."""

BAD: Final = 0
GOOD: Final = 192
STALE: Final = 500
_BY_SEVERITY: Final = {0x00000000: GOOD, 0x40000000: STALE, 0x80000000: BAD, 0xC0000000: BAD}


def sparkplug_quality(status: int) -> int:
    """The nearest of Sparkplug's three qualities for an OPC UA status code: uncertain is STALE, reserved is BAD."""
    return _BY_SEVERITY[status & SEVERITY_MASK]
