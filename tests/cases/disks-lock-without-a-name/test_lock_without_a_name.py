"""A gateway whose disk does not take the process id into the lock file runs all the same."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Final

from tests.peers.holdfast import Holdfast
from tests.peers.strace import Strace

HARM: Final[dict[str, Any]] = json.loads((Path(__file__).parent / "harm.json").read_text())  # Any: JSON
SITE: Final = {"holdfast": 1, "gateway": {"group": "plant", "name": "gw"}, "journal": {"path": "./journal"}}


def test_it_runs_without_its_name_in_the_lock(tmp_path: Path) -> None:
    trace = Strace(tmp_path / "trace", HARM["calls"], HARM["harm"])
    with Holdfast(tmp_path / "gateway", SITE, prefix=trace.prefix) as gateway:
        assert gateway.events("journal_not_opened") == 0
        assert gateway.stop() == 0
    assert any(call.injected and call.path.endswith("/lock") for call in trace.calls())
