"""What an uplink sends next: lanes, live and history, shares, and nothing forgotten."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import pytest

from gateway.journal.record import Lane, Lost, Record
from gateway.uplink.feed import LIVE_LAG_S, PORTION_S, Feed, Portion
from protocols.clock import ManualClock
from tests.gateway.uplink.shelf import Shelf

EVENTS, TELEMETRY = Lane.EVENTS, Lane.TELEMETRY


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture
def shelf(clock: ManualClock) -> Shelf:
    return Shelf(clock)


def feed_of(shelf: Shelf, clock: ManualClock, *, share: float = 1.0, records: int = 10) -> Feed:
    return Feed(shelf, clock=clock, backfill_share=share, max_records=records, max_bytes=1 << 20)


def told(portion: Portion) -> tuple[Lane, int, int, bool]:
    return portion.lane, portion.first, portion.last, portion.historical


async def taken(feed: Feed) -> Portion:
    """The next portion, over a link that takes no time."""
    portion = await feed.next()
    feed.passed(portion)
    return portion


async def now(feed: Feed) -> Portion | None:
    """The next portion if there is one without time going by; it has passed."""
    task = asyncio.ensure_future(feed.next())
    for _ in range(50):
        await asyncio.sleep(0)
    if task.done():
        feed.passed(task.result())
        return task.result()
    task.cancel()
    await asyncio.wait([task])
    return None


async def test_what_comes_after_the_connection_is_live_and_what_was_before_is_history(shelf: Shelf, clock: ManualClock) -> None:
    shelf.put(3)
    feed = feed_of(shelf, clock)
    feed.begin()
    shelf.put(2)
    assert [told(await taken(feed)), told(await taken(feed))] == [(TELEMETRY, 4, 5, False), (TELEMETRY, 1, 3, True)]
    assert await now(feed) is None


async def test_events_go_before_telemetry_even_as_history(shelf: Shelf, clock: ManualClock) -> None:
    shelf.put(1)
    shelf.put(1, EVENTS)
    feed = feed_of(shelf, clock)
    feed.begin()
    shelf.put(1)
    shelf.put(1, EVENTS)
    order = [told(await taken(feed)) for _ in range(4)]
    assert order == [(EVENTS, 2, 2, False), (EVENTS, 1, 1, True), (TELEMETRY, 2, 2, False), (TELEMETRY, 1, 1, True)]


async def test_next_waits_for_what_is_appended(shelf: Shelf, clock: ManualClock) -> None:
    feed = feed_of(shelf, clock)
    feed.begin()
    waiting = asyncio.ensure_future(feed.next())
    await asyncio.sleep(0)
    shelf.put(1)
    assert told(await waiting) == (TELEMETRY, 1, 1, False)


async def test_a_cancelled_next_loses_nothing(shelf: Shelf, clock: ManualClock) -> None:
    feed = feed_of(shelf, clock)
    feed.begin()
    for turns in range(6):
        waiting = asyncio.ensure_future(feed.next())
        for _ in range(turns):
            await asyncio.sleep(0)
        waiting.cancel()
        await asyncio.wait([waiting])
    shelf.put(2)
    assert told(await taken(feed)) == (TELEMETRY, 1, 2, False)


async def test_what_was_not_acknowledged_is_history_on_the_next_connection(shelf: Shelf, clock: ManualClock) -> None:
    feed = feed_of(shelf, clock, records=2)
    feed.begin()
    shelf.put(6)
    portions = [await taken(feed) for _ in range(3)]
    feed.acknowledge(portions[1])
    feed.begin()
    assert [told(await taken(feed)) for _ in range(2)] == [(TELEMETRY, 1, 2, True), (TELEMETRY, 5, 6, True)]
    assert await now(feed) is None


async def test_what_is_to_go_again_goes_as_history_at_once(shelf: Shelf, clock: ManualClock) -> None:
    feed = feed_of(shelf, clock)
    feed.begin()
    shelf.put(2)
    portion = await taken(feed)
    waiting = asyncio.ensure_future(feed.next())
    await asyncio.sleep(0)
    feed.again(portion)
    assert told(await waiting) == (TELEMETRY, 1, 2, True)


async def test_what_the_journal_dropped_meanwhile_is_told_as_lost(shelf: Shelf, clock: ManualClock) -> None:
    """It is pending no more, but the receiver was to get it: it must learn that it will not."""
    feed = feed_of(shelf, clock)
    feed.begin()
    shelf.put(2)
    feed.acknowledge(await taken(feed))
    shelf.put(2)
    await taken(feed)
    shelf.put(4)
    shelf.drop(3, 6)
    feed.begin()
    portions = [await taken(feed), await taken(feed)]
    assert [told(portion) for portion in portions] == [(TELEMETRY, 3, 6, True), (TELEMETRY, 7, 8, True)]
    assert [type(entry) for portion in portions for entry in portion.entries] == [Lost] * 4 + [Record] * 2
    for portion in portions:
        feed.acknowledge(portion)
    feed.begin()
    assert await now(feed) is None


async def test_a_portion_stays_in_one_epoch_and_tells_what_was_before(shelf: Shelf, clock: ManualClock) -> None:
    feed = feed_of(shelf, clock)
    feed.begin()
    shelf.put(2)
    shelf.new_epoch()
    shelf.put(2)
    first, second = await taken(feed), await taken(feed)
    assert (first.epoch, first.first, first.last, first.previous) == (1, 1, 2, None)
    assert (second.epoch, second.first, second.last, second.previous) == (2, 3, 4, (1, 2))


async def test_history_takes_its_share_while_live_records_flow(shelf: Shelf, clock: ManualClock) -> None:
    """A portion of history that took 0.3 s is followed by 0.9 s for others, at a share of a quarter."""
    shelf.put(40)
    feed = feed_of(shelf, clock, share=0.25)
    feed.begin()
    shelf.put(1)
    assert not (await taken(feed)).historical
    history = await feed.next()
    assert history.historical
    await clock.advance(0.3)
    feed.passed(history)
    assert await now(feed) is None
    await clock.advance(0.5)
    shelf.put(1)
    assert not (await taken(feed)).historical
    assert await now(feed) is None
    waiting = asyncio.ensure_future(feed.next())
    await clock.advance(0.5)
    assert told(await waiting) == (TELEMETRY, 5, 8, True)


async def test_history_has_the_link_alone_where_nothing_is_live(shelf: Shelf, clock: ManualClock) -> None:
    shelf.put(40)
    feed = feed_of(shelf, clock, share=0.01)
    feed.begin()
    last = 0
    for _ in range(4):
        portion = await feed.next()
        assert told(portion)[1:] == (last + 1, portion.last, True)
        last = portion.last
        await clock.advance(0.3)
        feed.passed(portion)
    assert last == 4 + 8 + 10 + 10


async def sizes_over(feed: Feed, clock: ManualClock, took: Sequence[float]) -> list[int]:
    """How large portions of history get while each takes so long until the far end answers."""
    sizes = []
    for seconds in took:
        portion = await feed.next()
        assert portion.historical
        sizes.append(portion.last - portion.first + 1)
        await clock.advance(seconds)
        feed.passed(portion)
    return sizes


async def test_portions_of_history_fit_the_link(shelf: Shelf, clock: ManualClock) -> None:
    """They double while the link takes one at once, and shrink to what it takes in PORTION_S."""
    shelf.put(1000)
    feed = feed_of(shelf, clock, records=20)
    feed.begin()
    took = (0.0, 0.0, 0.0, 0.0, PORTION_S * 2, PORTION_S * 4, PORTION_S * 4, 0.0, 0.0)
    assert await sizes_over(feed, clock, took) == [4, 8, 16, 20, 20, 10, 4, 4, 8]


async def test_one_portion_of_history_is_on_its_way_at_a_time_and_live_ones_overtake(shelf: Shelf, clock: ManualClock) -> None:
    """What queues on the way take at once is not what the link has carried: nothing more goes in before the far end answers."""
    shelf.put(40)
    feed = feed_of(shelf, clock)
    feed.begin()
    history = await feed.next()
    assert history.historical
    for _ in range(3):
        shelf.put(1)
        assert not (await taken(feed)).historical
        assert await now(feed) is None
        await clock.advance(1.0)
    feed.passed(history)
    assert told(await taken(feed))[1:] == (5, 12, True)


async def test_a_long_way_is_not_a_narrow_one(shelf: Shelf, clock: ManualClock) -> None:
    """A round trip of 0.7 s (a satellite), seen with live records alone on the link, neither shrinks portions nor makes pauses."""
    shelf.put(1000)
    feed = feed_of(shelf, clock, share=0.1, records=40)
    feed.begin()
    shelf.put(1)
    live = await feed.next()
    assert not live.historical
    await clock.advance(0.7)
    feed.passed(live)
    assert await sizes_over(feed, clock, [0.7] * 6) == [4, 8, 16, 32, 40, 40]


async def test_an_answer_to_an_earlier_connection_says_nothing_of_this_one(shelf: Shelf, clock: ManualClock) -> None:
    shelf.put(40)
    feed = feed_of(shelf, clock)
    feed.begin()
    before = await feed.next()
    feed.begin()
    assert (await feed.next()).historical
    feed.passed(before)
    assert await now(feed) is None


async def test_live_that_falls_behind_becomes_history(shelf: Shelf, clock: ManualClock) -> None:
    feed = feed_of(shelf, clock, records=5)
    feed.begin()
    shelf.put(20)
    assert told(await taken(feed)) == (TELEMETRY, 1, 5, False)
    await clock.advance(LIVE_LAG_S + 1)
    shelf.put(1)
    assert told(await taken(feed)) == (TELEMETRY, 6, 9, True)
    shelf.put(1)
    assert told(await taken(feed)) == (TELEMETRY, 22, 22, False)
    rest = [await taken(feed) for _ in range(3)]
    assert [told(portion)[1:] for portion in rest] == [(10, 14, True), (15, 19, True), (20, 21, True)]


@pytest.mark.parametrize("jump_s", [-86_400, 86_400, 3600])
async def test_a_wall_clock_that_jumps_loses_nothing(shelf: Shelf, clock: ManualClock, jump_s: int) -> None:
    feed = feed_of(shelf, clock)
    feed.begin()
    shelf.put(3)
    clock.set_time_ns(clock.time_ns() + jump_s * 1_000_000_000)
    shelf.put(3)
    seqs: list[int] = []
    while (portion := await now(feed)) is not None:
        seqs += range(portion.first, portion.last + 1)
    assert sorted(seqs) == [1, 2, 3, 4, 5, 6]


async def test_waiting_counts_what_was_not_handed_out(shelf: Shelf, clock: ManualClock) -> None:
    shelf.put(12)
    feed = feed_of(shelf, clock)
    feed.begin()
    shelf.put(3)
    assert (feed.waiting(TELEMETRY), feed.waiting(EVENTS)) == (15, 0)
    await taken(feed)
    assert feed.waiting(TELEMETRY) == 12


async def test_a_journal_that_gives_nothing_is_not_asked_without_pause(
    shelf: Shelf, clock: ManualClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = 0

    async def nothing(*_: object, **__: object) -> list[Record | Lost]:
        nonlocal asked
        asked += 1
        return []

    feed = feed_of(shelf, clock)
    feed.begin()
    shelf.put(1)
    with monkeypatch.context() as patch:
        patch.setattr(shelf, "read", nothing)
        assert await now(feed) is None
        assert asked == 1
    assert told(await taken(feed)) == (TELEMETRY, 1, 1, False)
