"""Windows that were sent and are not confirmed yet: who confirms them, how long to wait, what becomes of them.

The broker confirms with the PUBACK of the ledger mark, a consumer with an Ack that repeats the mark's figures. A mark that
the broker rejects ends the session with Refused, and nothing in it counts as delivered. (MQTT 3.1.1 knows no reasons: a
broker that refuses a mark there looks like one that took it, so prefer MQTT 5, or let a consumer confirm.)

A consumer may be away for hours, or come back after us when the broker restarts. Sending everything to nobody again and
again would fill the link, and history that goes on without its lost beginning would arrive out of order. So until the
consumer has confirmed something on this connection, and again when it falls silent, history goes one window at a time,
the oldest first, and is repeated until it is confirmed. Live windows flow all the while, for others may listen; those that
are not confirmed in time are *parked* until the consumer is heard, and then sent again as history.

All of it belongs to one connection: the next one starts with nothing open, because the feed then takes whatever was not
acknowledged for history.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, replace
from typing import Final

from gateway.counters import Counters
from gateway.journal.record import Lane, Lost, Record
from gateway.uplink.feed import Feed, Portion
from gateway.uplink.mark import Ack, Mark
from gateway.uplink.spans import Spans
from protocols.clock import Clock
from protocols.contract import Refused
from protocols.mqtt.client import Rejected

MOST_OPEN: Final = 64
"""Windows that may be open at once; more would only hold memory."""
PROBE_RECORDS: Final = 100
"""So many parked records are sent again to find out whether the consumer is back."""


@dataclass(frozen=True, slots=True)
class _Window:
    portion: Portion
    """Without its records: they would only take memory."""
    mark: Mark
    oldest_ns: int
    """When its oldest record was written."""
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
        self._parked = {lane: Spans() for lane in Lane}
        self._late: dict[int, _Window] = {}
        """The last windows that were parked: a word that comes late is believed as well."""
        self._silent = timeout_s is not None
        """Nothing has been confirmed yet, or not since a window was not confirmed in time."""

    @property
    def records(self) -> int:
        """How many records wait for a confirmation, or to be sent again when the consumer is back."""
        return sum(window.mark.records for window in self._open.values()) + sum(parked.count() for parked in self._parked.values())

    async def room(self) -> None:
        """Wait until another window may be opened. A consumer that is away is not waited for."""
        while len(self._open) >= MOST_OPEN:
            if self._silent:
                self._set_aside(next(iter(self._open)))
            else:
                await self._change()

    def sent(self, portion: Portion, mark: Mark, puback: asyncio.Future[None]) -> None:
        """The window is on its way; ``puback`` answers its mark."""
        deadline = self._clock.monotonic() + (self._timeout_s or 0.0)
        oldest_ns = next((entry.written_ns for entry in portion.entries if isinstance(entry, Record)), 0)
        gone = [entry for entry in portion.entries if isinstance(entry, Lost)]
        self._open[mark.window] = _Window(replace(portion, entries=[*gone]), mark, oldest_ns, deadline)
        puback.add_done_callback(lambda answer: self._answered(mark.window, portion, answer))
        self._changes()

    def confirmed(self, ack: Ack) -> bool:
        """A consumer took over a window. False where the word fits no window: it is then not believed."""
        window = self._open.get(ack.window) or self._late.get(ack.window)
        if self._timeout_s is None or window is None:
            return False
        mark = window.mark
        if (ack.lane, ack.epoch, ack.first, ack.last, ack.digest) != (mark.lane, mark.epoch, mark.first, mark.last, mark.digest):
            return False
        self._settle(ack.window)
        if self._silent:
            self._silent = False
            self._catch_up()
        return True

    def _catch_up(self) -> None:
        """The consumer is heard: what was sent while nobody listened is history that it has not got."""
        for number in [number for number, window in self._open.items() if window.portion.historical]:
            self._set_aside(number)
        for lane, parked in self._parked.items():
            for first, last in parked:
                self._send_again(lane, first, last)
            self._parked[lane] = Spans()

    async def watch(self) -> None:
        """Set aside what no consumer confirms in time. Raises Refused when the broker rejects a mark."""
        while True:
            if self._rejected is not None:
                raise Refused(str(self._rejected))
            oldest = next(iter(self._open.values()), None)
            if self._timeout_s is None or oldest is None:
                await self._change()
            elif oldest.deadline > self._clock.monotonic():
                await self._until(oldest.deadline)
            else:
                self._silent = True
                self._counters.errors["not-confirmed"] += 1
                self._set_aside(oldest.mark.window)
                if not self._open:
                    self._probe()

    def _set_aside(self, number: int) -> None:
        """An open window is given up: history goes back to where it was, a live window is parked."""
        window = self._late[number] = self._open.pop(number)
        if len(self._late) > MOST_OPEN:
            del self._late[next(iter(self._late))]
        portion = window.portion
        if portion.historical:
            self._send_again(portion.lane, portion.first, portion.last)
        else:
            self._parked[portion.lane].add(portion.first, portion.last)
        self._changes()

    def _changes(self) -> None:
        """After every change of what is open."""
        self._feed.hold_history(self._silent and any(window.portion.historical for window in self._open.values()))
        self._note_oldest()
        self._changed.set()

    def _probe(self) -> None:
        """Nothing is on its way: if there is no history to find out with, a piece of what is parked becomes history."""
        if any(self._feed.has_history(lane) for lane in Lane):
            return
        for lane, parked in self._parked.items():
            for first, last in parked:
                end = min(last, first + PROBE_RECORDS - 1)
                parked.remove(first, end)
                self._send_again(lane, first, end)
                return

    def _send_again(self, lane: Lane, first: int, last: int) -> None:
        self._feed.again(Portion(lane, 0, first, last, [], historical=True))

    def _answered(self, number: int, portion: Portion, answer: asyncio.Future[None]) -> None:
        if answer.cancelled():
            return
        self._feed.passed(portion)
        error = answer.exception()
        if isinstance(error, Rejected):
            self._rejected = error
            self._changed.set()
        elif error is None and self._timeout_s is None:
            self._settle(number)

    def _settle(self, number: int) -> None:
        window = self._open.pop(number, None) or self._late.pop(number, None)
        if window is None:
            return
        self._parked[window.portion.lane].remove(window.portion.first, window.portion.last)
        self._feed.acknowledge(window.portion)
        self._counters.given += window.mark.records
        for entry in window.portion.entries:
            if isinstance(entry, Lost):
                self._counters.dropped[entry.reason] += entry.records
        self._changes()

    def _note_oldest(self) -> None:
        """For the counters: when the oldest record that waits for a confirmation was written."""
        oldest = next(iter(self._open.values()), None)
        self._counters.oldest_ns = oldest.oldest_ns if oldest is not None else 0

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
