"""The disk refuses to be read while the gateway runs: it is waited out, and nobody else notices."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import aclosing, contextmanager
from pathlib import Path

import pytest

from gateway import control, questions
from gateway.journal import Journal, Lane, Record, StorageError
from gateway.journal.salvage import read_raw
from gateway.journal.segment import Broken
from gateway.uplink.feed import STARVED_S, Feed
from protocols.clock import SystemClock
from tests.faults.journal.plant import assert_balanced, fill, inspect, number_of, options

RECORDS = 200
REFUSING = Path("/sys/class/net/lo/speed")
"""A file of a page that the kernel says it has, and does not give."""


@contextmanager
def unreadable(folder: Path) -> Iterator[None]:
    """Each sealed segment is a folder for a while, which nobody can read as a file."""
    paths = sorted((folder / "telemetry").glob("*.seg"))[:-1]
    assert paths
    for path in paths:
        path.rename(path.with_suffix(".away"))
        path.mkdir()
    try:
        yield
    finally:
        for path in paths:
            path.rmdir()
            path.with_suffix(".away").rename(path)


async def stored(folder: Path) -> Journal:
    """A journal of several segments that nobody has read yet; memory holds nothing of it."""
    journal = await Journal.open(options(folder), clock=SystemClock())
    journal._store.chains[Lane.TELEMETRY].roll_bytes = 10_000
    journal.reader("cloud")
    await fill(journal, 0, RECORDS)
    await journal.close()
    return await Journal.open(options(folder), clock=SystemClock())


async def test_an_uplink_waits_for_its_history_and_goes_on_with_what_is_live(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO", "holdfast.uplink")
    journal = await stored(tmp_path)
    feed = Feed(journal.reader("cloud"), clock=SystemClock(), backfill_share=0.5, max_records=100, max_bytes=1 << 20)
    feed.begin()
    arrived: list[int] = []

    async def deliver() -> None:
        while True:
            portion = await feed.next()
            feed.passed(portion)
            feed.acknowledge(portion)
            arrived.extend(number_of(entry.batch) for entry in portion.entries if isinstance(entry, Record))

    async def until(number: int, refused_s: float = 0.0) -> None:
        async with asyncio.timeout(30):
            while number not in arrived or feed._refused_s < refused_s:
                assert not delivery.done(), delivery
                await asyncio.sleep(0.005)

    with unreadable(tmp_path):
        delivery = asyncio.create_task(deliver())
        for number in range(RECORDS, RECORDS + 20):
            await fill(journal, number, 1)
            await until(number, 8 * STARVED_S)  # asked again and again, after longer and longer
        assert arrived == list(range(RECORDS, RECORDS + 20))
        assert_balanced(journal.ledger())
    for number in range(RECORDS):
        await until(number)
    delivery.cancel()
    assert said("history_not_read", caplog) == said("history_read_again", caplog) == 1
    account = journal.ledger().readers["cloud"]["telemetry"]
    await journal.close()
    assert sorted(arrived) == list(range(RECORDS + 20))
    assert (account.acknowledged, account.pending, account.dropped, account.quarantined) == (RECORDS + 20, 0, {}, 0)
    assert (await inspect(tmp_path)).lost.total() == 0


def said(event: str, caplog: pytest.LogCaptureFixture) -> int:
    return sum(event in record.getMessage() for record in caplog.records)


async def test_who_asks_for_what_cannot_be_read_is_told_so_and_storing_goes_on(tmp_path: Path) -> None:
    journal = await stored(tmp_path)
    async with control.serving(journal, tmp_path), asyncio.timeout(30):
        with unreadable(tmp_path):
            with pytest.raises(StorageError):
                await journal.read(Lane.TELEMETRY, 1)
            for question in (questions.Export(lane=Lane.TELEMETRY), questions.Verify()):
                with pytest.raises(control.ControlError, match=r"\.seg"):
                    await _asked(tmp_path, question)
            await fill(journal, RECORDS, 5)
            (ledger,) = await _asked(tmp_path, questions.Stat())
        assert ledger["lanes"]["telemetry"]["kept"] == RECORDS + 5
        assert len(await _asked(tmp_path, questions.Export(lane=Lane.TELEMETRY))) == RECORDS + 5
    await journal.close()
    assert (await inspect(tmp_path)).lost.total() == 0


async def _asked(folder: Path, question: questions.Request) -> list[dict[str, dict[str, dict[str, int]]]]:
    async with aclosing(control.ask(folder, question)) as answers:
        return [line async for line in answers]


@pytest.mark.skipif(not REFUSING.exists(), reason="no /sys here")
def test_a_file_of_which_no_page_can_be_read_is_not_taken_for_an_empty_one() -> None:
    with pytest.raises(Broken):
        read_raw(REFUSING, patient=True)
    assert set(read_raw(REFUSING)) == {0}
