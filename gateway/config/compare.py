"""What differs between the running site and a new one: what a reload has to stop, start and leave alone.

Pure. A connection or uplink is known by its name; it is unchanged only if every option is equal, so that leaving it
running is right. What an uplink publishes also depends on who the gateway is, so a new ``gateway`` changes every uplink.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import msgspec

from gateway.config.model import Site


@dataclass(frozen=True, slots=True)
class Parts:
    """Names of connections, of uplinks or of faces, each in exactly one place, in the order of the documents."""

    unchanged: tuple[str, ...] = ()
    added: tuple[str, ...] = ()
    removed: tuple[str, ...] = ()
    changed: tuple[str, ...] = ()

    @property
    def nothing(self) -> bool:
        """True if all of them are as they were."""
        return not (self.added or self.removed or self.changed)


@dataclass(frozen=True, slots=True)
class Change:
    """What to do to get from one site to another."""

    connections: Parts
    uplinks: Parts
    faces: Parts
    sections: tuple[str, ...]
    """The other keys of the site that differ: ``gateway``, ``journal``, ``telemetry``, ``outage_budget_s``."""

    @property
    def nothing(self) -> bool:
        """True if the two sites are equal."""
        return not self.sections and self.connections.nothing and self.uplinks.nothing and self.faces.nothing


def compare(old: Site, new: Site) -> Change:
    """What differs from ``old`` to ``new``."""
    sections = tuple(
        one.name
        for one in msgspec.structs.fields(Site)
        if one.name not in ("connections", "uplinks", "faces") and getattr(old, one.name) != getattr(new, one.name)
    )
    connections = _parts(old.connections, new.connections, all_changed=False)
    return Change(
        connections=connections,
        uplinks=_parts(old.uplinks, new.uplinks, all_changed="gateway" in sections),
        faces=_parts(old.faces, new.faces, all_changed="gateway" in sections or not connections.nothing),
        sections=sections,
    )


def _parts(old: Iterable[Any], new: Iterable[Any], *, all_changed: bool) -> Parts:  # Any: Structs that have a name
    before, after = ({one.name: one for one in side} for side in (old, new))
    same = {name for name in before.keys() & after.keys() if before[name] == after[name] and not all_changed}
    return Parts(
        unchanged=tuple(name for name in after if name in same),
        added=tuple(name for name in after if name not in before),
        removed=tuple(name for name in before if name not in after),
        changed=tuple(name for name in after if name in before and name not in same),
    )
