"""How much journal an outage fills: bytes a second at the configured rates, before anything runs.

Two figures bound the truth. *Every scan*: each value of each scan is reported. *Quiet*: a tag with a deadband reports only
when its maximum silence is over, the others every scan. What a quiet site already overfills is an error; what only a busy
one would is a warning, because nobody knows how the process will move.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Final

from protocols.model import COLUMN_OF, Column, Device, Kind, Tag

# The journal's format as far as it costs bytes; tests/gateway/config/test_budget.py holds it against the journal's own code.
FRAME_BYTES: Final = 66
"""Header of a record, its time, and what its first slot takes more than the others."""
ROW_BYTES: Final = 15
"""What SQLite adds to a row."""
SLOT_BYTES: Final = 2
"""The slot of a value, where not all of a scan's values are reported."""
PAGE_BYTES: Final = 8192
PAGE_ROOM: Final = 8184
"""Bytes of a page for rows; a row never crosses a page."""
LARGEST_BODY: Final = 7 * 1024
"""What is larger is halved until it fits: two, four, eight records."""
WIDTH: Final[dict[Kind, float]] = {
    Kind.BOOL: 1 / 8,
    Kind.INT8: 1,
    Kind.INT16: 2,
    Kind.INT32: 4,
    Kind.INT64: 8,
    Kind.UINT8: 1,
    Kind.UINT16: 2,
    Kind.UINT32: 4,
    Kind.UINT64: 8,
    Kind.FLOAT32: 4,
    Kind.FLOAT64: 8,
    Kind.STRING: 36,
    Kind.BYTES: 36,
}
"""Bytes of a value; texts are taken as 32 bytes long. The widest kind of a record is the width of all its values."""
OVERHEAD: Final = 1.08
"""Inner pages of the tree, definitions, state, and the segment that goes as a whole when room is needed."""


@dataclass(frozen=True, slots=True)
class Rate:
    """What a set of devices brings."""

    values_s: float
    """Values a second."""
    bytes_s: float
    """Bytes that the journal takes for them, a second."""


def busy(devices: Iterable[Device]) -> Rate:
    """Every value of every scan is reported."""
    return _rate(devices, lambda tag: tag.scan_s)


def quiet(devices: Iterable[Device]) -> Rate:
    """Tags with a deadband report only after their maximum silence."""
    return _rate(devices, _quiet_period)


def record_bytes(values: int, width: float) -> float:
    """Bytes on disk of what one scan reports: ``values`` values, each ``width`` bytes wide."""
    body = values * (SLOT_BYTES + width)
    records = 1
    while body / records > LARGEST_BODY:
        records *= 2
    row = ROW_BYTES + FRAME_BYTES + body / records
    return records * PAGE_BYTES / max(1, PAGE_ROOM // row) * OVERHEAD


def _quiet_period(tag: Tag) -> float:
    steady = tag.deadband > 0 or tag.deadband_percent > 0
    return max(tag.scan_s, tag.max_silence_s) if steady and tag.scan_s > 0 and tag.max_silence_s > 0 else tag.scan_s


def _rate(devices: Iterable[Device], period_of: Callable[[Tag], float]) -> Rate:
    """One record for each device, period and column: what a scan brings."""
    groups: dict[tuple[int, float, Column], tuple[int, float]] = {}
    for number, device in enumerate(devices):
        for tag in device.tags:
            if (period := period_of(tag)) > 0:
                key = number, period, COLUMN_OF[tag.kind]
                count, width = groups.get(key, (0, 0.0))
                groups[key] = count + 1, max(width, WIDTH[tag.kind])
    values = sum(count / period for (_, period, _), (count, _) in groups.items())
    return Rate(values, sum(record_bytes(count, width) / period for (_, period, _), (count, width) in groups.items()))
