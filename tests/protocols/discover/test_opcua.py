"""An OPC UA server's endpoints are read from asyncua's server; what is no server is refused with what to do."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest
from asyncua.server.server import Server

from protocols.contract import Misfit, Unreachable
from protocols.discover import opcua
from tests.peers.mosquitto import free_port
from tests.protocols.modbus.plc import listening

NOW_NS = 1_700_000_000_000_000_000


@pytest.fixture
async def port() -> AsyncIterator[int]:
    at = free_port()
    server = Server()
    await server.init()
    server.set_endpoint(f"opc.tcp://127.0.0.1:{at}/plant")
    server.set_server_name("Boiler house")
    async with server:
        yield at


async def test_endpoints_are_told_with_their_security(port: int) -> None:
    (found,) = await opcua.endpoints("127.0.0.1", port, time_ns=NOW_NS)
    assert found.where == f"opc.tcp://127.0.0.1:{port}/plant"
    assert found.detail.startswith("Boiler house; no security; users: anonymous")
    assert found.options == {"type": "opcua", "endpoint": found.where, "security": {"policy": "none"}}


async def test_nobody_there_is_unreachable() -> None:
    with pytest.raises(Unreachable, match="check address"):
        await opcua.endpoints("127.0.0.1", free_port())


@pytest.mark.parametrize(
    "said", [b"HTTP/1.1 400 Bad Request\r\n\r\n", b"ACKF\xff\xff\xff\xff", b"ERRF\x10\0\0\0\0\0\x7d\x80\xff\xff\xff\xff", b""]
)
async def test_another_kind_of_server_is_a_misfit(said: bytes) -> None:
    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(8)
        writer.write(said)
        await writer.drain()

    async with listening(answer) as at:
        with pytest.raises(Misfit):
            await opcua.endpoints("127.0.0.1", at, timeout_s=5.0)


async def test_a_server_that_says_nothing_is_given_up() -> None:
    async def wait(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()

    async with listening(wait) as at:
        with pytest.raises(Unreachable, match="no answer within"):
            await opcua.endpoints("127.0.0.1", at, timeout_s=0.2)
