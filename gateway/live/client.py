"""One receiver of the live stream: what waits for it, where it is, and why it ends.

It takes frames when it can (``next``); what it has not taken yet is bounded in bytes. Beyond the bound nothing more is put by: what
comes then is counted, and once it has taken what waited it is told what was left out (``skipped``) and the latest values
of the devices concerned. Events are never left out: they are read again from the journal. Whoever takes nothing at all is cut
(see ``live``). What it resumes from is read from the journal, at its own pace, until it has caught up with the others.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator
from dataclasses import dataclass
from operator import itemgetter
from typing import Final, Literal, Protocol

from gateway.identity.identity import Shown
from gateway.identity.principal import Permission, Principal
from gateway.identity.sessions import Session
from gateway.identity.sight import Sight
from gateway.journal import Lane, Lost, Record
from gateway.latest import Latest
from gateway.live.frame import AT_ONCE, At, Frame, frames, latest, places, position, said
from gateway.live.view import View
from gateway.objections import NotAllowed
from holdfast.shapes.live import Position, Resume, Subscribe
from protocols.clock import Clock
from protocols.model import Batch

MOST_WAITING: Final = 256 * 1024
"""Bytes that wait for a client which does not take them."""
NEEDED: Final = {
    "values": Permission.SEE_VALUES,
    "events": Permission.SEE_COMMANDS,
    "ledger": Permission.SEE_STATUS,
    "log": Permission.SUPPORT,
}
"""The permission that each stream needs."""
OF_THE_GATEWAY: Final = ("ledger", "log")
"""Streams about the gateway as a whole: whoever is bound to a tenant gets none of them."""
LANE_OF: Final = {"values": Lane.TELEMETRY, "events": Lane.EVENTS}
Reason = Literal["slow-client", "busy-gateway"]


class Source(Protocol):
    """What a client needs of the stream that it belongs to."""

    @property
    def latest(self) -> Latest: ...
    def place(self, lane: Lane) -> At:
        """The last record that was told to whoever follows ``lane``."""
        ...

    def given(self, lane: Lane) -> At:
        """The same, once everybody has been given it."""
        ...

    def join(self, client: Client, lane: Lane, view: View) -> None: ...
    def leave(self, client: Client, lane: Lane | None = None) -> None: ...
    def follow(self, client: Client, stream: Literal["ledger", "log"]) -> None: ...
    async def portion(self, lane: Lane, first: int) -> list[Record | Lost]:
        """Some entries from ``first`` on, bounded in size and pace."""
        ...

    async def knows(self, lane: Lane, at: At) -> bool:
        """False where the journal has no record of that epoch there: it was begun anew, or is another one."""
        ...


@dataclass(slots=True)
class _LeftOut:
    """A span of telemetry that this client was not told."""

    first: At
    last: At
    records: int
    devices: set[str] | None
    """None: it may be any."""
    reason: Reason


class Client:
    def __init__(
        self, source: Source, principal: Principal, shown: Shown, sight: Sight, clock: Clock, session: Session | None = None
    ) -> None:
        self.principal = principal
        self.shown = shown
        self.sight = sight
        self.session = session
        """Where it is a session that lets it in."""
        self.why: tuple[int, str] | None = None
        """Close code and reason, once it has ended."""
        self.ended = asyncio.Event()
        self.told = 0
        """Frames."""
        self.told_at = clock.monotonic()
        self._source = source
        self._clock = clock
        self._view: View | None = None
        self._snapshot = True
        self._first: deque[Frame] = deque()
        self._queue: deque[Frame] = deque()
        self._telling: deque[AsyncIterator[Frame]] = deque()
        self._bytes = 0
        self._wake = asyncio.Event()
        self._left_out: _LeftOut | None = None
        self._log_left_out = 0
        self._at: dict[Lane, At] = {}
        self._joined: dict[Lane, int] = {}
        """By lane: the seq from which on it is told as the lane grows."""
        self._sending_since: float | None = None

    # ---- what it is told

    def subscribe(self, wish: Subscribe) -> None:
        """Follow what ``wish`` says instead of what was followed. Raises NotAllowed."""
        for stream in wish.streams:
            self._must(stream)
        self._forget()
        view = self._view = View(wish, self.sight)
        self._snapshot = wish.snapshot
        at = {LANE_OF[stream]: self._source.place(LANE_OF[stream]) for stream in wish.streams if stream in LANE_OF}
        self._at = dict(at)
        self._first.append(said("subscribed", streams=list(wish.streams), at=places(at)))
        resume = wish.resume or Resume()
        for stream in sorted(set(wish.streams)):
            if stream == "events":
                self._begin(Lane.EVENTS, resume.events, view)
            elif stream == "values":
                self._begin(Lane.TELEMETRY, resume.telemetry, view)
            elif stream == "ledger" or stream == "log":
                self._source.follow(self, stream)
        self._wake.set()

    async def next(self) -> Frame | None:
        """The next frame to send; None when it has ended. Until it is called again, that frame counts as being sent."""
        self._sending_since = None  # what was given before has been sent
        while self.why is None:
            frame = await self._found()
            if frame is not None:
                if frame.lane is not None and frame.last is not None:
                    self._at[frame.lane] = frame.last
                self.told += 1
                self._sending_since = self.told_at = self._clock.monotonic()
                return frame
            if not self._telling and not self._queue and not self._first:
                await self._wake.wait()
        return None

    @property
    def told_to(self) -> dict[Lane, At]:
        """Up to where it was told, with the frame that it has now."""
        return self._at

    @property
    def at(self) -> dict[Lane, At]:
        """Where to resume: the last that it was told, or would have been, were it shown to it."""
        gathers = self._view is not None and self._view.every_s
        for lane in self._joined if not self._queue and self._left_out is None else ():
            if lane is not Lane.TELEMETRY or not gathers:
                self._at[lane] = max(self._at[lane], self._source.given(lane), key=itemgetter(1))
        return dict(self._at)

    @property
    def waiting(self) -> int:
        """Bytes that it has not taken yet."""
        return self._bytes

    def stalled_s(self, now: float) -> float:
        """For how long it has taken nothing although there is something. (A slow one that reads goes on with what it is told.)"""
        return now - self._sending_since if self._sending_since is not None else 0.0

    @property
    def stalled(self) -> bool:
        """True while a frame is being sent."""
        return self._sending_since is not None

    def is_idle(self, now: float, silence_s: float) -> bool:
        return self._view is not None and now - self.told_at >= silence_s and not (self._queue or self._telling or self.stalled)

    def end(self, code: int, reason: str) -> None:
        """Nothing more is told; the first reason counts."""
        if self.why is None:
            self.why = (code, reason)
            self._forget()
            self.ended.set()
            self._wake.set()

    # ---- what it is given

    def put(self, frame: Frame) -> None:
        """Take ``frame`` for later, or count it as left out where too much waits already."""
        if self.why is not None or not self._is_due(frame):
            return
        full = self._left_out is not None or (bool(self._queue) and self._bytes + frame.weight > MOST_WAITING)
        if full and frame.type != "lost":
            self._leave_out(frame)
            return
        self._queue.append(frame)
        self._bytes += frame.weight
        self._wake.set()

    def _is_due(self, frame: Frame) -> bool:
        """False for what lies in a lane that it does not follow with the others (any more), or was told before it joined them."""
        if frame.lane is None or frame.last is None:
            return True
        return frame.lane in self._joined and frame.last[1] >= self._joined[frame.lane]

    def heartbeat(self, frame: Frame) -> None:
        self._first.append(frame)
        self._wake.set()

    def leave_out(self, first: At, last: At, records: int, devices: frozenset[str] | None, reason: Reason) -> None:
        """``first`` to ``last`` of telemetry will not be told; the latest values will."""
        out = self._left_out
        if out is None:
            known = None if devices is None else set(devices)
            self._left_out = _LeftOut(first, last, records, known, reason)
        else:
            out.last = last
            out.records += records
            out.devices = None if devices is None or out.devices is None else out.devices | devices
        self._wake.set()

    def _leave_out(self, frame: Frame) -> None:
        if frame.type == "log":
            self._log_left_out += frame.records
        elif frame.lane is Lane.EVENTS and frame.first is not None and self._view is not None:
            self._source.leave(self, Lane.EVENTS)
            del self._joined[Lane.EVENTS]
            self._telling.append(self._catch_up(Lane.EVENTS, frame.first[1], self._view))
        elif frame.lane is Lane.TELEMETRY and frame.first is not None and frame.last is not None:
            self.leave_out(frame.first, frame.last, frame.records, frame.devices, "slow-client")

    # ---- finding what to send

    async def _found(self) -> Frame | None:
        self._wake.clear()
        if self._first:
            return self._first.popleft()
        if self._queue:
            frame = self._queue.popleft()
            self._bytes -= frame.weight
            return frame
        if self._log_left_out:
            skipped, self._log_left_out = self._log_left_out, 0
            return said("log", lines=[], skipped=skipped)
        if self._left_out is not None and self._view is not None:
            self._telling.appendleft(self._make_up(self._view))
        if self._telling:
            telling = self._telling[0]
            frame_told = await anext(telling, None)
            if frame_told is None and self._telling and self._telling[0] is telling:
                self._telling.popleft()
            return frame_told
        return None

    async def _make_up(self, view: View) -> AsyncIterator[Frame]:
        """What was left out, and the latest values instead."""
        out, self._left_out = self._left_out, None
        if out is None:
            return
        span = {"first": position(out.first), "last": position(out.last), "records": out.records, "reason": out.reason}
        yield said("skipped", Lane.TELEMETRY, out.last, **span)
        async for frame in self._latest(view, out.devices):
            yield frame

    async def _latest(self, view: View, names: set[str] | None) -> AsyncIterator[Frame]:
        """The latest values of the devices called ``names``; None are all. A few devices at a time: the loop has other things to do."""
        source = self._source.latest
        wanted = [device.name for device in source.devices() if (names is None or device.name in names) and view.mask(device) is not False]
        shown: list[Batch] = []
        for name in wanted:
            device = source.device(name)
            shown += [part for batch in source.batches(device) if (part := view.values(batch)) is not None] if device is not None else []
            if sum(map(len, shown)) >= AT_ONCE:
                yield latest(shown)
                shown = []
                await asyncio.sleep(0)
        if shown:
            yield latest(shown)

    # ---- where it begins

    def _begin(self, lane: Lane, resume: Position | None, view: View) -> None:
        if resume is None:
            self._join(lane, view)
        else:
            self._at[lane] = (resume.epoch, resume.seq)
            self._telling.append(self._resume(lane, (resume.epoch, resume.seq), view))

    def _join(self, lane: Lane, view: View) -> None:
        """From here on it is told with the others; the latest values are taken after this moment, so that nothing lies between."""
        place = self._source.place(lane)
        self._joined[lane] = place[1] + 1
        self._source.join(self, lane, view)
        self._first.append(said("live", lane, place, at=position(place)))
        if lane is Lane.TELEMETRY and self._snapshot:
            self._telling.append(self._latest(view, None))

    async def _resume(self, lane: Lane, at: At, view: View) -> AsyncIterator[Frame]:
        conflated = bool(view.every_s) and lane is Lane.TELEMETRY
        known = await self._source.knows(lane, at)
        if known and not conflated:
            self._snapshot = False
            async for frame in self._catch_up(lane, at[1] + 1, view):
                yield frame
            return
        self._snapshot = True
        place = self._source.place(lane)
        missed = max(0, place[1] - at[1]) if known else 0
        self._join(lane, view)
        if missed or not known:
            reason = "conflated" if known else "unknown-position"
            yield said("skipped", lane, place, first=position(at), last=position(place), records=missed, reason=reason)

    async def _catch_up(self, lane: Lane, first: int, view: View) -> AsyncIterator[Frame]:
        """From the journal, until there is nothing that the others have been told and this one has not."""
        while first <= self._source.place(lane)[1]:
            entries = await self._source.portion(lane, first)
            for frame in frames(entries, lane, view):
                yield frame
            if entries:
                end = entries[-1]
                last = end.seq if isinstance(end, Record) else end.last
                self._at[lane] = (end.epoch, last)
                first = last + 1
        self._join(lane, view)

    def _must(self, stream: str) -> None:
        if not self.principal.may(NEEDED[stream]):
            raise NotAllowed(f"{self.principal.called} may not follow {stream}: it needs {NEEDED[stream].value}", "ask an administrator")
        if stream in OF_THE_GATEWAY and not self.sight.whole:
            raise NotAllowed(
                f"{self.principal.called} is bound to a tenant: {stream} is about the gateway as a whole", "follow values, events"
            )

    def _forget(self) -> None:
        """All that was to be told under the subscription before."""
        self._source.leave(self)
        for each in (self._first, self._queue, self._telling):
            each.clear()
        self._bytes = self._log_left_out = 0
        self._left_out = self._view = None
        self._at, self._joined = {}, {}
