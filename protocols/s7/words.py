"""Bytes of a controller's memory to values and back: big-endian, a STRING with its two bytes of length before it. Pure.

Source: Siemens, "Comparison list for S7-300/400/1200/1500", data types; STRING: greatest length, length, then one byte a character.
"""

from __future__ import annotations

import struct
from typing import Final

from protocols.model import Kind
from protocols.s7.address import Address
from protocols.s7.config import Tag
from protocols.values import Unwritable, Value

FORMAT: Final[dict[Kind, str]] = {
    Kind.INT8: ">b",
    Kind.UINT8: ">B",
    Kind.INT16: ">h",
    Kind.UINT16: ">H",
    Kind.INT32: ">i",
    Kind.UINT32: ">I",
    Kind.INT64: ">q",
    Kind.UINT64: ">Q",
    Kind.FLOAT32: ">f",
    Kind.FLOAT64: ">d",
}
CHARSET: Final = "latin-1"


def raw_value(content: bytes, tag: Tag, place: Address) -> Value | None:
    """What ``content`` (as many bytes as the tag takes) says; None for a STRING whose lengths cannot be."""
    if tag.kind is Kind.BOOL:
        return bool(content[0] >> (place.bit or 0) & 1)
    if tag.kind is Kind.BYTES:
        return content
    if tag.kind is Kind.STRING:
        most, used = content[0], content[1]
        return content[2 : 2 + used].decode(CHARSET) if used <= min(most, tag.length) else None
    number: int | float = struct.unpack(FORMAT[tag.kind], content)[0]
    return number


def content_of(raw: Value, tag: Tag) -> bytes:
    """The bytes that a controller is told; of a STRING those from its length on. Raises Unwritable."""
    if tag.kind is Kind.BOOL:
        return bytes([bool(raw)])
    if isinstance(raw, bytes):
        if len(raw) != tag.length:
            raise Unwritable(f"the tag takes {tag.length} bytes, not {len(raw)}")
        return raw
    if isinstance(raw, str):
        try:
            text = raw.encode(CHARSET)
        except UnicodeEncodeError:
            raise Unwritable("a STRING takes the characters of Latin-1 alone") from None
        if len(text) > tag.length:
            raise Unwritable(f"the tag takes {tag.length} characters, not {len(text)}")
        return bytes([len(text)]) + text
    return struct.pack(FORMAT[tag.kind], raw)
