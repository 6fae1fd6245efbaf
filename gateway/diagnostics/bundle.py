"""The support bundle: what somebody far away needs in order to help, and no secret.

It is made from a table of sources, each of which is something that the gateway holds as typed values; nothing is copied from the disk,
so no key file and no database can come along. Each value passes the redactor on its way. Made in a thread: packing takes a while.
"""

from __future__ import annotations

import asyncio
import io
import tarfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any, Final

import msgspec

from gateway.audit import Audit
from gateway.commands import Gate
from gateway.config import model
from gateway.diagnostics.machine import machine, versions
from gateway.diagnostics.redact import Redactor, secrets_in
from gateway.identity.sight import EVERYTHING
from gateway.journal import Journal
from gateway.latest import Latest
from gateway.links import Status
from gateway.repairs import Repairs
from gateway.repairs.shown import shown
from gateway.revisions.revisions import Revisions
from gateway.shadow import Shadows
from gateway.state import State
from gateway.telemetry import metrics
from gateway.telemetry.clock_state import ClockState
from gateway.telemetry.logs import TAP
from gateway.telemetry.metrics import Snapshot
from protocols.clock import Clock
from protocols.model import ScanStats

MOST_ENTRY_BYTES: Final = 8 * 2**20
MOST_BYTES: Final = 32 * 2**20
"""Of all entries, before packing."""
MOST_REVISIONS: Final = 50
MEDIA_TYPE: Final = "application/gzip"

Json = Any  # what msgspec writes


@dataclass(frozen=True, slots=True)
class Sources:
    """The parts of the gateway that a bundle is made from."""

    site: Callable[[], model.Site]
    statuses: Callable[[], Sequence[Status]]
    scan_stats: Callable[[], Mapping[str, ScanStats]]
    metrics: Callable[[], Snapshot]
    latest: Latest
    journal: Journal
    journal_folder: Path
    state: State
    audit: Audit
    clock: Clock
    began: float
    clock_state: ClockState
    shadows: Shadows
    commands: Gate
    revisions: Revisions
    repairs: Repairs


def _about(sources: Sources) -> Json:
    gateway = sources.site().gateway
    return {
        "group": gateway.group,
        "name": gateway.name,
        "version": version("holdfast"),
        "time_ns": sources.clock.time_ns(),
        "uptime_s": sources.clock.monotonic() - sources.began,
        "entries": [name for name, _ in TAKEN],
        "left_out": "secrets, keys, users, tokens, readings, the environment",
    }


def _statuses(sources: Sources) -> Json:
    return [
        {
            "kind": one.kind,
            "name": one.name,
            "state": one.state.value,
            "since_ns": one.since_ns,
            "trouble": one.trouble,
            "sessions": one.sessions,
            "taken": one.counters.taken,
            "given": one.counters.given,
            "errors": dict(one.counters.errors),
            "dropped": dict(one.counters.dropped),
            "oldest_ns": one.counters.oldest_ns,
        }
        for one in sources.statuses()
    ]


def _devices(sources: Sources) -> Json:
    """How each device is; no readings."""
    latest = sources.latest
    return [
        {"name": one.name, "connection": one.connection, "tags": len(one.tags), "lost": latest.is_lost(one)} for one in latest.devices()
    ]


def _scans(sources: Sources) -> Json:
    return {
        name: {
            "scans": stats.scans,
            "missed": stats.missed,
            "late_s": stats.late_s,
            "requests": stats.requests,
            "errors": dict(stats.errors),
        }
        for name, stats in sources.scan_stats().items()
    }


def _kept(sources: Sources) -> Json:
    head = sources.audit.head
    return {
        "state_trouble": sources.state.trouble,
        "audit": {"head": head.number, "digest_of_head": head.digest, "trouble": sources.audit.trouble, "lost": sources.audit.lost},
        "lock_outs": [str(one) for one in sources.commands.lock_outs()],
        "wishes_not_taken": [
            {"device": device, "tag": tag, "state": one.state, "detail": one.detail} for device, tag, one in sources.shadows.troubled()
        ],
    }


def _log(_: Sources) -> Json:
    events, number, _gone = TAP.since(0)
    return lambda: {"events": [msgspec.json.decode(each) for each in events], "logged": number}


TAKEN: Final[tuple[tuple[str, Callable[[Sources], Json]], ...]] = (
    ("about.json", _about),
    ("site.json", lambda sources: sources.site()),
    ("statuses.json", _statuses),
    ("devices.json", _devices),
    ("scans.json", _scans),
    ("ledger.json", lambda sources: sources.journal.ledger()),
    ("clock.json", lambda sources: sources.clock_state.now),
    ("kept.json", _kept),
    ("log.json", _log),
)
"""What is taken in the loop, at one moment. A function that is given is called in the thread."""


async def bundle(sources: Sources) -> bytes:
    """A bundle of this moment: a tar, packed with gzip."""
    taken = {name: take(sources) for name, take in TAKEN}
    taken["repairs.json"] = [shown(entry) for entry in await sources.repairs.entries(EVERYTHING)]
    taken["revisions.json"] = await sources.revisions.history(None, MOST_REVISIONS)
    folders = [sources.journal_folder, sources.state.folder]
    return await asyncio.to_thread(_packed, taken, sources.metrics(), folders, sources.site(), sources.clock.time_ns())


def offline(site: model.Site, problems: Sequence[Json], folders: Sequence[Path], time_ns: int) -> bytes:
    """A bundle of a gateway that does not run: its document, what is wrong with it, and the machine."""
    about = {"group": site.gateway.group, "name": site.gateway.name, "version": version("holdfast"), "time_ns": time_ns, "runs": False}
    return _packed({"about.json": about, "site.json": site, "problems.json": list(problems)}, None, folders, site, time_ns)


def _made(value: Json) -> Json:
    return value() if callable(value) else value


def _packed(taken: dict[str, Json], shot: Snapshot | None, folders: Sequence[Path], site: model.Site, time_ns: int) -> bytes:
    redactor = Redactor(secrets_in(site))
    entries = {name: msgspec.json.format(msgspec.json.encode(redactor.value(_made(value)))) for name, value in taken.items()}
    entries["machine.json"] = msgspec.json.format(msgspec.json.encode(redactor.value(machine(folders))))
    entries["versions.json"] = msgspec.json.format(msgspec.json.encode(versions()))
    if shot is not None:
        entries["metrics.txt"] = redactor.lines(metrics.text(shot)).encode()
    out, left = io.BytesIO(), MOST_BYTES
    with tarfile.open(fileobj=out, mode="w:gz", compresslevel=6) as tar:
        for name, content in entries.items():
            fits = len(content) <= min(MOST_ENTRY_BYTES, left)
            told = content if fits else msgspec.json.encode({"left_out": f"{len(content)} bytes are too many"})
            left -= len(told)
            entry = tarfile.TarInfo(f"holdfast-support/{name}")
            entry.size, entry.mtime, entry.mode = len(told), time_ns // 10**9, 0o600
            tar.addfile(entry, io.BytesIO(told))
    return out.getvalue()
