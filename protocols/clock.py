"""Time is an argument: the one place that asks the machine what time it is, and a clock for tests that stands still.

Stamps are UTC nanoseconds (``time_ns``); waiting uses a monotonic clock in seconds (``monotonic``, ``sleep_until``),
so that a wall clock that jumps disturbs no schedule.
"""

from __future__ import annotations

import asyncio
import heapq
import itertools
import math
import time
from typing import Final, Protocol

_ROUNDING_MS: Final = 1e-4
"""A moment that lies this little behind a whole millisecond is that millisecond: sums of floats are not exact."""
_FOREVER_S: Final = 1e9


class Clock(Protocol):
    def time_ns(self) -> int:
        """UTC now, nanoseconds since 1970."""
        ...

    def monotonic(self) -> float:
        """Seconds since some fixed moment; never goes back."""
        ...

    async def sleep_until(self, moment: float) -> None:
        """Return when ``monotonic()`` has reached ``moment``; at once (but yielding) if it has."""
        ...


class SystemClock:
    time_ns = staticmethod(time.time_ns)
    monotonic = staticmethod(time.monotonic)

    async def sleep_until(self, moment: float) -> None:
        """Up to a millisecond late, never early: uvloop's timers count whole milliseconds, of a time that is cut to whole ones.

        Who was woken early would sleep again for less than a millisecond, which uvloop takes for none, and so would turn
        the loop without pause until the moment has come: that was an eighth of all CPU at 100 scans a second.
        """
        now = time.monotonic()
        if moment <= now:
            await asyncio.sleep(0)
            return
        end_ms = math.ceil(min(moment, now + _FOREVER_S) * 1000 - _ROUNDING_MS)
        await asyncio.sleep((end_ms - math.floor(now * 1000)) / 1000)


class ManualClock:
    """A clock that moves only when told. ``advance`` wakes sleepers in order and lets the loop run between them."""

    def __init__(self, time_ns: int = 1_700_000_000_000_000_000, monotonic: float = 1000.0) -> None:
        self._time_ns = time_ns
        self._monotonic = monotonic
        self._sleepers: list[tuple[float, int, asyncio.Future[None]]] = []
        self._order = itertools.count()

    def time_ns(self) -> int:
        return self._time_ns

    def monotonic(self) -> float:
        return self._monotonic

    def set_time_ns(self, time_ns: int) -> None:
        """Step the wall clock, as NTP or a person would; the monotonic clock is not disturbed."""
        self._time_ns = time_ns

    async def sleep_until(self, moment: float) -> None:
        if moment <= self._monotonic:
            await asyncio.sleep(0)
            return
        waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        heapq.heappush(self._sleepers, (moment, next(self._order), waiter))
        await waiter

    @property
    def sleeping(self) -> int:
        """How many tasks wait for this clock."""
        return sum(not waiter.done() for _, _, waiter in self._sleepers)

    async def advance(self, seconds: float) -> None:
        """Move both clocks on by ``seconds``, stopping at each sleeper's moment on the way."""
        end = self._monotonic + seconds
        await _settle()
        while self._sleepers and self._sleepers[0][0] <= end:
            moment, _, waiter = heapq.heappop(self._sleepers)
            if waiter.done():  # its task was cancelled
                continue
            self._step(moment)
            waiter.set_result(None)
            await _settle()
        self._step(end)
        await _settle()

    def _step(self, moment: float) -> None:
        self._time_ns += round((moment - self._monotonic) * 1e9)
        self._monotonic = moment


async def _settle() -> None:
    for _ in range(20):  # enough turns of the loop for a chain of ready tasks to run
        await asyncio.sleep(0)
