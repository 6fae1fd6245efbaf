"""An open HTTP connection: asks each request on its schedule, a few at once, and carries out commands.

What an answer says decides whom it concerns. A tag that is missing, a path that is not there, a device that is busy: a quality.
A device that does not answer twice is set aside and tried alone. Credentials that are not taken, and a host to which no
connection can be made, concern the whole connection. ``ledger`` below is the table of it.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np

from protocols.clock import Clock
from protocols.contract import Admission, Refused, Unreachable
from protocols.http.client import REDIRECTS, Answer, Client, Missed
from protocols.http.config import Http
from protocols.http.decoding import Busy
from protocols.http.message import retry_after_s, shown
from protocols.http.plan import DevicePlan, Kept, Plan, RequestPlan
from protocols.http.write import Writer
from protocols.model import Batch, Command, Outcome, Quality, ScanStats, silence
from protocols.schedule import Job, Schedule, phase_of

MAX_FINDINGS: Final = 200
FIRST_HOLD_S: Final = 2.0
"""A device that is busy and does not say for how long is left alone for this, then for twice as long, and so on."""
REFUSED_HOLD_S: Final = 60.0
"""A request that is not allowed is asked again after this: asking more often may lock an account, and helps nobody."""
LONGEST_VALIDATOR: Final = 512
LONGEST_TROUBLE: Final = 300

LEDGER: Final[dict[int, tuple[Quality, str]]] = {
    401: (Quality.BAD_NOT_READABLE, "the credentials are not taken for it: check the user's rights"),
    403: (Quality.BAD_NOT_READABLE, "it is forbidden: check the user's rights at the device"),
    404: (Quality.BAD_NODE_ID_UNKNOWN, "there is no such path: check path"),
    405: (Quality.BAD_NOT_SUPPORTED, "the method is not allowed there: check method"),
    406: (Quality.BAD_NOT_SUPPORTED, "the device cannot give what was asked for: check headers"),
    410: (Quality.BAD_NODE_ID_UNKNOWN, "the path exists no more: check path"),
    501: (Quality.BAD_NOT_SUPPORTED, "the device does not know the method: check method"),
}
"""By status: what its tags become, and what a person is told. Others by their hundred, see ``_judged``."""
BUSY: Final = frozenset({429, 503})
NOBODY_THERE: Final = frozenset({502, 504})
"""A gateway says that the device behind it does not answer."""
NOT_ALLOWED: Final = frozenset({401, 403})


@dataclass(slots=True)
class Hold:
    """Until when (monotonic) a device is left alone, and for how long the next time if it says nothing else."""

    until: float = 0.0
    next_s: float = FIRST_HOLD_S


@dataclass(slots=True)
class _Known:
    """What this session has seen of one request."""

    accepted: bool = False
    not_allowed: bool = False
    not_before: float = 0.0
    """When (monotonic) it may be asked again that was not allowed."""


class HttpSession:
    """See the driver contract."""

    tells = True
    """See :class:`protocols.steps.Telling`."""

    def __init__(self, options: Http, plan: Plan, client: Client, clock: Clock, stats: ScanStats) -> None:
        self._options, self._plan, self._client, self._clock, self._stats = options, plan, client, clock, stats
        self._findings: list[str] = []
        self._said: set[str] = set()
        self._schedule = Schedule(stats, options.retry_max_s)
        self._known: dict[int, _Known] = {id(request): _Known() for device in plan.devices for request in device.requests}
        self._holds = [Hold() for _ in plan.devices]
        self._writer = Writer(plan, client, clock)
        self._leaving: set[asyncio.Task[Any]] = set()  # Any: scans, and sleeps
        self.admission: Admission | None = None

    @property
    def stats(self) -> ScanStats:
        return self._stats

    @property
    def findings(self) -> list[str]:
        """Said once each; whoever reads them clears the list. Beyond MAX_FINDINGS nothing is kept."""
        return self._findings

    async def write(self, commands: Sequence[Command]) -> Sequence[Outcome]:
        return await self._writer.write(commands)

    async def batches(self) -> AsyncIterator[Batch]:
        schedule = self._schedule = self._fill(self._clock.monotonic())
        running: dict[asyncio.Task[list[Batch]], Job] = {}
        waker: asyncio.Task[None] | None = None
        try:
            while True:
                now = self._clock.monotonic()
                while len(running) < self._options.connections and schedule.due <= now:
                    job = schedule.start(now)
                    if self.admission is None or not self.admission.refusal(self._plan.devices[job.device].device.name):
                        self._start(job, running)
                    elif job.is_retry:
                        schedule.missed(job.device, now)
                if len(running) < self._options.connections:
                    waker = asyncio.ensure_future(self._clock.sleep_until(schedule.due))
                done, _ = await asyncio.wait({*running, *([waker] if waker else [])}, return_when=asyncio.FIRST_COMPLETED)
                if waker is not None:
                    waker.cancel()
                    waker = None
                for task in [task for task in running if task in done]:
                    del running[task]
                    for batch in task.result():
                        yield batch
                if schedule.all_demoted:
                    raise Unreachable(f"{self._client.where}: no device answers: check the devices' power, and path and url")
        finally:
            self._leave(running, waker)

    def _leave(self, running: Iterable[asyncio.Task[list[Batch]]], waker: asyncio.Task[None] | None) -> None:
        """Whoever iterates may be gone at once; ``close`` waits for what is still under way."""
        for task in (*running, *([waker] if waker is not None else [])):
            task.cancel()
            self._leaving.add(task)
            task.add_done_callback(self._leaving.discard)

    async def close(self) -> None:
        """Wait until nothing of this session is under way any more."""
        await asyncio.gather(*self._leaving, return_exceptions=True)

    def _fill(self, now: float) -> Schedule:
        schedule = Schedule(self._stats, self._options.retry_max_s)
        for at, device in enumerate(self._plan.devices):
            for place, request in enumerate(device.requests):
                if request.slots:
                    schedule.add(Job(at, place, request.period_s, phase_of(self._options.name, at), 0.0), now)
        return schedule

    def _start(self, job: Job, running: dict[asyncio.Task[list[Batch]], Job]) -> None:
        """Begin a scan, unless the one before it is still under way."""
        if not job.is_retry and any(other.device == job.device and other.group == job.group for other in running.values()):
            self._stats.missed += 1
            return
        running[asyncio.ensure_future(self._turn(job))] = job

    # ---------------------------------------------------------------------------------------------- one request

    async def _turn(self, job: Job) -> list[Batch]:
        """One scan of one request, or one try of a device that is set aside."""
        device = self._plan.devices[job.device]
        request = next(each for each in device.requests if each.slots) if job.is_retry else device.requests[job.group]
        known = self._known[id(request)]
        now = self._clock.monotonic()
        if not job.is_retry and now < self._holds[job.device].until:
            return request.decoder.bad(Quality.BAD_RESOURCE_UNAVAILABLE, self._clock.time_ns())
        if not job.is_retry and now < known.not_before:
            return request.decoder.bad(Quality.BAD_NOT_READABLE, self._clock.time_ns())
        kept = request.kept
        try:
            answer = await self._client.ask(
                request.options.method,
                request.url,
                headers={**request.headers, **_conditions(kept)},
                body=request.body,
                most=request.options.max_bytes,
            )
        except Missed as miss:
            if miss.reason == "redirect":
                self._schedule.answered(job.device, self._clock.monotonic())
                return self._spoilt(device, request, Quality.BAD_CONFIGURATION_ERROR, str(miss), "redirect")
            return self._miss(job, device, request, Quality.BAD_TIMEOUT if miss.reason == "timeout" else _of(miss), str(miss))
        return await self._judged(job, device, request, answer, kept)

    async def _judged(self, job: Job, device: DevicePlan, request: RequestPlan, answer: Answer, kept: Kept | None) -> list[Batch]:
        """What the status says, then what the body does."""
        status = answer.status
        if status in NOBODY_THERE:
            text = f"status {status}: what stands in front of it cannot reach it"
            return self._miss(job, device, request, Quality.BAD_NO_COMMUNICATION, text)
        self._schedule.answered(job.device, self._clock.monotonic())
        if status in BUSY:
            return self._busy(job, device, request, answer)
        self._holds[job.device].next_s = FIRST_HOLD_S
        if status in NOT_ALLOWED:
            self._refuse(device, request, answer)
        if status == 304 and kept is not None:
            return kept.anew(self._clock.time_ns())
        if not 200 <= status < 300:
            quality, text = _meaning(answer)
            return self._spoilt(device, request, quality, f"status {status} {answer.reason}: {text}", f"status_{status}")
        known = self._known[id(request)]
        known.accepted, known.not_allowed = True, False
        return await self._decoded(device, request, answer)

    async def _decoded(self, device: DevicePlan, request: RequestPlan, answer: Answer) -> list[Batch]:
        now_ns = self._clock.time_ns()
        request.kept = None
        try:
            batches = await request.beside.decode(answer.body, now_ns, answer.header("content-type"))
        except Busy:
            self._count("late")
            return request.decoder.bad(Quality.BAD_TIMEOUT, now_ns)
        if request.decoder.trouble:
            self._count("undecodable")
            self._find(device, f"{request.where}: {shown(request.decoder.trouble, LONGEST_TROUBLE)}")
            return batches
        self._look(device, request, batches)
        etag, changed = answer.header("etag"), answer.header("last-modified")
        if (etag or changed) and len(etag) <= LONGEST_VALIDATOR and len(changed) <= LONGEST_VALIDATOR and request.options.method == "GET":
            request.kept = Kept(etag, changed, batches, now_ns)
        return batches

    def _look(self, device: DevicePlan, request: RequestPlan, batches: list[Batch]) -> None:
        """Tags that the answer does not have are told once."""
        for batch in batches:
            if batch.quality.any():
                for slot in batch.tag[batch.quality == np.uint32(Quality.BAD_NODE_ID_UNKNOWN)].tolist():
                    tag = device.tags[slot]
                    self._find(device, f"tag {tag.name} at {tag.at}: {request.where} gives no such value: check at")

    # ---------------------------------------------------------------------------------------------- trouble

    def _miss(self, job: Job, device: DevicePlan, request: RequestPlan, quality: Quality, text: str) -> list[Batch]:
        """The device did not answer: this request's values are bad, or all of the device's when it is set aside by this."""
        if job.is_retry or not self._schedule.is_demoted(job.device):
            demoted = self._schedule.missed(job.device, self._clock.monotonic())
        else:
            return []  # another of its requests was under way when it was set aside
        if job.is_retry:
            return []
        if not demoted:
            return request.decoder.bad(quality, self._clock.time_ns())
        self._find(device, f"{request.where}: {text}: set aside, tried again at growing intervals: check its power, path and network")
        return silence(device.device, quality, self._clock.time_ns(), lost=True)

    def _busy(self, job: Job, device: DevicePlan, request: RequestPlan, answer: Answer) -> list[Batch]:
        """429 and 503: the device is left alone as long as it says, else for longer each time (RFC 6585, 4; RFC 9110, 15.6.4)."""
        hold, now = self._holds[job.device], self._clock.monotonic()
        wait_s = retry_after_s(answer.header("retry-after"), self._clock.time_ns())
        if wait_s is None:
            wait_s, hold.next_s = hold.next_s, min(2 * hold.next_s, self._options.retry_max_s)
        hold.until = max(hold.until, now + wait_s)
        self._count(f"status_{answer.status}")
        self._find(device, f"{request.where}: status {answer.status}: it is asked too often, or busy: raise scan_s")
        return request.decoder.bad(Quality.BAD_RESOURCE_UNAVAILABLE, self._clock.time_ns())

    def _refuse(self, device: DevicePlan, request: RequestPlan, answer: Answer) -> None:
        """401 and 403. Raises Refused where they concern the whole connection: credentials that nobody takes, or no more."""
        known = self._known[id(request)]
        withdrawn = answer.status == 401 and known.accepted
        known.not_allowed = True
        known.not_before = self._clock.monotonic() + REFUSED_HOLD_S
        others = [one for key, one in self._known.items() if key != id(request)]
        never = answer.status == 401 and not any(one.accepted for one in others)
        asked = [self._known[id(each)] for plan in self._plan.devices for each in plan.requests if each.slots]
        if withdrawn or never or all(one.not_allowed for one in asked):
            self._count(f"status_{answer.status}")
            advice = "check auth" if self._options.auth is not None else "the device wants credentials: write auth"
            what = f"{self._client.where}: {request.where} of {device.device.name} is answered {answer.status} {answer.reason}"
            raise Refused(f"{what}: {advice}")

    def _spoilt(self, device: DevicePlan, request: RequestPlan, quality: Quality, text: str, reason: str) -> list[Batch]:
        """The device answered, and not with values."""
        request.kept = None
        self._count(reason)
        self._find(device, f"{request.where}: {text}")
        return request.decoder.bad(quality, self._clock.time_ns())

    def _count(self, reason: str) -> None:
        self._stats.errors[reason] = self._stats.errors.get(reason, 0) + 1

    def _find(self, device: DevicePlan, text: str) -> None:
        sentence = f"{device.device.name}: {text}"
        if sentence not in self._said and len(self._said) < MAX_FINDINGS:
            self._said.add(sentence)
            self._findings.append(sentence)


def _meaning(answer: Answer) -> tuple[Quality, str]:
    """What a status that brings no values makes of the tags, and what a person is told."""
    status = answer.status
    if status in LEDGER:
        return LEDGER[status]
    if status in REDIRECTS:
        where = shown(answer.header("location"))
        return Quality.BAD_CONFIGURATION_ERROR, f"it is redirected to {where}: correct url or path, or allow redirects"
    if status >= 500:
        return Quality.BAD_DEVICE_FAILURE, "the device failed: see its own log"
    if status >= 400:
        return Quality.BAD_CONFIGURATION_ERROR, "the device does not understand the request: check path, query, body and headers"
    return Quality.BAD_DECODING_ERROR, "that is no answer to this request"


def _of(miss: Missed) -> Quality:
    return Quality.BAD_DECODING_ERROR if miss.reason == "broken" else Quality.BAD_NO_COMMUNICATION


def _conditions(kept: Kept | None) -> dict[str, str]:
    """What makes the server say 304 where nothing changed (RFC 9110, 13.1)."""
    if kept is None:
        return {}
    return {"If-None-Match": kept.etag} if kept.etag else {"If-Modified-Since": kept.last_modified}
