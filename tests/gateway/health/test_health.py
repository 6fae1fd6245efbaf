"""``holdfast health`` of a gateway that runs: a field in C, mosquitto, the command as a process."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest

from tests.peers.fast import FastModbus
from tests.peers.holdfast import Holdfast
from tests.peers.mosquitto import Mosquitto, free_port


@pytest.fixture
async def field() -> AsyncIterator[FastModbus]:
    async with FastModbus(ports=1) as server:
        yield server


@pytest.fixture
def broker(tmp_path: Path) -> Iterator[Mosquitto]:
    with Mosquitto(tmp_path / "broker") as one:
        yield one


def site(field: FastModbus, broker_port: int, dead: int) -> dict[str, Any]:  # Any: JSON
    device = {"unit_id": 1, "scan_s": 0.1, "tags": [{"name": "t", "at": "holding:0", "kind": "float32"}]}
    lines = {"line-0": ("meter", field.ports[0]), "line-1": ("dead", dead)}
    return {
        "holdfast": 1,
        "gateway": {"group": "plant", "name": "gw"},
        "journal": {"path": "./journal", "commit_window_ms": 10},
        "connections": [
            {"name": line, "type": "modbus-tcp", "host": "127.0.0.1", "port": port, "devices": [{"name": name, **device}]}
            for line, (name, port) in lines.items()
        ],
        "uplinks": [{"name": "cloud", "type": "mqtt", "host": "127.0.0.1", "port": broker_port, "keepalive_s": 5}],
        "outage_budget_s": 0,
    }


def asked(folder: Path, *options: str) -> tuple[int, dict[str, Any]]:  # Any: JSON
    command = [sys.executable, "-m", "gateway", "health", str(folder / "site.yaml"), "--json", *options]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    return done.returncode, json.loads(done.stdout) if done.stdout else {"error": done.stderr}


def failing(report: dict[str, Any]) -> list[str]:  # Any: JSON
    return [one["name"] for one in report["checks"] if not one["ok"] and not one["excused"]]


def test_a_device_that_was_lost_before_excuses_itself_and_nothing_else(tmp_path: Path, field: FastModbus, broker: Mosquitto) -> None:
    """With a baseline only what is worse fails: without a broker the uplink does, without a gateway all does."""
    with Holdfast(tmp_path, site(field, broker.port, free_port())) as gateway:
        code, report = asked(tmp_path, "--wait", "3")
        assert (code, report["ok"], failing(report)) == (1, False, ["device:dead"]), report
        assert (report["release"], report["gateway"]) == (version("holdfast"), "plant/gw")
        (tmp_path / "baseline.json").write_text(json.dumps(report))
        baseline = ("--baseline", str(tmp_path / "baseline.json"))
        assert asked(tmp_path, "--wait", "20", *baseline, "--release", version("holdfast"))[0] == 0
        broker.kill()
        code, report = asked(tmp_path, "--wait", "1", *baseline)
        assert (code, failing(report)) == (1, ["uplink:cloud"]), report
        broker.start()
        code, report = asked(tmp_path, "--wait", "30", *baseline)
        assert code == 0, report
        gateway.kill()
        code, report = asked(tmp_path, "--wait", "0")
        assert (code, failing(report)) == (1, ["running"]), report


def test_a_site_that_is_wrong_and_a_baseline_that_is_none_are_told_apart_from_a_gateway_that_is_ill(tmp_path: Path) -> None:
    (tmp_path / "site.yaml").write_text('{"holdfast": 1}')
    code, told = asked(tmp_path)
    assert code == 2, told
    (tmp_path / "site.yaml").write_text('{"holdfast": 1, "gateway": {"group": "plant", "name": "gw"}}')
    (tmp_path / "rubbish").write_text("{")
    code, told = asked(tmp_path, "--baseline", str(tmp_path / "rubbish"))
    assert code == 2
    assert "no report of holdfast health" in told["error"]
