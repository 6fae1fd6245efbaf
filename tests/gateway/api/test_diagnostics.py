"""Traces, scans, searches, metrics and the support bundle from outside; a canary in every secret gets out nowhere."""

from __future__ import annotations

import asyncio
import base64
import io
import json
import tarfile
from collections.abc import Callable, Iterator
from ipaddress import IPv4Network
from pathlib import Path
from typing import Any, Final

import httpx
import pytest
import structlog
from click.testing import CliRunner, Result
from prometheus_client.parser import text_string_to_metric_families

from gateway import control
from gateway.cli import main
from gateway.diagnostics.jobs import MOST_RUNNING
from gateway.diagnostics.questions import FixRepair, ListRepairs, MakeBundle
from gateway.identity.principal import Role
from gateway.telemetry.logs import TAP
from protocols.trace import pcapng
from tests.gateway.api.conftest import DEADLINE_S, TENANT, Running, gateway, site_of, until
from tests.peers.libmodbus import LibmodbusServer, registers

V1: Final = "/api/v1/diagnostics"
CANARY: Final = "c4n4ry-8fK2"


async def ended(caller: httpx.AsyncClient, started: httpx.Response) -> dict[str, Any]:  # Any: JSON
    """The job, when it is no longer running."""
    assert started.status_code == 201, started.text
    async with asyncio.timeout(DEADLINE_S):
        while (job := (await caller.get(f"{V1}/jobs/{started.json()['id']}")).json())["state"] == "running":  # noqa: ASYNC110 - seen from outside
            await asyncio.sleep(0.05)
    found: dict[str, Any] = job
    return found


async def test_a_trace_gives_a_file_with_the_frames_of_the_line(plant: Running) -> None:
    technician = await plant.as_role(Role.TECHNICIAN)
    started = await technician.post(f"{V1}/traces", json={"connection": "hall", "for_s": 1})
    assert (await technician.get(f"{V1}/jobs/{started.json()['id']}/pcapng")).status_code == 409, "it is running still"
    job = await ended(technician, started)
    assert (job["state"], job["kind"], job["frames"] > 3, job["by"].startswith("token:technician")) == ("done", "trace", True, True)
    file = await technician.get(f"{V1}/jobs/{job['id']}/pcapng")
    assert len(pcapng.frames(file.content)) == job["frames"]
    assert (await technician.delete(f"{V1}/jobs/{job['id']}")).status_code == 204
    assert (await technician.get(f"{V1}/jobs/{job['id']}")).status_code == 404


async def test_a_scan_of_a_connection_finds_its_devices_between_the_gateways_own_scans(plant: Running) -> None:
    technician = await plant.as_role(Role.TECHNICIAN)
    job = await ended(technician, await technician.post(f"{V1}/scans", json={"connection": "hall", "unit_ids": [1, 2]}))
    assert [one["where"].split(" on ")[0] for one in job["found"]] == ["unit id 1", "unit id 2"]
    assert not any(plant.appliance.latest.is_lost(device) for device in plant.appliance.latest.devices())


async def test_a_scan_of_a_network_looks_where_it_may_and_nowhere_else(plant: Running) -> None:
    """Numbers of the gateway's own private networks; nothing that a shell or a resolver could make something else of."""
    technician = await plant.as_role(Role.TECHNICIAN)
    for network in ("127.0.0.1", "169.254.169.254", "8.8.8.0/24"):
        assert (await technician.post(f"{V1}/scans", json={"network": network})).status_code == 403
    for text in ("-oX", "127.0.0.1;id", "$(id)", "localhost", "`id`", "../x", "::1", "1.1.1.1 -n"):
        assert (await technician.post(f"{V1}/scans", json={"network": text})).status_code == 400, text
        assert (await technician.post(f"{V1}/scans", json={"connection": text})).status_code == 404, text
        assert (await technician.post(f"{V1}/traces", json={"connection": text})).status_code == 404, text
    for body in ({}, {"network": "10.0.0.1", "connection": "hall"}):
        assert (await technician.post(f"{V1}/scans", json=body)).status_code == 400


async def test_a_scan_of_a_network_finds_what_answers_there(
    server: LibmodbusServer, tmp_path: Path, free_port: Callable[[], int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("gateway.app.own_networks", lambda: [IPv4Network("127.0.0.0/8")])  # a machine of CI has no other to scan
    async with gateway(site_of(server, free_port()), tmp_path) as plant:
        technician = await plant.as_role(Role.TECHNICIAN)
        body = {"network": "127.0.0.1/32", "port": server.port, "unit_ids": [1, 9]}
        job = await ended(technician, await technician.post(f"{V1}/scans", json=body))
        assert (job["state"], job["about"]) == ("done", "127.0.0.1/32")
        assert [one["options"]["port"] for one in job["found"]] == [server.port]


async def test_the_number_on_a_display_is_found(plant: Running, server: LibmodbusServer) -> None:
    await server.set(1, "holding", 40, *registers("f", 1234.5))
    technician = await plant.as_role(Role.TECHNICIAN)
    wish = {"connection": "hall", "unit_id": 1, "shown": "1234.5 kWh", "first": 0, "last": 100}
    job = await ended(technician, await technician.post(f"{V1}/find-number", json=wish))
    assert (job["state"], job["found"][0]["where"]) == ("done", "holding:40")
    assert "kind: float32" in job["found"][0]["tag"]
    assert (await technician.post(f"{V1}/find-number", json={**wish, "shown": "$(id)"})).status_code == 400
    assert (await technician.post(f"{V1}/find-number", json={**wish, "first": 9, "last": 1})).status_code == 400


async def test_jobs_are_few_and_can_be_ended(plant: Running) -> None:
    technician = await plant.as_role(Role.TECHNICIAN)
    body = {"connection": "hall", "unit_ids": list(range(1, 200)), "for_s": 600}
    started = [await technician.post(f"{V1}/scans", json=body) for _ in range(MOST_RUNNING + 1)]
    assert [one.status_code for one in started] == [201] * MOST_RUNNING + [429]
    assert started[-1].headers["retry-after"]
    page = (await technician.get(f"{V1}/jobs?limit=2")).json()
    assert (len(page["items"]), page["next"] is not None) == (2, True)
    for one in started[:-1]:
        assert (await technician.delete(f"{V1}/jobs/{one.json()['id']}")).status_code == 204
    assert (await technician.get(f"{V1}/jobs")).json()["items"] == []


async def test_jobs_metrics_and_bundles_are_for_those_who_may(plant: Running) -> None:
    viewer, builder, technician = (
        await plant.as_role(Role.VIEWER),
        await plant.as_role(Role.ENGINEER, TENANT),
        await plant.as_role(Role.TECHNICIAN),
    )
    assert (await viewer.post(f"{V1}/traces", json={"connection": "hall"})).status_code == 403
    assert (await builder.post(f"{V1}/traces", json={"connection": "hall"})).status_code == 403
    assert (await technician.post(f"{V1}/bundle")).status_code == 403
    assert (await builder.post(f"{V1}/bundle")).status_code == 403
    assert (await plant.client().get("/metrics")).status_code == 401
    assert (await builder.get("/metrics")).status_code == 403
    clock = (await builder.get(f"{V1}/clock")).json()
    assert (clock["trusted"], clock["state"] in ("synchronised", "unsynchronised", "unknown")) == (True, True)


async def test_metrics_are_what_prometheus_reads(plant: Running) -> None:
    viewer = await plant.as_role(Role.VIEWER)
    answer = await viewer.get("/metrics")
    assert answer.headers["content-type"].startswith("text/plain")
    families = {family.name for family in text_string_to_metric_families(answer.text)}
    assert {"holdfast_link_up", "holdfast_journal_bytes", "holdfast_clock_synchronised", "holdfast_scan_lateness_seconds"} <= families


async def test_a_gateway_whose_state_is_not_kept_is_not_ready(plant: Running) -> None:
    nobody = plant.client()
    assert (await nobody.get("/readyz")).status_code == 200
    plant.appliance.state.trouble = "state.db: read-only file system"
    answer = await nobody.get("/readyz")
    assert (answer.status_code, answer.json()) == (503, {"status": "not storing"})
    assert (await nobody.get("/healthz")).status_code == 200


# ---- nothing secret gets out


@pytest.fixture
def tapped() -> Iterator[None]:
    """The log goes where a running gateway's goes, into memory alone."""
    before = structlog.get_config()
    structlog.configure(processors=[structlog.processors.add_log_level, TAP, _drop])
    yield
    structlog.configure(**before)


def _drop(_logger: object, _name: str, _event: structlog.types.EventDict) -> str:
    raise structlog.DropEvent


def site_with_canaries(server: LibmodbusServer, port: int, folder: Path) -> dict[str, Any]:  # Any: JSON
    """A site with a secret in every place that takes one, and in some where none belongs."""
    for name in ("one", "two"):
        (folder / name).write_text(f"{CANARY}-{name}\n")
    secret = {"from": "file", "path": str(folder / "one")}
    request = {
        "path": "/x",
        "method": "POST",
        "query": {"key": f"{CANARY}-query"},
        "headers": {"X-Plant": f"{CANARY}-header"},
        "body": f"pin {CANARY}-body",
        "tags": [{"name": "t", "kind": "float64", "at": "$.t"}],
    }
    weather = {
        "type": "http",
        "name": "weather",
        "url": f"http://127.0.0.1:{server.port}",
        "allow_local": True,
        "auth": {"scheme": "basic", "username": "gw", "password": {"from": "file", "path": str(folder / "two")}},
        "devices": [{"name": "sky", "requests": [request]}],
    }
    cloud = {"type": "mqtt", "name": "cloud", "host": "127.0.0.1", "port": 1, "username": "gw", "password": secret}
    site = site_of(server, port, uplinks=[cloud])
    site["connections"].append(weather)
    return site


def unpacked(packed: bytes) -> dict[str, bytes]:
    found = {}
    with tarfile.open(fileobj=io.BytesIO(packed)) as tar:
        for entry in tar:
            content = tar.extractfile(entry)
            assert content is not None
            found[entry.name.removeprefix("holdfast-support/")] = content.read()
    return found


def private_keys(folder: Path) -> list[str]:
    """The line of every private key that the gateway has made in which the secret lies; what follows is its public half."""
    return [file.read_text().splitlines()[1] for file in folder.rglob("*.key")]


async def everything(caller: httpx.AsyncClient) -> dict[str, bytes]:
    """What every operation answers that reads and needs no name of a thing."""
    paths = (await caller.get("/api/v1/openapi.json")).json()["paths"]
    plain = [path for path, operations in paths.items() if "get" in operations and "{" not in path and "live" not in path]
    assert len(plain) > 15
    return {path: (await caller.get(path)).content for path in plain}


async def test_no_secret_gets_out_by_the_bundle_the_api_or_the_log(
    server: LibmodbusServer, tmp_path: Path, free_port: Callable[[], int], tapped: None
) -> None:
    first = TAP.since(0)[1]
    async with gateway(site_with_canaries(server, free_port(), tmp_path), tmp_path) as plant:
        administrator = await plant.as_role(Role.ADMINISTRATOR)
        token = administrator.headers["authorization"].removeprefix("Bearer ")
        user = {"name": "anna", "role": "engineer", "password": f"{CANARY}-password"}
        made = await administrator.post("/api/v1/users", json=user)
        assert made.status_code == 201, made.text
        signed = await plant.client().post("/api/v1/session", json={"name": "anna", "password": f"{CANARY}-password"})
        session = signed.json().get("token") or signed.json().get("secret")
        assert session, signed.text
        await administrator.get(f"/api/v1/nothing?token={CANARY}-asked", headers={"Cookie": f"holdfast_session={CANARY}-cookie"})
        await plant.client(f"hft_{CANARY}-forged").get("/api/v1/gateway")
        logged = [line.decode() for line in TAP.since(first)[0] if b"claim_code" not in line]  # the one that is meant to be seen
        structlog.get_logger().warning(
            "mistake", password=f"{CANARY}-log", text=f"https://x:{CANARY}-userinfo@example.com", said=f"it is {CANARY}-one"
        )
        packed = await administrator.post(f"{V1}/bundle")
        assert packed.status_code == 200
        files = unpacked(packed.content)
        answers = await everything(administrator)
    keys = private_keys(tmp_path)
    assert keys
    for secret in (CANARY, token, session, *keys):
        assert not [name for name, content in files.items() if secret.encode() in content], secret
        assert not [line for line in logged if secret in line], secret
    assert not [path for path, content in answers.items() if CANARY.encode() in content and path != "/api/v1/configuration"]
    assert not [path for path, content in answers.items() for secret in (token, session, *keys) if secret.encode() in content]
    assert b"mistake" in files["log.json"], "what is no secret does come along"
    assert {"about.json", "site.json", "ledger.json", "metrics.txt", "repairs.json", "revisions.json", "machine.json"} <= set(files)
    site = json.loads(files["site.json"])
    assert site["uplinks"][0]["password"] == {"from": "file", "path": str(tmp_path / "one")}
    assert [one["name"] for one in site["connections"]] == ["hall", "weather"]


async def test_the_console_makes_the_same_bundle_and_lists_the_same_repairs(plant: Running, server: LibmodbusServer) -> None:
    """Over the control socket, as whoever has a shell on the gateway."""
    await server.silent(1)
    await until("the meter is lost", lambda: _lost(plant))
    folder = plant.appliance.state.folder.parent
    listed = [line async for line in control.ask(folder, ListRepairs())]
    assert "device-silent" in {line["kind"] for line in listed}
    packed = b"".join([base64.b64decode(line["part"]) async for line in control.ask(folder, MakeBundle())])
    assert json.loads(unpacked(packed)["about.json"])["name"] == "edge"
    silent = next(line for line in listed if line["kind"] == "device-silent")
    with pytest.raises(control.ControlError, match="nothing to press"):
        _ = [line async for line in control.ask(folder, FixRepair(id=silent["id"]))]


async def holdfast(*arguments: str) -> Result:
    """The command line, beside the gateway that runs in this loop."""
    return await asyncio.to_thread(CliRunner().invoke, main, list(arguments))


async def test_holdfast_support_and_repairs_work_with_a_gateway_and_without(
    server: LibmodbusServer, tmp_path: Path, free_port: Callable[[], int]
) -> None:
    site, out = tmp_path / "site.yaml", tmp_path / "bundle.tar.gz"
    document = site_of(server, free_port())
    await asyncio.to_thread(site.write_text, json.dumps(document))
    async with gateway(document, tmp_path) as plant:
        await server.silent(1)
        await until("the meter is lost", lambda: _lost(plant))
        listed = await holdfast("repairs", str(site))
        assert (listed.exit_code, "!! Device meter-1 does not answer" in listed.output) == (1, True)
        assert (await holdfast("repairs", str(site), "--fix", "nothing-1")).exit_code == 1
        made = await holdfast("support", str(site), str(out))
        assert made.exit_code == 0, made.output
        assert "repairs.json" in unpacked(out.read_bytes())
        assert out.stat().st_mode & 0o077 == 0, "nobody else may read it"
    offline = await holdfast("support", str(site), str(out))
    assert offline.exit_code == 0
    assert {"about.json", "site.json", "problems.json", "machine.json"} <= set(unpacked(out.read_bytes()))
    assert (await holdfast("repairs", str(site))).exit_code == 1, "no gateway runs"


def _lost(plant: Running) -> bool:
    device = plant.appliance.latest.device("meter-1")
    return device is not None and plant.appliance.latest.is_lost(device)
