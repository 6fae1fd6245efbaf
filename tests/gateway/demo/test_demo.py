"""``holdfast demo`` as a stranger runs it: real broker, real gateway, an outage, and a verdict that can be checked."""

from __future__ import annotations

import json
import os
import pty
import re
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any, Final

import pytest

from gateway import config
from gateway.demo import plant
from gateway.demo.broker import Broker, choose
from gateway.demo.demo import document
from protocols.clock import SystemClock

DEMO: Final = (sys.executable, "-m", "gateway", "demo")
DEADLINE_S: Final = 120


def reported(*arguments: str) -> dict[str, Any]:  # Any: JSON
    """The report of a run; it must have ended well."""
    ended = subprocess.run([*DEMO, "--json", *arguments], capture_output=True, text=True, timeout=DEADLINE_S, check=False)
    assert ended.returncode == 0, ended.stdout + ended.stderr
    report: dict[str, Any] = json.loads(ended.stdout)  # Any: JSON
    return report


def test_the_document_is_right(tmp_path: Path) -> None:
    """The demonstration's site document loads and checks without a single problem, warnings included."""
    broker = Broker(choose(""), tmp_path, SystemClock())
    text = json.dumps(document({line.name: 5020 + n for n, line in enumerate(plant.LINES)}, broker)).encode()
    site, problems = config.load(text)
    assert site is not None, problems
    assert not config.check(site)


@pytest.mark.parametrize("broker", ["mosquitto", "amqtt"])
def test_an_outage_loses_nothing(broker: str, tmp_path: Path) -> None:
    """With the broker killed for five seconds: records pile up, drain, and every one arrives; the journal says the same."""
    report = reported("--outage", "5", "--for", "14", "--broker", broker, "--keep", str(tmp_path))
    assert report["ok"] is True
    assert report["broker"] == broker
    assert (report["lost"], report["missing"]) == (0, 0)
    assert report["outage"]["seconds"] >= 5
    assert report["outage"]["pending_peak"] >= 5
    assert report["consumer"]["received"] == report["ledger"]["appended"] > 50
    assert report["tags"] == sum(len(unit.signals) for line in plant.LINES for unit in line.units)
    stat = subprocess.run(
        [sys.executable, "-m", "gateway", "journal", "stat", str(tmp_path / "site.yaml")],
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    lanes = json.loads(stat.stdout)["lanes"].values()
    assert sum(lane["appended"] for lane in lanes) == report["ledger"]["appended"]


def test_ctrl_c_ends_with_the_verdict() -> None:
    """Interrupted on a terminal of 80x24, it leaves the live table, lets everything arrive, and tells the verdict."""
    master, slave = pty.openpty()
    environment = {**os.environ, "TERM": "xterm-256color", "COLUMNS": "80", "LINES": "24"}
    running = subprocess.Popen([*DEMO], stdin=slave, stdout=slave, stderr=slave, env=environment)
    os.close(slave)
    seen = b""
    try:
        while b"marks checked 3" not in seen:  # it lives: the consumer has checked some marks
            seen += os.read(master, 65536)
        running.send_signal(signal.SIGINT)
        seen += _rest(master)
        assert running.wait(DEADLINE_S) == 0
    finally:
        running.kill()
        running.wait()
        os.close(master)
    text = re.sub(rb"\x1b\[[0-9;?]*[a-zA-Z]", b"", seen).decode()
    assert "boiler-1  26 tags" in text
    assert "verdict   lost 0, missing 0" in text


def _rest(master: int) -> bytes:
    """Everything until the other side is closed."""
    seen = b""
    while True:
        try:
            part = os.read(master, 65536)
        except OSError:  # Linux says EIO when the last process has closed the terminal
            return seen
        if not part:
            return seen
        seen += part


def test_without_a_terminal_it_ends_by_itself() -> None:
    """Its output piped away, it tells plain lines and a summary, and no escape sequence."""
    ended = subprocess.run([*DEMO, "--for", "5"], capture_output=True, text=True, timeout=DEADLINE_S, check=False)
    assert ended.returncode == 0, ended.stdout + ended.stderr
    assert "appended" in ended.stdout
    assert "verdict   lost 0, missing 0" in ended.stdout
    assert "\x1b" not in ended.stdout
