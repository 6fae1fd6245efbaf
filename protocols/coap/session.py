"""CoAP devices while they are read: polled on a drift-free schedule or observed, each by a task of its own, writes in between.

A scan of an observed resource does nothing while its news are fresh; when Max-Age (or ``refresh_s``) has passed it registers anew,
and only if that is not answered its values become uncertain, then bad. Trouble with one resource is the quality of its tags; a
device that gives no sign of life twice in a row is said to be lost, forgets its observations, and is tried alone at growing intervals.
When no device answers any more the connection is given up.
"""

from __future__ import annotations

import asyncio
import math
from collections import deque
from collections.abc import AsyncIterator, Callable, Coroutine, Sequence
from dataclasses import dataclass, field
from typing import Final

import msgspec
import numpy as np

from protocols.clock import Clock
from protocols.coap.channel import Channel, is_partial
from protocols.coap.config import Coap
from protocols.coap.message import DEFAULT_MAX_AGE_S, VALID, Message, Option, said
from protocols.coap.plan import DevicePlan, Plan, ResourcePlan
from protocols.coap.wire import Missed
from protocols.contract import DriverError, Misfit, Refused, Unreachable
from protocols.model import SEVERITY_MASK, Batch, Command, Outcome, Quality, ScanStats, silence
from protocols.payload import Format, format_of_coap
from protocols.schedule import Job, Schedule, phase_of

MAX_WAITING: Final = 4000
"""Batches that wait to be taken: scans pause then, and notifications are dropped and counted."""
MAX_FINDINGS: Final = 200
LARGE: Final = 32 * 1024
"""Bodies longer than this are decoded beside the event loop."""
MOST_REMEMBERED: Final = 64 * 1024
"""Bytes of a body that is remembered by its ETag."""
WRAP: Final = 1 << 23
REORDERED_S: Final = 128.0
"""A notification is newer by its number, or because the last is older than this (RFC 7641, 3.4)."""
NAMED: Final = 4

QUALITY: Final[dict[int, Quality]] = {
    0x80: Quality.BAD_CONFIGURATION_ERROR,
    0x81: Quality.BAD_NOT_READABLE,
    0x82: Quality.BAD_NOT_SUPPORTED,
    0x83: Quality.BAD_NOT_READABLE,
    0x84: Quality.BAD_NODE_ID_UNKNOWN,
    0x85: Quality.BAD_NOT_READABLE,
    0x86: Quality.BAD_CONFIGURATION_ERROR,
    0x9D: Quality.BAD_RESOURCE_UNAVAILABLE,
    0xA0: Quality.BAD_DEVICE_FAILURE,
    0xA1: Quality.BAD_NOT_SUPPORTED,
    0xA2: Quality.BAD_NO_COMMUNICATION,
    0xA3: Quality.BAD_RESOURCE_UNAVAILABLE,
    0xA4: Quality.BAD_NO_COMMUNICATION,
    0xA5: Quality.BAD_NOT_SUPPORTED,
}
"""By response code (RFC 7252, 5.9); other 4.xx are BAD, other 5.xx a device failure."""
OF_MISS: Final[dict[str, Quality]] = {
    "slow": Quality.BAD_TIMEOUT,
    "reset": Quality.BAD_RESOURCE_UNAVAILABLE,
    "broken": Quality.BAD_DECODING_ERROR,
    "too_large": Quality.BAD_OUT_OF_RANGE,
    "unsealed": Quality.BAD_NOT_READABLE,
}
"""By reason, where the device gave a sign of life. Any other miss is one of the device."""


@dataclass(slots=True, eq=False)
class Followed:
    """One resource in one session."""

    plan: ResourcePlan
    token: bytes = b""
    """Of its observation; empty while there is none."""
    cannot: bool = False
    """The device does not let it be observed."""
    order: int = 0
    order_at: float = -math.inf
    fresh_until: float = -math.inf
    told: list[Batch] = field(default_factory=list)
    """What was told last."""
    etag: bytes = b""
    body: Message | None = None
    """What ``etag`` stands for."""
    format: Format | None = None
    """In which form it came last."""
    lock: asyncio.Lock = field(default_factory=asyncio.Lock)
    """One body at a time."""
    again: bool = False
    """It is about to be asked for anew."""
    said: set[str] = field(default_factory=set)

    @property
    def names(self) -> str:
        tags = self.plan.options.tags
        return ", ".join(tag.name for tag in tags[:NAMED]) + (f" and {len(tags) - NAMED} more" if len(tags) > NAMED else "")


@dataclass(slots=True, eq=False)
class Member:
    """One device in one session."""

    plan: DevicePlan
    channel: Channel
    resources: tuple[Followed, ...]
    schedule: Schedule
    place: int
    trouble: Exception | None = None
    """Why it is set aside."""


class CoapSession:
    """See the driver contract."""

    tells = True
    """See :class:`protocols.steps.Telling`."""

    def __init__(self, options: Coap, plan: Plan, channels: Sequence[Channel], clock: Clock, stats: ScanStats) -> None:
        self._options, self._clock, self._stats = options, clock, stats
        self._findings: list[str] = []
        self.members = tuple(
            Member(device, channel, tuple(Followed(each) for each in device.resources), Schedule(stats, options.retry_max_s), place)
            for place, (device, channel) in enumerate(zip(plan.devices, channels, strict=True))
        )
        self._waiting: deque[Batch] = deque()
        self._news, self._room = asyncio.Event(), asyncio.Event()
        self._tasks: set[asyncio.Task[None]] = set()
        self._trouble: BaseException | None = None
        self._writer: Callable[[Sequence[Command]], Coroutine[None, None, list[Outcome]]] | None = None

    @property
    def stats(self) -> ScanStats:
        return self._stats

    @property
    def findings(self) -> list[str]:
        """Said once each; whoever reads them clears the list. Beyond MAX_FINDINGS nothing is kept."""
        return self._findings

    def find(self, member: Member, text: str) -> None:
        if len(self._findings) < MAX_FINDINGS:
            self._findings.append(f"{member.plan.device.name}: {text}")

    def write_with(self, writer: Callable[[Sequence[Command]], Coroutine[None, None, list[Outcome]]]) -> None:
        self._writer = writer

    async def write(self, commands: Sequence[Command]) -> Sequence[Outcome]:
        assert self._writer is not None  # the driver gave one
        return await self._writer(commands)

    async def batches(self) -> AsyncIterator[Batch]:
        await self.rest()
        self._begin()
        try:
            while True:
                while self._waiting:
                    yield self._waiting.popleft()
                self._room.set()
                if self._trouble is not None:
                    raise self._trouble
                self._news.clear()
                await self._news.wait()
        finally:
            self._halt()  # who was cancelled must be gone at once

    def _halt(self) -> None:
        """Stop what runs for an iteration of batches."""
        for task in self._tasks:
            task.cancel()
        for member in self.members:
            self._unfollow(member, politely=True)

    async def rest(self) -> None:
        """Return when nothing runs for an iteration of batches any more. Safe at any moment, and twice."""
        self._halt()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self._waiting.clear()

    def _begin(self) -> None:
        self._trouble = None
        now = self._clock.monotonic()
        for member in self.members:
            member.trouble = None
            member.schedule = Schedule(self._stats, self._options.retry_max_s)
            phase = phase_of(self._options.name, member.place)
            for at, followed in enumerate(member.resources):
                member.schedule.add(Job(0, at, followed.plan.period_s, phase, float(at)), now)
            if member.resources:
                self._spawn(self._work(member))

    def _spawn(self, work: Coroutine[None, None, None]) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._ended)

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            self._trouble = self._trouble or error
            self._news.set()

    # ------------------------------------------------------------------------------------------------------- scanning

    async def _work(self, member: Member) -> None:
        """Read one device for ever."""
        schedule, clock = member.schedule, self._clock
        while True:
            if len(self._waiting) >= MAX_WAITING:
                self._room.clear()
                await self._room.wait()
            now = clock.monotonic()
            if schedule.due > now:
                await clock.sleep_until(schedule.due)
                continue
            job = schedule.start(now)
            if job.is_retry:
                await self._retry(member)
            else:
                await self._scan(member, member.resources[job.group])

    async def _scan(self, member: Member, followed: Followed) -> None:
        if followed.token and self._clock.monotonic() < followed.fresh_until:
            return  # news come by themselves
        async with followed.lock:
            try:
                response = await (self._poll if followed.cannot else self._ask)(member, followed)
            except (Missed, DriverError) as miss:
                self._missed(member, followed, miss)
                return
            self._heard(member)
            if response is not None:
                await self._take(member, followed, response)

    async def _ask(self, member: Member, followed: Followed) -> Message | None:
        if followed.plan.options.mode == "observe":
            return await self._register(member, followed)
        return await self._poll(member, followed)

    async def _poll(self, member: Member, followed: Followed) -> Message:
        request = followed.plan.request
        if followed.etag:
            request = msgspec.structs.replace(request, options=request.but((Option.ETAG, followed.etag)))
        options = followed.plan.options
        return await member.channel.fetch(request, options.max_bytes, confirmable=member.plan.options.confirmable)

    async def _register(self, member: Member, followed: Followed) -> Message | None:
        """Observe, or go on observing. None where newer news came while this was asked."""
        request = self._registration(followed, followed.token or member.channel.wire.token())
        followed.token = request.token
        first = await member.channel.observe(request, lambda message: self._notified(member, followed, request.token, message))
        if first.first(Option.OBSERVE) is None or not first.is_success:
            self._drop(member, followed)
            if first.is_success and not followed.cannot:
                followed.cannot = True
                self._say(member, followed, "unobservable", f"cannot be observed: each {followed.plan.period_s:g} s it is asked instead")
        elif not self._is_newer(followed, first):
            return None
        whole = await member.channel.whole(request, first, followed.plan.options.max_bytes)
        self._is_fresh(followed, first)
        return whole

    def _registration(self, followed: Followed, token: bytes) -> Message:
        request = followed.plan.request
        return msgspec.structs.replace(request, token=token, options=request.but((Option.OBSERVE, b"")))

    async def _retry(self, member: Member) -> None:
        """One question to a device that was silent."""
        first = member.resources[0].plan
        try:
            await member.channel.fetch(first.request, first.options.max_bytes)
        except Missed as miss:
            if miss.reason not in OF_MISS:
                member.trouble = miss
                member.schedule.missed(0, self._clock.monotonic())
                return
        except DriverError as error:
            member.trouble = error
            member.schedule.missed(0, self._clock.monotonic())
            return
        self._heard(member)

    def _heard(self, member: Member) -> None:
        member.trouble = None
        member.schedule.answered(0, self._clock.monotonic())

    def _missed(self, member: Member, followed: Followed, miss: Missed | DriverError) -> None:
        """A scan brought nothing: of a resource alone, or of the whole device."""
        now = self._clock.time_ns()
        reason = miss.reason if isinstance(miss, Missed) else ""
        if reason in OF_MISS:
            self._heard(member)
            self._drop(member, followed)
            self._say(member, followed, reason, f"{miss}")
            self._tell(followed, followed.plan.decoder.bad(OF_MISS[reason], now))
        elif not member.schedule.missed(0, self._clock.monotonic()):
            was_observed = followed.token != b""
            self._drop(member, followed)
            self._tell(followed, _uncertain(followed.told, now) if was_observed else followed.plan.decoder.bad(Quality.BAD_TIMEOUT, now))
        else:
            member.trouble = miss
            self._unfollow(member, politely=False)
            self.find(member, f"{miss}: set aside, tried again at growing intervals: check its power and the network")
            quality = Quality.BAD_TIMEOUT if reason == "timeout" else Quality.BAD_NO_COMMUNICATION
            self._put(silence(member.plan.device, quality, now, lost=True))
            self._look_around()

    def _look_around(self) -> None:
        """Is any device left that answers?"""
        troubles = [member.trouble for member in self.members if member.resources]
        if None not in troubles:
            self._trouble = given_up([(member.plan.options.where, member.trouble) for member in self.members if member.trouble])
            self._news.set()

    # ------------------------------------------------------------------------------------------------------ observing

    def _notified(self, member: Member, followed: Followed, token: bytes, message: Message | None) -> None:
        """A notification came, or will come no more. Called by the wire: it must be quick."""
        if token != followed.token:
            return
        if message is None:
            self._drop(member, followed)
            self._say(member, followed, "cut", f"its observation was lost: {member.channel.wire.why}")
            return
        if message.is_success and message.first(Option.OBSERVE) is None:
            self._drop(member, followed)  # its last word (RFC 7641, 4.2)
        elif message.is_success and not self._is_newer(followed, message):
            member.channel.wire.count("reordered")
            return
        elif not message.is_success:
            self._drop(member, followed)
        self._is_fresh(followed, message)
        if is_partial(message) or len(message.payload) > LARGE or followed.lock.locked():
            self._anew(member, followed)
        elif len(self._waiting) >= MAX_WAITING:
            member.channel.wire.count("dropped")
            self._say(member, followed, "dropped", "notifications come faster than they are taken: some were dropped")
        else:
            self._tell(followed, self._decoded(member, followed, message, self._clock.time_ns()))

    def _is_newer(self, followed: Followed, message: Message) -> bool:
        """Whether ``message`` is newer than the last (RFC 7641, 3.4); sealed ones are numbered without wrapping (RFC 8613, 4.1.3.5.2)."""
        order, now = message.uint(Option.OBSERVE, 5) or 0, self._clock.monotonic()
        last = followed.order
        is_newer = last < order < last + WRAP or order < last - WRAP or now > followed.order_at + REORDERED_S
        if is_newer or followed.order_at == -math.inf:
            followed.order, followed.order_at = order, now
            return True
        return False

    def _is_fresh(self, followed: Followed, message: Message) -> None:
        age = message.uint(Option.MAX_AGE)
        max_age_s = float(DEFAULT_MAX_AGE_S if age is None else age)
        wait_s = max(1.0, min(max_age_s + min(5.0, max_age_s / 4), followed.plan.options.refresh_s))
        followed.fresh_until = self._clock.monotonic() + wait_s

    def _anew(self, member: Member, followed: Followed) -> None:
        """Its body is too long for one message: ask for the whole."""
        if not followed.again:
            followed.again = True
            self._spawn(self._refetch(member, followed))

    async def _refetch(self, member: Member, followed: Followed) -> None:
        async with followed.lock:
            followed.again = False
            try:
                response = await self._poll(member, followed)
            except (Missed, DriverError):
                followed.fresh_until = -math.inf  # the next scan asks, and judges
                return
            await self._take(member, followed, response)

    def _drop(self, member: Member, followed: Followed) -> None:
        """It is observed no more."""
        if followed.token:
            member.channel.forget(followed.token)
        followed.token, followed.fresh_until, followed.order_at = b"", -math.inf, -math.inf

    def _unfollow(self, member: Member, *, politely: bool) -> None:
        for followed in member.resources:
            if politely and followed.token:
                member.channel.dismiss(self._registration(followed, followed.token))
            self._drop(member, followed)

    # ------------------------------------------------------------------------------------------------------- decoding

    async def _take(self, member: Member, followed: Followed, response: Message) -> None:
        """A whole answer came."""
        now = self._clock.time_ns()
        if len(response.payload) > LARGE:
            batches = await asyncio.to_thread(self._decoded, member, followed, response, now)
        else:
            batches = self._decoded(member, followed, response, now)
        self._tell(followed, batches)

    def _decoded(self, member: Member, followed: Followed, response: Message, now_ns: int) -> list[Batch]:
        plan = followed.plan
        if response.code == VALID and followed.body is not None:
            response = followed.body
        elif not response.is_success:
            self._say(member, followed, said(response.code), f"the device answers {said(response.code)}{_why(response)}: check path")
            return plan.decoder.bad(quality_of(response.code), now_ns)
        else:
            self._remember(followed, response)
        number = response.uint(Option.CONTENT_FORMAT, 2)
        form = (Format.TEXT if plan.is_text else Format.JSON) if number is None else format_of_coap(number)
        if form is None and plan.options.format is Format.AUTO:
            self._say(member, followed, "format", f"its content format is {number}, which is not read: say its format")
            return plan.decoder.bad(Quality.BAD_NOT_SUPPORTED, now_ns)
        followed.format = form
        batches = plan.decoder.decode(response.payload, now_ns, format=form)
        if plan.decoder.trouble:
            self._say(member, followed, "payload", plan.decoder.trouble)
        return batches

    def _remember(self, followed: Followed, response: Message) -> None:
        etag = response.first(Option.ETAG) or b""
        keeps = 1 <= len(etag) <= 8 and len(response.payload) <= MOST_REMEMBERED
        followed.etag, followed.body = (etag, response) if keeps else (b"", None)

    def _say(self, member: Member, followed: Followed, what: str, text: str) -> None:
        """Once in a session for each resource and ``what``."""
        if what not in followed.said:
            followed.said.add(what)
            self.find(member, f"{followed.plan.options.path}: {text} (tags {followed.names})")

    def _tell(self, followed: Followed, batches: list[Batch]) -> None:
        followed.told = batches or followed.told
        self._put(batches)

    def _put(self, batches: list[Batch]) -> None:
        self._waiting.extend(batches)
        self._news.set()


def quality_of(code: int) -> Quality:
    return QUALITY.get(code) or (Quality.BAD_DEVICE_FAILURE if code >> 5 == 5 else Quality.BAD)


def given_up(troubles: Sequence[tuple[str, Exception | None]]) -> DriverError:
    """No device answers: what is said of the connection. What only a person can mend is said as such."""
    kinds = {type(trouble) for _, trouble in troubles}
    kind = kinds.pop() if len(kinds) == 1 else Unreachable
    where, first = troubles[0]
    text = f"{first}" if str(first).startswith(where) else f"{where}: {first}"
    if len(troubles) > 1:
        others = ", ".join(place for place, _ in troubles[1:NAMED])
        text = f"none of {len(troubles)} devices answers: {text}; so do not {others}{' and more' if len(troubles) > NAMED else ''}"
    made = kind if kind in (Misfit, Refused) else Unreachable
    return made(f"{text}: check the network and the devices' power") if made is Unreachable else made(text)


def _uncertain(batches: Sequence[Batch], now_ns: int) -> list[Batch]:
    """The last values again: still usable, and nobody knows for how long. What was bad stays bad."""
    return [
        Batch(
            device=batch.device,
            tag=batch.tag,
            value=batch.value,
            quality=np.where(
                batch.quality & SEVERITY_MASK >= Quality.BAD, batch.quality, np.uint32(Quality.UNCERTAIN_LAST_USABLE_VALUE)
            ).astype(np.uint32),
            time_ns=np.full(len(batch), now_ns, dtype=np.int64),
        )
        for batch in batches
    ]


def _why(response: Message) -> str:
    """What the device adds to a refusal (RFC 7252, 5.5.2), for a person."""
    text = response.payload[:80].decode("utf-8", "replace")
    return f" ({text})" if text and text.isprintable() else ""
