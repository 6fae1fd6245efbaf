"""The list of repairs from outside: real faults of real peers are seen, a fix is pressed, and each sees what it may."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx

from gateway.identity.principal import Permission, Role
from gateway.links import State
from tests.gateway.api.conftest import DEADLINE_S, TENANT, Running, gateway, site_of, until
from tests.peers.libmodbus import LibmodbusServer
from tests.peers.opcua import URI, OpcUaServer

REPAIRS = "/api/v1/repairs"


async def repairs(caller: httpx.AsyncClient, kind: str) -> list[dict[str, Any]]:  # Any: JSON
    answer = await caller.get(REPAIRS)
    assert answer.status_code == 200, answer.text
    return [one for one in answer.json()["items"] if one["kind"] == kind]


async def comes(caller: httpx.AsyncClient, kind: str) -> dict[str, Any]:  # Any: JSON
    """The fault of this kind, once it is on the list."""
    async with asyncio.timeout(DEADLINE_S):
        while not (found := await repairs(caller, kind)):  # noqa: ASYNC110 - what is waited for is seen from outside
            await asyncio.sleep(0.05)
    return found[0]


async def goes(caller: httpx.AsyncClient, kind: str) -> None:
    async with asyncio.timeout(DEADLINE_S):
        while await repairs(caller, kind):  # noqa: ASYNC110 - as above
            await asyncio.sleep(0.05)


async def test_a_meter_that_falls_silent_is_on_the_list_until_it_answers(plant: Running, server: LibmodbusServer) -> None:
    viewer, builder = await plant.as_role(Role.VIEWER), await plant.as_role(Role.VIEWER, TENANT)
    await server.silent(1)
    fault = await comes(viewer, "device-silent")
    assert (fault["name"], fault["severity"], fault["fix"]) == ("meter-1", "error", None)
    assert (await viewer.get(f"{REPAIRS}/{fault['id']}")).json()["title"] == "Device meter-1 does not answer"
    assert await repairs(builder, "device-silent") == [], "it is not the builder's"
    assert (await builder.get(f"{REPAIRS}/{fault['id']}")).status_code == 404
    await server.silent(1, False)
    await goes(viewer, "device-silent")
    assert (await viewer.get(f"{REPAIRS}/{fault['id']}")).status_code == 404


async def test_a_tenant_sees_the_faults_of_its_devices_and_none_of_the_gateway(plant: Running, server: LibmodbusServer) -> None:
    builder = await plant.as_role(Role.VIEWER, TENANT)
    await server.silent(2)
    assert (await comes(builder, "device-silent"))["name"] == "meter-2"
    assert {one["about"] for one in (await builder.get(REPAIRS)).json()["items"]} == {"device"}
    await server.stop()
    viewer = await plant.as_role(Role.VIEWER)
    down = await comes(viewer, "connection-down")
    assert any("nothing listens" in fact or "closed" in fact for fact in down["evidence"])
    assert await repairs(builder, "connection-down") == [], "its text may name what is not the builder's"


async def test_what_was_refused_is_written_once_more_at_a_press(plant: Running, server: LibmodbusServer) -> None:
    """A machine was locked out when the value was desired; whoever worked on it presses the fix when done."""
    technician = await plant.as_role(Role.TECHNICIAN)
    viewer, narrow = await plant.as_role(Role.VIEWER), await plant.as_role(Role.TECHNICIAN, scopes=frozenset({Permission.REPAIR}))
    lock_out = await technician.post("/api/v1/lock-outs", json={"scope": "device", "name": "meter-1", "why": "the belt is open"})
    await technician.patch("/api/v1/devices/meter-1/shadow", json={"desired": {"setpoint": 90}})
    fault = await comes(viewer, "shadow-not-taken")
    assert (fault["fix"]["needs"], any("the belt is open" in fact for fact in fault["evidence"])) == ("command", True)
    assert (await comes(viewer, "locked-out"))["evidence"]
    press = f"{REPAIRS}/{fault['id']}/fix"
    assert (await viewer.post(press)).status_code == 403
    assert (await narrow.post(press)).status_code == 403, "it needs the permission of what it does as well"
    assert (await technician.delete(f"/api/v1/lock-outs/{lock_out.json()['id']}")).status_code == 204
    done = await technician.post(press)
    assert done.status_code == 200, done.text
    await goes(viewer, "shadow-not-taken")
    async with asyncio.timeout(DEADLINE_S):
        while await server.get(1, "holding", 10) != [90]:  # noqa: ASYNC110 - as above
            await asyncio.sleep(0.05)
    entry = next(one for one in reversed(plant.appliance.audit.newest) if one.action == "fix_repair" and one.outcome == "done")
    assert (entry.on, entry.who.startswith("token:technician")) == ("shadow-not-taken meter-1", True)


async def test_a_fault_that_is_put_off_says_so_and_comes_back(plant: Running, server: LibmodbusServer) -> None:
    technician = await plant.as_role(Role.TECHNICIAN)
    await server.silent(1)
    fault = await comes(technician, "device-silent")
    path = f"{REPAIRS}/{fault['id']}/put-off"
    assert (await technician.post(path, json={"reason": ""})).status_code == 400
    off = (await technician.post(path, json={"reason": "it is being exchanged", "for_s": 3600})).json()
    assert (off["put_off"]["reason"], off["put_off"]["until_ns"] > off["put_off"]["at_ns"]) == ("it is being exchanged", True)
    assert (await technician.delete(path)).status_code == 204
    assert (await technician.get(f"{REPAIRS}/{fault['id']}")).json()["put_off"] is None
    assert (await technician.post(f"{REPAIRS}/{fault['id']}/fix")).status_code == 409, "nothing can be pressed here"


async def test_the_certificate_of_an_opcua_server_is_trusted_at_a_press(
    server: LibmodbusServer, tmp_path: Path, free_port: Callable[[], int]
) -> None:
    """The server is node-opcua: refused at first, recorded, trusted, and then connected."""
    async with OpcUaServer(secure=True) as opcua:
        tags = [{"name": "pressure", "kind": "float64", "at": f"nsu={URI};s=one/pressure"}]
        line = {
            "type": "opcua",
            "name": "press",
            "endpoint": opcua.endpoint,
            "security": {"folder": str(tmp_path / "pki")},
            "devices": [{"name": "plc", "tags": tags}],
        }
        site = site_of(server, free_port())
        site["connections"] = [line]
        async with gateway(site, tmp_path) as plant:
            engineer, technician = await plant.as_role(Role.ENGINEER), await plant.as_role(Role.TECHNICIAN)
            fault = await comes(engineer, "certificate-not-trusted")
            assert fault["fix"]["id"] == "trust-certificate"
            assert fault["fix"]["confirm"].startswith("Trust the certificate that begins with")
            press = f"{REPAIRS}/{fault['id']}/fix"
            assert (await technician.post(press)).status_code == 403, "it needs manage-certificates"
            assert not list((tmp_path / "pki" / "trusted").glob("*"))
            done = (await engineer.post(press)).json()["done"]
            assert done.startswith("trusted: ")
            assert list((tmp_path / "pki" / "trusted").glob("*"))
            await goes(engineer, "certificate-not-trusted")
            await until("the server is connected", lambda: plant.appliance.statuses[0].state is State.UP)
