"""The ring is bounded in frames and bytes, and gives what was there before trouble came."""

from __future__ import annotations

import asyncio
from contextlib import aclosing

from protocols.clock import ManualClock, SystemClock
from protocols.trace.ring import FRAME_COST, Frame, Recorder, Ring, Way


def frame(number: int, trouble: str = "", size: int = 8) -> Frame:
    return Frame(number, Way.SENT, bytes(size), trouble)


def test_the_oldest_frames_leave_a_full_ring_and_are_counted() -> None:
    ring = Ring(max_frames=3)
    for number in range(5):
        ring.append(frame(number))
    assert (len(ring), ring.overwritten) == (3, 2)
    assert [ring.pop(), ring.pop()] == [frame(2), frame(3)]


def test_bytes_bound_the_ring_too_and_come_back_when_frames_leave() -> None:
    ring = Ring(max_bytes=10 * (FRAME_COST + 1000))
    for number in range(1000):
        ring.append(frame(number, size=1000))
    assert len(ring) == 10
    while ring.pop():
        pass
    assert ring.size == 0


def test_a_frame_larger_than_the_ring_is_kept_alone() -> None:
    ring = Ring(max_bytes=100)
    ring.append(frame(1))
    ring.append(frame(2, size=5000))
    assert len(ring) == 1


async def test_frames_come_as_they_pass_until_the_time_is_over() -> None:
    recorder, clock = Recorder(Ring()), SystemClock()
    async with aclosing(recorder.frames(clock, 60.0)) as frames:
        recorder.take(frame(1))
        assert await anext(frames) == frame(1)
        waiting = asyncio.ensure_future(anext(frames))
        await asyncio.sleep(0)
        recorder.take(frame(2))
        assert await waiting == frame(2)


async def test_time_that_is_over_ends_it() -> None:
    recorder = Recorder(Ring())
    recorder.take(frame(1))
    assert [one async for one in recorder.frames(ManualClock(), 0.0)] == [frame(1)]


async def test_around_trouble_what_was_before_and_some_of_what_follows_is_given() -> None:
    recorder = Recorder(Ring(), after_frames=2)
    for number in range(3):
        recorder.take(frame(number))
    recorder.take(frame(3, "exception 2"))
    recorder.take(frame(4))
    recorder.take(frame(5))
    given = [one async for one in recorder.frames_around_trouble(SystemClock(), 60.0) if one is not None]
    assert [one.time_ns for one in given] == [0, 1, 2, 3, 4, 5]
    assert recorder.trouble == "exception 2"


async def test_without_trouble_the_end_of_time_gives_what_is_there() -> None:
    recorder = Recorder(Ring())
    recorder.take(frame(1))
    given = [one async for one in recorder.frames_around_trouble(SystemClock(), 0.01) if one is not None]
    assert (given, recorder.trouble) == ([frame(1)], "")


async def test_whoever_waits_on_a_silent_wire_is_told_that_nothing_came() -> None:
    """So that a reader who has gone is noticed, and its trace ends."""
    async with aclosing(Recorder(Ring()).frames(SystemClock(), 60.0)) as frames:
        assert await anext(frames) is None
