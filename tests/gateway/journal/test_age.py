"""No jump of the wall clock makes records old."""

from __future__ import annotations

from gateway.journal.age import TrustedTime

DAY = 86400
NOW = 1_800_000_000


def ns(seconds: float) -> int:
    return round(seconds * 1e9)


def seconds(told: int) -> float:
    return round(told / 1e9)


def test_it_follows_the_wall_clock_that_is_slewed() -> None:
    trusted = TrustedTime(ns(NOW), ns(NOW), 100.0, 4.0 * DAY)
    for minute in range(100):
        trusted.now(ns(NOW + minute * 60.5), 100.0 + minute * 60)
    assert seconds(trusted.now(ns(NOW + 6050), 6100.0)) == NOW + 6050


def test_a_day_forward_and_back_ages_nothing() -> None:
    trusted = TrustedTime(ns(NOW), ns(NOW), 0.0, 4.0 * DAY)
    assert seconds(trusted.now(ns(NOW + DAY + 10), 10.0)) == NOW + 10
    assert seconds(trusted.now(ns(NOW + DAY + 7200), 7200.0)) == NOW + 7200
    assert seconds(trusted.now(ns(NOW + 8000), 8000.0)) == NOW + 8000


def test_a_step_that_lasts_a_day_is_believed() -> None:
    trusted = TrustedTime(ns(NOW), ns(NOW), 0.0, 4.0 * DAY)
    trusted.now(ns(NOW + 40 * DAY), 0.0)
    assert seconds(trusted.now(ns(NOW + 41 * DAY - 60), DAY - 60.0)) == NOW + DAY - 60
    assert seconds(trusted.now(ns(NOW + 41 * DAY), float(DAY))) == NOW + 41 * DAY


def test_a_start_in_1970_goes_on_from_the_newest_stamp_and_trusts_the_clock_once_set() -> None:
    trusted = TrustedTime(ns(NOW), ns(30), 0.0, 4.0 * DAY)
    assert seconds(trusted.now(ns(90), 60.0)) == NOW + 60
    assert seconds(trusted.now(ns(NOW + 130), 120.0)) == NOW + 130


def test_a_start_in_2038_does_not_age_what_is_stored() -> None:
    trusted = TrustedTime(ns(NOW), ns(NOW + 4000 * DAY), 0.0, 4.0 * DAY)
    assert seconds(trusted.now(ns(NOW + 4000 * DAY + 5), 5.0)) == NOW + 5


def test_a_plausible_rest_is_believed_at_once() -> None:
    trusted = TrustedTime(ns(NOW), ns(NOW + 3 * DAY), 0.0, 4.0 * DAY)
    assert seconds(trusted.now(ns(NOW + 3 * DAY + 1), 1.0)) == NOW + 3 * DAY + 1
