"""The five things that every component counts: in, out, errors by reason, dropped by reason, age of the oldest.

Plain integers, raised where the work is done and read by ``telemetry/metrics.py`` when somebody asks: counting costs nothing on
the hot path and needs no library there.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field


@dataclass(slots=True)
class Counters:
    taken: int = 0
    """What came in, in the component's own unit (values for a connection, records for an uplink)."""
    given: int = 0
    """What went out and was confirmed by whoever received it."""
    errors: Counter[str] = field(default_factory=Counter)
    dropped: Counter[str] = field(default_factory=Counter)
    oldest_ns: int = 0
    """UTC stamp of the oldest thing that waits; 0 when nothing waits."""
