"""The webhook driver: devices post, the session hands on what they prove, and answers when it was handed on.

In this order, so that whoever proves nothing costs little: rate of the peer, path, method, length, body within its time, proof,
rate of the device, repeat, decoding. 202 says that the batches have been taken by the gateway, which writes them to the journal
behind that (the README says what it means for durability); only then is the delivery remembered, so that what was not taken
is taken when it is posted again.
"""

from __future__ import annotations

import asyncio
import math
import weakref
from collections import deque
from collections.abc import AsyncIterator, Iterable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any, Final

import msgspec
from aiohttp import web

from protocols.clock import Clock, SystemClock
from protocols.contract import Admission, DriverError, ProbeReport, Problem
from protocols.http import config
from protocols.http.check import check_webhook
from protocols.http.config import Webhook
from protocols.http.decoding import Beside, Busy
from protocols.http.limits import Bucket, Buckets, Seen, peer_of
from protocols.http.message import shown
from protocols.http.receiver import Receiver, answer
from protocols.http.signature import Unproven, Verifier
from protocols.model import Batch, Command, Device, Outcome, OutcomeState, Quality, ScanStats, silence
from protocols.payload import Decoder
from protocols.secret import SecretMissing
from protocols.tls import server_context

WAITING: Final = 64
"""Messages that wait to be handed on; more are asked to come again."""
HAND_ON_S: Final = 10.0
AGAIN_S: Final = 1
MAX_FINDINGS: Final = 200


@dataclass(eq=False, slots=True)
class _Delivery:
    """What one message brought, on its way to whoever iterates."""

    batches: list[Batch]
    handed_on: asyncio.Future[bool]


@dataclass(eq=False, slots=True)
class DevicePlan:
    """One device that posts."""

    options: config.WebhookDevice
    device: Device
    decoder: Decoder


@dataclass(eq=False, slots=True)
class Plan:
    """A connection. ``seen`` outlives a session: a repeat is one although the port was opened anew between."""

    devices: list[DevicePlan]
    seen: Seen = field(default_factory=Seen)


def make_plan(options: Webhook) -> Plan:
    devices = []
    for each in options.devices:
        device = Device(options.name, each.name, tuple(tag.tag(each.silence_s) for tag in each.tags))
        devices.append(DevicePlan(each, device, Decoder(device, each.tags, each)))
    return Plan(devices)


class _Place:
    """A path that is posted to, in one session."""

    def __init__(self, plan: DevicePlan, verifier: Verifier, now: float) -> None:
        self.plan, self.verifier = plan, verifier
        self.bucket = Bucket(plan.options.rate_per_s, plan.options.burst)
        self.beside = Beside(plan.decoder)
        self.turn = asyncio.Lock()
        """Messages of one device are decoded and handed on in the order in which they came."""
        self.heard = now
        self.is_lost = False

    @property
    def silent_at(self) -> float:
        """When (monotonic) it counts as lost."""
        after = self.plan.options.silence_s
        return self.heard + after if after and not self.is_lost else math.inf


class WebhookSession:
    """See the driver contract."""

    proven = True
    """The port listens."""

    def __init__(self, options: Webhook, plan: Plan, clock: Clock) -> None:
        """Reads the secrets. Raises SecretMissing."""
        self._options, self._plan, self._clock = options, plan, clock
        self._stats = ScanStats()
        self._findings: list[str] = []
        self._said: set[tuple[str, str]] = set()
        now = clock.monotonic()
        self._places: dict[str, _Place] = {}
        for device in plan.devices:
            verifier = Verifier(device.options.auth or options.auth, options.id_header)
            self._places[device.options.path] = _Place(device, verifier, now)
        self._peers = Buckets(options.rate_per_s, options.burst)
        self._under_way: set[str] = set()
        self._waiting: deque[_Delivery] = deque()
        self._open: set[_Delivery] = set()
        """Those that somebody waits for the end of, handed on already or not."""
        self._news = asyncio.Event()
        self._failure: BaseException | None = None
        self._is_closing = False
        self._leaving: set[asyncio.Task[Any]] = set()  # Any: sleeps and waits
        self.admission: Admission | None = None
        self.receiver = Receiver(
            self._handle,
            count=self._count,
            failed=self._fail,
            most=options.max_connections,
            most_per_peer=options.max_connections_per_peer,
            timeout_s=options.request_timeout_s,
        )

    @property
    def stats(self) -> ScanStats:
        return self._stats

    @property
    def findings(self) -> list[str]:
        """Said once each; whoever reads them clears the list. Beyond MAX_FINDINGS nothing is kept."""
        return self._findings

    async def write(self, commands: Sequence[Command]) -> Sequence[Outcome]:
        """Nothing can be written to who only posts."""
        text = "a webhook only takes what is posted: nothing can be written to it"
        return [Outcome(command=command.id, state=OutcomeState.REFUSED, time_ns=self._clock.time_ns(), detail=text) for command in commands]

    async def batches(self) -> AsyncIterator[Batch]:
        while True:
            while self._waiting:
                delivery = self._waiting.popleft()
                try:
                    for batch in delivery.batches:
                        yield batch
                except BaseException:
                    _settle(delivery, False)
                    raise
                _settle(delivery, True)
            for batch in self._silent():
                yield batch
            if self._failure is not None:
                raise self._failure
            await self._something()

    async def close(self) -> None:
        self._is_closing = True
        for delivery in self._open:
            _settle(delivery, False)
        await self.receiver.close()
        await asyncio.gather(*self._leaving, return_exceptions=True)

    async def _something(self) -> None:
        """Return when a message waits, or a device has been silent for too long. Who waits may be gone at once."""
        self._news.clear()
        if self._waiting or self._failure is not None:
            return
        due = min((place.silent_at for place in self._places.values()), default=math.inf)
        tasks = {asyncio.ensure_future(self._news.wait()), asyncio.ensure_future(self._clock.sleep_until(due))}
        try:
            await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        finally:
            self._leave(tasks)

    def _leave(self, tasks: Iterable[asyncio.Task[Any]]) -> None:  # Any: as above
        for task in tasks:
            task.cancel()
            self._leaving.add(task)
            task.add_done_callback(self._leaving.discard)

    def _silent(self) -> list[Batch]:
        """Batches that say which devices are lost by now."""
        now, batches = self._clock.monotonic(), []
        for place in self._places.values():
            if place.silent_at <= now:
                place.is_lost = True
                device = place.plan.device
                self._find(device.name, "silent", f"nothing was posted for {place.plan.options.silence_s:g} s: check the sender")
                batches += silence(device, Quality.BAD_NO_COMMUNICATION, self._clock.time_ns(), lost=True)
        return batches

    # ------------------------------------------------------------------------------------------------ one message

    async def _handle(self, request: web.BaseRequest) -> web.StreamResponse:
        self._stats.requests += 1
        peer = peer_of(request.remote or "")
        wait_s = self._peers.wait_s(peer, self._clock.monotonic())
        if wait_s:
            return self._turned_away("too_often", 429, wait_s=wait_s)
        place = self._places.get(request.path)
        if place is None:
            self._find(self._options.name, "path", f"{peer} asked for {shown(request.path)}, which no device posts to: check path")
            return self._turned_away("unknown_path", 404)
        if request.method != "POST":
            return self._turned_away("method", 405, headers={"Allow": "POST"})
        most = place.plan.options.max_bytes
        if (request.content_length or 0) > most:
            return self._too_long(place, most)
        if request.headers.get("Content-Encoding", "identity").lower() != "identity":
            return self._turned_away("packed", 415)
        return await self._read(request, place, peer)

    async def _read(self, request: web.BaseRequest, place: _Place, peer: str) -> web.StreamResponse:
        """The body, in its time and length, once the headers may be right; then the proof."""
        headers: dict[str, str] = {}
        for name, value in request.headers.items():
            headers.setdefault(name.lower(), value)
        certificate = _certificate_of(request)
        if not place.verifier.needs_body and self._names(place, headers, b"", peer, certificate) is None:
            return self._turned_away("unproven", 401)
        if request.headers.get("Expect", "").lower() == "100-continue":
            assert request.transport is not None  # it would have been cancelled
            request.transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        most, body = place.plan.options.max_bytes, bytearray()
        try:
            async with asyncio.timeout(self._options.request_timeout_s):
                async for chunk in request.content.iter_any():
                    body += chunk
                    if len(body) > most:
                        return self._too_long(place, most)
        except TimeoutError:
            return self._turned_away("slow", 408)
        except (web.RequestPayloadError, ConnectionError):
            return self._turned_away("broken", 400)
        names = self._names(place, headers, bytes(body), peer, certificate)
        if names is None:
            return self._turned_away("unproven", 401)
        return await self._proven(place, names, bytes(body), headers.get("content-type", ""))

    def _names(self, place: _Place, headers: dict[str, str], body: bytes, peer: str, certificate: bytes) -> list[str] | None:
        """Under which names the delivery is to be remembered; None where it does not prove itself."""
        name = place.plan.device.name

        def known(token: str) -> bool:
            return self.admission is not None and self.admission.proves(name, token, certificate)

        try:
            return [f"{name} {each}" for each in place.verifier.verify(headers, body, self._clock.time_ns(), known)]
        except Unproven as trouble:
            self._find(name, "unproven", f"a message from {peer} was not taken: {trouble}: check the sender's secret and clock")
            return None

    async def _proven(self, place: _Place, names: list[str], body: bytes, media_type: str) -> web.StreamResponse:
        """The message is the device's own."""
        refusal = self.admission.refusal(place.plan.device.name) if self.admission is not None else ""
        if refusal:
            self._find(place.plan.device.name, f"refused {refusal}", f"what it posts is not taken: {refusal}")
            return self._turned_away("refused", 403)
        wait_s = place.bucket.wait_s(self._clock.monotonic())
        if wait_s:
            self._find(
                place.plan.device.name, "too_often", "it posts more often than rate_per_s and burst allow: raise them, or slow it down"
            )
            return self._turned_away("too_often", 429, wait_s=wait_s)
        if any(name in self._plan.seen for name in names):
            self._count("repeat")
            return answer(200)
        if not self._under_way.isdisjoint(names):
            return self._turned_away("repeat_under_way", 409, wait_s=AGAIN_S)
        if len(self._waiting) >= WAITING:
            return self._turned_away("busy", 503, wait_s=AGAIN_S)
        self._under_way.update(names)
        try:
            async with place.turn:
                return await self._taken(place, names, body, media_type)
        finally:
            self._under_way.difference_update(names)

    async def _taken(self, place: _Place, names: list[str], body: bytes, media_type: str) -> web.StreamResponse:
        """Decode, hand on, remember, answer."""
        now_ns, decoder, name = self._clock.time_ns(), place.plan.decoder, place.plan.device.name
        try:
            batches = await place.beside.decode(body, now_ns, media_type)
        except Busy:
            return self._turned_away("busy", 503, wait_s=AGAIN_S)
        trouble = decoder.trouble
        place.heard, place.is_lost = self._clock.monotonic(), False
        if trouble:
            self._find(name, "undecodable", f"what it posts cannot be read: {shown(trouble, 300)}")
        if batches and not await self._hand_on(batches):
            return self._turned_away("busy", 503, wait_s=AGAIN_S)
        if trouble:
            return self._turned_away("undecodable", 422)
        for each in names:
            self._plan.seen.add(each)
        return answer(202)

    async def _hand_on(self, batches: list[Batch]) -> bool:
        """Whether whoever iterates took them, within HAND_ON_S."""
        if self._is_closing:
            return False
        delivery = _Delivery(batches, asyncio.get_running_loop().create_future())
        self._open.add(delivery)
        self._waiting.append(delivery)
        self._news.set()
        try:
            async with asyncio.timeout(HAND_ON_S):
                return await delivery.handed_on
        except TimeoutError:
            return False
        finally:
            self._open.discard(delivery)
            if delivery in self._waiting:
                self._waiting.remove(delivery)

    # ------------------------------------------------------------------------------------------------ trouble

    def _turned_away(self, reason: str, status: int, *, wait_s: float = 0.0, headers: dict[str, str] | None = None) -> web.StreamResponse:
        self._count(reason)
        told = {**(headers or {}), **({"Retry-After": str(math.ceil(wait_s))} if wait_s else {})}
        return answer(status, headers=told, closes=status in (400, 408, 413))

    def _too_long(self, place: _Place, most: int) -> web.StreamResponse:
        self._find(place.plan.device.name, "too_long", f"a message was longer than the {most} bytes of max_bytes: raise it, or post less")
        return self._turned_away("too_long", 413)

    def _fail(self, error: BaseException) -> None:
        """An error of our own in answering: whoever iterates gets it, and the link says so."""
        self._failure = self._failure or error
        self._news.set()

    def _count(self, reason: str) -> None:
        self._stats.errors[reason] = self._stats.errors.get(reason, 0) + 1

    def _find(self, who: str, what: str, text: str) -> None:
        """Once for each kind of trouble of each device: what a stranger does may not fill a log."""
        if (who, what) not in self._said and len(self._said) < MAX_FINDINGS:
            self._said.add((who, what))
            self._findings.append(f"{who}: {text}")


def _certificate_of(request: web.BaseRequest) -> bytes:
    """The certificate (DER) that the sender showed in the handshake; empty where it showed none."""
    tls = request.transport.get_extra_info("ssl_object") if request.transport is not None else None
    return (tls.getpeercert(binary_form=True) or b"") if tls is not None else b""


def _settle(delivery: _Delivery, taken: bool) -> None:
    if not delivery.handed_on.done():
        delivery.handed_on.set_result(taken)


class WebhookDriver:
    """See the driver contract."""

    name = "webhook"
    options: type[msgspec.Struct] = Webhook

    def __init__(self) -> None:
        self._plans: dict[int, tuple[weakref.ref[Webhook], Plan]] = {}

    def check(self, options: Any) -> Sequence[Problem]:  # Any: the contract's; a Webhook
        return check_webhook(options)

    def devices(self, options: Any) -> Sequence[Device]:  # Any: as above
        return [plan.device for plan in self._plan(options).devices]

    @asynccontextmanager
    async def open(self, options: Any, *, clock: Clock) -> AsyncIterator[WebhookSession]:  # Any: as above
        tls = await asyncio.to_thread(server_context, options.tls) if options.tls is not None else None
        session = WebhookSession(options, self._plan(options), clock)
        try:
            await session.receiver.open(options.listen_host, options.listen_port, tls)
            yield session
        finally:
            await session.close()

    async def probe(self, options: Any) -> ProbeReport:  # Any: as above
        """Whether the port is free, and certificates and secrets are there. Who posts meanwhile is asked to come again."""
        where = f"{options.listen_host}:{options.listen_port}"
        try:
            async with self.open(options, clock=SystemClock()):
                said = [f"{where}: free to listen on", *(f"{device.name}: posts to {device.path}" for device in options.devices)]
                return ProbeReport(ok=True, findings=tuple(said))
        except (DriverError, SecretMissing) as error:
            return ProbeReport(ok=False, findings=(str(error),))

    def _plan(self, options: Webhook) -> Plan:
        """The plan of this very object; equal objects have plans of their own."""
        key = id(options)
        if key not in self._plans:
            forget = weakref.ref(options, lambda _: self._plans.pop(key, None))
            self._plans[key] = (forget, make_plan(options))
        return self._plans[key][1]


WEBHOOK: Final = WebhookDriver()
