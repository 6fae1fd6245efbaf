"""Somebody who looks at a running gateway all the time: do ledger and metrics answer, is it on time, how much memory does it take?"""

from __future__ import annotations

import asyncio
import contextlib
import random
import re
import socket
import time
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self

from tests.faults.rig import UPLINK, Rig

LOOK_EVERY_S: Final = 0.1
LONG_WAIT_S: Final = 0.1
"""Of the gateway for a processor, between two looks: what can make a scan late that others should not have delayed."""
LATENESS: Final = re.compile(r'^holdfast_scan_lateness_seconds_bucket\{connection="[^"]+",le="([^"]+)"\} (\S+)$', re.MULTILINE)
MISSED: Final = re.compile(r"^holdfast_scans_missed_total\{[^}]*\} (\S+)$", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class Punctuality:
    """Scans begun and missed over all connections, by the gateway's own metrics."""

    late: dict[float, int]
    """Scans by the greatest lateness in seconds, cumulated."""
    missed: int

    @property
    def scans(self) -> int:
        return self.late[float("inf")]

    def since(self, earlier: Punctuality) -> Punctuality:
        return Punctuality({bound: count - earlier.late[bound] for bound, count in self.late.items()}, self.missed - earlier.missed)

    def share(self, bound_s: float) -> float:
        """Which part of the scans that were due began at most ``bound_s`` (a bound of the histogram) late."""
        return self.late[bound_s] / (self.scans + self.missed)

    def p99_s(self) -> float:
        """The bound of the histogram below which 99 of 100 scans lie."""
        return min(bound for bound, count in self.late.items() if count >= 0.99 * self.scans)


def punctuality(metrics: str) -> Punctuality:
    late: dict[float, int] = {}
    for bound, count in LATENESS.findall(metrics):
        late[float(bound)] = late.get(float(bound), 0) + int(float(count))
    return Punctuality(late, sum(int(float(count)) for count in MISSED.findall(metrics)))


class Watch:
    """``async with Watch(plant, port) as watch``: asks both all the time. That one does not answer in time fails the block."""

    def __init__(self, plant: Rig, metrics_port: int) -> None:
        self._plant, self._port = plant, metrics_port
        self._task: asyncio.Task[None] | None = None
        self.answers = 0
        self.slowest_s = 0.0
        self.ledger: dict[str, Any] = {}  # Any: JSON
        """The whole ledger as last told."""
        self.troubles: list[str] = []
        """Each trouble that was told, once for each time that it came."""
        self.most_bytes = 0
        """Resident memory of the gateway, at its highest while watched."""
        self.starved_s = 0.0
        """How long others kept the gateway from a processor, in long waits: no scan begins meanwhile, and that is the machine's doing."""
        self._waited_s = plant.waited_s()

    async def look(self) -> None:
        """Ask for the ledger and the metrics once."""
        began = time.monotonic()
        before = self.ledger.get("trouble", "")
        self._count_waiting()
        self.ledger = await self._plant.stat()
        await self.metrics()
        self.slowest_s = max(self.slowest_s, time.monotonic() - began)
        if self.ledger["trouble"] and not before:
            self.troubles.append(self.ledger["trouble"])
        self.most_bytes = max(self.most_bytes, resident(self._plant.gateway.pid))
        self.answers += 1

    async def metrics(self) -> str:
        return await asyncio.to_thread(self._plant.gateway.metrics, self._port)

    async def punctuality(self) -> Punctuality:
        return punctuality(await self.metrics())

    @property
    def dropped(self) -> int:
        """Records that the uplink will never get, as last told."""
        return sum(self.ledger["readers"][UPLINK]["telemetry"]["dropped"].values())

    @property
    def unwritten(self) -> int:
        return int(self.ledger["lanes"]["telemetry"]["unwritten"])

    async def scanned(self, scans: float, deadline_s: float = 60.0) -> None:
        """Wait until the field was scanned so many times more, over all devices."""
        wanted = sum(await self._plant.field.rounds()) + scans
        end = time.monotonic() + deadline_s
        while sum(await self._plant.field.rounds()) < wanted:
            assert time.monotonic() < end, f"not within {deadline_s:g} s: {scans:g} scans; {self._plant.state()}"
            await asyncio.sleep(0.02)

    async def healed(self, deadline_s: float = 60.0) -> float:
        """Wait until everything that was read is stored, but what came just now; seconds that this took."""
        began = time.monotonic()
        while self.ledger["trouble"] or self.unwritten > self._plant.records_per_s:
            assert time.monotonic() < began + deadline_s, f"not healed within {deadline_s:g} s: {self.ledger}; {self._plant.state()}"
            await self.look()
            await asyncio.sleep(0.02)
        return time.monotonic() - began

    def _count_waiting(self) -> None:
        before, self._waited_s = self._waited_s, self._plant.waited_s()
        if self._waited_s - before > LONG_WAIT_S:
            self.starved_s += self._waited_s - before

    async def _keep_looking(self) -> None:
        while True:
            await self.look()
            await asyncio.sleep(LOOK_EVERY_S)

    async def __aenter__(self) -> Self:
        await self.look()
        self._task = asyncio.create_task(self._keep_looking())
        return self

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        await self.stop()

    async def stop(self) -> None:
        """Look no longer; twice is fine."""
        task, self._task = self._task, None
        if task is None:
            return
        if task.done():
            await task  # raises: the gateway did not answer
        task.cancel()
        await asyncio.wait([task])


def resident(pid: int) -> int:
    """Bytes of memory that a process has now."""
    found = re.search(r"^VmRSS:\s+(\d+) kB$", Path(f"/proc/{pid}/status").read_text(), re.MULTILINE)
    assert found is not None, f"process {pid} has ended"
    return int(found[1]) * 1024


def port_for_metrics() -> int:
    """A free port below those that the kernel gives to outgoing connections, so that nobody takes it by chance."""
    while True:
        port = random.SystemRandom().randrange(20_000, 30_000)
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return port
