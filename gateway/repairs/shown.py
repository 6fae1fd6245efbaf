"""How a fault looks outside: the same for the API and the console."""

from __future__ import annotations

from gateway.repairs.detectors import RANK
from gateway.repairs.repairs import Entry
from holdfast.shapes import repairs as shapes


def order(entry: Entry) -> tuple[int, str]:
    """The worst first, then by id."""
    return RANK[entry.fault.severity], entry.fault.id


def shown(entry: Entry) -> shapes.Repair:
    fault, fix, off = entry.fault, entry.fix, entry.put_off
    return shapes.Repair(
        id=fault.id,
        kind=fault.kind,
        about=fault.about,
        name=fault.name,
        severity=fault.severity,
        since_ns=entry.since_ns,
        title=fault.title,
        evidence=list(fault.evidence),
        effect=fault.effect,
        advice=fault.advice,
        fix=shapes.RepairFix(id=fix.id, label=fix.label, confirm=fix.confirm(fault), undo=fix.undo, needs=fix.needs.value) if fix else None,
        put_off=shapes.PutOff(by=off.by, reason=off.reason, at_ns=off.at_ns, until_ns=off.until_ns) if off else None,
    )
