"""What the verdict follows from: plain facts about the gateway at one moment. Nothing here asks anybody."""

from __future__ import annotations

from dataclasses import dataclass, field

from gateway.journal import Ledger
from gateway.links import State


@dataclass(frozen=True, slots=True, kw_only=True)
class DeviceFacts:
    """A device, and the connection that it is behind."""

    name: str
    connection: str
    state: State
    """Of the connection."""
    trouble: str = ""
    lost: bool = False
    good: bool = False
    """At least one of its values is."""
    comes: bool = False
    """It comes to us when it wants to: its silence says nothing."""
    refused: str = ""
    """Why nothing is taken of it, where somebody wants that; empty where it is."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LinkFacts:
    """A connection without devices, a face, or the API."""

    kind: str
    name: str
    state: State
    trouble: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class UplinkFacts:
    name: str
    state: State
    trouble: str = ""
    waiting: tuple[str, ...] = ()
    """Lanes whose newest record, as it was when the question was put, is not acknowledged."""
    pending: int = 0
    pending_then: int = 0
    """When the question was put."""
    appended: int = 0
    """Records since the question was put."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Facts:
    """The gateway at one moment after the question was put."""

    release: str
    uptime_s: float
    applied: bool
    """The site's parts have been started."""
    revision: int = 0
    on_trial: bool = False
    stored: bool = False
    """The record that was appended for the question survives a power cut."""
    not_stored: str = ""
    """Why it will not be stored."""
    ledger: Ledger
    state_trouble: str = ""
    state_notes: tuple[str, ...] = ()
    """What of the state is not seen by this release."""
    journal_notes: tuple[str, ...] = ()
    """Files of the journal that this release cannot read, and leaves alone."""
    audit_trouble: str = ""
    devices: tuple[DeviceFacts, ...] = field(default=())
    links: tuple[LinkFacts, ...] = ()
    uplinks: tuple[UplinkFacts, ...] = ()
