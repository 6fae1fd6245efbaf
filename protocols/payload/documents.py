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
_LONGEST_NUMBER: Final = 1024
"""Bytes of a CBOR big number."""
_WIDEST_EXPONENT: Final = 400
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
    at, items = 0, 0
    inside = _Inside()
    while at < len(payload):
        items += 1
        if items > MAX_ITEMS:
            raise Undecodable(f"the payload has more than {MAX_ITEMS} values")
        major, info = payload[at] >> 5, payload[at] & 31
        size = 1 << (info - 24) if 24 <= info <= 27 else 0
        at += 1 + size
        number = int.from_bytes(payload[at - size : at], "big") if size else info
        inside.head(major, number, is_open=info == 31)
        if major in (2, 3) and info != 31:
            at += number


class _Inside:
    """The containers that are open: of each, how many items it has (-1: until a break), whether it is a map, how many came."""

    def __init__(self) -> None:
        self._open: list[list[int]] = []

    def head(self, major: int, number: int, *, is_open: bool) -> None:
        """The head of an item: its major type, its number, and whether its end is told by a break."""
        if major == 7 and is_open:
            del self._open[-1:]
            return
        if self._open:
            innermost = self._open[-1]
            if innermost[1] and innermost[2] % 2 == 0 and major not in (0, 1, 3):
                raise Undecodable("a key of a CBOR map is neither text nor a whole number")
            innermost[2] += major != 6  # a tag and what it stands on are one item
        if major in (4, 5) or (major in (2, 3) and is_open):
            self._open.append([-1 if is_open else number << (major == 5), major == 5, 0])
            if len(self._open) > 2 * MAX_DEPTH:
                raise Undecodable("the payload is nested too deep")
        while self._open and self._open[-1][0] == self._open[-1][2]:
            self._open.pop()


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
