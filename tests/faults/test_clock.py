"""Wall clocks that jump, while the gateway runs and while it is away: nothing is lost, and no name is given twice.

The real process runs on libfaketime, which moves its wall clock as NTP, a person or an empty battery would; the monotonic
clock goes on, as in life. The field, the broker and the cloud keep the right time. The oracle compares scan numbers, so it
does not care what time the gateway believes it is.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

import pytest

from tests.faults import figures
from tests.faults.oracle import Verdict
from tests.faults.rig import Plan, Rig, many, rig
from tests.peers.cloud import Absence, Arrival, Told

LIBRARY: Final = next(iter(sorted(Path("/usr/lib").glob("*/faketime/libfaketimeMT.so.1"))), None)
HOUR_S: Final = 3600.0
DAY_S: Final = 86400.0
JUST_BEFORE_2038_S: Final = 2.0**31 - 2
"""Unix time two seconds before 32 bits are full: 2038-01-19 03:14:06 UTC."""
IN_2040_S: Final = datetime(2040, 2, 29, 12, tzinfo=UTC).timestamp()
IN_2000_S: Final = datetime(2000, 1, 1, tzinfo=UTC).timestamp()
AT_BOOT_S: Final = 40.0
"""Where a machine without a battery starts: seconds after the beginning of 1970."""
NEAR_S: Final = 5.0

pytestmark = pytest.mark.skipif(LIBRARY is None, reason="libfaketime is missing: install the package faketime")


class WallClock:
    """The wall clock of a gateway, moved by writing a file: seconds that it is ahead of the right time."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._file = folder / "ahead"
        self.ahead_s = 0.0
        self.shift(0.0)

    @property
    def environment(self) -> dict[str, str]:
        return {
            "LD_PRELOAD": str(LIBRARY),
            "FAKETIME_TIMESTAMP_FILE": str(self._file),
            "FAKETIME_CACHE_DURATION": "1",  # seconds until it looks at the file again; at every call would cost too much
            "FAKETIME_DONT_FAKE_MONOTONIC": "1",
            "FAKETIME_FORCE_MONOTONIC_FIX": "0",  # with it whoever waits for the interpreter spins: ten times the processor
            "NO_FAKE_STAT": "1",
        }

    def shift(self, ahead_s: float) -> None:
        """From now on the gateway is so far ahead of the right time; below 0 behind it."""
        self.ahead_s = ahead_s
        fresh = self._file.with_suffix(".new")
        fresh.write_text(f"{ahead_s:+.3f}\n")
        fresh.replace(self._file)

    def set(self, unix_s: float) -> None:
        self.shift(unix_s - time.time())

    def now_s(self) -> float:
        return time.time() + self.ahead_s


@dataclass(slots=True)
class Times:
    """Listens beside the oracle: what time do live values say it is, and how often does it go back?"""

    newest_s: dict[str, float] = field(default_factory=dict)
    """Of each device: the time of the live value that came last."""
    backwards: dict[str, int] = field(default_factory=dict)

    def __call__(self, thing: Arrival | Absence | Told) -> None:
        if not isinstance(thing, Arrival) or thing.historical:
            return
        at_s = thing.rows[0].time_ms / 1000
        if at_s < self.newest_s.get(thing.device, float("-inf")):
            self.backwards[thing.device] = self.backwards.get(thing.device, 0) + 1
        self.newest_s[thing.device] = at_s


async def follow(plant: Rig, clock: WallClock, times: Times, deadline_s: float = 60.0) -> None:
    """Wait until live values of every device say what the gateway's clock says."""

    def near() -> bool:
        return all(abs(times.newest_s.get(name, 0.0) - clock.now_s()) < NEAR_S for name in plant.names)

    await plant.until(f"live values say the time of {clock.ahead_s:+.0f} s", near, deadline_s)


async def more_wait(plant: Rig, records: int = 30) -> None:
    """Wait until so many records more are pending."""
    await plant.wait_pending((await plant.ledger())["pending"] + records)


JUMPS: Final[tuple[tuple[str, Callable[[float], float]], ...]] = (
    ("an hour forward", lambda now_s: now_s + HOUR_S),
    ("back", lambda now_s: now_s),
    ("an hour back", lambda now_s: now_s - HOUR_S),
    ("a day back", lambda now_s: now_s - DAY_S),
    ("forward again", lambda now_s: now_s),
    ("a day forward", lambda now_s: now_s + DAY_S),
    ("to the end of 32 bits", lambda now_s: JUST_BEFORE_2038_S),
    ("to 2040", lambda now_s: IN_2040_S),
    ("to 2000", lambda now_s: IN_2000_S),
    ("to today", lambda now_s: now_s),
)
"""A name, and where the clock stands afterwards."""


Jump = tuple[str, Callable[[float], float]]


@dataclass(slots=True)
class Campaign:
    """What the plants of one test have measured."""

    verdicts: list[Verdict] = field(default_factory=list)
    jumps: int = 0
    went_back: int = 0

    def record(self, name: str, seconds: float) -> None:
        assert self.jumps > 0
        figures.record(
            name,
            jumps=self.jumps,
            seconds=round(seconds, 1),
            records=sum(each.records for each in self.verdicts),
            duplicates=sum(each.duplicates for each in self.verdicts),
            lost=sum(sum(each.dropped.values()) for each in self.verdicts),
            in_flight=sum(each.in_flight for each in self.verdicts),
            live_went_back=self.went_back,
        )


async def jump_running(folder: Path, jumps: Sequence[Jump], campaign: Campaign, *, away: bool) -> None:
    """The clock of one process jumps; ``away``: while the broker is away, so that records of both times wait together."""
    clock, times, back = WallClock(folder), Times(), 0
    async with rig(folder, Plan(devices=4, environment=clock.environment)) as plant:
        plant.oracle.also.append(times)
        await follow(plant, clock, times)
        for _, where in jumps:
            before_s = clock.now_s()
            if away:
                await plant.proxy.refuse()
                await plant.wait_pending(20)
            clock.set(where(time.time()))
            back += clock.now_s() < before_s
            if away:
                await plant.wait_pending(60)
                await plant.proxy.heal()
            await follow(plant, clock, times)
            await plant.arrive(20)
        campaign.verdicts.append(await plant.finish())
    went_back = max(times.backwards.values(), default=0)
    assert went_back <= back, f"live values went back {times.backwards} times, the clock {back} times"
    campaign.jumps += len(jumps)
    campaign.went_back += went_back


async def jump_away(folder: Path, jumps: Sequence[Jump], campaign: Campaign, *, killed: bool) -> None:
    """Each process ends with records pending, by SIGKILL if ``killed``, and the next starts at another time."""
    clock, times = WallClock(folder), Times()
    async with rig(folder, Plan(devices=4, environment=clock.environment)) as plant:
        plant.oracle.also.append(times)
        await follow(plant, clock, times)
        for at, (_, where) in enumerate(jumps):
            await plant.proxy.refuse()
            await more_wait(plant)
            if killed:
                await plant.kill()
            else:
                assert await asyncio.to_thread(plant.gateway.stop) == 0, plant.state()
            clock.set(where(time.time()))
            await plant.start()
            await more_wait(plant)
            if at % 2:
                await plant.proxy.heal()
                await follow(plant, clock, times)
        await plant.proxy.heal()
        await follow(plant, clock, times)
        campaign.verdicts.append(await plant.finish(most_in_flight=5))
    campaign.jumps += len(jumps)


def lost_nothing(campaign: Campaign) -> bool:
    """A journal that fits and is young has no reason to drop anything, whatever the wall clock says."""
    return all(verdict.lost == verdict.dropped == {} for verdict in campaign.verdicts)


async def test_jumps_of_the_wall_clock_lose_nothing_while_it_runs(tmp_path: Path) -> None:
    """With the broker there, and with the broker away."""
    began, campaign, many_jumps = time.monotonic(), Campaign(), JUMPS * many(1, 10)
    half = len(many_jumps) // 2
    async with asyncio.TaskGroup() as plants:
        plants.create_task(jump_running(tmp_path / "there", many_jumps, campaign, away=False))
        plants.create_task(jump_running(tmp_path / "away-1", many_jumps[:half], campaign, away=True))
        plants.create_task(jump_running(tmp_path / "away-2", many_jumps[half:], campaign, away=True))
    assert lost_nothing(campaign)
    campaign.record("clock, while it runs", time.monotonic() - began)


@pytest.mark.parametrize("end", ["stopped", "killed"])
async def test_jumps_of_the_wall_clock_across_a_restart_lose_nothing(tmp_path: Path, end: str) -> None:
    """Records of before and after wait together, and none is too old because a clock was wrong."""
    began, campaign, many_jumps = time.monotonic(), Campaign(), JUMPS * many(1, 10)
    half = len(many_jumps) // 2
    async with asyncio.TaskGroup() as plants:
        plants.create_task(jump_away(tmp_path / "1", many_jumps[:half], campaign, killed=end == "killed"))
        plants.create_task(jump_away(tmp_path / "2", many_jumps[half:], campaign, killed=end == "killed"))
    assert lost_nothing(campaign)
    campaign.record(f"clock, across a restart, {end}", time.monotonic() - began)


async def test_what_is_recorded_before_the_clock_is_set_is_delivered(tmp_path: Path) -> None:
    """A machine without a battery boots in 1970, records, and is told the time: twice, with the broker away until the end."""
    clock, times, began = WallClock(tmp_path), Times(), time.monotonic()
    clock.set(AT_BOOT_S)
    async with rig(tmp_path, Plan(devices=4, environment=clock.environment)) as plant:
        plant.oracle.also.append(times)
        await plant.arrive(20)
        await plant.proxy.refuse()
        await plant.wait_pending(40)
        clock.shift(0.0)
        await plant.wait_pending(80)
        assert await asyncio.to_thread(plant.gateway.stop) == 0, plant.state()
        clock.set(AT_BOOT_S)
        await plant.start()
        await plant.wait_pending(120)
        clock.shift(0.0)
        await plant.wait_pending(160)
        await plant.proxy.heal()
        await follow(plant, clock, times)
        verdict = await plant.finish(most_in_flight=1)
    assert verdict.lost == verdict.dropped == {}
    figures.record(
        "clock, set after the boot",
        seconds=round(time.monotonic() - began, 1),
        records=verdict.records,
        duplicates=verdict.duplicates,
        lost=sum(verdict.dropped.values()),
    )
