"""Windows that were sent and are not confirmed yet: who confirms them, how long to wait, what becomes of them.

The broker confirms with the PUBACK of the ledger mark, a consumer with an Ack that repeats the mark's figures. A window
that a consumer does not confirm in time is sent again; a mark that the broker rejects ends the session with Refused, and
nothing in it counts as delivered. All of it belongs to one connection: the next one starts with nothing open, because the
feed then takes whatever was not acknowledged for history.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import Final

from gateway.journal.record import Lost, Record
from gateway.telemetry.counters import Counters
from gateway.uplink.feed import Feed, Portion
from gateway.uplink.mark import Ack, Mark
from gateway.uplink.mqtt import Rejected
from protocols.clock import Clock
from protocols.contract import Refused

MOST_OPEN: Final = 64
"""Windows that may be open at once; more would only hold memory."""


@dataclass(frozen=True, slots=True)
class _Window:
    portion: Portion
    mark: Mark
    deadline: float
    """Monotonic seconds."""


class Confirmations:
    """``timeout_s`` None means that the broker's PUBACK confirms; else a consumer does, within so many seconds."""

    def __init__(self, feed: Feed, counters: Counters, *, clock: Clock, timeout_s: float | None) -> None:
        self._feed = feed
        self._counters = counters
        self._clock = clock
        self._timeout_s = timeout_s
        self._open: dict[int, _Window] = {}
        self._changed = asyncio.Event()
        self._rejected: Rejected | None = None

    @property
    def records(self) -> int:
        """How many records wait for a confirmation."""
        return sum(window.mark.records for window in self._open.values())

    async def room(self) -> None:
        """Wait until another window may be opened."""
        while len(self._open) >= MOST_OPEN:
            await self._change()

    def sent(self, portion: Portion, mark: Mark, puback: asyncio.Future[None]) -> None:
        """The window is on its way; ``puback`` answers its mark."""
        deadline = self._clock.monotonic() + (self._timeout_s or 0.0)
        self._open[mark.window] = _Window(portion, mark, deadline)
        puback.add_done_callback(lambda answer: self._answered(mark.window, answer))
        self._note_oldest()
        self._changed.set()

    def confirmed(self, ack: Ack) -> bool:
        """A consumer took over a window. False where the word fits no open window: it is then not believed."""
        window = self._open.get(ack.window)
        if self._timeout_s is None or window is None:
            return False
        mark = window.mark
        if (ack.lane, ack.epoch, ack.first, ack.last, ack.digest) != (mark.lane, mark.epoch, mark.first, mark.last, mark.digest):
            return False
        self._settle(ack.window)
        return True

    async def watch(self) -> None:
        """Send again what no consumer confirms in time. Raises Refused when the broker rejects a mark."""
        while True:
            if self._rejected is not None:
                raise Refused(str(self._rejected))
            oldest = next(iter(self._open.values()), None)
            if self._timeout_s is None or oldest is None:
                await self._change()
            elif oldest.deadline > self._clock.monotonic():
                await self._until(oldest.deadline)
            else:
                del self._open[oldest.mark.window]
                self._counters.errors["not-confirmed"] += 1
                self._feed.again(oldest.portion)
                self._note_oldest()
                self._changed.set()

    def _answered(self, number: int, answer: asyncio.Future[None]) -> None:
        if answer.cancelled():
            return
        error = answer.exception()
        if isinstance(error, Rejected):
            self._rejected = error
            self._changed.set()
        elif error is None and self._timeout_s is None:
            self._settle(number)

    def _settle(self, number: int) -> None:
        window = self._open.pop(number, None)
        if window is None:
            return
        self._feed.acknowledge(window.portion)
        self._counters.given += window.mark.records
        for entry in window.portion.entries:
            if isinstance(entry, Lost):
                self._counters.dropped[entry.reason] += entry.records
        self._note_oldest()
        self._changed.set()

    def _note_oldest(self) -> None:
        """For the counters: when the oldest record that waits for a confirmation was written."""
        oldest = next(iter(self._open.values()), None)
        entries = oldest.portion.entries if oldest is not None else []
        self._counters.oldest_ns = next((entry.written_ns for entry in entries if isinstance(entry, Record)), 0)

    async def _change(self) -> None:
        """Wait for the next change. Several may wait: a set event has woken them all before anyone clears it."""
        await self._changed.wait()
        self._changed.clear()

    async def _until(self, moment: float) -> None:
        waits = [asyncio.ensure_future(self._changed.wait()), asyncio.ensure_future(self._clock.sleep_until(moment))]
        try:
            await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for one in waits:
                one.cancel()
        self._changed.clear()
