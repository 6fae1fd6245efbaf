"""The power goes at a random instant, under the whole gateway, while 1,200 values a second arrive.

The journal lies on an ext4 of its own, which is shut down without writing anything more, not even its own log, then unmounted
and mounted again. Real power takes process and disk at once. Here the process is frozen first: a stopped thread runs nothing of its own
any more, so whatever a system call answers from then on (ext4 in shutdown may call an fsync good that it has thrown away)
is never heard by anybody. Threads inside of a system call stay in it: an fsync is cut off in its middle.
"""

from __future__ import annotations

import asyncio
import os
import signal
import time
from pathlib import Path
from typing import Any, Final

from tests.faults import figures
from tests.faults.rig import Plan, Rig, dice, many, rig, spread
from tests.peers.disk import Disk, disk

CUTS: Final = many(ci=50, long=1000)
MEGABYTES: Final = 192
STARTING: Final = 0.25
"""The share of cuts that meet a start: the one after another cut, so a journal that is being mended."""
STRIKING: Final = 0.3
"""The share of cuts that come in the moment when a record comes to the cloud."""
BROKER_GOES, BROKER_COMES = 0.15, 0.4
MOST_IN_FLIGHT: Final = 20
"""Scans of a device that may go with the power: those not yet durable. See ``test_kill.py``; loop devices are slower."""


async def test_power_cut_again_and_again_takes_nothing_that_was_stored(tmp_path: Path) -> None:
    """What the cloud had before a cut is still the same record after it, what was durable comes, and nobody has to mend anything."""
    chance, began = dice("power"), time.monotonic()
    scans: list[float] = []
    durable = 1
    with disk(tmp_path, MEGABYTES) as power:
        async with rig(tmp_path, Plan(journal=power.mount / "journal", change=_small)) as plant:
            await plant.arrive(100)
            await _cut(plant, power)
            for _ in range(CUTS):
                plant.broker_goes_or_comes(chance, goes=BROKER_GOES, comes=BROKER_COMES)
                await plant.launch()
                if chance.random() < STARTING:
                    await asyncio.sleep(chance.uniform(0, 0.8))
                    await _cut(plant, power)
                    continue
                scans.append(await plant.first_scan())
                durable = await _still_there(plant, durable)
                await asyncio.sleep(chance.expovariate(1 / 0.3))
                durable = await _still_there(plant, durable)
                if plant.broker_runs and chance.random() < STRIKING:
                    await plant.strike(signal.SIGSTOP)
                else:
                    await asyncio.sleep(chance.uniform(0, 0.03))
                await _cut(plant, power)
            plant.set_broker(True)
            await plant.start()
            await plant.arrive(200)
            await _still_there(plant, durable)
            verdict = await plant.finish(most_in_flight=MOST_IN_FLIGHT, deadline_s=300)
    assert not verdict.lost
    figures.record(
        "power-cuts",
        cuts=CUTS,
        seconds=round(time.monotonic() - began),
        records=verdict.records,
        values=verdict.values,
        duplicates=verdict.duplicates,
        in_flight=verdict.in_flight,
        longest_in_flight=verdict.longest_in_flight,
        **spread("first_scan", scans),
    )


def _small(document: dict[str, Any]) -> None:  # Any: JSON
    document["journal"] |= {"max_bytes": 128 * 1024**2, "min_free_bytes": 0}


async def _cut(plant: Rig, power: Disk) -> None:
    """Freeze, cut, and only then kill: what the gateway hears after the cut it can tell nobody."""
    os.kill(plant.gateway.pid, signal.SIGSTOP)
    await plant.until("every thread stands still", lambda: _stands_still(plant.gateway.pid))
    await asyncio.to_thread(power.cut)
    await plant.kill()
    await asyncio.to_thread(power.restore)


def _stands_still(pid: int) -> bool:
    """Each thread is stopped, or in a system call that cannot be interrupted: behind it, it stops."""
    threads = Path(f"/proc/{pid}/task").iterdir()
    return all((thread / "stat").read_text().rpartition(") ")[2][0] in "TtD" for thread in threads)


async def _still_there(plant: Rig, durable: int) -> int:
    """The gateway's own word on how far it has stored, which must never go back."""
    head: int = (await plant.stat())["lanes"]["telemetry"]["head"]
    assert head >= durable, f"the journal had told that everything before {durable} is durable; now it ends before {head}"
    return head
