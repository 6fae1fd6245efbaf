"""No jump of the wall clock makes records old, however long it lasts."""

from __future__ import annotations

from typing import Final

import msgspec
import pytest

from gateway.journal.age import SECOND_NS, Stored, TrustedTime
from gateway.journal.ledger import decode_state

DAY: Final = 86400
NOW: Final = 1_800_000_000
PLAUSIBLE: Final = 4.0 * DAY


def opened(wall: float, *, trusted: float = NOW, ahead: float = 0.0) -> TrustedTime:
    """Trusted time of a process that begins at monotonic 100."""
    return TrustedTime(Stored(round(trusted * SECOND_NS), round(ahead * SECOND_NS)), round(wall * SECOND_NS), 100.0, PLAUSIBLE)


def seconds(trusted: TrustedTime, wall: float, after: float) -> int:
    return round(trusted.now(round(wall * SECOND_NS), 100.0 + after).trusted_ns / SECOND_NS)


@pytest.mark.parametrize("wall", [0, NOW - DAY, NOW + 30, NOW + DAY, NOW + 4000 * DAY])
def test_while_it_runs_it_goes_by_the_monotonic_clock_alone(wall: float) -> None:
    trusted = opened(NOW)
    for hour in range(24 * 40):
        assert seconds(trusted, wall + hour * 3600, hour * 3600.0) == NOW + hour * 3600


@pytest.mark.parametrize(
    ("wall", "believed"),
    [
        (NOW + 60, 60),
        (NOW + 4 * DAY, 4 * DAY),
        (NOW + 4 * DAY + 1, 0),  # off for longer than is believed at once
        (NOW + 60 * DAY, 0),
        (NOW + 4000 * DAY, 0),
        (NOW - 1, 0),
        (30, 0),
    ],
)
def test_across_a_stop_it_goes_on_by_what_is_plausible(wall: float, believed: int) -> None:
    assert seconds(opened(wall), wall, 0.0) == NOW + believed
    assert seconds(opened(wall), wall, 5.0) == NOW + believed + 5


def test_a_step_that_was_not_taken_over_does_not_spoil_the_next_stop() -> None:
    """Booted in 1970, set to the right time, stopped for an hour: the stop took an hour."""
    first = opened(40, trusted=0)
    kept = first.now(NOW * SECOND_NS, 100.0 + 20)
    assert kept.trusted_ns == 60 * SECOND_NS
    after = TrustedTime(Stored(kept.trusted_ns, kept.ahead_ns), (NOW + 3600) * SECOND_NS, 5.0, PLAUSIBLE)
    assert after.now((NOW + 3600) * SECOND_NS, 5.0).trusted_ns == (60 + 3600) * SECOND_NS


def test_a_journal_that_knows_nothing_begins_with_the_wall_clock() -> None:
    assert seconds(opened(NOW + 5, trusted=0), NOW + 5, 0.0) == NOW + 5


def test_a_state_of_before_says_that_the_clocks_agreed() -> None:
    written = [7, 3, 120, 0, NOW * SECOND_NS, 3000, {}, 2, [], {}, 1, [3, 100, 119]]
    state = decode_state(msgspec.msgpack.encode(written))
    assert state is not None
    assert (state.trusted_ns, state.ahead_ns) == (NOW * SECOND_NS, 0)
