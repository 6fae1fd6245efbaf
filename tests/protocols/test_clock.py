"""The clocks: time is an argument, and in tests it stands still until it is moved."""

from __future__ import annotations

import asyncio
import time

import pytest
import uvloop

from protocols.clock import Clock, ManualClock, SystemClock

START_NS = 1_700_000_000_000_000_000


async def _sleep(clock: Clock, moment: float, woken: list[float]) -> None:
    await clock.sleep_until(moment)
    woken.append(clock.monotonic())


def test_the_system_clock_tells_utc_and_a_monotonic_time() -> None:
    clock = SystemClock()
    assert time.time_ns() - 10**9 < clock.time_ns() <= time.time_ns()
    first = clock.monotonic()
    assert first <= clock.monotonic() <= time.monotonic()


def test_the_system_clock_never_returns_before_the_moment() -> None:
    """On uvloop, whose timers count whole milliseconds: who returns early has its caller turn the loop without pause."""
    assert uvloop.run(_early_s()) <= 0.0


async def _early_s() -> float:
    """How much too early the worst of some sleeps ended."""
    clock, worst = SystemClock(), float("-inf")
    for at in range(40):
        moment = clock.monotonic() + at / 10_000
        await clock.sleep_until(moment)
        worst = max(worst, moment - clock.monotonic())
    return worst


async def test_a_moment_that_never_comes_is_waited_for() -> None:
    sleeper = asyncio.create_task(SystemClock().sleep_until(float("inf")))
    done, _ = await asyncio.wait([sleeper], timeout=0.01)
    assert not done
    sleeper.cancel()


@pytest.mark.parametrize("clock", [SystemClock(), ManualClock()], ids=["system", "manual"])
async def test_a_moment_that_has_passed_still_lets_others_run(clock: Clock) -> None:
    ran: list[int] = []
    asyncio.get_running_loop().call_soon(ran.append, 1)
    await clock.sleep_until(clock.monotonic() - 1)
    assert ran == [1]
    await clock.sleep_until(float("-inf"))


async def test_a_manual_clock_stands_still() -> None:
    clock = ManualClock(START_NS, 50.0)
    await asyncio.sleep(0.01)
    assert (clock.time_ns(), clock.monotonic()) == (START_NS, 50.0)


async def test_advancing_moves_both_clocks_by_the_same_time() -> None:
    clock = ManualClock(START_NS, 50.0)
    await clock.advance(1.5)
    assert (clock.time_ns(), clock.monotonic()) == (START_NS + 1_500_000_000, 51.5)


async def test_sleepers_wake_in_order_at_their_own_moments() -> None:
    clock, woken = ManualClock(monotonic=0.0), list[float]()
    tasks = [asyncio.create_task(_sleep(clock, moment, woken)) for moment in (3.0, 1.0, 2.0, 1.0)]
    await clock.advance(2.5)
    assert woken == [1.0, 1.0, 2.0]
    assert clock.sleeping == 1
    await clock.advance(0.5)
    assert woken == [1.0, 1.0, 2.0, 3.0]
    await asyncio.gather(*tasks)


async def test_a_sleeper_that_sleeps_again_is_woken_again_within_one_advance() -> None:
    clock, ticks = ManualClock(monotonic=0.0), list[float]()

    async def tick() -> None:
        for at in range(1, 6):
            await _sleep(clock, float(at), ticks)

    task = asyncio.create_task(tick())
    await clock.advance(10.0)
    assert ticks == [1.0, 2.0, 3.0, 4.0, 5.0]
    await task


async def test_a_cancelled_sleeper_is_forgotten() -> None:
    clock, woken = ManualClock(monotonic=0.0), list[float]()
    task = asyncio.create_task(_sleep(clock, 1.0, woken))
    other = asyncio.create_task(_sleep(clock, 2.0, woken))
    await clock.advance(0.0)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    assert clock.sleeping == 1
    await clock.advance(5.0)
    assert woken == [2.0]
    await other


async def test_a_step_of_the_wall_clock_disturbs_no_sleeper() -> None:
    clock, woken = ManualClock(START_NS, 0.0), list[float]()
    task = asyncio.create_task(_sleep(clock, 1.0, woken))
    await clock.advance(0.0)
    clock.set_time_ns(START_NS - 86_400 * 10**9)
    await clock.advance(0.5)
    assert woken == []
    await clock.advance(0.5)
    assert woken == [1.0]
    assert clock.time_ns() == START_NS - 86_400 * 10**9 + 10**9
    await task


async def test_a_thousand_small_steps_do_not_drift() -> None:
    clock = ManualClock(START_NS, 0.0)
    for _ in range(1000):
        await clock.advance(0.001)
    assert clock.time_ns() - START_NS == 10**9
    assert clock.monotonic() == pytest.approx(1.0)
