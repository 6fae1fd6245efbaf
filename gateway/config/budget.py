"""How much journal an outage fills: bytes a second at the configured rates, before anything runs.

Two figures bound the truth. *Every scan*: each value of each scan is reported. *Quiet*: a tag with a deadband reports only
when its maximum silence is over, the others every scan. What a quiet site already overfills is an error; what only a busy
one would is a warning, because nobody knows how the process will move.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from protocols.model import COLUMN_OF, Column, Device, Tag

RECORD_BYTES: Final = 70
"""Header, CRC and the row around one record."""
SLOT_BYTES: Final = 2
STORE_OVERHEAD: Final = 1.15
"""What SQLite's pages and its side file add."""
VALUE_BYTES: Final = {Column.BOOL: 1, Column.INT: 8, Column.UINT: 8, Column.FLOAT: 8, Column.OBJECT: 32}
"""Width of a value in a record; texts are taken as 32 bytes."""


@dataclass(frozen=True, slots=True)
class Rate:
    """What a set of devices brings."""

    values_s: float
    """Values a second."""
    bytes_s: float
    """Bytes that the journal takes for them, a second."""


def busy(devices: Iterable[Device]) -> Rate:
    """Every value of every scan is reported."""
    groups: Counter[tuple[int, float, Column]] = Counter()
    for number, device in enumerate(devices):
        for tag in device.tags:
            if tag.scan_s > 0:
                groups[number, tag.scan_s, COLUMN_OF[tag.kind]] += 1
    return _rate((1 / period, count, column) for (_, period, column), count in groups.items())


def quiet(devices: Iterable[Device]) -> Rate:
    """Tags with a deadband report only after their maximum silence."""
    groups: Counter[tuple[int, float, Column]] = Counter()
    for number, device in enumerate(devices):
        for tag in device.tags:
            if (period := _quiet_period(tag)) > 0:
                groups[number, period, COLUMN_OF[tag.kind]] += 1
    return _rate((1 / period, count, column) for (_, period, column), count in groups.items())


def _quiet_period(tag: Tag) -> float:
    steady = tag.deadband > 0 or tag.deadband_percent > 0
    return max(tag.scan_s, tag.max_silence_s) if steady and tag.scan_s > 0 and tag.max_silence_s > 0 else tag.scan_s


def _rate(groups: Iterable[tuple[float, int, Column]]) -> Rate:
    values = total = 0.0
    for per_second, count, column in groups:
        values += per_second * count
        total += per_second * (RECORD_BYTES + count * (SLOT_BYTES + VALUE_BYTES[column]))
    return Rate(values, total * STORE_OVERHEAD)
