"""The life of a device: its states, and which may follow which. Pure.

A device of the site appears by itself as registered, and is active once it has answered. One that pushes may be registered before
it is configured, is provisioned with its first credential, and active with its first message. Suspended: nothing of it is taken.
Decommissioned: its credentials are dead; registering it again begins its life anew, without them.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Final


class LifeState(StrEnum):
    REGISTERED = "registered"
    PROVISIONED = "provisioned"
    ACTIVE = "active"
    SUSPENDED = "suspended"
    DECOMMISSIONED = "decommissioned"


FOLLOWS: Final[dict[LifeState, frozenset[LifeState]]] = {
    LifeState.REGISTERED: frozenset({LifeState.PROVISIONED, LifeState.ACTIVE, LifeState.SUSPENDED, LifeState.DECOMMISSIONED}),
    LifeState.PROVISIONED: frozenset({LifeState.ACTIVE, LifeState.SUSPENDED, LifeState.DECOMMISSIONED}),
    LifeState.ACTIVE: frozenset({LifeState.SUSPENDED, LifeState.DECOMMISSIONED}),
    LifeState.SUSPENDED: frozenset({LifeState.REGISTERED, LifeState.PROVISIONED, LifeState.ACTIVE, LifeState.DECOMMISSIONED}),
    LifeState.DECOMMISSIONED: frozenset({LifeState.REGISTERED}),
}
"""Which states may follow each."""

SHUT_OUT: Final[dict[LifeState, str]] = {
    LifeState.SUSPENDED: "it is suspended",
    LifeState.DECOMMISSIONED: "it is decommissioned",
}
"""The states in which nothing of a device is taken, and why."""
