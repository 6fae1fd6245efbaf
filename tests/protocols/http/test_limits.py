"""Rates, and deliveries that were taken already."""

from __future__ import annotations

import pytest

from protocols.http.limits import MOST_PEERS, Bucket, Buckets, Seen, peer_of


def test_a_bucket_gives_its_burst_then_its_rate() -> None:
    bucket = Bucket(2.0, 3)
    assert [bucket.wait_s(10.0) for _ in range(4)] == [0, 0, 0, 0.5]
    assert bucket.wait_s(10.4) == pytest.approx(0.1)
    assert bucket.wait_s(10.5) == 0
    assert [bucket.wait_s(1000.0) for _ in range(4)] == [0, 0, 0, 0.5], "never more than the burst, however long the pause"


def test_one_peer_does_not_take_from_another_and_all_are_bounded() -> None:
    buckets = Buckets(1.0, 1)
    assert buckets.wait_s("a", 1.0) == 0
    assert buckets.wait_s("a", 1.0) > 0
    assert buckets.wait_s("b", 1.0) == 0
    for at in range(3 * MOST_PEERS):
        buckets.wait_s(str(at), 1.0)
    assert len(buckets._buckets) == MOST_PEERS


def test_the_last_names_are_remembered() -> None:
    seen = Seen(3)
    for name in ("a", "b", "c", "d"):
        seen.add(name)
    assert [name in seen for name in ("a", "b", "c", "d", "\ud800")] == [False, True, True, True, False]


@pytest.mark.parametrize(
    ("address", "peer"),
    [
        ("192.0.2.7", "192.0.2.7"),
        ("::ffff:192.0.2.7", "192.0.2.7"),
        ("2001:db8:1:2:3::4", "2001:db8:1:2::/64"),
        ("fe80::1%eth0", "fe80::/64"),
        ("", ""),
    ],
)
def test_who_counts_as_one(address: str, peer: str) -> None:
    assert peer_of(address) == peer
