"""Report by exception: what is new goes on, what is not stays, and nothing hides below a deadband for ever."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.report import ReportByException
from protocols.model import Batch, Kind, Quality
from tests.builders import batch, device, floats

SECOND = 1_000_000_000
START = 1_700_000_000 * SECOND


def sifted(found: Batch | None) -> dict[int, Any]:  # Any: values of any column
    return {} if found is None else dict(zip(found.tag.tolist(), found.value.tolist(), strict=True))


def test_the_first_value_of_every_tag_is_reported() -> None:
    at = floats(3)
    assert sifted(ReportByException().sift(batch(at, [0.0, 0.0, 1.0]))) == {0: 0.0, 1: 0.0, 2: 1.0}


def test_a_batch_that_is_new_as_a_whole_is_handed_on_as_it_is() -> None:
    at, report = floats(3), ReportByException()
    first = batch(at, [1.0, 2.0, 3.0])
    assert report.sift(first) is first


def test_only_what_changed_is_reported() -> None:
    at, report = floats(3), ReportByException()
    report.sift(batch(at, [1.0, 2.0, 3.0]))
    assert sifted(report.sift(batch(at, [1.0, 2.5, 3.0]))) == {1: 2.5}
    assert report.sift(batch(at, [1.0, 2.5, 3.0])) is None


def test_slow_drift_is_reported_once_it_left_the_deadband_of_the_last_reported_value() -> None:
    at, report = floats(1, deadband=1.0), ReportByException()
    seen = [sifted(report.sift(batch(at, [value / 10]))) for value in range(25)]
    assert [found[0] for found in seen if found] == [0.0, 1.1, 2.2]


def test_a_percent_deadband_is_a_share_of_the_last_reported_value() -> None:
    at, report = floats(1, deadband_percent=10.0), ReportByException()
    seen = [sifted(report.sift(batch(at, [value]))) for value in (100.0, 110.0, 110.1, 100.0, 99.0)]
    assert [found[0] for found in seen if found] == [100.0, 110.1, 99.0]


@pytest.mark.parametrize(("deadband", "percent"), [(0.0, 0.0), (5.0, 0.0), (0.0, 5.0)])
def test_steps_to_and_from_nan_and_infinity_are_new_and_staying_there_is_not(deadband: float, percent: float) -> None:
    at, report = floats(1, deadband=deadband, deadband_percent=percent), ReportByException()
    nan, inf = float("nan"), float("inf")
    steps = [1.0, nan, nan, inf, inf, -inf, 1.0, inf, 2.0, nan, 2.0]
    assert [bool(sifted(report.sift(batch(at, [step])))) for step in steps] == [True, True, False, True, False] + [True] * 6


def test_a_change_of_quality_is_reported_though_the_value_stays() -> None:
    at, report = floats(2, deadband=100.0), ReportByException()
    report.sift(batch(at, [1.0, 2.0]))
    bad = report.sift(batch(at, [1.0], quality=Quality.BAD_NO_COMMUNICATION))
    assert bad is not None
    assert bad.quality.tolist() == [Quality.BAD_NO_COMMUNICATION]


def test_a_silent_tag_is_reported_after_its_maximum_silence() -> None:
    at, report = floats(1, max_silence_s=10.0), ReportByException()
    seen = [bool(report.sift(batch(at, [1.0], time_ns=START + second * SECOND))) for second in range(21)]
    assert [second for second, reported in enumerate(seen) if reported] == [0, 10, 20]


def test_no_silence_at_all_reports_every_scan() -> None:
    at, report = floats(1, max_silence_s=0.0), ReportByException()
    assert all(report.sift(batch(at, [1.0], time_ns=START + second)) for second in range(3))


def test_a_clock_that_went_back_a_day_does_not_mute_a_tag() -> None:
    at, report = floats(1, max_silence_s=600.0), ReportByException()
    report.sift(batch(at, [1.0], time_ns=START))
    assert report.sift(batch(at, [1.0], time_ns=START - 86_400 * SECOND)) is not None


@given(st.integers(-(2**63), 2**63 - 1), st.integers(-(2**63), 2**63 - 1))
def test_integers_are_compared_with_every_bit(before: int, after: int) -> None:
    at, report = device(Kind.INT64), ReportByException()
    report.sift(batch(at, [before]))
    assert bool(report.sift(batch(at, [after]))) == (before != after)


@given(st.integers(0, 2**64 - 1), st.integers(0, 2**64 - 1))
def test_a_deadband_on_unsigned_integers_does_not_wrap(before: int, after: int) -> None:
    at, report = device(Kind.UINT64, deadband=1000.0), ReportByException()
    report.sift(batch(at, [before]))
    distance = abs(after - before)
    if distance <= 2**53:  # beyond that a float deadband cannot say more
        assert bool(report.sift(batch(at, [after]))) == (distance > 1000)


def test_bools_strings_and_bytes_are_reported_when_they_change() -> None:
    for kind, one, other in ((Kind.BOOL, True, False), (Kind.STRING, "auto", "manual"), (Kind.BYTES, b"\x00", b"\x01")):
        at, report = device(kind), ReportByException()
        assert report.sift(batch(at, [one])) is not None
        assert report.sift(batch(at, [one])) is None
        assert report.sift(batch(at, [other])) is not None


NUMBERS = st.sampled_from([0.0, -0.0, 1.0, 1.5, 2.0, float("nan"), float("inf"), float("-inf")])
STEPS = st.lists(
    st.tuples(
        st.just([0, 1, 2, 3]) | st.just([1, 2]) | st.permutations([0, 1, 2, 3]).map(lambda slots: slots[:3]),
        st.lists(NUMBERS, min_size=4, max_size=4),
        st.sampled_from([Quality.GOOD, Quality.GOOD, Quality.BAD_TIMEOUT]),
        st.sampled_from([START, START + SECOND, START + 11 * SECOND, START - 11 * SECOND]),
    ),
    max_size=8,
)


@given(STEPS, st.sampled_from([0.0, 0.5]))
def test_what_is_reported_is_what_a_plain_reading_of_the_rule_says(
    steps: list[tuple[list[int], list[float], Quality, int]], deadband: float
) -> None:
    """Slots that follow each other and slots that do not are looked up in different ways."""
    at, report = floats(4, deadband=deadband, max_silence_s=10.0), ReportByException()
    told: dict[int, tuple[float, int, int]] = {}
    for slots, values, quality, time_ns in steps:
        expected = {}
        for slot, value in zip(slots, values, strict=False):
            if slot not in told or _is_new(told[slot], (value, quality, time_ns), deadband):
                expected[slot] = value
                told[slot] = (value, quality, time_ns)
        found = sifted(report.sift(batch(at, values[: len(slots)], slots=slots, quality=quality, time_ns=time_ns)))
        assert repr(sorted(found.items())) == repr(sorted(expected.items()))  # NaN is no equal of itself, its text is


def _is_new(before: tuple[float, int, int], now: tuple[float, int, int], deadband: float) -> bool:
    same = before[0] == now[0] or (math.isnan(before[0]) and math.isnan(now[0]))
    beyond = not same and not abs(now[0] - before[0]) <= deadband
    return beyond or before[1] != now[1] or abs(now[2] - before[2]) >= 10 * SECOND


def test_the_batch_that_came_in_is_never_edited() -> None:
    at, report = floats(3), ReportByException()
    report.sift(batch(at, [1.0, 2.0, 3.0]))
    given_in = batch(at, [1.0, 9.0, 3.0])
    copy = given_in.value.copy()
    report.sift(given_in)
    assert np.array_equal(given_in.value, copy)
    assert len(given_in) == 3


def test_a_forgotten_device_is_reported_anew() -> None:
    at, report = floats(1), ReportByException()
    report.sift(batch(at, [1.0]))
    report.forget(at)
    assert report.sift(batch(at, [1.0])) is not None
