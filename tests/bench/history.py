"""A day of history of a whole plant: how fast it answers, and what keeping it costs.

    python -m tests.bench.history [--devices 100] [--tags 100] [--hours 24] [--folder DIR] [--keep] [--asks N]

The day is written by a generator straight into a journal, as a gateway leaves it: a record for each device and second, each
durable. Then history is made of it from nothing, as after the loss of its file, and then it is asked. ``cold`` means that
the kernel was told to forget the files first. Everything is deleted in the end unless ``--keep``; 10,000 tags for a day take 5 GB.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import os
import random
import shutil
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Final

import numpy as np

from gateway import links
from gateway.config.history import History as Options
from gateway.config.model import JournalOptions
from gateway.history.export import exported, format_of
from gateway.history.history import History
from gateway.journal import Journal
from gateway.links import Status
from gateway.tasks import cancel
from protocols.clock import Clock, ManualClock, SystemClock
from protocols.model import Batch, Device, Kind, Tag
from tests.bench.measure import ROOT, Spread, cpu_s, workplace

GROUP_ROUNDS: Final = 10
SECOND_NS: Final = 1_000_000_000
Figures = dict[str, float]


def plant(devices: int, tags: int) -> list[Device]:
    """Devices with float32 tags, as a Modbus connection has them."""
    return [
        Device(f"line-{at}", f"device-{at}", tuple(Tag(name=f"value/{tag}", kind=Kind.FLOAT32, scan_s=1.0) for tag in range(tags)))
        for at in range(devices)
    ]


async def write(folder: Path, devices: list[Device], hours: float, scan_s: float = 1.0) -> int:
    """A journal in ``folder`` that ends now and goes back ``hours``; returns the stamp of its first record."""
    rounds, tags = round(hours * 3600 / scan_s), len(devices[0].tags)
    began_ns = (time.time_ns() // SECOND_NS - round(rounds * scan_s)) * SECOND_NS
    clock = ManualClock(began_ns)
    journal = await Journal.open(options(folder), clock=clock)
    wave = _wave(tags)
    slots, good = np.arange(tags, dtype=np.uint32), np.zeros(tags, dtype=np.uint32)
    try:
        for number in range(rounds):
            stamps = np.full(tags, clock.time_ns(), dtype=np.int64)
            batches = [Batch(each, slots, wave[(number + 37 * at) % 4096][:tags], good, stamps) for at, each in enumerate(devices)]
            for batch in batches[:-1]:
                journal.offer(batch)
            if number % GROUP_ROUNDS == GROUP_ROUNDS - 1 or number == rounds - 1:
                await journal.append(batches[-1])
            else:
                journal.offer(batches[-1])
            await clock.advance(scan_s)
    finally:
        await journal.close()
    return began_ns


def _wave(tags: int) -> list[np.ndarray[tuple[int], np.dtype[np.float64]]]:
    """4096 scans of values that every scan changes: a slow wave, noise, and now and then a spike."""
    dice = np.random.default_rng(5)
    slow = np.sin(np.arange(4096)[:, np.newaxis] / 300 + np.arange(tags))
    values = slow + 0.1 * dice.standard_normal((4096, tags)) + 5 * (dice.random((4096, tags)) > 0.9995)
    return list(values.astype(np.float32).astype(np.float64))


def options(folder: Path) -> JournalOptions:
    return JournalOptions(path=str(folder / "journal"), max_bytes=64 * 2**30)


@asynccontextmanager
async def history_of(folder: Path, clock: Clock) -> AsyncIterator[History]:
    """The journal in ``folder`` with its history, which begins with what it has."""
    journal = await Journal.open(options(folder), clock=clock)
    history = History(Options(max_bytes=8 * 2**30, most_raw=20_000), folder / "history", journal, clock)
    status = Status("history", "history")
    task = asyncio.create_task(links.keep(history.session, status, clock=clock))
    try:
        while status.state is not links.State.UP:  # noqa: ASYNC110 - what is waited for is seen from outside
            await asyncio.sleep(0.01)
        yield history
    finally:
        await cancel(task)
        await journal.close()


async def timed(times: int, ask: Callable[[], Awaitable[object]]) -> Spread:
    """How long an answer takes."""
    took: list[float] = []
    for _ in range(times):
        began = time.perf_counter()
        await ask()
        took.append(time.perf_counter() - began)
    found = Spread.of(took)
    assert found is not None
    return found


def forget(folder: Path) -> None:
    """Tell the kernel to drop what it has cached of the files in ``folder``."""
    for path in folder.rglob("*"):
        if path.is_file():
            descriptor = os.open(path, os.O_RDONLY)
            with contextlib.closing(os.fdopen(descriptor, "rb")):
                os.fsync(descriptor)
                os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)


async def asked(history: History, devices: list[Device], began_ns: int, end_ns: int, times: int, folder: Path) -> Figures:
    """Each kind of question about a tag that chance picks."""
    dice = random.Random(1)

    def any_tag() -> tuple[str, str]:
        device = dice.choice(devices)
        return device.name, dice.choice(device.tags).name

    async def line(points: int) -> None:
        async with history.turn():
            found = await history.line(history.find(*any_tag()), began_ns, end_ns, points)
        assert len(found.time_ns) <= points

    async def buckets() -> None:
        async with history.turn():
            await history.buckets(history.find(*any_tag()), began_ns, end_ns, 60 * SECOND_NS)

    async def raw(seconds: int, limit: int) -> None:
        at = dice.randrange(began_ns, max(end_ns - seconds * SECOND_NS, began_ns + 1))
        async with history.turn():
            await history.page(history.find(*any_tag()), at, at + seconds * SECOND_NS, limit)

    questions: dict[str, Callable[[], Awaitable[None]]] = {
        "buckets of a minute": buckets,
        "line of 1,440": lambda: line(1440),
        "line of 300": lambda: line(300),
        "raw hour": lambda: raw(3600, 100_000),
        "raw page of 1,000": lambda: raw(86_400, 1000),
    }

    async def export(name: str) -> tuple[int, int]:
        sizes = 0
        async with history.turn():
            series = [history.find(*any_tag())]
            async for part in exported(history, series, began_ns, end_ns, format_of(name, series)):
                sizes += len(part)
        return sizes, round((end_ns - began_ns) / SECOND_NS)

    figures: Figures = {}
    for name, question in questions.items():
        forget(folder)
        figures[f"{name}, cold"] = (await timed(1, question)).most
        spread = await timed(times, question)
        figures[f"{name}, p50"], figures[f"{name}, p99"] = spread.p50, spread.p99
    for name in ("csv", "parquet"):
        began = time.perf_counter()
        length, values = await export(name)
        figures |= {f"export of a tag, {name}, s": time.perf_counter() - began, f"export of a tag, {name}, bytes a value": length / values}
    return figures


async def measure(folder: Path, devices: list[Device], hours: float, times: int) -> Figures:
    """Write, make, ask. Seconds and bytes."""
    figures: Figures = {}
    began, before = time.monotonic(), cpu_s(os.getpid())
    began_ns = await write(folder, devices, hours)
    figures |= {
        "written s": time.monotonic() - began,
        "written CPU s": cpu_s(os.getpid()) - before,
        "journal bytes": size(folder / "journal"),
    }
    say(figures)
    clock = SystemClock()
    began, before = time.monotonic(), cpu_s(os.getpid())
    async with history_of(folder, clock) as history:
        while history.catching_up:  # noqa: ASYNC110 - what is waited for is seen from outside
            await asyncio.sleep(0.05)
        await history.follower.catch_up()
        values = history.follower.folded
        figures |= {"made s": time.monotonic() - began, "made CPU s": cpu_s(os.getpid()) - before, "values": values}
    async with history_of(folder, clock) as history:
        figures |= {"history bytes": size(folder / "history"), "journal bytes per value": figures["journal bytes"] / max(values, 1)}
        figures["history bytes per value"] = figures["history bytes"] / max(values, 1)
        say(figures)
        figures |= await asked(history, devices, began_ns, time.time_ns(), times, folder)
    return figures


def size(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def say(figures: Figures) -> None:
    sys.stdout.write(json.dumps({name: round(value, 6) for name, value in figures.items()}, indent=1) + "\n")
    sys.stdout.flush()


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.bench.history", description="A day of history, asked.")
    parser.add_argument("--devices", type=int, default=100)
    parser.add_argument("--tags", type=int, default=100)
    parser.add_argument("--hours", type=float, default=24.0)
    parser.add_argument("--asks", type=int, default=50)
    parser.add_argument("--folder", type=Path, default=ROOT / "build" / "bench")
    parser.add_argument("--keep", action="store_true")
    told = parser.parse_args()
    folder = workplace(told.folder, "history-")
    try:
        say(asyncio.run(measure(folder, plant(told.devices, told.tags), told.hours, told.asks)))
    finally:
        if not told.keep:
            shutil.rmtree(folder)


if __name__ == "__main__":
    main()
