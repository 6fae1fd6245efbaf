"""A slow disk hurts no scan: every fsync 200 ms slower, and one stall of ten seconds.

99.9 % of the scans begin on time (less than half a period late), by the gateway's own histogram and by the field's count of
scans; nothing is lost; what waits for the disk in memory stays small. The delay is made at the system call by strace, which
also writes down that it happened.
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any, Final

from tests.faults.figures import LONG, record
from tests.faults.rig import Plan, Rig, rig
from tests.faults.watch import Watch, port_for_metrics
from tests.peers.strace import Strace

PROMISED: Final = 0.999
SCAN_S: Final = 0.5
ON_TIME_S: Final = 0.2
"""The bound of the histogram next below half a period."""
DEVICES: Final = 50
MOST_GROWTH: Final = 100 * 1024**2
"""Of memory: what may wait for the disk, and what is kept for readers."""
SLOW_S: Final = 300.0 if LONG else 12.0
DELAY_S: Final = 0.2
STALL_S: Final = 10.0
STALLS: Final = 12 if LONG else 1
STALL_AT: Final = 40
"""The first sync that stalls; more stall after as many again."""


def plan(trace: Strace, port: int) -> Plan:
    def change(document: dict[str, Any]) -> None:  # Any: JSON
        document["telemetry"] = {"metrics_port": port}

    return Plan(devices=DEVICES, scan_s=SCAN_S, prefix=trace.prefix, change=change)


async def on_time(name: str, plant: Rig, watch: Watch, scans: float, trace: Strace, **more: float) -> None:
    """Let the field be scanned so often, then judge and write down."""
    began, rounds, before = time.monotonic(), sum(await plant.field.rounds()), await watch.punctuality()
    memory, starved_s = watch.most_bytes, watch.starved_s
    await watch.scanned(scans, 10 * scans / plant.records_per_s)
    took_s, rounds = time.monotonic() - began, sum(await plant.field.rounds()) - rounds
    seen = (await watch.punctuality()).since(before)
    starved_s = watch.starved_s - starved_s
    due = ((took_s - starved_s) / SCAN_S - 1) * DEVICES
    share = seen.share(ON_TIME_S) + starved_s / took_s
    await watch.stop()
    await plant.drained()
    harmed = trace.harmed()
    verdict = await plant.finish()
    record(
        f"slow disk: {name}",
        seconds=round(took_s, 1),
        scans=rounds,
        on_time=round(seen.share(ON_TIME_S), 5),
        lateness_p99_s=seen.p99_s(),
        missed=seen.missed,
        starved_s=round(starved_s, 2),
        delayed_calls=harmed,
        memory_mb=round(watch.most_bytes / 1e6),
        growth_mb=round((watch.most_bytes - memory) / 1e6),
        slowest_answer_s=round(watch.slowest_s, 2),
        received=verdict.records,
        **more,
    )
    assert share >= PROMISED, f"{seen} of {rounds} scans; {starved_s=:.1f}"
    assert rounds >= PROMISED * due, f"the field was scanned {rounds} times in {took_s:.1f} s, {due:.0f} were due"
    assert watch.most_bytes - memory < MOST_GROWTH
    assert verdict.lost == {}


async def test_every_sync_is_slow(tmp_path: Path) -> None:
    """200 ms more for each fsync and fdatasync, for good."""
    trace = Strace(tmp_path / "trace", "fsync,fdatasync", f"delay_enter={DELAY_S * 1e6:.0f}")
    port = port_for_metrics()
    async with rig(tmp_path, plan(trace, port)) as plant:
        await plant.arrive(2 * DEVICES)
        async with Watch(plant, port) as watch:
            await on_time("each sync +200 ms", plant, watch, SLOW_S * plant.records_per_s, trace)
    syncs = [call for call in trace.calls() if call.name in ("fsync", "fdatasync")]
    assert all(call.injected for call in syncs)
    assert len(syncs) >= 2 * SLOW_S, "there were hardly any syncs: nothing was slow"


async def test_the_disk_stalls_for_ten_seconds(tmp_path: Path) -> None:
    """One fdatasync in the midst of things takes ten seconds (in the long campaign one of forty does, again and again)."""
    when = f"{STALL_AT}+{STALL_AT}" if LONG else f"{STALL_AT}"
    trace = Strace(tmp_path / "trace", "fdatasync", f"delay_enter={STALL_S * 1e6:.0f}:when={when}")
    port = port_for_metrics()
    async with rig(tmp_path, plan(trace, port)) as plant:
        await plant.arrive(DEVICES)
        async with Watch(plant, port) as watch:
            seconds = STALLS * (STALL_S + STALL_AT * 0.05) + 4
            await on_time("a stall of 10 s", plant, watch, seconds * plant.records_per_s, trace)
    stalls = [call for call in trace.calls() if call.injected]
    assert len(stalls) >= STALLS // 2 + 1, "nothing stalled: the test tests nothing"
    assert all(call.took_s >= STALL_S for call in stalls)
