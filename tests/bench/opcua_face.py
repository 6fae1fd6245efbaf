"""What the OPC UA server of the gateway costs, and whether it holds up the scans: without it, with it, and with a subscriber.

``python -m tests.bench.opcua_face [TAGS ...] [--seconds S]``. Every tag changes every second; the subscriber is node-opcua and publishes
every second, with sign and encrypt. CPU is the gateway's alone, of one core. Lateness is of scans, as the gateway counts it, also while
the face is being built: the goal is 100 ms at p99.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
import time
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from protocols.opcua import certificates
from tests.bench.loads import Load, connections
from tests.bench.measure import ROOT, cpu_s, machine, peak_bytes, quantile_bound, workplace
from tests.bench.whole import LATE, Metrics, gateway, scrape
from tests.peers.fast import FastModbus
from tests.peers.mosquitto import free_port
from tests.peers.opcua_client import OpcUaClient, Refused

CASES: Final = ("no face", "face", "face, subscriber")
START_S: Final = 180.0


@dataclass(frozen=True)
class Result:
    case: str
    tags: int
    cpu_share: float
    peak_mb: float
    late_p99_s: float
    starting_p99_s: float
    starting_worst_s: float
    """Bounds of the buckets, while the gateway and the face start."""
    ready_s: float
    told_per_s: float

    def line(self) -> str:
        return (
            f"| {self.tags} | {self.case} | {100 * self.cpu_share:.1f} % | {self.peak_mb:.0f} MB | {1000 * self.late_p99_s:.0f} ms "
            f"| {1000 * self.starting_p99_s:.0f} / {1000 * self.starting_worst_s:.0f} ms | {self.ready_s:.1f} s | {self.told_per_s:.0f} |"
        )


def late(before: Metrics, after: Metrics, share: float) -> float:
    """Upper bound of the bucket of that quantile, between two looks."""
    names = [name for name in after if name.startswith(f"{LATE}_bucket{{")]
    counts = sorted((float(name.split("{")[1][:-1]), after[name] - before.get(name, 0.0)) for name in names)
    return quantile_bound(counts, share)


async def measure(case: str, tags: int, seconds: float, folder: Path) -> Result:
    load = Load(case, tags // 100, 1.0)
    metrics_port, port, pki = free_port(), free_port(), folder / "pki"
    async with AsyncExitStack() as stack:
        field = await stack.enter_async_context(FastModbus(ports=load.ports))
        client = OpcUaClient(folder / "client", count=True)
        stack.callback(client.end)
        await asyncio.to_thread(client.launch)
        face = {"name": "mes", "type": "opcua-server", "port": port, "anonymous": True, "security": {"folder": str(pki)}}
        document = folder / "site.yaml"
        site: dict[str, Any] = {  # Any: JSON
            "holdfast": 1,
            "gateway": {"group": "bench", "name": "gw"},
            "journal": {"path": str(folder / "journal")},
            "telemetry": {"metrics_port": metrics_port},
            "connections": connections(load, field.ports),
            "faces": [] if case == "no face" else [face],
            "outage_budget_s": 60,
        }
        document.write_text(json.dumps(site))
        began = time.monotonic()
        pid = await stack.enter_async_context(gateway(document, folder))
        word = b'"running"' if case == "no face" else b'"face_listens"'
        async with asyncio.timeout(START_S):
            while word not in (folder / "log").read_bytes():  # noqa: ASYNC110 - another process's file
                await asyncio.sleep(0.05)
        ready_s = time.monotonic() - began
        starting = await asyncio.to_thread(scrape, metrics_port)
        if case == "face, subscriber":
            await _subscribe(client, port, pki, load)
        await asyncio.sleep(5)
        if case == "face, subscriber":
            await client.ask("counted")
        before, cpu, at = await asyncio.to_thread(scrape, metrics_port), cpu_s(pid), time.monotonic()
        await asyncio.sleep(seconds)
        told = await client.ask("counted")
        elapsed, cpu = time.monotonic() - at, cpu_s(pid) - cpu
        after = await asyncio.to_thread(scrape, metrics_port)
        return Result(
            case,
            tags,
            cpu / elapsed,
            peak_bytes(pid) / 1e6,
            late(before, after, 0.99),
            late({}, starting, 0.99),
            late({}, starting, 1.0),
            ready_s,
            told / elapsed,
        )


async def _subscribe(client: OpcUaClient, port: int, pki: Path, load: Load) -> None:
    wish = {"endpoint": f"opc.tcp://127.0.0.1:{port}", "policy": "Basic256Sha256"}
    try:
        await client.ask("connect", **wish)
    except Refused:
        for one in certificates.shelf(pki, "rejected"):
            certificates.put(pki, one.certificate, "trusted")
        await client.ask("connect", **wish)
    nodes = [f"ns=2;s=device-{device}/value/{tag}" for device in range(load.devices) for tag in range(load.tags)]
    statuses = await client.ask("watch", nodes=nodes, publishing=1000)
    assert set(statuses) == {"Good"}, set(statuses)


async def main(tags: list[int], seconds: float) -> None:
    say = sys.stdout.write
    say("\n".join(f"{key}: {value}" for key, value in machine().items()) + "\n\n")
    heads = ("tags", "case", "CPU", "memory", "scans late, p99", "at start, p99 / worst", "ready after", "told/s")
    say(f"| {' | '.join(heads)} |\n{'|---' * len(heads)}|\n")
    for many in tags:
        for case in CASES:
            folder = workplace(ROOT / "build" / "bench", "opcua-face-")
            say((await measure(case, many, seconds, folder)).line() + "\n")
            sys.stdout.flush()


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("tags", nargs="*", type=int, default=[1000, 10_000])
    parser.add_argument("--seconds", type=float, default=15.0)
    asked = parser.parse_args()
    asyncio.run(main(asked.tags or [1000, 10_000], asked.seconds))
