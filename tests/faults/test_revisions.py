"""A document that cuts the uplink and the API's own port, and nobody who confirms it: the gateway is back by itself, and nothing is lost.

A whole plant runs (a field in C whose scans are numbered, a meter on libmodbus, mosquitto, a cloud that keeps account). Through the
API, with an engineer's token, a document is applied that takes the uplink away, or sends it where nobody is, and takes the API away
or moves it. The gateway is killed at some instant: before the document is kept, while it is swapped in, while it runs, while the
gateway goes back; it is started again as systemd would. At the end the oracle judges that every record came.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
import ssl
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Final, Literal

import httpx

from tests.faults import figures
from tests.faults.rig import Plan, Rig, dice, many, rig, spread
from tests.peers.libmodbus import LibmodbusServer, registers
from tests.peers.mosquitto import free_port

WITHIN_S: Final = 3.0
BACK_S: Final = 30.0
"""By then it is back, on any machine; how long it took is a figure."""
ROUNDS: Final = many(ci=2, long=120)
MOST_IN_FLIGHT: Final = 20
"""As in ``test_kill``: scans that may die with a process."""
Moment = Literal["never", "applying", "on trial", "going back", "twice"]
KILLS: Final[tuple[Moment, ...]] = ("applying", "going back", "on trial", "twice")


async def test_a_document_that_cuts_the_way_in_and_the_way_out_is_taken_back_also_over_a_kill(tmp_path: Path) -> None:
    """Whatever instant the gateway is killed at: the API is back on its port, the uplink delivers, every record comes."""
    chance, port = dice("revisions"), free_port()
    times: list[float] = []
    async with plant_with_a_meter(tmp_path, port) as plant:
        token = await asyncio.to_thread(plant.gateway.command, "token", "issue", str(plant.gateway.site_file), "ci", "--role", "engineer")
        async with caller(plant, token.strip()) as client:
            await serving(plant, client, port)
            before = await configuration(client, port)
            first = chance.randrange(len(KILLS))
            for at in range(ROUNDS):
                moment: Moment = "never" if at % 5 == 0 else KILLS[(first + at) % len(KILLS)]
                began = time.monotonic()
                await cut(plant, client, port, moment, chance)
                await serving(plant, client, port)
                assert (await configuration(client, port))["document"] == before["document"], moment
                times.append(time.monotonic() - began)
                await plant.arrive(50)
            revisions = (await client.get(f"https://localhost:{port}/api/v1/revisions?limit=1000")).json()["items"]
        verdict = await plant.finish(most_in_flight=MOST_IN_FLIGHT, deadline_s=120)
    assert any(one["standing"] == "reverted" and "not confirmed" in one["ended"] for one in revisions), revisions
    assert not any(one["standing"] == "confirmed" and one["origin"] == "api" for one in revisions), revisions
    assert not verdict.lost
    figures.record(
        "revisions",
        rounds=ROUNDS,
        confirm_within_s=WITHIN_S,
        records=verdict.records,
        in_flight=verdict.in_flight,
        longest_in_flight=verdict.longest_in_flight,
        **spread("back", times),
    )


async def cut(plant: Rig, client: httpx.AsyncClient, port: int, moment: Moment, chance: random.Random) -> None:
    """Apply a document that cuts, and kill the gateway at ``moment``, if any; it is started again at once."""
    body = {"document": cutting(plant, chance), "reason": moment, "confirm_within_s": WITHIN_S}
    asking = asyncio.create_task(client.post(f"https://localhost:{port}/api/v1/revisions", json=body))
    if moment == "applying":
        await asyncio.sleep(chance.uniform(0, 0.4))
        await again(plant)
        with contextlib.suppress(httpx.HTTPError):  # it may have been answered, or not
            await asking
        return
    answer = await asking
    assert answer.status_code == 201, answer.text
    assert answer.json()["revision"]["standing"] == "trial"
    for wait in {"never": (), "on trial": (0.8,), "going back": (1.05,), "twice": (0.3, 0.6)}[moment]:
        until_then = WITHIN_S * chance.uniform(wait - 0.15, wait)
        await asyncio.sleep(until_then if moment != "twice" else until_then / 2)
        await again(plant)


def cutting(plant: Rig, chance: random.Random) -> dict[str, Any]:  # Any: JSON
    """The site without a way out, and with no way in where it was."""
    document = plant.site()
    if chance.random() < 0.5:
        document["uplinks"] = []
    else:
        document["uplinks"][0]["port"] = free_port()
    if chance.random() < 0.5:
        del document["api"]
    else:
        document["api"]["port"] = free_port()
    return document


async def again(plant: Rig) -> None:
    """Killed, and started again."""
    await plant.kill()
    await plant.launch()


async def serving(plant: Rig, client: httpx.AsyncClient, port: int) -> None:
    """Wait until the API answers on its port and something new comes to the cloud of every device."""
    end = time.monotonic() + BACK_S
    while True:
        with contextlib.suppress(httpx.HTTPError):
            if (await client.get(f"https://localhost:{port}/api/v1/configuration")).json()["standing"] == "confirmed":
                break
        assert time.monotonic() < end, f"the API is not back within {BACK_S:g} s; {plant.state()}"
        await asyncio.sleep(0.05)
    await plant.flows(BACK_S)


async def configuration(client: httpx.AsyncClient, port: int) -> dict[str, Any]:  # Any: JSON
    answer: dict[str, Any] = (await client.get(f"https://localhost:{port}/api/v1/configuration")).json()
    return answer


def hall(port: int) -> dict[str, Any]:  # Any: JSON
    """Two meters, whose scan is one record each."""
    tags = [{"name": "voltage", "kind": "float32", "at": "holding:0"}]
    devices = [{"name": f"meter-{unit}", "unit_id": unit, "scan_s": 0.2, "tags": tags} for unit in (1, 2)]
    return {"type": "modbus-tcp", "name": "hall", "host": "127.0.0.1", "port": port, "devices": devices}


@asynccontextmanager
async def plant_with_a_meter(folder: Path, port: int) -> AsyncIterator[Rig]:
    async with LibmodbusServer(units=[1, 2]) as meter:
        for unit in (1, 2):
            await meter.set(unit, "holding", 0, *registers("f", 230.5))

        def change(document: dict[str, Any]) -> None:  # Any: JSON
            document["api"] = {"port": port}
            document["connections"].append(hall(meter.port))

        async with rig(folder, Plan(devices=4, change=change)) as plant:
            yield plant


@asynccontextmanager
async def caller(plant: Rig, token: str) -> AsyncIterator[httpx.AsyncClient]:
    authority = plant.journal / "state" / "authority" / "ca.pem"
    await plant.until("the gateway has a certificate", authority.exists)
    context = ssl.create_default_context(cafile=authority)
    headers = {"Authorization": f"Bearer {token}"}
    async with httpx.AsyncClient(verify=context, headers=headers, timeout=20, limits=httpx.Limits(max_keepalive_connections=0)) as client:
        yield client
