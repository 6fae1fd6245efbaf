"""One connection kept alive: back-off, lost and back said once, everything counted."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import pytest
from structlog.testing import capture_logs

from gateway.links import LONGEST_WAIT_S, State, Status, Up, keep
from gateway.tasks import cancel
from protocols.clock import ManualClock
from protocols.contract import Misfit, Refused, Unreachable

Step = Callable[[Up], Awaitable[None]]


async def unreachable(up: Up) -> None:
    raise Unreachable("10.0.0.9:502 does not answer: is it powered?")


class Peer:
    """Plays one step a session and counts them; after the last it hangs."""

    def __init__(self, *steps: Step) -> None:
        self.steps = list(steps)
        self.sessions = 0

    async def session(self, up: Up) -> None:
        self.sessions += 1
        if self.steps:
            await self.steps.pop(0)(up)
        else:
            up()
            await asyncio.Event().wait()


async def test_a_lost_link_is_tried_again_until_it_is_back_and_each_is_said_once() -> None:
    clock, status = ManualClock(), Status("connection", "boiler-house")
    peer = Peer(*[unreachable] * 5)
    losses: list[int] = []
    with capture_logs() as logs:
        task = asyncio.create_task(keep(peer.session, status, clock=clock, on_lost=lambda: losses.append(peer.sessions)))
        await clock.advance(120)
        assert status.state is State.UP
        assert status.trouble == ""
        await cancel(task)
    assert peer.sessions == 6
    assert losses == [1]
    assert [entry["event"] for entry in logs] == ["lost"]
    assert status.counters.errors == {"Unreachable": 5}
    assert str(status.state) == "stopped"


async def test_back_is_said_once_after_an_established_link_was_lost() -> None:
    async def works_then_breaks(up: Up) -> None:
        up()
        raise Unreachable("reset by peer")

    clock, status = ManualClock(), Status("uplink", "cloud")
    with capture_logs() as logs:
        task = asyncio.create_task(keep(Peer(works_then_breaks, unreachable, unreachable).session, status, clock=clock))
        await clock.advance(60)
        await cancel(task)
    assert [entry["event"] for entry in logs] == ["lost", "back"]
    assert status.sessions == 2


@pytest.mark.parametrize("error", [Unreachable, Refused, Misfit])
async def test_waits_grow_to_the_bound_of_their_reason_and_no_further(error: type[Exception]) -> None:
    async def fails(up: Up) -> None:
        raise error("no")

    clock, status = ManualClock(), Status("uplink", "cloud")
    peer = Peer(*[fails] * 10_000)
    with capture_logs():
        task = asyncio.create_task(keep(peer.session, status, clock=clock))
        await clock.advance(3600)
        before = peer.sessions
        await clock.advance(3600)
        await cancel(task)
    longest = LONGEST_WAIT_S[error]
    assert 3600 / longest - 1 <= peer.sessions - before <= 3600 / (longest * 0.5) + 1


async def test_a_bug_in_a_session_is_logged_with_its_trace_and_does_not_end_the_link() -> None:
    async def bug(up: Up) -> None:
        raise KeyError("bug")

    clock, status = ManualClock(), Status("connection", "boiler-house")
    with capture_logs() as logs:
        task = asyncio.create_task(keep(Peer(bug).session, status, clock=clock))
        await clock.advance(10)
        assert status.state is State.UP
        await cancel(task)
    assert [entry["event"] for entry in logs] == ["session_failed", "lost"]


async def test_a_changed_reason_is_said_again() -> None:
    async def refused(up: Up) -> None:
        raise Refused("not authorised")

    clock, status = ManualClock(), Status("uplink", "cloud")
    with capture_logs() as logs:
        task = asyncio.create_task(keep(Peer(unreachable, unreachable, refused, refused).session, status, clock=clock))
        await clock.advance(300)
        await cancel(task)
    assert [entry.get("reason") for entry in logs] == ["Unreachable", "Refused"]
