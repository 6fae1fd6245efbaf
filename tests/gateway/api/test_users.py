"""Users over the wire: made and changed by administrators of the whole gateway, within what they have."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from gateway.identity import questions
from gateway.identity.principal import Permission, Role
from tests.gateway.api.conftest import TENANT, Running
from tests.gateway.identity.rig import OTHER, PASSWORD, add, at_the_console, bare, sign_in

pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def one(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Running]:
    """A gateway with the administrator anna."""
    async with bare(tmp_path_factory.mktemp("users")) as running:
        await add(running, "anna", Role.ADMINISTRATOR)
        yield running


async def test_an_administrator_adds_changes_and_removes_a_user(one: Running) -> None:
    anna = await one.as_role(Role.ADMINISTRATOR)
    made = await anna.post("/api/v1/users", json={"name": "otto", "role": "operator", "password": PASSWORD})
    assert (made.status_code, made.json()["role"]) == (201, "operator")
    assert (await anna.post("/api/v1/users", json={"name": "otto", "role": "viewer", "password": PASSWORD})).status_code == 409
    await sign_in(one, "otto")
    changed = await anna.patch("/api/v1/users/otto", json={"role": "viewer", "tenant": TENANT})
    assert (changed.json()["role"], changed.json()["tenant"]) == ("viewer", TENANT)
    assert [each["name"] for each in (await anna.get("/api/v1/users")).json()["items"]] == ["anna", "otto"]
    assert (await anna.delete("/api/v1/users/otto")).status_code == 204
    assert (await anna.get("/api/v1/users/otto")).status_code == 404


async def test_the_last_administrator_stays_one(one: Running) -> None:
    """A user of a tenant, or one who is shut out, does not count."""
    anna = await one.as_role(Role.ADMINISTRATOR)
    for name, tenant in (("tess", TENANT), ("gone", "")):
        body = {"name": name, "role": "administrator", "password": PASSWORD, "tenant": tenant}
        assert (await anna.post("/api/v1/users", json=body)).status_code == 201
    await anna.patch("/api/v1/users/gone", json={"disabled": True})
    for change in ({"role": "engineer"}, {"disabled": True}, {"tenant": TENANT}):
        assert (await anna.patch("/api/v1/users/anna", json=change)).status_code == 409, change
    assert (await anna.delete("/api/v1/users/anna")).status_code == 409
    await anna.patch("/api/v1/users/gone", json={"disabled": False})
    assert (await anna.patch("/api/v1/users/anna", json={"role": "engineer"})).status_code == 200
    assert (await anna.patch("/api/v1/users/anna", json={"role": "administrator"})).status_code == 200


async def test_an_administrator_of_a_tenant_is_none_of_the_gateway(one: Running) -> None:
    builder = await one.as_role(Role.ADMINISTRATOR, TENANT)
    assert (await builder.get("/api/v1/users")).status_code == 403
    assert (await builder.post("/api/v1/users", json={"name": "x", "role": "viewer", "password": PASSWORD})).status_code == 403
    assert (await builder.get("/api/v1/tokens", params={"all": True})).status_code == 403


async def test_a_narrowed_token_makes_no_user_who_may_more_than_it_may(one: Running) -> None:
    narrow = await one.as_role(Role.ADMINISTRATOR, scopes=frozenset({Permission.MANAGE_USERS, Permission.SEE_STATUS}))
    for role in ("administrator", "viewer"):
        refused = await narrow.post("/api/v1/users", json={"name": "eve", "role": role, "password": PASSWORD})
        assert refused.status_code == 403
    assert (await narrow.put("/api/v1/users/anna/password", json={"password": OTHER})).status_code == 403
    assert (await narrow.patch("/api/v1/users/anna", json={"disabled": True})).status_code == 403


@pytest.mark.parametrize("password", ["short", "aaaaaaaaaaaaaaaaaaaa", "abababababababab", "boris-boris-1", "x" * 129 + "abcdef"])
async def test_a_password_that_is_easily_guessed_is_not_taken(one: Running, password: str) -> None:
    anna = await one.as_role(Role.ADMINISTRATOR)
    refused = await anna.post("/api/v1/users", json={"name": "boris-boris", "role": "viewer", "password": password})
    assert refused.status_code == 400
    assert refused.json()["problems"][0]["path"] == "password"
    assert password not in refused.text


@pytest.mark.parametrize(
    "body",
    [
        {"name": "Big Letters", "role": "viewer", "password": PASSWORD},
        {"name": "x" * 65, "role": "viewer", "password": PASSWORD},
        {"name": "oidc~x", "role": "viewer", "password": PASSWORD},
        {"name": "x", "role": "root", "password": PASSWORD},
        {"name": "x", "role": "viewer", "password": PASSWORD, "tenant": "nobody"},
        {"name": "x", "role": "viewer", "password": PASSWORD, "more": 1},
    ],
)
async def test_a_user_that_does_not_fit_is_refused(one: Running, body: dict[str, object]) -> None:
    anna = await one.as_role(Role.ADMINISTRATOR)
    assert (await anna.post("/api/v1/users", json=body)).status_code == 400


async def test_a_change_that_was_decided_on_an_old_state_is_refused(one: Running) -> None:
    anna = await one.as_role(Role.ADMINISTRATOR)
    etag = (await anna.get("/api/v1/users/anna")).headers["etag"]
    await add(one, "late", Role.VIEWER)
    stale = (await anna.get("/api/v1/users/late")).headers["etag"]
    await anna.patch("/api/v1/users/late", json={"role": "operator"})
    refused = await anna.patch("/api/v1/users/late", json={"role": "engineer"}, headers={"If-Match": stale})
    assert (refused.status_code, bool(etag)) == (412, True)


async def test_a_shell_on_the_gateway_gets_in_when_nobody_else_does(one: Running) -> None:
    await at_the_console(one, questions.SetPassword(name="anna", password=OTHER))
    await sign_in(one, "anna", OTHER)
    await at_the_console(one, questions.SetPassword(name="anna", password=PASSWORD))
    listed = await at_the_console(one, questions.ListUsers())
    assert "anna" in [each["name"] for each in listed]
    assert "digest" not in listed[0]
    anna = await sign_in(one, "anna")
    found = (await anna.get("/api/v1/audit", params={"limit": 500})).json()["items"]
    assert ("local:shell", "user_password", "anna") in [(each["who"], each["action"], each["on"]) for each in found]
