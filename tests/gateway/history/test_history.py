"""Bounds, gaps, wiped devices, other journals: what history does when things are not as usual."""

from __future__ import annotations

import asyncio
import contextlib
import shutil
import sqlite3
import sys
from pathlib import Path

import pytest

from gateway import links
from gateway.config.history import History as Options
from gateway.config.model import JournalOptions
from gateway.history.export import format_of
from gateway.history.history import Found, History
from gateway.history.store import FILE, Store
from gateway.journal import Journal, Lane
from gateway.objections import NotThere, TooLarge, TooMany, Unavailable, Unfit
from gateway.tasks import cancel
from protocols.clock import SystemClock
from protocols.model import Batch, Device, Kind, Tag
from tests.gateway.history.plant import BEGAN_NS, METER, MINUTE_NS, SECOND_NS, Kept, batch, caught_up, kept

HOUR_NS = 60 * MINUTE_NS
FAR_NS = BEGAN_NS + 1000 * HOUR_NS
WIDE = Device("hall", "wide", tuple(Tag(name=f"t{at}", kind=Kind.FLOAT64) for at in range(300)))


def wide(number: int, at_ns: int) -> Batch:
    return batch(WIDE, list(range(300)), [number * 1.1 + slot / 7 for slot in range(300)], [at_ns] * 300)


def of_minutes(count: int, value: float = 1.0) -> list[Batch]:
    return [batch(METER, [0], [value + minute], [BEGAN_NS + minute * MINUTE_NS]) for minute in range(count)]


async def found_in(history: History, device: str, tag: str, from_ns: int = 0, to_ns: int = FAR_NS) -> list[float]:
    async with history.turn():
        page = await history.page(history.find(device, tag), from_ns, to_ns, 10**6)
    return [float(each) for each in page.samples.value]


async def test_it_stays_within_its_bytes_and_the_oldest_goes_first(tmp_path: Path) -> None:
    async with kept(tmp_path, max_bytes=16 * 2**20) as one:
        for window in range(40):
            await one.offer(*(wide(minute, BEGAN_NS + (window * 15 + minute) * MINUTE_NS) for minute in range(15)))
            await caught_up(one.history)
            await one.history.follower.save()
        store = one.history.follower.store
        store._max_bytes = 3 * 2**20
        await one.offer(wide(1, BEGAN_NS + 41 * 15 * MINUTE_NS))
        await caught_up(one.history)
        await one.history.follower.save()
        size = await one.history.follower.ask(lambda: store.size)
        assert size < 3 * 2**20
        async with one.history.turn():
            buckets = await one.history.buckets(one.history.find("wide", "t299"), BEGAN_NS, BEGAN_NS + 42 * 15 * MINUTE_NS, 15 * MINUTE_NS)
        kept_windows = [int(count) for count in buckets.count]
        gone = kept_windows.index(15)
        assert 0 < gone < 40
        assert kept_windows == [0] * gone + [15] * (40 - gone) + [0, 1]


async def test_what_the_journal_has_dropped_is_told_as_a_gap_and_its_trend_stays(tmp_path: Path) -> None:
    async with kept(tmp_path, journal={"max_bytes": 16 * 2**20}) as one:
        at = 0
        while one.journal.first(Lane.TELEMETRY) == 1:
            await one.offer(*(wide(minute, BEGAN_NS + (at + minute) * SECOND_NS) for minute in range(200)))
            at += 200
            await caught_up(one.history)
        async with one.history.turn():
            found = one.history.find("wide", "t0")
            page = await one.history.page(found, 0, FAR_NS, 10**6)
            buckets = await one.history.buckets(found, BEGAN_NS, BEGAN_NS + at * SECOND_NS, MINUTE_NS)
        assert int(buckets.count.sum()) == at
        gone = at - len(page.samples)
        assert gone == one.journal.first(Lane.TELEMETRY) - 1
        assert {gap.reason for gap in page.gaps} == {"full"}
        assert sum(gap.records for gap in page.gaps) == gone
        assert page.gaps[0].from_ns <= BEGAN_NS


async def test_records_that_were_lost_are_a_gap_over_which_nothing_is_drawn(tmp_path: Path) -> None:
    async with kept(tmp_path) as one:
        now_ns = one.history._clock.time_ns() // SECOND_NS * SECOND_NS
        await one.offer(batch(METER, [0], [1.0], [now_ns - 5 * SECOND_NS]))
        huge = batch(METER, [3], ["x" * (2 * 2**20)], [now_ns])
        one.journal.offer(huge)  # too large: dropped and counted
        await one.offer(batch(METER, [0], [2.0], [now_ns + 5 * SECOND_NS]))
        async with one.history.turn():
            gaps = await one.history.gaps(now_ns - 60 * SECOND_NS, now_ns + 60 * SECOND_NS)
        assert [(gap.reason, gap.records) for gap in gaps] == [("too-large", 1)]
        await one.history.follower.save()
        async with one.history.turn():
            assert await one.history.gaps(now_ns - 60 * SECOND_NS, now_ns + 60 * SECOND_NS) == gaps


async def test_what_was_wiped_is_not_shown_in_any_way(tmp_path: Path) -> None:
    wiped: dict[str, int] = {}
    async with kept(tmp_path, wiped=wiped.get) as one:
        await one.offer(*of_minutes(30))
        assert len(await found_in(one.history, METER.name, "power")) == 30
        wiped[METER.name] = BEGAN_NS + 10 * MINUTE_NS
        assert await found_in(one.history, METER.name, "power") == [11.0 + minute for minute in range(20)]
        async with one.history.turn():
            found = one.history.find(METER.name, "power")
            buckets = await one.history.buckets(found, BEGAN_NS, BEGAN_NS + 30 * MINUTE_NS, MINUTE_NS)
            line = await one.history.line(found, BEGAN_NS, BEGAN_NS + 30 * MINUTE_NS, 100)
        assert buckets.count.tolist() == [0] * 10 + [1] * 20
        assert line.value[0] == 11.0


async def test_another_journal_in_its_place_is_noticed(tmp_path: Path) -> None:
    """Trends of before stay; where single values lay is forgotten, so that no value of now is shown for one of then."""
    async with kept(tmp_path) as one:
        await one.offer(*of_minutes(20))
        await caught_up(one.history)
        kept_history = tmp_path / "kept"
    shutil.copytree(tmp_path / "history", kept_history)
    shutil.rmtree(tmp_path / "journal")
    async with kept(tmp_path) as other:
        await other.offer(*[batch(METER, [4], [float(at)], [BEGAN_NS + 20 * HOUR_NS]) for at in range(40)])
        await caught_up(other.history)
        assert await found_in(other.history, METER.name, "power") == []
        assert len(await found_in(other.history, METER.name, "flow")) == 40
        async with other.history.turn():
            found = other.history.find(METER.name, "power")
            assert int((await other.history.buckets(found, BEGAN_NS, BEGAN_NS + HOUR_NS, HOUR_NS)).count.sum()) == 20


async def test_a_device_that_was_configured_anew_has_one_history(tmp_path: Path) -> None:
    longer = Device("hall", METER.name, (Tag(name="new", kind=Kind.BOOL), *METER.tags))
    async with kept(tmp_path) as one:
        await one.offer(*of_minutes(10))
        await one.offer(*[batch(longer, [1], [100.0 + at], [BEGAN_NS + (5 + at) * MINUTE_NS + 1]) for at in range(10)])
        values = await found_in(one.history, METER.name, "power")
        assert values[4:8] == [5.0, 6.0, 100.0, 7.0]
        async with one.history.turn():
            buckets = await one.history.buckets(one.history.find(METER.name, "power"), BEGAN_NS, BEGAN_NS + 15 * MINUTE_NS, MINUTE_NS)
        assert buckets.count.tolist() == [1] * 5 + [2] * 5 + [1] * 5


async def test_questions_are_bounded(tmp_path: Path) -> None:
    async with kept(tmp_path, most_points=10, most_raw=1000, concurrent=1) as one:
        await one.offer(*[batch(METER, [0], [1.0], [BEGAN_NS + at * 10**6]) for at in range(1200)])
        async with one.history.turn():
            found = one.history.find(METER.name, "power")
            with pytest.raises(TooLarge):
                await one.history.buckets(found, BEGAN_NS, BEGAN_NS + HOUR_NS, MINUTE_NS)
            with pytest.raises(TooLarge):
                await one.history.buckets(found, BEGAN_NS, BEGAN_NS + 2 * SECOND_NS, SECOND_NS)
            with pytest.raises(TooLarge):
                await one.history.line(found, BEGAN_NS, FAR_NS, 11)
            with pytest.raises(Unfit):
                await one.history.line(one.history.find(METER.name, "state"), BEGAN_NS, FAR_NS, 5)
        with pytest.raises(Unfit):
            one.history.check(1, 5, 5)
        with pytest.raises(NotThere):
            one.history.find(METER.name, "nothing")
        await _too_many(one)


async def _too_many(one: Kept) -> None:
    """One question is answered; so many may wait, and the next is refused."""
    async with contextlib.AsyncExitStack() as stack:
        await stack.enter_async_context(one.history.turn())

        async def wait() -> None:
            async with one.history.turn():
                pass

        waiting = [asyncio.create_task(wait()) for _ in range(16)]
        await asyncio.sleep(0)
        with pytest.raises(TooMany):
            await wait()
        await stack.aclose()
        await asyncio.gather(*waiting)


async def test_what_was_folded_half_is_read_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A disk that fails in between: nothing counts twice, and nothing is missing."""
    async with kept(tmp_path) as one:
        await one.offer(*of_minutes(10))
        await caught_up(one.history)
        await one.history.follower.save()
        store, source = one.history.follower.store, one.history.follower.store.source

        def failing(device: Device) -> int:
            if device is WIDE:
                raise sqlite3.OperationalError("disk I/O error")
            return source(device)

        monkeypatch.setattr(store, "source", failing)
        for _ in range(2):
            with contextlib.suppress(Unavailable):
                await one.offer(batch(METER, [0], [100.0], [BEGAN_NS + 20 * MINUTE_NS]), wide(1, BEGAN_NS))
                await one.history.follower.catch_up()
        monkeypatch.setattr(store, "source", source)
        await one.offer(batch(METER, [0], [100.0], [BEGAN_NS + 20 * MINUTE_NS]))
        async with asyncio.timeout(20):
            while one.history.follower._doubtful:  # noqa: ASYNC110 - what is waited for is seen from outside
                await asyncio.sleep(0.01)
        await caught_up(one.history)
        async with one.history.turn():
            found = one.history.find(METER.name, "power")
            buckets = await one.history.buckets(found, BEGAN_NS, BEGAN_NS + HOUR_NS, 10 * MINUTE_NS)
        assert buckets.count.tolist() == [10, 0, 3, 0, 0, 0]


def test_what_a_format_needs_is_said_where_it_is_not_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "gateway.history.arrow", None)
    with pytest.raises(Unfit, match=r"holdfast\[arrow\]"):
        format_of("parquet", [])


async def test_who_goes_away_ends_the_work_and_leaves_all_in_order(tmp_path: Path) -> None:
    async with kept(tmp_path) as one:
        await one.offer(*[batch(METER, [0], [float(at)], [BEGAN_NS + at * SECOND_NS]) for at in range(3000)])

        async def question() -> None:
            async with one.history.turn():
                found: Found = one.history.find(METER.name, "power")
                await one.history.page(found, 0, FAR_NS, 10**6)

        for turns in range(0, 40, 3):
            task = asyncio.create_task(question())
            for _ in range(turns):
                await asyncio.sleep(0.0005)
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await task
        assert await found_in(one.history, METER.name, "power") == [float(at) for at in range(3000)]


async def test_a_folder_that_cannot_be_used_costs_history_alone(tmp_path: Path) -> None:
    (tmp_path / "history").write_text("no folder")
    journal = await Journal.open(JournalOptions(path=str(tmp_path / "journal")), clock=SystemClock())
    history = History(Options(), tmp_path / "history", journal, SystemClock())
    status = links.Status("history", "history")
    task = asyncio.create_task(links.keep(history.session, status, clock=SystemClock()))
    await _until(status, links.State.WAITING)
    assert "history" in status.trouble
    with pytest.raises(Unavailable):
        await found_in(history, METER.name, "power")
    await journal.append(of_minutes(1)[0])
    (tmp_path / "history").unlink()
    await _until(status, links.State.UP)
    await caught_up(history)
    assert await found_in(history, METER.name, "power") == [1.0]
    await cancel(task)
    history.follower.shut()
    await journal.close()


async def _until(status: links.Status, state: links.State) -> None:
    async with asyncio.timeout(20):
        while status.state is not state:  # noqa: ASYNC110 - what is waited for is seen from outside
            await asyncio.sleep(0.005)


def test_roll_ups_of_a_newer_release_are_put_aside_and_found_again(tmp_path: Path) -> None:
    store = Store(tmp_path, 16 * 2**20)
    store.open()
    store.close()
    with contextlib.closing(sqlite3.connect(tmp_path / FILE)) as db:
        db.execute("PRAGMA user_version=2")
    newer = (tmp_path / FILE).read_bytes()
    store.open()
    assert store.cursor("telemetry").next == 1
    store.close()
    assert (tmp_path / f"{FILE}.version-2").read_bytes() == newer
