"""The composition root: a site becomes a running appliance. Everything is named here and nothing is decided.

Nobody but the command line and the demo imports this module. ``build`` and ``swap`` touch only what differs: a connection or uplink
whose part of the document is unchanged keeps running, with its session, its cursor and its aliases. What runs, and when it
goes back, ``gateway.revisions`` decides.
"""

from __future__ import annotations

import asyncio
import importlib
from collections.abc import AsyncIterator, Callable, Collection
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import structlog

from gateway import authority, commands, config, control, idempotency, links, registry, repairs, shadow
from gateway.api.services import Services
from gateway.audit import Audit
from gateway.audit import questions as of_audit
from gateway.audit.questions import OfAudit
from gateway.authority import Authority, Certificates
from gateway.commands import Gate
from gateway.commands import console as command_console
from gateway.commands.questions import OfCommands
from gateway.config import model
from gateway.config.api import Api
from gateway.config.commands import Commands
from gateway.config.compare import Change
from gateway.config.drivers import Drivers, installed
from gateway.config.faces import AnyFace, ModbusFace, OpcuaFace
from gateway.connections import Connection
from gateway.diagnostics import console as diagnosis
from gateway.diagnostics.bundle import Sources as SupportSources
from gateway.diagnostics.jobs import Jobs
from gateway.diagnostics.networks import own_networks
from gateway.diagnostics.questions import OfDiagnostics
from gateway.faces.modbus import ModbusServer
from gateway.faces.opcua import OpcuaServer
from gateway.health import watch as health
from gateway.health.questions import OfHealth
from gateway.history.past import Past
from gateway.idempotency import Kept
from gateway.identity import console as identity_console
from gateway.identity import identity
from gateway.identity.identity import Identity
from gateway.identity.questions import OfIdentity
from gateway.journal import LOCK, Journal, Lane, Reader
from gateway.latest import Latest
from gateway.live import Live
from gateway.objections import Unfit
from gateway.pipeline import Take, pipeline
from gateway.registry import PUSHING, Kind, Registry
from gateway.repairs import Repairs
from gateway.repairs import Sources as RepairSources
from gateway.report import ReportByException
from gateway.revisions import console as revision_console
from gateway.revisions import store as revision_store
from gateway.revisions.plan import nothing_of
from gateway.revisions.questions import OfRevisions
from gateway.revisions.revisions import Revisions
from gateway.revisions.usable import troubles
from gateway.shadow import Shadows
from gateway.state import State
from gateway.tasks import cancel
from gateway.telemetry import metrics
from gateway.telemetry.clock_state import ClockState, Word
from gateway.uplink.commands import Inbox
from gateway.uplink.plain import Plain
from gateway.uplink.sparkplug import Sparkplug
from gateway.verification import Verification
from protocols.clock import Clock, SystemClock
from protocols.contract import DriverError, Problem
from protocols.model import Batch, Device, ScanStats
from protocols.templates.library import own as templates

log = structlog.get_logger("holdfast.app")

API_UP_S: Final = 10.0
"""How long a new API has to come up before the old one stays."""


@dataclass(frozen=True, slots=True)
class _Line:
    """A running connection and the task that keeps it."""

    connection: Connection
    task: asyncio.Task[None]
    take: Take


@dataclass(frozen=True, slots=True)
class _Delivery:
    """A running uplink and the task that keeps it."""

    options: model.Uplink
    status: links.Status
    task: asyncio.Task[None]


@dataclass(frozen=True, slots=True)
class _Shown:
    """A running face, or the API, and the task that keeps it."""

    status: links.Status
    task: asyncio.Task[None]
    api: Api | None = None


@dataclass(frozen=True, slots=True)
class Built:
    """What a site needs besides what runs: made, and not started."""

    site: model.Site
    change: Change
    connections: dict[str, Connection] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class _Parts:
    """What an uplink is made of, beside its options."""

    folder: Path
    """Where it may keep what must survive a restart."""
    gateway: model.Gateway
    reader: Reader
    latest: Latest
    clock: Clock
    clock_state: ClockState
    status: links.Status
    inbox: Inbox


@dataclass(frozen=True, slots=True)
class _FaceParts:
    """What a face is made of, beside its options."""

    gateway: model.Gateway
    latest: Latest
    gate: Gate
    clock: Clock
    status: links.Status


class Appliance:
    """A running gateway. Made by ``running``."""

    def __init__(
        self,
        name: str,
        journal: Journal,
        state: State,
        revisions: Revisions,
        folder: Path,
        clock: Clock,
        drivers: Drivers,
        tasks: asyncio.TaskGroup,
    ) -> None:
        self.journal = journal
        self.state = state
        self.revisions = revisions
        self.began = clock.monotonic()
        self.clock_state = ClockState(clock)
        self.latest = Latest()
        self._report = ReportByException()
        self._folder = folder
        self._clock = clock
        self._drivers = drivers
        self._tasks = tasks
        self.past = Past(folder, journal, clock, tasks, device=self.latest.device, wiped=self._wiped)
        self.commands = Gate(
            self._connection_of,
            self.record,
            clock,
            memory=commands.Memory(state),
            options=lambda: self._site.commands if self._site else Commands(),
            seen=self.latest.batches,
        )
        self.shadows = Shadows(state, self.latest, self.commands, clock, self.clock_state)
        self._lines: dict[str, _Line] = {}
        self._deliveries: dict[str, _Delivery] = {}
        self._faces: dict[str, _Shown] = {}
        self._api: _Shown | None = None
        self._old_api: _Shown | None = None
        """Goes on serving where the new one does not come up."""
        self._site: model.Site | None = None
        self._torn = False
        """A swap began and did not end: some parts are of the one site, some of the other."""
        self.audit = Audit(clock, state.folder / "audit")
        self.identity = Identity(state, clock, self.audit, lambda: self._site)
        self.live = Live(journal, self.latest, self.identity, lambda: self.site, clock)
        self.verification = Verification(journal, clock, tasks)
        self.idempotency = Kept(state, clock)
        self.authority = Authority(state.folder / "authority", name, clock)
        self.certificates = Certificates(self.authority, state, clock)
        self.registry = Registry(state, self.certificates, self.audit, self.latest, clock, kind_of=self._kind_of)
        self.registry.on_shut = self._out_of_service
        self.registry.on_admitted = self._in_service
        self.repairs = Repairs(self._repair_sources())
        self.jobs = Jobs(clock)

    @property
    def site(self) -> model.Site:
        """What runs now."""
        assert self._site is not None, "apply comes first"
        return self._site

    @property
    def statuses(self) -> list[links.Status]:
        """How each connection, each uplink, each face and the API is, in this order."""
        lines = [line.connection.status for line in self._lines.values()]
        shown = [*self._faces.values(), *([self._api] if self._api else [])]
        return lines + [one.status for one in self._deliveries.values()] + [one.status for one in shown]

    def connection(self, name: str) -> Connection | None:
        """The running connection of this name."""
        line = self._lines.get(name)
        return line.connection if line else None

    @property
    def scan_stats(self) -> dict[str, ScanStats]:
        """How punctual the scans of each connection are."""
        return {name: line.connection.stats for name, line in self._lines.items()}

    def snapshot(self) -> metrics.Snapshot:
        """Everything that is counted, at this moment."""
        doings = metrics.Doings(
            commands=self.commands.ended.copy(),
            locked_out=len(self.commands.lock_outs()),
            followers=self.live.clients,
            followers_cut={str(code): count for code, count in self.live.cut.items()},
            follower_bytes=self.live.waiting,
            audit_waiting=self.audit.waiting,
            audit_lost=self.audit.lost,
            audit_trouble=bool(self.audit.trouble),
            state_trouble=bool(self.state.trouble),
        )
        return metrics.snapshot(self.statuses, self.scan_stats, self.journal.ledger(), self.clock_state.now, doings)

    def answers(self) -> control.Answers:
        """What is asked from a shell on this machine, and what answers it."""
        return {
            OfIdentity: lambda asked: identity_console.answer(self.identity, self.audit, asked),
            OfAudit: lambda asked: of_audit.answer(self.audit, asked),
            OfRevisions: lambda asked: revision_console.answer(self.revisions, self.audit, asked),
            OfHealth: lambda asked: health.answer(self._health(), asked),
            OfDiagnostics: lambda asked: diagnosis.answer(self.repairs, self._support(), self.audit, asked),
            OfCommands: lambda asked: command_console.answer(self.commands, self.latest, self.connection, self.audit, self._clock, asked),
        }

    async def apply(self, site: model.Site) -> None:
        """Make ``site`` (checked, without errors) what runs, touching only what differs from what runs now."""
        await self.swap(await self.build(site, look=False))
        await self.swap_api()

    async def build(self, site: model.Site, *, look: bool) -> Built:
        """Make what differs beside what runs; ``look``: its secrets, its certificates and the API's port are tried first. Raises Unfit."""
        change = config.compare(nothing_of(site) if self._site is None or self._torn else self._site, site)
        if look:
            wrong = [*await asyncio.to_thread(troubles, site, change), *await self._api_troubles(site)]
            if wrong:
                detail = f"{len(wrong)} things that the document names cannot be used; the first: {wrong[0].path}: {wrong[0].message}"
                raise Unfit(detail, "mend them; nothing was changed", wrong)
        new = [one for one in site.connections if one.name not in change.connections.unchanged]
        return Built(site, change, await asyncio.to_thread(lambda: {one.name: self._connection(one) for one in new}))

    async def swap(self, built: Built) -> None:
        """Stop what differs, start what was built; the API is left as it is. Where this fails, the next swap begins with nothing."""
        site, change = built.site, built.change
        if self._torn:
            await self._stop_parts()
        self._torn = True
        self.audit.bound(site.audit)
        for name in (*change.faces.removed, *change.faces.changed):
            await self._stop_face(name)
        for name in (*change.connections.removed, *change.connections.changed):
            await self._stop_connection(name)
        for name in (*change.uplinks.removed, *change.uplinks.changed):
            await self._stop_uplink(name)
        for name in (one.name for one in site.connections if one.name not in change.connections.unchanged):
            self._start_connection(built.connections[name])
        for uplink in site.uplinks:
            if uplink.name not in change.uplinks.unchanged:
                self._start_uplink(uplink, site.gateway)
        for face in site.faces:
            if face.name not in change.faces.unchanged:
                self._start_face(face, site.gateway)
        await self.past.become(site.history if site.api is not None else None)
        self._site, self._torn = site, False

    async def stop(self) -> None:
        """Stop scanning, make durable what was read, say goodbye to every broker."""
        await self.commands.close()
        await self.verification.stop()
        await self._stop_apis()
        await self.identity.close()
        await self._stop_parts()
        await self.past.stop()

    async def _stop_parts(self) -> None:
        for name in list(self._faces):
            await self._stop_face(name)
        for name in list(self._lines):
            await self._stop_connection(name)
        for name in list(self._deliveries):
            await self._stop_uplink(name)

    def _trusts_clock(self) -> bool:
        """Whether the deadline of a command from afar can be judged."""
        if self.site.commands.clock == "set":
            return self.clock_state.trusted
        return self.clock_state.now.word is Word.SYNCHRONISED

    def _connection_of(self, name: str) -> tuple[Connection, Device] | None:
        device = self.latest.device(name)
        line = self._lines.get(device.connection) if device is not None else None
        return (line.connection, device) if line is not None and device is not None else None

    def record(self, batch: Batch) -> None:
        """Take an event of the gateway's own, such as a command's outcome."""
        self._show(batch)
        self.journal.offer(batch, Lane.EVENTS)

    async def store(self, batch: Batch) -> tuple[int, int]:
        """The same; returns (epoch, seq) once it is durable. Raises NotStored."""
        self._show(batch)
        return await self.journal.append(batch, Lane.EVENTS)

    def _show(self, batch: Batch) -> None:
        if self.latest.device(batch.device.name) is None:
            self.latest.add(batch.device)
        self.latest.update(batch)

    def _connection(self, options: Any) -> Connection:  # Any: the driver's own Struct
        """A connection with its plan, ready to be started."""
        driver = self._drivers[options.__struct_config__.tag]
        return Connection(driver, options, tuple(driver.devices(options)), links.Status("connection", options.name))

    def _start_connection(self, connection: Connection) -> None:
        name, devices = connection.status.name, connection.devices
        for device in devices:
            self.latest.add(device)
        take = pipeline(self.latest, self._report, self.journal, connection.status.counters)
        connection.admission = self.registry
        task = self._tasks.create_task(connection.keep(take, self._clock), name=f"connection {name}")
        self._lines[name] = _Line(connection, task, take)
        log.info("connection_started", name=name, devices=len(devices), tags=sum(len(device.tags) for device in devices))

    def _wiped(self, name: str) -> int | None:
        return self.registry.wiped(name)

    def _kind_of(self, name: str) -> Kind | None:
        found = self._connection_of(name)
        if found is None:
            return None
        return "pushing" if found[0].options.__struct_config__.tag in PUSHING else "field"

    def _out_of_service(self, device: Device) -> None:
        line = self._lines.get(device.connection)
        if line is not None:
            line.connection.out_of_service(device, line.take, self._clock)

    def _in_service(self, device: Device) -> None:
        line = self._lines.get(device.connection)
        if line is not None and line.connection.tells_changes_alone:
            self._tasks.create_task(self._begin_anew(device.connection, line), name=f"renewal of {device.connection}")

    async def _begin_anew(self, name: str, line: _Line) -> None:
        """A new session of a connection that goes on."""
        await cancel(line.task)
        if self._lines.get(name) is line:  # nobody has stopped it meanwhile
            task = self._tasks.create_task(line.connection.keep(line.take, self._clock), name=f"connection {name}")
            self._lines[name] = _Line(line.connection, task, line.take)

    async def _stop_connection(self, name: str) -> None:
        line = self._lines.pop(name)
        await cancel(line.task)
        for device in line.connection.devices:
            self.latest.remove(device)
            self._report.forget(device)
        log.info("connection_stopped", name=name)

    def _start_uplink(self, options: model.Uplink, gateway: model.Gateway) -> None:
        status = links.Status("uplink", options.name)
        reader = self.journal.reader(options.name, options.start)
        inbox = Inbox(
            options,
            gateway,
            self.commands,
            options=lambda: self.site.commands,
            trusted=self._trusts_clock,
            clock=self._clock,
            counters=status.counters,
            audit=self.audit,
        )
        parts = _Parts(self._folder, gateway, reader, self.latest, self._clock, self.clock_state, status, inbox)
        session = _UPLINKS[type(options)](options, parts)
        task = self._tasks.create_task(links.keep(session, status, clock=self._clock), name=f"uplink {options.name}")
        self._deliveries[options.name] = _Delivery(options, status, task)
        log.info("uplink_started", name=options.name)

    async def _stop_uplink(self, name: str) -> None:
        delivery = self._deliveries.pop(name)
        await cancel(delivery.task)
        log.info("uplink_stopped", name=name)

    def _start_face(self, face: AnyFace, gateway: model.Gateway) -> None:
        status = links.Status("face", face.name)
        session = _FACES[type(face)](face, _FaceParts(gateway, self.latest, self.commands, self._clock, status))
        task = self._tasks.create_task(links.keep(session, status, clock=self._clock), name=f"face {face.name}")
        self._faces[face.name] = _Shown(status, task)

    async def _stop_face(self, name: str) -> None:
        await cancel(self._faces.pop(name).task)
        log.info("face_stopped", name=name)

    async def swap_api(self) -> None:
        """Have the API be as the site says. Where it moves to another port, the old one serves until the new one does."""
        wanted, now, kept = self.site.api, self._api, self._old_api
        if now is not None and now.api == wanted:
            return
        if wanted is None or now is None or _same_port(now.api, wanted):
            await self._stop_apis()
            self._api = await self._start_api(wanted) if wanted is not None else None
            return
        self._old_api = None
        self._api = kept if kept is not None and kept.api == wanted else await self._start_api(wanted)
        if kept is not None and kept is not self._api:
            await _stop_api(kept)
        if await self._serves(self._api):
            await _stop_api(now)
        else:
            self._old_api = now
            log.warning("api_kept", trouble=self._api.status.trouble, advice="the new API does not serve yet: the one before goes on")

    async def _start_api(self, options: Api) -> _Shown:
        serve = await _serve()
        status = links.Status("api", "api")
        server = serve.ApiServer(options, self._services(), status)
        task = self._tasks.create_task(links.keep(server.session, status, clock=self._clock), name="api")
        return _Shown(status, task, options)

    async def _serves(self, api: _Shown) -> bool:
        """Whether it comes up; waits for it."""
        end = self._clock.monotonic() + API_UP_S
        while api.status.state is links.State.CONNECTING and self._clock.monotonic() < end:
            await self._clock.sleep_until(self._clock.monotonic() + 0.02)
        return api.status.state is links.State.UP

    async def _api_troubles(self, site: model.Site) -> list[Problem]:
        now = self._site.api if self._site is not None else None
        if site.api is None or site.api == now:
            return []
        serve = await _serve()
        try:
            await serve.must_be_usable(site.api, self._services(), bind=not _same_port(now, site.api))
        except DriverError as error:
            return [Problem("api", str(error))]
        return []

    async def _stop_apis(self) -> None:
        for one in (self._api, self._old_api):
            if one is not None:
                await _stop_api(one)
        self._api = self._old_api = None

    def _repair_sources(self) -> RepairSources:
        return RepairSources(
            site=lambda: self.site,
            statuses=lambda: self.statuses,
            connection=self.connection,
            latest=self.latest,
            journal=self.journal,
            state=self.state,
            audit=self.audit,
            clock=self._clock,
            clock_state=self.clock_state,
            shadows=self.shadows,
            commands=self.commands,
            revisions=self.revisions,
            api_certificate=self._api_certificate,
        )

    def _health(self) -> health.Sources:
        return health.Sources(
            site=lambda: None if self._torn else self._site,
            statuses=lambda: self.statuses,
            connection=self.connection,
            refusal=self.registry.refusal,
            revision=lambda: (self.revisions.number, self.revisions.on_trial),
            store=self.store,
            journal=self.journal,
            latest=self.latest,
            state=self.state,
            audit_trouble=lambda: self.audit.trouble,
            clock=self._clock,
            clock_state=self.clock_state,
            began=self.began,
        )

    def _support(self) -> SupportSources:
        return SupportSources(
            site=lambda: self.site,
            statuses=lambda: self.statuses,
            scan_stats=lambda: self.scan_stats,
            metrics=self.snapshot,
            latest=self.latest,
            journal=self.journal,
            journal_folder=self._folder,
            state=self.state,
            audit=self.audit,
            clock=self._clock,
            began=self.began,
            clock_state=self.clock_state,
            shadows=self.shadows,
            commands=self.commands,
            revisions=self.revisions,
            repairs=self.repairs,
        )

    def _api_certificate(self) -> Path | None:
        api = self.site.api
        return None if api is None else Path(api.cert_file) if api.cert_file else self.state.folder / "authority" / "server.pem"

    def _services(self) -> Services:
        return Services(
            clock=self._clock,
            began=self.began,
            site=lambda: self.site,
            journal=self.journal,
            latest=self.latest,
            state=self.state,
            audit=self.audit,
            identity=self.identity,
            authority=self.authority,
            certificates=self.certificates,
            registry=self.registry,
            commands=self.commands,
            live=self.live,
            history=lambda: self.past.now,
            connection=self.connection,
            clock_state=self.clock_state,
            shadows=self.shadows,
            repairs=self.repairs,
            jobs=self.jobs,
            own_networks=own_networks,
            support=self._support,
            statuses=lambda: self.statuses,
            scan_stats=lambda: self.scan_stats,
            metrics=self.snapshot,
            verification=self.verification,
            revisions=self.revisions,
            idempotency=self.idempotency,
            templates=templates,
        )

    def forget_uplinks(self, keep: Collection[str]) -> None:
        """Nothing waits any more for uplinks that are not configured, also for those of a document before the last start."""
        for name, lanes in self.journal.ledger().readers.items():
            if name not in keep:
                self.journal.forget(name)
                log.warning("uplink_forgotten", name=name, pending=sum(account.pending for account in lanes.values()))


async def _serve() -> Any:  # Any: a module, which costs 20 MB that a gateway without an API does not need
    return await asyncio.to_thread(importlib.import_module, "gateway.api.serve")


async def _stop_api(api: _Shown) -> None:
    await cancel(api.task)
    log.info("api_stopped")


def _same_port(one: Api | None, other: Api) -> bool:
    """Whether the two cannot listen side by side."""
    return one is not None and one.port == other.port != 0


def _sparkplug(options: model.SparkplugUplink, made_of: _Parts) -> links.Session:
    return Sparkplug(
        options,
        made_of.gateway,
        made_of.reader,
        made_of.latest,
        clock=made_of.clock,
        clock_state=made_of.clock_state,
        status=made_of.status,
        bdseq_file=made_of.folder / f"bdseq.{options.name}",
        inbox=made_of.inbox,
    ).session


def _plain(options: model.PlainMqttUplink, made_of: _Parts) -> links.Session:
    return Plain(
        options,
        made_of.gateway,
        made_of.reader,
        clock=made_of.clock,
        clock_state=made_of.clock_state,
        status=made_of.status,
        inbox=made_of.inbox,
    ).session


_MakeUplink = Callable[[Any, _Parts], links.Session]  # Any: the Struct that is its key in the table

_UPLINKS: dict[type, _MakeUplink] = {model.SparkplugUplink: _sparkplug, model.PlainMqttUplink: _plain}


def _modbus_server(face: ModbusFace, made_of: _FaceParts) -> links.Session:
    return ModbusServer(face, made_of.latest, made_of.gate, made_of.status, made_of.clock).session


def _opcua_server(face: OpcuaFace, made_of: _FaceParts) -> links.Session:
    return OpcuaServer(face, made_of.gateway, made_of.latest, made_of.gate, made_of.status, made_of.clock).session


_MakeFace = Callable[[Any, _FaceParts], links.Session]  # Any: the Struct that is its key in the table

_FACES: dict[type, _MakeFace] = {ModbusFace: _modbus_server, OpcuaFace: _opcua_server}


MIGRATIONS: Final = (
    authority.MIGRATIONS,
    registry.MIGRATIONS,
    identity.MIGRATIONS,
    idempotency.MIGRATIONS,
    commands.MIGRATIONS,
    shadow.MIGRATIONS,
    revision_store.MIGRATIONS,
    repairs.MIGRATIONS,
)
"""The tables of every part that keeps state."""


@asynccontextmanager
async def running(
    site: model.Site, *, base: Path, clock: Clock | None = None, file: Path | None = None, raw: bytes | None = None, usable: bool = True
) -> AsyncIterator[Appliance]:
    """Run ``site``, or what was applied since, until left. ``base`` is the folder that relative paths in it start from.

    ``file`` is the document that ``site`` was read from, and ``raw`` its text; without it ``site`` is all there is. A file that is
    wrong is not ``usable``: ``site`` and ``raw`` are then what was last confirmed.

    Raises JournalBusy when another gateway uses the journal, StorageError when it cannot be opened. A part that fails
    beyond what its link can mend ends the whole appliance, so that the service is started anew and nothing half works.
    """
    clock = clock or SystemClock()
    folder = config.resolve(site.journal.path, base)
    state = await State.open(config.state_folder(site, base), MIGRATIONS, clock, lock=folder / LOCK)
    try:
        revisions = Revisions(state, clock, base, file)
        site, kept = await revisions.choose(site, raw, usable=usable)
        journal = await Journal.open(kept, clock=clock, base=base)
    except BaseException:
        await state.close()
        raise
    try:
        site = await revisions.settle()
        async with asyncio.TaskGroup() as tasks:
            name = f"{site.gateway.group} {site.gateway.name}"
            appliance = Appliance(name, journal, state, revisions, folder, clock, installed(), tasks)

            async with (
                appliance.audit.kept(),
                appliance.registry.kept(),
                appliance.clock_state.watched(appliance.record),
                appliance.shadows.working(),
                appliance.repairs.watching(),
                appliance.jobs.kept(),
                control.serving(journal, folder, appliance.connection, clock, appliance.answers()),
                metrics.serving(site.telemetry.metrics_host, site.telemetry.metrics_port, appliance.snapshot, clock=clock),
            ):
                await appliance.commands.begin()
                await appliance.apply(site)
                revisions.run(appliance, tasks)
                try:
                    yield appliance
                finally:
                    await revisions.stop()
                    await appliance.stop()
    finally:
        await state.close()
        await journal.close()
