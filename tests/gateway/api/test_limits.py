"""Clients that take too much, or never end: they are told to wait, or cut, and their neighbours go on (N29)."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator
from typing import Final

import pytest
import pytest_asyncio

from gateway.identity.principal import Role
from tests.gateway.api.conftest import Running, until
from tests.gateway.identity.rig import add, bare

pytestmark = pytest.mark.asyncio(loop_scope="module")

PATIENCE_S: Final = 1.0
CUT_WITHIN_S: Final = 20.0


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def one(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Running]:
    """A gateway with little patience, that takes 12 connections and 3 requests at once of one address."""
    limits = {"patience_s": PATIENCE_S, "connections": 20, "connections_per_address": 12, "requests_per_address": 3}
    async with bare(tmp_path_factory.mktemp("limits"), limits=limits) as running:
        await add(running, "anna", Role.ADMINISTRATOR)
        yield running


@pytest_asyncio.fixture(loop_scope="module", autouse=True)
async def hung_up(one: Running) -> AsyncIterator[None]:
    """Each test's callers hang up: their connections count."""
    yield
    for client in one.clients:
        await client.aclose()


@pytest_asyncio.fixture(loop_scope="module")
async def neighbour(one: Running) -> AsyncIterator[None]:
    """Somebody who goes on asking all the while, and is always answered."""
    caller = await one.as_role(Role.VIEWER)
    assert (await caller.get("/api/v1/gateway")).status_code == 200
    yield
    assert (await caller.get("/api/v1/gateway")).status_code == 200


async def connect(one: Running) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    return await asyncio.open_connection("localhost", one.port, ssl=one.context)


async def is_cut(reader: asyncio.StreamReader) -> bytes:
    """What came before the gateway ended the connection."""
    async with asyncio.timeout(CUT_WITHIN_S):
        try:
            return await reader.read()
        except (ConnectionError, ssl.SSLError):
            return b""


@pytest.mark.usefixtures("neighbour")
@pytest.mark.parametrize("sent", [b"", b"GET /heal", b"GET /healthz HTTP/1.1\r\nHost: localhost\r\nX-Slow: "])
async def test_who_never_ends_the_head_of_a_request_is_cut(one: Running, sent: bytes) -> None:
    reader, writer = await connect(one)
    writer.write(sent)
    assert await is_cut(reader) == b""
    writer.close()


@pytest.mark.usefixtures("neighbour")
async def test_who_dribbles_the_next_head_is_cut(one: Running) -> None:
    """Each byte comes soon after the one before, but the head never ends."""
    reader, writer = await connect(one)
    writer.write(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n")
    assert (await reader.readline()).startswith(b"HTTP/1.1 200")
    writer.write(b"GET /healthz HTTP/1.1\r\n")

    async def dribble() -> None:
        while not writer.is_closing():
            writer.write(b"X-More: y\r\n")
            await asyncio.sleep(PATIENCE_S / 10)

    task = asyncio.create_task(dribble())
    await is_cut(reader)
    writer.close()
    await task


@pytest.mark.usefixtures("neighbour")
async def test_a_body_that_does_not_come_is_not_waited_for(one: Running) -> None:
    reader, writer = await connect(one)
    writer.write(b"POST /api/v1/session HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: 100\r\n\r\n{")
    answer = await is_cut(reader)
    assert answer.startswith(b"HTTP/1.1 408")
    assert b"application/problem+json" in answer
    writer.close()


@pytest.mark.usefixtures("neighbour")
async def test_connections_that_say_nothing_keep_nobody_out_for_long(one: Running) -> None:
    """Half-open ones count too: the thirteenth is refused, and there is room again when the others have been cut."""
    flood = [await asyncio.open_connection("localhost", one.port) for _ in range(16)]
    ends = [asyncio.create_task(is_cut(reader)) for reader, _ in flood]
    await asyncio.gather(*ends)
    for _, writer in flood:
        writer.close()
    assert (await one.client().get("/healthz")).status_code == 200


async def test_more_requests_at_once_than_are_taken_are_told_to_come_again(one: Running) -> None:
    slow = [await connect(one) for _ in range(3)]
    for _, writer in slow:
        writer.write(b"POST /api/v1/session HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: 100\r\n\r\n{")
    statuses: list[int] = []

    async def refused() -> None:
        async with asyncio.timeout(CUT_WITHIN_S):
            while 503 not in statuses:
                answer = await one.client().get("/healthz")
                statuses.append(answer.status_code)
        assert answer.json()["type"] == "urn:holdfast:problem:unavailable"
        assert answer.headers["retry-after"]

    await refused()
    await asyncio.gather(*(is_cut(reader) for reader, _ in slow))
    for _, writer in slow:
        writer.close()
    assert (await one.client().get("/healthz")).status_code == 200


async def test_who_asks_too_often_is_told_when_to_come_again(tmp_path_factory: pytest.TempPathFactory) -> None:
    async with bare(tmp_path_factory.mktemp("rate"), limits={"requests_per_s": 5}) as strict:
        nobody = strict.client()
        answers = [await nobody.get("/healthz") for _ in range(30)]
        assert {answer.status_code for answer in answers} == {200, 429}
        last = next(answer for answer in answers if answer.status_code == 429)
        assert int(last.headers["retry-after"]) >= 1
        assert last.headers["content-type"] == "application/problem+json"
        assert last.json()["advice"]


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def patient(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Running]:
    """A gateway that waits for longer than these tests do, and takes 4 connections of one address."""
    async with bare(tmp_path_factory.mktemp("patient"), limits={"patience_s": 600, "connections_per_address": 4}) as running:
        yield running


async def test_a_head_without_end_is_cut_before_it_fills_memory(patient: Running) -> None:
    reader, writer = await connect(patient)
    writer.write(b"GET /healthz HTTP/1.1\r\n" + b"X-Long: " + b"y" * 400_000)
    assert b"HTTP/1.1 200" not in await is_cut(reader)
    writer.close()


async def test_one_address_has_so_many_connections_and_no_more(patient: Running) -> None:
    """Those that have not even begun their handshake count; where one ends there is room again."""
    held = [await asyncio.open_connection("localhost", patient.port) for _ in range(4)]
    with pytest.raises((ConnectionError, ssl.SSLError)):
        await connect(patient)
    held[0][1].close()

    async def again() -> None:
        async with asyncio.timeout(CUT_WITHIN_S):
            while True:
                try:
                    _, writer = await connect(patient)
                except OSError:
                    await asyncio.sleep(0.05)
                    continue
                writer.close()
                return

    await again()
    for _, writer in held[1:]:
        writer.close()


async def test_what_is_longer_than_is_taken_is_refused(one: Running) -> None:
    answer = await one.client().post("/api/v1/session", content=b"x" * (1024 * 1024 + 1), headers={"Content-Type": "application/json"})
    assert answer.status_code == 413


async def test_the_room_is_given_back(one: Running) -> None:
    """After all that, as many connections as ever are taken."""
    caller = await one.as_role(Role.VIEWER)
    done: list[int] = []

    async def ask() -> None:
        done.append((await caller.get("/healthz")).status_code)

    await asyncio.gather(*(ask() for _ in range(3)))
    await until("all are answered", lambda: done == [200, 200, 200])
