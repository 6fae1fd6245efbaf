"""What time it is for retention: a clock that never steps, and that no jump of the wall clock can hurry.

Records are dropped for their age, and an age is a difference; so this clock need not be right, only steady. It goes on
from the newest trusted time that the journal holds, with the monotonic clock while the process runs. Across a stop only the
wall clock knows how long it was: what it says is taken where it is plausible, else the stop counts as no time. A step of
the wall clock while the process runs is never taken over, however long it lasts; how far the wall clock stands ahead is
kept with each state, so that after it the next stop is measured from there. Too little is dropped by age rather than
too much (a gateway that was off for two months keeps what it has): the bound in bytes holds in any case. Pure.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

SECOND_NS: Final = 1_000_000_000


@dataclass(frozen=True, slots=True)
class Moment:
    """One moment on the clocks that the journal goes by."""

    monotonic: float
    """Seconds of this process alone: what waiting goes by."""
    trusted_ns: int
    """What ages go by."""
    ahead_ns: int
    """How far the wall clock stands ahead of trusted time."""


@dataclass(frozen=True, slots=True)
class Stored:
    """What the journal knew of the time when it was last stored."""

    trusted_ns: int
    """0 where nothing is known."""
    ahead_ns: int


class TrustedTime:
    """Trusted time of one process."""

    def __init__(self, stored: Stored, wall_ns: int, monotonic: float, plausible_s: float) -> None:
        """``plausible_s`` is the longest stop that is believed: a small part of the age that matters, so that a clock that is
        wrong when the journal is opened costs little."""
        stop_ns = wall_ns - stored.ahead_ns - stored.trusted_ns
        plausible = 0 <= stop_ns <= plausible_s * SECOND_NS
        self._began_ns = wall_ns if stored.trusted_ns == 0 else stored.trusted_ns + (stop_ns if plausible else 0)
        self._began = monotonic

    def now(self, wall_ns: int, monotonic: float) -> Moment:
        trusted_ns = self._began_ns + int((monotonic - self._began) * SECOND_NS)
        return Moment(monotonic, trusted_ns, wall_ns - trusted_ns)
