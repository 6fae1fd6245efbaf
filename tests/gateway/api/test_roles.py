"""Each role at a sample of operations, and the table of permissions that says what to expect (N6)."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import get_args

import pytest
import pytest_asyncio

from gateway.identity.principal import LEAST_ROLE, MEANING, Permission, Role
from holdfast.shapes.users import PermissionName, RoleName
from tests.gateway.api.conftest import TENANT, Running
from tests.gateway.identity.rig import PASSWORD, add, bare

pytestmark = pytest.mark.asyncio(loop_scope="module")

SAMPLE = {
    ("GET", "/api/v1/gateway"): Role.VIEWER,
    ("GET", "/api/v1/devices"): Role.VIEWER,
    ("GET", "/api/v1/session"): Role.VIEWER,
    ("GET", "/api/v1/tokens"): Role.VIEWER,
    ("GET", "/api/v1/audit"): Role.ADMINISTRATOR,
    ("GET", "/api/v1/users"): Role.ADMINISTRATOR,
    ("POST", "/api/v1/users/nobody/unlock"): Role.ADMINISTRATOR,
    ("DELETE", "/api/v1/users/nobody"): Role.ADMINISTRATOR,
    ("PUT", "/api/v1/users/nobody/password"): Role.ADMINISTRATOR,
}
WHOLE_GATEWAY = {path for _, path in SAMPLE if path.startswith(("/api/v1/users", "/api/v1/audit"))}


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def one(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Running]:
    async with bare(tmp_path_factory.mktemp("roles")) as running:
        await add(running, "anna", Role.ADMINISTRATOR)
        yield running


@pytest.mark.parametrize("tenant", ["", TENANT])
@pytest.mark.parametrize("role", [None, *Role])
async def test_each_role_does_what_the_table_says(one: Running, role: Role | None, tenant: str) -> None:
    caller = one.client() if role is None else await one.as_role(role, tenant)
    for (method, path), least in SAMPLE.items():
        body = {"password": PASSWORD} if method == "PUT" else None
        status = (await caller.request(method, path, json=body)).status_code
        if role is None:
            assert status == 401, path
        elif role.rank < least.rank or (tenant and path in WHOLE_GATEWAY):
            assert status == 403, path
        else:
            assert status in (200, 404), path


async def test_the_table_is_whole() -> None:
    """Each permission has a least role and a meaning, and clients know the same names."""
    assert set(LEAST_ROLE) == set(MEANING) == set(Permission)
    assert list(get_args(get_args(RoleName)[0])) == [role.value for role in Role]
    assert list(get_args(get_args(PermissionName)[0])) == [each.value for each in Permission]
