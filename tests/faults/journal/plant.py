"""Readings whose content follows from their number, and the one oracle of the journal's fault tests.

Each fault test stores readings, harms the files or the process, opens the journal again without help, and asks
:func:`inspect`, which sees only what a consumer sees: what is delivered, what is said to be lost, and the account.
"""

from __future__ import annotations

import asyncio
import contextlib
import gzip
import logging
import os
import shutil
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from functools import lru_cache
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
PICTURE = Device("c2", "camera", (Tag(name="picture", kind=Kind.BYTES),))
DEVICES = (FLOATS, COUNTS, TEXTS)
PICTURE_BYTES = 15_000
"""More than one frame holds."""
BORN_NS = 1_700_000_000_000_000_000
INSPECTOR = "inspector"
NOTICED = {"segment_damaged", "segment_repaired", "records_rescued", "record_damaged", "records_lost", "records_missing"}
"""Log events that say that something was not as it was written."""

Name = tuple[int, int]
"""(epoch, seq)."""


def reading(number: int) -> Batch:
    """Reading ``number``: its device, slots, values, qualities and times all follow from the number."""
    device = PICTURE if number % 50 == 49 else DEVICES[number % 3]
    count = len(device.tags) - (number % 3 if device is not PICTURE else 0)
    value: NDArray[Any]  # Any: see Batch.value
    if device is FLOATS:
        value = (np.arange(count, dtype=np.float32) * np.float32(0.5) + np.float32(number)).astype(np.float64)
    elif device is COUNTS:
        value = np.arange(count, dtype=np.uint64) + np.uint64(2**63 + number)
    elif device is PICTURE:
        value = np.array([(b"%d." % number * PICTURE_BYTES)[:PICTURE_BYTES]], dtype=np.object_)
    else:
        value = np.array([f"text {number} {n} äöü" for n in range(count)] + [None], dtype=np.object_)[:count]
    return Batch(
        device=device,
        tag=np.arange(count, dtype=np.uint32),
        value=value,
        quality=np.full(count, 0x80000000 if number % 7 == 0 else 0, dtype=np.uint32),
        time_ns=np.arange(count, dtype=np.int64) * (number % 2) + BORN_NS + number,
    )


def number_of(batch: Batch) -> int:
    return int(batch.time_ns[0]) - BORN_NS


def is_true(batch: Batch) -> bool:
    """Whether every bit is as it was appended."""
    number = number_of(batch)
    return 0 <= number < 10**9 and _bits(batch) == _true_bits(number)


def _bits(batch: Batch) -> tuple[object, ...]:
    columns = (batch.tag.tobytes(), batch.quality.tobytes(), batch.time_ns.tobytes(), batch.value.dtype.str)
    value = tuple(batch.value) if batch.value.dtype == np.object_ else batch.value.tobytes()
    return (batch.device.connection, batch.device.name, batch.device.tags, value, *columns)


@lru_cache(maxsize=20_000)
def _true_bits(number: int) -> tuple[object, ...]:
    return _bits(reading(number))


def options(folder: Path, max_bytes: int = 64 * 1024**2, **more: object) -> JournalOptions:
    return JournalOptions(path=str(folder), max_bytes=max_bytes, min_free_bytes=0, **more)  # type: ignore[arg-type]  # by name


# the oracle


@dataclass(slots=True)
class Findings:
    """What an inspection found."""

    numbers: dict[Lane, list[int]] = field(default_factory=dict)
    identities: dict[Lane, dict[int, Name]] = field(default_factory=dict)
    """(epoch, seq) of each number."""
    written: dict[Lane, dict[int, int]] = field(default_factory=dict)
    """When each number was stored, as its record says."""
    gaps: dict[Lane, list[Lost]] = field(default_factory=dict)
    lost: Counter[str] = field(default_factory=Counter)
    """Records by reason, over both lanes."""
    wrong: int = 0
    said: Counter[str] = field(default_factory=Counter)
    """Log events of the journal since it was opened."""
    ledger: Ledger | None = None

    @property
    def noticed(self) -> bool:
        """Whether the journal has found something that was not as it was written."""
        return bool(NOTICED & self.said.keys())

    def account(self, reader: str, lane: Lane = Lane.TELEMETRY) -> int:
        """Records that ``reader`` has acknowledged."""
        assert self.ledger is not None
        lanes = self.ledger.readers.get(reader)
        return lanes[lane].acknowledged if lanes else 0


@dataclass(slots=True)
class Witness:
    """What somebody outside the journal knows of it: which readings ``append`` has confirmed, and what readers were given."""

    stored: dict[Lane, dict[int, Name]] = field(default_factory=lambda: {lane: {} for lane in Lane})
    """Readings whose append returned."""
    meaning: dict[Name, tuple[Lane, int]] = field(default_factory=dict)
    """What each (epoch, seq) that was told or given stands for."""
    names: dict[tuple[Lane, int], Name] = field(default_factory=dict)
    excused: frozenset[str] = frozenset()
    """Reasons for which the journal may give up what it has confirmed: a disk that says it is full costs the oldest segment."""

    def confirm(self, lane: Lane, number: int, name: Name) -> None:
        self.stored[lane][number] = name
        self.give(lane, number, name)

    def give(self, lane: Lane, number: int, name: Name) -> None:
        """A reading was given under a name: it never had another, and the name never meant another, through every crash."""
        assert self.meaning.setdefault(name, (lane, number)) == (lane, number), f"{name} was {self.meaning[name]}, is {lane} {number}"
        assert self.names.setdefault((lane, number), name) == name, f"{lane} {number} was {self.names[lane, number]}, is {name}"

    def judge(self, found: Findings, may_lose: int | None = 0) -> None:
        """All that was confirmed is delivered, or lies in a gap that is said and counted: at most ``may_lose`` readings."""
        for lane in Lane:
            for number, name in found.identities[lane].items():
                self.give(lane, number, name)
            given_up = {seq for gap in found.gaps[lane] if gap.reason in self.excused for seq in range(gap.first, gap.last + 1)}
            kept = {number: name for number, name in self.stored[lane].items() if name[1] not in given_up}
            absent = {number: name for number, name in kept.items() if found.identities[lane].get(number) != name}
            counted = {seq for gap in found.gaps[lane] for seq in range(gap.first, gap.last + 1)}
            silent = [number for number, (_, seq) in absent.items() if seq not in counted]
            assert not silent, f"{lane}: {len(silent)} confirmed readings are neither there nor counted, such as {silent[:5]}"
            assert may_lose is None or len(absent) <= may_lose, f"{lane}: {len(absent)} confirmed readings are lost: {found.gaps[lane]}"


async def inspect(
    folder: Path, clock: Clock | None = None, max_bytes: int = 64 * 1024**2, *, verify_first: bool = False, witness: Witness | None = None
) -> Findings:
    """Open the journal, read everything, check every bit and the account, close it again.

    The journal's half of what ``promises.md`` puts above its table, one by one:

    - *Start-up needs no human*: opening raises nothing and asks for nothing, within a minute.
    - *Every sample whose append returned is delivered at least once or counted*: each seq of a lane is either delivered or lies in
      a gap with a reason, no seq is skipped; what ``witness`` was told is there under its (epoch, seq) (:meth:`Witness.judge`, which
      the caller asks where a fault may cost something).
    - *Order per tag holds*: seqs rise by one, (epoch, seq) rises, and the numbers of the readings rise with them.
    - *No value whose checksum fails is delivered*: every bit of every batch delivered is compared with what was appended.
      A delivered reading that differs is ``wrong``, which no test allows.
    - *Duplicates carry the same (epoch, seq)*: ``witness`` remembers every name given, over every crash.
    - *The ledger balances*: its sums hold, it counts as kept exactly what was delivered, and a reader that begins now
      is told of exactly the gaps that reading showed, by reason.
    - Damage is found by reading as well as by ``verify`` (``verify_first``), and after either nothing is left to find.
    """
    with heard() as said:
        async with asyncio.timeout(60):
            journal = await Journal.open(options(folder, max_bytes), clock=clock or ManualClock())
        try:
            found = await look(journal, verify_first=verify_first)
        finally:
            await journal.close()
    found.said = said
    if witness is not None:
        witness.judge(found)
    return found


async def look(journal: Journal, *, verify_first: bool = False) -> Findings:
    """:func:`inspect` for a journal that is open."""
    if verify_first:
        await journal.verify()
    inspector = journal.reader(INSPECTOR)
    began = {lane: journal._lanes[lane].book.readers[INSPECTOR].start for lane in Lane}
    found = Findings()
    for lane in Lane:
        await _read(journal, lane, found)
        assert found.numbers[lane] == sorted(set(found.numbers[lane])), f"{lane}: order is broken"
    assert found.wrong == 0, f"{found.wrong} wrong readings were delivered"
    report = await journal.verify()
    assert report.ok, f"reading has left something for verify to find: {report}"
    found.ledger = journal.ledger()
    assert_balanced(found.ledger)
    for lane in Lane:
        _agrees(found, lane, began[lane], inspector.head(lane))
    journal.forget(INSPECTOR)
    return found


async def _read(journal: Journal, lane: Lane, found: Findings) -> None:
    numbers, identities = found.numbers.setdefault(lane, []), found.identities.setdefault(lane, {})
    written, gaps = found.written.setdefault(lane, {}), found.gaps.setdefault(lane, [])
    at, before = 1, (0, 0)
    while at < journal.head(lane):
        entries = await journal.read(lane, at, max_records=500, max_bytes=1 << 20)
        assert entries, f"{lane}: nothing at {at} though the head is {journal.head(lane)}"
        assert len({each.epoch for each in entries}) == 1
        for each in entries:
            first = each.seq if isinstance(each, Record) else each.first
            assert first == at, f"{lane}: {first} follows {at - 1}"
            assert (each.epoch, first) > before, f"{lane}: {(each.epoch, first)} follows {before}"
            before = (each.epoch, first)
            if isinstance(each, Lost):
                gaps.append(each)
                found.lost[each.reason] += each.records
                at = each.last + 1
                continue
            at += 1
            found.wrong += not is_true(each.batch)
            number = number_of(each.batch)
            numbers.append(number)
            identities[number] = before
            written[number] = each.written_ns


def _agrees(found: Findings, lane: Lane, began: int, head: int) -> None:
    """The account tells of a lane what reading it has shown."""
    assert found.ledger is not None
    of_lane, account = found.ledger.lanes[lane], found.ledger.readers[INSPECTOR][lane]
    assert of_lane.kept == len(found.numbers[lane]), f"{lane}: {len(found.numbers[lane])} were delivered of {of_lane}"
    if of_lane.unwritten or account.appended != head - began:
        return  # more has come while this was read
    seen: Counter[str] = Counter()
    for gap in found.gaps[lane]:
        if gap.last >= began:
            seen[gap.reason] += gap.last + 1 - max(gap.first, began)
    told = Counter(account.dropped) + Counter(quarantined=account.quarantined)
    assert told == seen, f"{lane}: the account tells {told}, reading has shown {seen}"
    assert account.pending == sum(seq >= began for _, seq in found.identities[lane].values()), lane


def assert_balanced(ledger: Ledger) -> None:
    for lane, each in ledger.lanes.items():
        assert each.appended == each.kept + each.unwritten + each.retired + sum(each.dropped.values()) + each.quarantined, lane
        assert min(each.kept, each.unwritten, each.retired, each.quarantined, 0) == 0, (lane, each)
    for name, lanes in ledger.readers.items():
        for lane, account in lanes.items():
            settled = account.acknowledged + sum(account.dropped.values()) + account.quarantined
            assert account.appended == settled + account.pending, (name, lane, account)
            assert account.pending >= 0, (name, lane, account)


@contextlib.contextmanager
def heard() -> Iterator[Counter[str]]:
    """The names of the journal's log events while this is open."""
    events: Counter[str] = Counter()

    class Ear(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            events[record.getMessage().split("'")[1]] += 1

    ear, logger = Ear(), logging.getLogger("holdfast.journal")
    logger.addHandler(ear)
    level = logger.level
    logger.setLevel(logging.INFO)
    try:
        yield events
    finally:
        logger.removeHandler(ear)
        logger.setLevel(level)


# the plant


async def fill(journal: Journal, first: int, count: int, lane: Lane = Lane.TELEMETRY, group: int = 20) -> None:
    """Store readings ``first`` on, ``group`` to a commit; return when all are durable."""
    await store(journal, range(first, first + count), lane, group)


async def store(journal: Journal, numbers: Iterable[int], lane: Lane = Lane.TELEMETRY, group: int = 20) -> None:
    """Store these readings, ``group`` to a commit; return when all are durable."""
    numbers = list(numbers)
    for at, number in enumerate(numbers):
        if at % group == group - 1 or at == len(numbers) - 1:
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


class Victim:
    """A journal's folder, kept in memory and laid out anew for each case.

    The files keep their inodes from case to case, as files do that rot where they lie: a clean stop writes its file's
    inode down, and a copy would be taken for an unclean end.
    """

    def __init__(self, folder: Path, home: Path, name: str) -> None:
        self.name = name
        self.folder = home / "case"
        self.content = {
            path.relative_to(folder): path.read_bytes()
            for path in folder.rglob("*")
            if path.is_file() and path.name not in ("lock", "reserve")
        }
        self._anchors = home / f"{name}-anchors"
        for path in self.content:
            anchor = self._anchors / path
            anchor.parent.mkdir(parents=True, exist_ok=True)
            (folder / path).rename(anchor)

    @property
    def segments(self) -> list[Path]:
        """Files with records in them, relative to the folder."""
        return sorted(path for path, content in self.content.items() if ".seg" in path.name and content)

    def lay(self, name: Path | None = None, harmed: bytes = b"", without: str = "") -> Path:
        """All files as they were, but that the one called ``name`` holds ``harmed``, and the one called ``without`` is not there."""
        if self.folder.exists():
            shutil.rmtree(self.folder)
        for path, content in self.content.items():
            to = self.folder / path
            to.parent.mkdir(parents=True, exist_ok=True)
            (self._anchors / path).write_bytes(harmed if path == name else content)
            if path.name != without:
                os.link(self._anchors / path, to)
        return self.folder


def unpacked(case: Path, to: Path) -> Path:
    """The journal that a folder of ``tests/cases`` keeps, laid out: ``lane__name.gz`` becomes ``lane/name``."""
    for path in case.glob("*.gz"):
        file = to / path.name.removesuffix(".gz").replace("__", "/")
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(gzip.decompress(path.read_bytes()))
    return to
