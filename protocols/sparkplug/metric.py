"""One metric's bytes, made one by one: births, text and bytes, and whatever the prepared templates do not cover.

Fields stand in the order of their numbers, so these bytes equal what a protobuf library writes.
"""

from __future__ import annotations

import struct
from functools import lru_cache
from typing import Final

from protocols.model import Kind
from protocols.sparkplug import wire
from protocols.sparkplug.kinds import DATATYPE_OF, ENG_UNIT, FIELD_OF, QUALITY, STATUS_CODE, Datatype, Field, sparkplug_quality

Value = bool | int | float | str | bytes

HISTORICAL: Final = wire.number(Field.IS_HISTORICAL, 1)
NULL: Final = wire.number(Field.IS_NULL, 1)
_METRIC: Final = wire.key(2, wire.BYTES)
_TIMESTAMP: Final = wire.key(Field.TIMESTAMP, wire.VARINT)
_FLOAT32_MAX: Final = 3.4028235677973366e38
"""Doubles from here on round to infinity as a float32."""


def to_ms(time_ns: int) -> int:
    """Nanoseconds to Sparkplug's unsigned milliseconds; a time before 1970 becomes 0."""
    return max(0, time_ns // 1_000_000)


def value_field(kind: Kind, value: Value) -> bytes:
    """The member of the ``value`` oneof for ``value``, which fits ``kind``."""
    field = FIELD_OF[kind]
    match field:
        case Field.INT:
            return wire.number(field, int(value) & 0xFFFF_FFFF)
        case Field.LONG:
            return wire.number(field, int(value) & 0xFFFF_FFFF_FFFF_FFFF)
        case Field.FLOAT:
            return wire.key(field, wire.FIXED32) + struct.pack("<f", _narrow(float(value)))
        case Field.DOUBLE:
            return wire.key(field, wire.FIXED64) + struct.pack("<d", value)
        case Field.BOOLEAN:
            return wire.number(field, bool(value))
        case Field.STRING:
            return wire.block(field, str(value).encode("utf-8", "replace"))  # a lone surrogate is no UTF-8
        case _:
            assert isinstance(value, bytes)
            return wire.block(field, value)


def _narrow(value: float) -> float:
    """``value`` as ``struct`` takes it for a float32: what rounds beyond the largest one is infinity."""
    if -_FLOAT32_MAX < value < _FLOAT32_MAX or value != value:
        return value
    return float("inf") if value > 0 else float("-inf")


@lru_cache(maxsize=1024)
def properties(status: int, unit: str = "", *, always: bool = False) -> bytes:
    """The PropertySet field for a status code and a unit; empty where there is nothing to say.

    ``Quality`` is left out for plain good unless ``always`` (births say it). A status code other than plain good is
    given whole as ``StatusCode``.
    """
    told: list[tuple[str, bytes]] = []
    if unit:
        told.append((ENG_UNIT, wire.number(1, Datatype.STRING) + wire.block(8, unit.encode())))
    if status or always:
        told.append((QUALITY, wire.number(1, Datatype.INT32) + wire.number(3, sparkplug_quality(status))))
    if status:
        told.append((STATUS_CODE, wire.number(1, Datatype.UINT32) + wire.number(4, status)))
    if not told:
        return b""
    keys = b"".join(wire.block(1, name.encode()) for name, _ in told)
    return wire.block(Field.PROPERTIES, keys + b"".join(wire.block(2, value) for _, value in told))


def data_metric(alias: int, kind: Kind, value: Value, status: int, time_ns: int, *, historical: bool) -> bytes:
    """One metric of a DDATA. A bad one is null; the value is left out."""
    bad = bool(status & 0x8000_0000)
    return metric(
        wire.number(Field.ALIAS, alias),
        _TIMESTAMP,
        wire.stamp(to_ms(time_ns)),
        HISTORICAL if historical else b"",
        NULL if bad else b"",
        properties(status),
        b"" if bad else value_field(kind, value),
    )


def introduction(name: str, alias: int | None, datatype: int) -> tuple[bytes, bytes]:
    """What stands before and after the timestamp of a birth's metric."""
    head = wire.block(Field.NAME, name.encode("utf-8", "replace"))
    if alias is not None:
        head += wire.number(Field.ALIAS, alias)
    return head + _TIMESTAMP, wire.number(Field.DATATYPE, datatype)


def birth_metric(name: str, alias: int | None, kind: Kind, unit: str, value: Value, status: int, time_ns: int) -> bytes:
    """One metric of a birth: name, alias, datatype, timestamp, unit, quality, and a value or null."""
    head, datatype = introduction(name, alias, DATATYPE_OF[kind])
    bad = bool(status & 0x8000_0000)
    return metric(
        head,
        wire.stamp(to_ms(time_ns)),
        datatype,
        NULL if bad else b"",
        properties(status, unit, always=True),
        b"" if bad else value_field(kind, value),
    )


def node_metric(name: str, kind: Kind, value: Value, time_ns: int) -> bytes:
    """A metric without alias and properties: bdSeq and Node Control/Rebirth."""
    head, datatype = introduction(name, None, DATATYPE_OF[kind])
    return metric(head, wire.stamp(to_ms(time_ns)), datatype, value_field(kind, value))


def metric(*parts: bytes) -> bytes:
    """Field 2 of a Payload from a metric's fields."""
    content = b"".join(parts)
    return _METRIC + wire.varint(len(content)) + content
