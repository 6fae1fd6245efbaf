"""Stored values of many tags as a stream of bytes: CSV (RFC 4180) and NDJSON here, Arrow and Parquet in ``arrow``.

A format takes portions of values and gives bytes; it never holds more than one portion. Text cells of CSV that a
spreadsheet would take for a formula begin with an apostrophe (CWE-1236).
"""

from __future__ import annotations

import csv
import importlib
import io
from collections.abc import AsyncIterator, Sequence
from typing import Any, Final, Protocol

import msgspec
import numpy as np

from gateway import readable
from gateway.history.history import Found, Gap, History, Samples
from gateway.history.moment import rfc_3339
from gateway.history.sums import BAD
from gateway.objections import Unfit
from gateway.readable import JsonValue

COLUMNS: Final = ("time", "time_ns", "device", "tag", "value", "unit", "quality", "epoch", "seq")
MEDIA_TYPES: Final = {
    "csv": "text/csv; charset=utf-8; header=present",
    "ndjson": "application/x-ndjson",
    "arrow": "application/vnd.apache.arrow.stream",
    "parquet": "application/vnd.apache.parquet",
}
"""By format: the registered names, where there are any."""
ENDINGS: Final = {"csv": "csv", "ndjson": "ndjson", "arrow": "arrows", "parquet": "parquet"}
_FORMULA: Final = ("=", "+", "-", "@", "\t", "\r")


class Format(Protocol):
    """Bytes of one export. Called in the order begin, portion (any number of times), end."""

    def begin(self) -> bytes: ...

    def portion(self, found: Found, samples: Samples) -> bytes: ...

    def end(self, gaps: Sequence[Gap]) -> bytes: ...


class Csv:
    """A line for each value, the first one with names."""

    def begin(self) -> bytes:
        return _lines([COLUMNS])

    def portion(self, found: Found, samples: Samples) -> bytes:
        device, tag, unit = (_harmless(each) for each in (found.device, found.tag.name, found.tag.unit))
        rows = zip(
            samples.time_ns.tolist(), values(samples), samples.quality.tolist(), samples.epoch.tolist(), samples.seq.tolist(), strict=True
        )
        return _lines(
            (rfc_3339(time_ns), time_ns, device, tag, _cell(value), unit, quality, epoch, seq)
            for time_ns, value, quality, epoch, seq in rows
        )

    def end(self, gaps: Sequence[Gap]) -> bytes:
        return b""


class Ndjson:
    """A JSON object for each value, and in the end one for each gap."""

    def begin(self) -> bytes:
        return b""

    def portion(self, found: Found, samples: Samples) -> bytes:
        rows = zip(
            samples.time_ns.tolist(), values(samples), samples.quality.tolist(), samples.epoch.tolist(), samples.seq.tolist(), strict=True
        )
        said = {"device": found.device, "tag": found.tag.name, "unit": found.tag.unit}
        return _ENCODER.encode_lines(
            {"time_ns": time_ns, **said, "value": value, "quality": quality, "epoch": epoch, "seq": seq}
            for time_ns, value, quality, epoch, seq in rows
        )

    def end(self, gaps: Sequence[Gap]) -> bytes:
        return _ENCODER.encode_lines(
            {"gap": {"from_ns": each.from_ns, "to_ns": each.to_ns, "reason": each.reason, "records": each.records}} for each in gaps
        )


_ENCODER: Final = msgspec.json.Encoder()


def format_of(name: str, series: Sequence[Found]) -> Format:
    """The format called ``name``. Raises Unfit where it does not exist, or not here."""
    if name == "csv":
        return Csv()
    if name == "ndjson":
        return Ndjson()
    if name not in MEDIA_TYPES:
        raise Unfit(f"there is no format {name!r}", f"one of {', '.join(MEDIA_TYPES)}")
    try:
        module = importlib.import_module("gateway.history.arrow")  # 60 MB that a gateway without it does not need
    except ImportError as error:
        raise Unfit(f"{name} needs a package that is not installed here", 'pip install "holdfast[arrow]", or ask for csv') from error
    made: Format = module.Parquet(series) if name == "parquet" else module.ArrowStream(series)
    return made


async def exported(history: History, series: Sequence[Found], from_ns: int, to_ns: int, form: Format) -> AsyncIterator[bytes]:
    """The bytes of an export, tag after tag, each in order of time. Inside a turn."""
    ask = history.follower.ask
    gone: list[Gap] = []
    yield form.begin()
    for found in series:
        async for samples in history.samples(found, from_ns, to_ns, gone):
            if len(samples):
                yield await ask(form.portion, found, samples)
    yield await ask(form.end, [*gone, *await history.gaps(from_ns, to_ns)])


def values(samples: Samples) -> list[JsonValue]:
    """As JSON says them: see ``gateway.readable``."""
    listed: list[Any] = samples.value.tolist()  # Any: see Batch.value
    if samples.value.dtype.kind in "fO":
        listed = [readable.value(each) for each in listed]
    for at in np.flatnonzero(samples.quality >= BAD):
        listed[at] = None
    return listed


def _lines(rows: Any) -> bytes:  # Any: rows of cells
    out = io.StringIO(newline="")
    csv.writer(out, lineterminator="\r\n").writerows(rows)
    return out.getvalue().encode()


def _cell(value: JsonValue) -> JsonValue:
    if isinstance(value, bool):
        return "true" if value else "false"
    return _harmless(value) if isinstance(value, str) and value not in ("NaN", "Infinity", "-Infinity") else value


def _harmless(text: str) -> str:
    """A text that no spreadsheet takes for a formula; NUL, which RFC 4180 cannot say, is left out."""
    text = text.replace("\0", "")
    return f"'{text}" if text.lstrip(" ").startswith(_FORMULA) else text
