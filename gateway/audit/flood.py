"""How many refusals become entries: enough to see who knocks, never so many that a flood fills the disk. Pure.

Each source has a bucket of its own, and all share one. What finds both empty is counted, and the count becomes an entry.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import Final

BURST: Final = 20
PER_S: Final = 0.1
ALL_BURST: Final = 200
ALL_PER_S: Final = 1.0
MOST_SOURCES: Final = 1024


class _Bucket:
    __slots__ = ("_at", "_level")

    def __init__(self, burst: float, now: float) -> None:
        self._level, self._at = burst, now

    def has(self, burst: float, per_s: float, now: float) -> bool:
        """Whether there is one in it; it is filled first."""
        self._level = min(burst, self._level + max(0.0, now - self._at) * per_s)
        self._at = now
        return self._level >= 1

    def take(self) -> None:
        self._level -= 1


class Flood:
    """``now`` is monotonic, in seconds."""

    def __init__(self) -> None:
        self._sources: OrderedDict[str, _Bucket] = OrderedDict()
        self._all: _Bucket | None = None
        self._left_out: dict[str, int] = {}
        self._others = 0

    def admits(self, source: str, now: float) -> bool:
        """Whether one more refusal of ``source`` becomes an entry."""
        bucket = self._sources.pop(source, None) or _Bucket(BURST, now)
        self._sources[source] = bucket
        if len(self._sources) > MOST_SOURCES:
            self._sources.popitem(last=False)
        self._all = self._all or _Bucket(ALL_BURST, now)
        if bucket.has(BURST, PER_S, now) and self._all.has(ALL_BURST, ALL_PER_S, now):
            bucket.take()
            self._all.take()
            return True
        if source in self._left_out or len(self._left_out) < 16:
            self._left_out[source] = self._left_out.get(source, 0) + 1
        else:
            self._others += 1
        return False

    def left_out(self) -> dict[str, int]:
        """How many did not become entries since this was last asked, by source; ``""`` are all others."""
        told, others = self._left_out, self._others
        self._left_out, self._others = {}, 0
        return {**told, "": others} if others else told
