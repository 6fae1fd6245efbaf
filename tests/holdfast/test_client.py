"""The client against a gateway that runs: what it says comes back typed, what goes wrong is an error that says what."""

from __future__ import annotations

import asyncio
import dataclasses
import hashlib
import ssl
from collections.abc import Callable
from pathlib import Path

import pytest

from gateway.identity.principal import Role
from holdfast.client import AsyncClient, Client, Conflict, Ended, NotAllowed, NotThere, Unfit, Unknown, Unreachable, Untrusted, asks
from holdfast.client.ask import filled
from holdfast.shapes.live import Records, Subscribe, Subscribed
from tests.gateway.api.conftest import DEADLINE_S, Running, gateway, plant, server, site_of, until
from tests.peers.libmodbus import LibmodbusServer

__all__ = ["plant", "server"]


def ca(plant: Running) -> Path:
    return Path(plant.appliance.authority.certificate_file)


async def test_both_clients_say_the_same(plant: Running) -> None:
    token = await plant.token(Role.TECHNICIAN)

    def ask() -> tuple[str, list[str], float]:
        with Client(plant.url, token, ca_file=ca(plant)) as client:
            value = client.get_value("meter-1", "voltage").value
            assert isinstance(value, float)
            return client.get_gateway().name, [one.name for one in client.each(asks.list_devices(limit=1))], value

    waited = await asyncio.to_thread(ask)
    async with AsyncClient(plant.url, token, ca_file=ca(plant)) as client:
        names = [one.name async for one in client.each(asks.list_devices(limit=1))]
        value = (await client.get_value("meter-1", "voltage")).value
        assert waited == ((await client.get_gateway()).name, names, value) == ("edge", ["meter-1", "meter-2"], 230.5)


async def test_refusals_are_errors_with_their_problem(plant: Running) -> None:
    async with AsyncClient(plant.url, await plant.token(Role.VIEWER), ca_file=ca(plant)) as client:
        with pytest.raises(NotThere) as gone:
            await client.get_value("meter-1", "no/such ?#tag")
        assert "no/such ?#tag" in gone.value.problem.detail
        assert gone.value.problem.advice
        with pytest.raises(NotAllowed, match="diagnose"):
            await client.verify_journal()
        with pytest.raises(Unfit):
            await client.list_devices(limit=0)
    async with AsyncClient(plant.url, "hft_forged", ca_file=ca(plant)) as stranger:
        with pytest.raises(Unknown):
            await stranger.get_gateway()


async def test_the_authority_is_trusted_by_file_or_by_fingerprint(plant: Running) -> None:
    token = await plant.token(Role.VIEWER)
    der = ssl.PEM_cert_to_DER_cert(ca(plant).read_text())
    fingerprint = "SHA256:" + ":".join(f"{byte:02X}" for byte in hashlib.sha256(der).digest())
    async with await asyncio.to_thread(AsyncClient, plant.url, token, fingerprint=fingerprint) as client:
        assert (await client.get_gateway()).name == "edge"
    with pytest.raises(Untrusted):
        await asyncio.to_thread(AsyncClient, plant.url, token, fingerprint="00" * 32)
    async with AsyncClient(plant.url, token, repeats=0) as doubter:
        with pytest.raises(Unreachable, match="check ca_file or fingerprint"):
            await doubter.get_gateway()


async def test_a_write_is_repeated_with_its_key_and_carried_out_once(plant: Running) -> None:
    async with AsyncClient(plant.url, await plant.token(Role.TECHNICIAN), ca_file=ca(plant)) as client:
        ask = asks.verify_journal(idempotency_key="once")
        first = await client.fetch(ask)
        await until("the check has ended", lambda: plant.appliance.verification.last.state == "ended")
        again = await client.fetch(ask)
        assert (first.replayed, again.replayed, again.value) == (False, True, first.value)
        assert (await client.fetch(asks.get_gateway())).etag
        with pytest.raises(Conflict):
            await client.do(dataclasses.replace(ask, query={"other": 1}))


async def test_a_gateway_that_is_away_is_asked_again(server: LibmodbusServer, tmp_path: Path, free_port: Callable[[], int]) -> None:
    site = site_of(server, free_port())
    async with gateway(site, tmp_path) as before:
        token, authority = await before.token(Role.VIEWER), ca(before)
    client = AsyncClient(f"https://localhost:{site['api']['port']}", token, ca_file=authority, repeats=0)
    with pytest.raises(Unreachable, match="check the address"):
        await client.get_gateway()
    await client.close()
    async with AsyncClient(f"https://localhost:{site['api']['port']}", token, ca_file=authority, repeats=20) as patient:
        asking = asyncio.create_task(patient.do(asks.get_gateway()))
        async with gateway(site, tmp_path):
            assert (await asking).name == "edge"


async def test_the_live_stream_is_typed(plant: Running, server: LibmodbusServer) -> None:
    async with AsyncClient(plant.url, await plant.token(Role.VIEWER), ca_file=ca(plant)) as client:
        stream = client.follow(Subscribe(devices=("meter-1",), tags=("setpoint",)))
        assert isinstance(await anext(stream), Subscribed)
        await server.set(1, "holding", 10, 8)
        async with asyncio.timeout(DEADLINE_S):
            async for message in stream:
                if isinstance(message, Records) and message.records[-1].values == [8]:
                    break
        async with asyncio.timeout(DEADLINE_S):
            with pytest.raises(NotAllowed):
                async for _ in AsyncClient(plant.url, await plant.token(Role.VIEWER, scopes=frozenset()), ca_file=ca(plant)).follow():
                    pass


async def test_the_live_stream_goes_on_where_it_was(server: LibmodbusServer, tmp_path: Path, free_port: Callable[[], int]) -> None:
    """The gateway is stopped and started: no record twice, and none left out."""
    site = site_of(server, free_port())
    seen: list[tuple[int, int]] = []

    async def follow(url: str, token: str, authority: Path) -> None:
        async with AsyncClient(url, token, ca_file=authority) as client:
            async for message in client.follow(Subscribe(devices=("meter-1",))):
                if isinstance(message, Records):
                    seen.extend((record.epoch, record.seq) for record in message.records)

    async with gateway(site, tmp_path) as before:
        url, token = before.url, await before.token(Role.VIEWER)
        following = asyncio.create_task(follow(url, token, ca(before)))
        await asyncio.sleep(0)
        for value in range(20, 24):
            await server.set(1, "holding", 10, value)
            await until("a record came", lambda value=value: len(seen) > value - 20)  # type: ignore[misc]  # mypy: a default of a lambda
    count = len(seen)
    async with gateway(site, tmp_path) as after:
        await server.set(1, "holding", 10, 30)
        await until("records came again", lambda: len(seen) > count + 1)
        following.cancel()
        assert after.appliance.journal.ledger().lanes["telemetry"].unwritten >= 0
    assert sorted(set(seen)) == seen


def test_parts_of_a_path_stay_parts() -> None:
    assert filled("/devices/{}/tags/{}", "..", "a/b?c") == "/devices/%2E%2E/tags/a%2Fb%3Fc"


async def test_the_waiting_client_follows_too(plant: Running) -> None:
    token = await plant.token(Role.VIEWER)

    def first_two() -> list[str]:
        with Client(plant.url, token, ca_file=ca(plant)) as client:
            stream = client.follow()
            return [type(next(stream)).__name__ for _ in range(2)]

    first, second = await asyncio.to_thread(first_two)
    assert first == "Subscribed"
    assert second in ("Latest", "Live")


async def test_a_wish_that_makes_no_sense_ends_the_stream(plant: Running) -> None:
    async with AsyncClient(plant.url, await plant.token(Role.VIEWER), ca_file=ca(plant)) as client:
        with pytest.raises(Ended, match="subscribe"):
            async for _ in client.follow(Subscribe(every_ms=-1)):
                pass
