"""Configuration through the API: planned, applied, confirmed, taken back, while a real meter is read over one TCP connection."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml

from gateway.identity.principal import Role
from tests.gateway.api.conftest import DEADLINE_S, TENANT, Running, meters, until
from tests.peers.libmodbus import LibmodbusServer

V1 = "/api/v1"


def connections_to(port: int) -> set[str]:
    """The local ends of this machine's established TCP connections to ``port`` of 127.0.0.1 (proc_net_tcp.rst)."""
    rows = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:]]
    return {row[1] for row in rows if row[2] == f"0100007F:{port:04X}" and row[3] == "01"}


async def document(client: httpx.AsyncClient) -> dict[str, Any]:  # Any: JSON
    answer = await client.get(f"{V1}/configuration")
    assert answer.status_code == 200, answer.text
    found: dict[str, Any] = json.loads(answer.json()["document"])
    return found


async def applied(client: httpx.AsyncClient, wanted: dict[str, Any], **more: Any) -> dict[str, Any]:  # Any: JSON
    answer = await client.post(f"{V1}/revisions", json={"document": wanted, **more})
    assert answer.status_code == 201, answer.text
    told: dict[str, Any] = answer.json()
    return told


async def eventually(what: str, ask: Callable[[], Any]) -> Any:  # Any: what is asked for
    """Ask until the answer is true."""
    async with asyncio.timeout(DEADLINE_S):
        while not (found := await ask()):  # noqa: ASYNC110 - what is waited for is seen from outside
            await asyncio.sleep(0.05)
    return found


async def test_a_plan_says_what_it_costs_and_touches_nothing(plant: Running) -> None:
    engineer = await plant.as_role(Role.ENGINEER)
    wanted = await document(engineer)
    wanted["connections"][0]["devices"][0]["scan_s"] = 0.5
    wanted["uplinks"] = [{"type": "mqtt", "name": "cloud", "host": "127.0.0.1"}]
    wanted["journal"]["max_bytes"] = 2**30
    for content, kind in ((json.dumps(wanted), "application/json"), ("# long\n" * 400_000 + yaml.safe_dump(wanted), "application/yaml")):
        answer = await engineer.post(f"{V1}/revisions/plan", content=content, headers={"Content-Type": kind})
        assert answer.status_code == 200, answer.text
        plan = answer.json()
        assert (plan["base"], plan["connections"]["changed"], plan["uplinks"]["added"]) == (1, ["hall"], ["cloud"])
        assert (plan["api"], plan["after_restart"]) == ("unchanged", ["journal"])
        (bus,) = plan["bus"]
        assert (bus["requests_s_before"], bus["requests_s"]) == (20, 12)
        assert plan["journal"]["values_s"] < plan["journal"]["values_s_before"]
        assert plan["journal"]["holds_s"] > 0
        assert {"connections[hall].devices[meter-1].scan_s", "uplinks[cloud]"} <= {one["path"] for one in plan["changes"]}
    assert len((await engineer.get(f"{V1}/revisions")).json()["items"]) == 1


async def test_what_does_not_change_keeps_its_connection_and_what_does_is_in_the_history(plant: Running, server: LibmodbusServer) -> None:
    engineer = await plant.as_role(Role.ENGINEER)
    before = connections_to(server.port)
    assert len(before) == 1
    wanted = await document(engineer)
    async with LibmodbusServer(units=[3]) as other:
        wanted["connections"].append({**meters(other.port, 3), "name": "yard"})
        told = await applied(engineer, wanted, reason="a third meter", base=1)
        assert told["revision"] | {"number": 2, "standing": "confirmed", "running": True, "reason": "a third meter"} == told["revision"]
        await until("the third is read", lambda: any(one.name == "meter-3" for one in plant.appliance.latest.devices()))
        assert connections_to(server.port) == before
        detail = (await engineer.get(f"{V1}/revisions/2")).json()
        assert [one["path"] for one in detail["changes"]] == ["connections[yard]"]
        assert '+      "name": "yard",' in detail["text_diff"]
        watched = await eventually("it was watched", lambda: one(engineer, 2, "watched"))
        assert (watched["worse"], watched["author"]) == ([], told["revision"]["author"])
        again = await engineer.post(f"{V1}/revisions", json={"document": wanted})
        assert (again.status_code, again.json()["changed"]) == (200, False)
        back = await engineer.post(f"{V1}/revisions/1/rollback", json={})
        assert (back.status_code, back.json()["revision"]["number"]) == (201, 3)
        assert connections_to(server.port) == before


async def one(client: httpx.AsyncClient, number: int, key: str) -> dict[str, Any] | None:  # Any: JSON
    revision: dict[str, Any] = (await client.get(f"{V1}/revisions/{number}")).json()["revision"]
    return revision if revision[key] else None


async def test_what_was_decided_on_an_old_state_is_refused(plant: Running) -> None:
    engineer = await plant.as_role(Role.ENGINEER)
    wanted = await document(engineer)
    etag = (await engineer.get(f"{V1}/configuration")).headers["etag"]
    await applied(engineer, {**wanted, "outage_budget_s": 60})
    late = {"document": {**wanted, "outage_budget_s": 61}}
    assert (await engineer.post(f"{V1}/revisions", json={**late, "base": 1})).status_code == 412
    assert (await engineer.post(f"{V1}/revisions", json=late, headers={"If-Match": etag})).status_code == 412


async def test_what_cannot_run_is_refused_and_says_each_thing_that_is_wrong(plant: Running, server: LibmodbusServer) -> None:
    """A key, a file that is not there, a port that is taken, a body of another kind, a body too long: nothing is touched."""
    engineer = await plant.as_role(Role.ENGINEER)
    wanted = await document(engineer)
    wanted["connections"][0]["devices"][0]["unit_id"] = "seven"
    refused = await engineer.post(f"{V1}/revisions", json={"document": wanted})
    assert refused.status_code == 400
    assert refused.json()["problems"][0]["path"] == "connections[0].devices[0].unit_id"
    missing = {**await document(engineer), "uplinks": [{"type": "mqtt", "name": "c", "host": "h", "tls": {"ca_file": "nowhere.pem"}}]}
    refused = await engineer.post(f"{V1}/revisions", json={"document": missing})
    assert (refused.status_code, refused.json()["problems"][0]["path"]) == (400, "uplinks[0].tls")
    taken = {**await document(engineer), "api": {"port": server.port}}
    refused = await engineer.post(f"{V1}/revisions", json={"document": taken})
    assert (refused.status_code, "cannot listen" in refused.json()["detail"]) == (400, True)
    assert (await engineer.post(f"{V1}/revisions/plan", content=b"x", headers={"Content-Type": "text/plain"})).status_code == 415
    long = b"#" * (16 * 1024 * 1024 + 1)
    assert (await engineer.post(f"{V1}/revisions/plan", content=long, headers={"Content-Type": "application/yaml"})).status_code == 413
    assert plant.appliance.revisions.number == 1


async def test_an_api_that_moves_answers_first_and_is_confirmed_on_its_new_port(plant: Running, free_port: Callable[[], int]) -> None:
    engineer = await plant.as_role(Role.ENGINEER)
    token = engineer.headers["authorization"].removeprefix("Bearer ")
    wanted = await document(engineer)
    old, wanted["api"]["port"] = plant.port, free_port()
    told = await applied(engineer, wanted, confirm_within_s=600)
    assert told["revision"]["trial"]["remaining_s"] > 500
    plant.port = wanted["api"]["port"]
    moved = plant.client(token)
    await eventually("it serves on the new port", lambda: answers(moved))
    confirmed = await moved.post(f"{V1}/revisions/2/confirm", json={"reason": "seen on the new port"})
    assert (confirmed.status_code, confirmed.json()["standing"]) == (200, "confirmed")
    plant.port = old
    there_before = plant.client(token)
    await eventually("the old port is closed", lambda: silent(there_before))


async def silent(client: httpx.AsyncClient) -> bool:
    return not await answers(client)


async def answers(client: httpx.AsyncClient) -> bool:
    try:
        return (await client.get("/healthz")).status_code == 200
    except httpx.TransportError:
        return False


async def test_a_swap_that_breaks_half_way_leaves_everything_as_it_was(plant: Running, monkeypatch: pytest.MonkeyPatch) -> None:
    """A bug that strikes when one connection is stopped and another is started: both parts of the old document run again."""
    engineer = await plant.as_role(Role.ENGINEER)
    before = await document(engineer)
    wanted = json.loads(json.dumps(before))
    wanted["connections"][0]["devices"][0]["scan_s"] = 0.5
    wanted["uplinks"] = [{"type": "mqtt", "name": "cloud", "host": "127.0.0.1"}]

    def breaks(*_: object) -> None:
        raise KeyError("a bug")

    monkeypatch.setattr(plant.appliance, "_start_uplink", breaks)
    failed = await engineer.post(f"{V1}/revisions", json={"document": wanted})
    assert (failed.status_code, "a bug" in failed.json()["detail"]) == (503, True)
    assert await document(engineer) == before
    await until("the meters are read", lambda: [one.state for one in plant.appliance.statuses if one.kind == "connection"] == ["up"])
    items = (await engineer.get(f"{V1}/revisions")).json()["items"]
    assert [(one["number"], one["standing"]) for one in items] == [(3, "confirmed"), (2, "reverted"), (1, "confirmed")]


async def test_the_api_removes_itself_only_on_trial(plant: Running) -> None:
    engineer = await plant.as_role(Role.ENGINEER)
    wanted = await document(engineer)
    del wanted["api"]
    refused = await engineer.post(f"{V1}/revisions", json={"document": wanted})
    assert (refused.status_code, "removes the API" in refused.json()["detail"]) == (409, True)
    await applied(engineer, wanted, confirm_within_s=6)
    await until("it is gone", lambda: not any(one.kind == "api" for one in plant.appliance.statuses))
    await eventually("it is back", lambda: answers(engineer))
    items = (await engineer.get(f"{V1}/revisions")).json()["items"]
    assert (items[0]["author"], items[0]["standing"]) == ("gateway", "confirmed")


async def test_only_one_change_waits_for_its_confirmation(plant: Running) -> None:
    engineer = await plant.as_role(Role.ENGINEER)
    wanted = await document(engineer)
    await applied(engineer, {**wanted, "outage_budget_s": 60}, confirm_within_s=600)
    second = await engineer.post(f"{V1}/revisions", json={"document": {**wanted, "outage_budget_s": 61}})
    assert (second.status_code, "waits to be confirmed" in second.json()["detail"]) == (409, True)
    ended = await engineer.post(f"{V1}/revisions/rollback", json={"reason": "no"})
    assert ended.status_code == 201
    assert await document(engineer) == wanted
    assert (await engineer.post(f"{V1}/revisions/2/confirm", json={})).status_code == 409


async def test_who_may_see_and_who_may_change(plant: Running) -> None:
    wanted = {"document": await document(await plant.as_role(Role.ENGINEER))}
    for caller in (await plant.as_role(Role.TECHNICIAN), await plant.as_role(Role.ENGINEER, TENANT)):
        assert (await caller.get(f"{V1}/configuration")).status_code == 403
        assert (await caller.get(f"{V1}/revisions/1")).status_code == 403
        assert (await caller.post(f"{V1}/revisions", json=wanted)).status_code == 403
        assert (await caller.post(f"{V1}/revisions/rollback", json={})).status_code == 403
    assert (await plant.client().post(f"{V1}/revisions", json=wanted)).status_code == 401
    engineer = await plant.as_role(Role.ENGINEER)
    assert (await engineer.get(f"{V1}/configuration/schema")).json()["$schema"]
    assert (await engineer.get(f"{V1}/configuration/drift")).json()["state"] == "no-file"
    assert (await engineer.get(f"{V1}/revisions/7")).status_code == 404
