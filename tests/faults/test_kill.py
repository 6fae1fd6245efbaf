"""SIGKILL of the gateway at a random instant: in start-up, in recovery, in mid-scan, while a backlog drains, while it reloads.

One plant, many lives of the gateway. Nobody tells the gateway or the cloud what happened; the cloud's account and the
field's numbers of its scans say at the end whether anything is missing.
"""

from __future__ import annotations

import asyncio
import os
import random
import signal
import time
from pathlib import Path
from typing import Final

from tests.faults import figures
from tests.faults.rig import Rig, dice, many, rig, spread

KILLS: Final = many(ci=50, long=1000)
STARTING: Final = 0.3
"""The share of lives that end in start-up, which takes about half a second."""
STRIKING: Final = 0.3
"""The share of kills that come in the moment when a record comes to the cloud."""
BROKER_GOES, BROKER_COMES, RELOADS = 0.12, 0.4, 0.1
"""How likely each is in one life."""
RESTART_S: Final = 5.0
"""The promise for the 99th percentile of the time to the first scan, less what a machine busy with others makes it wait for a processor."""
MOST_IN_FLIGHT: Final = 20
"""Scans of a device that may die with a process: those not yet durable. The answer is offered at once, gathered for 20 ms at most and
stored behind one commit that runs: one or two scans of 0.1 s as long as an fsync takes less than that. 20 are an fsync of two seconds."""


async def test_a_gateway_killed_again_and_again_loses_nothing_that_it_stored(tmp_path: Path) -> None:
    """Whatever was appended comes, once or again under the same name; each life costs a device at most its last scans; it needs nobody."""
    chance, began = dice("kill"), time.monotonic()
    scans: list[float] = []
    waits: list[float] = []
    records: list[float] = []
    async with rig(tmp_path) as plant:
        await plant.arrive(100)
        await plant.kill()
        for _ in range(KILLS):
            plant.broker_goes_or_comes(chance, goes=BROKER_GOES, comes=BROKER_COMES)
            await plant.launch()
            if chance.random() < STARTING:
                await asyncio.sleep(chance.uniform(0, 0.8))
                await plant.kill()
                continue
            scans.append(await plant.first_scan())
            waits.append(plant.waited_s())
            if plant.broker_runs and chance.random() < 0.5:
                records.append(await plant.first_record())
            if chance.random() < RELOADS:
                _reload(plant, chance)
            await asyncio.sleep(chance.expovariate(1 / 0.3))
            if plant.broker_runs and chance.random() < STRIKING:
                await plant.strike(signal.SIGKILL)
                await asyncio.to_thread(plant.gateway.kill)
            else:
                await plant.kill()
        await _heal(plant)
        verdict = await plant.finish(most_in_flight=MOST_IN_FLIGHT, deadline_s=300)
    assert not verdict.lost
    own = spread("own", [scan - wait for scan, wait in zip(scans, waits, strict=True)])
    figures.record(
        "kills",
        kills=KILLS,
        seconds=round(time.monotonic() - began),
        records=verdict.records,
        values=verdict.values,
        duplicates=verdict.duplicates,
        in_flight=verdict.in_flight,
        longest_in_flight=verdict.longest_in_flight,
        **spread("first_scan", scans),
        **own,
        **spread("first_record", records),
    )
    if figures.LONG and own:
        assert own["own_p99_s"] <= RESTART_S


def _reload(plant: Rig, chance: random.Random) -> None:
    """Take one device away, or bring all back, and wait for nothing: the kill may come in the middle."""
    document = plant.site()
    if chance.random() < 0.7:
        document["connections"].pop(chance.randrange(plant.plan.devices))
    plant.lives += 1  # a connection that is taken away may take the scan along whose answer is on its way
    plant.gateway.write(document)
    os.kill(plant.gateway.pid, signal.SIGHUP)


async def _heal(plant: Rig) -> None:
    """Everything runs again, and everything configured is read."""
    plant.set_broker(True)
    plant.gateway.write(plant.site())
    await plant.start()
    await plant.arrive(200)
