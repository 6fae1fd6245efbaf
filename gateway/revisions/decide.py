"""What runs at a start, and how long a trial has left. Pure.

A trial's time is counted by the machine's monotonic clock, which no wall clock that jumps, or is wrong at boot, can change. It
goes on when the process ends and starts again. It does not go on over a restart of the machine: then nobody knows how long the
machine was off, and the restart itself may be what the new document brought about; so an unconfirmed document is not started
after it. Nor is one that was started as often as MOST_STARTS without being confirmed: it may be what ends the process.

The file that the gateway was started with is taken where it is another than the one that was last taken: somebody laid it down.
Otherwise what was last confirmed runs, also where that came through the API.
"""

from __future__ import annotations

from typing import Final, Literal

import msgspec

MOST_STARTS: Final = 3
"""How often a document on trial is started, the swap counted as one."""


class Deadline(msgspec.Struct, frozen=True, kw_only=True):
    """When a trial is over."""

    within_s: float
    until_ns: int
    """By the wall clock: for people."""
    boot: str
    """Which run of the machine ``until`` belongs to (``/proc/sys/kernel/random/boot_id``)."""
    until: float
    """By the monotonic clock."""
    starts: int = 1
    confirms_itself: bool = False
    """Nobody has to confirm it: it only has to run."""


class Known(msgspec.Struct, frozen=True, kw_only=True):
    """What was kept about revisions; numbers are 0 where there is none."""

    confirmed: int = 0
    trial: int = 0
    deadline: Deadline | None = None
    file: str = ""
    """Identity of the file that was last taken."""


class Start(msgspec.Struct, frozen=True, kw_only=True):
    """What to run at a start."""

    run: Literal["file", "confirmed", "trial"]
    over: str = ""
    """Why the trial that there was is over; empty where it goes on or there was none."""


def remaining_s(deadline: Deadline, boot: str, now: float) -> float:
    """Seconds that a trial has left; 0 where it is over, or nobody can know."""
    left = deadline.until - now
    return left if boot and deadline.boot == boot and 0 < left <= deadline.within_s else 0.0


def start(known: Known, file: str, boot: str, now: float) -> Start:
    """What to run, given what was kept, the identity of the file as it is now (empty: there is none that can be used), and the time."""
    new_file = bool(file) and file != known.file
    over = _over(known, boot, now)
    if new_file or not (known.confirmed or known.trial):
        return Start(run="file", over=over or ("the file was changed" if known.trial else ""))
    if known.trial and not over:
        return Start(run="trial")
    return Start(run="confirmed", over=over) if known.confirmed else Start(run="file", over=over)


def _over(known: Known, boot: str, now: float) -> str:
    if not known.trial or known.deadline is None:
        return ""
    if known.deadline.boot != boot or not boot:
        return "the machine was restarted before it was confirmed"
    if not remaining_s(known.deadline, boot, now):
        return f"it was not confirmed within {known.deadline.within_s:g} s"
    if known.deadline.starts >= MOST_STARTS:
        return f"the gateway ended {known.deadline.starts} times while it ran unconfirmed"
    return ""
