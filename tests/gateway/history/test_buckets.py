"""Means weighted by time: each value holds until the next, and nothing is made up where nothing is known."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from gateway.history.buckets import Buckets, Entries, Span, buckets, hold_ns, of_values
from gateway.history.sums import MINUTE_NS, Floats, Ints, Spoilt, Sums, fold, joined, merge, pack, unpack
from protocols.model import Kind, Quality, Tag

SECOND_NS = 10**9
HOLD_NS = 900 * SECOND_NS
NAN = float("nan")


def entries(times_s: list[float], values: list[float], quality: list[int] | None = None) -> Entries:
    time_ns = np.array([round(each * SECOND_NS) for each in times_s], dtype=np.int64)
    return of_values(time_ns, np.array(values, dtype=np.float64), np.array(quality or [0] * len(values), dtype=np.uint32))


def asked(some: Entries, bucket_s: int, count: int, *, now_s: float = 1e9, losses: tuple[Span, ...] = ()) -> Buckets:
    return buckets(some, 0, bucket_s * SECOND_NS, count, HOLD_NS, round(now_s * SECOND_NS), losses)


def test_a_value_holds_until_the_next_also_over_the_edge_of_a_bucket() -> None:
    found = asked(entries([0, 50, 110], [10, 20, 30]), 60, 3, now_s=170)
    assert found.avg.tolist() == pytest.approx([(10 * 50 + 20 * 10) / 60, (20 * 50 + 30 * 10) / 60, 30])
    assert found.mean.tolist() == pytest.approx([15, 30, NAN], nan_ok=True)
    assert found.count.tolist() == [2, 1, 0]


def test_what_came_before_tells_what_the_first_bucket_began_with() -> None:
    found = asked(entries([-100, 30], [10, 20]), 60, 1, now_s=60)
    assert found.avg.tolist() == pytest.approx([15])
    assert (found.count.tolist(), found.first.tolist()) == ([1], [20])


@pytest.mark.parametrize(
    ("some", "losses"),
    [
        (entries([0, 2000], [10, 20]), ()),
        (entries([0, 10, 100], [10, 0, 20], [0, int(Quality.BAD_TIMEOUT), 0]), ()),
        (entries([0, 10, 100], [10, NAN, 20]), ()),
        (entries([0, 100], [10, 20]), ((5 * SECOND_NS, 8 * SECOND_NS),)),
    ],
    ids=["silence", "a bad value", "no number", "lost records"],
)
def test_nothing_is_held_over_a_gap(some: Entries, losses: tuple[Span, ...]) -> None:
    found = asked(some, 10, 1, losses=losses)
    assert found.avg.tolist() == [10]  # of its one value, for no time
    second = asked(some, 10, 6, losses=losses)
    assert np.isnan(second.avg[2])


def test_the_newest_value_holds_until_now_and_not_beyond() -> None:
    found = asked(entries([0], [10]), 60, 3, now_s=60)
    assert found.avg.tolist() == pytest.approx([10, NAN, NAN], nan_ok=True)


def test_uncertain_values_count_and_are_not_called_good() -> None:
    found = asked(entries([0, 1, 2, 3], [1, 2, 3, 4], [0, int(Quality.UNCERTAIN), int(Quality.BAD), 0]), 60, 1)
    assert (found.count.tolist(), found.bad.tolist(), found.good_share.tolist()) == ([3], [1], [0.5])
    assert found.high.tolist() == [4]


def test_how_long_a_value_stands_for_itself_follows_the_tag() -> None:
    assert hold_ns(Tag(name="a", kind=Kind.FLOAT32, scan_s=1.0)) == 900 * SECOND_NS
    assert hold_ns(Tag(name="a", kind=Kind.FLOAT32, scan_s=1.0, max_silence_s=0)) == 3 * SECOND_NS
    assert hold_ns(Tag(name="a", kind=Kind.FLOAT32, max_silence_s=0)) == 900 * SECOND_NS


def table(dice: np.random.Generator, rows: int, tags: int) -> tuple[Floats, NDArray[np.uint32], Ints]:
    value = dice.choice([1.5, -2.25, np.inf, -np.inf, np.nan, 1e300], (rows, tags), p=[0.4, 0.4, 0.05, 0.05, 0.05, 0.05])
    quality = dice.choice([0, int(Quality.BAD), int(Quality.UNCERTAIN)], (rows, tags)).astype(np.uint32)
    time_ns = np.sort(dice.integers(0, MINUTE_NS // 10**6, (rows, tags)), axis=0) * 10**6
    return value, quality, time_ns


@pytest.mark.parametrize("seed", range(5))
def test_folding_in_two_parts_gives_what_folding_at_once_gives(seed: int) -> None:
    """Infinities and NaN included, whose sums are what IEEE 754 says."""
    dice = np.random.default_rng(seed)
    value, quality, time_ns = table(dice, 20, 30)
    cut = int(dice.integers(1, 19))
    whole = fold(value, quality, time_ns, 0)
    parts = merge(fold(value[:cut], quality[:cut], time_ns[:cut], 0), fold(value[cut:], quality[cut:], time_ns[cut:], 0))
    for name in ("count", "uncertain", "bad", "low", "high", "first", "last", "first_at", "last_at", "ended"):
        np.testing.assert_array_equal(getattr(parts, name), getattr(whole, name), err_msg=name)
    np.testing.assert_allclose(parts.total, whole.total)


@pytest.mark.parametrize("seed", range(3))
def test_what_is_packed_is_unpacked_whole_and_tag_by_tag(seed: int) -> None:
    value, quality, time_ns = table(np.random.default_rng(seed), 20, 30)
    one = fold(value, quality, time_ns, 0)
    sums = Sums(**{name: np.stack([getattr(one, name)] * 3) for name in Sums.__slots__})
    first, found = unpack(pack(sums))
    assert first == 0
    for tag in (0, 29):
        _, single = unpack(pack(sums), tag)
        for name in Sums.__slots__:
            np.testing.assert_array_equal(getattr(single, name), getattr(found, name)[:, tag])
    for name in ("count", "bad", "low", "high", "first", "last", "total", "low_at"):
        np.testing.assert_array_equal(getattr(found, name), getattr(sums, name), err_msg=name)
    assert len(joined([]).count) == 0


def test_every_flipped_bit_and_every_cut_is_noticed() -> None:
    value, quality, time_ns = table(np.random.default_rng(1), 5, 3)
    body = pack(fold(value, quality, time_ns, 0).pick(np.newaxis))
    for at in range(len(body)):
        spoilt = bytearray(body)
        spoilt[at] ^= 1 << at % 8
        for wrong in (bytes(spoilt), body[:at]):
            with pytest.raises(Spoilt):
                unpack(wrong)
