"""A whole gateway with its API on a real port, two meters of libmodbus behind it, and callers of every role."""

from __future__ import annotations

import asyncio
import json
import ssl
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import httpx
import pytest

from gateway import config, links
from gateway.app import Appliance, running
from gateway.identity.principal import Permission, Role
from protocols.clock import Clock
from tests.peers.libmodbus import LibmodbusServer, registers

DEADLINE_S: Final = 20.0
TENANT: Final = "builder"
"""A tenant that sees meter-2 alone."""


def meters(port: int, *units: int) -> dict[str, Any]:  # Any: JSON
    """A connection with a meter for each unit: a float that reads 230.5 and a setpoint that may be written."""
    tags = [
        {"name": "voltage", "kind": "float32", "at": "holding:0", "unit": "V"},
        {"name": "setpoint", "kind": "uint16", "at": "holding:10", "writable": True, "minimum": 0, "maximum": 1000},
    ]
    devices = [{"name": f"meter-{unit}", "unit_id": unit, "scan_s": 0.1, "tags": tags} for unit in units]
    return {"type": "modbus-tcp", "name": "hall", "host": "127.0.0.1", "port": port, "devices": devices}


def site_of(server: LibmodbusServer, api_port: int, **more: Any) -> dict[str, Any]:  # Any: JSON
    """A site with two meters, a tenant and the API."""
    return {
        "holdfast": 1,
        "gateway": {"group": "plant", "name": "edge"},
        "journal": {"path": "journal"},
        "api": {"port": api_port},
        "tenants": [{"name": TENANT, "devices": ["meter-2"]}],
        "connections": [meters(server.port, 1, 2)],
        **more,
    }


@dataclass
class Running:
    """A gateway that runs, and its callers."""

    appliance: Appliance
    port: int
    context: ssl.SSLContext
    clients: list[httpx.AsyncClient]

    @property
    def url(self) -> str:
        return f"https://localhost:{self.port}"

    def client(self, token: str = "", **more: Any) -> httpx.AsyncClient:  # Any: what httpx takes
        """A caller with ``token``, or with none; closed with the gateway."""
        headers = {"Authorization": f"Bearer {token}"} if token else {}
        client = httpx.AsyncClient(base_url=self.url, verify=more.pop("verify", self.context), headers=headers, timeout=20, **more)
        self.clients.append(client)
        return client

    async def token(self, role: Role, tenant: str = "", scopes: frozenset[Permission] | None = None, lifetime_s: float = 600) -> str:
        name = f"{role.value}-{tenant}-{len(self.clients)}-{id(scopes)}"
        return await self.appliance.identity.issue_token(name, role, tenant=tenant, scopes=scopes, lifetime_s=lifetime_s, made_by="test")

    async def as_role(self, role: Role, tenant: str = "", scopes: frozenset[Permission] | None = None) -> httpx.AsyncClient:
        """A caller with a token of this role."""
        return self.client(await self.token(role, tenant, scopes))


async def until(what: str, true: Callable[[], bool]) -> None:
    """Wait for a condition; past the deadline the test fails and says which."""
    async with asyncio.timeout(DEADLINE_S):
        while not true():  # noqa: ASYNC110 - what is waited for is seen from outside
            await asyncio.sleep(0.02)


@asynccontextmanager
async def gateway(site: dict[str, Any], folder: Path, clock: Clock | None = None) -> AsyncIterator[Running]:  # Any: JSON
    """The gateway of ``site``, once its API serves."""
    loaded, problems = config.load(json.dumps(site).encode())
    assert loaded is not None, problems
    async with running(loaded, base=folder, clock=clock) as appliance:
        await until("the API serves", lambda: any(one.kind == "api" and one.state is links.State.UP for one in appliance.statuses))
        context = ssl.create_default_context(cafile=appliance.authority.certificate_file)
        here = Running(appliance, site["api"]["port"], context, [])
        try:
            yield here
        finally:
            for client in here.clients:
                await client.aclose()


@pytest.fixture
async def server() -> AsyncIterator[LibmodbusServer]:
    async with LibmodbusServer(units=[1, 2]) as one:
        for unit in (1, 2):
            await one.set(unit, "holding", 0, *registers("f", 230.5))
            await one.set(unit, "holding", 10, 7)
        yield one


@pytest.fixture
async def plant(server: LibmodbusServer, tmp_path: Path, free_port: Callable[[], int]) -> AsyncIterator[Running]:
    """A gateway with meter-1 and meter-2, both read at least once."""
    async with gateway(site_of(server, free_port()), tmp_path) as one:
        await until("both meters are read", lambda: _read(one.appliance) == {"meter-1", "meter-2"})
        yield one


def _read(appliance: Appliance) -> set[str]:
    devices = [device for device in appliance.latest.devices() if not device.name.startswith("_")]
    return {device.name for device in devices if all(not batch.quality.any() for batch in appliance.latest.batches(device))}
