"""The live stream over WebSocket, from outside: a whole gateway, real meters, the clients of the package ``websockets``."""

from __future__ import annotations

import asyncio
import json
import socket
import ssl
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from pathlib import Path
from typing import Any, Final

import pytest
import structlog
from websockets.asyncio.client import ClientConnection, connect
from websockets.client import ClientProtocol
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.uri import parse_uri

from gateway.api.routes import live as route
from gateway.api.websocket import MOST_MESSAGE
from gateway.identity.principal import Permission, Role
from gateway.live import live
from gateway.live.client import MOST_WAITING
from gateway.live.frame import LARGEST
from gateway.telemetry import logs
from protocols.model import Batch, Device, Kind, Tag
from tests.builders import batch
from tests.gateway.api.conftest import DEADLINE_S, TENANT, Running, gateway, site_of, until
from tests.peers.libmodbus import LibmodbusServer, registers

Message = dict[str, Any]  # Any: JSON
VOLTAGE: Final = "voltage"


@asynccontextmanager
async def following(plant: Running, token: str, **wish: Any) -> AsyncIterator[ClientConnection]:  # Any: JSON
    """A client that has subscribed; ``wish`` are the fields of the subscribe message."""
    async with opened(plant, token) as stream:
        await stream.send(json.dumps({"type": "subscribe", **wish}))
        yield stream


@asynccontextmanager
async def opened(plant: Running, token: str, **more: Any) -> AsyncIterator[ClientConnection]:  # Any: what connect takes
    headers = {"Authorization": f"Bearer {token}"} if token else {}
    url = f"wss://localhost:{plant.port}/api/v1/live"
    async with connect(url, ssl=plant.context, additional_headers=headers, compression=None, **more) as stream:
        yield stream


async def message(stream: ClientConnection, fits: Callable[[Message], bool] = lambda _: True) -> Message:
    """The next message that fits."""
    async with asyncio.timeout(DEADLINE_S):
        while True:
            found: Message = json.loads(await stream.recv())
            if fits(found):
                return found


def of(kind: str) -> Callable[[Message], bool]:
    return lambda one: bool(one["type"] == kind)


def voltages(one: Message) -> list[float]:
    entries = one["records"] if one["type"] == "records" else one["entries"] if one["type"] == "latest" else []
    return [value for entry in entries for tag, value in zip(entry["tags"], entry["values"], strict=True) if tag == VOLTAGE]


async def closed(stream: ClientConnection) -> tuple[int, str]:
    """Code and reason with which the gateway ends it."""
    async with asyncio.timeout(DEADLINE_S):
        with suppress(ConnectionClosed):
            async for _ in stream:
                pass
        await stream.wait_closed()
    assert stream.close_code is not None
    return stream.close_code, stream.close_reason or ""


async def test_the_latest_values_come_first_and_then_every_change_in_order(plant: Running, server: LibmodbusServer) -> None:
    async with following(plant, await plant.token(Role.VIEWER), devices=["meter-1"]) as stream:
        assert (await message(stream))["type"] == "subscribed"
        first = await message(stream, lambda one: bool(voltages(one)))
        assert (first["type"], voltages(first)) == ("latest", [230.5])
        seen: list[float] = []
        seqs: list[int] = []
        for volt in (231.0, 232.0, 233.0):
            await server.set(1, "holding", 0, *registers("f", volt))
            while not seen or seen[-1] != volt:
                told = await message(stream, of("records"))
                seen += voltages(told)
                seqs += [each["seq"] for each in told["records"]]
        assert [volt for at, volt in enumerate(seen) if volt not in seen[:at]][-3:] == [231.0, 232.0, 233.0]
        assert seqs == sorted(set(seqs))
        assert {each["device"] for each in told["records"]} == {"meter-1"}


async def test_every_value_comes_again_after_a_broken_connection(plant: Running, server: LibmodbusServer) -> None:
    token = await plant.token(Role.VIEWER)
    async with following(plant, token, devices=["meter-1"], snapshot=False) as stream:
        await server.set(1, "holding", 0, *registers("f", 1.0))
        before = (await message(stream, lambda one: 1.0 in voltages(one)))["records"][-1]
    for volt in (2.0, 3.0, 4.0):
        await server.set(1, "holding", 0, *registers("f", volt))
        await _stored(plant, volt)
    place = {"telemetry": {"epoch": before["epoch"], "seq": before["seq"]}}
    async with following(plant, token, resume=place) as stream:
        records: list[Message] = []
        while (told := await message(stream))["type"] != "live":
            records += told.get("records", [])
        seqs = [each["seq"] for each in records]
        assert seqs == list(range(before["seq"] + 1, told["at"]["seq"] + 1))
        assert [volt for volt in voltages({"type": "records", "records": records}) if volt < 100] == [2.0, 3.0, 4.0]


async def _stored(plant: Running, volt: float) -> None:
    await until(f"{volt} V are read", lambda: any(volt in batch.value.tolist() for batch in _latest(plant)))
    await until(f"{volt} V are stored", lambda: not plant.appliance.journal.ledger().lanes["telemetry"].unwritten)


def _latest(plant: Running) -> list[Batch]:
    device = plant.appliance.latest.device("meter-1")
    assert device is not None
    return list(plant.appliance.latest.batches(device))


async def test_whoever_may_not_follow_is_told_why_before_the_handshake(plant: Running) -> None:
    blind = await plant.token(Role.ADMINISTRATOR, scopes=frozenset({Permission.COMMAND}))
    for token, status in (("", 401), ("hft_forged", 401), (blind, 403)):
        with pytest.raises(InvalidStatus) as caught:
            async with opened(plant, token):
                pass
        response = caught.value.response
        assert response.status_code == status
        assert response.headers["content-type"] == "application/problem+json"
        assert json.loads(response.body or b"")["advice"]


async def test_the_page_of_another_origin_is_refused(plant: Running) -> None:
    token = await plant.token(Role.VIEWER)
    with pytest.raises(InvalidStatus) as caught:
        async with opened(plant, token, origin="https://elsewhere.example.com"):
            pass
    assert caught.value.response.status_code == 403
    async with opened(plant, token, origin=f"https://localhost:{plant.port}") as stream:
        await stream.send('{"type": "subscribe"}')
        assert (await message(stream))["type"] == "subscribed"


NONE: Final[tuple[tuple[str | bytes, int], ...]] = (
    ("[", 4400),
    (b"\x00\xff", 4400),
    ("", 4400),
    ("[" * 60_000, 4400),
    ('{"type": "subscribe", "devises": []}', 4400),
    (json.dumps({"type": "subscribe", "devices": ["a"] * 101}), 4400),
    ('{"type": "subscribe", "resume": {"telemetry": {"epoch": 1, "seq": -1}}}', 4400),
    ('{"type": "subscribe", "streams": ["log"]}', 4403),
    (" " * (MOST_MESSAGE + 1), 1009),
)
"""Messages that are none, and the code that says so."""


async def test_a_message_that_is_none_ends_the_stream_with_its_reason(plant: Running) -> None:
    token = await plant.token(Role.VIEWER)
    for said, code in NONE:
        async with opened(plant, token) as stream:
            await stream.send(said)
            assert (await closed(stream))[0] == code, said[:100]


async def test_a_client_that_says_nothing_is_sent_away(plant: Running, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(route, "FIRST_WORD_S", 0.2)
    async with opened(plant, await plant.token(Role.VIEWER)) as stream:
        assert (await closed(stream))[0] == route.SILENT


async def test_a_token_that_is_revoked_ends_its_streams(plant: Running, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(live, "RECHECK_S", 0.2)
    token = await plant.token(Role.VIEWER)
    (held,) = plant.appliance.identity.tokens.all()
    async with following(plant, token) as stream:
        await message(stream)
        await plant.appliance.identity.tokens.remove([held.id])
        code, reason = await closed(stream)
        assert (code, "sign in again" in reason) == (live.CREDENTIALS_ENDED, True)


async def test_a_tenant_sees_its_own_device_and_no_word_of_others(plant: Running, server: LibmodbusServer) -> None:
    token = await plant.token(Role.ADMINISTRATOR, TENANT)
    async with following(plant, token, streams=["values", "events"]) as stream:
        said = [await message(stream) for _ in range(4)]
        for unit in (1, 2):
            await server.set(unit, "holding", 0, *registers("f", 7.0))
        said.append(await message(stream, of("records")))
        assert "meter-2" in json.dumps(said)
        assert "meter-1" not in json.dumps(said)
    for whole in ("ledger", "log"):
        async with following(plant, token, streams=[whole]) as stream:
            assert (await closed(stream))[0] == 4403


async def test_a_client_that_does_not_read_is_cut_and_its_neighbour_goes_on(
    plant: Running, server: LibmodbusServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(live, "STALL_S", 0.5)
    token = await plant.token(Role.VIEWER)
    async with following(plant, token, snapshot=False) as neighbour:
        stalled = await asyncio.to_thread(_stalled, plant, token)
        await until("both follow", lambda: plant.appliance.live.clients == 2)
        device = Device("hall", "flood", (Tag(name="text", kind=Kind.STRING),))
        for _ in range(400):  # 8 MB: more than all buffers of a connection
            plant.appliance.journal.offer(batch(device, ["x" * 20_000]))
            assert plant.appliance.live.waiting < 2 * MOST_WAITING + 2 * LARGEST
            await message(neighbour) if plant.appliance.live.waiting > MOST_WAITING else await asyncio.sleep(0)
        async with asyncio.timeout(DEADLINE_S):
            while plant.appliance.live.clients == 2:
                await message(neighbour)
        assert plant.appliance.live.cut == {live.TRY_LATER: 1}
        await server.set(1, "holding", 0, *registers("f", 7.0))
        await message(neighbour, lambda one: 7.0 in voltages(one))
        code, reason = await asyncio.to_thread(_farewell, *stalled)
        assert (code, "too slow" in reason) == (live.TRY_LATER, True)


def _stalled(plant: Running, token: str) -> tuple[ssl.SSLSocket, ClientProtocol]:
    """A client that subscribes and reads nothing."""
    protocol = ClientProtocol(parse_uri(f"wss://localhost:{plant.port}/api/v1/live"), max_size=None)
    plain = socket.socket()
    plain.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    plain.settimeout(DEADLINE_S)
    plain.connect(("localhost", plant.port))
    tls = plant.context.wrap_socket(plain, server_hostname="localhost")
    request = protocol.connect()
    request.headers["Authorization"] = f"Bearer {token}"
    protocol.send_request(request)
    tls.sendall(b"".join(protocol.data_to_send()))
    while not protocol.events_received():
        protocol.receive_data(tls.recv(1))
    protocol.send_text(b'{"type": "subscribe", "snapshot": false}')
    tls.sendall(b"".join(protocol.data_to_send()))
    return tls, protocol


def _farewell(tls: ssl.SSLSocket, protocol: ClientProtocol) -> tuple[int, str]:
    """What the gateway said at the end, after all that it had sent before."""
    with tls:
        while protocol.close_rcvd is None and (received := tls.recv(65536)):
            protocol.receive_data(received)
    assert protocol.close_rcvd is not None
    return protocol.close_rcvd.code, protocol.close_rcvd.reason


async def test_the_log_is_followed_by_whoever_may_ask_for_support(plant: Running) -> None:
    logs.configure("info", "json")
    async with following(plant, await plant.token(Role.ENGINEER), streams=["log"]) as stream:
        await message(stream)
        structlog.get_logger("holdfast.test").info("somebody_looks", place="boiler house")
        told = await message(stream, lambda one: any(line["event"] == "somebody_looks" for line in one.get("lines", [])))
        assert [line["place"] for line in told["lines"] if line["event"] == "somebody_looks"] == ["boiler house"]


async def test_when_the_gateway_goes_it_says_so(server: LibmodbusServer, tmp_path: Path, free_port: Callable[[], int]) -> None:
    async with AsyncExitStack() as clients:
        async with gateway(site_of(server, free_port()), tmp_path) as plant:
            stream = await clients.enter_async_context(following(plant, await plant.token(Role.VIEWER)))
            await message(stream)
        assert (await closed(stream))[0] in (live.GOING_AWAY, 1012)
