"""What runs at a start, and how long a trial has left, case by case."""

from __future__ import annotations

import msgspec
import pytest

from gateway.revisions.decide import MOST_STARTS, Deadline, Known, Start, remaining_s, start

BOOT, NOW = "this run", 1000.0
DEADLINE = Deadline(within_s=120, until_ns=0, boot=BOOT, until=NOW + 60)
TRIAL = Known(confirmed=3, trial=4, deadline=DEADLINE, file="f")


def with_(**changed: object) -> Known:
    return msgspec.structs.replace(TRIAL, deadline=msgspec.structs.replace(DEADLINE, **changed))


@pytest.mark.parametrize(
    ("known", "file", "runs"),
    [
        (Known(), "f", Start(run="file")),
        (Known(confirmed=3, file="f"), "f", Start(run="confirmed")),
        (Known(confirmed=3, file="f"), "g", Start(run="file")),
        (Known(confirmed=3, file="f"), "", Start(run="confirmed")),
        (TRIAL, "f", Start(run="trial")),
        (TRIAL, "g", Start(run="file", over="the file was changed")),
    ],
)
def test_what_runs_at_a_start(known: Known, file: str, runs: Start) -> None:
    """The file where it is new, else what is on trial, else what was confirmed."""
    assert start(known, file, BOOT, NOW) == runs


@pytest.mark.parametrize(
    ("known", "word"),
    [
        (with_(until=NOW), "within 120 s"),
        (with_(until=NOW - 1e6), "within 120 s"),
        (with_(until=NOW + 121), "within 120 s"),
        (with_(boot="another run"), "machine was restarted"),
        (with_(boot=""), "machine was restarted"),
        (with_(starts=MOST_STARTS), f"ended {MOST_STARTS} times"),
    ],
)
def test_a_trial_that_is_over_or_whose_time_nobody_can_know_is_not_started(known: Known, word: str) -> None:
    """After its time, after a restart of the machine, with a clock that says what cannot be, and where it ends the process."""
    begun = start(known, "f", BOOT, NOW)
    assert begun.run == "confirmed"
    assert word in begun.over


def test_a_machine_that_does_not_say_which_run_it_is_keeps_no_trial_over_a_start() -> None:
    assert start(with_(boot=""), "f", "", NOW).run == "confirmed"


@pytest.mark.parametrize(("now", "left"), [(NOW, 60), (NOW + 59, 1), (NOW + 60, 0), (NOW - 60, 120), (NOW - 61, 0)])
def test_the_time_that_is_left(now: float, left: float) -> None:
    assert remaining_s(DEADLINE, BOOT, now) == left
