"""``holdfast run`` as its users have it: a process that is started, reloaded, stopped, and given bad neighbours."""

from __future__ import annotations

import asyncio
import json
import socket
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.peers.fast import FastModbus
from tests.peers.holdfast import Holdfast, until
from tests.peers.mosquitto import Mosquitto, free_port


@pytest.fixture
async def field() -> AsyncIterator[FastModbus]:
    async with FastModbus(ports=3) as server:
        yield server


@pytest.fixture
def broker(tmp_path: Path) -> Iterator[Mosquitto]:
    with Mosquitto(tmp_path / "broker") as one:
        yield one


def connection(at: int, port: int, **more: Any) -> dict[str, Any]:  # Any: JSON
    device = {"name": f"device-{at}", "unit_id": 1, "scan_s": 0.1, "tags": [{"name": "t", "at": "holding:0", "kind": "float32"}]}
    return {"name": f"line-{at}", "type": "modbus-tcp", "host": "127.0.0.1", "port": port, "devices": [device], **more}


def site(*connections: dict[str, Any], uplinks: tuple[dict[str, Any], ...] = (), metrics_port: int = 0) -> dict[str, Any]:  # Any: JSON
    return {
        "holdfast": 1,
        "gateway": {"group": "plant", "name": "gw"},
        "journal": {"path": "./journal", "commit_window_ms": 10},
        "telemetry": {"metrics_port": metrics_port},
        "connections": list(connections),
        "uplinks": list(uplinks),
        "outage_budget_s": 60,
    }


def newest(gateway: Holdfast, device: str) -> list[Any] | None:  # Any: JSON
    """The values of the newest record of ``device``, None if there is none."""
    found = [line["values"] for line in gateway.ask("tail", "-n", "200") if line["device"] == device]
    return found[-1] if found else None


async def test_a_reload_keeps_the_connections_that_did_not_change(tmp_path: Path, field: FastModbus) -> None:
    first, second, third = (connection(at, port) for at, port in enumerate(field.ports))
    with Holdfast(tmp_path, site(first, second)) as gateway:
        until("both lines are read", lambda: all(newest(gateway, f"device-{at}") for at in (0, 1)))
        gateway.write(site(first, {**second, "timeout_s": 2.0}, third))
        gateway.reload()
        until("the new line is read", lambda: newest(gateway, "device-2") is not None)
        started = [event["name"] for event in gateway.log() if event["event"] == "connection_started"]
        assert started == ["line-0", "line-1", "line-1", "line-2"]
        assert gateway.stop() == 0


async def test_a_wrong_document_is_refused_on_reload_and_nothing_stops(tmp_path: Path, field: FastModbus) -> None:
    good = site(connection(0, field.ports[0]))
    with Holdfast(tmp_path, good) as gateway:
        gateway.write({**good, "conections": []})
        gateway.reload()
        refusals = [event for event in gateway.log() if event["event"] == "reload_refused"]
        assert "did you mean" in json.dumps(refusals)
        assert gateway.events("connection_stopped") == 0
        gateway.write(good)
        until("it still reads", lambda: newest(gateway, "device-0") is not None)


async def test_a_port_that_answers_rubbish_and_one_where_nobody_is_harm_no_neighbour(tmp_path: Path, field: FastModbus) -> None:
    async def talk_http(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(100)
        writer.write(b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n")
        writer.close()

    rubbish = await asyncio.start_server(talk_http, "127.0.0.1", 0)
    port = rubbish.sockets[0].getsockname()[1]
    document = site(connection(0, field.ports[0]), connection(1, port), connection(2, free_port()))
    async with rubbish:
        with Holdfast(tmp_path, document) as gateway:
            await asyncio.to_thread(until, "the good one is read", lambda: newest(gateway, "device-0") is not None)
            await asyncio.to_thread(until, "the others are bad", lambda: [newest(gateway, f"device-{at}") for at in (1, 2)] == [[None]] * 2)
            lost = {event["name"]: event for event in gateway.log() if event["event"] == "lost"}
    assert set(lost) == {"line-1", "line-2"}
    assert "127.0.0.1" in lost["line-2"]["trouble"]


async def test_a_broker_that_refuses_stops_nothing_and_another_uplink_delivers(
    tmp_path: Path, field: FastModbus, broker: Mosquitto
) -> None:
    with Mosquitto(tmp_path / "closed", users={"somebody": "else"}) as closed:
        uplinks = (
            {"name": "closed", "type": "sparkplug", "host": "127.0.0.1", "port": closed.port},
            {"name": "open", "type": "mqtt", "host": "127.0.0.1", "port": broker.port},
        )
        with Holdfast(tmp_path / "gateway", site(connection(0, field.ports[0]), uplinks=uplinks)) as gateway:

            def accounts() -> dict[str, Any]:  # Any: JSON
                return {name: lanes["telemetry"] for name, lanes in gateway.ask("stat")[0]["readers"].items()}

            until("one delivers", lambda: accounts()["open"]["acknowledged"] > 5)
            told = accounts()
            assert told["closed"]["acknowledged"] == 0
            assert told["closed"]["pending"] == told["closed"]["appended"]
            (lost,) = [event for event in gateway.log() if event["event"] == "lost"]
            assert (lost["name"], lost["reason"]) == ("closed", "Refused")


async def test_a_second_gateway_on_the_same_journal_is_refused_in_words(tmp_path: Path, field: FastModbus) -> None:
    with Holdfast(tmp_path, site(connection(0, field.ports[0]))) as gateway:
        second = await asyncio.to_thread(gateway.run_another)
    assert second.returncode == 1
    assert "Traceback" not in second.stderr
    assert str(tmp_path / "journal") in second.stderr


async def test_systemd_is_told_ready_reloading_and_stopping(tmp_path: Path, field: FastModbus, monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as systemd:
        systemd.bind(str(tmp_path / "notify"))
        systemd.settimeout(20)
        monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "notify"))
        with Holdfast(tmp_path / "gateway", site(connection(0, field.ports[0]))) as gateway:
            assert systemd.recv(1000).startswith(b"READY=1")
            gateway.reload()
            assert systemd.recv(1000).startswith(b"RELOADING=1\nMONOTONIC_USEC=")
            assert systemd.recv(1000) == b"READY=1"
            gateway.stop()
            assert systemd.recv(1000) == b"STOPPING=1"


async def test_metrics_tell_what_the_gateway_does(tmp_path: Path, field: FastModbus) -> None:
    port = free_port()
    with Holdfast(tmp_path, site(connection(0, field.ports[0]), metrics_port=port)) as gateway:
        until("scans are counted", lambda: 'holdfast_link_up{kind="connection",name="line-0"} 1.0' in gateway.metrics(port))
        assert 'holdfast_scan_lateness_seconds_bucket{connection="line-0",le="+Inf"}' in gateway.metrics(port)


async def test_the_journal_is_told_after_the_gateway_has_stopped(tmp_path: Path, field: FastModbus) -> None:
    with Holdfast(tmp_path, site(connection(0, field.ports[0]))) as gateway:
        until("it reads", lambda: newest(gateway, "device-0") is not None)
        gateway.stop()
        assert gateway.ask("verify")[0]["quarantined"] == 0
        assert newest(gateway, "device-0") is not None


async def test_a_changed_uplink_loses_nothing_and_a_removed_one_is_forgotten(tmp_path: Path, field: FastModbus, broker: Mosquitto) -> None:
    """A reload while the broker is away keeps the cursor; what waited is delivered when it is back."""
    uplink = {"name": "cloud", "type": "mqtt", "host": "127.0.0.1", "port": broker.port}
    other = {**uplink, "name": "other"}
    document = site(connection(0, field.ports[0]), uplinks=(uplink, other))
    with Holdfast(tmp_path / "gateway", document) as gateway:

        def accounts() -> dict[str, Any]:  # Any: JSON
            return {name: lanes["telemetry"] for name, lanes in gateway.ask("stat")[0]["readers"].items()}

        until("records are delivered", lambda: accounts()["cloud"]["acknowledged"] > 5)
        broker.kill()
        until("records wait", lambda: accounts()["cloud"]["pending"] > 20)
        gateway.write({**document, "uplinks": [{**uplink, "in_flight": 7, "payload": "tags"}]})
        gateway.reload()
        waited = accounts()
        assert set(waited) == {"cloud"}
        assert waited["cloud"]["pending"] > 20
        broker.start()
        until("what waited is delivered", lambda: accounts()["cloud"]["acknowledged"] >= waited["cloud"]["appended"])
        assert accounts()["cloud"]["dropped"] == {}
        assert [event["name"] for event in gateway.log() if event["event"] == "uplink_forgotten"] == ["other"]
