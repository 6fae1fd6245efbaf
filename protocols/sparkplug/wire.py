"""The few protobuf primitives that prepared bytes need (protobuf encoding: varints, keys, length-delimited fields)."""

from __future__ import annotations

from functools import cache, lru_cache
from typing import Final

VARINT: Final = 0
FIXED64: Final = 1
BYTES: Final = 2
FIXED32: Final = 5

_ONE_BYTE: Final = tuple(bytes((value,)) for value in range(0x80))


def varint(value: int) -> bytes:
    """``value`` (0 to 2**64 - 1) as a minimal varint."""
    if value < 0x80:
        return _ONE_BYTE[value]
    if value < 0x4000:
        return bytes((value & 0x7F | 0x80, value >> 7))
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


def stamp(milliseconds: int) -> bytes:
    """The varint of a timestamp, 0 to 2**64 - 1. Fast for the present: all but its last 14 bits are remembered."""
    if milliseconds < 0x4000:
        return varint(milliseconds)
    return bytes((milliseconds & 0x7F | 0x80, milliseconds >> 7 & 0x7F | 0x80)) + _rest(milliseconds >> 14)


@lru_cache(maxsize=1024)
def _rest(value: int) -> bytes:
    return varint(value)


@cache  # a few dozen fields exist
def key(field: int, wire_type: int) -> bytes:
    return varint(field << 3 | wire_type)


def number(field: int, value: int) -> bytes:
    """A varint field; ``value`` is unsigned."""
    return key(field, VARINT) + varint(value)


def block(field: int, content: bytes) -> bytes:
    """A length-delimited field."""
    return key(field, BYTES) + varint(len(content)) + content
