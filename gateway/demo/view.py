"""What a person sees of the demonstration, as plain values: gathered by ``demo.py``, drawn by ``table.py``, told in JSON.

Every number here comes from the gateway's own ledger and counters or from the consumer at the far end of the broker.
Pure: no clock, no terminal.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Final

SPARKS: Final = "▁▂▃▄▅▆▇█"


@dataclass(frozen=True, slots=True)
class Row:
    """One tag's last value."""

    tag: str
    value: str
    unit: str
    quality: str
    """Empty while good."""
    age_s: float


@dataclass(frozen=True, slots=True)
class DeviceView:
    name: str
    rows: tuple[Row, ...]
    lost: bool = False


@dataclass(frozen=True, slots=True)
class Account:
    """The ledger of the uplink, in records."""

    appended: int = 0
    acknowledged: int = 0
    pending: int = 0
    dropped: int = 0
    quarantined: int = 0

    @property
    def balances(self) -> bool:
        return self.appended == self.settled + self.pending

    @property
    def settled(self) -> int:
        """Records that need no more attention: delivered, or known never to be."""
        return self.acknowledged + self.dropped + self.quarantined

    @property
    def lost(self) -> int:
        """Records that nobody will ever get."""
        return self.dropped + self.quarantined


@dataclass(frozen=True, slots=True)
class Far:
    """What the consumer at the other end of the broker has seen, in records."""

    received: int = 0
    values: int = 0
    duplicate: int = 0
    missing: int = 0
    disorder: int = 0
    """Records that came after a later one of the same device."""
    marks: int = 0
    """Ledger marks that were checked."""
    unsure: str = ""
    """Why the consumer cannot vouch for what it saw; empty when it can."""


@dataclass(frozen=True, slots=True)
class Scanning:
    scans: int = 0
    missed: int = 0
    per_s: float = 0.0
    values_per_s: float = 0.0
    late_p99_s: float = 0.0
    """Upper bound of the bucket that holds the 99th percentile; infinite beyond the last."""


@dataclass(frozen=True, slots=True)
class Broker:
    name: str
    up: bool


@dataclass(frozen=True, slots=True)
class View:
    """Everything at one moment. ``elapsed_s`` counts from the start of the gateway."""

    gateway: str
    elapsed_s: float
    broker: Broker
    devices: tuple[DeviceView, ...] = ()
    scanning: Scanning = Scanning()
    journal_bytes: int = 0
    uplink: str = ""
    """State of the uplink's link."""
    trouble: str = ""
    lag_s: float = 0.0
    """Age of the oldest record that is not acknowledged."""
    account: Account = Account()
    far: Far = Far()
    pending: tuple[int, ...] = ()
    """Pending over time, oldest first."""
    phase: str = ""


@dataclass(slots=True)
class Outage:
    """What became of the cut, for the report. Times in seconds since the start; 0 where it has not happened."""

    asked_s: float = 0.0
    began_s: float = 0.0
    ended_s: float = 0.0
    drained_s: float = 0.0
    peak: int = 0
    """Most records that were pending."""
    history: list[int] = field(default_factory=list)


def spark(values: Sequence[int], width: int) -> str:
    """``values`` as a row of at most ``width`` little bars, the newest on the right; the highest one reaches the top."""
    if width < 1 or not values:
        return ""
    group = -(-len(values) // width)
    shown = [max(values[max(end - group, 0) : end]) for end in range(len(values), 0, -group)][::-1]
    top = max(*shown, 1)
    return "".join(SPARKS[-(-value * (len(SPARKS) - 1) // top)] for value in shown)


def age(seconds: float) -> str:
    """``0.4 s``, ``12 s``, ``3 min``: as short as it can be read."""
    if seconds < 10:
        return f"{seconds:.1f} s"
    return f"{seconds:.0f} s" if seconds < 120 else f"{seconds / 60:.0f} min"


def size(count: int) -> str:
    """Bytes for a person, in powers of 1000."""
    amount, unit = float(count), "B"
    for unit in ("B", "kB", "MB", "GB"):
        if amount < 1000 or unit == "GB":
            break
        amount /= 1000
    return f"{amount:.0f} {unit}" if unit == "B" else f"{amount:.1f} {unit}"


def verdict(view: View) -> str:
    """The sentence that counts: what was lost, what is missing at the far end, and what stands in the way of being sure."""
    sentence = f"lost {view.account.lost}, missing {view.far.missing}"
    if not view.account.balances:
        return f"{sentence}, and the ledger does not balance"
    if is_under_way(view):
        return f"{sentence} so far: still in the journal"
    if view.far.unsure:
        return f"{sentence}, unsure: {view.far.unsure}"
    return sentence


def is_under_way(view: View) -> bool:
    """True when all that the far end misses can still come: live records go ahead of those that waited."""
    return 0 < view.far.missing <= view.account.pending


def is_whole(view: View) -> bool:
    """True when everything that was recorded has arrived at the far end, and that is known rather than hoped."""
    return (
        view.account.balances
        and view.account.lost == 0
        and view.account.pending == 0
        and view.account.appended > 0
        and view.far.missing == 0
        and view.far.disorder == 0
        and view.far.received >= view.account.appended
        and not view.far.unsure
    )


def summary(view: View, outage: Outage) -> list[str]:
    """The end of a run, for a person."""
    one, far = view.account, view.far
    tags = sum(len(device.rows) for device in view.devices)
    cut = (
        f"{outage.ended_s - outage.began_s:.1f} s, at most {outage.peak:,} records pending, all delivered {drain_s(outage):.1f} s after it"
    )
    return [
        f"{view.elapsed_s:.0f} s with {len(view.devices)} devices, {tags} tags and {view.broker.name}",
        f"  ledger    appended {one.appended:,} = acked {one.acknowledged:,} + pending {one.pending:,} "
        f"+ dropped {one.dropped:,} + quarantined {one.quarantined:,}",
        f"  consumer  received {far.received:,} ({far.values:,} values), duplicate {far.duplicate:,}, "
        f"missing {far.missing:,}, marks checked {far.marks:,}",
        *([f"  outage    {cut}"] if outage.ended_s else []),
        f"  verdict   {verdict(view)}",
    ]


def drain_s(outage: Outage) -> float:
    """How long it took until everything that had piled up was delivered, in seconds."""
    return max(outage.drained_s - outage.ended_s, 0.0)


def report(view: View, outage: Outage) -> dict[str, Any]:  # Any: JSON
    """The machine-readable end of a run."""
    return {
        "ok": is_whole(view),
        "verdict": verdict(view),
        "seconds": round(view.elapsed_s, 1),
        "broker": view.broker.name,
        "devices": len(view.devices),
        "tags": sum(len(device.rows) for device in view.devices),
        "scans": {
            "made": view.scanning.scans,
            "missed": view.scanning.missed,
            "lateness_p99_below_ms": round(view.scanning.late_p99_s * 1000, 1) if math.isfinite(view.scanning.late_p99_s) else None,
        },
        "ledger": {
            "appended": view.account.appended,
            "acknowledged": view.account.acknowledged,
            "pending": view.account.pending,
            "dropped": view.account.dropped,
            "quarantined": view.account.quarantined,
            "balances": view.account.balances,
        },
        "consumer": {
            "received": view.far.received,
            "values": view.far.values,
            "duplicate": view.far.duplicate,
            "missing": view.far.missing,
            "disorder": view.far.disorder,
            "marks": view.far.marks,
            "unsure": view.far.unsure,
        },
        "outage": {
            "seconds": round(outage.ended_s - outage.began_s, 1),
            "pending_peak": outage.peak,
            "drained_in_s": round(drain_s(outage), 1),
        }
        if outage.ended_s
        else None,
        "lost": view.account.lost,
        "missing": view.far.missing,
    }
