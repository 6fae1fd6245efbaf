"""What release 0.1.0 left on a disk when it was killed is opened by this one, whole (``tests/faults/test_releases.py`` runs it)."""

from __future__ import annotations

import tarfile
from pathlib import Path

from gateway.app import MIGRATIONS
from gateway.config.model import JournalOptions
from gateway.journal import Journal, Lane, Record
from gateway.state import State
from protocols.clock import SystemClock
from tests.gateway.releases.make import PACKED, RECORDS


async def test_readings_cursors_tokens_and_revisions_of_the_first_release_are_all_there(tmp_path: Path) -> None:
    with tarfile.open(PACKED) as tar:
        tar.extractall(tmp_path, filter="data")
    clock = SystemClock()
    state = await State.open(tmp_path / "journal" / "state", MIGRATIONS, clock, lock=tmp_path / "journal" / "lock")
    tokens = await state.do(lambda db: [row["id"] for row in db.table("token").rows])
    revisions = await state.do(lambda db: [row["number"] for row in db.table("revision").rows])
    await state.close()
    assert (state.trouble, state.notes, tokens, revisions) == ("", (), ["ci"], [1])
    journal = await Journal.open(JournalOptions(path="journal"), clock=clock, base=tmp_path)
    try:
        entries = await journal.read(Lane.TELEMETRY, 1, max_records=10_000)
        records = [one for one in entries if isinstance(one, Record)]
        rounds = [int(one.batch.value[0]) for one in records]
        account = journal.ledger().readers["cloud"]["telemetry"]
    finally:
        await journal.close()
    assert len(records) == len(entries) >= RECORDS
    assert rounds == sorted(set(rounds))
    assert (account.appended, account.pending, account.dropped) == (len(records), len(records), {})
