"""A journal with a history beside it, what is offered to it, and the answer that a plain walk over all records gives."""

from __future__ import annotations

import asyncio
import math
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np

from gateway import links
from gateway.config.history import History as Options
from gateway.config.model import JournalOptions
from gateway.history.history import History
from gateway.journal import Journal, Lane, Lost, Record
from gateway.tasks import cancel
from protocols.clock import Clock, SystemClock
from protocols.model import COLUMN_OF, DTYPE_OF, Batch, Device, Kind, Tag

SECOND_NS: Final = 1_000_000_000
MS: Final = 1_000_000
MINUTE_NS: Final = 60 * SECOND_NS
BEGAN_NS: Final = 1_760_000_400 * SECOND_NS
"""The beginning of a window."""
DEADLINE_S: Final = 20.0

METER: Final = Device(
    "hall",
    "meter 1",
    (
        Tag(name="power", kind=Kind.FLOAT32, unit="kW"),
        Tag(name="energy/total", kind=Kind.UINT64),
        Tag(name="on", kind=Kind.BOOL),
        Tag(name="state", kind=Kind.STRING),
        Tag(name="flow", kind=Kind.FLOAT64),
    ),
)


def batch(device: Device, slots: list[int], values: list[Any], times: list[int], quality: list[int] | None = None) -> Batch:  # Any: values
    dtype = DTYPE_OF[COLUMN_OF[device.tags[slots[0]].kind]]
    column = np.empty(len(values), dtype=dtype)
    column[:] = values
    return Batch(
        device,
        np.array(slots, dtype=np.uint32),
        column,
        np.array(quality or [0] * len(slots), dtype=np.uint32),
        np.array(times, dtype=np.int64),
    )


@dataclass
class Kept:
    """A journal with its history."""

    journal: Journal
    history: History

    async def offer(self, *batches: Batch) -> None:
        """Durable when this returns."""
        for each in batches[:-1]:
            self.journal.offer(each)
        await self.journal.append(batches[-1])


@asynccontextmanager
async def kept(folder: Path, clock: Clock | None = None, journal: dict[str, Any] | None = None, **more: Any) -> AsyncIterator[Kept]:
    """Any: options of the journal and of the history."""
    clock = clock or SystemClock()
    opened = await Journal.open(JournalOptions(path=str(folder / "journal"), **(journal or {})), clock=clock)
    wiped = more.pop("wiped", lambda _name: None)
    history = History(Options(**more), folder / "history", opened, clock, wiped=wiped)
    status = links.Status("history", "history")
    task = asyncio.create_task(links.keep(history.session, status, clock=clock))
    try:
        async with asyncio.timeout(DEADLINE_S):
            while status.state is not links.State.UP:  # noqa: ASYNC110 - what is waited for is seen from outside
                await asyncio.sleep(0.005)
        yield Kept(opened, history)
    finally:
        await cancel(task)
        history.follower.shut()
        await opened.close()


async def caught_up(history: History) -> None:
    async with asyncio.timeout(DEADLINE_S):
        await history.follower.catch_up()
        while history.catching_up:
            await asyncio.sleep(0.01)
            await history.follower.catch_up()


Value = tuple[int, int, int, Any, int]
"""Time, seq, place in the record, value, quality."""


async def walked(journal: Journal, device: str, tag: str) -> list[Value]:
    """Every value of a tag, found by looking at every record."""
    found: list[Value] = []
    at = 1
    while entries := await journal.read(Lane.TELEMETRY, at):
        for entry in entries:
            if isinstance(entry, Record) and entry.batch.device.name == device:
                one = entry.batch
                for nth, slot in enumerate(one.tag.tolist()):
                    if one.device.tags[slot].name == tag:
                        found.append((int(one.time_ns[nth]), entry.seq, nth, one.value[nth], int(one.quality[nth])))
        final = entries[-1]
        at = (final.last if isinstance(final, Lost) else final.seq) + 1
    return sorted(found, key=lambda each: each[:3])


@dataclass
class Expected:
    """What a bucket holds, reckoned value by value."""

    count: int
    bad: int
    low: float
    high: float
    mean: float
    firsts: list[float]
    """Those of the first millisecond: roll-ups do not tell them apart."""
    lasts: list[float]


def expected(values: list[Value], from_ns: int, to_ns: int) -> Expected:
    some = [each for each in values if from_ns <= each[0] < to_ns]
    timed = [(at // MS, float(value)) for at, _, _, value, quality in some if quality < 0x80000000 and not math.isnan(float(value))]
    if not timed:
        return Expected(0, len(some), math.nan, math.nan, math.nan, [], [])
    good = [value for _, value in timed]
    firsts, lasts = ([value for at, value in timed if at == edge] for edge in (timed[0][0], timed[-1][0]))
    return Expected(len(good), len(some) - len(good), min(good), max(good), sum(good) / len(good), firsts, lasts)
