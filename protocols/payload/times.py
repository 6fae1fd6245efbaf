"""What a device calls its time, as UTC nanoseconds; and whether it can be believed."""

from __future__ import annotations

import math
import re
from datetime import UTC, datetime, timedelta
from typing import Any, Final

from protocols.model import Quality
from protocols.payload.options import TimeFormat

EARLIEST_NS: Final = 946_684_800_000_000_000
"""2000-01-01: a clock that says less has never been set."""
AHEAD_NS: Final = 600_000_000_000
"""A source's clock may be so far ahead of ours; one that is further ahead is wrong (a local time that is called UTC)."""
LONGEST_TIME: Final = 64
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_UNITS: Final[dict[str, int]] = {"s": 1_000_000_000, "ms": 1_000_000, "us": 1_000, "ns": 1}
_MAGNITUDES: Final = ((1e11, "s"), (1e14, "ms"), (1e17, "us"), (1e20, "ns"))
"""A count since 1970 below the first is in seconds, and so on: from 1973 on no two units meet."""
_FINE_FRACTION: Final = re.compile(r"([.,]\d{1,9})\d*")


def source_time(raw: Any, format: TimeFormat) -> int | None:  # Any: whatever stands where the time should
    """UTC nanoseconds; None where ``raw`` is no time."""
    if isinstance(raw, str):
        text = raw.strip()
        if not text or len(text) > LONGEST_TIME:
            return None
        if format != "iso8601":
            number = _number(text)
            if number is not None:
                return _count(number, format)
        return _iso(text) if format in ("iso8601", "auto") else None
    if isinstance(raw, bool) or not isinstance(raw, int | float) or format == "iso8601":
        return None
    return _count(raw, format)


def judged(source_ns: int | None, now_ns: int) -> tuple[int, Quality]:
    """The time to give a value, and the quality that its time deserves: a time that cannot be is replaced by that of arrival."""
    if source_ns is None or not EARLIEST_NS <= source_ns <= now_ns + AHEAD_NS:
        return now_ns, Quality.UNCERTAIN
    return source_ns, Quality.GOOD


def _number(text: str) -> int | float | None:
    try:
        return int(text)
    except ValueError:
        pass
    try:
        return float(text)
    except ValueError:
        return None


def _count(number: int | float, format: TimeFormat) -> int | None:
    if not math.isfinite(number) or not 0 <= number < 1e20:
        return None
    unit = next(unit for limit, unit in _MAGNITUDES if number < limit) if format in ("auto", "iso8601") else format
    if isinstance(number, int):
        return number * _UNITS[unit]
    return round(number * (_UNITS[unit] / 1000)) * 1000 if unit != "ns" else int(number)  # a float has no more than microseconds


def _iso(text: str) -> int | None:
    """ISO 8601 as ``datetime`` reads it, with up to nine digits of a second; without a zone it is UTC."""
    fraction = _FINE_FRACTION.search(text)
    nanoseconds = 0
    if fraction is not None:
        nanoseconds = int(fraction[1][1:].ljust(9, "0"))
        text = text[: fraction.start()] + text[fraction.end() :]
    try:
        moment = datetime.fromisoformat(text)
        if moment.tzinfo is None:
            moment = moment.replace(tzinfo=UTC)
        return (moment - _EPOCH) // timedelta(seconds=1) * 1_000_000_000 + nanoseconds
    except (ValueError, OverflowError):
        return None
