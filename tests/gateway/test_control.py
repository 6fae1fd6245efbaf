"""Looking into the journal of a running gateway over its socket."""

from __future__ import annotations

import asyncio
import stat
from collections.abc import AsyncIterator
from contextlib import aclosing
from pathlib import Path
from typing import Any

import pytest

from gateway import control, questions
from gateway.config.model import JournalOptions
from gateway.journal import Journal
from protocols.clock import SystemClock
from tests.builders import batch, floats


@pytest.fixture
async def journal(tmp_path: Path) -> AsyncIterator[Journal]:
    opened = await Journal.open(JournalOptions(commit_window_ms=1), clock=SystemClock(), base=tmp_path)
    yield opened
    await opened.close()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "data" / "journal"


async def asked(folder: Path, question: questions.Request) -> list[dict[str, Any]]:  # Any: JSON
    async with aclosing(control.ask(folder, question)) as answers:
        return [line async for line in answers]


async def test_the_ledger_is_told(journal: Journal, folder: Path) -> None:
    await journal.append(batch(floats(2), [1.0, 2.0]))
    async with control.serving(journal, folder):
        (ledger,) = await asked(folder, questions.Stat())
    assert ledger["lanes"]["telemetry"]["appended"] == 1


async def test_the_newest_records_are_told_oldest_of_them_first(journal: Journal, folder: Path) -> None:
    for value in range(5):
        await journal.append(batch(floats(1), [float(value)]))
    async with control.serving(journal, folder):
        lines = await asked(folder, questions.Tail(records=3))
    assert [line["values"] for line in lines] == [[2.0], [3.0], [4.0]]


async def test_following_goes_on_as_records_come(journal: Journal, folder: Path) -> None:
    async with control.serving(journal, folder), aclosing(control.ask(folder, questions.Tail(records=0, follow=True))) as answers:
        first = asyncio.ensure_future(anext(answers))
        await asyncio.sleep(0)
        await journal.append(batch(floats(1), [7.0]))
        async with asyncio.timeout(10):
            while not first.done():  # the question may have come after the record: another one follows
                await journal.append(batch(floats(1), [7.0]))
        assert (await first)["values"] == [7.0]


async def test_a_long_export_comes_whole(journal: Journal, folder: Path) -> None:
    for value in range(1200):
        journal.offer(batch(floats(1), [float(value)]))
    await journal.append(batch(floats(1), [-1.0]))
    async with control.serving(journal, folder):
        lines = await asked(folder, questions.Export(first=1))
    assert [line["seq"] for line in lines] == list(range(1, 1202))


async def test_verify_reports_what_it_found(journal: Journal, folder: Path) -> None:
    await journal.append(batch(floats(1), [1.0]))
    async with control.serving(journal, folder):
        (report,) = await asked(folder, questions.Verify())
    assert (report["records"], report["quarantined"]) == (1, 0)


async def test_rubbish_gets_an_error_and_the_next_question_an_answer(journal: Journal, folder: Path) -> None:
    async with control.serving(journal, folder):
        for rubbish in (b"\n", b"{}\n", b'{"ask":"tail","records":-1}\n', b"\xff\xfe\n", b"x" * (2 * control.MAX_LINE) + b"\n"):
            reader, writer = await asyncio.open_unix_connection(folder / control.SOCKET)
            writer.write(rubbish)
            with_error = await reader.readline()
            assert with_error.startswith(b'{"error":"not a request')
            writer.close()
        assert len(await asked(folder, questions.Stat())) == 1


async def test_only_the_service_user_may_ask(journal: Journal, folder: Path) -> None:
    async with control.serving(journal, folder):
        mode = (folder / control.SOCKET).stat().st_mode
    assert stat.S_IMODE(mode) == 0o600


async def test_a_folder_deeper_than_a_socket_address_may_be_long_is_served(tmp_path: Path) -> None:
    base = tmp_path / ("deep" * 20) / ("deeper" * 10)
    base.mkdir(parents=True)
    journal = await Journal.open(JournalOptions(), clock=SystemClock(), base=base)
    async with control.serving(journal, base / "data" / "journal"):
        assert len(await asked(base / "data" / "journal", questions.Stat())) == 1
    await journal.close()


async def test_nobody_there_is_said(tmp_path: Path) -> None:
    with pytest.raises(control.NotRunning, match="no gateway runs"):
        await asked(tmp_path, questions.Stat())
