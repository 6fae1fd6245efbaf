"""One product under one load, everything seen from outside: a subscriber counts values, the kernel counts CPU and memory.

Holdfast is measured exactly as its peers are; its own metrics are not asked.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from tests.bench.loads import Load
from tests.bench.measure import Spread
from tests.bench.peers.broker import broker
from tests.bench.peers.process import PeerEnded, family_cpu, family_peak_bytes, tail
from tests.bench.peers.products import Product
from tests.bench.peers.tally import ages_s
from tests.peers.fast import FastModbus
from tests.peers.program import Program

START_S: Final = 60.0
LOOK_S: Final = 0.1


@dataclass(frozen=True)
class Cost:
    """What one load cost one product. Seconds, bytes, values."""

    product: str
    load: str
    asked_per_s: float
    """Values; at full speed more than can be had."""
    values_per_s: float
    cpu_s_per_million: float
    cpu_share: float
    """Of one core."""
    peak_bytes: int
    p50_s: float | None
    """From the device's last answer in a round to the subscriber; None where nothing came."""
    p99_s: float | None
    scans: int
    missed: int
    """Scans that a device should have delivered and did not. One a device may lie at the edge of the window: it is not counted."""
    silent: int
    """Devices of which nothing came."""
    wrong: int
    """Values that the field never gave."""
    messages_per_s: float
    requests_per_s: float
    subscriber_share: float
    """Of one core; near 1 the subscriber would be the limit."""


async def cost(product: Product, load: Load, folder: Path) -> Cost:
    """Run ``product`` under ``load``; ``folder`` exists and is its own."""
    async with around(product, load, folder) as (field, port, counted), product.start(load, field.ports, port, folder) as pid:
        await delivers(counted, load, folder, strict=load.is_paced)
        await asyncio.sleep(load.warm_s)
        requests, other = await field.requests(), family_cpu(counted.pid)
        await counted.ask("forget")
        began, cpu = time.monotonic(), family_cpu(pid)
        await asyncio.sleep(load.seconds)
        spent, elapsed = family_cpu(pid).since(cpu), time.monotonic() - began
        report = await told(counted)
        requests, counting = await field.requests() - requests, family_cpu(counted.pid).since(other)
        peak = family_peak_bytes(pid)
        answered = {f"device-{at}": await field.answered(at) for at in range(load.devices)}
    came = report["values"]
    values = sum(came.values())
    expected = int(elapsed / load.scan_s)
    delivered = [came.get(f"device-{at}", 0) // load.tags for at in range(load.devices)]
    spread = Spread.of(ages_s(report["arrivals"], answered))
    return Cost(
        product=product.name,
        load=load.name,
        asked_per_s=load.values_per_s,
        values_per_s=values / elapsed,
        cpu_s_per_million=spent / max(1, values) * 1e6,
        cpu_share=spent / elapsed,
        peak_bytes=peak,
        p50_s=None if spread is None else spread.p50,
        p99_s=None if spread is None else spread.p99,
        scans=sum(delivered),
        missed=sum(max(0, expected - 1 - each) for each in delivered),
        silent=load.devices - len(came),
        wrong=report["wrong"],
        messages_per_s=report["messages"] / elapsed,
        requests_per_s=requests / elapsed,
        subscriber_share=counting / elapsed,
    )


@asynccontextmanager
async def around(product: Product, load: Load, folder: Path) -> AsyncIterator[tuple[FastModbus, int, Program]]:
    """The field, the broker's port, and a consumer that counts what ``product`` delivers."""
    async with FastModbus(ports=load.ports) as field, broker(folder) as port:
        words = ("-m", "tests.bench.peers.subscriber", str(port), product.name, str(load.tags))
        async with Program(Path(sys.executable), *words) as counted:
            yield field, port, counted


async def told(counted: Program) -> dict[str, Any]:  # Any: JSON
    report: dict[str, Any] = json.loads((await counted.ask("report"))[0])  # Any: JSON
    return report


async def delivers(counted: Program, load: Load, folder: Path, *, strict: bool = True) -> None:
    """Wait until something came from every device; if not ``strict``, half of that patience is enough and some may be silent."""
    deadline = time.monotonic() + (START_S if strict else START_S / 2)
    devices = 0
    while devices < load.devices:
        values, devices = map(int, await counted.ask("count"))
        if time.monotonic() > deadline:
            if values and not strict:
                return
            raise PeerEnded(f"only {devices} of {load.devices} devices were delivered:\n{tail(folder / 'log')}")
        await asyncio.sleep(LOOK_S)
