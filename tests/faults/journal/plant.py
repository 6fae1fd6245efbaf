"""Readings whose content follows from their number, and an inspection that finds every wrong, absent or uncounted one.

Each fault test stores readings, harms the files, opens the journal again without help, and asks :func:`inspect`.
"""

from __future__ import annotations

import os
import shutil
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gateway.config.model import JournalOptions
from gateway.journal import Journal, Lane, Ledger, Lost, Record
from protocols.clock import Clock, ManualClock
from protocols.model import Batch, Device, Kind, Tag

LONG = os.environ.get("HOLDFAST_CAMPAIGN") == "long"
"""Run the promised number of cases instead of what suits every change."""

FLOATS = Device("c1", "boiler", tuple(Tag(name=f"float/{n}", kind=Kind.FLOAT32, unit="bar") for n in range(40)))
COUNTS = Device("c1", "meter", tuple(Tag(name=f"count/{n}", kind=Kind.UINT64) for n in range(20)))
TEXTS = Device("c2", "panel", tuple(Tag(name=f"text/{n}", kind=Kind.STRING) for n in range(3)))
DEVICES = (FLOATS, COUNTS, TEXTS)


def reading(number: int) -> Batch:
    """Reading ``number``: its device, slots, values, qualities and times all follow from the number."""
    device = DEVICES[number % 3]
    count = len(device.tags) - number % 3
    value: NDArray[Any]  # Any: see Batch.value
    if device is FLOATS:
        value = (np.arange(count, dtype=np.float32) * np.float32(0.5) + np.float32(number)).astype(np.float64)
    elif device is COUNTS:
        value = np.arange(count, dtype=np.uint64) + np.uint64(2**63 + number)
    else:
        value = np.array([f"text {number} {n} äöü" for n in range(count)] + [None], dtype=np.object_)[:count]
    return Batch(
        device=device,
        tag=np.arange(count, dtype=np.uint32),
        value=value,
        quality=np.full(count, 0x80000000 if number % 7 == 0 else 0, dtype=np.uint32),
        time_ns=np.arange(count, dtype=np.int64) * (number % 2) + 1_700_000_000_000_000_000 + number,
    )


def number_of(batch: Batch) -> int:
    return int(batch.time_ns[0]) - 1_700_000_000_000_000_000


def is_true(batch: Batch) -> bool:
    """Whether every bit is as it was appended."""
    number = number_of(batch)
    if not 0 <= number < 10**9:
        return False
    other = reading(number)
    return (
        batch.device.name == other.device.name
        and batch.device.tags == other.device.tags
        and batch.tag.tobytes() == other.tag.tobytes()
        and batch.value.tolist() == other.value.tolist()
        and batch.quality.tobytes() == other.quality.tobytes()
        and batch.time_ns.tobytes() == other.time_ns.tobytes()
    )


def options(folder: Path, max_bytes: int = 64 * 1024**2, **more: object) -> JournalOptions:
    return JournalOptions(path=str(folder), max_bytes=max_bytes, min_free_bytes=0, **more)  # type: ignore[arg-type]  # by name


@dataclass(slots=True)
class Findings:
    """What an inspection found."""

    numbers: dict[Lane, list[int]] = field(default_factory=dict)
    identities: dict[Lane, dict[int, tuple[int, int]]] = field(default_factory=dict)
    """(epoch, seq) of each number."""
    lost: dict[str, int] = field(default_factory=dict)
    """Records by reason, over both lanes."""
    wrong: int = 0
    ledger: Ledger | None = None
    repaired: int = 0


async def inspect(folder: Path, clock: Clock | None = None, max_bytes: int = 64 * 1024**2) -> Findings:
    """Open the journal, read everything, check every bit and the ledger, close it again."""
    journal = await Journal.open(options(folder, max_bytes), clock=clock or ManualClock())
    try:
        return await look(journal)
    finally:
        await journal.close()


async def look(journal: Journal) -> Findings:
    found = Findings()
    reader = journal.reader("cloud")
    for lane in Lane:
        numbers = found.numbers[lane] = []
        found.identities[lane] = {}
        at, before = 1, (0, 0)
        while at < reader.head(lane):
            entries = await reader.read(lane, at, max_records=500, max_bytes=1 << 20)
            assert entries, f"{lane}: nothing at {at} though the head is {reader.head(lane)}"
            assert len({each.epoch for each in entries}) == 1
            for each in entries:
                first = each.seq if isinstance(each, Record) else each.first
                assert first == at, f"{lane}: {first} follows {at - 1}"
                if isinstance(each, Lost):
                    found.lost[each.reason] = found.lost.get(each.reason, 0) + each.records
                    at = each.last + 1
                    continue
                at += 1
                assert (each.epoch, each.seq) > before
                before = (each.epoch, each.seq)
                found.wrong += not is_true(each.batch)
                numbers.append(number_of(each.batch))
                found.identities[lane][number_of(each.batch)] = (each.epoch, each.seq)
        assert numbers == sorted(numbers), f"{lane}: order is broken"
    report = await journal.verify()
    assert report.ok, f"reading has left something for verify to find: {report}"
    found.ledger = journal.ledger()
    assert_balanced(found.ledger)
    return found


def assert_balanced(ledger: Ledger) -> None:
    for lane, each in ledger.lanes.items():
        assert each.appended == each.kept + each.unwritten + each.retired + sum(each.dropped.values()) + each.quarantined, lane
        assert min(each.kept, each.unwritten, each.retired, each.quarantined, 0) == 0, (lane, each)
    for name, lanes in ledger.readers.items():
        for lane, account in lanes.items():
            settled = account.acknowledged + sum(account.dropped.values()) + account.quarantined
            assert account.appended == settled + account.pending, (name, lane, account)
            assert account.pending >= 0, (name, lane, account)


async def fill(journal: Journal, first: int, count: int, lane: Lane = Lane.TELEMETRY, group: int = 20) -> None:
    """Store readings ``first`` on, ``group`` to a commit; return when all are durable."""
    for number in range(first, first + count):
        if (number - first) % group == group - 1 or number == first + count - 1:
            await journal.append(reading(number), lane)
        else:
            journal.offer(reading(number), lane)


def copied(folder: Path, to: Path) -> Path:
    """The files as they are now: what a killed process leaves."""
    if to.exists():
        shutil.rmtree(to)
    shutil.copytree(folder, to)
    return to


def files(folder: Path) -> list[Path]:
    """All files with records in them."""
    return sorted(path for path in folder.rglob("*.seg*") if path.stat().st_size)
