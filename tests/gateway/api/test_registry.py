"""The life of devices from outside: real pushers (node, libcoap, mosquitto) are taken while they may be, and refused at once when not."""

from __future__ import annotations

import asyncio
import ssl
import subprocess
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import httpx
import pytest

from gateway.identity.principal import Role
from protocols.model import Quality
from tests.gateway.api.conftest import TENANT, Running, gateway, meters, site_of, until
from tests.gateway.api.test_certificates import request_of
from tests.peers.coap import coap_client
from tests.peers.http_sender import HttpSender
from tests.peers.libmodbus import LibmodbusServer, registers
from tests.peers.mosquitto import Mosquitto
from tests.peers.opcua import URI, OpcUaServer

TAG: Final = {"name": "level", "kind": "float64", "at": "$.level"}
REASON: Final = {"reason": "a test"}


@dataclass
class Site:
    """A gateway with devices that are asked and devices that push, and who pushes."""

    running: Running
    server: LibmodbusServer
    broker: Mosquitto
    node: HttpSender
    hooks: str
    secure_hooks: str
    coap: str

    async def post(self, device: str, token: str, level: float) -> str:
        """The status that the webhook answers to node."""
        answered = await self.node.post(
            f"{self.hooks}/{device}", f'{{"level": {level}}}', style="none", secret="", headers={"Authorization": f"Bearer {token}"}
        )
        return answered.status

    async def push(self, device: str, level: float) -> str:
        """What libcoap's client prints."""
        return await coap_client(f"{self.coap}/{device}", "-m", "put", "-t", "50", content=f'{{"level": {level}}}'.encode(), wait_s=2)

    async def publish(self, device: str, level: float) -> None:
        words = ["mosquitto_pub", "-h", "127.0.0.1", "-p", str(self.broker.port), "-q", "1", "-t", f"sensors/{device}"]
        await asyncio.to_thread(subprocess.run, [*words, "-m", f'{{"level": {level}}}'], check=True, timeout=20)

    def level(self, device: str) -> tuple[float, int]:
        """The last value and its quality."""
        latest = self.running.appliance.latest
        found = latest.device(device)
        assert found is not None
        batch = latest.batches(found)[0]
        return float(batch.value[0]), int(batch.quality[0])

    async def as_role(self, role: Role, tenant: str = "") -> httpx.AsyncClient:
        return await self.running.as_role(role, tenant)


@pytest.fixture
async def site(tmp_path: Path, free_port: Callable[[], int]) -> AsyncIterator[Site]:
    folder = tmp_path / "journal" / "state" / "authority"
    hooks, secure, coap = free_port(), free_port(), free_port()
    tls = {"cert_file": str(folder / "server.pem"), "key_file": str(folder / "server.key"), "client_ca_file": str(folder / "ca.pem")}
    with Mosquitto(tmp_path / "mosquitto") as broker:
        async with LibmodbusServer(units=[1, 2]) as server, HttpSender() as node:
            for unit in (1, 2):
                await server.set(unit, "holding", 0, *registers("f", 230.5))
            document = site_of(server, free_port())
            document["tenants"] = [{"name": TENANT, "devices": ["meter-2", "press-2", "builder-*"]}]
            document["connections"] = [
                meters(server.port, 1, 2),
                _webhook("hooks", hooks, ["press-1", "press-2"]),
                {**_webhook("secure", secure, ["press-3"]), "tls": tls},
                _coap(coap),
                _mqtt(broker.port),
            ]
            async with gateway(document, tmp_path) as running:
                up = {one.name for one in running.appliance.statuses}
                await until("all is up", lambda: all(one.sessions for one in running.appliance.statuses if one.name in up))
                urls = (f"http://127.0.0.1:{hooks}", f"https://localhost:{secure}", f"coap://127.0.0.1:{coap}")
                yield Site(running, server, broker, node, *urls)


def _webhook(name: str, port: int, devices: list[str]) -> dict[str, Any]:  # Any: JSON
    told = [{"name": device, "path": f"/{device}", "format": "json", "tags": [TAG]} for device in devices]
    return {"type": "webhook", "name": name, "listen_port": port, "auth": {"scheme": "registry"}, "devices": told}


def _coap(port: int) -> dict[str, Any]:  # Any: JSON
    device = {"name": "tank-1", "path": "/tank-1", "resources": [{"path": "/", "format": "json", "tags": [TAG]}]}
    return {"type": "coap-server", "name": "tanks", "listen_port": port, "devices": [device]}


def _mqtt(port: int) -> dict[str, Any]:  # Any: JSON
    device = {"name": "env-1", "topic": "sensors/env-1", "format": "json", "tags": [TAG]}
    return {"type": "mqtt", "name": "sensors", "host": "127.0.0.1", "port": port, "devices": [device]}


async def state_of(caller: httpx.AsyncClient, device: str) -> str:
    answer = await caller.get(f"/api/v1/registry/{device}")
    assert answer.status_code == 200, answer.text
    state: str = answer.json()["device"]["state"]
    return state


async def changed(caller: httpx.AsyncClient, device: str, state: str) -> httpx.Response:
    return await caller.post(f"/api/v1/registry/{device}/state", json={"state": state, **REASON})


async def recorded(caller: httpx.AsyncClient, device: str) -> list[float]:
    """The good values that the history gives."""
    answer = await caller.get(f"/api/v1/devices/{device}/history", params={"tag": "level", "from": "0"})
    assert answer.status_code == 200, answer.text
    return [each["value"] for each in answer.json()["items"] if each["quality"] == 0]


async def until_state(caller: httpx.AsyncClient, device: str, state: str) -> None:
    async with asyncio.timeout(20):
        while await state_of(caller, device) != state:  # noqa: ASYNC110 - seen from outside
            await asyncio.sleep(0.05)


async def test_a_device_that_posts_lives_from_registered_to_decommissioned(site: Site) -> None:
    """node posts with the token that it was given, and is refused from the moment on in which the token, or the device, is dead."""
    engineer = await site.as_role(Role.ENGINEER)
    assert await state_of(engineer, "press-1") == "registered"
    assert await site.post("press-1", "eyJhbGciOiJub25lIn0.e30.", 1) == "401"
    given = (await engineer.post("/api/v1/registry/press-1/token", json={"days": 30})).json()
    other = (await engineer.post("/api/v1/registry/press-2/token", json={})).json()
    assert await state_of(engineer, "press-1") == "provisioned"
    assert await site.post("press-1", given["token"], 2.5) == "202"
    assert await site.post("press-1", other["token"], 9) == "401", "another device's token"
    await until_state(engineer, "press-1", "active")

    second = (await engineer.post("/api/v1/registry/press-1/token", json={})).json()
    assert (await engineer.delete(f"/api/v1/registry/press-1/credentials/{given['id']}")).status_code == 204
    assert await site.post("press-1", given["token"], 9) == "401", "a revoked one"
    assert await site.post("press-1", second["token"], 3.5) == "202"

    assert (await changed(engineer, "press-1", "suspended")).status_code == 200
    assert site.level("press-1")[1] == Quality.BAD_OUT_OF_SERVICE
    assert await site.post("press-1", second["token"], 9) == "403"
    assert (await changed(engineer, "press-1", "active")).status_code == 200
    assert await site.post("press-1", second["token"], 4.5) == "202"

    async with asyncio.timeout(20):
        while await recorded(engineer, "press-1") != [2.5, 3.5, 4.5]:  # noqa: ASYNC110 - seen from outside
            await asyncio.sleep(0.1)
    ended = await engineer.post("/api/v1/registry/press-1/decommission", json={"history": "wipe", **REASON})
    assert ended.json()["state"] == "decommissioned"
    assert await site.post("press-1", second["token"], 9) == "401"
    assert site.level("press-1")[1] == Quality.BAD_OUT_OF_SERVICE
    assert (await engineer.post("/api/v1/registry/press-1/token", json={})).status_code == 409
    assert (await changed(engineer, "press-1", "active")).status_code == 409, "no step back without registering anew"
    assert site.running.appliance.registry.wiped("press-1") == ended.json()["wiped_ns"] > 0
    assert await recorded(engineer, "press-1") == [], "its history is wiped"
    listed = (await engineer.get("/api/v1/registry/press-1/credentials")).json()["items"]
    assert {each["state"] for each in listed} == {"revoked"}

    assert (await engineer.post("/api/v1/registry", json={"name": "press-1", **REASON})).json()["state"] == "registered"
    assert await site.post("press-1", second["token"], 9) == "401", "its old credentials stay dead"
    life = [(each["before"], each["after"]) for each in (await engineer.get("/api/v1/registry/press-1")).json()["steps"]]
    assert life == [
        ("registered", "provisioned"),
        ("provisioned", "active"),
        ("active", "suspended"),
        ("suspended", "active"),
        ("active", "decommissioned"),
        ("decommissioned", "registered"),
    ]
    admin = await site.as_role(Role.ADMINISTRATOR)
    audited = (await admin.get("/api/v1/audit", params={"action": "device_state", "on": "device/press-1"})).json()["items"]
    assert [(each["before"]["state"], each["after"]["state"]) for each in reversed(audited)] == life
    assert given["token"] not in (await admin.get("/api/v1/audit/export")).text


async def test_a_device_enrols_once_renews_with_its_certificate_and_is_revoked(site: Site, tmp_path: Path) -> None:
    """EST-like: a one-time secret buys the first certificate, the certificate buys the next; what is revoked posts nothing."""
    technician, nobody = await site.as_role(Role.TECHNICIAN), site.running.client()
    secret = (await technician.post("/api/v1/registry/press-3/enrolment", json={})).json()["enrolment_token"]
    csr = await asyncio.to_thread(request_of, tmp_path, "press")
    wish = {"enrolment_token": secret, "csr": csr}
    assert (await nobody.post("/api/v1/registry/press-1/certificate", json=wish)).status_code == 401, "another device's secret"
    assert (await nobody.post("/api/v1/registry/nothing/certificate", json=wish)).status_code == 401
    assert (await nobody.post("/api/v1/registry/press-3/certificate", json={**wish, "csr": "x"})).status_code == 400
    made = await nobody.post("/api/v1/registry/press-3/certificate", json=wish)
    assert made.status_code == 201, made.text
    assert (await nobody.post("/api/v1/registry/press-3/certificate", json=wish)).status_code == 401, "once is once"
    (tmp_path / "press.pem").write_text(made.json()["pem"])

    device = _with(site, tmp_path / "press.pem", tmp_path / "press.key")
    assert (await device.get("/api/v1/gateway")).status_code == 401, "a device's certificate is nobody's in the API"
    assert (await device.post(f"{site.secure_hooks}/press-3", content=b'{"level": 7.5}')).status_code == 202
    assert site.level("press-3")[0] == 7.5
    csr = await asyncio.to_thread(request_of, tmp_path, "next")
    assert (await nobody.post("/api/v1/registry/press-3/certificate/renewal", json={"csr": csr})).status_code == 401
    assert (await device.post("/api/v1/registry/press-1/certificate/renewal", json={"csr": csr})).status_code == 401
    renewed = await device.post("/api/v1/registry/press-3/certificate/renewal", json={"csr": csr})
    assert renewed.status_code == 201
    (tmp_path / "next.pem").write_text(renewed.json()["pem"])

    old = made.json()["serial"]
    assert (await technician.delete(f"/api/v1/registry/press-3/credentials/{old}")).status_code == 204
    assert (await device.post(f"{site.secure_hooks}/press-3", content=b'{"level": 9}')).status_code == 401
    following = _with(site, tmp_path / "next.pem", tmp_path / "next.key")
    assert (await following.post(f"{site.secure_hooks}/press-3", content=b'{"level": 8.5}')).status_code == 202
    engineer = await site.as_role(Role.ENGINEER)
    await engineer.post("/api/v1/registry/press-3/decommission", json={"history": "keep", **REASON})
    assert (await following.post(f"{site.secure_hooks}/press-3", content=b'{"level": 9}')).status_code == 401
    assert site.running.appliance.registry.wiped("press-3") is None


def _with(site: Site, cert: Path, key: Path) -> httpx.AsyncClient:
    context = ssl.create_default_context(cafile=site.running.appliance.authority.certificate_file)
    context.load_cert_chain(cert, key)
    return site.running.client(verify=context)


async def test_what_a_decommissioned_device_pushes_by_coap_and_mqtt_is_not_taken(site: Site) -> None:
    engineer = await site.as_role(Role.ENGINEER)
    assert "2.04" in await site.push("tank-1", 1.5)
    await site.publish("env-1", 1.5)
    await until("both are there", lambda: [site.level(name)[0] for name in ("tank-1", "env-1")] == [1.5, 1.5])
    for name in ("tank-1", "env-1"):
        await engineer.post(f"/api/v1/registry/{name}/decommission", json={"history": "keep", **REASON})
    assert "4.03" in await site.push("tank-1", 9)
    await site.publish("env-1", 9)
    mqtt = site.running.appliance.connection("sensors")
    assert mqtt is not None
    await until("it is counted", lambda: mqtt.stats.errors.get("refused", 0) == 1)
    assert {site.level(name)[1] for name in ("tank-1", "env-1")} == {Quality.BAD_OUT_OF_SERVICE}


async def test_a_suspended_device_is_not_scanned_and_its_neighbour_is(site: Site) -> None:
    technician = await site.as_role(Role.TECHNICIAN)
    await until_state(technician, "meter-1", "active")
    assert (await changed(technician, "meter-1", "suspended")).status_code == 200
    assert site.level("meter-1")[1] == Quality.BAD_OUT_OF_SERVICE
    line = site.running.appliance.connection("hall")
    assert line is not None
    for unit in (1, 2):
        await site.server.set(unit, "holding", 0, *registers("f", 99.5))
    await until("the neighbour is read", lambda: site.level("meter-2")[0] == 99.5)
    assert (await changed(technician, "meter-2", "suspended")).status_code == 200
    scans, requests = line.stats.scans, line.stats.requests
    await until("turns pass", lambda: line.stats.scans > scans + 10)
    assert line.stats.requests <= requests + 1, "nothing is asked but what was under way"
    assert site.level("meter-1")[1] == Quality.BAD_OUT_OF_SERVICE
    operator = await site.as_role(Role.OPERATOR)
    answer = await operator.post("/api/v1/commands?wait_s=10", json={"device": "meter-1", "tag": "setpoint", "value": 1})
    assert "suspended" in answer.text, "nothing is written either"
    assert (await changed(technician, "meter-1", "active")).status_code == 200
    await until("it is read again", lambda: site.level("meter-1") == (99.5, 0))


async def test_what_was_said_outlives_a_restart(server: LibmodbusServer, tmp_path: Path, free_port: Callable[[], int]) -> None:
    """A suspended device is not scanned by the next gateway either, and a token goes on being good."""
    hooks = free_port()
    document = site_of(server, free_port())
    document["connections"].append(_webhook("hooks", hooks, ["press-1"]))
    async with gateway(document, tmp_path) as first:
        engineer = await first.as_role(Role.ENGINEER)
        assert (await changed(engineer, "meter-1", "suspended")).status_code == 200
        token = (await engineer.post("/api/v1/registry/press-1/token", json={})).json()["token"]
    async with gateway(document, tmp_path) as again, HttpSender() as node:
        viewer = await again.as_role(Role.VIEWER)
        assert await state_of(viewer, "meter-1") == "suspended"
        device = again.appliance.latest.device("meter-1")
        assert device is not None
        assert again.appliance.latest.batches(device)[0].quality[0] == Quality.BAD_OUT_OF_SERVICE
        answered = await node.post(
            f"http://127.0.0.1:{hooks}/press-1", '{"level": 1}', style="none", secret="", headers={"Authorization": f"Bearer {token}"}
        )
        assert answered.status == "202"


async def test_a_tenant_sees_and_changes_its_own_devices_alone(site: Site) -> None:
    """What is not its own looks like what does not exist, in every operation."""
    builder = await site.as_role(Role.ENGINEER, TENANT)
    listed = (await builder.get("/api/v1/registry")).json()["items"]
    assert [each["name"] for each in listed] == ["meter-2", "press-2"]
    calls: list[tuple[str, str, dict[str, Any] | None]] = [
        ("GET", "", None),
        ("POST", "/state", {"state": "suspended", **REASON}),
        ("POST", "/decommission", {"history": "wipe", **REASON}),
        ("GET", "/credentials", None),
        ("DELETE", "/credentials/1", None),
        ("POST", "/enrolment", {}),
        ("POST", "/token", {}),
    ]
    for method, path, body in calls:
        told = [await builder.request(method, f"/api/v1/registry/{name}{path}", json=body) for name in ("press-1", "nothing")]
        assert [each.status_code for each in told] == [404, 404], path
        first, second = (each.json() for each in told)
        assert first["detail"].replace("press-1", "nothing") == second["detail"]
    assert (await builder.post("/api/v1/registry", json={"name": "press-9", **REASON})).status_code == 404
    assert (await builder.post("/api/v1/registry", json={"name": "builder-9", **REASON})).status_code == 201
    assert (await changed(builder, "press-2", "suspended")).status_code == 200


async def test_roles_do_what_the_table_says(site: Site) -> None:
    viewer, operator, technician = [await site.as_role(role) for role in (Role.VIEWER, Role.OPERATOR, Role.TECHNICIAN)]
    assert (await viewer.get("/api/v1/registry")).status_code == 200
    assert (await changed(operator, "press-1", "suspended")).status_code == 403
    assert (await technician.post("/api/v1/registry/press-1/decommission", json={"history": "keep", **REASON})).status_code == 403
    assert (await site.running.client().get("/api/v1/registry")).status_code == 401


async def test_how_devices_are(site: Site) -> None:
    viewer = await site.as_role(Role.VIEWER)
    await until_state(viewer, "meter-1", "active")
    health = (await viewer.get("/api/v1/registry/meter-1")).json()["device"]["health"]
    assert health["last_seen_ns"] > 0
    assert (health["lost"], health["good_now"]) == (False, 1.0)
    assert 0 < health["good_day"] <= 1
    silent = (await viewer.get("/api/v1/registry/press-2")).json()["device"]["health"]
    assert (silent["last_seen_ns"], silent["good_now"]) == (0, 0.0)
    assert silent["budget_left"] < 0


async def test_a_device_that_tells_changes_alone_says_all_it_has_when_it_is_taken_again(
    server: LibmodbusServer, tmp_path: Path, free_port: Callable[[], int]
) -> None:
    """An OPC UA server (node-opcua) that has nothing new to tell: after a suspension its value is good again all the same."""
    async with OpcUaServer() as opcua:
        tags = [{"name": "level", "kind": "uint16", "at": f"nsu={URI};s=one/level"}]
        line = {"type": "opcua", "name": "press", "endpoint": opcua.endpoint, "security": {"policy": "none"}}
        one = site_of(server, free_port(), connections=[line | {"devices": [{"name": "plc", "tags": tags}]}])
        async with gateway(one, tmp_path) as plant:

            def quality() -> int:
                device = plant.appliance.latest.device("plc")
                return int(plant.appliance.latest.batches(device)[0].quality[0]) if device else -1

            technician = await plant.as_role(Role.TECHNICIAN)
            await until("it is read", lambda: quality() == Quality.GOOD)
            await changed(technician, "plc", "suspended")
            await until("it is out of service", lambda: quality() == Quality.BAD_OUT_OF_SERVICE)
            await changed(technician, "plc", "active")
            await until("it is read again", lambda: quality() == Quality.GOOD)
