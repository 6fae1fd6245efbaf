"""A full disk under the whole gateway: by the journal itself, by a foreign writer, in space or in names, running or at start.

Scanning goes on, ledger and metrics answer, every scan of the field came or is counted, to the record; it heals by itself
within a minute. Each case is one life of the gateway where nothing else is said. ``HOLDFAST_CAMPAIGN=long`` makes each last longer.
"""

from __future__ import annotations

import asyncio
import random
import shutil
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, Final, Literal

import pytest

from gateway.control import SOCKET
from tests.faults.figures import LONG, record
from tests.faults.oracle import Verdict
from tests.faults.rig import Plan, Rig, dice, rig
from tests.faults.watch import Watch, port_for_metrics, punctuality
from tests.peers.disk import Disk, disk

MEGABYTE: Final = 1024**2
HEAL_S: Final = 60.0
"""The promise."""
ON_TIME_S: Final = 0.05
"""Half a period."""
DEVICES: Final = 40
HOLD_S: Final = 60.0 if LONG else 3.0
"""How long the disk stays full, in the field's time."""
ROUNDS: Final = 60 if LONG else 5

Policy = Literal["drop-oldest", "drop-newest"]
both = pytest.mark.parametrize("policy", ["drop-oldest", "drop-newest"])


def plan(small: Disk, policy: Policy, metrics_port: int, max_bytes: int = 16 * MEGABYTE, devices: int = DEVICES) -> Plan:
    """Whoever refuses the newest refuses it while free space is left; whoever drops the oldest goes to the last byte."""
    spare = MEGABYTE if policy == "drop-newest" else 0

    def change(document: dict[str, Any]) -> None:  # Any: JSON
        document["journal"] |= {"max_bytes": max_bytes, "min_free_bytes": spare, "when_full": policy}
        document["telemetry"] = {"metrics_port": metrics_port}

    return Plan(devices=devices, tags=40, journal=small.mount / "journal", change=change)


@asynccontextmanager
async def watched(folder: Path, small: Disk, policy: Policy, max_bytes: int = 16 * MEGABYTE) -> AsyncIterator[tuple[Rig, Watch]]:
    """A plant whose journal lies on ``small``, delivering, and somebody who asks it all the time."""
    port = port_for_metrics()
    async with rig(folder, plan(small, policy, port, max_bytes)) as plant:
        await plant.arrive(2 * DEVICES)
        async with Watch(plant, port) as watch:
            yield plant, watch


class Account:
    """What a case measured, judged at its end."""

    def __init__(self, name: str, plant: Rig, watch: Watch) -> None:
        self.name, self.plant, self.watch = name, plant, watch

    async def begin(self) -> None:
        self._at, self._rounds, self._before = time.monotonic(), sum(await self.plant.field.rounds()), await self.watch.punctuality()
        self._starved_s = self.watch.starved_s

    async def end(self) -> None:
        """The fault is over: scanning went on all the while, by the field's account and by the gateway's."""
        took_s, rounds = time.monotonic() - self._at, sum(await self.plant.field.rounds()) - self._rounds
        self.seen = (await self.watch.punctuality()).since(self._before)
        self.scans, self.full_s, self.starved_s = rounds, took_s, self.watch.starved_s - self._starved_s
        due = ((took_s - self.starved_s) / self.plant.plan.scan_s - 1) * self.plant.plan.devices
        assert rounds >= 0.95 * due, f"the field was scanned {rounds} times in {took_s:.1f} s, {due:.0f} were due; {self.starved_s=:.1f}"

    def judge(self, verdict: Verdict, healing_s: float, **more: float | str) -> None:
        record(
            f"disk full: {self.name}",
            full_s=round(self.full_s, 1),
            scans_while_full=self.scans,
            on_time=round(self.seen.share(ON_TIME_S), 5),
            lateness_p99_s=self.seen.p99_s(),
            missed=self.seen.missed,
            starved_s=round(self.starved_s, 2),
            answers=self.watch.answers,
            slowest_answer_s=round(self.watch.slowest_s, 2),
            healing_s=round(healing_s, 2),
            received=verdict.records,
            duplicates=verdict.duplicates,
            absent=verdict.absent,
            unconfirmed=verdict.unconfirmed,
            dropped=sum(verdict.lost.values()),
            **more,
        )


def exact(verdict: Verdict, dropped: int) -> None:
    """Every scan that never came is counted, and nothing is counted that came and was confirmed."""
    assert verdict.absent + verdict.unconfirmed == dropped, f"{verdict}; the ledger counts {dropped} dropped"
    assert sum(verdict.lost.values()) == dropped, f"the cloud was told of {verdict.lost}, the ledger counts {dropped} dropped"


async def dropped(plant: Rig) -> int:
    return sum((await plant.ledger())["dropped"].values())


async def finished(plant: Rig, watch: Watch) -> Verdict:
    """Drained, stopped and judged, to the record."""
    await watch.stop()
    await plant.drained(4 * HEAL_S if LONG else HEAL_S)
    lost = await dropped(plant)
    verdict = await plant.finish(deadline_s=HEAL_S)
    exact(verdict, lost)
    return verdict


@both
async def test_the_journal_fills_its_own_disk(tmp_path: Path, policy: Policy) -> None:
    """A bound larger than the disk: the journal itself takes the last byte while the broker is away, and gives way or waits."""
    with disk(tmp_path, 24) as small:
        ballast = small.fill_but(3 * MEGABYTE)
        async with watched(tmp_path, small, policy, 1024 * MEGABYTE) as (plant, watch):
            account = Account(f"own writer, {policy}", plant, watch)
            plant.broker.kill()
            await account.begin()
            await plant.until("the journal has filled the disk", lambda: bool(watch.troubles) or watch.dropped > 0, 90)
            assert all("full" in trouble for trouble in watch.troubles)
            await watch.scanned(HOLD_S * plant.records_per_s, 5 * HOLD_S + 30)
            await account.end()
            ballast.unlink()
            healing_s = await watch.healed(HEAL_S)
            plant.broker.start()
            await plant.flows(HEAL_S)
            account.judge(await finished(plant, watch), healing_s)


@both
async def test_a_foreign_writer_takes_the_last_byte(tmp_path: Path, policy: Policy) -> None:
    """What is stored gives way to what is new, or what is new is refused, as configured; counted to the record either way."""
    with disk(tmp_path, 24) as small:
        async with watched(tmp_path, small, policy) as (plant, watch):
            account = Account(f"foreign writer, {policy}", plant, watch)
            plant.broker.kill()
            await plant.wait_pending(2500)  # a sealed segment, and one that is written
            await account.begin()
            foreign = small.fill()
            await plant.until("records are dropped, or trouble is told", lambda: bool(watch.troubles) or watch.dropped > 0, 60)
            await watch.scanned(HOLD_S * plant.records_per_s, 5 * HOLD_S + 30)
            await account.end()
            foreign.unlink()
            healing_s = await watch.healed(HEAL_S)
            plant.broker.start()
            await plant.flows(HEAL_S)
            account.judge(await finished(plant, watch), healing_s)


@both
async def test_a_foreign_writer_comes_and_goes(tmp_path: Path, policy: Policy) -> None:
    """Space is taken to the last byte and given back at random moments, with the broker there or away: the account stays exact."""
    chance = dice(f"a foreign writer comes and goes, {policy}")
    with disk(tmp_path, 24) as small:
        async with watched(tmp_path, small, policy) as (plant, watch):
            account = Account(f"foreign writer again and again, {policy}", plant, watch)
            await account.begin()
            slowest_s = 0.0
            for _ in range(ROUNDS):
                slowest_s = max(slowest_s, await _one_visit(plant, watch, small, chance))
            await account.end()
            await plant.flows(HEAL_S)
            account.judge(await finished(plant, watch), slowest_s, visits=ROUNDS)


async def _one_visit(plant: Rig, watch: Watch, small: Disk, chance: random.Random) -> float:
    """Seconds until it was healed."""
    away = chance.random() < 0.5
    if away:
        plant.broker.kill()
    foreign = await asyncio.to_thread(small.fill)
    await watch.scanned(chance.uniform(0.1, 2) * plant.records_per_s)
    foreign.unlink()
    took_s = await watch.healed(HEAL_S)
    if away:
        plant.broker.start()
    return took_s


@pytest.mark.parametrize("what", ["bytes", "names"])
@pytest.mark.parametrize("end", ["stopped", "killed"])
async def test_a_gateway_that_comes_back_to_a_full_disk_needs_no_human(tmp_path: Path, end: str, what: str) -> None:
    """Space or names were taken while it was away: it runs at once, scans into memory, and stores when there is room."""
    port = port_for_metrics()
    with disk(tmp_path, 24, "-N", "512") as small:
        async with rig(tmp_path, plan(small, "drop-oldest", port, devices=10)) as plant:
            await plant.arrive(50)
            plant.broker.kill()
            await plant.wait_pending(100)
            await asyncio.to_thread(plant.gateway.kill if end == "killed" else plant.gateway.stop)
            give_back = taken(small, what)
            await plant.start()
            watch = Watch(plant, port)
            await watch.scanned(HOLD_S * plant.records_per_s, 5 * HOLD_S + 30)
            assert punctuality(await watch.metrics()).scans > 0
            give_back()
            began = time.monotonic()
            await plant.until("questions are answered", (plant.journal / SOCKET).exists)  # its name is one more that was taken
            async with watch:
                await watch.healed(HEAL_S)
            healing_s = time.monotonic() - began
            plant.broker.start()
            await plant.arrive(50)
            verdict = await plant.finish(most_in_flight=1 if end == "stopped" else 5)
    record(
        f"disk full at the next start: {end}, {what}", healing_s=round(healing_s, 2), received=verdict.records, in_flight=verdict.in_flight
    )


@pytest.mark.parametrize("what", ["bytes", "names"])
async def test_a_first_start_on_a_full_disk_needs_no_human(tmp_path: Path, what: str) -> None:
    """Not even the journal's folder can be made: the gateway says so, goes on trying, and runs once there is room."""
    gave_back: list[float] = []
    with disk(tmp_path, 24, "-N", "512") as small:
        give_back = taken(small, what)

        async def make_room(plant: Rig) -> None:
            await plant.until("it says what it waits for", lambda: plant.gateway.events("journal_not_opened") > 0)
            give_back()
            gave_back.append(time.monotonic())

        helpers: list[asyncio.Task[None]] = []

        async def before(plant: Rig) -> None:
            helpers.append(asyncio.create_task(make_room(plant)))

        made = replace(plan(small, "drop-oldest", 0, devices=10), before=before)
        async with rig(tmp_path, made) as plant:
            healing_s = time.monotonic() - gave_back[0]
            await helpers[0]
            await plant.arrive(50)
            verdict = await plant.finish()
    record(f"disk full at the first start: {what}", healing_s=round(healing_s, 2), received=verdict.records)


async def test_names_run_out_while_there_is_space(tmp_path: Path) -> None:
    """A foreign program makes files until no name is left: no segment can be begun; it is counted or kept, and heals."""
    with disk(tmp_path, 24, "-N", "512") as small:
        async with watched(tmp_path, small, "drop-oldest") as (plant, watch):
            account = Account("names", plant, watch)
            plant.broker.kill()
            await account.begin()
            give_back = taken(small, "names")
            await plant.wait_pending(4000)  # more than a segment holds
            await account.end()
            give_back()
            healing_s = await watch.healed(HEAL_S)
            plant.broker.start()
            await plant.flows(HEAL_S)
            account.judge(await finished(plant, watch), healing_s)


def taken(small: Disk, what: str) -> Callable[[], None]:
    """Every byte or every name of the disk is taken; call what is given to give it back."""
    if what == "bytes":
        return small.fill().unlink
    folder = small.take_names()
    return lambda: shutil.rmtree(folder)
