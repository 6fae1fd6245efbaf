"""What the demonstration says is true of what it counted."""

from __future__ import annotations

from dataclasses import replace

import pytest

from gateway.demo.view import Account, Broker, Far, Outage, View, age, is_whole, report, size, spark, verdict

WHOLE = View(
    gateway="g/n",
    elapsed_s=30.0,
    broker=Broker("mosquitto", up=True),
    account=Account(appended=100, acknowledged=100),
    far=Far(received=100, values=900, duplicate=3, marks=7),
)


def test_a_whole_run_is_ok() -> None:
    """Everything appended is acknowledged and arrived: ok, and duplicates do not matter."""
    assert is_whole(WHOLE)
    assert verdict(WHOLE) == "lost 0, missing 0"
    assert report(WHOLE, Outage())["ok"] is True


@pytest.mark.parametrize(
    "view",
    [
        replace(WHOLE, account=Account(appended=100, acknowledged=99, dropped=1)),
        replace(WHOLE, account=Account(appended=100, acknowledged=99, quarantined=1)),
        replace(WHOLE, account=Account(appended=100, acknowledged=99, pending=1)),
        replace(WHOLE, account=Account(appended=100, acknowledged=99)),
        replace(WHOLE, account=Account(), far=Far()),
        replace(WHOLE, far=replace(WHOLE.far, missing=1)),
        replace(WHOLE, far=replace(WHOLE.far, received=99)),
        replace(WHOLE, far=replace(WHOLE.far, unsure="no mark was seen")),
    ],
    ids=["dropped", "quarantined", "pending", "unbalanced", "nothing happened", "missing", "not all received", "unsure"],
)
def test_anything_else_is_not_ok(view: View) -> None:
    """One lost, missing, pending or unaccounted record, or an unsure consumer, and the run is not ok."""
    assert not is_whole(view)
    assert report(view, Outage())["ok"] is False


def test_the_verdict_names_what_was_lost() -> None:
    """Dropped and quarantined records are lost; an account that does not add up is said."""
    assert verdict(replace(WHOLE, account=Account(appended=9, acknowledged=6, dropped=2, quarantined=1))).startswith("lost 3, ")
    assert "does not balance" in verdict(replace(WHOLE, account=Account(appended=9, acknowledged=6)))
    assert "no mark" in verdict(replace(WHOLE, far=replace(WHOLE.far, unsure="no mark was seen")))


def test_what_can_still_come_is_not_held_against_anybody() -> None:
    """Missing records that the gateway still holds are missing so far; when it holds none, they are missing."""
    assert "so far" in verdict(
        replace(WHOLE, account=Account(appended=100, acknowledged=90, pending=10), far=replace(WHOLE.far, missing=10))
    )
    assert verdict(replace(WHOLE, far=replace(WHOLE.far, missing=10))) == "lost 0, missing 10"


def test_the_report_tells_the_outage() -> None:
    """An outage is reported with its length, its peak and how long the drain took; without one there is none."""
    cut = Outage(asked_s=20, began_s=8.0, ended_s=28.2, drained_s=30.0, peak=412)
    assert report(WHOLE, cut)["outage"] == {"seconds": 20.2, "pending_peak": 412, "drained_in_s": 1.8}
    assert report(WHOLE, Outage())["outage"] is None


def test_bars_grow_with_their_values() -> None:
    """The highest value reaches the top, only zero stays at the bottom."""
    assert spark((0, 4, 8), 10) == "▁▅█"
    assert spark((0, 0), 10) == "▁▁"
    assert spark((0, 1, 1000), 10) == "▁▂█"
    assert spark((), 10) == spark((1, 2), 0) == ""


def test_bars_keep_the_peaks_of_what_does_not_fit() -> None:
    """Where there are more values than room, neighbours share a bar, and the highest of them shows."""
    assert spark((9, 0, 0, 0, 0, 7), 3) == "█▁▇"
    assert len(spark(range(241), 60)) <= 60


@pytest.mark.parametrize(("seconds", "said"), [(0.44, "0.4 s"), (12.4, "12 s"), (600, "10 min")])
def test_ages_are_short(seconds: float, said: str) -> None:
    """An age takes at most six characters."""
    assert age(seconds) == said


@pytest.mark.parametrize(
    ("count", "said"), [(0, "0 B"), (999, "999 B"), (1_234, "1.2 kB"), (5_600_000, "5.6 MB"), (7_000_000_000_000, "7000.0 GB")]
)
def test_sizes_are_in_powers_of_1000(count: int, said: str) -> None:
    assert size(count) == said
