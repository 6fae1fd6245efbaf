"""The whole gateway under a load, as a process of its own: durable journal and Sparkplug on, nothing switched off.

Field and broker run beside it and are not counted. After a warm-up, what the gateway says of itself (its Prometheus
metrics) and what the kernel says of it (CPU, memory) are read at the start and at the end of the measured time; the
figures are the difference.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import signal
import sys
import time
import urllib.request
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from prometheus_client.parser import text_string_to_metric_families

from tests.bench.broker import Broker, Latency
from tests.bench.loads import Load, site
from tests.bench.measure import Machine, Spread, cpu_s, peak_bytes, quantile_bound
from tests.peers.fast import FastModbus
from tests.peers.mosquitto import free_port
from tests.peers.proxy import Proxy

START_S: Final = 60.0
LATE: Final = "holdfast_scan_lateness_seconds"
Metrics = dict[str, float]
"""Sums over all labels by name; histogram buckets by ``name{le}``."""


@dataclass(frozen=True)
class Result:
    """What one load cost. Seconds, bytes, values."""

    load: Load
    values_per_s: float
    cpu_s_per_million: float
    cpu_share: float
    """Of one core."""
    peak_bytes: int
    scans: int
    missed: int
    late_p50_s: float
    """Upper bound of the histogram bucket in which the quantile lies."""
    late_p99_s: float
    latency: Spread | None
    """From the device's answer to a subscriber of the broker."""
    delivered: float
    """Records that the broker confirmed over records that were journalled meanwhile; far below 1 the uplink falls behind."""
    pending: int
    """Records that waited for the broker's confirmation at the end."""
    dropped: int
    field_cpu_s_per_million: float
    requests_per_s: float
    others_share: float
    """Of the machine's cores: what programs took that have nothing to do with the bench."""


@dataclass(frozen=True)
class Moment:
    """What was so far, at one moment."""

    at: float
    cpu_s: float
    field_cpu_s: float
    requests: int
    metrics: Metrics
    machine: Machine


@dataclass(frozen=True)
class Rig:
    """A gateway that delivers, with all that it needs around it."""

    load: Load
    folder: Path
    field: FastModbus
    broker: Broker
    latency: Latency
    metrics_port: int
    pid: int

    async def look(self) -> Moment:
        requests = await self.field.requests()
        machine = Machine.now()
        moment, cpu, field_cpu = time.monotonic(), cpu_s(self.pid), cpu_s(self.field.pid)  # the gateway counts at the scrape's beginning
        metrics = await asyncio.to_thread(scrape, self.metrics_port)
        return Moment(moment, cpu, field_cpu, requests, metrics, machine)


async def measure(load: Load, folder: Path) -> Result:
    """Run the gateway under ``load``; ``folder`` exists and is its own."""
    async with running(load, folder) as rig:
        await asyncio.sleep(load.warm_s)
        rig.latency.recording = True
        before = await rig.look()
        await asyncio.sleep(load.seconds)
        after = await rig.look()
        rig.latency.recording = False
        return _result(load, before, after, peak_bytes(rig.pid), rig.latency)


@asynccontextmanager
async def running(load: Load, folder: Path, *, with_broker: bool = True, link: Proxy | None = None) -> AsyncIterator[Rig]:
    """A gateway under ``load`` that has read every device and, where it has a broker, had something confirmed.

    It reaches its broker through ``link``, if there is one.
    """
    latency, broker = Latency(), Broker(folder)
    async with FastModbus(ports=load.ports) as field, broker.ended():
        if with_broker:
            await broker.start()
        listening = asyncio.ensure_future(latency.listen(broker.port))
        metrics_port = free_port()
        document = folder / "site.yaml"
        if link is not None:
            link.target = ("127.0.0.1", broker.port)
        seen_port = broker.port if link is None else link.port
        document.write_text(json.dumps(site(load, field.ports, seen_port, metrics_port, folder)))
        try:
            if with_broker:
                await latency.connected.wait()
            async with gateway(document, folder) as pid:
                await _serves(metrics_port, load, with_broker)
                yield Rig(load, folder, field, broker, latency, metrics_port, pid)
        finally:
            listening.cancel()
            await asyncio.gather(listening, return_exceptions=True)


@asynccontextmanager
async def gateway(document: Path, folder: Path) -> AsyncIterator[int]:
    """The gateway's process id. Its log is ``folder/log``."""
    with (folder / "log").open("wb") as log:
        process = await asyncio.create_subprocess_exec(sys.executable, "-m", "gateway", "run", str(document), stdout=log, stderr=log)
    try:
        yield process.pid
    finally:
        with contextlib.suppress(ProcessLookupError):
            process.send_signal(signal.SIGTERM)
        try:
            await asyncio.wait_for(process.wait(), 20)
        except TimeoutError:
            process.kill()
            await process.wait()


def scrape(port: int) -> Metrics:
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=10) as answer:
        text = answer.read().decode()
    sums: Metrics = {}
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            if sample.name.startswith("holdfast_link_") and sample.labels.get("kind") not in (None, "connection"):
                continue  # uplinks count records, connections count values
            key = f"{sample.name}{{{sample.labels['le']}}}" if "le" in sample.labels else sample.name
            sums[key] = sums.get(key, 0.0) + sample.value
    return sums


async def _serves(metrics_port: int, load: Load, with_broker: bool) -> None:
    """Wait until every device has been read and, where there is a broker, the uplink has had something confirmed."""
    async with asyncio.timeout(START_S):
        while True:
            with contextlib.suppress(OSError):
                metrics = await asyncio.to_thread(scrape, metrics_port)
                arrived = metrics.get("holdfast_link_in_total", 0) >= load.devices * load.tags
                if arrived and (not with_broker or metrics.get("holdfast_uplink_acknowledged_total", 0) > 0):
                    return
            await asyncio.sleep(0.1)


def _result(load: Load, before: Moment, after: Moment, peak: int, latency: Latency) -> Result:
    elapsed = after.at - before.at
    grown = {name: value - before.metrics.get(name, 0.0) for name, value in after.metrics.items()}
    values = grown["holdfast_link_in_total"]
    cpu = after.cpu_s - before.cpu_s
    late = sorted((float(name.split("{")[1][:-1]), count) for name, count in grown.items() if name.startswith(f"{LATE}_bucket{{"))
    return Result(
        load=load,
        values_per_s=values / elapsed,
        cpu_s_per_million=cpu / values * 1e6,
        cpu_share=cpu / elapsed,
        peak_bytes=peak,
        scans=int(grown.get(f"{LATE}_count", 0)),
        missed=int(grown.get("holdfast_scans_missed_total", 0)),
        late_p50_s=quantile_bound(late, 0.5),
        late_p99_s=quantile_bound(late, 0.99),
        latency=Spread.of(latency.seconds),
        delivered=grown.get("holdfast_uplink_acknowledged_total", 0.0) / max(1.0, grown["holdfast_journal_appended_total"]),
        pending=int(after.metrics.get("holdfast_uplink_pending", 0)),
        dropped=int(grown.get("holdfast_journal_dropped_total", 0) + grown.get("holdfast_uplink_dropped_total", 0)),
        field_cpu_s_per_million=(after.field_cpu_s - before.field_cpu_s) / values * 1e6,
        requests_per_s=(after.requests - before.requests) / elapsed,
        others_share=after.machine.others_since(before.machine),
    )
