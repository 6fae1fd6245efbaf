"""What tests of identity share: a gateway with nothing but its API, people who sign in to it, and a clock that can be set ahead."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Final

import httpx

from gateway.control import ask
from gateway.identity import questions
from gateway.identity.principal import Role
from protocols.clock import SystemClock
from tests.gateway.api.conftest import TENANT, Running, gateway
from tests.peers.opcua import free_port

PASSWORD: Final = "nine yellow boats at dawn"
OTHER: Final = "seven green hills at dusk"


class Ahead(SystemClock):
    """A clock whose monotonic time stands still but for ``by_s``, however busy the machine is. Who sleeps, sleeps as long as ever."""

    def __init__(self) -> None:
        self.by_s = 0.0
        self._began = SystemClock.monotonic()

    def time_ns(self) -> int:
        return SystemClock.time_ns() + round(self.by_s * 1e9)

    def monotonic(self) -> float:
        return self._began + self.by_s

    async def sleep_until(self, moment: float) -> None:
        await super().sleep_until(SystemClock.monotonic() + moment - self.monotonic())


@asynccontextmanager
async def bare(folder: Path, clock: Ahead | None = None, **api: Any) -> AsyncIterator[Running]:  # Any: JSON
    """A gateway with no connection; a tenant of it sees nothing."""
    site = {
        "holdfast": 1,
        "gateway": {"group": "plant", "name": "edge"},
        "journal": {"path": "journal"},
        "api": {"port": free_port(), **api},
        "tenants": [{"name": TENANT, "devices": ["meter-2"]}],
    }
    async with gateway(site, folder, clock) as one:
        yield one


async def add(one: Running, name: str, role: Role, tenant: str = "") -> None:
    """A user with PASSWORD, from a shell on the gateway."""
    await at_the_console(one, questions.AddUser(name=name, role=role, password=PASSWORD, tenant=tenant))


async def at_the_console(one: Running, question: questions.OfIdentity) -> list[dict[str, Any]]:  # Any: JSON
    """What the gateway answers over its control socket."""
    return [line async for line in ask(one.appliance.state.folder.parent, question)]


async def sign_in(one: Running, name: str, password: str = PASSWORD) -> httpx.AsyncClient:
    """A caller who has signed in, by token."""
    answer = await one.client().post("/api/v1/session", json={"name": name, "password": password})
    assert answer.status_code == 201, answer.text
    return one.client(answer.json()["token"])


async def sign_in_by_cookie(one: Running, name: str) -> httpx.AsyncClient:
    """A caller as a browser is, whose page is the gateway's own."""
    browser = one.client()
    answer = await browser.post("/api/v1/session", json={"name": name, "password": PASSWORD, "form": "cookie"}, headers={"Origin": one.url})
    assert answer.status_code == 201, answer.text
    return browser
