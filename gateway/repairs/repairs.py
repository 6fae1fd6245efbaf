"""The list of repairs: faults as they are now, since when, put off by whom, and the fixes that can be pressed.

A fix does what a person could do with one other operation, and needs that operation's permission as well; it is looked up anew when
it is pressed, so that nobody mends what is no longer broken.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Protocol

import msgspec
import structlog
from cryptography import x509
from sqlite_utils import Database, Migrations

from gateway.audit import Audit
from gateway.authority.certificates import ns_of
from gateway.commands import Gate
from gateway.config import model
from gateway.connections import Connection
from gateway.identity.principal import Permission, Principal
from gateway.identity.sight import Sight
from gateway.journal import Journal
from gateway.latest import Latest
from gateway.links import Status
from gateway.objections import Conflict, NotAllowed, NotThere, TooMany
from gateway.repairs.detectors import Fault, detected
from gateway.repairs.facts import Facts, LinkFacts
from gateway.revisions.revisions import Revisions, Who
from gateway.shadow import Shadows
from gateway.state import State
from gateway.tasks import cancel
from gateway.telemetry.clock_state import ClockState
from protocols.clock import Clock
from protocols.opcua import certificates
from protocols.opcua.config import OpcUa

log = structlog.get_logger("holdfast.repairs")

MIGRATIONS: Final = Migrations("repairs")
LOOK_S: Final = 10.0
MOST_PUT_OFF: Final = 1000


@MIGRATIONS()
def _0001_put_off(db: Database) -> None:
    db.table("put_off").create({"fault": str, "told": str}, pk="fault", not_null={"told"})


class PutOff(msgspec.Struct, frozen=True, kw_only=True):
    """That a fault is known and waits."""

    by: str
    reason: str
    at_ns: int
    until_ns: int = 0
    """0: until the fault is gone."""


@dataclass(frozen=True, slots=True)
class Entry:
    """One fault on the list."""

    fault: Fault
    since_ns: int
    put_off: PutOff | None
    fix: Fix | None


class ApiCertificate(Protocol):
    """Where the API's certificate lies; None where there is no API."""

    def __call__(self) -> Path | None: ...


@dataclass(frozen=True, slots=True)
class Sources:
    """The parts of the gateway that are asked how they are."""

    site: Callable[[], model.Site]
    statuses: Callable[[], Sequence[Status]]
    connection: Callable[[str], Connection | None]
    latest: Latest
    journal: Journal
    state: State
    audit: Audit
    clock: Clock
    clock_state: ClockState
    shadows: Shadows
    commands: Gate
    revisions: Revisions
    api_certificate: ApiCertificate


@dataclass(frozen=True, slots=True)
class Fix:
    """What can be pressed."""

    id: str
    label: str
    confirm: Callable[[Fault], str]
    """What whoever presses it should read first."""
    undo: str
    needs: Permission
    """Besides the permission to repair."""
    press: Callable[[Sources, Fault, Principal], Awaitable[str]]
    """Does it, and says what was done. Raises Objection."""


class Repairs:
    """The list of one gateway; ``watching`` finds out since when each fault has been."""

    def __init__(self, sources: Sources) -> None:
        self._sources = sources
        self._since: dict[str, int] = {}
        self._put_off: dict[str, PutOff] = {}
        self._certificate: tuple[tuple[str, int], int] = (("", 0), 0)

    @asynccontextmanager
    async def watching(self) -> AsyncIterator[None]:
        for row in await self._sources.state.do(lambda db: list(db.table("put_off").rows)):
            self._put_off[row["fault"]] = msgspec.json.decode(row["told"], type=PutOff)
        task = asyncio.create_task(self._watch(), name="repairs")
        try:
            yield
        finally:
            await cancel(task)

    async def _watch(self) -> None:
        clock = self._sources.clock
        while True:
            await clock.sleep_until(clock.monotonic() + LOOK_S)
            await self._look()

    async def entries(self, sight: Sight) -> list[Entry]:
        """What ``sight`` may know of, the worst first."""
        return [self._entry(fault) for fault in await self._look() if _seen(fault, sight)]

    async def entry(self, identity: str, sight: Sight) -> Entry:
        """Raises NotThere where there is no such fault (any more), or none that ``sight`` may know of."""
        for entry in await self.entries(sight):
            if entry.fault.id == identity:
                return entry
        raise NotThere(f"no fault has the id {identity[:80]!r} now", "GET /api/v1/repairs lists what there is; it may have mended itself")

    async def press(self, identity: str, sight: Sight, who: Principal) -> tuple[Entry, str]:
        """Mend it; what was done. Raises NotThere, Conflict, NotAllowed, and what the fix raises."""
        entry = await self.entry(identity, sight)
        if entry.fix is None:
            raise Conflict(f"{entry.fault.title}: there is nothing to press", entry.fault.advice)
        if not who.may(entry.fix.needs):
            raise NotAllowed(f"{who.called} ({who.role.value}) may not do this: it needs {entry.fix.needs.value}", "ask somebody who may")
        return entry, await entry.fix.press(self._sources, entry.fault, who)

    async def put_off(self, identity: str, sight: Sight, *, by: str, reason: str, for_s: float | None) -> Entry:
        """Known, and it waits: for so long, or until it is gone. Raises NotThere, TooMany, Unavailable."""
        entry = await self.entry(identity, sight)
        if len(self._put_off) >= MOST_PUT_OFF and identity not in self._put_off:
            raise TooMany(f"{MOST_PUT_OFF} faults are put off already", "bring some of them back", retry_after_s=3600)
        now_ns = self._sources.clock.time_ns()
        told = PutOff(by=by, reason=reason, at_ns=now_ns, until_ns=0 if for_s is None else now_ns + round(for_s * 1e9))
        row = {"fault": identity, "told": msgspec.json.encode(told).decode()}
        await self._sources.state.do(lambda db: db.table("put_off").upsert(row, pk="fault"))
        self._put_off[identity] = told
        return self._entry(entry.fault)

    async def bring_back(self, identity: str, sight: Sight) -> None:
        """It waits no longer. Raises NotThere."""
        await self.entry(identity, sight)
        if identity not in self._put_off:
            raise NotThere(f"fault {identity} is not put off", "GET /api/v1/repairs shows it")
        await self._sources.state.do(lambda db: db.execute("DELETE FROM put_off WHERE fault = ?", [identity]))
        self._put_off.pop(identity, None)

    def _entry(self, fault: Fault) -> Entry:
        off = self._put_off.get(fault.id)
        if off is not None and off.until_ns and off.until_ns <= self._sources.clock.time_ns():
            off = None
        return Entry(fault, self._since.get(fault.id, self._sources.clock.time_ns()), off, FIXES.get(fault.fix))

    async def _look(self) -> list[Fault]:
        faults = detected(await self._facts())
        now_ns = self._sources.clock.time_ns()
        self._since = {fault.id: self._since.get(fault.id, now_ns) for fault in faults}
        return faults

    async def _facts(self) -> Facts:
        sources = self._sources
        until_ns = await self._until()
        return Facts(
            now_ns=sources.clock.time_ns(),
            links=tuple(self._link(status) for status in sources.statuses()),
            ledger=sources.journal.ledger(),
            min_free_bytes=sources.site().journal.min_free_bytes,
            clock=sources.clock_state.now,
            state_trouble=sources.state.trouble,
            state_notes=sources.state.notes,
            audit_trouble=sources.audit.trouble,
            audit_lost=sources.audit.lost,
            wishes=tuple(sources.shadows.troubled()),
            trial=sources.revisions.number if sources.revisions.on_trial else 0,
            drift=_drift(sources.revisions),
            certificate_until_ns=until_ns,
            lock_outs=tuple(str(one) for one in sources.commands.lock_outs()),
        )

    def _link(self, status: Status) -> LinkFacts:
        connection = self._sources.connection(status.name) if status.kind == "connection" else None
        devices = connection.devices if connection else ()
        stats = connection.stats if connection else None
        return LinkFacts(
            kind=status.kind,
            name=status.name,
            state=status.state,
            trouble=status.trouble,
            sessions=status.sessions,
            errors=dict(status.counters.errors),
            devices=tuple(device.name for device in devices),
            lost=tuple(device.name for device in devices if self._sources.latest.is_lost(device)),
            findings=tuple(connection.said) if connection else (),
            type=connection.driver.name if connection else "",
            scans=stats.scans if stats else 0,
            missed=stats.missed if stats else 0,
        )

    async def _until(self) -> int:
        """When the API's certificate ends; the file is read again only where it has changed."""
        file = self._sources.api_certificate()
        if file is None:
            return 0
        self._certificate = await asyncio.to_thread(_until, file, self._certificate)
        return self._certificate[1]


def _until(file: Path, before: tuple[tuple[str, int], int]) -> tuple[tuple[str, int], int]:
    try:
        mark = (str(file), file.stat().st_mtime_ns)
        if mark == before[0]:
            return before
        certificate = x509.load_pem_x509_certificate(file.read_bytes()[: certificates.MAX_FILE])
    except (OSError, ValueError):
        return ("", 0), 0  # whether it can be used at all is the API's own trouble, which is a fault as well
    return mark, ns_of(certificate.not_valid_after_utc)


def _drift(revisions: Revisions) -> str:
    drift = revisions.last_drift
    if drift.state != "differs":
        return ""
    return f"{len(drift.changes) + drift.more_changes} differences between {drift.file or 'the file'} and revision {drift.running}"


def _seen(fault: Fault, sight: Sight) -> bool:
    return sight.whole or (bool(fault.devices) and all(sight.sees(device) for device in fault.devices))


# ---- fixes


async def _trust(sources: Sources, fault: Fault, who: Principal) -> str:
    (mark,) = fault.details
    options: Any = next((one for one in sources.site().connections if one.name == fault.name), None)  # Any: the driver's own Struct
    if not isinstance(options, OpcUa):
        raise Conflict(f"connection {fault.name} is no OPC UA connection any more", "look at the list again")
    return await asyncio.to_thread(_accept, Path(options.security.folder), mark)


def _accept(folder: Path, mark: str) -> str:
    found = {one.fingerprint: one for one in certificates.shelf(folder, "rejected") if one.fingerprint.startswith(mark)}
    if len(found) != 1:
        raise Conflict(
            f"{len(found)} refused certificates begin with {mark}", "use holdfast opcua trust accept, with more of the fingerprint"
        )
    (one,) = found.values()
    try:
        certificates.put(folder, one.certificate, "trusted")
    except OSError as error:
        raise Conflict(f"{folder}: {error.strerror}", "let the service write there") from error
    return f"trusted: {one.fingerprint} of {certificates.subject(one.certificate)}"


async def _try_again(sources: Sources, fault: Fault, who: Principal) -> str:
    (tag,) = fault.details
    await sources.shadows.try_again(fault.name, tag)
    return f"{fault.name}/{tag} is written once more"


async def _confirm(sources: Sources, fault: Fault, who: Principal) -> str:
    (number,) = fault.details
    revision = await sources.revisions.confirm(int(number), Who(who.called, "api"))
    return f"revision {revision.number} stays"


FIXES: Final[dict[str, Fix]] = {
    "trust-certificate": Fix(
        "trust-certificate",
        "Trust this certificate",
        lambda fault: (
            f"Trust the certificate that begins with {fault.details[0]} for {fault.name}? Whoever holds its key can then stand in for the "
            "server. Compare the fingerprint with the one that the server itself shows."
        ),
        "holdfast opcua trust reject SITE CONNECTION FINGERPRINT",
        Permission.MANAGE_CERTIFICATES,
        _trust,
    ),
    "try-shadow-again": Fix(
        "try-shadow-again",
        "Write it once more",
        lambda fault: f"Write the desired value to {fault.name}/{fault.details[0]} once more? It is written as soon as the device answers.",
        "desire another value, or none (null)",
        Permission.COMMAND,
        _try_again,
    ),
    "confirm-revision": Fix(
        "confirm-revision",
        "Confirm this revision",
        lambda fault: f"Keep revision {fault.details[0]}? The gateway will not go back by itself any more.",
        "roll back to the revision before",
        Permission.CONFIGURE,
        _confirm,
    ),
}
