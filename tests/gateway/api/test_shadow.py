"""Shadows from outside: what is desired while a meter is away reaches it when it is back, once, also after a restart."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx

from gateway.identity.principal import Role
from tests.gateway.api.conftest import DEADLINE_S, TENANT, Running, gateway, site_of, until
from tests.peers.libmodbus import LibmodbusServer, registers

SHADOW = "/api/v1/devices/meter-1/shadow"


async def shadow(caller: httpx.AsyncClient, path: str = SHADOW) -> dict[str, Any]:  # Any: JSON
    answer = await caller.get(path)
    assert answer.status_code == 200, answer.text
    found: dict[str, Any] = answer.json()
    return found


async def becomes(plant: Running, state: str, tag: str = "setpoint") -> None:
    """Wait until the wish for ``tag`` of meter-1 is ``state``."""
    device = plant.appliance.latest.device("meter-1")
    assert device is not None
    await until(f"{tag} is {state}", lambda: _state(plant, tag) == state)


def _state(plant: Running, tag: str) -> str:
    device = plant.appliance.latest.device("meter-1")
    assert device is not None
    one = plant.appliance.shadows.standing(device).desired.get(tag)
    return one.state.value if one else ""


async def again(server: LibmodbusServer, setpoint: int = 7) -> None:
    """The meters are back, at the same place, as they would be after a power cut."""
    await server.start()
    for unit in (1, 2):
        await server.set(unit, "holding", 0, *registers("f", 230.5))
        await server.set(unit, "holding", 10, setpoint)


async def lost(plant: Running) -> None:
    def is_lost() -> bool:
        device = plant.appliance.latest.device("meter-1")
        return device is not None and plant.appliance.latest.is_lost(device)

    await until("the meter is lost", is_lost)


async def test_a_wish_is_written_and_verified_while_the_meter_is_there(plant: Running, server: LibmodbusServer) -> None:
    operator = await plant.as_role(Role.OPERATOR)
    before = await shadow(operator)
    assert (before["version"], before["present"], before["desired"]) == (0, True, {})
    assert before["reported"]["voltage"]["value"] == 230.5
    changed = await operator.patch(SHADOW, json={"desired": {"setpoint": 42}})
    assert changed.status_code == 200, changed.text
    assert (changed.json()["version"], changed.json()["delta"]) == (1, {"setpoint": 42})
    await becomes(plant, "in-sync")
    assert await server.get(1, "holding", 10) == [42]
    assert await server.get(2, "holding", 10) == [7], "the other meter was not meant"
    assert plant.appliance.latest.device("_commands") is not None, "it went through the gate, which recorded it"


async def test_what_is_desired_of_a_meter_that_is_away_reaches_it_when_it_is_back(plant: Running, server: LibmodbusServer) -> None:
    operator = await plant.as_role(Role.OPERATOR)
    await until("the voltage is known", lambda: "voltage" in _reported(plant))
    await server.stop()
    await lost(plant)
    await operator.patch(SHADOW, json={"desired": {"setpoint": 55}})
    away = await shadow(operator)
    assert (away["present"], away["desired"]["setpoint"]["state"], away["delta"]) == (False, "pending", {"setpoint": 55})
    assert away["reported"]["voltage"]["value"] == 230.5, "the last good value is still known"
    await again(server)
    await becomes(plant, "in-sync")
    assert await server.get(1, "holding", 10) == [55]
    assert (await shadow(operator))["desired"]["setpoint"]["tries"] == 1


def _reported(plant: Running) -> dict[str, Any]:  # Any: what a shadow knows
    device = plant.appliance.latest.device("meter-1")
    assert device is not None
    return dict(plant.appliance.shadows.standing(device).reported)


async def test_a_wish_outlives_the_gateway_and_so_does_what_was_reported(
    server: LibmodbusServer, tmp_path: Path, free_port: Callable[[], int]
) -> None:
    site = site_of(server, free_port())
    async with gateway(site, tmp_path) as first:
        await until("the voltage is known", lambda: _reported(first).get("voltage", (None,))[0] == 230.5)
        await server.stop()
        await lost(first)
        operator = await first.as_role(Role.OPERATOR)
        await operator.patch(SHADOW, json={"desired": {"setpoint": 66}})
    async with gateway(site, tmp_path) as second:
        operator = await second.as_role(Role.TECHNICIAN)  # a token of the same name is there already
        away = await shadow(operator)
        assert (away["version"], away["delta"], away["reported"]["voltage"]["value"]) == (1, {"setpoint": 66}, 230.5)
        await again(server)
        await becomes(second, "in-sync")
        assert await server.get(1, "holding", 10) == [66]


async def test_a_change_at_the_panel_is_shown_and_not_fought_over(plant: Running, server: LibmodbusServer) -> None:
    operator = await plant.as_role(Role.OPERATOR)
    await operator.patch(SHADOW, json={"desired": {"setpoint": 30}})
    await becomes(plant, "in-sync")
    await server.set(1, "holding", 10, 31)
    await becomes(plant, "diverged")
    assert (await shadow(operator))["delta"] == {"setpoint": 30}
    await server.requests()
    await operator.patch("/api/v1/devices/meter-2/shadow", json={"desired": {"setpoint": 32}})  # all wishes are looked at, and one written
    written: set[int] = set()
    async with asyncio.timeout(DEADLINE_S):
        while 2 not in written:
            written |= {one.unit_id for one in await server.requests() if one.function in (5, 6, 15, 16)}
            await asyncio.sleep(0.05)
    await until("it was read some more times", _counter(plant))
    assert 1 not in written | {one.unit_id for one in await server.requests() if one.function in (5, 6, 15, 16)}
    assert await server.get(1, "holding", 10) == [31]
    await operator.patch(SHADOW, json={"desired": {"setpoint": 30}})  # whoever still wants it says so
    await becomes(plant, "in-sync")
    assert await server.get(1, "holding", 10) == [30]


def _counter(plant: Running) -> Callable[[], bool]:
    first = plant.appliance.scan_stats["hall"].scans
    return lambda: plant.appliance.scan_stats["hall"].scans > first + 30


async def test_what_the_meter_clips_is_a_mismatch_and_not_tried_again(plant: Running, server: LibmodbusServer) -> None:
    await server.clamp(1, 10, 10, 50)
    operator = await plant.as_role(Role.OPERATOR)
    await operator.patch(SHADOW, json={"desired": {"setpoint": 100}})
    await becomes(plant, "mismatch")
    told = (await shadow(operator))["desired"]["setpoint"]
    assert (told["tries"], "50" in told["detail"]) == (1, True)


async def test_null_desires_nothing_any_more(plant: Running, server: LibmodbusServer) -> None:
    operator = await plant.as_role(Role.OPERATOR)
    await operator.patch(SHADOW, json={"desired": {"setpoint": 12}})
    gone = (await operator.patch(SHADOW, json={"desired": {"setpoint": None}})).json()
    assert (gone["version"], gone["desired"], gone["delta"]) == (2, {}, {})
    same = (await operator.patch(SHADOW, json={"desired": {"setpoint": None}})).json()
    assert same["version"] == 2, "what changes nothing is no new version"


async def test_what_was_decided_on_another_version_is_refused(plant: Running) -> None:
    operator = await plant.as_role(Role.OPERATOR)
    await operator.patch(SHADOW, json={"desired": {"setpoint": 12}, "version": 0})
    late = await operator.patch(SHADOW, json={"desired": {"setpoint": 13}, "version": 0})
    assert late.status_code == 412
    assert (await shadow(operator))["desired"]["setpoint"]["value"] == 12


async def test_what_cannot_be_is_refused_with_its_place_and_nothing_is_changed(plant: Running) -> None:
    operator = await plant.as_role(Role.OPERATOR)
    answer = await operator.patch(SHADOW, json={"desired": {"setpoint": "high", "voltage": 5, "colour": 1}})
    assert answer.status_code == 400
    assert {one["path"] for one in answer.json()["problems"]} == {"desired.setpoint", "desired.voltage", "desired.colour"}
    unfit: list[Any] = [{"desired": {"setpoint": 1}, "other": 1}, {"desired": {"setpoint": [1]}}, {"desired": {"x" * 300: 1}}, {}, []]
    for body in unfit:  # Any: JSON
        assert (await operator.patch(SHADOW, json=body)).status_code == 400, body
    assert (await shadow(operator))["version"] == 0


async def test_a_wish_ends_with_its_lifetime(plant: Running, server: LibmodbusServer) -> None:
    operator = await plant.as_role(Role.OPERATOR)
    await server.stop()
    await lost(plant)
    await operator.patch(SHADOW, json={"desired": {"setpoint": 77}, "lifetime_s": 0.1})
    await becomes(plant, "expired")
    await again(server)
    await until("the meter is back", lambda: _present(plant))
    assert await server.get(1, "holding", 10) == [7]


def _present(plant: Running) -> bool:
    device = plant.appliance.latest.device("meter-1")
    assert device is not None
    return plant.appliance.shadows.standing(device).present


async def test_each_sees_and_wishes_what_it_may(plant: Running) -> None:
    viewer, builder = await plant.as_role(Role.VIEWER), await plant.as_role(Role.OPERATOR, TENANT)
    assert (await viewer.patch(SHADOW, json={"desired": {"setpoint": 1}})).status_code == 403
    assert (await builder.get(SHADOW)).status_code == 404
    assert (await builder.patch(SHADOW, json={"desired": {"setpoint": 1}})).status_code == 404
    assert [one["device"] for one in (await builder.get("/api/v1/shadows")).json()["items"]] == ["meter-2"]
    assert [one["device"] for one in (await viewer.get("/api/v1/shadows")).json()["items"]] == ["meter-1", "meter-2"]
    assert (await viewer.get("/api/v1/devices/_commands/shadow")).status_code == 404
    first = (await viewer.get("/api/v1/shadows?limit=1")).json()
    assert [one["device"] for one in (await viewer.get(f"/api/v1/shadows?limit=1&cursor={first['next']}")).json()["items"]] == ["meter-2"]


async def test_a_wish_may_do_what_whoever_wished_it_may(server: LibmodbusServer, tmp_path: Path, free_port: Callable[[], int]) -> None:
    """A rule that asks for an engineer, and for a reason, holds for the shadow too: it is no way around it."""
    rules = {"rules": [{"tags": ["setpoint"], "least_role": "engineer", "needs_reason": True}]}
    async with gateway(site_of(server, free_port(), commands=rules), tmp_path) as plant:
        operator, engineer = await plant.as_role(Role.OPERATOR), await plant.as_role(Role.ENGINEER)
        await until("the meter is read", lambda: _present(plant))
        await operator.patch(SHADOW, json={"desired": {"setpoint": 21}})
        await becomes(plant, "refused")
        assert "engineer" in (await shadow(operator))["desired"]["setpoint"]["detail"]
        assert await server.get(1, "holding", 10) == [7]
        await engineer.patch(SHADOW, json={"desired": {"setpoint": 21}})
        await until("a reason is asked for", lambda: "say why" in _detail(plant))
        await engineer.patch(SHADOW, json={"desired": {"setpoint": 21}, "reason": "night setback"})
        await becomes(plant, "in-sync")
        assert await server.get(1, "holding", 10) == [21]


def _detail(plant: Running) -> str:
    device = plant.appliance.latest.device("meter-1")
    assert device is not None
    return plant.appliance.shadows.standing(device).desired["setpoint"].detail
