"""A gateway whose journal cannot be opened says so, goes on trying, and can be stopped or told another document."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import pytest

from tests.peers.holdfast import Holdfast, until

SITE: Final[dict[str, Any]] = json.loads((Path(__file__).parent / "site.json").read_text())  # Any: JSON


@pytest.fixture
def waiting(tmp_path: Path) -> Iterator[Holdfast]:
    gateway = Holdfast(tmp_path, SITE)
    (tmp_path / "disk").touch()
    gateway.launch()
    try:
        until("it says what it waits for", lambda: gateway.events("journal_not_opened") == 1)
        yield gateway
    finally:
        gateway.end()


def test_it_runs_when_the_disk_is_there(waiting: Holdfast) -> None:
    (waiting.folder / "disk").unlink()
    until("it runs", lambda: waiting.events("running") == 1)
    assert waiting.events("journal_not_opened") == 1
    assert waiting.stop() == 0


def test_it_can_be_stopped_while_it_waits(waiting: Holdfast) -> None:
    assert waiting.stop() == 0
    assert waiting.events("running") == 0


def test_it_takes_another_document_while_it_waits(waiting: Holdfast) -> None:
    waiting.write({**SITE, "journal": {"path": "./elsewhere/journal"}})
    os.kill(waiting.pid, signal.SIGHUP)
    until("it runs", lambda: waiting.events("running") == 1)
    assert waiting.stop() == 0
