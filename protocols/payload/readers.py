"""One class for each shape of payload: what is compiled from the tags, and how bytes become readings.

``read`` gives readings (slot, raw value, quality, time) or raises Undecodable; what is wrong with one tag is that tag's
quality. NOTHING as a raw value means that the payload does not have the tag.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Final, Protocol

from protocols.model import Quality
from protocols.payload import documents, markup, senml, table
from protocols.payload.births import Births
from protocols.payload.formats import Format
from protocols.payload.layout import compile_layout
from protocols.payload.options import PayloadOptions, PayloadTag
from protocols.payload.paths import NOTHING, Find, compile_path, compile_records
from protocols.payload.scalars import from_text
from protocols.payload.times import judged, source_time
from protocols.payload.trouble import BadPlace, Undecodable
from protocols.values import Reading

MAX_HISTORY: Final = 10_000
"""Records of one payload that become readings."""

Place = tuple[int, PayloadTag]
"""A slot and its tag."""


class Reader(Protocol):
    def read(self, payload: bytes, now_ns: int) -> list[Reading]: ...


def sum_place(at: str) -> tuple[str, bool]:
    """A SenML place: the record's full name, and whether its sum is meant (``name#sum``)."""
    name, marked, word = at.partition("#")
    if not name or not senml.NAME_CHARACTERS.issuperset(name) or (marked and word != "sum"):
        raise BadPlace(f"{at!r} names no SenML record", "write the record's full name (base name and name), with #sum for its sum")
    return name, bool(marked)


class DocumentReader:
    """JSON and CBOR."""

    def __init__(self, load: Callable[[bytes], Any], places: Sequence[Place], options: PayloadOptions) -> None:  # Any: JSON
        self._load = load
        self._finds: list[tuple[int, PayloadTag, Find]] = [(slot, tag, compile_path(tag.at or "$")) for slot, tag in places]
        self._records = compile_records(options.records_at, MAX_HISTORY + 1) if options.records_at else None
        self._time = compile_path(options.time_at) if options.time_at else None
        self._time_format = options.time_format

    def read(self, payload: bytes, now_ns: int) -> list[Reading]:
        document = self._load(payload)
        if self._records is None:
            return self._readings(document, now_ns)
        records = self._records(document)
        if len(records) * len(self._finds) > MAX_HISTORY * 10 or len(records) > MAX_HISTORY:
            raise Undecodable(f"the payload has more than {MAX_HISTORY} records")
        return [reading for record in records for reading in self._readings(record, now_ns)]

    def _readings(self, document: Any, now_ns: int) -> list[Reading]:  # Any: JSON
        time_ns, quality = now_ns, Quality.GOOD
        if self._time is not None:
            time_ns, quality = judged(source_time(self._time(document), self._time_format), now_ns)
        readings: list[Reading] = []
        for slot, tag, find in self._finds:
            try:
                value = find(document)
            except Undecodable as trouble:
                readings.append((slot, None, trouble.quality, time_ns))
                continue
            if tag.from_text and isinstance(value, str):
                value = from_text(value, tag.kind)
            readings.append((slot, value, quality, time_ns))
        return readings


class SenmlReader:
    def __init__(self, load: Callable[[bytes, int], list[senml.Record]], places: Sequence[Place]) -> None:
        self._load = load
        self._slots: dict[tuple[str, bool], list[int]] = {}
        for slot, tag in places:
            self._slots.setdefault(sum_place(tag.at), []).append(slot)

    def read(self, payload: bytes, now_ns: int) -> list[Reading]:
        readings: list[Reading] = []
        missing = dict.fromkeys(slot for slots in self._slots.values() for slot in slots)
        for record in self._load(payload, now_ns):
            time_ns, quality = judged(record.time_ns, now_ns)
            for value, is_sum in ((record.value, False), (record.sum, True)):
                if value is not None:
                    for slot in self._slots.get((record.name, is_sum), ()):
                        readings.append((slot, value, quality, time_ns))
                        missing.pop(slot, None)
        return readings + [(slot, NOTHING, Quality.GOOD, now_ns) for slot in missing]


class TextReader:
    """The whole payload is the value of every tag."""

    def __init__(self, places: Sequence[Place]) -> None:
        for _, tag in places:
            if tag.at:
                raise BadPlace(f"{tag.at!r} in a payload that is one value", "leave at empty: the whole payload is the value")
        self._places = tuple(places)

    def read(self, payload: bytes, now_ns: int) -> list[Reading]:
        try:
            text = payload.decode("utf-8-sig")
        except UnicodeDecodeError:
            raise Undecodable("the payload is no UTF-8 text") from None
        return [(slot, from_text(text, tag.kind), Quality.GOOD, now_ns) for slot, tag in self._places]


class TableReader:
    """CSV. With ``time_at`` every row is a record of its own; without, the last row counts."""

    def __init__(self, places: Sequence[Place], options: PayloadOptions) -> None:
        self._header = options.csv_header
        self._delimiter = options.csv_delimiter
        self._columns = [(slot, tag, table.compile_column(tag.at, header=self._header)) for slot, tag in places]
        self._time = table.compile_column(options.time_at, header=self._header) if options.time_at else None
        self._time_format = options.time_format

    def read(self, payload: bytes, now_ns: int) -> list[Reading]:
        header, rows = table.read_rows(payload, self._delimiter, header=self._header)
        if not rows:
            return [(slot, NOTHING, Quality.GOOD, now_ns) for slot, _, _ in self._columns]
        readings: list[Reading] = []
        first = 0 if self._time is not None else len(rows) - 1
        if (len(rows) - first) * len(self._columns) > table.MAX_CELLS:
            raise Undecodable(f"the payload has more than {table.MAX_CELLS} values")
        for number in range(first, len(rows)):
            for slot, tag, column in self._columns:
                if column.row is None:
                    readings.append(self._reading(slot, tag, column, header, rows[number], now_ns))
        for slot, tag, column in self._columns:
            if column.row is not None:
                row = rows[column.row] if -len(rows) <= column.row < len(rows) else []
                readings.append(self._reading(slot, tag, column, header, row, now_ns))
        return readings

    def _reading(
        self, slot: int, tag: PayloadTag, column: table.Column, header: dict[str, int], row: list[str], now_ns: int
    ) -> Reading:  # fmt: skip
        time_ns, quality = now_ns, Quality.GOOD
        if self._time is not None:
            time_ns, quality = judged(source_time(self._time.of(header, row), self._time_format), now_ns)
        text = column.of(header, row)
        return (slot, NOTHING if text is None else from_text(text, tag.kind), quality, time_ns)


class MarkupReader:
    """XML."""

    def __init__(self, places: Sequence[Place], options: PayloadOptions) -> None:
        self._paths = [(slot, tag, markup.compile_xml_path(tag.at)) for slot, tag in places]
        self._time = markup.compile_xml_path(options.time_at) if options.time_at else None
        self._time_format = options.time_format

    def read(self, payload: bytes, now_ns: int) -> list[Reading]:
        root = markup.read_xml(payload)
        time_ns, quality = now_ns, Quality.GOOD
        if self._time is not None:
            time_ns, quality = judged(source_time(self._time.of(root), self._time_format), now_ns)
        readings: list[Reading] = []
        for slot, tag, path in self._paths:
            try:
                text = path.of(root)
            except Undecodable as trouble:
                readings.append((slot, None, trouble.quality, time_ns))
                continue
            readings.append((slot, NOTHING if text is None else from_text(text, tag.kind), quality, time_ns))
        return readings


class RawReader:
    def __init__(self, places: Sequence[Place], options: PayloadOptions) -> None:
        self._layouts = [(slot, compile_layout(tag.at or "0:bytes")) for slot, tag in places]
        self._time = compile_layout(options.time_at) if options.time_at else None
        self._time_format = options.time_format

    def read(self, payload: bytes, now_ns: int) -> list[Reading]:
        time_ns, quality = now_ns, Quality.GOOD
        if self._time is not None:
            time_ns, quality = judged(source_time(self._time.read(payload), self._time_format), now_ns)
        readings: list[Reading] = []
        for slot, layout in self._layouts:
            value = layout.read(payload)
            readings.append((slot, NOTHING if value is None else value, quality, time_ns))
        return readings


class SparkplugReader:
    """Data leans on the birth that was read before it; what a data message leaves out stands."""

    def __init__(self, places: Sequence[Place], options: PayloadOptions) -> None:
        self._max_bytes = options.max_bytes
        self.births = Births()
        self._places: dict[str, list[Place]] = {}
        for slot, tag in places:
            if not tag.at:
                raise BadPlace("no metric is said", "write the metric's name as the device's birth has it")
            self._places.setdefault(tag.at, []).append((slot, tag))

    def read(self, payload: bytes, now_ns: int, *, birth: bool = False) -> list[Reading]:
        message, metrics = self.births.read(payload, self._max_bytes, birth=birth)
        readings: list[Reading] = []
        seen: set[str] = set()
        for metric in metrics:
            places = self._places.get(metric.name, ())
            if places:
                seen.add(metric.name)
            for slot, tag in places:
                at_ms = metric.time_ms if metric.time_ms is not None else message.timestamp_ms
                time_ns, quality = judged(at_ms * 1_000_000, now_ns) if at_ms is not None else (now_ns, Quality.GOOD)
                value = from_text(metric.value, tag.kind) if tag.from_text and isinstance(metric.value, str) else metric.value
                readings.append((slot, value, metric.quality if metric.quality else quality, time_ns))
        if birth:
            readings += [
                (slot, None, Quality.BAD_NODE_ID_UNKNOWN, now_ns)
                for name, all_ in self._places.items()
                if name not in seen
                for slot, _ in all_
            ]
        return readings


def make_reader(format: Format, places: Sequence[Place], options: PayloadOptions) -> Reader:
    """Raises BadPlace: compile one place alone to learn whose it is."""
    match format:
        case Format.JSON:
            return DocumentReader(documents.read_json, places, options)
        case Format.CBOR:
            return DocumentReader(documents.read_cbor, places, options)
        case Format.SENML_JSON:
            return SenmlReader(senml.read_senml_json, places)
        case Format.SENML_CBOR:
            return SenmlReader(senml.read_senml_cbor, places)
        case Format.TEXT:
            return TextReader(places)
        case Format.CSV:
            return TableReader(places, options)
        case Format.XML:
            return MarkupReader(places, options)
        case Format.RAW:
            return RawReader(places, options)
        case Format.AUTO:
            raise BadPlace("nothing says what the payload is", "say its format")
        case Format.SPARKPLUG:
            return SparkplugReader(places, options)
