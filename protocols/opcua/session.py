"""An open OPC UA session: subscriptions and polls of one server, and commands to it.

The loop of :meth:`OpcUaSession.batches` asks for what is published, one request ahead of each answer, and hands on what came
before it acknowledges it; so whoever takes batches slowly slows the server and nothing piles up here. Between publishes it polls
on the drift-free schedule. A message that is missing is asked for again by its number. When the connection breaks, what is known
of the subscriptions is kept: the next session takes them up where they were, or makes them anew.
"""

from __future__ import annotations

import asyncio
import math
from collections import deque
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from protocols.clock import Clock
from protocols.contract import Unreachable
from protocols.model import Batch, Command, Outcome, Quality, ScanStats
from protocols.opcua import answers, requests, server
from protocols.opcua.answers import Fault, Message, Monitored
from protocols.opcua.binary import Changes, Malformed
from protocols.opcua.columns import Columns
from protocols.opcua.events import filter_of, said_event
from protocols.opcua.plan import Item, Plan, Role
from protocols.opcua.requests import EVENT_NOTIFIER, read_value
from protocols.opcua.shell import IN_A_THREAD, Peer, name_of, of_fault
from protocols.opcua.structures import Types
from protocols.opcua.write import Writer
from protocols.schedule import Job, Schedule, phase_of

LOOK_S: Final = 1.0
"""A pause is never slept through longer than this without a look at what else is due."""
RETRY_S: Final = 300.0
"""Items that the server refused are asked for again so often."""
MAX_IN_FLIGHT: Final = 5
MAX_REPUBLISHED: Final = 10_000
"""Messages that are asked for again in a row."""
MAX_FINDINGS: Final = 200
MAX_PER_PUBLISH: Final = 10_000
"""Values in one message: more come in the next."""
SEQUENCES: Final = 2**32 - 1
"""Sequence numbers go from 1 to here, then begin at 1 again (OPC 10000-4, 7.9)."""

NOT_AVAILABLE, NO_SUBSCRIPTION, SUBSCRIPTION_UNKNOWN = 0x807B0000, 0x80790000, 0x80280000
TOO_MANY_PUBLISHES, TIMED_OUT = 0x80780000, 0x800A0000
NO_SESSION: Final = (0x80250000, 0x80260000)
NO_FILTER: Final = (0x80440000, 0x80450000, 0x808E0000)
"""The server cannot do the deadband that was asked for."""


@dataclass(slots=True)
class Subscription:
    """One subscription at the server."""

    id: int
    publishing_s: float
    silence_s: float
    """It says that it lives at least this often."""
    handles: list[int]
    last: int = 0
    """Sequence number of the last message that was handed on."""
    caught_up: bool = True
    """Whether a message came since it was made or taken up again."""


@dataclass(slots=True)
class Account:
    """What the next session must know to take up where this one ended."""

    subscriptions: list[Subscription]
    absent: dict[int, int]
    server: server.Server
    types: Types


@dataclass(slots=True)
class _Refresh:
    """After a session was taken up: tags of which nothing was heard since."""

    unheard: set[int] = field(default_factory=set)
    known: dict[int, int] = field(default_factory=dict)
    """By handle, the time of a value that was read: its notification, if one comes, is no news."""


class OpcUaSession:
    """See the driver contract."""

    tells = True
    """See :class:`protocols.steps.Telling`."""

    def __init__(self, plan: Plan, peer: Peer, clock: Clock, stats: ScanStats, account: Account | None) -> None:
        self._plan, self._peer, self._clock, self._stats = plan, peer, clock, stats
        self._columns = Columns(plan)
        self._server: server.Server | None = None
        self._subscriptions: dict[int, Subscription] = {}
        self._absent: dict[int, int] = {}
        """By handle, the status with which the server refuses it."""
        self._refresh = _Refresh()
        self._acknowledged: list[tuple[int, int]] = []
        self._publishes: deque[asyncio.Future[Any]] = deque()
        self._in_flight = MAX_IN_FLIGHT
        self._heard = 0.0
        self._retry_due = math.inf
        self._findings: list[str] = []
        self._said: set[str] = set()
        self._resolving = asyncio.Lock()
        self._begun = False
        self._writer = Writer(plan, peer, clock, self.ready)
        self._resumable = account if peer.resumed else None

    @property
    def stats(self) -> ScanStats:
        self._stats.requests = self._peer.requests
        return self._stats

    @property
    def findings(self) -> list[str]:
        """Said once each; whoever reads them clears the list. Beyond MAX_FINDINGS nothing is kept."""
        return self._findings

    def account(self) -> Account | None:
        """For the next session, once this one is broken; None where there is nothing to take up."""
        if self._server is None or not self._subscriptions:
            return None
        return Account(list(self._subscriptions.values()), dict(self._absent), self._server, self._columns.types)

    async def write(self, commands: Sequence[Command]) -> Sequence[Outcome]:
        return await self._writer.write(commands)

    async def ready(self) -> server.Server:
        """The server's namespaces, and every item's node. Asked once; whoever comes first asks."""
        async with self._resolving:
            if self._server is None:
                account = self._resumable
                self._server = account.server if account else await server.look(self._peer, self._plan.options.max_nodes)
                for item in self._plan.items:
                    item.node = item.place.node.on(self._server.namespaces)
        return self._server

    # ------------------------------------------------------------------------------------------ the loop

    async def batches(self) -> AsyncIterator[Batch]:
        await self._clean_up()
        schedule = self._fill(self._clock.monotonic())
        try:
            async for batch in self._begin():
                yield batch
            while True:
                now = self._clock.monotonic()
                if schedule.due <= now:
                    for batch in await self._scan(schedule.start(now)):
                        yield batch
                async for batch in self._listen(schedule.due, now):
                    yield batch
        finally:
            for future in self._publishes:
                future.cancel()
            self._publishes.clear()

    async def _listen(self, due: float, now: float) -> AsyncIterator[Batch]:
        """One turn until ``due``: what was published meanwhile, and what follows from it."""
        if now >= self._retry_due:
            for batch in await self._try_absent():
                yield batch
        self._top_up()
        await self._wait(due)
        if not (self._publishes and self._publishes[0].done()):
            return
        came = await self._published(self._publishes.popleft())
        if came is not None:
            async for message in self._in_order(came):
                for batch in self._told(message):
                    yield batch
                self._handed_on(message)
        for batch in await self._mend():
            yield batch

    def _fill(self, now: float) -> Schedule:
        schedule = Schedule(self._stats)
        options = self._plan.options
        for at in self._plan.polled:
            schedule.add(Job(at, 0, options.devices[at].scan_s, phase_of(options.name, at), len(self._plan.polled[at])), now)
        return schedule

    async def _wait(self, due: float) -> None:
        """Until something is published, a scan is due, the connection is gone or silent. Raises Unreachable."""
        peer, now = self._peer, self._clock.monotonic()
        if peer.is_lost:
            raise peer.trouble
        silent_at = self._heard + self._silence_s() if self._publishes else math.inf
        if now >= silent_at:
            raise Unreachable(
                f"{peer.where}: connected, but silent for {self._silence_s():g} s, though it should say every so often that it lives: "
                "check the server and the network"
            )
        sleeper = asyncio.ensure_future(self._clock.sleep_until(min(due, silent_at, self._retry_due, now + LOOK_S)))
        waited: set[asyncio.Future[Any]] = {sleeper, peer.lost, *list(self._publishes)[:1]}
        try:
            await asyncio.wait(waited, return_when=asyncio.FIRST_COMPLETED)
        finally:
            sleeper.cancel()

    def _silence_s(self) -> float:
        longest = max((each.silence_s for each in self._subscriptions.values()), default=self._plan.options.keepalive_s)
        return longest + self._plan.options.timeout_s

    # ------------------------------------------------------------------------------------------ beginning

    async def _clean_up(self) -> None:
        """Subscriptions of an iteration that was given up: a new one begins with every value."""
        if self._begun and self._subscriptions:
            ids = list(self._subscriptions)
            self._subscriptions.clear()
            try:
                await self._peer.ask(requests.unsubscribe(ids), lambda content: answers.statuses(content, answers.UNSUBSCRIBE))
            except Fault as fault:
                raise of_fault(fault, self._peer.where, "ending subscriptions") from fault
        self._begun = True
        self._acknowledged.clear()

    async def _begin(self) -> AsyncIterator[Batch]:
        known = await self.ready()
        account, self._resumable = self._resumable, None
        self._heard = self._clock.monotonic()
        if account is not None:
            async for batch in self._take_up(account):
                yield batch
        else:
            structured = [item.node for item in self._plan.items if item.node is not None and _may_be_structured(item)]
            if structured:
                await server.learn_types(self._peer, known, structured)
            self._columns.types = known.types
            for batch in self._unreadable():
                yield batch
        for batch in await self._mend():
            yield batch
        self._heard = self._clock.monotonic()

    def _unreadable(self) -> list[Batch]:
        """What is known without asking: methods have no value, nodes of an unknown namespace are not there."""
        verdicts: list[tuple[int, int]] = []
        for handle, item in enumerate(self._plan.items):
            if item.node is None:
                self._find(item, f"the server has no namespace {item.place.node.uri}: check at")
                verdicts.append((handle, Quality.BAD_NODE_ID_UNKNOWN))
            elif item.role is Role.METHOD:
                verdicts.append((handle, Quality.BAD_NOT_READABLE))
        return self._columns.bad(verdicts, self._clock.time_ns())

    async def _subscribe(self, publishing_s: float, handles: list[int]) -> list[Batch]:
        options = self._plan.options
        keepalive = max(1, math.ceil(options.keepalive_s / publishing_s))
        lifetime = max(3 * keepalive, math.ceil(options.keep_s / publishing_s))
        try:
            made = await self._peer.ask(requests.subscribe(publishing_s, lifetime, keepalive, MAX_PER_PUBLISH), answers.subscribed)
        except Fault as fault:
            raise of_fault(fault, self._peer.where, "making a subscription") from fault
        silence_s = max(made.publishing_s * made.keepalive, publishing_s)
        self._subscriptions[made.id] = Subscription(made.id, publishing_s, silence_s, handles)
        told = await self._monitor(made.id, handles)
        if any(self._plan.items[handle].role is Role.EVENT for handle in handles):
            await self._refresh_conditions(made.id)
        return told

    async def _refresh_conditions(self, subscription: int) -> None:
        """Servers without conditions refuse, and that is fine: what can be told again is told again."""
        try:
            status = (await self._peer.ask(requests.refresh_conditions(subscription), answers.call)).status
        except Fault as fault:
            status = fault.status
        if status & 0x80000000:
            self._count(name_of(status))

    async def _monitor(self, subscription: int, handles: list[int], *, filtered: bool = True) -> list[Batch]:
        """Add items to a subscription. What the server refuses is bad, alone."""
        at_once = (self._server or server.Server()).max_monitor
        refused: list[tuple[int, int]] = []
        unfiltered: list[int] = []
        for at in range(0, len(handles), at_once):
            part = handles[at : at + at_once]
            for handle, made in zip(part, await self._make(subscription, part, filtered=filtered), strict=True):
                code = made.status & 0xFFFF0000
                if filtered and code in NO_FILTER and self._plan.items[handle].role is Role.VALUE:
                    unfiltered.append(handle)
                elif code & 0x80000000:
                    refused.append((handle, code))
                else:
                    self._absent.pop(handle, None)
                    self._look_at(handle, made)
        for handle, code in refused:
            self._refused(handle, code)
        told = self._columns.bad(refused, self._clock.time_ns())
        if unfiltered:
            for handle in unfiltered:
                self._find(self._plan.items[handle], "the server cannot do its server_deadband: it sends every change")
            told += await self._monitor(subscription, unfiltered, filtered=False)
        return told

    async def _make(self, subscription: int, handles: list[int], *, filtered: bool) -> list[Monitored]:
        oldest = self._plan.options.discard == "oldest"
        items = [_item(self._plan.items[handle], handle, self._namespaces, oldest=oldest, filtered=filtered) for handle in handles]
        try:
            made = await self._peer.ask(requests.monitor(subscription, items), answers.monitored)
        except Fault as fault:
            raise of_fault(fault, self._peer.where, f"subscribing to {len(handles)} nodes") from fault
        if len(made) != len(handles):
            raise self._peer.broken(Malformed(f"{len(made)} results for {len(handles)} items"))
        return made

    @property
    def _namespaces(self) -> list[str]:
        return self._server.namespaces if self._server else []

    def _look_at(self, handle: int, made: Monitored) -> None:
        """Tell where the server looks at values much less often than it was asked to."""
        item = self._plan.items[handle]
        if item.role is Role.VALUE and made.sampling_s > max(2 * item.sampling_s, item.publishing_s):
            device = self._plan.devices[item.device].name
            text = f"{device}: the server looks at values every {made.sampling_s:g} s, not every {item.sampling_s:g} s as sampling_s says"
            self._say(text)

    def _refused(self, handle: int, code: int) -> None:
        item = self._plan.items[handle]
        self._absent[handle] = code
        self._retry_due = min(self._retry_due, self._clock.monotonic() + RETRY_S)
        self._count(name_of(code))
        self._find(item, f"the server says {name_of(code)}: check at (holdfast browse shows what there is)")

    async def _try_absent(self) -> list[Batch]:
        """Now and then: are refused items there by now?"""
        self._retry_due = self._clock.monotonic() + RETRY_S if self._absent else math.inf
        told: list[Batch] = []
        for subscription in list(self._subscriptions.values()):
            handles = [handle for handle in subscription.handles if handle in self._absent]
            if handles:
                told += await self._monitor(subscription.id, handles)
        return told

    # ------------------------------------------------------------------------------------------ taking up again

    async def _take_up(self, account: Account) -> AsyncIterator[Batch]:
        """The subscriptions of the session before: first the messages that were sent into the void, in order."""
        self._columns.types = account.types
        self._absent = dict(account.absent)
        if self._absent:
            self._retry_due = self._clock.monotonic() + RETRY_S
        for batch in [*self._unreadable(), *self._columns.bad(self._absent.items(), self._clock.time_ns())]:
            yield batch
        for subscription in account.subscriptions:
            subscription.caught_up = False
            self._subscriptions[subscription.id] = subscription
            self._refresh.unheard.update(handle for handle in subscription.handles if handle not in self._absent)
        for subscription in account.subscriptions:
            async for message in self._fetch(subscription, None):
                for batch in self._told(message):
                    yield batch
                self._handed_on(message)
            subscription.caught_up = False

    async def _fetch(self, subscription: Subscription, upto: int | None) -> AsyncIterator[Message]:
        """Messages after the last that was handed on, before ``upto``; all that the server keeps where that is None."""
        at = subscription.last
        for _ in range(MAX_REPUBLISHED):
            wanted = following(at)
            if wanted == upto:
                return
            try:
                yield await self._peer.ask(
                    requests.republish(subscription.id, wanted), lambda content: answers.republished(content, subscription.id)
                )
            except Fault as fault:
                if fault.status & 0xFFFF0000 == SUBSCRIPTION_UNKNOWN:
                    self._subscriptions.pop(subscription.id, None)
                    return
                if upto is None:
                    return
                self._count("missed_messages")
                self._say(
                    f"{self._peer.where}: a message was lost that the server keeps no more: changes are missing ({name_of(fault.status)})"
                )
            at = wanted

    async def _mend(self) -> list[Batch]:
        """What is due after messages: subscriptions that the server ended are made anew, unheard tags are read."""
        told: list[Batch] = []
        covered = {handle for each in self._subscriptions.values() for handle in each.handles}
        for publishing_s, handles in self._plan.groups.items():
            lost = [handle for handle in handles if handle not in covered and self._plan.items[handle].node is not None]
            if lost:
                self._refresh.unheard.difference_update(lost)
                told += await self._subscribe(publishing_s, lost)
        if self._refresh.unheard and all(each.caught_up for each in self._subscriptions.values()):
            told += await self._read_unheard()
        return told

    async def _read_unheard(self) -> list[Batch]:
        """A link that was lost made every tag bad; those that did not change since are read once, to be good again."""
        handles = sorted(handle for handle in self._refresh.unheard if self._plan.items[handle].role is Role.VALUE)
        self._refresh.unheard.clear()
        if not handles:
            return []
        told = await self._read(handles)
        self._refresh.known = dict(zip(told.handles, told.ticks, strict=True))
        return self._columns.changes(told, self._clock.time_ns())

    # ------------------------------------------------------------------------------------------ publishing

    def _top_up(self) -> None:
        """As many publish requests on the way as the server needs to never wait for one."""
        wanted = min(max(2, len(self._subscriptions) + 1), self._in_flight) if self._subscriptions else 0
        while len(self._publishes) < wanted:
            acknowledged, self._acknowledged = self._acknowledged[:1000], self._acknowledged[1000:]
            self._publishes.append(self._peer.post(requests.publish(acknowledged)))

    async def _published(self, future: asyncio.Future[Any]) -> Message | None:
        """The message of one answer; None where the server has none to give."""
        content = self._peer.answered(future)
        self._heard = self._clock.monotonic()
        try:
            message = answers.published(content) if len(content) < IN_A_THREAD else await asyncio.to_thread(answers.published, content)
        except Malformed as error:
            raise self._peer.broken(error) from error
        except Fault as fault:
            self._publish_refused(fault)
            return None
        return message

    def _publish_refused(self, fault: Fault) -> None:
        code = fault.status & 0xFFFF0000
        self._count(name_of(code))
        if code == TOO_MANY_PUBLISHES and len(self._publishes) >= 1:
            self._in_flight = max(1, len(self._publishes))
        elif code == NO_SUBSCRIPTION:
            self._subscriptions.clear()
        elif code in NO_SESSION:
            self._subscriptions.clear()
            raise Unreachable(f"{self._peer.where}: the server ended the session ({name_of(code)}): a new one is opened")
        elif code != TIMED_OUT:
            raise of_fault(fault, self._peer.where, "publishing")

    async def _in_order(self, message: Message) -> AsyncIterator[Message]:
        """``message``, after those that are missing before it."""
        subscription = self._subscriptions.get(message.subscription)
        if subscription is not None and distance(subscription.last, message.sequence) > 1:
            async for missing in self._fetch(subscription, message.sequence):
                yield missing
        yield message

    def _told(self, message: Message) -> list[Batch]:
        """The batches of one message; nothing where it came before."""
        subscription = self._subscriptions.get(message.subscription)
        if subscription is None or message.is_empty or distance(subscription.last, message.sequence) <= 0:
            return []
        now_ns = self._clock.time_ns()
        told: list[Batch] = []
        for part in message.changes:
            self._refresh.unheard.difference_update(part.handles)
            told += self._columns.changes(part, now_ns, self._refresh.known or None)
        for event in message.events:
            item = self._plan.items[event.handle] if event.handle < len(self._plan.items) else None
            if item is None or item.tag.event is None:
                continue
            text = said_event(item.tag.event, event.fields, self._namespaces)
            if text is not None:
                told += self._columns.event(event.handle, text[0], text[1], now_ns)
        if message.ended is not None:
            self._subscriptions.pop(subscription.id, None)
            self._count(name_of(message.ended))
        self._overflows()
        return told

    def _handed_on(self, message: Message) -> None:
        """Its batches were taken: it may be acknowledged."""
        subscription = self._subscriptions.get(message.subscription)
        if subscription is not None:
            subscription.caught_up = True
        if message.is_empty:
            return
        self._acknowledged.append((message.subscription, message.sequence))
        if subscription is not None and distance(subscription.last, message.sequence) > 0:
            subscription.last = message.sequence

    def _overflows(self) -> None:
        """The server threw values away because a queue was full: counted, and said once a tag."""
        for handle in self._columns.overflows:
            self._count("overflow")
            self._find(
                self._plan.items[handle], "the server's queue was full and values were thrown away: raise queue_size or lower publishing_s"
            )
        self._columns.overflows.clear()

    # ------------------------------------------------------------------------------------------ polling

    async def _scan(self, job: Job) -> list[Batch]:
        handles = [handle for handle in self._plan.polled[job.device] if self._plan.items[handle].node is not None]
        told = await self._read(handles)
        for handle, status in zip(told.handles, told.statuses, strict=True):
            if status & 0xFFFF0000 == Quality.BAD_NODE_ID_UNKNOWN:
                self._find(self._plan.items[handle], f"the server says {name_of(status)}: check at (holdfast browse shows what there is)")
        return self._columns.changes(told, self._clock.time_ns())

    async def _read(self, handles: list[int]) -> Changes:
        nodes = [self._plan.items[handle].node for handle in handles]
        asked = [read_value(node) for node in nodes if node is not None]
        values = await server.read(self._peer, asked, (self._server or server.Server()).max_read)
        return Changes(
            handles,
            [one.builtin for one in values],
            [one.value for one in values],
            [one.status for one in values],
            [one.ticks for one in values],
        )

    # ------------------------------------------------------------------------------------------ what a person hears

    def _count(self, reason: str) -> None:
        self._stats.errors[reason] = self._stats.errors.get(reason, 0) + 1

    def _find(self, item: Item, text: str) -> None:
        self._say(f"{self._plan.devices[item.device].name}: tag {item.tag.name} at {item.tag.at}: {text}")

    def _say(self, text: str) -> None:
        if text not in self._said and len(self._said) < MAX_FINDINGS:
            self._said.add(text)
            self._findings.append(text)


def following(sequence: int) -> int:
    return sequence + 1 if sequence < SEQUENCES else 1


def distance(last: int, sequence: int) -> int:
    """How far ``sequence`` is ahead of ``last``; 0 or less where it came before. Over the wrap at the end, too."""
    ahead = (sequence - last) % SEQUENCES
    return ahead if ahead < SEQUENCES // 2 else ahead - SEQUENCES


def _may_be_structured(item: Item) -> bool:
    return item.role is Role.VALUE and (bool(item.place.steps) or item.tag.kind == "string")


def _item(item: Item, handle: int, namespaces: list[str], *, oldest: bool, filtered: bool) -> bytes:
    assert item.node is not None  # only items that are there are subscribed
    tag = item.tag
    if tag.event is not None:
        return requests.item(
            read_value(item.node, EVENT_NOTIFIER), handle, 0, max(item.queue_size, 100), filter_of(tag.event, namespaces), oldest=oldest
        )
    size, percent = tag.server_deadband, tag.server_deadband_percent
    filter_ = requests.deadband(size, percent) if filtered and (size or percent) else b""
    return requests.item(read_value(item.node), handle, item.sampling_s, item.queue_size, filter_, oldest=oldest)
