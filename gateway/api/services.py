"""What the API is handed: the parts of the gateway that it asks. It makes none of them and starts none."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from gateway import links
from gateway.audit import Audit
from gateway.authority import Authority, Certificates
from gateway.commands import Gate
from gateway.config import model
from gateway.connections import Connection
from gateway.diagnostics.bundle import Sources as SupportSources
from gateway.diagnostics.jobs import Jobs
from gateway.diagnostics.networks import Network
from gateway.history.history import History
from gateway.idempotency import Kept
from gateway.identity.identity import Identity
from gateway.journal import Journal
from gateway.latest import Latest
from gateway.live import Live
from gateway.registry import Registry
from gateway.repairs import Repairs
from gateway.revisions.revisions import Revisions
from gateway.shadow import Shadows
from gateway.state import State
from gateway.telemetry.clock_state import ClockState
from gateway.telemetry.metrics import Snapshot
from gateway.verification import Verification
from protocols.clock import Clock
from protocols.model import ScanStats
from protocols.templates.library import Library


@dataclass(frozen=True, slots=True)
class Services:
    clock: Clock
    began: float
    """The clock's monotonic time when the gateway was started."""
    site: Callable[[], model.Site]
    """The site that runs now."""
    journal: Journal
    latest: Latest
    state: State
    audit: Audit
    identity: Identity
    authority: Authority
    certificates: Certificates
    registry: Registry
    commands: Gate
    live: Live
    history: Callable[[], History | None]
    """None where the site wants none."""
    connection: Callable[[str], Connection | None]
    clock_state: ClockState
    shadows: Shadows
    repairs: Repairs
    jobs: Jobs
    own_networks: Callable[[], Sequence[Network]]
    """Networks that may be scanned. Asks the system: not in the loop."""
    support: Callable[[], SupportSources]
    """What a support bundle is made from."""
    statuses: Callable[[], Sequence[links.Status]]
    """How each connection, uplink and face is."""
    scan_stats: Callable[[], Mapping[str, ScanStats]]
    metrics: Callable[[], Snapshot]
    """Everything that is counted, at this moment."""
    verification: Verification
    revisions: Revisions
    idempotency: Kept
    templates: Callable[[], Library]
    """The device templates; to make it takes a while the first time: not in the loop."""
