"""API tokens over the wire: told once, within what their maker has, gone at once when they are revoked."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio

from gateway.identity.principal import Permission, Role
from tests.gateway.api.conftest import TENANT, Running
from tests.gateway.identity.rig import Ahead, add, bare, sign_in

pytestmark = pytest.mark.asyncio(loop_scope="module")
DAY_S = 86400


@pytest.fixture(scope="module")
def ahead() -> Ahead:
    return Ahead()


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def one(tmp_path_factory: pytest.TempPathFactory, ahead: Ahead) -> AsyncIterator[Running]:
    """A gateway with the users anna (administrator) and otto (operator)."""
    async with bare(tmp_path_factory.mktemp("tokens"), ahead) as running:
        await add(running, "anna", Role.ADMINISTRATOR)
        await add(running, "otto", Role.OPERATOR)
        yield running


async def test_a_token_is_told_once_and_opens_what_it_says(one: Running) -> None:
    otto = await sign_in(one, "otto")
    made = (await otto.post("/api/v1/tokens", json={"name": "ci", "role": "viewer", "scopes": ["see-status", "own-account"]})).json()
    assert made["token"]["id"] == "otto~ci"
    ci = one.client(made["secret"])
    assert (await ci.get("/api/v1/gateway")).status_code == 200
    assert (await ci.get("/api/v1/session")).json()["permissions"] == ["see-status", "own-account"]
    assert (await ci.get("/api/v1/tags")).status_code in (403, 404)
    listed = (await otto.get("/api/v1/tokens")).json()["items"]
    assert [(each["id"], each["used_ns"] > 0) for each in listed] == [("otto~ci", True)]
    assert made["secret"] not in str(listed)


async def test_a_token_that_is_revoked_opens_nothing_at_once(one: Running) -> None:
    otto = await sign_in(one, "otto")
    made = (await otto.post("/api/v1/tokens", json={"name": "short", "role": "viewer"})).json()
    short = one.client(made["secret"])
    assert (await short.get("/api/v1/gateway")).status_code == 200
    assert (await otto.delete("/api/v1/tokens/otto~short")).status_code == 204
    assert (await short.get("/api/v1/gateway")).status_code == 401


async def test_a_token_expires(one: Running, ahead: Ahead) -> None:
    anna = await sign_in(one, "anna")
    made = (await anna.post("/api/v1/tokens", json={"name": "day", "role": "viewer", "days": 1})).json()
    assert (await one.client(made["secret"]).get("/api/v1/gateway")).status_code == 200
    ahead.by_s += DAY_S + 1
    assert (await one.client(made["secret"]).get("/api/v1/gateway")).status_code == 401


@pytest.mark.parametrize(
    ("body", "status"),
    [
        ({"role": "administrator"}, 403),
        ({"role": "operator", "machine": True}, 403),
        ({"role": "viewer", "days": 366}, 400),
        ({"role": "viewer", "scopes": ["everything"]}, 400),
        ({"role": "viewer", "name": "a~b"}, 400),
    ],
)
async def test_nobody_makes_a_token_that_reaches_further_than_they_do(one: Running, body: dict[str, object], status: int) -> None:
    otto = await sign_in(one, "otto")
    refused = await otto.post("/api/v1/tokens", json={"name": "over", **body})
    assert (refused.status_code, refused.json()["status"]) == (status, status)


async def test_who_is_bound_to_a_tenant_makes_tokens_of_that_tenant_alone(one: Running) -> None:
    await add(one, "tess", Role.OPERATOR, TENANT)
    tess = await sign_in(one, "tess")
    made = (await tess.post("/api/v1/tokens", json={"name": "own", "role": "viewer"})).json()
    assert made["token"]["tenant"] == TENANT
    assert (await one.client(made["secret"]).get("/api/v1/users")).status_code == 403


async def test_a_token_makes_no_tokens_but_one_that_manages_users(one: Running) -> None:
    viewer, manager = await one.as_role(Role.VIEWER), await one.as_role(Role.ADMINISTRATOR)
    assert (await viewer.post("/api/v1/tokens", json={"name": "next", "role": "viewer"})).status_code == 403
    assert (await manager.post("/api/v1/tokens", json={"name": "plc", "role": "viewer", "machine": True})).status_code == 201
    narrow = await one.as_role(Role.ADMINISTRATOR, scopes=frozenset({Permission.MANAGE_USERS, Permission.OWN_ACCOUNT}))
    over = {"name": "over", "role": "viewer", "machine": True}
    assert (await narrow.post("/api/v1/tokens", json=over)).status_code == 403
    assert (await narrow.post("/api/v1/tokens", json={**over, "scopes": ["own-account"]})).status_code == 201


async def test_the_tokens_of_others_are_not_there(one: Running) -> None:
    anna, otto = await sign_in(one, "anna"), await sign_in(one, "otto")
    await anna.post("/api/v1/tokens", json={"name": "hers", "role": "viewer"})
    assert (await otto.delete("/api/v1/tokens/anna~hers")).status_code == 404
    assert "anna~hers" not in (await otto.get("/api/v1/tokens")).text
    assert (await otto.get("/api/v1/tokens", params={"all": True})).status_code == 403
    assert "anna~hers" in (await anna.get("/api/v1/tokens", params={"all": True})).text


async def test_a_users_tokens_end_with_the_user_and_a_machines_go_on(one: Running) -> None:
    anna = await sign_in(one, "anna")
    await add(one, "eve", Role.ADMINISTRATOR)
    eve = await sign_in(one, "eve")
    secrets = {
        name: (await eve.post("/api/v1/tokens", json={"name": name, "role": role, "machine": machine})).json()["secret"]
        for name, role, machine in (("high", "engineer", False), ("low", "viewer", False), ("scada", "viewer", True))
    }

    async def still() -> set[str]:
        return {name for name, secret in secrets.items() if (await one.client(secret).get("/api/v1/gateway")).status_code == 200}

    assert await still() == {"high", "low", "scada"}
    await anna.patch("/api/v1/users/eve", json={"role": "operator"})
    assert await still() == {"low", "scada"}
    await anna.patch("/api/v1/users/eve", json={"disabled": True})
    assert await still() == {"scada"}
    await anna.delete("/api/v1/users/eve")
    await add(one, "eve", Role.ADMINISTRATOR)
    assert await still() == {"scada"}


async def test_tokens_and_users_outlive_a_restart_and_sessions_do_not(tmp_path: Path) -> None:
    async with bare(tmp_path) as before:
        await add(before, "anna", Role.ADMINISTRATOR)
        anna = await sign_in(before, "anna")
        secret = (await anna.post("/api/v1/tokens", json={"name": "ci", "role": "viewer"})).json()["secret"]
        session = anna.headers["authorization"].removeprefix("Bearer ")
    async with bare(tmp_path) as after:
        assert (await after.client(secret).get("/api/v1/gateway")).status_code == 200
        assert (await after.client(session).get("/api/v1/gateway")).status_code == 401
        await sign_in(after, "anna")
