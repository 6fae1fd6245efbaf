"""The live stream as server-sent events, from outside: httpx reads it line by line, as a browser does."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from operator import attrgetter
from typing import Any, Final

import httpx
import pytest
import pytest_asyncio

from gateway.identity.principal import Role
from gateway.journal import Lane
from gateway.live import live
from tests.gateway.api.conftest import DEADLINE_S, TENANT, Running, gateway, site_of, until
from tests.peers.libmodbus import LibmodbusServer, registers
from tests.peers.mosquitto import free_port

pytestmark = pytest.mark.asyncio(loop_scope="module")

PATH: Final = "/api/v1/live/events"


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def server() -> AsyncIterator[LibmodbusServer]:
    async with LibmodbusServer(units=[1, 2]) as one:
        for unit in (1, 2):
            await one.set(unit, "holding", 0, *registers("f", 230.5))
        yield one


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def plant(server: LibmodbusServer, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Running]:
    """One for all tests of this module."""
    async with gateway(site_of(server, free_port()), tmp_path_factory.mktemp("plant")) as one:
        await until("both meters are read", lambda: one.appliance.journal.head(Lane.TELEMETRY) > 4)
        yield one


@dataclass
class Event:
    id: str
    type: str
    data: dict[str, Any]  # Any: JSON


class Events:
    """Server-sent events as they come (HTML, 9.2.6)."""

    def __init__(self, response: httpx.Response) -> None:
        self._lines = response.aiter_lines()

    async def next(self, *types: str) -> Event:
        """The next event of one of ``types``; of any, without."""
        async with asyncio.timeout(DEADLINE_S):
            while True:
                fields: dict[str, str] = {}
                while line := await anext(self._lines):
                    key, _, value = line.partition(": ")
                    fields[key] = value
                event = Event(fields.get("id", ""), fields["event"], json.loads(fields["data"]))
                if not types or event.type in types:
                    return event


@asynccontextmanager
async def following(
    caller: httpx.AsyncClient, headers: dict[str, str] | None = None, **wish: Any
) -> AsyncIterator[Events]:  # Any: parameters
    async with caller.stream("GET", PATH, params=wish, headers=headers or {}) as response:
        assert response.status_code == 200
        assert response.headers["content-type"].startswith("text/event-stream")
        yield Events(response)


def voltages(event: Event) -> list[float]:
    entries = event.data.get("records") or event.data.get("entries") or []
    return [value for entry in entries for tag, value in zip(entry["tags"], entry["values"], strict=True) if tag == "voltage"]


async def test_a_browser_goes_on_where_it_was_cut_off(plant: Running, server: LibmodbusServer) -> None:
    caller = await plant.as_role(Role.VIEWER)
    async with following(caller, device="meter-1") as events:
        assert (await events.next()).type == "subscribed"
        assert voltages(await events.next("latest")) == [230.5]
        await server.set(1, "holding", 0, *registers("f", 1.0))
        while 1.0 not in voltages(last := await events.next("records")):
            pass
    await until("it is gone", lambda: plant.appliance.live.clients == 0)
    await server.set(1, "holding", 0, *registers("f", 2.0))
    async with following(caller, {"Last-Event-ID": last.id}, device="meter-1") as events:
        seen: list[Event] = []
        while not seen or 2.0 not in voltages(seen[-1]):
            seen.append(await events.next("records", "latest", "skipped"))
        assert {each.type for each in seen} == {"records"}
        first = last.data["records"][-1]["seq"] + 1
        seqs = [each["seq"] for event in seen for each in event.data["records"]]
        assert seqs == list(range(first, first + len(seqs)))
        assert last.id.split(":")[0] == "telemetry"


async def test_what_cannot_be_followed_is_refused_with_its_reason(plant: Running) -> None:
    viewer, builder = await plant.as_role(Role.VIEWER), await plant.as_role(Role.ADMINISTRATOR, TENANT)
    for caller, wish, status in (
        (viewer, {"stream": "log"}, 403),
        (builder, {"stream": "ledger"}, 403),
        (viewer, {"stream": "everything"}, 400),
        (viewer, {"resume": "telemetry:1"}, 400),
        (viewer, {"resume": "telemetry:1:-5"}, 400),
        (viewer, {"resume": "weather:1:5"}, 400),
        (viewer, {"device": ["a"] * 101}, 400),
        (viewer, {"every_ms": "-1"}, 400),
        (plant.client(), {}, 401),
    ):
        refused = await caller.get(PATH, params=wish)
        assert (refused.status_code, refused.headers["content-type"]) == (status, "application/problem+json"), wish
    assert plant.appliance.live.clients == 0


async def test_a_tenant_hears_of_its_own_device_alone(plant: Running) -> None:
    async with following(await plant.as_role(Role.VIEWER, TENANT)) as events:
        told = await events.next("latest")
        assert {entry["device"] for entry in told.data["entries"]} == {"meter-2"}


async def test_a_stream_whose_token_has_ended_says_so_and_ends(plant: Running, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(live, "RECHECK_S", 0.2)
    caller = await plant.as_role(Role.VIEWER)
    held = max(plant.appliance.identity.tokens.all(), key=attrgetter("made_ns"))
    async with following(caller) as events:
        await events.next("latest")
        await plant.appliance.identity.tokens.remove([held.id])
        assert (await events.next("ended")).data["code"] == live.CREDENTIALS_ENDED
    await until("it is gone", lambda: plant.appliance.live.clients == 0)
