"""The core resources, asked of a gateway that reads two meters: what there is, how it is, and the account that anybody can check."""

from __future__ import annotations

import base64
from typing import Any

import httpx
import msgspec

from gateway.api import shown
from gateway.identity.principal import Permission, Role
from gateway.journal import Lane
from protocols.secret import FromFile, Secret
from tests.gateway.api.conftest import TENANT, Running, until
from tests.peers.libmodbus import LibmodbusServer

V1 = "/api/v1"


class _Options(msgspec.Struct, frozen=True, kw_only=True, tag_field="type", tag="example"):
    url: str
    headers: dict[str, str]
    password: Secret = FromFile(path="/run/secret")
    api_password: str = "canary"
    devices: tuple[str, ...] = ("canary",)


async def all_of(client: httpx.AsyncClient, path: str, **query: Any) -> list[dict[str, Any]]:  # Any: JSON
    """Every item of a list, page after page."""
    items: list[dict[str, Any]] = []
    while True:
        answer = await client.get(V1 + path, params=query)
        assert answer.status_code == 200, answer.text
        page = answer.json()
        items += page["items"]
        if page["next"] is None:
            return items
        query["cursor"] = page["next"]


async def test_the_plant_as_a_viewer_sees_it(plant: Running) -> None:
    viewer = await plant.as_role(Role.VIEWER)

    (connection,) = await all_of(viewer, "/connections")
    assert (connection["name"], connection["type"], connection["state"]) == ("hall", "modbus-tcp", "up")
    assert (connection["devices"], connection["tags"]) == (2, 4)
    assert connection["scans"]["scans"] > 0
    assert sum(each["scans"] for each in connection["scans"]["lateness"]) == connection["scans"]["scans"]
    assert connection["counters"]["taken"] > 0

    devices = await all_of(viewer, "/devices")
    assert [(one["name"], one["lost"], one["tags"], one["bad"]) for one in devices] == [("meter-1", False, 2, 0), ("meter-2", False, 2, 0)]
    assert all(one["last_seen_ns"] > 0 for one in devices)
    assert await all_of(viewer, "/devices", connection="cellar") == []

    assert [one["name"] for one in await all_of(viewer, "/devices/meter-1/tags")] == ["setpoint", "voltage"]
    tag = (await viewer.get(f"{V1}/devices/meter-1/tags/setpoint")).json()
    assert (tag["kind"], tag["writable"]) == ("uint16", True)
    for gone in ("/devices/meter-9", "/devices/_commands", "/devices/meter-1/tags/none", "/connections/none", "/uplinks/none", "/faces/x"):
        answer = await viewer.get(V1 + gone)
        assert (answer.status_code, answer.headers["content-type"]) == (404, "application/problem+json"), gone


async def test_values_come_by_pattern_and_in_pages(plant: Running) -> None:
    viewer = await plant.as_role(Role.VIEWER)
    everything = [("meter-1", "setpoint"), ("meter-1", "voltage"), ("meter-2", "setpoint"), ("meter-2", "voltage")]
    for limit in (1, 2, 3, 4, 100):
        assert [(one["device"], one["tag"]) for one in await all_of(viewer, "/values", limit=limit)] == everything
    assert [one["device"] for one in await all_of(viewer, "/values", device="*-2", tag="v?lt*")] == ["meter-2"]
    assert [one["tag"] for one in await all_of(viewer, "/devices/meter-1/values", limit=1)] == ["setpoint", "voltage"]
    value = (await viewer.get(f"{V1}/devices/meter-1/values/voltage")).json()
    assert (value["value"], value["unit"], value["quality"], value["quality_name"]) == (230.5, "V", 0, "good")
    assert value["time_ns"] > 0
    wrong = await viewer.get(f"{V1}/values", params={"cursor": base64.urlsafe_b64encode(b"[1]").decode()})
    assert (wrong.status_code, wrong.json()["type"]) == (400, "urn:holdfast:problem:invalid")


async def test_a_tenant_sees_its_own_alone(plant: Running) -> None:
    builder = await plant.as_role(Role.ADMINISTRATOR, TENANT)
    assert [one["name"] for one in await all_of(builder, "/devices")] == ["meter-2"]
    assert {one["device"] for one in await all_of(builder, "/values")} == {"meter-2"}
    (connection,) = await all_of(builder, "/connections")
    assert (connection["devices"], connection["tags"]) == (1, 2)
    for path in ("", "/tags", "/tags/voltage", "/values", "/values/voltage"):
        theirs, none = [await builder.get(f"{V1}/devices/{name}{path}") for name in ("meter-1", "meter-9")]
        assert theirs.status_code == none.status_code == 404
        assert theirs.content.replace(b"meter-1", b"meter-9") == none.content
    for path in ("/uplinks", "/faces", "/journal", "/ledger", "/journal/records", "/templates", "/connections/hall/options"):
        assert (await builder.get(V1 + path)).status_code == 403, path


async def test_the_ledger_can_be_checked_by_anybody(plant: Running) -> None:
    viewer = await plant.as_role(Role.VIEWER)
    ledger = (await viewer.get(f"{V1}/ledger")).json()
    assert {one["lane"] for one in ledger["lanes"]} == {"events", "telemetry"}
    for lane in ledger["lanes"]:
        explained = lane["kept"] + lane["unwritten"] + lane["retired"] + sum(lane["dropped"].values()) + lane["quarantined"]
        assert (lane["appended"], lane["unaccounted"]) == (explained, 0)
    journal = (await viewer.get(f"{V1}/journal")).json()
    assert 0 < journal["bytes"] <= journal["max_bytes"]


async def test_records_are_read_from_the_end_and_page_by_page(plant: Running) -> None:
    viewer = await plant.as_role(Role.VIEWER)
    journal = plant.appliance.journal
    await until("two records are durable", lambda: journal.head(Lane.TELEMETRY) > 2)
    entries = await all_of(viewer, "/journal/records", first=0, limit=1)
    assert [one["seq"] for one in entries] == list(range(1, len(entries) + 1))
    newest = (await viewer.get(f"{V1}/journal/records", params={"limit": 1})).json()
    assert newest["items"][0]["seq"] >= entries[-1]["seq"]
    assert {one["device"] for one in entries} == {"meter-1", "meter-2"}
    assert (await viewer.get(f"{V1}/journal/records", params={"limit": 501})).status_code == 400


async def test_the_journal_is_checked_on_request_once_at_a_time(plant: Running) -> None:
    viewer, technician = await plant.as_role(Role.VIEWER), await plant.as_role(Role.TECHNICIAN)
    assert (await viewer.get(f"{V1}/journal/verification")).json()["state"] == "never"
    assert (await viewer.post(f"{V1}/journal/verification")).status_code == 403
    begun = await technician.post(f"{V1}/journal/verification")
    assert (begun.status_code, begun.json()["state"]) == (202, "running")
    verification = plant.appliance.verification
    await until("the check has ended", lambda: verification.last.state == "ended")
    found = (await viewer.get(f"{V1}/journal/verification")).json()
    assert (found["quarantined"], found["missing"], found["repaired"]) == (0, 0, [])
    assert found["records"] > 0


async def test_options_are_told_without_secrets(plant: Running) -> None:
    engineer, viewer = await plant.as_role(Role.ENGINEER), await plant.as_role(Role.VIEWER)
    assert (await viewer.get(f"{V1}/connections/hall/options")).status_code == 403
    told = (await engineer.get(f"{V1}/connections/hall/options")).json()["options"]
    assert (told["type"], told["host"]) == ("modbus-tcp", "127.0.0.1")
    assert "devices" not in told


def test_no_option_that_could_be_a_secret_leaves() -> None:
    """Credentials in a URL or a header, and whatever is called a password."""
    told = shown.options(_Options(url="https://user:canary@example.com/api", headers={"Authorization": "canary", "Accept": "text/plain"}))
    assert told == {
        "type": "example",
        "url": "https://(hidden)@example.com/api",
        "headers": {"Authorization": "(hidden)", "Accept": "text/plain"},
        "password": {"from": "file", "path": "/run/secret"},
        "api_password": "(hidden)",
    }


async def test_templates_are_found_and_shown(plant: Running) -> None:
    viewer = await plant.as_role(Role.VIEWER)
    found = await all_of(viewer, "/templates", search="eastron sdm630", limit=1)
    assert "eastron/sdm630" in {one["name"] for one in found}
    whole = (await viewer.get(f"{V1}/templates/eastron/sdm630")).json()
    assert whole["manufacturer"] == "Eastron"
    assert len(whole["tags"]) > 10
    for wrong in ("eastron/none", "../sdm630", "%2e%2e/%2e%2e", "a%2fb/c"):
        assert (await viewer.get(f"{V1}/templates/{wrong}")).status_code == 404


async def test_a_device_that_falls_silent_is_told_as_lost(plant: Running, server: LibmodbusServer) -> None:
    viewer = await plant.as_role(Role.VIEWER, scopes=frozenset({Permission.SEE_STATUS}))
    await server.silent(1)
    latest = plant.appliance.latest
    await until("the meter is lost", lambda: (one := latest.device("meter-1")) is not None and latest.is_lost(one))
    device = (await viewer.get(f"{V1}/devices/meter-1")).json()
    assert (device["lost"], device["bad"]) == (True, 2)
    assert (await viewer.get(f"{V1}/values")).status_code == 403
