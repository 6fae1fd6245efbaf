"""A journal's reader in memory, for tests of what is decided about records: the same promises, no file, no thread."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping

import numpy as np

from gateway.journal.record import Lane, Lost, Record
from gateway.uplink.spans import Spans
from protocols.clock import ManualClock
from protocols.model import Batch, Device, Kind, Tag

DEVICE = Device("line", "boiler", (Tag(name="steam/pressure", kind=Kind.FLOAT64, unit="bar"), Tag(name="steam/flow", kind=Kind.FLOAT64)))


def batch(device: Device = DEVICE, value: float = 1.5, time_ns: int = 1_700_000_000_000_000_000) -> Batch:
    rows = len(device.tags)
    return Batch(
        device=device,
        tag=np.arange(rows, dtype=np.uint32),
        value=np.full(rows, value),
        quality=np.zeros(rows, dtype=np.uint32),
        time_ns=np.full(rows, time_ns, dtype=np.int64),
    )


class Shelf:
    """Records by lane; seqs from 1. ``put`` appends, ``drop`` loses, ``new_epoch`` begins the next life."""

    name = "shelf"

    def __init__(self, clock: ManualClock) -> None:
        self._clock = clock
        self._entries: dict[Lane, list[Record | Lost]] = {lane: [] for lane in Lane}
        self._settled = {lane: Spans() for lane in Lane}
        self._untold = {lane: Spans() for lane in Lane}
        self._epoch = 1
        self._changed = asyncio.Event()

    def put(self, count: int = 1, lane: Lane = Lane.TELEMETRY, device: Device = DEVICE) -> None:
        for _ in range(count):
            seq = len(self._entries[lane]) + 1
            self._entries[lane].append(Record(self._epoch, seq, lane, self._clock.time_ns(), batch(device, float(seq))))
        self._changed.set()

    def drop(self, first: int, last: int, lane: Lane = Lane.TELEMETRY) -> None:
        for seq in range(first, last + 1):
            self._entries[lane][seq - 1] = Lost(self._entries[lane][seq - 1].epoch, seq, seq, "full")
        for span in self._settled[lane].gaps(first, last):
            self._untold[lane].add(*span)
        self._settled[lane].add(first, last)

    def new_epoch(self) -> None:
        self._epoch += 1

    def head(self, lane: Lane) -> int:
        return len(self._entries[lane]) + 1

    def pending(self, lane: Lane) -> tuple[tuple[int, int], ...]:
        return tuple(self._settled[lane].gaps(1, self.head(lane) - 1))

    def untold(self, lane: Lane) -> tuple[tuple[int, int], ...]:
        return tuple(self._untold[lane])

    async def read(self, lane: Lane, first: int, *, max_records: int, max_bytes: int, last: int | None = None) -> list[Record | Lost]:
        end = self.head(lane) - 1 if last is None else last
        found = self._entries[lane][first - 1 : min(end, first + max_records - 1)]
        return [entry for entry in found if entry.epoch == found[0].epoch]

    def acknowledge(self, lane: Lane, first: int, last: int) -> None:
        self._settled[lane].add(first, last)
        self._untold[lane].remove(first, last)

    async def wait(self, lane_heads: Mapping[Lane, int]) -> None:
        while not any(self.head(lane) > head for lane, head in lane_heads.items()):
            self._changed.clear()
            await self._changed.wait()
