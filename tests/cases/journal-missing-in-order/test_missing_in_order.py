"""Records that are missing around a known gap get epochs that rise along the lane."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Final

from gateway.journal.chain import Chain
from gateway.journal.ledger import Book
from gateway.journal.record import Lane

STEPS: Final[dict[str, Any]] = json.loads((Path(__file__).parent / "steps.json").read_text())  # Any: JSON


def test_missing_records_around_a_gap_have_epochs_that_rise(tmp_path: Path) -> None:
    book = Book(Lane.EVENTS)
    book.reader("cloud", 1)
    first, last, epoch, reason = STEPS["known"]
    book.lose(first, last, epoch, reason)
    chain = Chain(tmp_path, Lane.EVENTS, book, {}, 1 << 20)
    chain._absent(*STEPS["missing"])
    assert [list(span) for span in book.gaps.spans] == STEPS["told"]
    assert chain.damage.missing == 24
    assert book.lost["missing"] == 24
