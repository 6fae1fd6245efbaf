"""Commands over the API: what a caller is told is what became of it on a real device, no better and no worse."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import httpx

from gateway.identity.principal import Role
from protocols.model import Batch
from tests.gateway.api.conftest import TENANT, Running, gateway, site_of, until
from tests.peers.libmodbus import LibmodbusServer

Json = dict[str, Any]
SETPOINT: Json = {"device": "meter-1", "tag": "setpoint", "value": 21}


async def ask(caller: httpx.AsyncClient, wait_s: float = 10, **more: Any) -> Json:
    """A command's course, once it is over. Any: as JSON has it."""
    answer = await caller.post("/api/v1/commands", params={"wait_s": wait_s}, json={**SETPOINT, **more})
    assert answer.status_code in (200, 202), answer.text
    told: Json = answer.json()
    return told


async def test_a_write_ends_as_what_the_device_made_of_it(plant: Running, server: LibmodbusServer) -> None:
    """Taken and read back: verified. Clipped: mismatch. A register that cannot be written: failed, and the device said no."""
    operator = await plant.as_role(Role.OPERATOR)
    done = await ask(operator)
    assert (done["stage"], done["read_back"], await server.get(1, "holding", 10)) == ("verified", 21, [21])
    stages = ["accepted", "queued", "sent", "acknowledged", "verified"]
    assert sorted(done["times_ns"], key=lambda stage: (done["times_ns"][stage], stages.index(stage))) == stages
    await server.clamp(1, 10, 10, 50)
    clipped = await ask(operator, value=80)
    assert (clipped["stage"], clipped["read_back"]) == ("mismatch", 50)
    assert "acknowledged" in clipped["times_ns"]
    await server.fail(1, 2)
    read_only = await ask(operator, value=30)
    assert (read_only["stage"], read_only["by_device"]) == ("failed", True)
    assert "exception 2" in read_only["detail"]
    assert "sent" in read_only["times_ns"]
    assert "acknowledged" not in read_only["times_ns"]
    counted = (await operator.get("/metrics")).text
    assert [line for line in counted.splitlines() if line.startswith("holdfast_commands_total{")] == [
        f'holdfast_commands_total{{reason="{end}"}} 1.0' for end in ("verified", "mismatch", "failed")
    ]


async def test_what_may_not_be_is_refused_recorded_and_never_sent(plant: Running, server: LibmodbusServer) -> None:
    operator = await plant.as_role(Role.OPERATOR)
    await server.requests()
    wrong: list[tuple[Json, str]] = [
        ({"tag": "voltage"}, "not writable"),
        ({"tag": "no-such"}, "no tag"),
        ({"value": "much"}, "number"),
        ({"value": "NaN"}, "NaN"),
        ({"value": 1001}, "range"),
        ({"value": -1}, "range"),
        ({"value": 1.5}, "whole number"),
        ({"value": 1e300}, "range"),
    ]
    for more, why in wrong:
        told = await ask(operator, **more)
        assert told["stage"] == "refused", told
        assert why in told["detail"], told
        assert "sent" not in told["times_ns"]
    administrator = await plant.as_role(Role.ADMINISTRATOR)
    entries = (await administrator.get("/api/v1/audit", params={"limit": 200})).json()["items"]
    assert sum(entry["action"] == "create_command" and entry["outcome"] == "refused" for entry in entries) == len(wrong)
    late = await ask(operator, deadline_ns=1)
    assert late["stage"] == "expired"
    assert all(request.function == 3 for request in await server.requests())
    listed = (await operator.get("/api/v1/commands", params={"stage": "refused"})).json()["items"]
    assert len(listed) == len(wrong)


NONSENSE = (
    b'{"device": "meter-1", "tag": "setpoint", "value": 1' + b"0" * 400 + b"}",
    b'{"device": "meter-1", "tag": "setpoint", "value": -1' + b"0" * 10_000 + b"}",
    b'{"device": "meter-1", "tag": "setpoint", "value": null}',
    b'{"device": "meter-1", "tag": "setpoint", "value": [1]}',
    b'{"device": "meter-1", "tag": "setpoint", "value": 1, "id": ""}',
    b'{"device": "meter-1", "tag": "setpoint", "value": 1, "deadline_s": 1e9}',
    b'{"device": "meter-1", "tag": "setpoint", "value": 1, "deadline_s": 1, "deadline_ns": 1}',
    b'{"device": "meter-1", "tag": "setpoint", "value": 1, "sudo": true}',
    b'{"device": "meter-1", "tag": "setpoint", "value": 1',
)


async def test_what_makes_no_sense_is_said_and_nothing_is_sent(plant: Running) -> None:
    operator = await plant.as_role(Role.OPERATOR)
    for body in NONSENSE:
        answer = await operator.post("/api/v1/commands", content=body, headers={"Content-Type": "application/json"})
        assert answer.status_code == 400 or answer.json()["stage"] == "refused", (body[:80], answer.text)


async def test_the_same_id_or_key_is_carried_out_once(plant: Running, server: LibmodbusServer) -> None:
    operator, other = await plant.as_role(Role.OPERATOR), await plant.as_role(Role.OPERATOR)
    first, again = [await ask(operator, id="batch-17") for _ in range(2)]
    assert first == again
    assert (await operator.post("/api/v1/commands", json={**SETPOINT, "id": "batch-17", "value": 22})).status_code == 409
    keyed = [await operator.post("/api/v1/commands?wait_s=10", json=SETPOINT, headers={"Idempotency-Key": "k"}) for _ in range(2)]
    assert keyed[0].json() == keyed[1].json()
    anothers = await other.post("/api/v1/commands?wait_s=10", json=SETPOINT, headers={"Idempotency-Key": "k"})
    assert anothers.json()["id"] != keyed[0].json()["id"]
    assert sum(request.function in (6, 16) for request in await server.requests()) == 3


async def test_a_command_waits_for_its_connection_and_can_be_taken_back(plant: Running, server: LibmodbusServer) -> None:
    operator = await plant.as_role(Role.OPERATOR)
    await server.stop()
    line = plant.appliance.connection("hall")
    assert line is not None
    await until("the line is down", lambda: line.session is None)
    failed = await ask(operator, when_down="fail")
    assert (failed["stage"], "nothing was sent" in failed["detail"]) == ("failed", True)
    waiting, taken_back, late = (
        await ask(operator, 0, deadline_s=60),
        await ask(operator, 0, value=9),
        await ask(operator, 0, deadline_s=0.1),
    )
    assert [one["stage"] for one in (waiting, taken_back)] == ["queued", "queued"]
    assert (await operator.get(f"/api/v1/commands/{late['id']}", params={"wait_s": 10})).json()["stage"] == "expired"
    gone = await operator.delete(f"/api/v1/commands/{taken_back['id']}")
    assert (gone.json()["stage"], "taken back" in gone.json()["detail"]) == ("refused", True)
    await server.start()
    done = (await operator.get(f"/api/v1/commands/{waiting['id']}", params={"wait_s": 30})).json()
    assert done["stage"] == "verified"
    assert await server.get(1, "holding", 10) == [21]
    assert (await operator.delete(f"/api/v1/commands/{waiting['id']}")).status_code == 409


async def test_who_may_not_command_does_not_and_a_tenant_knows_of_its_own_alone(plant: Running) -> None:
    viewer, operator, builder = [
        await plant.as_role(Role.VIEWER),
        await plant.as_role(Role.OPERATOR),
        await plant.as_role(Role.OPERATOR, TENANT),
    ]
    assert (await viewer.post("/api/v1/commands", json=SETPOINT)).status_code == 403
    done = await ask(operator, id="plant-1")
    assert (await viewer.get("/api/v1/commands/plant-1")).json() == done
    nothing = [
        await builder.get("/api/v1/commands/plant-1"),
        await builder.delete("/api/v1/commands/plant-1"),
        await builder.post("/api/v1/commands", json=SETPOINT),
        await builder.post("/api/v1/commands", json={**SETPOINT, "device": "no-such"}),
    ]
    assert [answer.status_code for answer in nothing] == [404] * 4
    assert nothing[2].json()["detail"].replace("meter-1", "X") == nothing[3].json()["detail"].replace("no-such", "X")
    assert (await builder.get("/api/v1/commands")).json()["items"] == []
    own = await ask(builder, device="meter-2", id="plant-1")
    assert (own["stage"], own["id"]) == ("verified", f"{TENANT}:plant-1"), "an id that another has is no conflict: nobody learns of it"
    assert [one["id"] for one in (await builder.get("/api/v1/commands")).json()["items"]] == [own["id"]]


async def test_what_is_locked_out_nobody_writes_until_it_is_lifted_on_site(plant: Running, server: LibmodbusServer) -> None:
    operator, technician, builder = [
        await plant.as_role(Role.OPERATOR),
        await plant.as_role(Role.TECHNICIAN),
        await plant.as_role(Role.TECHNICIAN, TENANT),
    ]
    wish = {"scope": "device", "name": "meter-1", "why": "pump 3 is open"}
    assert (await operator.post("/api/v1/lock-outs", json=wish)).status_code == 403
    assert (await builder.post("/api/v1/lock-outs", json=wish)).status_code == 404
    assert (await builder.post("/api/v1/lock-outs", json={"scope": "gateway", "why": "mine"})).status_code == 403
    assert (await technician.post("/api/v1/lock-outs", json={**wish, "until_ns": 1})).status_code == 400
    assert (await technician.post("/api/v1/lock-outs", json=wish)).status_code == 201
    await server.requests()
    for caller in (operator, technician):
        told = await ask(caller)
        assert (told["stage"], "pump 3 is open" in told["detail"]) == ("refused", True)
    assert (await ask(operator, device="meter-2"))["stage"] == "verified"
    assert not [one for one in await server.requests() if one.unit_id == 1 and one.function != 3]
    assert [one["id"] for one in (await operator.get("/api/v1/lock-outs")).json()["items"]] == ["device:meter-1"]
    assert (await builder.get("/api/v1/lock-outs")).json()["items"] == []
    assert (await operator.delete("/api/v1/lock-outs/device:meter-1")).status_code == 403
    assert (await technician.delete("/api/v1/lock-outs/device:meter-1")).status_code == 204
    assert (await ask(operator))["stage"] == "verified"


async def test_the_sites_rules_hold_for_each_tag(server: LibmodbusServer, tmp_path: Path, free_port: Callable[[], int]) -> None:
    rules = [
        {"devices": ["meter-1"], "sources": ["scada"]},
        {"tags": ["set*"], "least_role": "engineer", "most_change": 10, "needs_reason": True},
    ]
    faces = [{"type": "modbus-server", "name": "scada", "port": free_port()}]
    site = site_of(server, free_port(), commands={"default": "refuse", "rules": rules}, faces=faces)
    async with gateway(site, tmp_path) as plant:
        await until("it is read", lambda: any(not batch.quality.any() for batch in _of(plant, "meter-2")))
        operator, engineer = await plant.as_role(Role.OPERATOR), await plant.as_role(Role.ENGINEER)
        wrong = [
            (await ask(engineer, value=8, reason="tests"), "commands of api are not allowed"),
            (await ask(operator, device="meter-2", value=8, reason="tests"), "needs the role engineer"),
            (await ask(engineer, device="meter-2", value=8), "needs a reason"),
            (await ask(engineer, device="meter-2", value=18, reason="tests"), "a change by 11"),
        ]
        for told, why in wrong:
            assert (told["stage"], why in told["detail"]) == ("refused", True), told
        done = await ask(engineer, device="meter-2", value=17, reason="tests")
        assert (done["stage"], done["reason"]) == ("verified", "tests")


def _of(plant: Running, device: str) -> Sequence[Batch]:
    found = plant.appliance.latest.device(device)
    return plant.appliance.latest.batches(found) if found is not None else ()


async def test_commands_come_in_pages_the_newest_first(plant: Running) -> None:
    operator = await plant.as_role(Role.OPERATOR)
    for number in range(5):
        await ask(operator, device="meter-2", id=f"page-{number}", value=number)
    found: list[str] = []
    cursor: str | None = None
    while True:
        more = {"cursor": cursor} if cursor else {}
        page = (await operator.get("/api/v1/commands", params={"limit": 2, "device": "meter-2", "source": "api", **more})).json()
        found += [one["id"] for one in page["items"]]
        cursor = page["next"]
        if cursor is None:
            break
    assert found == [f"page-{number}" for number in reversed(range(5))]


async def test_commands_to_one_device_keep_their_order(plant: Running) -> None:
    operator = await plant.as_role(Role.OPERATOR)
    told = await asyncio.gather(*(ask(operator, value=value) for value in range(1, 20)))
    assert {one["stage"] for one in told} == {"verified"}, "two writes at once would read back each other's value"
    assert all(one["read_back"] == one["value"] for one in told)
