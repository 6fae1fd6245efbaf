"""See README.md."""

from __future__ import annotations

import asyncio
from pathlib import Path

import msgspec

from gateway import control
from gateway.config.model import JournalOptions
from gateway.journal import Journal
from protocols.clock import SystemClock


async def test_a_question_of_endless_brackets_is_answered(tmp_path: Path) -> None:
    journal = await Journal.open(JournalOptions(), clock=SystemClock(), base=tmp_path)
    folder = tmp_path / "data" / "journal"
    try:
        async with control.serving(journal, folder):
            reader, writer = await asyncio.open_unix_connection(str(folder / control.SOCKET))
            writer.write(Path(__file__).with_name("question.json").read_bytes())
            async with asyncio.timeout(10):
                (line,) = (await reader.read(-1)).splitlines()
            writer.close()
    finally:
        await journal.close()
    assert "error" in msgspec.json.decode(line)
