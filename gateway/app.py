"""The composition root: a site becomes a running appliance. Everything is named here and nothing is decided.

Nobody but the command line and the demo imports this module. ``apply`` swaps only what differs: a connection or uplink
whose part of the document is unchanged keeps running, with its session, its cursor and its aliases.
"""

from __future__ import annotations

import asyncio
import importlib
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import msgspec
import structlog

from gateway import config, control, idempotency, links, questions, shadow
from gateway.api.services import Services
from gateway.audit import Audit
from gateway.authority import Authority
from gateway.commands import Gate
from gateway.config import model
from gateway.config.api import Api
from gateway.config.drivers import Drivers, installed
from gateway.config.faces import AnyFace, ModbusFace, OpcuaFace
from gateway.connections import Connection
from gateway.faces.modbus import ModbusServer
from gateway.faces.opcua import OpcuaServer
from gateway.idempotency import Kept
from gateway.identity import console, identity
from gateway.identity.identity import Identity
from gateway.identity.questions import OfIdentity
from gateway.journal import Journal, Lane, Reader
from gateway.latest import Latest
from gateway.live import Live
from gateway.pipeline import pipeline
from gateway.report import ReportByException
from gateway.shadow import Shadows
from gateway.state import State
from gateway.tasks import cancel
from gateway.telemetry import metrics
from gateway.telemetry.clock_state import ClockState
from gateway.uplink.plain import Plain
from gateway.uplink.sparkplug import Sparkplug
from gateway.verification import Verification
from protocols.clock import Clock, SystemClock
from protocols.model import Batch, Device, ScanStats
from protocols.templates.library import own as templates

log = structlog.get_logger("holdfast.app")


@dataclass(frozen=True, slots=True)
class _Line:
    """A running connection and the task that keeps it."""

    connection: Connection
    task: asyncio.Task[None]


@dataclass(frozen=True, slots=True)
class _Delivery:
    """A running uplink and the task that keeps it."""

    options: model.Uplink
    status: links.Status
    task: asyncio.Task[None]


@dataclass(frozen=True, slots=True)
class _Shown:
    """A running face and the task that keeps it."""

    status: links.Status
    task: asyncio.Task[None]


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
        self, name: str, journal: Journal, state: State, folder: Path, clock: Clock, drivers: Drivers, tasks: asyncio.TaskGroup
    ) -> None:
        self.journal = journal
        self.state = state
        self.began = clock.monotonic()
        self.clock_state = ClockState(clock)
        self.latest = Latest()
        self._report = ReportByException()
        self._folder = folder
        self._clock = clock
        self._drivers = drivers
        self._tasks = tasks
        self.commands = Gate(self._connection_of, self.record, clock)
        self.shadows = Shadows(state, self.latest, self.commands, clock, self.clock_state)
        self._lines: dict[str, _Line] = {}
        self._deliveries: dict[str, _Delivery] = {}
        self._faces: dict[str, _Shown] = {}
        self._api: _Shown | None = None
        self._site: model.Site | None = None
        self.audit = Audit(clock, state.folder / "audit")
        self.identity = Identity(state, clock, self.audit, lambda: self._site)
        self.live = Live(journal, self.latest, self.identity, lambda: self.site, clock)
        self.verification = Verification(journal, clock, tasks)
        self.idempotency = Kept(state, clock)
        self.authority = Authority(state.folder / "authority", name, clock)

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

    def enter(self, request: OfIdentity) -> questions.Lines:
        """What is asked of users and tokens from a shell on this machine."""
        return console.answer(self.identity, self.audit, request)

    def connection(self, name: str) -> Connection | None:
        """The running connection of this name."""
        line = self._lines.get(name)
        return line.connection if line else None

    @property
    def scan_stats(self) -> dict[str, ScanStats]:
        """How punctual the scans of each connection are."""
        return {name: line.connection.stats for name, line in self._lines.items()}

    async def apply(self, site: model.Site) -> None:
        """Make ``site`` (checked, without errors) what runs, touching only what differs from what runs now."""
        self.audit.bound(site.audit)
        change = config.compare(self._site or _nothing_of(site), site)
        for name in (*change.faces.removed, *change.faces.changed):
            await self._stop_face(name)
        for name in (*change.connections.removed, *change.connections.changed):
            await self._stop_connection(name)
        for name in (*change.uplinks.removed, *change.uplinks.changed):
            await self._stop_uplink(name)
        self._forget_readers(keep={uplink.name for uplink in site.uplinks})
        for connection in site.connections:
            if connection.name not in change.connections.unchanged:
                self._start_connection(connection)
        for uplink in site.uplinks:
            if uplink.name not in change.uplinks.unchanged:
                self._start_uplink(uplink, site.gateway)
        for face in site.faces:
            if face.name not in change.faces.unchanged:
                self._start_face(face, site.gateway)
        before, self._site = self._site, site
        if before is None or before.api != site.api:
            await self._stop_api()
            if site.api is not None:
                await self._start_api(site.api)

    async def stop(self) -> None:
        """Stop scanning, make durable what was read, say goodbye to every broker."""
        await self.verification.stop()
        await self._stop_api()
        for name in list(self._faces):
            await self._stop_face(name)
        for name in list(self._lines):
            await self._stop_connection(name)
        for name in list(self._deliveries):
            await self._stop_uplink(name)

    def _connection_of(self, name: str) -> tuple[Connection, Device] | None:
        device = self.latest.device(name)
        line = self._lines.get(device.connection) if device is not None else None
        return (line.connection, device) if line is not None and device is not None else None

    def record(self, batch: Batch) -> None:
        """Take an event of the gateway's own, such as a command's outcome."""
        if self.latest.device(batch.device.name) is None:
            self.latest.add(batch.device)
        self.latest.update(batch)
        self.journal.offer(batch, Lane.EVENTS)

    def _start_connection(self, options: Any) -> None:  # Any: the driver's own Struct
        driver = self._drivers[options.__struct_config__.tag]
        devices = tuple(driver.devices(options))
        connection = Connection(driver, options, devices, links.Status("connection", options.name))
        for device in devices:
            self.latest.add(device)
        take = pipeline(self.latest, self._report, self.journal, connection.status.counters)
        task = self._tasks.create_task(connection.keep(take, self._clock), name=f"connection {options.name}")
        self._lines[options.name] = _Line(connection, task)
        log.info("connection_started", name=options.name, devices=len(devices), tags=sum(len(device.tags) for device in devices))

    async def _stop_connection(self, name: str) -> None:
        line = self._lines.pop(name)
        await cancel(line.task)
        for device in line.connection.devices:
            self.latest.remove(device)
            self._report.forget(device)
        log.info("connection_stopped", name=name)

    def _start_uplink(self, options: model.Uplink, gateway: model.Gateway) -> None:
        status = links.Status("uplink", options.name)
        parts = _Parts(
            self._folder, gateway, self.journal.reader(options.name, options.start), self.latest, self._clock, self.clock_state, status
        )
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

    async def _start_api(self, options: Api) -> None:
        serve = await asyncio.to_thread(importlib.import_module, "gateway.api.serve")  # 20 MB that a gateway without it does not need
        status = links.Status("api", "api")
        server = serve.ApiServer(options, self._services(), status)
        task = self._tasks.create_task(links.keep(server.session, status, clock=self._clock), name="api")
        self._api = _Shown(status, task)

    async def _stop_api(self) -> None:
        if self._api is not None:
            await cancel(self._api.task)
            self._api = None
            log.info("api_stopped")

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
            commands=self.commands,
            live=self.live,
            connection=self.connection,
            clock_state=self.clock_state,
            shadows=self.shadows,
            statuses=lambda: self.statuses,
            scan_stats=lambda: self.scan_stats,
            verification=self.verification,
            idempotency=self.idempotency,
            templates=templates,
        )

    def _forget_readers(self, keep: set[str]) -> None:
        """Nothing waits any more for uplinks that are not configured, also for those of a document before the last start."""
        for name, lanes in self.journal.ledger().readers.items():
            if name not in keep:
                self.journal.forget(name)
                log.warning("uplink_forgotten", name=name, pending=sum(account.pending for account in lanes.values()))


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
    ).session


def _plain(options: model.PlainMqttUplink, made_of: _Parts) -> links.Session:
    made = Plain(options, made_of.gateway, made_of.reader, clock=made_of.clock, clock_state=made_of.clock_state, status=made_of.status)
    return made.session


_MakeUplink = Callable[[Any, _Parts], links.Session]  # Any: the Struct that is its key in the table

_UPLINKS: dict[type, _MakeUplink] = {model.SparkplugUplink: _sparkplug, model.PlainMqttUplink: _plain}


def _modbus_server(face: ModbusFace, made_of: _FaceParts) -> links.Session:
    return ModbusServer(face, made_of.latest, made_of.gate, made_of.status, made_of.clock).session


def _opcua_server(face: OpcuaFace, made_of: _FaceParts) -> links.Session:
    return OpcuaServer(face, made_of.gateway, made_of.latest, made_of.gate, made_of.status, made_of.clock).session


_MakeFace = Callable[[Any, _FaceParts], links.Session]  # Any: the Struct that is its key in the table

_FACES: dict[type, _MakeFace] = {ModbusFace: _modbus_server, OpcuaFace: _opcua_server}


MIGRATIONS: Final = (identity.MIGRATIONS, idempotency.MIGRATIONS, shadow.MIGRATIONS)
"""The tables of every part that keeps state."""


def _nothing_of(site: model.Site) -> model.Site:
    """What runs before anything does."""
    return msgspec.structs.replace(site, connections=(), uplinks=(), faces=(), api=None)


@asynccontextmanager
async def running(site: model.Site, *, base: Path, clock: Clock | None = None) -> AsyncIterator[Appliance]:
    """Run ``site`` until left. ``base`` is the folder that relative paths in it start from.

    Raises JournalBusy when another gateway uses the journal, StorageError when it cannot be opened. A part that fails
    beyond what its link can mend ends the whole appliance, so that the service is started anew and nothing half works.
    """
    clock = clock or SystemClock()
    folder = config.resolve(site.journal.path, base)
    journal = await Journal.open(site.journal, clock=clock, base=base)
    state = await State.open(config.resolve(site.state_path, base) if site.state_path else folder / "state", MIGRATIONS, clock)
    try:
        async with asyncio.TaskGroup() as tasks:
            appliance = Appliance(f"{site.gateway.group} {site.gateway.name}", journal, state, folder, clock, installed(), tasks)

            def snapshot() -> metrics.Snapshot:
                return metrics.snapshot(appliance.statuses, appliance.scan_stats, journal.ledger(), appliance.clock_state.now)

            async with (
                appliance.audit.kept(),
                appliance.clock_state.watched(appliance.record),
                appliance.shadows.working(),
                control.serving(journal, folder, appliance.connection, clock, appliance.enter, appliance.audit),
                metrics.serving(site.telemetry.metrics_host, site.telemetry.metrics_port, snapshot, clock=clock),
            ):
                await appliance.apply(site)
                try:
                    yield appliance
                finally:
                    await appliance.stop()
    finally:
        await state.close()
        await journal.close()
