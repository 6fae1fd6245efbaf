"""The power goes at a random instant, under the whole gateway, while 1,200 values a second arrive.

The journal lies on an ext4 of its own, which is unmounted and mounted again after each cut; how process and disk lose their power in
the same moment stands in ``tests/peers/disk.py``.
"""

from __future__ import annotations

import asyncio
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
    durable, inside = 1, 0
    with disk(tmp_path, MEGABYTES) as power:
        async with rig(tmp_path, Plan(journal=power.mount / "journal", change=_small)) as plant:
            await plant.arrive(100)
            await _cut(plant, power)
            for _ in range(CUTS):
                plant.broker_goes_or_comes(chance, goes=BROKER_GOES, comes=BROKER_COMES)
                await plant.launch()
                if chance.random() < STARTING:
                    await asyncio.sleep(chance.uniform(0, 0.8))
                    inside += await _cut(plant, power)
                    continue
                scans.append(await plant.first_scan())
                durable = await _still_there(plant, durable)
                await asyncio.sleep(chance.expovariate(1 / 0.3))
                durable = await _still_there(plant, durable)
                if plant.broker_runs and chance.random() < STRIKING:
                    await plant.strike(signal.SIGSTOP)
                else:
                    await asyncio.sleep(chance.uniform(0, 0.03))
                inside += await _cut(plant, power)
            plant.set_broker(True)
            await plant.start()
            await plant.arrive(200)
            await _still_there(plant, durable)
            verdict = await plant.finish(most_in_flight=MOST_IN_FLIGHT, deadline_s=300)
    assert not verdict.lost
    figures.record(
        "power-cuts",
        cuts=CUTS,
        inside_a_call=inside,
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


async def _cut(plant: Rig, power: Disk) -> bool:
    """The power goes; whether a call to the disk was cut off in its middle."""
    inside = power.cut_under(plant.gateway.pid)
    await plant.kill()
    await asyncio.to_thread(power.restore)
    return inside


async def _still_there(plant: Rig, durable: int) -> int:
    """The gateway's own word on how far it has stored, which must never go back."""
    head: int = (await plant.stat())["lanes"]["telemetry"]["head"]
    assert head >= durable, f"the journal had told that everything before {durable} is durable; now it ends before {head}"
    return head
