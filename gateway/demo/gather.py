"""Reads a running appliance into a :class:`View`: nothing is counted here, only looked at and written out for a person."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from gateway.app import Appliance
from gateway.demo.view import Account, DeviceView, Row, Scanning
from gateway.journal import Ledger
from gateway.latest import Latest
from gateway.links import Status
from protocols.model import LATENESS_BUCKETS_S, SEVERITY_MASK, Quality, ScanStats

RATE_S: Final = 4.0
"""Rates are taken over this long."""
SHORT: Final[dict[int, str]] = {
    Quality.BAD_WAITING_FOR_INITIAL_DATA: "waiting",
    Quality.BAD_NO_COMMUNICATION: "no answer",
    Quality.BAD_NOT_CONNECTED: "cut off",
    Quality.BAD_TIMEOUT: "timeout",
    Quality.BAD_NODE_ID_UNKNOWN: "not there",
    Quality.BAD_DEVICE_FAILURE: "device",
    Quality.BAD_CONFIGURATION_ERROR: "config",
    Quality.BAD_DECODING_ERROR: "undecoded",
    Quality.BAD_OUT_OF_RANGE: "range",
}
"""Qualities in at most ten characters; any other is told by its severity."""


def quality(code: int) -> str:
    """Empty while good, else in a word."""
    if code & SEVERITY_MASK == 0:
        return ""
    return SHORT.get(code, "bad" if code & 0x80000000 else "uncertain")


def written(value: Any) -> str:  # Any: what a column of any kind holds
    """A value in at most twelve characters, with as many digits as help."""
    if isinstance(value, bool):
        return "on" if value else "off"
    if isinstance(value, float):
        digits = 1 if abs(value) >= 10_000 else 2 if abs(value) >= 100 else 3
        return f"{value:.{digits}f}"
    return value.hex(" ") if isinstance(value, bytes) else str(value)


def devices(latest: Latest, now_ns: int) -> tuple[DeviceView, ...]:
    """Every device with every tag, in the order of the site document."""
    views = []
    for device in latest.devices():
        rows: dict[int, Row] = {}
        for batch in latest.batches(device):
            columns = zip(batch.tag.tolist(), batch.value.tolist(), batch.quality.tolist(), batch.time_ns.tolist(), strict=True)
            for slot, value, code, time_ns in columns:
                tag = device.tags[slot]
                said = quality(code)
                age_s = max(now_ns - time_ns, 0) / 1e9 if time_ns else 0.0
                rows[slot] = Row(tag.name, "-" if said else written(value), tag.unit, said, age_s)
        views.append(DeviceView(device.name, tuple(rows[slot] for slot in sorted(rows)), lost=latest.is_lost(device)))
    return tuple(views)


def account(ledger: Ledger, uplink: str) -> Account:
    """One uplink's ledger over all lanes."""
    lanes = ledger.readers.get(uplink, {}).values()
    return Account(
        appended=sum(lane.appended for lane in lanes),
        acknowledged=sum(lane.acknowledged for lane in lanes),
        pending=sum(lane.pending for lane in lanes),
        dropped=sum(sum(lane.dropped.values()) for lane in lanes),
        quarantined=sum(lane.quarantined for lane in lanes),
    )


def lateness_p99_s(late: Iterable[list[int]]) -> float:
    """Upper bound of the bucket with the 99th percentile over all connections, in seconds; infinite above the last."""
    counts = [sum(column) for column in zip(*late, strict=True)]
    needed, seen = 0.99 * sum(counts), 0
    for bound, count in zip((*LATENESS_BUCKETS_S, math.inf), counts, strict=bool(counts)):
        seen += count
        if needed and seen >= needed:
            return bound
    return 0.0


@dataclass(slots=True)
class Rates:
    """Turns counters into rates over the last seconds."""

    seen: deque[tuple[float, int, int]] = field(default_factory=deque)

    def scanning(self, statuses: Iterable[Status], scans: Mapping[str, ScanStats], now: float) -> Scanning:
        """``now`` is monotonic, in seconds."""
        made = sum(stats.scans for stats in scans.values())
        values = sum(status.counters.taken for status in statuses if status.kind == "connection")
        self.seen.append((now, made, values))
        while self.seen[0][0] < now - RATE_S:
            self.seen.popleft()
        then, scans_then, values_then = self.seen[0]
        span = now - then
        return Scanning(
            scans=made,
            missed=sum(stats.missed for stats in scans.values()),
            per_s=(made - scans_then) / span if span else 0.0,
            values_per_s=(values - values_then) / span if span else 0.0,
            late_p99_s=lateness_p99_s(stats.late_s for stats in scans.values()),
        )


@dataclass(slots=True)
class Lag:
    """How long the oldest record that is not settled has been waiting, as far as looks at the ledger can tell."""

    seen: deque[tuple[float, int]] = field(default_factory=deque)
    """When how many records had been appended."""

    def seconds(self, one: Account, now: float) -> float:
        """``now`` is monotonic, in seconds; exact to the time between two looks."""
        self.seen.append((now, one.appended))
        while self.seen[0][1] <= one.settled and len(self.seen) > 1:
            self.seen.popleft()
        return now - self.seen[0][0] if one.pending else 0.0


def uplink_state(appliance: Appliance, name: str) -> tuple[str, str]:
    """State and trouble of an uplink's link."""
    for status in appliance.statuses:
        if status.kind == "uplink" and status.name == name:
            return status.state.value, status.trouble
    return "stopped", ""
