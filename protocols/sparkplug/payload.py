"""Reading payloads that others wrote, or our own: every length has a limit, nothing nests, nothing is believed.

``decode`` turns bytes into frozen values or raises Malformed. A metric's value keeps the form of its field until its
datatype is known (``value_of``): in data messages the datatype stands in the birth alone.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Final

from google.protobuf.message import DecodeError

from protocols.sparkplug.kinds import SIGNED_BITS, UNSIGNED_BITS, Datatype, Field
from protocols.sparkplug.metric import Value
from protocols.sparkplug.sparkplug_b_pb2 import Payload as _Payload

OTHER_FIELDS: Final = 64
"""Fields of a payload besides its metrics; four are known."""
MAX_PROPERTIES: Final = 150_000
"""Names and values of properties in one payload; each takes two bytes on the wire at least, and sixty in memory."""
_METRICS: Final = 2
_KEYS: Final = 1
_VALUES: Final = 2
_PROPERTY_BEGINS: Final = tuple(bytes((number << 3 | 2 | more,)) for number in (1, 2) for more in (0, 0x80))
"""What the tag of such a field can begin with: whatever is written as it should be, and whatever is not."""


class Malformed(ValueError):
    """The peer's bytes are no payload that is accepted. The text says why."""


@dataclass(frozen=True, slots=True)
class Limits:
    """The most that is believed. Bytes and counts."""

    payload: int = 4 * 1024 * 1024
    metrics: int = 20_000
    text: int = 1024 * 1024
    """Bytes of one text or bytes value."""
    name: int = 4096
    properties: int = 64


COMMAND_LIMITS: Final = Limits(payload=64 * 1024, metrics=256, text=16 * 1024, name=1024, properties=16)
"""For commands: an edge node has few metrics that can be written at once."""


@dataclass(frozen=True, slots=True)
class Metric:
    """One metric as it came. ``value`` is None where it is null or of a type that is not read (``other`` is then True)."""

    name: str | None
    alias: int | None
    timestamp_ms: int | None
    datatype: int | None
    value: Value | None
    is_null: bool
    is_historical: bool
    other: bool
    properties: dict[str, Value | None]


@dataclass(frozen=True, slots=True)
class Payload:
    timestamp_ms: int | None
    seq: int | None
    metrics: tuple[Metric, ...]
    body: bytes


def decode(data: bytes, limits: Limits = Limits()) -> Payload:
    """Read one payload. Raises Malformed."""
    if len(data) > limits.payload:
        raise Malformed(f"the payload has {len(data)} bytes, more than the {limits.payload} that are read")
    if count_metrics(data, limits.metrics) > limits.metrics:
        raise Malformed(f"the payload has more than {limits.metrics} metrics")
    if count_properties(data) > MAX_PROPERTIES:
        raise Malformed(f"the payload has more than {MAX_PROPERTIES} property names and values")
    message = _Payload()
    try:
        message.ParseFromString(data)
        return Payload(
            timestamp_ms=message.timestamp if message.HasField("timestamp") else None,
            seq=message.seq if message.HasField("seq") else None,
            metrics=tuple(_metric(one, limits) for one in message.metrics),
            body=message.body,
        )
    except DecodeError as error:
        raise Malformed(f"the payload is no Sparkplug B protobuf ({error})") from None


def count_metrics(data: bytes, enough: int) -> int:
    """How many metrics the top level of ``data`` holds, found without building any of them; stops above ``enough``.

    An empty metric takes two bytes on the wire and a hundred in memory: this look keeps a peer from using that.
    """
    metrics = (number for number, _, _ in _blocks(data, (0, len(data)), _Budget(enough + OTHER_FIELDS)) if number == _METRICS)
    return sum(1 for _ in islice(metrics, enough + 1))


def count_properties(data: bytes) -> int:
    """The same for names and values of properties, of all metrics together. Looked at one by one only where there are bytes
    enough with which one could begin. Raises Malformed far above MAX_PROPERTIES."""
    if sum(data.count(first) for first in _PROPERTY_BEGINS) <= MAX_PROPERTIES:
        return 0
    budget = _Budget(2 * MAX_PROPERTIES)
    return sum(
        1
        for outer, *metric in _blocks(data, (0, len(data)), budget)
        if outer == _METRICS
        for inner, *properties in _blocks(data, metric, budget)
        if inner == Field.PROPERTIES
        for number, _, _ in _blocks(data, properties, budget)
        if number in (_KEYS, _VALUES)
    )


@dataclass(slots=True)
class _Budget:
    """How many fields may still be looked at: a field takes a microsecond, and its peer two bytes."""

    left: int


def _blocks(data: bytes, place: Sequence[int], budget: _Budget) -> Iterator[tuple[int, int, int]]:
    """Number, begin and end of each length-delimited field of the message at ``place`` (begin and end). Raises Malformed."""
    at, end = place
    while at < end:
        budget.left -= 1
        if budget.left < 0:
            raise Malformed("the payload has more fields than are read")
        tag, at = _varint(data, at)
        wire_type = tag & 7
        if wire_type == 2:
            size, at = _varint(data, at)
            at += size
            yield tag >> 3, at - size, min(at, end)
        elif wire_type == 0:
            _, at = _varint(data, at)
        elif wire_type in (1, 5):
            at += 8 if wire_type == 1 else 4
        else:
            raise Malformed(f"the payload is no Sparkplug B protobuf (wire type {wire_type})")
    if at > end:
        raise Malformed("the payload is cut short")


def _varint(data: bytes, at: int) -> tuple[int, int]:
    value = 0
    for step, byte in enumerate(data[at : at + 10]):
        value |= (byte & 0x7F) << (7 * step)
        if byte < 0x80:
            return value, at + step + 1
    raise Malformed("the payload is cut short or a number in it is too long")


def _metric(one: _Payload.Metric, limits: Limits) -> Metric:
    member = one.WhichOneof("value")
    value = None if one.is_null else _member(one, member, limits)
    return Metric(
        name=_text(one.name, limits.name, "a name") if one.HasField("name") else None,
        alias=one.alias if one.HasField("alias") else None,
        timestamp_ms=one.timestamp if one.HasField("timestamp") else None,
        datatype=one.datatype if one.HasField("datatype") else None,
        value=value,
        is_null=one.is_null,
        is_historical=one.is_historical,
        other=member is None and not one.is_null,
        properties=_properties(one, limits) if one.HasField("properties") else {},
    )


def _properties(one: _Payload.Metric, limits: Limits) -> dict[str, Value | None]:
    keys, values = one.properties.keys, one.properties.values
    if len(keys) != len(values) or len(keys) > limits.properties:
        raise Malformed(f"a metric has {len(keys)} property names and {len(values)} values; at most {limits.properties} pairs are read")
    told: dict[str, Value | None] = {}
    for name, value in zip(keys, values, strict=True):
        member = value.WhichOneof("value")
        raw = None if value.is_null else _member(value, member, limits)
        told[_text(name, limits.name, "a property's name")] = value_of(raw, value.type)
    return told


def _member(holder: _Payload.Metric | _Payload.PropertyValue, member: str | None, limits: Limits) -> Value | None:
    """The member of the ``value`` oneof that is set, checked."""
    if member is None:
        return None
    value: Value = getattr(holder, member)
    if member == "string_value":
        assert isinstance(value, str | bytes)
        return _text(value, limits.text, "a value")
    return _limited(value, limits.text)


def _limited(value: Value, limit: int) -> Value:
    if isinstance(value, bytes) and len(value) > limit:
        raise Malformed(f"a value has {len(value)} bytes, more than the {limit} that are read")
    return value


def _text(value: str | bytes, limit: int, what: str) -> str:
    """A string field: proto2 gives the bytes themselves where they are no UTF-8."""
    if not isinstance(value, str):
        raise Malformed(f"{what} is no UTF-8 text")
    if len(value) > limit:
        raise Malformed(f"{what} has {len(value)} characters, more than the {limit} that are read")
    return value


def value_of(raw: Value | None, datatype: int) -> Value | None:
    """The value that ``raw``, a metric's field, means under ``datatype``: integers get their sign and width back."""
    if raw is None or isinstance(raw, bool | float | str | bytes):
        return raw
    bits = SIGNED_BITS.get(datatype)
    if bits is not None:
        low = raw & (1 << bits) - 1
        return low - (1 << bits) if low >> (bits - 1) else low
    bits = UNSIGNED_BITS.get(datatype)
    if bits is not None:
        return raw & (1 << bits) - 1
    return bool(raw) if datatype == Datatype.BOOLEAN else raw
