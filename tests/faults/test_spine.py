"""The promise, end to end and as ``holdfast consume`` sees it: a full disk.

Every part is a process of its own: a Modbus server in C, mosquitto, ``holdfast run`` and ``holdfast consume``. What counts
is what the consumer wrote down, compared with the journal's own ledger at the end.
"""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any, Final

import pytest

from tests.peers.disk import disk
from tests.peers.fast import FastModbus
from tests.peers.holdfast import Holdfast, until
from tests.peers.mosquitto import Mosquitto, free_port

DEVICES: Final = 3
TAGS: Final = 20
SCAN_S: Final = 0.05
RECORDS_A_SECOND: Final = DEVICES / SCAN_S


@pytest.fixture
async def field() -> AsyncIterator[FastModbus]:
    async with FastModbus(ports=DEVICES) as server:
        yield server


@pytest.fixture
def broker(tmp_path: Path) -> Iterator[Mosquitto]:
    with Mosquitto(tmp_path / "broker") as one:
        yield one


def site(field: FastModbus, broker: Mosquitto, tags_each: int = TAGS) -> dict[str, Any]:  # Any: JSON
    tags = [{"name": f"t{at}", "at": f"holding:{2 * at}", "kind": "float32"} for at in range(tags_each)]
    return {
        "holdfast": 1,
        "gateway": {"group": "plant", "name": "gw"},
        "journal": {"path": "./journal", "commit_window_ms": 20},
        "connections": [
            {
                "name": f"line-{at}",
                "type": "modbus-tcp",
                "host": "127.0.0.1",
                "port": port,
                "devices": [{"name": f"device-{at}", "unit_id": 1, "scan_s": SCAN_S, "tags": tags}],
            }
            for at, port in enumerate(field.ports)
        ],
        "uplinks": [
            {
                "name": "cloud",
                "type": "sparkplug",
                "host": "127.0.0.1",
                "port": broker.port,
                "acknowledge": "consumer",
                "acknowledge_timeout_s": 2.0,
                "keepalive_s": 5,
            }
        ],
        "outage_budget_s": 60,
    }


class Consumption:
    """``holdfast consume`` as a process; its lines are read after its end."""

    def __init__(self, folder: Path, port: int) -> None:
        self._path = folder / "consumed.ndjson"
        command = [sys.executable, "-m", "gateway", "consume", "plant", "gw", "--port", str(port), "--acknowledge", "--from-beginning"]
        with self._path.open("wb") as out:
            self._process = subprocess.Popen(command, stdout=out)

    def end(self) -> tuple[list[dict[str, Any]], dict[str, Any]]:  # Any: JSON
        """Its data lines and its verdict."""
        self._process.send_signal(signal.SIGINT)
        self._process.wait(20)
        lines = [json.loads(line) for line in self._path.read_text().splitlines()]
        return [line for line in lines if "seqs" in line], lines[-1]["verdict"]

    def __enter__(self) -> Consumption:
        return self

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        self._process.wait(20)


def account(gateway: Holdfast) -> dict[str, Any]:  # Any: JSON
    ledger: dict[str, Any] = gateway.ask("stat")[0]["readers"]["cloud"]["telemetry"]
    return ledger


def metric(text: str, name: str) -> float:
    """The sum of a metric over its labels."""
    return sum(float(line.rsplit(" ", 1)[1]) for line in text.splitlines() if line.startswith(name))


async def test_a_full_disk_stops_no_scan_and_every_record_is_accounted_for(tmp_path: Path, field: FastModbus, broker: Mosquitto) -> None:
    """A foreign program takes the last byte while the broker is away: it is said, it heals by itself, the ledger balances."""
    with disk(tmp_path, 48) as small:
        port = free_port()
        document = site(field, broker, 20 * TAGS)
        document["journal"] |= {"path": str(small.mount / "journal"), "max_bytes": 16 * 1024**2, "min_free_bytes": 0}
        document["telemetry"] = {"metrics_port": port}
        with Consumption(tmp_path, broker.port) as consumption, Holdfast(tmp_path / "gateway", document) as gateway:
            until("records are confirmed", lambda: account(gateway)["acknowledged"] > 50)
            broker.kill()
            foreign = small.fill()
            until("the trouble is said", lambda: gateway.ask("stat")[0]["trouble"] != "")
            before = metric(gateway.metrics(port), "holdfast_link_in_total")
            until("scans go on", lambda: metric(gateway.metrics(port), "holdfast_link_in_total") > before + 20 * TAGS * RECORDS_A_SECOND)
            foreign.unlink()
            until("it heals", lambda: gateway.ask("stat")[0]["trouble"] == "", 60)
            broker.start()
            gateway.write({**document, "connections": []})
            gateway.reload()
            until("nothing is pending", lambda: account(gateway)["pending"] == 0, 60)
            ledger = account(gateway)
            gateway.stop()
            lines, verdict = consumption.end()
    arrived = {(line["epoch"], seq) for line in lines for seq in line["seqs"]}
    assert len(arrived) == ledger["acknowledged"]
    assert ledger["appended"] == ledger["acknowledged"] + sum(ledger["dropped"].values())
    assert (verdict["missing"], verdict["disorder"]) == (0, 0)
