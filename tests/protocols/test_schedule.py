"""The schedule: no drift, spread phases, lateness and misses counted, silent devices set aside."""

from __future__ import annotations

import math
from collections import Counter

import pytest

from protocols.model import ScanStats
from protocols.schedule import FIRST_RETRY_S, PHASES, START_SPREAD_S, Job, Schedule, next_due, on_step, phase_of


def schedule_of(*jobs: Job, now: float = 1000.0) -> Schedule:
    schedule = Schedule(ScanStats())
    for job in jobs:
        schedule.add(job, now)
    return schedule


def job(device: int = 0, period_s: float = 1.0, phase: float = 0.2, cost_s: float = 0.0) -> Job:
    return Job(device, 0, period_s, phase, cost_s)


def test_scans_never_drift_however_late_each_begins() -> None:
    schedule = schedule_of(job())
    now, dues = 1000.0, []
    for _ in range(10_000):
        dues.append(schedule.due)
        now = schedule.due + 0.0007
        schedule.start(now)
    assert dues[-1] == pytest.approx(dues[0] + 9_999, abs=1e-6)


def test_a_reconnect_does_not_move_the_grid() -> None:
    assert next_due(job(), 1000.1) == next_due(job(), 1000.15) == 1000.2


def test_the_next_moment_is_always_later() -> None:
    """Also where the division is not exact."""
    for period_s in (0.1, 0.3, 1 / 3, 0.7, 86400.0):
        now = 12345.678
        one = job(period_s=period_s, phase=0.1)
        for _ in range(1000):
            due = next_due(one, now)
            assert now < due <= now + period_s * 1.0001
            now = due


def test_the_first_scan_comes_soon_even_of_a_long_period() -> None:
    assert schedule_of(job(period_s=3600.0, phase=0.9)).due <= 1000.0 + START_SPREAD_S


def test_500_devices_of_one_connection_do_not_start_together() -> None:
    """Each of the steps of their period gets its share, give or take one in a hundred of all."""
    steps = Counter(on_step(phase_of("plant", place), 60.0) for place in range(500))
    assert len(steps) == PHASES
    assert max(steps.values()) <= 500 / PHASES + 5


def test_500_connections_of_one_device_do_not_start_together() -> None:
    steps = Counter(on_step(phase_of(f"line-{number}"), 60.0) for number in range(500))
    assert len(steps) == PHASES
    assert max(steps.values()) <= 500 / PHASES + 20


def test_phases_are_the_same_in_every_process() -> None:
    assert phase_of("boiler-house", 3) == pytest.approx(phase_of("boiler-house", 3))
    assert 0 <= phase_of("") < 1


@pytest.mark.parametrize(("period_s", "steps"), [(0.01, 1), (0.5, 1), (1.0, 2), (2.0, 4), (5.0, 10), (60.0, 10)])
def test_no_step_is_shorter_than_half_a_second(period_s: float, steps: int) -> None:
    """Fast scans start together with slow ones, not between them."""
    assert {on_step(phase_of("plant", place), period_s) for place in range(500)} == {step / steps for step in range(steps)}


def test_a_job_is_due_on_a_step_of_its_period() -> None:
    schedule = schedule_of(job(phase=0.79))
    schedule.start(1000.5)
    assert schedule.due == 1001.5


def test_lateness_goes_into_its_bucket_and_whole_missed_periods_are_counted() -> None:
    schedule = schedule_of(job())
    due = schedule.due
    schedule.start(due + 0.003)
    assert schedule.stats.late_s[2] == 1
    assert schedule.stats.late_sum_s == pytest.approx(0.003)
    due = schedule.due
    schedule.start(due + 3.5)
    assert (schedule.stats.scans, schedule.stats.missed) == (2, 3)
    assert schedule.due == pytest.approx(due + 4)


def test_what_is_due_first_goes_first_and_of_equals_the_cheapest() -> None:
    schedule = schedule_of(job(0, cost_s=2.0), job(1, cost_s=1.0), job(2, phase=0.1))
    assert [schedule.start(1002.0).device for _ in range(3)] == [2, 1, 0]


def test_a_slow_job_cannot_starve_the_others() -> None:
    schedule = schedule_of(*(job(device) for device in range(3)))
    now, counts = 1001.0, [0, 0, 0]
    for _ in range(30):
        counts[schedule.start(now).device] += 1
        now += 5.0
    assert counts == [10, 10, 10]


def test_a_device_is_demoted_at_its_second_miss_and_retried_at_growing_intervals() -> None:
    schedule = schedule_of(job(0), job(1))
    schedule.answered(0, 1000.0)
    assert not schedule.missed(0, 1001.0)
    assert schedule.missed(0, 1002.0)
    assert schedule.is_demoted(0)
    gaps, now = [], 1002.0
    for _ in range(8):
        retry = next_retry(schedule)
        gaps.append(retry.due - now)
        now = retry.due
        assert not schedule.missed(0, now)
    assert gaps == [FIRST_RETRY_S, 4.0, 8.0, 16.0, 32.0, 60.0, 60.0, 60.0]


def next_retry(schedule: Schedule) -> Job:
    """Run the others' jobs until the retry comes."""
    while not (one := schedule.start(schedule.due)).is_retry:
        assert one.device == 1
    return one


def test_a_device_that_has_never_answered_is_demoted_at_its_first_miss() -> None:
    """Nothing is lost by it, and a line with many dead devices starts in half the time."""
    assert schedule_of(job(0)).missed(0, 1001.0)


def test_an_answer_between_two_misses_forgives_the_first() -> None:
    schedule = schedule_of(job(0))
    schedule.answered(0, 1000.0)
    schedule.missed(0, 1001.0)
    assert not schedule.answered(0, 1002.0)
    assert not schedule.missed(0, 1003.0)


def test_a_device_that_answers_again_is_scanned_at_once_and_then_on_its_grid() -> None:
    schedule = schedule_of(job(0), job(1))
    schedule.missed(0, 1000.0)
    assert schedule.answered(0, 1010.6)
    schedule.start(1010.6)
    mine = [one for one in (schedule.start(1010.6), schedule.start(1010.6)) if one.device == 0]
    assert len(mine) <= 1
    assert not schedule.is_demoted(0)
    assert schedule.due == 1011.0


def test_whether_anybody_is_left() -> None:
    schedule = schedule_of(job(0), job(1))
    schedule.missed(0, 1000.0)
    found = [schedule.all_demoted]
    schedule.missed(1, 1000.0)
    found.append(schedule.all_demoted)
    schedule.answered(1, 1001.0)
    assert [*found, schedule.all_demoted] == [False, True, False]


def test_nothing_to_do_is_due_never() -> None:
    assert Schedule(ScanStats()).due == math.inf
    assert not Schedule(ScanStats()).all_demoted
