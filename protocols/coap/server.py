"""CoAP devices that push: a session that listens, judges each request, and hands on what it holds before it says yes.

2.04 is answered when whoever iterates the batches has taken them and asked for more: a device that hears yes knows that the gateway has its
reading. Whatever is not configured is refused without a word more than its code, counted, and told once.
"""

from __future__ import annotations

import asyncio
import hmac
import math
import ssl
from collections import deque
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any, Final

import msgspec

from protocols.clock import Clock
from protocols.coap.admission import Bodies
from protocols.coap.check import oscore_problems
from protocols.coap.listen import Doors
from protocols.coap.message import (
    BAD_OPTION,
    BAD_REQUEST,
    CHANGED,
    FORBIDDEN,
    METHOD_NOT_ALLOWED,
    NOT_FOUND,
    POST,
    PUT,
    UNAUTHORIZED,
    UNAVAILABLE,
    UNSUPPORTED_FORMAT,
    Message,
    Option,
    said,
)
from protocols.coap.oscore import Binding, Challenge, Context, Sealed, hint_of
from protocols.coap.plan import Kept
from protocols.coap.server_config import CoapServer, PushedResource, PushingDevice
from protocols.contract import Admission, DriverError, ProbeReport, Problem
from protocols.model import Batch, Command, Device, Outcome, OutcomeState, Quality, ScanStats, silence
from protocols.options import error, unique_names, warning
from protocols.payload import Decoder, Format, format_of_coap, payload_problems, problems_of_tag
from protocols.tls import server_context

MAX_WAITING: Final = 256
"""Messages that wait to be taken; more are answered 5.03, and come again."""
MAX_FINDINGS: Final = 200
LARGE: Final = 32 * 1024
"""Bodies longer than this are decoded beside the event loop."""
UNDERSTOOD: Final = frozenset(
    {Option.URI_HOST, Option.URI_PORT, Option.URI_PATH, Option.URI_QUERY, Option.ACCEPT, Option.BLOCK1, Option.BLOCK2, Option.OSCORE}
)
"""Critical options that a request may have (RFC 7252, 5.4.1)."""


@dataclass(slots=True, eq=False)
class _Resource:
    device: _Pusher
    options: PushedResource
    decoder: Decoder
    lock: asyncio.Lock


@dataclass(slots=True, eq=False)
class _Pusher:
    """One device in one session."""

    options: PushingDevice
    device: Device
    context: Context | None
    token: str | None
    heard_at: float = 0.0
    is_lost: bool = False


@dataclass(slots=True)
class _Parcel:
    batches: list[Batch]
    taken: asyncio.Future[None] = field(default_factory=lambda: asyncio.get_running_loop().create_future())


class PushSession:
    """See the driver contract."""

    proven = True
    """The port listens."""

    def __init__(self, options: CoapServer, devices: Sequence[Device], clock: Clock) -> None:
        """Raises Misfit, SecretMissing."""
        self._clock = clock
        self._stats = ScanStats()
        self._findings: list[str] = []
        self._said: set[str] = set()
        self._parcels: deque[_Parcel] = deque()
        self._news = asyncio.Event()
        self._is_iterated = False
        self.admission: Admission | None = None
        self._bodies = Bodies()
        self._watch: asyncio.Task[None] | None = None
        self._pushers: list[_Pusher] = []
        self._resources: dict[tuple[str, ...], _Resource] = {}
        for each, device in zip(options.devices, devices, strict=True):
            self._enroll(each, device, options.state_folder)

    def _enroll(self, options: PushingDevice, device: Device, folder: str) -> None:
        context = Context(options.oscore, folder, f"device {options.name}") if options.oscore else None
        pusher = _Pusher(options, device, context, options.token.read() if options.token else None)
        tags = tuple(tag for resource in options.resources for tag in resource.tags)
        first = 0
        for resource in options.resources:
            slots = range(first, first + len(resource.tags))
            first = slots.stop
            decoder = Decoder(device, tags, resource, slots=slots)
            self._resources[path_of(options, resource)] = _Resource(pusher, resource, decoder, asyncio.Lock())
        self._pushers.append(pusher)

    @property
    def stats(self) -> ScanStats:
        return self._stats

    @property
    def findings(self) -> list[str]:
        return self._findings

    def say(self, peer: str, text: str) -> None:
        """Once in a session for each peer and text."""
        sentence = f"{peer}: {text}"
        if sentence not in self._said and len(self._said) < MAX_FINDINGS:
            self._said.add(sentence)
            self._findings.append(sentence)

    def open(self) -> None:
        """Raises Misfit."""
        for pusher in self._pushers:
            pusher.heard_at = self._clock.monotonic()
            if pusher.context is not None:
                pusher.context.open()

    async def close(self) -> None:
        self._halt()
        if self._watch is not None:
            await asyncio.gather(self._watch, return_exceptions=True)
        for pusher in self._pushers:
            if pusher.context is not None:
                await pusher.context.leave()

    async def batches(self) -> AsyncIterator[Batch]:
        self._halt()
        self._is_iterated = True
        watch = self._watch = asyncio.get_running_loop().create_task(self._listen_for_silence())
        watch.add_done_callback(lambda _: self._news.set())
        try:
            while True:
                while self._parcels:
                    parcel = self._parcels[0]
                    for batch in parcel.batches:
                        yield batch
                    if self._parcels and self._parcels[0] is parcel:
                        self._parcels.popleft()
                    if not parcel.taken.done():
                        parcel.taken.set_result(None)
                if watch.done():
                    watch.result()
                self._news.clear()
                await self._news.wait()
        finally:
            if self._watch is watch:
                self._halt()  # who was cancelled must be gone at once

    def _halt(self) -> None:
        """Nobody takes anything any more: who waits is told to come again."""
        self._is_iterated = False
        parcels, self._parcels = self._parcels, deque()
        for parcel in parcels:
            parcel.taken.cancel()
        if self._watch is not None:
            self._watch.cancel()

    async def write(self, commands: Sequence[Command]) -> Sequence[Outcome]:
        text = "the device pushes to the gateway and takes no commands: reach it by a connection of type coap"
        now = self._clock.time_ns()
        return [Outcome(command=each.id, state=OutcomeState.REFUSED, time_ns=now, detail=text) for each in commands]

    async def _listen_for_silence(self) -> None:
        while True:
            now = self._clock.monotonic()
            due = math.inf
            for pusher in self._pushers:
                wait_s = pusher.options.silence_s
                if not wait_s or pusher.is_lost or not pusher.device.tags:
                    continue
                if now >= pusher.heard_at + wait_s:
                    pusher.is_lost = True
                    self.say(pusher.options.name, f"has pushed nothing for {wait_s:g} s: check its power and its network")
                    lost = silence(pusher.device, Quality.BAD_NO_COMMUNICATION, self._clock.time_ns(), lost=True)
                    self._put(_Parcel(lost))
                else:
                    due = min(due, pusher.heard_at + wait_s)
            await self._clock.sleep_until(min(due, now + 1.0))

    def _put(self, parcel: _Parcel) -> None:
        self._parcels.append(parcel)
        self._news.set()

    # ------------------------------------------------------------------------------------------------------- requests

    async def handle(self, request: Message, peer: str, sender: object) -> Message | None:
        """The response to one request; None where OSCORE's numbers cannot be stored, without which nothing can be said."""
        try:
            return await self._opened(request, peer, sender)
        except DriverError as failure:
            self._count("unsealed")
            self.say(peer, f"is not answered: {failure}")
            return None

    async def _opened(self, request: Message, peer: str, sender: object) -> Message | None:
        option = request.first(Option.OSCORE)
        if option is None:
            return await self._judge(request, peer, sender, None)
        try:
            pusher = self._sealer(option)
        except Sealed as broken:
            return self._refuse(broken.code, peer, str(broken))
        if pusher is None or pusher.context is None:
            return self._refuse(UNAUTHORIZED, peer, "sends what is sealed with keys that no device here has")
        await pusher.context.ready()
        try:
            opened, binding = pusher.context.open_sealed(request)
        except Challenge as challenge:
            self._count("challenged")
            return challenge.answer
        except Sealed as sealed:
            return self._refuse(sealed.code, peer, f"as {pusher.options.name}: {sealed}")
        response = await self._judge(opened, peer, sender, pusher)
        return None if response is None else self._seal(pusher.context, response, binding)

    def _seal(self, context: Context, response: Message, binding: Binding) -> Message:
        return context.seal(response, binding)[0]

    def _sealer(self, option: bytes) -> _Pusher | None:
        """The device whose keys a message claims."""
        kid, kid_context = hint_of(option)
        for pusher in self._pushers:
            context = pusher.context
            if context is not None and context.recipient_id == kid and kid_context in (None, context.id_context):
                return pusher
        return None

    async def _judge(self, request: Message, peer: str, sender: object, sealer: _Pusher | None) -> Message | None:
        if any(number & 1 and number not in UNDERSTOOD for number, _ in request.options):
            return self._refuse(BAD_OPTION, peer, "sends an option that is not understood and must be")
        resource = self._resources.get(request.path)
        if resource is None:
            return self._refuse(NOT_FOUND, peer, "pushes to a path that is not configured")
        pusher = resource.device
        if not _is_proven(pusher, request, sealer):
            return self._refuse(UNAUTHORIZED, peer, f"pushes as {pusher.options.name} without its keys or token")
        why = self.admission.refusal(pusher.options.name) if self.admission is not None else ""
        if why:
            return self._refuse(FORBIDDEN, peer, f"pushes as {pusher.options.name}: {why}")
        if request.code not in (POST, PUT):
            return self._refuse(METHOD_NOT_ALLOWED, peer, f"asks ({said(request.code)}), and here devices push (POST or PUT)")
        whole = self._bodies.take(sender, "/".join(request.path), request, resource.options.max_bytes, self._clock.monotonic())
        if not whole.is_request:
            if not whole.is_success:
                return self._refuse(whole.code, peer, f"as {pusher.options.name}: its body is refused", *whole.options)
            return whole
        response = await self._accept(resource, whole, peer)
        block = request.first(Option.BLOCK1)
        if block is not None and response.is_success:
            return msgspec.structs.replace(response, options=response.but((Option.BLOCK1, block)))
        return response

    async def _accept(self, resource: _Resource, request: Message, peer: str) -> Message:
        """Decode, hand on, and only then say yes."""
        if not self._is_iterated or len(self._parcels) >= MAX_WAITING:
            return self._refuse(UNAVAILABLE, peer, "pushes while nothing can be taken: it was told to come again", (14, b"\x05"))
        code, batches = await self._decoded(resource, request, peer)
        pusher = resource.device
        pusher.heard_at, pusher.is_lost = self._clock.monotonic(), False
        if batches:
            parcel = _Parcel(batches)
            self._put(parcel)
            try:
                await asyncio.shield(parcel.taken)
            except asyncio.CancelledError:
                if not parcel.taken.cancelled():
                    raise
                return self._refuse(UNAVAILABLE, peer, "pushes while nothing can be taken: it was told to come again", (14, b"\x05"))
        self._stats.scans += 1
        return Message(code=code)

    async def _decoded(self, resource: _Resource, request: Message, peer: str) -> tuple[int, list[Batch]]:
        now, decoder = self._clock.time_ns(), resource.decoder
        number = request.uint(Option.CONTENT_FORMAT, 2)
        is_text = all(not tag.at for tag in resource.options.tags)
        form = (Format.TEXT if is_text else Format.JSON) if number is None else format_of_coap(number)
        name = resource.device.options.name
        if form is None and resource.options.format is Format.AUTO:
            self.say(name, f"pushes content format {number} to {resource.options.path}, which is not read: say its format")
            return UNSUPPORTED_FORMAT, decoder.bad(Quality.BAD_NOT_SUPPORTED, now)
        async with resource.lock:
            if len(request.payload) > LARGE:
                batches = await asyncio.to_thread(decoder.decode, request.payload, now, format=form)
            else:
                batches = decoder.decode(request.payload, now, format=form)
            trouble = decoder.trouble
        if trouble:
            self._count("undecodable")
            self.say(name, f"what it pushes to {resource.options.path}: {trouble}")
        return (BAD_REQUEST if trouble else CHANGED), batches

    def _refuse(self, code: int, peer: str, text: str, *options: tuple[int, bytes]) -> Message:
        self._count(said(code))
        self.say(peer, f"{text} ({said(code)})")
        return Message(code=code, options=options)

    def _count(self, reason: str) -> None:
        self._stats.errors[reason] = self._stats.errors.get(reason, 0) + 1


def _is_proven(pusher: _Pusher, request: Message, sealer: _Pusher | None) -> bool:
    """Whether ``request`` comes from whom its path says."""
    if pusher.context is not None or sealer is not None:
        return sealer is pusher
    if pusher.token is None:
        return True
    wanted = pusher.token.encode()
    given = [part.removeprefix(b"token=") for part in request.all(Option.URI_QUERY) if part.startswith(b"token=")]
    return len(given) == 1 and hmac.compare_digest(given[0], wanted)


def path_of(device: PushingDevice, resource: PushedResource) -> tuple[str, ...]:
    """Uri-Path of what is pushed: the device's path, then the resource's."""
    return tuple(part for path in (device.path, resource.path) for part in path.split("/") if part)


# ------------------------------------------------------------------------------------------------------------- driver


class CoapServerDriver:
    """See the driver contract."""

    name = "coap-server"
    options: type[msgspec.Struct] = CoapServer

    def __init__(self) -> None:
        self._devices: Kept[CoapServer, tuple[Device, ...]] = Kept(devices_of)

    def check(self, options: Any) -> Sequence[Problem]:  # Any: the contract's; a CoapServer
        return list(check(options))

    def devices(self, options: Any) -> Sequence[Device]:  # Any: as above
        return list(self._devices.of(options))

    @asynccontextmanager
    async def open(self, options: Any, *, clock: Clock) -> AsyncIterator[PushSession]:  # Any: as above
        session = PushSession(options, self._devices.of(options), clock)
        doors = Doors(options, session.handle, session.say, session.stats, _context(options))
        try:
            session.open()
            await doors.open()
            yield session
        finally:
            await doors.close()
            await session.close()

    async def probe(self, options: Any) -> ProbeReport:  # Any: as above
        async def refuse(request: Message, peer: str, sender: object) -> None:
            return None

        doors = Doors(options, refuse, lambda peer, text: None, ScanStats(), _context(options))
        try:
            await doors.open()
        except DriverError as failure:
            return ProbeReport(ok=False, findings=(f"{failure} (this gateway itself has it if it runs)",))
        finally:
            await doors.close()
        where = ", ".join(
            f"{scheme} at {options.listen_host}:{options.tls_port if scheme == 'coaps+tcp' else options.listen_port}"
            for scheme in options.schemes
        )
        return ProbeReport(ok=True, findings=(f"free to listen: {where}", *(_pushed(device) for device in options.devices)))


def _pushed(device: PushingDevice) -> str:
    how = "sealed with OSCORE" if device.oscore else "with its token" if device.token else "and proves nothing"
    paths = ", ".join("/" + "/".join(path_of(device, resource)) for resource in device.resources[:5])
    return f"{device.name} pushes to {paths or 'nothing'} {how}"


def _context(options: CoapServer) -> ssl.SSLContext | None:
    return server_context(options.tls) if options.tls is not None and "coaps+tcp" in options.schemes else None


def devices_of(options: CoapServer) -> tuple[Device, ...]:
    return tuple(
        Device(options.name, each.name, tuple(tag.tag() for resource in each.resources for tag in resource.tags))
        for each in options.devices
    )


def check(options: CoapServer) -> Iterator[Problem]:
    """Everything that is wrong with ``options`` beyond what types and limits can say."""
    yield from unique_names(options.devices, "devices", "device")
    if "coaps+tcp" in options.schemes and options.tls is None:
        yield error("tls", "coaps+tcp is listened to, and there is no certificate", "give tls.cert_file and tls.key_file")
    if len(set(options.schemes)) != len(options.schemes):
        yield error("schemes", "a scheme stands there twice", "write each once")
    if {"coap+tcp", "coaps+tcp"} <= set(options.schemes) and options.tls_port == options.listen_port:
        yield error("tls_port", "it is listen_port too", "give TLS a port of its own, such as 5684")
    places: dict[tuple[str, ...], str] = {}
    keys: dict[tuple[str, str | None], str] = {}
    for at, device in enumerate(options.devices):
        yield from _check_device(device, f"devices[{at}]", options, places, keys)


def _check_device(
    device: PushingDevice, path: str, options: CoapServer, places: dict[tuple[str, ...], str], keys: dict[tuple[str, str | None], str]
) -> Iterator[Problem]:
    if device.oscore is not None:
        yield from oscore_problems(device.oscore, f"{path}.oscore")
        key = (device.oscore.recipient_id.lower(), device.oscore.id_context)
        if keys.setdefault(key, path) != path:
            yield error(f"{path}.oscore.recipient_id", f"{keys[key]} has this id too", "give each device an id of its own")
        if not options.state_folder:
            message = "OSCORE must never use a sequence number twice, and nothing says where they are kept"
            yield error("state_folder", message, "give a folder that survives restarts, such as /var/lib/holdfast/oscore")
    elif device.token is None:
        yield warning(f"{path}.token", "whoever reaches the port can push as this device", "give it oscore, or a token")
    elif set(options.schemes) != {"coaps+tcp"}:
        yield warning(f"{path}.token", "the token can be read on the way where there is no TLS", "use oscore, or schemes: [coaps+tcp]")
    if not device.silence_s:
        yield warning(f"{path}.silence_s", "nothing tells when the device falls silent", "write the longest pause it may make")
    names: dict[str, str] = {}
    for at, resource in enumerate(device.resources):
        where = f"{path}.resources[{at}]"
        if places.setdefault(path_of(device, resource), where) != where:
            yield error(f"{where}.path", f"{places[path_of(device, resource)]} has this path too", "give each its own path")
        yield from payload_problems(resource, where)
        for place, tag in enumerate(resource.tags):
            here = f"{where}.tags[{place}]"
            yield from problems_of_tag(tag, resource, here)
            if names.setdefault(tag.name, here) != here:
                yield error(f"{here}.name", f"{names[tag.name]} is called {tag.name!r} too", "give each tag of a device its own name")
            if tag.writable:
                yield error(f"{here}.writable", "a device that pushes takes no commands", "take writable away")


SERVER: Final = CoapServerDriver()
