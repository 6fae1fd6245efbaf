"""The live stream: one follower of the journal for everybody who follows it.

The journal wakes the follower at each commit; it reads what is new from the journal's memory, makes of it one frame for each
different view, and hands the same bytes to all clients of that view. It rests at least as long as it worked, and WINDOW_S, so that
it takes at most half of the loop and never sends a frame for each record. It hands out in portions, for each client that it wakes
costs a system call.

Should it fall behind all the same (LAG_S), it goes on at the newest record and every client is told what was left out.

Clients are watched: who takes nothing for STALL_S is cut with a reason; whoever's credentials have ended, or whose role or
tenant has changed, is cut within RECHECK_S. Nothing runs while nobody follows.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable, Coroutine, Sequence
from typing import Any, Final, Literal

import msgspec
import structlog

from gateway.config import model
from gateway.identity.identity import Identity, Shown
from gateway.identity.principal import Principal
from gateway.identity.sessions import Session
from gateway.identity.sight import Sight, sight_of
from gateway.journal import Journal, Lane, Lost, Record, StorageError
from gateway.latest import Latest
from gateway.live.client import Client
from gateway.live.frame import At, Frame, Gathered, frames, places, said
from gateway.live.view import Key, View
from gateway.objections import TooMany, Unavailable, Unknown
from gateway.telemetry.logs import TAP
from protocols.clock import Clock

log = structlog.get_logger("holdfast.live")

MOST_CLIENTS: Final = 300
MOST_OF_ONE: Final = 64
"""Streams of one principal."""
WINDOW_S: Final = 0.03
LAG_S: Final = 2.0
STALL_S: Final = 10.0
HEARTBEAT_S: Final = 10.0
RECHECK_S: Final = 2.0
TICK_S: Final = 0.25
LEDGER_S: Final = 1.0
STARVED_S: Final = 0.1
MOST_RECORDS: Final = 500
MOST_BYTES: Final = 128 * 1024
"""What the follower reads in one go."""
PORTION_RECORDS: Final = 200
PORTION_BYTES: Final = 64 * 1024
PACE_S: Final = 0.01
"""The least time from one portion of whoever catches up to the next."""
AT_ONCE: Final = 25
"""So many clients are woken in one turn of the loop."""
LANES: Final = (Lane.EVENTS, Lane.TELEMETRY)

GOING_AWAY, BROKEN, TRY_LATER = 1001, 1011, 1013
CREDENTIALS_ENDED, CHANGED = 4401, 4409
"""Close codes: RFC 6455, 7.4.1, and our own (7.4.2), which are 4000 + the HTTP status that says the same."""


class _Group:
    """The clients of one view in one lane."""

    def __init__(self, lane: Lane, view: View) -> None:
        self.lane = lane
        self.view = view
        self.members: dict[Client, None] = {}
        self.gathered = Gathered()
        self.ticking: asyncio.Task[None] | None = None

    @property
    def is_conflated(self) -> bool:
        return self.lane is Lane.TELEMETRY and self.view.every_s > 0

    def frames(self, entries: Sequence[Record | Lost]) -> list[Frame]:
        """What its clients are told of ``entries`` now; a conflated one only takes the values down."""
        if not self.is_conflated:
            return list(frames(entries, self.lane, self.view))
        for each in entries:
            if isinstance(each, Record) and (batch := self.view.values(each.batch)) is not None:
                self.gathered.add(each, batch)
        return list(frames([each for each in entries if isinstance(each, Lost)], self.lane, self.view))


class Live:
    def __init__(self, journal: Journal, latest: Latest, identity: Identity, site: Callable[[], model.Site], clock: Clock) -> None:
        self.latest = latest
        self._journal = journal
        self._identity = identity
        self._site = site
        self._clock = clock
        self._clients: dict[Client, None] = {}
        self._groups: dict[tuple[Lane, Key], _Group] = {}
        self._followers: dict[Literal["ledger", "log"], dict[Client, None]] = {"ledger": {}, "log": {}}
        self._place: dict[Lane, At] = {}
        self._given: dict[Lane, At] = {}
        self._tasks: list[asyncio.Task[None]] = []
        self._reading = asyncio.Semaphore(1)
        self._ledger = b""
        self._ledger_at = float("-inf")
        self._log_next = 0
        self.cut: Counter[int] = Counter()
        """Clients that were cut, by close code."""

    # ---- clients

    def open(self, principal: Principal, shown: Shown, sight: Sight) -> Client:
        """A new client; give it to :meth:`close`. Raises TooMany."""
        if len(self._clients) >= MOST_CLIENTS:
            raise TooMany(f"{MOST_CLIENTS} live streams are open already", "close one, or ask again later", retry_after_s=10)
        if sum(each.principal.called == principal.called for each in self._clients) >= MOST_OF_ONE:
            raise TooMany(f"{principal.called} has {MOST_OF_ONE} live streams open already", "close one", retry_after_s=10)
        client = Client(self, principal, shown, sight, self._clock, self._identity.session_of(shown))
        self._clients[client] = None
        if not self._tasks:
            self._start()
        return client

    def close(self, client: Client) -> None:
        client.end(GOING_AWAY, "closed")
        self._clients.pop(client, None)
        if not self._clients:
            self._stop()

    def end_all(self, reason: str, code: int = GOING_AWAY) -> None:
        """The gateway goes, or its API does."""
        for client in list(self._clients):
            client.end(code, reason)

    @property
    def clients(self) -> int:
        return len(self._clients)

    @property
    def waiting(self) -> int:
        """Bytes that all clients together have not taken yet; those that they share are counted for each."""
        return sum(client.waiting for client in self._clients)

    # ---- what clients ask for (client.Source)

    def place(self, lane: Lane) -> At:
        return self._place[lane]

    def given(self, lane: Lane) -> At:
        return self._given[lane]

    def join(self, client: Client, lane: Lane, view: View) -> None:
        group = self._groups.get((lane, view.key))
        if group is None:
            group = self._groups[lane, view.key] = _Group(lane, view)
            if group.is_conflated:
                group.ticking = self._task(self._tick(group), f"live every {view.every_s} s")
        group.members[client] = None

    def leave(self, client: Client, lane: Lane | None = None) -> None:
        for key, group in list(self._groups.items()):
            if lane in (None, group.lane):
                group.members.pop(client, None)
                if not group.members:
                    del self._groups[key]
                    if group.ticking is not None:
                        group.ticking.cancel()
        if lane is None:
            for followers in self._followers.values():
                followers.pop(client, None)

    def follow(self, client: Client, stream: Literal["ledger", "log"]) -> None:
        if not self._followers[stream]:
            self._ledger, self._log_next = (b"", self._log_next) if stream == "ledger" else (self._ledger, TAP.first)
        elif stream == "ledger":
            client.put(self._ledger_frame())
        self._followers[stream][client] = None

    async def portion(self, lane: Lane, first: int) -> list[Record | Lost]:
        """One client at a time: where the files are read, the journal's writer waits for it."""
        async with self._reading:
            began = self._clock.monotonic()
            try:
                entries = await self._journal.read(lane, first, max_records=PORTION_RECORDS, max_bytes=PORTION_BYTES)
            except StorageError:  # the disk refuses to be read: it is asked again, and the journal has said so
                entries = []
            now = self._clock.monotonic()
            await self._clock.sleep_until(now + (max(PACE_S, now - began) if entries else STARVED_S))
        return entries

    async def knows(self, lane: Lane, at: At) -> bool:
        epoch, seq = at
        if seq == 0:
            return True
        if seq > self._place[lane][1]:
            return False
        entries: list[Record | Lost] = []
        while not entries:
            async with self._reading:
                try:
                    entries = await self._journal.read(lane, seq, max_records=1, last=seq)
                except StorageError:  # as above
                    await self._clock.sleep_until(self._clock.monotonic() + STARVED_S)
        return entries[0].epoch == epoch or isinstance(entries[0], Lost)

    # ---- following the journal

    def _start(self) -> None:
        lanes = self._journal.ledger().lanes
        self._place = {lane: (lanes[lane.value].epoch, self._journal.head(lane) - 1) for lane in LANES}
        self._given = dict(self._place)
        works = {"follow": self._follow(), "watch": self._watch(), "recheck": self._recheck()}
        self._tasks = [self._task(work, f"live {name}") for name, work in works.items()]

    def _stop(self) -> None:
        for task in self._tasks:
            task.cancel()
        self._tasks = []

    def _task(self, work: Coroutine[Any, Any, None], name: str) -> asyncio.Task[None]:  # Any: a coroutine's own
        task = asyncio.create_task(work, name=name)
        task.add_done_callback(self._ended)
        return task

    def _ended(self, task: asyncio.Task[None]) -> None:
        """A bug of ours ends the streams, with a word, and not the gateway."""
        if not task.cancelled() and (error := task.exception()) is not None:
            log.error("live_failed", task=task.get_name(), exc_info=error)
            self.end_all("the gateway failed at this: its log says more", BROKEN)

    async def _follow(self) -> None:
        while True:
            await self._journal.wait({lane: self._place[lane][1] + 1 for lane in LANES})
            began = self._clock.monotonic()
            for lane in LANES:
                if self._journal.head(lane) > self._place[lane][1] + 1:
                    await self._pass_on(lane)
            now = self._clock.monotonic()
            await self._clock.sleep_until(now + max(WINDOW_S, now - began))

    async def _pass_on(self, lane: Lane) -> None:
        """The next entries of ``lane``, to everybody who follows it."""
        try:
            entries = await self._journal.read(lane, self._place[lane][1] + 1, max_records=MOST_RECORDS, max_bytes=MOST_BYTES)
        except StorageError:  # what is in memory needs no disk: it is asked again, and the journal has said so
            entries = []
        if not entries:
            await self._clock.sleep_until(self._clock.monotonic() + STARVED_S)
        elif lane is Lane.TELEMETRY and self._lag_s(entries) > LAG_S:
            self._jump(entries)
        else:
            end = entries[-1]
            self._place[lane] = (end.epoch, end.seq if isinstance(end, Record) else end.last)
            for group in [each for each in self._groups.values() if each.lane is lane]:
                await self._give(group, group.frames(entries))
            self._given[lane] = self._place[lane]

    async def _give(self, group: _Group, told: Sequence[Frame]) -> None:
        members = list(group.members)
        for at in range(0, len(members), AT_ONCE):
            for client in members[at : at + AT_ONCE]:
                if client in group.members:
                    for frame in told:
                        client.put(frame)
            await asyncio.sleep(0)  # also after a view that shows nothing of it: to find that out took its time

    def _lag_s(self, entries: Sequence[Record | Lost]) -> float:
        """How old the oldest of ``entries`` is. (A wall clock that jumps skips once: it is told, and the latest values follow.)"""
        written = next((each.written_ns for each in entries if isinstance(each, Record)), None)
        return (self._clock.time_ns() - written) / 1e9 if written is not None else 0.0

    def _jump(self, entries: Sequence[Record | Lost]) -> None:
        """Go on at the newest record; the latest values make up for what is left out."""
        lane = Lane.TELEMETRY
        begin = entries[0]
        first = (begin.epoch, begin.seq if isinstance(begin, Record) else begin.first)
        last = (self._journal.ledger().lanes[lane.value].epoch, self._journal.head(lane) - 1)
        self._place[lane] = self._given[lane] = last
        log.warning("live_behind", records=last[1] - first[1] + 1)
        for group in self._groups.values():
            for client in group.members if group.lane is lane else ():
                client.leave_out(first, last, last[1] - first[1] + 1, None, "busy-gateway")

    async def _tick(self, group: _Group) -> None:
        while True:
            await self._clock.sleep_until(self._clock.monotonic() + group.view.every_s)
            for frame in group.gathered.take():
                await self._give(group, [frame])

    # ---- beside the journal

    async def _watch(self) -> None:
        while True:
            await self._clock.sleep_until(self._clock.monotonic() + TICK_S)
            now = self._clock.monotonic()
            for client in list(self._clients):
                if client.stalled_s(now) > STALL_S:
                    self._cut(client, TRY_LATER, f"too slow: nothing was taken for {STALL_S:g} s")
                elif client.is_idle(now, HEARTBEAT_S):
                    client.heartbeat(said("heartbeat", time_ns=self._clock.time_ns(), at=places(client.at)))
            if self._followers["log"]:
                self._tell_log()
            if self._followers["ledger"] and now - self._ledger_at >= LEDGER_S:
                self._ledger_at = now
                self._tell_ledger()

    def _tell_log(self) -> None:
        lines, self._log_next, skipped = TAP.since(self._log_next)
        if lines or skipped:
            data = b'{"type":"log","lines":[%s],"skipped":%d}' % (b",".join(lines), skipped)
            for client in list(self._followers["log"]):
                client.put(Frame("log", data, records=len(lines)))

    def _tell_ledger(self) -> None:
        before, frame = self._ledger, self._ledger_frame()
        if self._ledger != before:
            for client in list(self._followers["ledger"]):
                client.put(frame)

    def _ledger_frame(self) -> Frame:
        self._ledger = msgspec.json.encode(self._journal.ledger())
        return Frame("ledger", b'{"type":"ledger","ledger":%s}' % self._ledger)

    async def _recheck(self) -> None:
        """Whether everybody is still who they were, and may what they might. Each credential is shown once, however many streams it has."""
        while True:
            await self._clock.sleep_until(self._clock.monotonic() + RECHECK_S)
            for client in [each for each in self._clients if each.session is not None]:
                self._judge(client, self._of_session(client.session))
            for shown in {client.shown for client in self._clients if client.session is None}:
                try:
                    principal = await self._identity.principal(shown)
                except Unknown:
                    principal = None
                except Unavailable:  # the disk says nothing: nobody gets in now, and whoever is in stays
                    continue
                for client in [each for each in self._clients if each.shown == shown]:
                    self._judge(client, principal)

    def _of_session(self, session: Session | None) -> Principal | None:
        """Who has ``session``, while it goes on: to follow is no use of it, so that an open page does not keep it alive."""
        return session.principal if session is not None and self._identity.sessions.left_s(session) > 0 else None

    def _judge(self, client: Client, principal: Principal | None) -> None:
        if principal is None:
            self._cut(client, CREDENTIALS_ENDED, "the credentials are not valid any more: sign in again")
        elif principal != client.principal or sight_of(principal, self._site().tenants) != client.sight:
            self._cut(client, CHANGED, "what you may see has changed: subscribe again")

    def _cut(self, client: Client, code: int, reason: str) -> None:
        if client.why is None:
            self.cut[code] += 1
            log.warning("live_cut", who=client.principal.called, address=client.shown.address, code=code, reason=reason, told=client.told)
            client.end(code, reason)
