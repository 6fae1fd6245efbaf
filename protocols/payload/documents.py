"""JSON and CBOR to plain values: bounded in size, depth, count and memory, and no exception but Undecodable.

CBOR's tags are read as what they stand on (a tagged time is its text or number, a big number its number); nothing in it
makes objects of other kinds, refers back to itself or runs (shared references, regular expressions, MIME).
"""

from __future__ import annotations

from collections.abc import Callable
from fractions import Fraction
from typing import Any, Final

import cbor2
import msgspec

from protocols.payload.trouble import Undecodable

MAX_ITEMS: Final = 100_000
"""Values, keys and containers of one payload: an empty one takes a byte on the wire and sixty in memory."""
MAX_DEPTH: Final = 64
_SMALL: Final = 32 * 1024
"""JSON of so few bytes needs no count: it cannot take much memory."""
_SHORT: Final = 4096
"""CBOR of so few bytes needs no look: it can take neither much memory nor much time."""
MAX_CBOR_ITEMS: Final = 20_000
"""Where a payload is long enough to be looked over: that takes two microseconds an item."""
_LONGEST_NUMBER: Final = 1024
"""Bytes of a CBOR big number."""
_WIDEST_EXPONENT: Final = 400


_NUMBER, _TEXT, _BYTES, _OTHER, _TAG, _LIST, _MAP, _PIECES, _BREAK = range(9)
"""What begins with a head (RFC 8949, 3). The first two may be keys. _PIECES: a text or bytes in pieces, until a break."""
_MAJOR: Final = (_NUMBER, _NUMBER, _BYTES, _TEXT, _LIST, _MAP, _TAG, _OTHER)
_ENDLESS: Final = {2: _PIECES, 3: _PIECES, 4: _LIST, 5: _MAP, 7: _BREAK}


def _head(first: int) -> tuple[int, int, int]:
    """Bytes of the number that follows, the number where none does, and what begins."""
    major, more = first >> 5, first & 31
    if more == 31:
        return 0, 2**62, _ENDLESS.get(major, _OTHER)
    return (1 << more - 24 if 24 <= more <= 27 else 0), more, _MAJOR[major]


_HEADS: Final = tuple(map(_head, range(256)))
_DECODER: Final = msgspec.json.Decoder()


def read_json(payload: bytes) -> Any:  # Any: JSON
    """The value that ``payload`` writes as JSON. Of a key that stands twice the last counts. Raises Undecodable."""
    if len(payload) > _SMALL and payload.count(b",") + payload.count(b"[") + payload.count(b"{") > MAX_ITEMS:
        raise Undecodable(f"the payload has more than {MAX_ITEMS} values")
    try:
        return _DECODER.decode(payload)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise Undecodable(f"the payload is no JSON ({str(error)[:200]})") from None
    except RecursionError:
        raise Undecodable("the payload is nested too deep") from None


def read_cbor(payload: bytes) -> Any:  # Any: what JSON can say, and bytes
    """The value that ``payload`` writes as CBOR (RFC 8949). Raises Undecodable."""
    if len(payload) > _SHORT:
        look_over(payload)
    try:
        return cbor2.loads(payload, tag_hook=_untagged, semantic_decoders=_TAGS, max_depth=MAX_DEPTH)
    except (cbor2.CBORDecodeError, ValueError, TypeError, OverflowError, RecursionError, MemoryError) as error:
        raise Undecodable(f"the payload is no CBOR that is read ({str(error)[:200]})") from None


def look_over(payload: bytes) -> None:
    """Walk over the heads of a CBOR payload without building anything: few enough items, and maps whose keys are text or
    whole numbers (whose hashes nobody can make collide without end). Raises Undecodable."""
    at, items, end, heads = 0, 0, len(payload), _HEADS
    left = [2**62]  # of each open container, how many items are still to come; in a map a key is next where that is even
    is_map = [False]
    while at < end:
        items += 1
        size, number, begins = heads[payload[at]]
        at += 1 + size
        if size:
            number = int.from_bytes(payload[at - size : at], "big")
        if is_map[-1] and begins > _TEXT and begins != _BREAK and not left[-1] & 1:
            raise Undecodable("a key of a CBOR map is neither text nor a whole number")
        if begins >= _TAG:
            _turn(left, is_map, begins, number)
        else:
            left[-1] -= 1
            if begins in (_TEXT, _BYTES):
                at += number
        while left[-1] <= 0:
            del left[-1], is_map[-1]
        if items > MAX_CBOR_ITEMS:
            raise Undecodable(f"the payload has more than {MAX_CBOR_ITEMS} values")


def _turn(left: list[int], is_map: list[bool], begins: int, number: int) -> None:
    """Open a container, or close one at its break. A tag and what it stands on are one item."""
    if begins == _BREAK:
        if len(left) > 1:
            del left[-1], is_map[-1]
    elif begins != _TAG:
        left[-1] -= 1
        left.append(2 * number if begins == _MAP else number)
        is_map.append(begins == _MAP)
        if len(left) > 2 * MAX_DEPTH:
            raise Undecodable("the payload is nested too deep")


def _untagged(tag: cbor2.CBORTag, _: bool) -> Any:  # Any: what the tag stands on
    return tag.value


def _plain(value: Any, _: bool) -> Any:  # Any: as above
    return value


def _refused(_value: Any, _: bool) -> Any:  # Any: as above
    raise ValueError("it refers to other parts of itself")


def _big(value: Any, _: bool) -> int:  # Any: as above
    if not isinstance(value, bytes) or len(value) > _LONGEST_NUMBER:
        raise ValueError("a big number is too long")
    return int.from_bytes(value, "big")


def _negative(value: Any, _: bool) -> int:  # Any: as above
    return -1 - _big(value, _)


def _fraction(base: int) -> Callable[[Any, bool], float]:  # Any: as above
    """Decimal fractions and big floats (3.4.4): exponent and mantissa."""

    def read(value: Any, _: bool) -> float:  # Any: as above
        if not isinstance(value, list | tuple) or len(value) != 2 or not all(type(part) is int for part in value):
            raise ValueError("a fraction is not two numbers")
        exponent, mantissa = value
        if abs(exponent) > _WIDEST_EXPONENT or abs(mantissa) >= 2**256:
            raise ValueError("a fraction is out of range")
        return float(Fraction(mantissa) * Fraction(base) ** exponent)

    return read


_TAGS: Final[dict[int, Callable[[Any, bool], Any]]] = {  # Any: as above
    **dict.fromkeys([*range(300), 1004, 43000], _plain),
    **dict.fromkeys((25, 28, 29, 256), _refused),
    2: _big,
    3: _negative,
    4: _fraction(10),
    5: _fraction(2),
}
"""Every tag that the library would make something of."""
