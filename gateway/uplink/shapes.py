"""The JSON that the plain MQTT uplink sends: a record in, one payload out, or several where one would be too large.

Three shapes: ``columns`` (compact, carries everything), ``tags`` (an object for each tag, easy to pick from) and
``thingsboard`` (ThingsBoard's gateway API). README.md shows each. Values look as ``gateway/readable.py`` says; one of bad
quality is null (left out for ThingsBoard) and its quality is told. Pure.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, Final

import msgspec

from gateway import readable
from gateway.config.model import Gateway
from gateway.journal.record import Record
from gateway.telemetry.clock_state import Word
from gateway.uplink.mark import LostSpan
from protocols.model import Batch, Device, Tag

THINGSBOARD_TOPIC: Final = "v1/gateway/telemetry"
_BAD: Final = 0x80000000
_NAMES_KEPT: Final = 4096

Json = Any  # what msgspec writes: None, bool, int, float, str, bytes, lists and dicts of these


class TooLarge(Exception):
    """A single value is larger than a message may be."""


def topic_of(template: str, gateway: Gateway, connection: str, device: str) -> str:
    """Fill in ``{group} {gateway} {connection} {device}``; what would be a wildcard becomes ``_``."""
    for name, word in (("group", gateway.group), ("gateway", gateway.name), ("connection", connection), ("device", device)):
        template = template.replace("{" + name + "}", word.replace("+", "_").replace("#", "_"))
    return template


class Writer:
    """Writes the records of one gateway in one shape. It keeps the names that belong to a set of slots, ready as JSON."""

    def __init__(self, shape: str, gateway: Gateway, clock: Callable[[], Word] = lambda: Word.SYNCHRONISED) -> None:
        """``clock`` says how the gateway's clock is now."""
        self._write = {"columns": self._columns, "tags": self._tags, "thingsboard": self._thingsboard}[shape]
        self._gateway = gateway
        self._clock = clock
        self._encoder = msgspec.json.Encoder()
        self._known_names: dict[tuple[int, bytes], tuple[Device, msgspec.Raw]] = {}

    def payloads(self, record: Record, *, historical: bool, lost: tuple[LostSpan, ...] = (), limit: int | None = None) -> list[bytes]:
        """The payloads of ``record``, none above ``limit`` bytes: in 1, 2, 4 ... parts, each with some of its rows.

        ``lost`` is what the gateway had to lose before this record. Raises TooLarge if a single value is too large.
        """
        rows, parts = len(record.batch), 1
        while True:
            edges = [rows * i // parts for i in range(parts + 1)]
            made = []
            for i in range(parts):
                head = self._head(record, historical, lost if i == 0 else (), (i, parts))
                made.append(self._write(record.batch, slice(edges[i], edges[i + 1]), head))
            if limit is None or max(map(len, made)) <= limit:
                return made
            if parts >= rows:
                raise TooLarge(f"a value of device {record.batch.device.name} does not fit into a message of {limit} bytes")
            parts = min(parts * 2, rows)

    def _head(self, record: Record, historical: bool, lost: tuple[LostSpan, ...], part: tuple[int, int]) -> dict[str, Json]:
        """What ``columns`` and ``tags`` begin with; keys that would say nothing are left out."""
        head: dict[str, Json] = {
            "v": 1,
            "lane": record.lane,
            "epoch": record.epoch,
            "seq": record.seq,
            "group": self._gateway.group,
            "gateway": self._gateway.name,
            "connection": record.batch.device.connection,
            "device": record.batch.device.name,
        }
        if historical:
            head["historical"] = True
        if record.batch.lost:
            head["device_lost"] = True
        if part[1] > 1:
            head["part"], head["parts"] = part
        if (clock := self._clock()) is not Word.SYNCHRONISED:
            head["clock"] = clock.value
        if lost:
            head["lost"] = lost
        return head

    def _columns(self, batch: Batch, rows: slice, message: dict[str, Json]) -> bytes:
        message["tags"] = self._names(batch, rows)
        message["values"] = readable.values(batch, rows)
        quality = batch.quality[rows]
        if quality.any():
            message["quality"] = quality.tolist()
        times = (batch.time_ns[rows] // 1000).tolist()
        message["time_us"] = times[0] if times.count(times[0]) == len(times) else times
        return self._encoder.encode(message)

    def _tags(self, batch: Batch, rows: slice, message: dict[str, Json]) -> bytes:
        message["tags"] = [
            {"name": tag.name, "value": value, "unit": tag.unit, "quality": quality, "time_us": time_ns // 1000}
            for tag, value, quality, time_ns in _rows(batch, rows)
        ]
        return self._encoder.encode(message)

    def _thingsboard(self, batch: Batch, rows: slice, message: dict[str, Json]) -> bytes:
        by_time: dict[int, dict[str, Json]] = {}
        for tag, value, quality, time_ns in _rows(batch, rows):
            values = by_time.setdefault(time_ns // 1_000_000, {})
            if not quality & _BAD:
                values[tag.name] = value
            if quality:
                values[f"{tag.name}#quality"] = quality
        return self._encoder.encode({batch.device.name: [{"ts": ts, "values": values} for ts, values in by_time.items()]})

    def _names(self, batch: Batch, rows: slice) -> msgspec.Raw:
        """The JSON list of tag names, made once for each set of slots that a device reports together."""
        slots = batch.tag[rows]
        key = (id(batch.device), slots.tobytes())
        known = self._known_names.get(key)
        if known is not None:
            return known[1]
        if len(self._known_names) >= _NAMES_KEPT:
            self._known_names.clear()
        raw = msgspec.Raw(self._encoder.encode([batch.device.tags[slot].name for slot in slots.tolist()]))
        self._known_names[key] = (batch.device, raw)  # holding the device keeps its id from being given to another
        return raw


def _rows(batch: Batch, rows: slice) -> Iterator[tuple[Tag, Json, int, int]]:
    tags = [batch.device.tags[slot] for slot in batch.tag[rows].tolist()]
    return zip(tags, readable.values(batch, rows), batch.quality[rows].tolist(), batch.time_ns[rows].tolist(), strict=True)
