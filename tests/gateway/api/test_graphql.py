"""GraphQL from outside: what it gives, to whom, and what it refuses before it costs anything."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator
from typing import Any, Final

import httpx
import pytest
import pytest_asyncio

from gateway.api.graphql import carry_out, limits, schema
from gateway.api.routes import graphql as route
from gateway.identity.principal import Permission, Role
from gateway.journal import Lane
from tests.gateway.api.conftest import DEADLINE_S, TENANT, Running, gateway, site_of, until
from tests.peers.libmodbus import LibmodbusServer, registers
from tests.peers.mosquitto import free_port

pytestmark = pytest.mark.asyncio(loop_scope="module")

PATH: Final = "/api/v1/graphql"
ALL: Final = """
query All($most: Int = 5) {
  gateway { name timeNs }
  connections { items { name state scans { lateness { upToS scans } } } }
  devices(limit: $most) {
    items { name lost tagList { items { name kind } } values(tag: "volt*") { items { tag value qualityName timeNs } } }
  }
  commands { items { id stage timesNs } }
  ledger { lanes { lane appended unaccounted dropped } }
  uplinks { items { name } }
}
"""


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


async def ask(caller: httpx.AsyncClient, query: str, **more: Any) -> httpx.Response:  # Any: JSON
    return await caller.post(PATH, json={"query": query, **more})


def paths(answer: Any) -> dict[str, str]:  # Any: JSON
    """The code of each error, by path."""
    return {".".join(map(str, error["path"])): error["extensions"]["code"] for error in answer["errors"]}


async def test_one_question_brings_what_many_requests_would(plant: Running) -> None:
    viewer = await plant.as_role(Role.VIEWER)
    answer = (await ask(viewer, ALL)).json()
    assert "errors" not in answer
    data = answer["data"]
    assert data["gateway"]["name"] == "edge"
    assert [(one["name"], one["state"]) for one in data["connections"]["items"]] == [("hall", "up")]
    meters = data["devices"]["items"]
    assert [one["name"] for one in meters] == ["meter-1", "meter-2"]
    assert [one["name"] for one in meters[0]["tagList"]["items"]] == ["setpoint", "voltage"]
    (reading,) = meters[0]["values"]["items"]
    assert (reading["value"], reading["qualityName"]) == (230.5, "good")
    assert reading["timeNs"] > 2**53
    assert {one["lane"]: one["unaccounted"] for one in data["ledger"]["lanes"]} == {"events": 0, "telemetry": 0}
    page = (await ask(viewer, "{ devices(limit: 1) { items { name } next } }")).json()["data"]["devices"]
    rest = "query($c: String) { devices(limit: 1, cursor: $c) { items { name } next } }"
    assert (await ask(viewer, rest, variables={"c": page["next"]})).json()["data"]["devices"]["items"] == [{"name": "meter-2"}]


async def test_each_field_needs_what_its_operation_needs_and_shows_what_that_shows(plant: Running) -> None:
    builder = await plant.as_role(Role.ADMINISTRATOR, TENANT)
    answer = (await ask(builder, ALL)).json()
    assert paths(answer) == {"ledger": "forbidden", "uplinks": "forbidden"}
    assert answer["data"]["ledger"] is None
    assert [one["name"] for one in answer["data"]["devices"]["items"]] == ["meter-2"]
    assert "meter-1" not in str(answer)
    one = "query($n: String!) { device(name: $n) { name values { items { value } } } }"
    hidden, absent = [(await ask(builder, one, variables={"n": name})).json() for name in ("meter-1", "x")]
    assert str(hidden).replace("meter-1", "x") == str(absent)
    assert paths(hidden) == {"device": "not-found"}
    past = (await ask(builder, '{ history(device: "meter-1", tag: "voltage") { items { value } } }')).json()
    assert paths(past) == {"history": "not-found"}
    status = await plant.as_role(Role.ADMINISTRATOR, scopes=frozenset({Permission.SEE_STATUS}))
    answer = (await ask(status, "{ gateway { name } values { items { value } } commands { items { id } } }")).json()
    assert paths(answer) == {"values": "forbidden", "commands": "forbidden"}
    assert answer["data"]["gateway"] == {"name": "edge"}


async def test_whoever_is_unknown_asks_nothing_not_even_what_there_is(plant: Running) -> None:
    introspection = "{ __schema { types { name fields { name } } } }"
    assert (await ask(plant.client(), introspection)).status_code == 401
    known = (await ask(await plant.as_role(Role.VIEWER), introspection)).json()
    assert {"Device", "Reading", "Ledger"} <= {one["name"] for one in known["data"]["__schema"]["types"]}


def _deep(levels: int) -> str:
    return "{ a" * levels + " }" * levels


def _all(*fields: str) -> str:
    return "{ " + " ".join(fields) + " }"


REFUSED: Final[dict[str, tuple[dict[str, Any], int, str]]] = {
    "deep": ({"query": _deep(limits.MOST_DEPTH + 2)}, 413, "levels deep"),
    "very deep": ({"query": _deep(500)}, 413, "brackets within brackets"),
    "wide": ({"query": "{ devices(limit: 100) { items { values(limit: 100) { items { value tag } } } } }"}, 413, "could bring"),
    "wide by variable": (
        {"query": "query($n: Int) { devices(limit: $n) { items { values(limit: $n) { items { value } } } } }", "variables": {"n": 100}},
        413,
        "could bring",
    ),
    "wide by default": (
        {"query": "query($n: Int = 100) { devices(limit: $n) { items { values(limit: $n) { items { value } } } } }"},
        413,
        "could bring",
    ),
    "limit": ({"query": "{ devices(limit: 1000000) { items { name } } }"}, 413, "limit is 1 to"),
    "limit of many digits": ({"query": _all("devices(limit: " + "9" * 9000 + ") { items { name } }")}, 413, "limit is 1 to"),
    "aliases": ({"query": _all(*(f"a{at}: __typename" for at in range(31)))}, 413, "aliases"),
    "operations": ({"query": _all("gateway { name }") * 21}, 413, "operations and"),
    "many": ({"query": _all(*["__typename"] * 21)}, 413, "at its root"),
    "words": ({"query": _all(*["gateway { name }"] * 900)}, 413, "words"),
    "circle": ({"query": "{ ...A } fragment A on Query { ...B } fragment B on Query { ...A }"}, 400, "uses itself"),
    "billion": (
        {
            "query": "{ ...F0 } "
            + " ".join(f"fragment F{at} on Query {{ ...F{at + 1} ...F{at + 1} ...F{at + 1} ...F{at + 1} }}" for at in range(30))
            + " fragment F30 on Query { __typename }"
        },
        413,
        "could bring",
    ),
    "introspection": ({"query": "{ __schema { types { " + "fields { type { " * 4 + "name" + " } }" * 4 + " } } }"}, 400, ""),
    "mutation": ({"query": "mutation { a }"}, 400, "only queries"),
    "no query": ({"query": "{ devices { items"}, 400, "no GraphQL"),
    "no field": ({"query": "{ passwords }"}, 400, "does not fit the schema"),
    "no operation": ({"query": "query A { __typename } query B { __typename }"}, 400, ""),
    "long": ({"query": "#" * 16_385}, 400, ""),
    "more": ({"query": "{ __typename }", "wish": 1}, 400, ""),
}


async def test_what_would_cost_too_much_is_refused_before_it_costs_anything(plant: Running) -> None:
    viewer = await plant.as_role(Role.VIEWER)
    for name, (body, status, says) in REFUSED.items():
        refused = await viewer.post(PATH, json=body)
        assert refused.status_code == status, (name, refused.text)
        assert refused.headers["content-type"] == "application/problem+json"
        assert says in refused.json()["detail"], (name, refused.json())
    many = await viewer.post(PATH, json=[{"query": "{ __typename }"}] * 2)
    assert many.status_code == 400
    assert (await ask(viewer, "{ __typename }")).json() == {"data": {"__typename": "Query"}}


async def test_a_query_that_takes_too_long_is_given_up(plant: Running, monkeypatch: pytest.MonkeyPatch) -> None:
    viewer = await plant.as_role(Role.VIEWER)
    carried_out = schema._carried_out

    async def slowly(*given: Any) -> Any:  # Any: as it takes them
        await asyncio.sleep(DEADLINE_S)
        return await carried_out(*given)

    monkeypatch.setattr(schema, "_carried_out", slowly)
    monkeypatch.setattr(carry_out, "LONGEST_S", 0.2)
    late = await ask(viewer, ALL)
    assert (late.status_code, late.json()["detail"]) == (503, "the query took longer than 0.2 s")
    monkeypatch.undo()
    assert (await ask(viewer, ALL)).status_code == 200
    monkeypatch.setattr(carry_out, "MOST_AT_ONCE", 0)
    assert (await ask(viewer, ALL)).status_code == 429


async def test_where_it_is_not_installed_it_says_what_to_install(plant: Running, monkeypatch: pytest.MonkeyPatch) -> None:
    route._loaded.cache_clear()
    for name in [each for each in sys.modules if each.startswith("gateway.api.graphql")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "strawberry", None)
    answer = await ask(await plant.as_role(Role.VIEWER), ALL)
    route._loaded.cache_clear()
    assert (answer.status_code, "holdfast[graphql]" in answer.json()["advice"]) == (503, True)
