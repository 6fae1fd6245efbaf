"""What detectors look at: plain facts about the gateway at one moment. Nothing here asks anybody."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from gateway.journal import Ledger
from gateway.links import State
from gateway.shadow.wish import Wish
from gateway.telemetry.clock_state import ClockNow


@dataclass(frozen=True, slots=True, kw_only=True)
class LinkFacts:
    """A connection, an uplink, a face or the API."""

    kind: str
    name: str
    state: State
    trouble: str = ""
    sessions: int = 0
    errors: Mapping[str, int] = field(default_factory=dict)
    devices: tuple[str, ...] = ()
    """Of a connection, all of them."""
    lost: tuple[str, ...] = ()
    """Those that do not answer."""
    findings: tuple[str, ...] = ()
    type: str = ""
    scans: int = 0
    missed: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Facts:
    """The gateway at one moment."""

    now_ns: int
    links: tuple[LinkFacts, ...]
    ledger: Ledger
    min_free_bytes: int
    clock: ClockNow
    state_trouble: str = ""
    state_notes: tuple[str, ...] = ()
    """What a newer release wrote and this one does not see."""
    audit_trouble: str = ""
    audit_lost: int = 0
    wishes: tuple[tuple[str, str, Wish], ...] = ()
    """Device, tag and wish of those that the device has not taken and will not take by itself."""
    trial: int = 0
    """Number of the revision that waits to be confirmed; 0 is none."""
    drift: str = ""
    """How the file differs from what runs; empty where it does not."""
    certificate_until_ns: int = 0
    """When the API's certificate ends; 0 where there is none."""
    lock_outs: tuple[str, ...] = ()
