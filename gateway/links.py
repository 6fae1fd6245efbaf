"""Keeps one connection alive for ever: back-off with jitter, *lost* said once, *back* said once, everything counted.

It serves connections to the field and uplinks alike. What it keeps is a *session*: a coroutine function that connects,
calls ``up()`` when the peer has proven itself, works, and raises one of the driver contract's three errors (returning is
the same as being unreachable). Nothing else in Holdfast retries a connection.
"""

from __future__ import annotations

import random
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Final

import structlog

from gateway.counters import Counters
from protocols.clock import Clock
from protocols.contract import DriverError, Misfit, Refused, Unreachable
from protocols.secret import SecretMissing

log = structlog.get_logger("holdfast.link")

FIRST_WAIT_S: Final = 0.5
LONGEST_WAIT_S: Final[dict[type[Exception], float]] = {Unreachable: 8.0, Refused: 60.0, Misfit: 60.0, SecretMissing: 60.0}
"""A refusal is retried rarely: only a person can mend it, and hammering may lock an account."""
STABLE_AFTER_S: Final = 10.0
"""A session that lived this long starts the back-off anew; a shorter one (a flapping peer) does not."""


class State(StrEnum):
    CONNECTING = "connecting"
    UP = "up"
    WAITING = "waiting"
    STOPPED = "stopped"


@dataclass(slots=True)
class Status:
    """What a person may know of a link at any moment."""

    kind: str
    """``connection`` or ``uplink``."""
    name: str
    state: State = State.CONNECTING
    since_ns: int = 0
    trouble: str = ""
    """The last error, empty while up."""
    sessions: int = 0
    """How often the peer has been reached."""
    counters: Counters = field(default_factory=Counters)


Up = Callable[[], None]
Session = Callable[[Up], Awaitable[None]]
"""``await session(up)``: runs until trouble."""


async def keep(session: Session, status: Status, *, clock: Clock, on_lost: Callable[[], None] = lambda: None) -> None:
    """Run ``session`` again and again, until cancelled. ``on_lost`` is called each time an established link is lost
    and once when the very first attempt fails, so that nobody waits for data that will not come."""
    wait_s = FIRST_WAIT_S
    said: str | None = None
    told_lost = False
    began = float("inf")

    def up() -> None:
        nonlocal said, told_lost, began
        began = clock.monotonic()
        if status.sessions and said is not None:
            log.info("back", kind=status.kind, name=status.name)
        status.state, status.trouble, status.since_ns = State.UP, "", clock.time_ns()
        status.sessions += 1
        said, told_lost = None, False

    try:
        while True:
            began = float("inf")
            status.state = State.CONNECTING
            try:
                await session(up)
                trouble: Exception = Unreachable(f"{status.name}: the peer closed the connection: it will be tried again")
            except (DriverError, SecretMissing) as error:
                trouble = error
            except Exception as error:  # the outer loop: a bug in one session must not stop its neighbours
                log.exception("session_failed", kind=status.kind, name=status.name)
                trouble = error
            reason = type(trouble).__name__
            status.counters.errors[reason] += 1
            status.state, status.trouble, status.since_ns = State.WAITING, str(trouble), clock.time_ns()
            if said != reason:
                log.warning("lost", kind=status.kind, name=status.name, reason=reason, trouble=str(trouble))
                said = reason
            if not told_lost:
                told_lost = True
                on_lost()
            if clock.monotonic() - began >= STABLE_AFTER_S:
                wait_s = FIRST_WAIT_S
            await clock.sleep_until(clock.monotonic() + wait_s * random.uniform(0.5, 1.0))
            wait_s = min(wait_s * 2, LONGEST_WAIT_S.get(type(trouble), LONGEST_WAIT_S[Unreachable]))
    finally:
        status.state, status.since_ns = State.STOPPED, clock.time_ns()
