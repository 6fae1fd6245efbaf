"""From MQTT messages to records: Sparkplug B with its births and aliases, and Holdfast's plain JSON. Pure.

A data message names its metrics by alias alone; what an alias means stands in the device's last birth. A message that comes
before its birth is kept (up to a limit) and decoded when the birth comes; the caller is told to ask for one.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from typing import Any, Final

import msgspec

from gateway.journal.record import Lane
from gateway.uplink.mark import MAX_PARTS, LostSpan, Stamp, decode_stamp
from protocols.sparkplug.kinds import STATUS_CODE
from protocols.sparkplug.metric import Value
from protocols.sparkplug.payload import Metric, Payload, decode, value_of
from protocols.sparkplug.topics import Topic, Verb

MAX_KEPT_BYTES: Final = 16 * 1024**2
MAX_JSON_BYTES: Final = 16 * 1024**2
MAX_DEVICES: Final = 10_000


@dataclass(frozen=True, slots=True)
class Reading:
    """One value. ``value`` is None where the quality is bad; ``quality`` is an OPC UA status code."""

    tag: str
    value: Value | None
    quality: int
    time_ms: int | None


@dataclass(frozen=True, slots=True)
class Delivery:
    """One data message, decoded."""

    device: str
    stamp: Stamp
    historical: bool
    readings: tuple[Reading, ...]
    lost: tuple[LostSpan, ...] = ()


@dataclass(frozen=True, slots=True)
class Arrived:
    """A stamped message came. It belongs into its window's sums, whether or not it can be decoded yet."""

    stamp: Stamp
    values: int


@dataclass(frozen=True, slots=True)
class RebirthNeeded:
    """A data message of ``device`` cannot be decoded: no birth explains it."""

    device: str


Finding = Arrived | Delivery | RebirthNeeded


class SparkplugDecoder:
    """One edge node's births, and what they make of its data."""

    def __init__(self) -> None:
        self._births: dict[str, dict[int, tuple[str, int]]] = {}
        """By device: name and datatype by alias."""
        self._kept: deque[tuple[str, Stamp, Payload, int]] = deque()
        self._kept_bytes = 0
        self.unread = 0
        """Messages that were thrown away because their birth did not come in time."""

    def message(self, topic: Topic, data: bytes) -> list[Finding]:
        """Findings of one message, in order. Raises ValueError if it is malformed."""
        if topic.verb is Verb.NBIRTH:
            self._births.clear()
            return []
        if topic.verb is Verb.DBIRTH:
            return self._birth(topic.device, decode(data))
        if topic.verb is Verb.DDATA:
            return self._data(topic.device, decode(data), len(data))
        return []

    def _birth(self, device: str, payload: Payload) -> list[Finding]:
        if len(self._births) >= MAX_DEVICES:
            raise ValueError(f"more than {MAX_DEVICES} devices")
        self._births[device] = {
            metric.alias: (metric.name, metric.datatype)
            for metric in payload.metrics
            if metric.alias is not None and metric.name is not None and metric.datatype is not None
        }
        waiting, self._kept = self._kept, deque()
        self._kept_bytes = 0
        return [finding for kept in waiting for finding in self._try(*kept)]

    def _data(self, device: str, payload: Payload, size: int) -> list[Finding]:
        if not payload.body:
            return []  # not of a gateway that keeps a ledger: there is nothing to prove
        stamp = decode_stamp(payload.body)
        return [Arrived(stamp, len(payload.metrics)), *self._try(device, stamp, payload, size)]

    def _try(self, device: str, stamp: Stamp, payload: Payload, size: int) -> list[Finding]:
        known = self._births.get(device, {})
        readings = [_reading(metric, known) for metric in payload.metrics]
        if None in readings:
            self._keep(device, stamp, payload, size)
            return [RebirthNeeded(device)]
        historical = any(metric.is_historical for metric in payload.metrics)
        return [Delivery(device, stamp, historical, tuple(reading for reading in readings if reading is not None))]

    def _keep(self, device: str, stamp: Stamp, payload: Payload, size: int) -> None:
        self._kept.append((device, stamp, payload, size))
        self._kept_bytes += size
        while self._kept_bytes > MAX_KEPT_BYTES:
            self._kept_bytes -= self._kept.popleft()[3]
            self.unread += 1


def _reading(metric: Metric, known: dict[int, tuple[str, int]]) -> Reading | None:
    """None if nothing says what the metric is."""
    name, datatype = known.get(metric.alias, (None, None)) if metric.alias is not None else (metric.name, metric.datatype)
    if name is None or datatype is None:
        return None
    status = metric.properties.get(STATUS_CODE)
    quality = status if isinstance(status, int) else 0
    return Reading(name, value_of(metric.value, datatype), quality, metric.timestamp_ms)


class _Tag(msgspec.Struct):
    """One entry of ``tags`` in the shape of that name."""

    name: str
    value: Any  # any JSON value: what a tag holds
    quality: int
    time_us: int


class _Plain(msgspec.Struct):
    """``columns`` and ``tags`` alike: without ``values`` it is ``tags``."""

    v: int
    lane: Lane
    epoch: int
    seq: int
    device: str
    tags: list[Any]  # names, or what _Tag says
    values: list[Any] | None = None  # as above
    quality: list[int] | None = None
    time_us: int | list[int] = 0
    historical: bool = False
    part: int = 0
    parts: int = 1
    lost: tuple[LostSpan, ...] = ()


_plain_decoder: Final = msgspec.json.Decoder(_Plain)


def decode_plain(data: bytes) -> Delivery:
    """One message of the plain MQTT uplink, shape ``columns`` or ``tags``. Raises ValueError."""
    if len(data) > MAX_JSON_BYTES:
        raise ValueError(f"a message of {len(data)} bytes: at most {MAX_JSON_BYTES} are read")
    try:
        message = _plain_decoder.decode(data)
    except RecursionError:
        raise ValueError("the JSON is nested too deeply") from None
    if message.v != 1 or message.epoch < 0 or message.seq < 0 or not 0 <= message.part < message.parts <= MAX_PARTS:
        raise ValueError("the message's figures contradict each other")
    if any(span.first > span.last for span in message.lost):
        raise ValueError("a lost span of the message ends before it begins")
    stamp = Stamp(0, message.lane, message.epoch, (message.seq,), message.part, message.parts)
    readings = _tag_readings(message.tags) if message.values is None else _column_readings(message, message.values)
    return Delivery(message.device, stamp, message.historical, readings, message.lost)


def _tag_readings(tags: list[Any]) -> tuple[Reading, ...]:  # Any: not yet checked
    return tuple(Reading(tag.name, tag.value, tag.quality, tag.time_us // 1000) for tag in msgspec.convert(tags, list[_Tag]))


def _column_readings(message: _Plain, values: list[Any]) -> tuple[Reading, ...]:  # Any: any JSON value
    names = msgspec.convert(message.tags, list[str])
    quality = message.quality or [0] * len(names)
    times = message.time_us if isinstance(message.time_us, list) else [message.time_us] * len(names)
    if not len(names) == len(values) == len(quality) == len(times):
        raise ValueError("the message's columns differ in length")
    columns = zip(names, values, quality, times, strict=True)
    return tuple(Reading(name, value, code, time_us // 1000) for name, value, code, time_us in columns)
