"""A gateway's insides for tests of uplinks: a real journal, the latest values, and an uplink that is kept on a broker."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from gateway import links
from gateway.config.model import Gateway, JournalOptions, SparkplugUplink
from gateway.journal import Journal, Lane
from gateway.latest import Latest
from gateway.uplink.sparkplug import Sparkplug
from protocols.clock import Clock, SystemClock
from protocols.model import COLUMN_OF, DTYPE_OF, Batch, Device, Kind, Quality, Tag, silence

DEADLINE_S = 10.0
GATEWAY = Gateway(group="plant", name="gw")
BOILER = Device(
    "line",
    "boiler",
    (Tag(name="steam/pressure", kind=Kind.FLOAT32, unit="bar"), Tag(name="burner/on", kind=Kind.BOOL), Tag(name="total", kind=Kind.UINT32)),
)
PUMP = Device("line", "pump", (Tag(name="speed", kind=Kind.FLOAT64, unit="rpm"),))


def batch(device: Device, values: dict[str, Any], *, time_ns: int, quality: int = Quality.GOOD, lost: bool = False) -> Batch:
    """One batch of tags of one column kind. Any: each kind has its own type."""
    places = {tag.name: at for at, tag in enumerate(device.tags)}
    slots = [places[name] for name in values]
    value = np.zeros(len(slots), dtype=DTYPE_OF[COLUMN_OF[device.tags[slots[0]].kind]])
    value[:] = list(values.values())
    count = len(slots)
    return Batch(
        device,
        np.array(slots, np.uint32),
        value,
        np.full(count, quality, np.uint32),
        np.full(count, time_ns, np.int64),
        lost=lost,
    )


async def until(ready: Callable[[], object]) -> None:
    """Wait for a condition that raises no event of its own."""
    async with asyncio.timeout(DEADLINE_S):
        while not ready():  # noqa: ASYNC110 - what is waited for belongs to others
            await asyncio.sleep(0.005)


@dataclass
class Plant:
    """Where values come from, and where they are kept."""

    journal: Journal
    clock: Clock
    latest: Latest = field(default_factory=Latest)

    def has(self, *devices: Device) -> None:
        for device in devices:
            self.latest.add(device)

    def bring(self, device: Device, values: dict[str, Any], lane: Lane = Lane.TELEMETRY) -> None:
        """A scan of ``device``: latest values first, then the journal, as the pipeline does."""
        self.take(batch(device, values, time_ns=self.clock.time_ns()), lane)

    def take(self, one: Batch, lane: Lane = Lane.TELEMETRY) -> None:
        self.latest.update(one)
        self.journal.offer(one, lane)

    def lose(self, device: Device) -> None:
        for one in silence(device, Quality.BAD_NO_COMMUNICATION, self.clock.time_ns(), lost=True):
            self.take(one)

    async def stored(self) -> None:
        """Everything that was taken is durable."""
        await until(lambda: not any(lane.unwritten for lane in self.journal.ledger().lanes.values()))

    async def delivered(self, uplink: str = "cloud") -> None:
        """Everything that was taken has been delivered and confirmed."""
        await self.stored()
        await until(lambda: not self.pending(uplink))

    def pending(self, uplink: str = "cloud") -> int:
        return sum(lane.pending for lane in self.journal.ledger().readers[uplink].values())


@asynccontextmanager
async def plant(folder: Path, *, clock: Clock | None = None) -> AsyncIterator[Plant]:
    clock = clock or SystemClock()
    journal = await Journal.open(JournalOptions(path=str(folder), commit_window_ms=5), clock=clock)
    try:
        yield Plant(journal, clock)
    finally:
        await journal.close()


def sparkplug(made_of: Plant, options: SparkplugUplink, *, clock: Clock | None = None, bdseq_file: Path | None = None) -> Sparkplug:
    reader = made_of.journal.reader(options.name, options.start)
    status = links.Status("uplink", options.name)
    return Sparkplug(options, GATEWAY, reader, made_of.latest, clock=clock or made_of.clock, status=status, bdseq_file=bdseq_file)


@asynccontextmanager
async def kept(uplink: Sparkplug) -> AsyncIterator[asyncio.Task[None]]:
    """The uplink as a gateway runs it: kept alive until the block is left."""
    task = asyncio.create_task(links.keep(uplink.session, uplink.status, clock=uplink.clock))
    try:
        yield task
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
