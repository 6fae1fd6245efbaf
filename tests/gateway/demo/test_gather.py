"""What the demonstration shows is read from the appliance as it is."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest

from gateway.counters import Counters
from gateway.demo import gather
from gateway.demo.view import Account
from gateway.journal import Ledger, ReaderLane
from gateway.latest import Latest
from gateway.links import Status
from protocols.model import Batch, Device, Kind, Quality, ScanStats, Tag


def lane(appended: int, acknowledged: int, pending: int, **more: int) -> ReaderLane:
    return ReaderLane(
        appended=appended,
        acknowledged=acknowledged,
        pending=pending,
        dropped={"full": more.get("full", 0), "age": more.get("age", 0)},
        quarantined=more.get("quarantined", 0),
        oldest_pending_ns=more.get("oldest", 0),
        untold=0,
    )


def ledger(**lanes: ReaderLane) -> Ledger:
    return Ledger(lanes={}, readers={"cloud": dict(lanes)}, bytes=0, max_bytes=0, free_bytes=0, trouble="")


def test_the_account_is_the_sum_over_lanes() -> None:
    """All lanes and all reasons are added up, and what balances in the lanes balances in the sum."""
    one = ledger(telemetry=lane(100, 80, 15, full=2, age=1, quarantined=2), events=lane(10, 10, 0))
    assert gather.account(one, "cloud") == Account(appended=110, acknowledged=90, pending=15, dropped=3, quarantined=2)
    assert gather.account(one, "cloud").balances
    assert gather.account(one, "nobody") == Account()


def test_lag_is_the_wait_of_the_oldest_that_is_not_settled() -> None:
    """While nothing is acknowledged lag grows with the clock; when all has been settled it is zero."""
    lag = gather.Lag()
    assert lag.seconds(Account(appended=10, acknowledged=10), 100.0) == 0.0
    assert lag.seconds(Account(appended=12, acknowledged=10, pending=2), 101.0) == 0.0
    assert lag.seconds(Account(appended=14, acknowledged=10, pending=4), 105.0) == 4.0
    assert lag.seconds(Account(appended=15, acknowledged=13, pending=2), 107.0) == 2.0
    assert lag.seconds(Account(appended=15, acknowledged=14, dropped=1), 108.0) == 0.0


def test_devices_show_every_tag_in_its_place() -> None:
    """Tags of all kinds appear in the order of the document; a bad value is a dash with its reason."""
    tags = (Tag(name="a", kind=Kind.FLOAT32, unit="bar"), Tag(name="b", kind=Kind.BOOL), Tag(name="c", kind=Kind.FLOAT64))
    device = Device("line", "boiler", tags)
    latest = Latest()
    latest.add(device)
    latest.update(
        Batch(
            device=device,
            tag=np.array([0, 2], dtype=np.uint32),
            value=np.array([9.5, 0.0]),
            quality=np.array([Quality.GOOD, Quality.BAD_TIMEOUT], dtype=np.uint32),
            time_ns=np.array([5_000_000_000, 5_000_000_000], dtype=np.int64),
        )
    )
    (view,) = gather.devices(latest, 7_000_000_000)
    assert [(row.tag, row.value, row.quality) for row in view.rows] == [("a", "9.500", ""), ("b", "-", "waiting"), ("c", "-", "timeout")]
    assert [row.age_s for row in view.rows] == [2.0, 0.0, 2.0]
    assert not view.lost


@pytest.mark.parametrize("code", list(Quality))
def test_a_quality_is_told_in_a_word(code: Quality) -> None:
    """Every quality fits its column, and only good ones say nothing."""
    assert len(gather.quality(code)) <= 10
    assert (gather.quality(code) == "") is (code is Quality.GOOD)


@pytest.mark.parametrize(
    ("value", "said"),
    [
        (True, "on"),
        (1.5, "1.500"),
        (-231.226, "-231.23"),
        (640112.4479, "640112.4"),
        (2**63, str(2**63)),
        ("FT", "FT"),
        (b"\x01\xff", "01 ff"),
    ],
)
def test_values_are_written_for_a_person(value: object, said: str) -> None:
    """Floats get the digits that help, integers all of theirs."""
    assert gather.written(value) == said


def test_the_99th_percentile_is_a_bound() -> None:
    """99 of 100 scans within a millisecond: the bound is a millisecond; with 98 it is that of the slower ones."""
    buckets = [0] * 12
    buckets[0], buckets[5] = 99, 1
    assert gather.lateness_p99_s([buckets]) == 0.001
    buckets[0], buckets[5] = 98, 2
    assert gather.lateness_p99_s([buckets]) == 0.05
    assert gather.lateness_p99_s([[0] * 12]) == 0.0
    assert gather.lateness_p99_s([]) == 0.0


def test_rates_are_taken_over_the_last_seconds() -> None:
    """A counter that rises by 10 scans a second shows 10 per second, and what is long past does not count."""
    rates, stats = gather.Rates(), ScanStats()
    status = Status("connection", "line", counters=Counters(errors=Counter()))
    for second in range(20):
        stats.scans, status.counters.taken = 10 * second, 100 * second
        shown = rates.scanning([status], {"line": stats}, 1000.0 + second)
    assert (shown.per_s, shown.values_per_s, shown.scans) == (10.0, 100.0, 190)
    stats.missed = 3
    assert rates.scanning([status], {"line": stats}, 1100.0).per_s == 0.0
    assert rates.scanning([status], {"line": stats}, 1101.0).missed == 3
