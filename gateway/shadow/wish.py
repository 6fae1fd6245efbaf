"""One desired value: what it may be, what becomes of it, and when it is tried again. Pure.

A wish is written **once per version**. When the device has taken it, it is done: where the value is changed at the device's own
panel later, the shadow says ``diverged`` and stays away. The person at the panel stands in front of the machine and has a reason
that nobody knows here; a gateway that writes its value back, again and again, would fight that person, and wear out the device's
memory. Whoever still wants the value says so by wishing it anew, which is a new version.

What the device refuses is tried again with long pauses (a lock-out may be lifted), what got lost on the way with shorter ones. A
value that the device changed on its own (``mismatch``: it clips, it ignores) is not tried again: it would be clipped again.
"""

from __future__ import annotations

import base64
import binascii
import math
from enum import StrEnum
from typing import Final

import msgspec

from gateway import readable
from gateway.identity.principal import Role
from protocols.model import Kind, OutcomeState, Tag
from protocols.values import RANGE, Value

JsonValue = readable.JsonValue

LONGEST_TEXT: Final = 4096
"""Characters of one desired text; bytes in base64 count as they are written."""
FAILED_S: Final = (5.0, 300.0)
"""First and longest pause after a command that got lost or came too late; it doubles in between."""
REFUSED_S: Final = (60.0, 3600.0)

_FLOAT32: Final = 1.2e-7
"""What a float32 loses of a number, relative to it: 2^-23."""


class WishState(StrEnum):
    PENDING = "pending"
    """It waits for the device, or for its next try."""
    IN_SYNC = "in-sync"
    """The device has it, as far as anybody knows."""
    DIVERGED = "diverged"
    """The device had it, and has another value now, which was not written from here. It is not written again."""
    REFUSED = "refused"
    """The gateway or the device says no; it is tried again, rarely."""
    MISMATCH = "mismatch"
    """The device took it and made another value of it; it is not tried again."""
    EXPIRED = "expired"
    """Its time was over before the device had it."""


class Wish(msgspec.Struct, frozen=True, kw_only=True):
    """A desired value of one tag, and what became of it."""

    value: JsonValue
    version: int
    """The shadow's version that it came with."""
    state: WishState
    by: str
    role: Role | None = None
    """Of whoever wished it: a wish may do what they may, also when it becomes a command weeks later."""
    reason: str = ""
    """Why it is wished: some tags are not written without."""
    set_ns: int
    expires_ns: int = 0
    """0: never."""
    detail: str = ""
    tries: int = 0
    applied: JsonValue = None
    """What the device had after it was written: it may round."""
    applied_ns: int = 0
    due_s: float = 0.0
    """The earliest next try; seconds of the monotonic clock, 0 is at once. Not kept over a restart."""

    @property
    def is_open(self) -> bool:
        """Whether it may still be written."""
        return self.state in (WishState.PENDING, WishState.REFUSED)


class Unwishable(ValueError):
    """The value cannot be desired. The text says why."""


def wished(value: JsonValue, tag: Tag) -> Value:
    """``value`` (JSON) as the driver takes it for ``tag``. Raises Unwishable."""
    kind = tag.kind
    if kind is Kind.BOOL:
        if isinstance(value, bool):
            return value
    elif kind in (Kind.STRING, Kind.BYTES):
        if isinstance(value, str):
            return _text(value, kind)
    elif isinstance(value, int | float) and not isinstance(value, bool):
        return _number(value, kind)
    raise Unwishable(f"a value of kind {kind} is to be {_FORM.get(kind, 'a number')}")


_FORM: Final = {Kind.BOOL: "true or false", Kind.STRING: "a text", Kind.BYTES: "bytes in base64"}


def _text(value: str, kind: Kind) -> Value:
    if len(value) > LONGEST_TEXT:
        raise Unwishable(f"at most {LONGEST_TEXT} characters")
    if kind is Kind.STRING:
        return value
    try:
        return base64.b64decode(value, validate=True)
    except (binascii.Error, ValueError):
        raise Unwishable("this is no base64") from None


def _number(value: float, kind: Kind) -> Value:
    limits = RANGE.get(kind)
    if limits is None:
        try:
            number = float(value)
        except OverflowError:
            number = math.inf
        if not math.isfinite(number):
            raise Unwishable(f"a value of kind {kind} is to be a finite number")
        return number
    if value != value // 1:
        raise Unwishable(f"a value of kind {kind} is to be a whole number")
    if not limits[0] <= value <= limits[1]:
        raise Unwishable(f"a value of kind {kind} lies between {limits[0]} and {limits[1]}")
    return int(value)


def same(one: JsonValue, other: JsonValue) -> bool:
    """Whether two values are one for whoever wishes: floats up to what a float32 and a scale lose."""
    if isinstance(one, bool) or isinstance(other, bool) or isinstance(one, str) or isinstance(other, str):
        return type(one) is type(other) and one == other
    if one is None or other is None:
        return one is other
    if isinstance(one, float) or isinstance(other, float):
        return math.isclose(one, other, rel_tol=_FLOAT32, abs_tol=1e-12)
    return one == other


def seen(wish: Wish, value: JsonValue, time_ns: int) -> WishState:
    """The state of ``wish`` for whoever looks: a device that has had it may have ``value`` since ``time_ns``."""
    if wish.state is not WishState.IN_SYNC or value is None or time_ns <= wish.applied_ns:
        return wish.state
    return WishState.IN_SYNC if same(wish.value, value) or same(wish.applied, value) else WishState.DIVERGED


def after(wish: Wish, state: OutcomeState, detail: str, read_back: JsonValue, now_ns: int, now_s: float) -> Wish:
    """``wish`` when the command that it became has ended."""
    if state is OutcomeState.VERIFIED:
        applied = wish.value if read_back is None else read_back
        return msgspec.structs.replace(wish, state=WishState.IN_SYNC, detail=detail, applied=applied, applied_ns=now_ns)
    if state is OutcomeState.MISMATCH:
        return msgspec.structs.replace(wish, state=WishState.MISMATCH, detail=detail, applied=read_back, applied_ns=now_ns)
    refused = state is OutcomeState.REFUSED
    first_s, longest_s = REFUSED_S if refused else FAILED_S
    due_s = now_s + min(longest_s, first_s * 2.0 ** min(wish.tries - 1, 30))
    return msgspec.structs.replace(wish, state=WishState.REFUSED if refused else WishState.PENDING, detail=detail, due_s=due_s)
