"""The live stream over WebSocket, from outside: a whole gateway, real meters, the clients of the package ``websockets``."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any, Final

from websockets.asyncio.client import ClientConnection, connect

from gateway.identity.principal import Role
from tests.gateway.api.conftest import DEADLINE_S, Running
from tests.peers.libmodbus import LibmodbusServer, registers

Message = dict[str, Any]  # Any: JSON
VOLTAGE: Final = "voltage"


@asynccontextmanager
async def following(plant: Running, token: str, **wish: Any) -> AsyncIterator[ClientConnection]:  # Any: JSON
    """A client that has subscribed; ``wish`` are the fields of the subscribe message."""
    async with opened(plant, token) as socket:
        await socket.send(json.dumps({"type": "subscribe", **wish}))
        yield socket


@asynccontextmanager
async def opened(plant: Running, token: str, **more: Any) -> AsyncIterator[ClientConnection]:  # Any: what connect takes
    headers = {"Authorization": f"Bearer {token}"} if token else {}
    url = f"wss://localhost:{plant.port}/api/v1/live"
    async with connect(url, ssl=plant.context, additional_headers=headers, compression=None, **more) as socket:
        yield socket


async def message(socket: ClientConnection, fits: Callable[[Message], bool] = lambda _: True) -> Message:
    """The next message that fits."""
    async with asyncio.timeout(DEADLINE_S):
        while True:
            found: Message = json.loads(await socket.recv())
            if fits(found):
                return found


def of(kind: str) -> Callable[[Message], bool]:
    return lambda one: bool(one["type"] == kind)


def voltages(one: Message) -> list[float]:
    entries = one["records"] if one["type"] == "records" else one["entries"] if one["type"] == "latest" else []
    return [value for entry in entries for tag, value in zip(entry["tags"], entry["values"], strict=True) if tag == VOLTAGE]


async def closed(socket: ClientConnection) -> tuple[int, str]:
    """Code and reason with which the gateway ends it."""
    async with asyncio.timeout(DEADLINE_S):
        async for _ in socket:
            pass
        await socket.wait_closed()
    assert socket.close_code is not None
    return socket.close_code, socket.close_reason or ""


async def test_the_latest_values_come_first_and_then_every_change_in_order(plant: Running, server: LibmodbusServer) -> None:
    async with following(plant, await plant.token(Role.VIEWER), devices=["meter-1"]) as socket:
        assert (await message(socket))["type"] == "subscribed"
        first = await message(socket, lambda one: bool(voltages(one)))
        assert (first["type"], voltages(first)) == ("latest", [230.5])
        seen: list[float] = []
        seqs: list[int] = []
        for volt in (231.0, 232.0, 233.0):
            await server.set(1, "holding", 0, *registers("f", volt))
            while not seen or seen[-1] != volt:
                told = await message(socket, of("records"))
                seen += voltages(told)
                seqs += [each["seq"] for each in told["records"]]
        assert [volt for at, volt in enumerate(seen) if volt not in seen[:at]][-3:] == [231.0, 232.0, 233.0]
        assert seqs == sorted(set(seqs))
        assert {each["device"] for each in told["records"]} == {"meter-1"}
