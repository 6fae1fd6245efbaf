"""The journal as the rest of the gateway sees it: what is stored, what is read, what is counted."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from gateway.config.model import JournalOptions
from gateway.journal import Journal, JournalBusy, Lane, Record
from protocols.clock import ManualClock
from protocols.model import Batch, Device, Kind, Tag

BOILER = Device("c1", "boiler", tuple(Tag(name=f"t{n}", kind=Kind.FLOAT32) for n in range(10)))


def batch(number: int) -> Batch:
    return Batch(
        BOILER,
        np.arange(10, dtype=np.uint32),
        np.arange(10, dtype=np.float64) + number,
        np.zeros(10, dtype=np.uint32),
        np.full(10, number, dtype=np.int64),
    )


def options(folder: Path) -> JournalOptions:
    return JournalOptions(path=str(folder), max_bytes=16 * 1024**2, min_free_bytes=0)


async def test_what_was_appended_is_there_after_a_restart(tmp_path: Path) -> None:
    journal = await Journal.open(options(tmp_path), clock=ManualClock())
    reader = journal.reader("cloud")
    stored = [await journal.append(batch(n)) for n in range(5)]
    reader.acknowledge(Lane.TELEMETRY, 1, 2)
    await journal.close()

    journal = await Journal.open(options(tmp_path), clock=ManualClock())
    reader = journal.reader("cloud")
    assert reader.pending(Lane.TELEMETRY) == ((3, 5),)
    found = await reader.read(Lane.TELEMETRY, 1, max_records=10, max_bytes=1 << 20)
    assert [(each.epoch, each.seq) for each in found if isinstance(each, Record)] == stored
    assert isinstance(found[4], Record)
    assert found[4].batch.value.tolist() == batch(4).value.tolist()
    await journal.close()


async def test_a_journal_in_use_is_refused(tmp_path: Path) -> None:
    journal = await Journal.open(options(tmp_path), clock=ManualClock())
    with pytest.raises(JournalBusy, match="in use by process"):
        await Journal.open(options(tmp_path), clock=ManualClock())
    await journal.close()
