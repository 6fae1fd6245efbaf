"""A broker that is killed and forgets everything, alone and together with everything else that may end.

mosquitto runs without persistence: what it had acknowledged and not yet handed on is gone. With ``acknowledge: consumer``
nothing of that may be lost.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Final

from tests.faults import figures
from tests.faults.rig import Plan, Rig, dice, many, rig

KILLS: Final = many(ci=3, long=50)
RECORDS: Final = 100_000 if figures.LONG else 0
"""At least so many come."""
PASSES: Final = many(ci=1, long=25)
LONGEST_AWAY_S: Final = 3.0
BUSY: Final = Plan(devices=30, scan_s=0.05)
"""600 records and 7,200 values a second."""
MOST_IN_FLIGHT: Final = 20
"""Scans of a device that may die with a process; see ``test_kill.py``."""


async def test_a_broker_killed_again_and_again_loses_nothing(tmp_path: Path) -> None:
    """The gateway lives on, so every scan that the field answered comes to the cloud: not one may be missing."""
    chance, began, away = dice("broker killed"), time.monotonic(), 0.0
    async with rig(tmp_path, BUSY) as plant:
        await plant.arrive(500)
        for _ in range(KILLS):
            plant.broker.kill()
            away_s = chance.uniform(0, LONGEST_AWAY_S)
            await asyncio.sleep(away_s)
            away += away_s
            plant.broker.start()
            await plant.arrive(chance.randrange(1, 500))  # little of a backlog or all of it: the next kill may meet it on its way
            await asyncio.sleep(chance.uniform(0, 0.5))
        await plant.arrive(max(1, RECORDS - plant.oracle.records), deadline_s=600)
        verdict = await plant.finish(deadline_s=300)
    assert not verdict.lost
    figures.record(
        "broker-killed",
        kills=KILLS,
        away_s=round(away),
        seconds=round(time.monotonic() - began),
        records=verdict.records,
        values=verdict.values,
        duplicates=verdict.duplicates,
        unread=plant.cloud.unread,
    )


async def test_everything_that_may_end_ends_in_any_order_and_nothing_is_lost(tmp_path: Path) -> None:
    """Outages with a kill in their middle, clean stops, reloads, in random order: every record comes, the ledger balances."""
    chance, began = dice("everything ends"), time.monotonic()
    async with rig(tmp_path) as plant:
        await plant.arrive(100)
        for _ in range(PASSES):
            for harm in chance.sample(HARMS, len(HARMS)):
                await harm(plant, chance)
                await plant.arrive(chance.randrange(1, 200))
        plant.gateway.write(plant.site())
        verdict = await plant.finish(most_in_flight=MOST_IN_FLIGHT, deadline_s=300)
    assert not verdict.lost
    figures.record(
        "everything-ends",
        passes=PASSES,
        lives=plant.lives,
        seconds=round(time.monotonic() - began),
        records=verdict.records,
        values=verdict.values,
        duplicates=verdict.duplicates,
        in_flight=verdict.in_flight,
        longest_in_flight=verdict.longest_in_flight,
    )


async def _outage(plant: Rig, chance: random.Random) -> None:
    plant.set_broker(False)
    await plant.wait_pending(chance.randrange(50, 300))
    plant.set_broker(True)


async def _outage_with_a_death_in_it(plant: Rig, chance: random.Random) -> None:
    plant.set_broker(False)
    await plant.wait_pending(chance.randrange(50, 200))
    await plant.kill()
    await plant.start()
    await plant.wait_pending(chance.randrange(200, 400))
    plant.set_broker(True)


async def _outage_with_a_rest_in_it(plant: Rig, chance: random.Random) -> None:
    plant.set_broker(False)
    await plant.wait_pending(chance.randrange(50, 200))
    await _rest(plant, chance)
    plant.set_broker(True)


async def _death(plant: Rig, _: random.Random) -> None:
    await plant.kill()
    await plant.start()


async def _rest(plant: Rig, _: random.Random) -> None:
    assert await asyncio.to_thread(plant.gateway.stop) == 0, plant.state()
    await plant.start()


async def _reload(plant: Rig, chance: random.Random) -> None:
    document = plant.site()
    document["connections"].pop(chance.randrange(plant.plan.devices))
    await plant.reload(document)
    await plant.arrive(50)
    await plant.reload()


HARMS: Final[tuple[Callable[[Rig, random.Random], Awaitable[None]], ...]] = (
    _outage,
    _outage_with_a_death_in_it,
    _outage_with_a_rest_in_it,
    _death,
    _rest,
    _reload,
)
