"""The loads: how many devices, how they are reached, how often they are scanned; and the site document that says so.

Every device has the same block of float32 tags. One more device, ``stamp``, has a single tag that holds the time at which
the field answered: it shows how long a value takes from the device to a subscriber.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final, Literal

from tests.peers.fast import STAMP

GROUP, GATEWAY, UPLINK, STAMP_DEVICE = "bench", "gw", "cloud", "stamp"
STAMP_SCAN_S: Final = 0.1
FULL_SPEED_S: Final = 0.01
"""The shortest period that can be configured: more than any machine can do with many devices."""


@dataclass(frozen=True)
class Load:
    """``devices`` devices of ``tags`` float32 values, each scanned every ``scan_s``."""

    name: str
    devices: int
    scan_s: float
    way: Literal["connections", "unit-ids"] = "connections"
    """A connection for each device, or one connection with as many unit ids."""
    tags: int = 100
    seconds: float = 20.0
    warm_s: float = 4.0

    @property
    def ports(self) -> int:
        return self.devices if self.way == "connections" else 1

    @property
    def values_per_s(self) -> float:
        """What is asked for; at full speed more than can be had."""
        return self.devices * self.tags / self.scan_s

    @property
    def is_paced(self) -> bool:
        return self.scan_s > FULL_SPEED_S

    def quick(self) -> Load:
        return replace(self, seconds=min(self.seconds, 5.0), warm_s=min(self.warm_s, 2.0))


SMALL: Final = Load("10 x 100, 1 s", 10, 1.0)
USUAL: Final = Load("100 x 100, 1 s", 100, 1.0)
PACED: Final = (SMALL, Load("10 x 100, 100 ms", 10, 0.1), USUAL, Load("500 x 30, 1 s", 500, 1.0, tags=30))
FULL: Final = Load("100 x 100, full speed", 100, FULL_SPEED_S, seconds=15.0)
UNIT_IDS: Final = (
    Load("100 unit ids x 100, 1 s", 100, 1.0, "unit-ids"),
    Load("100 unit ids x 100, full speed", 100, FULL_SPEED_S, "unit-ids", seconds=10.0),
)
LINEAR: Final = (SMALL, USUAL, Load("500 x 100, 1 s", 500, 1.0))
PLANT: Final = Load("10 x 20, 5 s", 10, 5.0, tags=20)
"""A small plant: three days of it are half a million records."""


def connections(load: Load, ports: Sequence[int], *, stamped: bool = True) -> list[dict[str, Any]]:  # Any: JSON
    """The ``connections`` of a site for ``load`` over ``ports``; the stamp device, if any, comes last, on a connection of its own."""
    tags = [{"name": f"value/{at}", "at": f"holding:{2 * at}", "kind": "float32"} for at in range(load.tags)]
    devices = [
        {"name": f"device-{at}", "unit_id": 1 if load.way == "connections" else 1 + at, "scan_s": load.scan_s, "tags": tags}
        for at in range(load.devices)
    ]
    groups = [[device] for device in devices] if load.way == "connections" else [devices]
    lines = [_line(f"line-{at}", port, group) for at, (port, group) in enumerate(zip(ports, groups, strict=True))]
    if stamped:
        stamp = {"name": "answered", "at": f"holding:{STAMP}", "kind": "uint64"}
        lines.append(_line("stamp-line", ports[0], [{"name": STAMP_DEVICE, "unit_id": 250, "scan_s": STAMP_SCAN_S, "tags": [stamp]}]))
    return lines


def _line(name: str, port: int, devices: list[dict[str, Any]]) -> dict[str, Any]:  # Any: JSON
    return {"name": name, "type": "modbus-tcp", "host": "127.0.0.1", "port": port, "timeout_s": 2.0, "devices": devices}


def site(load: Load, ports: Sequence[int], broker_port: int, metrics_port: int, folder: Path) -> dict[str, Any]:  # Any: JSON
    """A whole site document: durable journal, Sparkplug, metrics; everything else as it is by default."""
    return {
        "holdfast": 1,
        "gateway": {"group": GROUP, "name": GATEWAY},
        "journal": {"path": str(folder / "journal")},
        "telemetry": {"metrics_port": metrics_port},
        "outage_budget_s": 0,
        "connections": connections(load, ports),
        "uplinks": [{"name": UPLINK, "type": "sparkplug", "host": "127.0.0.1", "port": broker_port}],
    }
