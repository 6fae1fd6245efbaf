"""The control socket: whoever connects gets an answer with an end, whatever was asked; the gateway goes on."""

from __future__ import annotations

import asyncio
import contextlib
from pathlib import Path
from typing import Final

import msgspec

from gateway import control, questions
from gateway.config.model import JournalOptions
from gateway.journal import Journal, Lane
from protocols.clock import SystemClock
from tests.builders import batch, floats
from tests.fuzz.campaign import frames, run, run_in_loop, seed
from tests.fuzz.mutate import JsonMutator
from tests.fuzz.still import Complaints

GOOD: Final[list[questions.Request]] = [
    questions.Stat(),
    questions.Verify(),
    questions.Tail(records=2),
    questions.Tail(lane=Lane.EVENTS, records=100_000),
    questions.Export(first=3, last=7),
    questions.Export(first=0),
]


def test_a_line_is_a_question_or_none() -> None:
    """With what the socket reads it: it raises what the socket answers, and nothing else."""
    number = seed()
    mutator = JsonMutator(number, [msgspec.json.encode(one) for one in GOOD], longest=100_000)

    def judge(content: bytes) -> None:
        with contextlib.suppress(ValueError, RecursionError):
            msgspec.json.decode(content, type=questions.Request)

    run("control-question", mutator.make, judge, seed=number, count=frames(20_000, 1_000_000))


async def test_every_question_is_answered_to_its_end(tmp_path: Path) -> None:
    """Lines of JSON, of which the last and only the last says that it is the last."""
    number, count = seed(), frames(4_000, 200_000)
    mutator = JsonMutator(number, [msgspec.json.encode(one) for one in GOOD], longest=100_000)
    complaints = Complaints(asyncio.get_running_loop())
    journal = await Journal.open(JournalOptions(commit_window_ms=1), clock=SystemClock(), base=tmp_path)
    folder = tmp_path / "data" / "journal"
    try:
        for value in range(10):
            await journal.append(batch(floats(1), [float(value)]))
        async with control.serving(journal, folder):

            async def judge(content: bytes) -> None:
                line = content.replace(b"true", b"false") + b"\n"  # a question that is followed has no end
                lines = [msgspec.json.decode(one) for one in (await _answer(folder, line)).splitlines()]
                assert [index for index, one in enumerate(lines) if "end" in one or "error" in one] == [len(lines) - 1]
                complaints.none()

            await run_in_loop("control-socket", mutator.make, judge, seed=number, count=count)
            (newest,) = [line async for line in control.ask(folder, questions.Tail(records=1))]
            assert newest["values"] == [9.0]
    finally:
        await journal.close()


async def _answer(folder: Path, question: bytes) -> bytes:
    reader, writer = await asyncio.open_unix_connection(str(folder / control.SOCKET))
    try:
        writer.write(question)
        writer.write_eof()
        async with asyncio.timeout(10):
            return await reader.read(-1)
    finally:
        writer.close()
        with contextlib.suppress(ConnectionError):
            await writer.wait_closed()
