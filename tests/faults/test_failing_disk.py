"""A disk that fails at the n-th call under the whole gateway: nothing counts as stored after a failed sync.

strace fails chosen system calls of the gateway, again and again in one life; then the power is cut, so that nothing is there but
what was really synced. Afterwards the gateway starts on a disk that works, and must deliver whatever it had ever told to be
durable, published or not. And strace's own record shows that a file whose sync or write failed was never written again: the
kernel tells a failed write-back once and takes the lost pages for clean, so that a second sync would prove nothing.
"""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import Any, Final

import pytest

from tests.faults.figures import LONG, record
from tests.faults.rig import Plan, Rig, dice, rig
from tests.peers.disk import disk
from tests.peers.strace import Call, Strace

STEP: Final = 50
"""In one life the calls n, n + STEP, n + 2 STEP ... fail: with every n up to STEP, every n there is."""
MOST_IN_FLIGHT: Final = 120
"""Scans of a device that may wait for a disk that fails, and go with the power: six seconds."""
FAILURES: Final = 4

CASES: Final = (
    ("fdatasync", "EIO"),
    ("fdatasync", "ENOSPC"),
    ("fsync", "EIO"),
    ("pwrite64", "EIO"),
    ("pwrite64", "ENOSPC"),
    ("ftruncate", "EIO"),
)
RARE: Final = {"fsync": (4, 5), "ftruncate": (1, 1)}
"""Calls that are hardly made but at start: which of them fails, once. (The first three fsyncs open the folders: without them nothing runs,
and each further try is a thread of its own, for which strace counts anew.)"""


def plan(journal: Path, prefix: tuple[str, ...] = ()) -> Plan:
    def change(document: dict[str, Any]) -> None:  # Any: JSON
        document["journal"] |= {"max_bytes": 64 * 1024**2, "min_free_bytes": 0}

    return Plan(scan_s=0.05, tags=20, journal=journal, prefix=prefix, change=change)


def failing(call: str) -> list[int]:
    """Which n, one life each."""
    first, last = RARE.get(call, (1, STEP))
    return list(range(first, last + 1)) if LONG else [dice(f"{call} fails").randint(first, last)]


@pytest.mark.parametrize(("call", "error"), CASES)
async def test_the_nth_call_fails_and_the_power_goes(tmp_path: Path, call: str, error: str) -> None:
    """Whatever was told to be durable comes; a segment whose sync or write failed is never written again."""
    harmed = kept = received = 0
    lives = failing(call)
    for at in lives:
        folder = tmp_path / str(at)
        folder.mkdir()
        trace = Strace(folder / "trace", call, f"error={error}:when={at}" + ("" if call in RARE else f"+{STEP}"), watched="pwrite64,unlink")
        with disk(folder, 96) as power:
            async with rig(folder, plan(power.mount / "journal", trace.prefix)) as plant:
                await plant.arrive(100)
                await enough(plant, trace, 1 if call in RARE else FAILURES)
                plant.broker.kill()
                await plant.wait_pending(100)
                head = await durable(plant)
                power.cut()
                await plant.kill()
                power.restore()
                written_after_failure(list(trace.calls()), error)
                harmed += trace.harmed()
                await back(plant, head)
                received += await judged(plant)
                kept += head - 1
    record(f"failing disk: {call} {error}", lives=len(lives), failed_calls=harmed, told_durable=kept, received=received)


async def enough(plant: Rig, trace: Strace, failures: int) -> None:
    await plant.until(f"{failures} calls failed", lambda: trace.harmed() >= failures, 60)
    await plant.arrive(50)


async def durable(plant: Rig) -> int:
    """The seq after the last record of which the gateway says that it survives a power cut."""
    return int((await plant.stat())["lanes"]["telemetry"]["head"])


async def back(plant: Rig, head: int) -> int:
    """Start on a disk that works; everything before ``head`` must come. Records that came."""
    plant.gateway.prefix = ()
    plant.broker.start()
    await plant.start()
    came: set[int] = set()

    def all_came() -> bool:
        came.update(seq for (lane, _), line in plant.oracle.lines.items() if lane == "telemetry" for seq in line.had)
        return came.issuperset(range(1, head))

    with contextlib.suppress(AssertionError):
        await plant.until("everything came", all_came, 30)
    absent = sorted(set(range(1, head)) - came)
    assert not absent, f"{len(absent)} records that were told to be durable never came: {absent[:5]}; {plant.state()}"
    return plant.oracle.records


async def judged(plant: Rig) -> int:
    """Records that came; nothing may be counted as lost."""
    verdict = await plant.finish(most_in_flight=MOST_IN_FLIGHT)
    assert verdict.lost == {}
    return verdict.records


def written_after_failure(calls: list[Call], error: str) -> None:
    """After a failed sync nobody knows what a file holds: it is never written again. (No space is no such failure for a write.)"""
    broken: set[str] = set()
    for call in calls:
        if not call.path.endswith((".seg", ".seg-wal")):
            continue
        if call.name == "unlink" and call.result == 0:
            broken.discard(call.path)  # the next of this name is another file
        assert not (call.name == "pwrite64" and call.path in broken), f"{call.path} was written after its sync had failed"
        if call.result < 0 and (call.name in ("fsync", "fdatasync") or (call.name == "pwrite64" and error == "EIO")):
            broken.add(call.path)
