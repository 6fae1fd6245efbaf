"""One refused call while segments are sealed leaves nothing that is found damaged later."""

from __future__ import annotations

import json
from pathlib import Path

import apsw
import pytest

from tests.faults.journal.plant import Witness, inspect, look
from tests.faults.journal.test_io_errors import WRITES, FailingDisk, failing, opened, write

CALLS = json.loads((Path(__file__).parent / "calls.json").read_text())


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # SQLite does not ask for every answer
async def test_one_refused_call_leaves_no_segment_to_repair(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gateway.journal.journal.RETRY_S", 0.01)
    for fails_at in range(CALLS["first"], CALLS["last"] + 1):
        witness = Witness()
        with failing(FailingDisk(fails_at, apsw.IOError, 1, WRITES)):
            journal = await opened(tmp_path / str(fails_at))
            await write(journal, witness, 0)
            witness.judge(await look(journal))  # finds what ``verify`` would have to repair
            await journal.close()
        await inspect(tmp_path / str(fails_at), witness=witness)
