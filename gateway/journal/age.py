"""What time it is for retention: a clock that no jump of the wall clock can hurry.

Records are dropped for their age, and a wall clock that jumps forward must not make them old. So the trusted time
runs with the monotonic clock from the newest stamp that the journal holds. It follows the wall clock where the two
agree, or where the wall clock stands only a plausible rest ahead when the journal is opened; any other step is
believed after the wall clock has kept it for a day. Too little is dropped by age rather than too much: the bound in
bytes holds in any case. Pure.
"""

from __future__ import annotations

from typing import Final

AGREE_S: Final = 60.0
BELIEVE_AFTER_S: Final = 86400.0


class TrustedTime:
    """Call :meth:`now` now and then, with what both clocks say."""

    def __init__(self, newest_ns: int, wall_ns: int, monotonic: float, plausible_s: float) -> None:
        """``plausible_s`` is the longest rest since ``newest_ns`` that is believed at once: a small part of the age that
        matters, so that a clock that is wrong when the journal is opened costs little."""
        rest_s = (wall_ns - newest_ns) / 1e9
        begin_ns = wall_ns if newest_ns == 0 or 0 <= rest_s <= plausible_s else newest_ns
        self._offset_s = begin_ns / 1e9 - monotonic
        self._claim_s = self._offset_s
        self._claimed_at = monotonic

    def now(self, wall_ns: int, monotonic: float) -> int:
        """Trusted UTC nanoseconds."""
        offset = wall_ns / 1e9 - monotonic
        if abs(offset - self._offset_s) <= AGREE_S:
            self._offset_s = self._claim_s = offset
            self._claimed_at = monotonic
        elif abs(offset - self._claim_s) > AGREE_S:
            self._claim_s, self._claimed_at = offset, monotonic
        elif monotonic - self._claimed_at >= BELIEVE_AFTER_S:
            self._offset_s = self._claim_s
        return int((self._offset_s + monotonic) * 1e9)
