"""Decides what an uplink sends next: events before telemetry, live before history, history at a bounded share of the link.

*Live* is what was appended since the connection came up; it is sent in order as it comes. Everything older that is still
pending, and everything that has to be sent again, is *history* (backfill): sent in order as well, flagged, and while live
records flow only for ``backfill_share`` of the time: a portion of history that took the link for ``t`` is followed by a pause
of ``t * (1 - share) / share``. Portions of history start small, grow on a fast link, and shrink until one takes no longer
than PORTION_S, so that live records never wait long behind one, however slow the link is.

How long a portion took is known when the far end answers, not when the last byte has left us: kernels, modems and
brokers take seconds of traffic into their queues, and live records would wait behind all of it. So one portion of history is
on its way at a time, until :meth:`Feed.passed`. A round trip is no time of the link's, and on a satellite longer than any
portion: it is measured with live portions that had the link to themselves, and taken off.

If live itself falls behind by more than LIVE_LAG_S, what was skipped becomes history and live starts again at the newest
record: its latency stays bounded. The order of a tag's values holds inside live and inside history.

What was sent and not acknowledged when a connection ends is pending in the journal, and :meth:`Feed.begin` makes it history.
What the journal lost of it, in this life or an earlier one, is untold there until it is acknowledged: it is history too, and
handed out as Lost, so that the receiver is told what it will never get.

A disk that refuses to be read is waited out: it is said once, live records go on from memory, and history when it can be read.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final, Protocol

import structlog

from gateway.journal.record import Lane, Lost, Record
from gateway.journal.segment import StorageError
from gateway.uplink.spans import Spans
from protocols.clock import Clock

log = structlog.get_logger("holdfast.uplink")

LIVE_LAG_S: Final = 5.0
LIVE_TRAFFIC_S: Final = 2.0
"""Live records count as flowing for so long after the last of them."""
PORTION_S: Final = 0.5
"""A portion of history should not take the link for longer."""
LEAST_RECORDS: Final = 4
"""The first portion of history on a connection, and the smallest."""
ROUND_TRIPS: Final = 8
"""Of so many round trips the shortest counts: the others met traffic."""
STARVED_S: Final = 0.1
LONGEST_REFUSAL_S: Final = 8.0
"""A disk that refuses to be read is asked again after STARVED_S, then after longer and longer, up to this."""
PRIORITY: Final = (Lane.EVENTS, Lane.TELEMETRY)


class Reader(Protocol):
    """What a feed needs of the journal's reader (``gateway.journal``)."""

    @property
    def name(self) -> str: ...
    def head(self, lane: Lane) -> int: ...
    def pending(self, lane: Lane) -> tuple[tuple[int, int], ...]: ...
    def untold(self, lane: Lane) -> tuple[tuple[int, int], ...]: ...
    async def read(self, lane: Lane, first: int, *, max_records: int, max_bytes: int, last: int | None = None) -> list[Record | Lost]:
        """Raises StorageError while the disk refuses to be read."""
        ...

    def acknowledge(self, lane: Lane, first: int, last: int) -> None: ...
    async def wait(self, lane_heads: Mapping[Lane, int]) -> None: ...


@dataclass(frozen=True, slots=True, eq=False)
class Portion:
    """A contiguous span of one lane in one epoch: what is sent, and acknowledged, together."""

    lane: Lane
    epoch: int
    first: int
    last: int
    entries: list[Record | Lost]
    historical: bool
    previous: tuple[int, int] | None = None
    """Epoch and seq of the record before ``first``, where this feed has seen it."""


@dataclass(frozen=True, slots=True)
class _OnItsWay:
    portion: Portion
    since: float
    """Monotonic seconds."""


@dataclass(slots=True)
class _LaneState:
    live: int = 0
    """The next seq that is sent as live."""
    history: Spans = field(default_factory=Spans)
    """What is to be sent as history."""
    seen: dict[bool, tuple[int, int]] = field(default_factory=dict)
    """By ``historical``: epoch and seq of the last record that was handed out."""


class Feed:
    """One uplink's view of the journal. One task calls ``begin`` and ``next``; any may call ``passed``, ``acknowledge``, ``again``."""

    def __init__(self, reader: Reader, *, clock: Clock, backfill_share: float, max_records: int, max_bytes: int) -> None:
        self._reader = reader
        self._clock = clock
        self._pause_factor = (1 - backfill_share) / backfill_share
        self._max_records = max_records
        self._max_bytes = max_bytes
        self._lanes = {lane: _LaneState() for lane in PRIORITY}
        self._wake = asyncio.Event()
        self._history_records = min(LEAST_RECORDS, max_records)
        self._passing: _OnItsWay | None = None
        self._probe: _OnItsWay | None = None
        self._round_trips: deque[float] = deque(maxlen=ROUND_TRIPS)
        self._least_s = float("inf")
        self._pause_until = 0.0
        self._live_at = float("-inf")
        self._dry = False
        self._held = False
        self._refused_s = 0.0
        """How long the disk is left alone after it refused to be read; 0 while it does not."""
        self._readable_at = float("-inf")

    def begin(self) -> None:
        """A new connection: whatever the receiver is owed now is history, and only what comes from now on is live."""
        for lane, state in self._lanes.items():
            state.history = Spans((*self._reader.pending(lane), *self._reader.untold(lane)))
            state.live = self._reader.head(lane)
            state.seen.clear()
        self._passing = self._probe = None
        self._round_trips.clear()
        self._least_s = float("inf")
        self._history_records = min(LEAST_RECORDS, self._max_records)
        self._pause_until = 0.0
        self._held = False

    async def next(self) -> Portion:
        """Wait for the next portion to send. Each one has to be followed by ``passed``: history waits for it."""
        while True:
            portion = await self._events() or await self._live(Lane.TELEMETRY) or await self._history_within_share()
            if portion is not None:
                return portion
            await (self._breathe() if self._dry else self._rest())

    def passed(self, portion: Portion) -> None:
        """The far end has answered to ``portion``, well or not: the link is done with it. One of an earlier connection means nothing."""
        now = self._clock.monotonic()
        if self._probe is not None and self._probe.portion is portion:
            self._round_trips.append(now - self._probe.since)
            self._probe = None
        elif self._passing is not None and self._passing.portion is portion:
            took, self._passing = now - self._passing.since, None
            self._note_history_took(now, took)
            self._wake.set()

    def acknowledge(self, portion: Portion) -> None:
        """``portion`` was delivered: the journal may forget it."""
        self.acknowledge_span(portion.lane, portion.first, portion.last)

    def acknowledge_span(self, lane: Lane, first: int, last: int) -> None:
        """The same for a part of a portion."""
        state = self._lanes[lane]
        self._reader.acknowledge(lane, first, last)
        state.history.remove(first, last)  # it may have been given up and put back before the word came

    def again(self, portion: Portion) -> None:
        """``portion`` was not delivered although the connection stands: it is sent again, as history."""
        self._lanes[portion.lane].history.add(portion.first, portion.last)
        self._wake.set()

    def hold_history(self, held: bool) -> None:
        """While held, nothing but live records is handed out."""
        if self._held and not held:
            self._wake.set()
        self._held = held

    def has_history(self, lane: Lane) -> bool:
        return len(self._lanes[lane].history) > 0

    def waiting(self, lane: Lane) -> int:
        """How many records of ``lane`` have not been handed out on this connection."""
        state = self._lanes[lane]
        return state.history.count() + max(0, self._reader.head(lane) - state.live)

    # ---- decisions

    async def _events(self) -> Portion | None:
        """Events are few and matter most: their history knows no share."""
        return await self._live(Lane.EVENTS) or await self._history(Lane.EVENTS)

    async def _live(self, lane: Lane) -> Portion | None:
        state = self._lanes[lane]
        if self._reader.head(lane) <= state.live:
            return None
        try:
            portion = await self._read(lane, state.live, None, self._max_records, historical=False)
        except StorageError as error:
            self._refused(error)
            portion = None
        if portion is None:
            self._dry = True
            return None
        if self._behind(portion):
            head = self._reader.head(lane)
            state.history.add(state.live, head - 1)
            state.live = head
            return None
        state.live = portion.last + 1
        now = self._clock.monotonic()
        if lane is Lane.TELEMETRY:
            self._live_at = now
        if self._passing is None and self._probe is None:
            self._probe = _OnItsWay(portion, now)
        return self._handed_out(portion)

    def _behind(self, portion: Portion) -> bool:
        """Its oldest record waited for too long. (A wall clock that jumps makes live history for once: nothing is lost.)"""
        oldest = next((entry for entry in portion.entries if isinstance(entry, Record)), None)
        return oldest is not None and self._clock.time_ns() - oldest.written_ns > LIVE_LAG_S * 1e9

    async def _history_within_share(self) -> Portion | None:
        if self._passing is not None or self._pause_left() > 0:
            return None
        portion = await self._history(Lane.TELEMETRY)
        if portion is not None:
            self._passing = _OnItsWay(portion, self._clock.monotonic())
        return portion

    async def _history(self, lane: Lane) -> Portion | None:
        state = self._lanes[lane]
        if self._clock.monotonic() < self._readable_at:
            return None
        while not self._held and (span := next(iter(state.history), None)) is not None:
            try:
                portion = await self._read(lane, span[0], span[1], self._history_records, historical=True)
            except StorageError as error:
                self._refused(error)
                return None
            self._answered()
            if portion is not None:
                state.history.remove(portion.first, portion.last)
                return self._handed_out(portion)
            state.history.remove(*span)  # the journal has nothing there any more: it was settled meanwhile
        return None

    def _refused(self, error: StorageError) -> None:
        """The disk is in trouble, which ends neither the connection nor anybody's turn but history's."""
        if not self._refused_s:
            log.error("history_not_read", name=self._reader.name, trouble=str(error))
        self._refused_s = min(LONGEST_REFUSAL_S, 2 * self._refused_s or STARVED_S)
        self._readable_at = self._clock.monotonic() + self._refused_s

    def _answered(self) -> None:
        if self._refused_s:
            log.info("history_read_again", name=self._reader.name)
        self._refused_s = 0.0

    def _history_at(self) -> float:
        """Monotonic moment at which history may go on; never, where something else has to happen first."""
        if self._held:
            return float("inf")
        events = self._readable_at if self.has_history(Lane.EVENTS) else float("inf")
        if self._passing is not None or not self.has_history(Lane.TELEMETRY):
            return events
        return min(events, max(self._readable_at, self._clock.monotonic() + self._pause_left()))

    def _pause_left(self) -> float:
        """Seconds until history may go on: none where live records have stopped to flow."""
        now = self._clock.monotonic()
        if now - self._live_at > LIVE_TRAFFIC_S:
            return 0.0
        return self._pause_until - now

    def _note_history_took(self, now: float, took: float) -> None:
        """Pause for the share of what a portion of history took from the link, and fit the next one to the link."""
        self._least_s = min(self._least_s, took)
        took = max(0.0, took - min(self._round_trips, default=self._least_s))
        self._pause_until = now + took * self._pause_factor
        if took > PORTION_S:
            self._history_records = max(min(LEAST_RECORDS, self._max_records), int(self._history_records * PORTION_S / took))
        elif took < PORTION_S / 2:
            self._history_records = min(self._max_records, self._history_records * 2)

    # ---- reading and waiting

    async def _read(self, lane: Lane, first: int, last: int | None, records: int, *, historical: bool) -> Portion | None:
        entries = await self._reader.read(lane, first, max_records=records, max_bytes=self._max_bytes, last=last)
        if not entries:
            return None
        begin, end = _bounds(entries[0])[0], _bounds(entries[-1])[1]
        seen = self._lanes[lane].seen.get(historical)
        previous = seen if seen is not None and seen[1] == begin - 1 else None
        return Portion(lane, entries[0].epoch, begin, end, entries, historical, previous)

    def _handed_out(self, portion: Portion) -> Portion:
        self._lanes[portion.lane].seen[portion.historical] = (portion.epoch, portion.last)
        return portion

    async def _breathe(self) -> None:
        """The journal says that there is more and gives nothing: its disk may be in trouble. Not to be asked without pause."""
        self._dry = False
        await self._clock.sleep_until(self._clock.monotonic() + STARVED_S)

    async def _rest(self) -> None:
        """Until something is appended, something is to be sent again, or the pause of history is over."""
        if self._wake.is_set():
            self._wake.clear()
            return
        heads = {lane: state.live for lane, state in self._lanes.items()}
        waits = {asyncio.ensure_future(self._reader.wait(heads)), asyncio.ensure_future(self._wake.wait())}
        if (moment := self._history_at()) < float("inf"):
            waits.add(asyncio.ensure_future(self._clock.sleep_until(moment)))
        try:
            done, _ = await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for wait in waits:
                wait.cancel()
        self._wake.clear()
        for wait in done:
            wait.result()  # a reader's failure is the uplink's


def _bounds(entry: Record | Lost) -> tuple[int, int]:
    return (entry.seq, entry.seq) if isinstance(entry, Record) else (entry.first, entry.last)
