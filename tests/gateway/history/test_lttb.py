"""Down-sampling shows the shape: the same points as the thesis's own loop, both ends, and no line over a gap."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from gateway.history.lttb import lttb, lttb_with_gaps

DICE = np.random.default_rng(3)


def as_in_the_thesis(at: NDArray[np.float64], value: NDArray[np.float64], points: int) -> list[int]:
    """The algorithm point by point (Steinarsson 2013, listing in section 4.2, in the author's own JavaScript)."""
    count = len(at)
    every = (count - 2) / (points - 2)
    taken, before = [0], 0
    for bucket in range(points - 2):
        next_first, next_end = int((bucket + 1) * every) + 1, min(int((bucket + 2) * every) + 1, count)
        mean_at, mean = at[next_first:next_end].mean(), value[next_first:next_end].mean()
        largest, chosen = -1.0, 0
        for place in range(int(bucket * every) + 1, next_first):
            area = abs((at[before] - mean_at) * (value[place] - value[before]) - (at[before] - at[place]) * (mean - value[before]))
            if area > largest:
                largest, chosen = area, place
        taken.append(chosen)
        before = chosen
    return [*taken, count - 1]


@pytest.mark.parametrize(("count", "points"), [(100, 10), (1000, 37), (5000, 300), (7, 5), (10, 3), (11, 10)])
def test_it_chooses_what_the_thesis_chooses(count: int, points: int) -> None:
    at = np.cumsum(DICE.integers(1, 10, count))
    value = np.cumsum(DICE.standard_normal(count))
    assert lttb(at * 10**9, value, points).tolist() == as_in_the_thesis(at.astype(float) - at[0], value, points)


@pytest.mark.parametrize("points", [1, 2, 3, 50, 100, 1000])
def test_there_are_never_more_points_than_asked(points: int) -> None:
    at = np.arange(100) * 10**9
    found = lttb(at, DICE.standard_normal(100), points)
    assert len(found) == min(points, 100)
    assert (np.diff(found) > 0).all()
    assert found[0] == 0
    assert points == 1 or found[-1] == 99


def test_a_lone_spike_is_seen() -> None:
    value = np.zeros(10_000)
    value[4321] = 1.0
    assert 4321 in lttb(np.arange(10_000) * 10**9, value, 20)


@pytest.mark.parametrize("points", [10, 40, 200])
def test_no_piece_reaches_over_a_break(points: int) -> None:
    at = np.arange(1000) * 10**9
    at[400:] += 10**13
    at[700:] += 10**12
    found, broken = lttb_with_gaps(at, DICE.standard_normal(1000), np.array([400, 700]), points)
    assert len(found) <= points
    assert found[broken].tolist() == [400, 700]
    assert {0, 399, 400, 699, 700, 999} <= set(found.tolist())


def test_where_there_are_more_breaks_than_points_the_longest_stay() -> None:
    at = np.arange(1000) * 10**9
    at[500:] += 10**13
    found, broken = lttb_with_gaps(at, DICE.standard_normal(1000), np.arange(1, 1000), 30)
    assert len(found) <= 30
    assert 500 in found[broken]
