"""The door of the API: who is let in, and what is said to whoever is not."""

from __future__ import annotations

import ssl

import httpx
import pytest

from gateway.identity.principal import Permission, Role
from tests.gateway.api.conftest import TENANT, Running


async def test_a_caller_with_a_token_is_let_in_and_one_without_is_not(plant: Running) -> None:
    viewer, nobody, forger = await plant.as_role(Role.VIEWER), plant.client(), plant.client("hft_forged")
    assert (await viewer.get("/api/v1/gateway")).json()["name"] == "edge"
    for caller in (nobody, forger):
        refused = await caller.get("/api/v1/gateway")
        assert refused.status_code == 401
        assert refused.headers["content-type"] == "application/problem+json"
        assert refused.json()["advice"]


async def test_a_token_that_has_ended_opens_nothing(plant: Running) -> None:
    late = plant.client(await plant.token(Role.ADMINISTRATOR, lifetime_s=0))
    assert (await late.get("/api/v1/gateway")).status_code == 401


async def test_a_token_does_what_it_was_narrowed_to_and_no_more(plant: Running) -> None:
    narrow = await plant.as_role(Role.ADMINISTRATOR, scopes=frozenset({Permission.COMMAND}))
    assert (await narrow.get("/api/v1/gateway")).status_code == 403


async def test_health_is_for_everybody_and_tells_nothing(plant: Running) -> None:
    nobody = plant.client()
    assert [(await nobody.get(path)).json() for path in ("/healthz", "/readyz")] == [{"status": "ok"}] * 2


async def test_whoever_does_not_trust_the_gateways_authority_does_not_connect(plant: Running) -> None:
    with pytest.raises(httpx.ConnectError, match="certificate verify failed"):
        await plant.client(verify=ssl.create_default_context()).get("/healthz")


async def test_tls_older_than_1_3_is_refused(plant: Running) -> None:
    context = ssl.create_default_context(cafile=plant.appliance.authority.certificate_file)
    context.maximum_version = ssl.TLSVersion.TLSv1_2
    with pytest.raises(httpx.ConnectError):
        await plant.client(verify=context).get("/healthz")


async def test_an_answer_that_the_caller_has_already_is_not_sent_again(plant: Running) -> None:
    nobody = plant.client()
    first = await nobody.get("/healthz")
    again = await nobody.get("/healthz", headers={"If-None-Match": first.headers["etag"]})
    assert (again.status_code, again.content) == (304, b"")


async def test_a_tenant_knows_of_the_gateway_as_much_as_it_needs(plant: Running) -> None:
    builder = await plant.as_role(Role.VIEWER, TENANT)
    assert (await builder.get("/api/v1/gateway")).status_code == 200
