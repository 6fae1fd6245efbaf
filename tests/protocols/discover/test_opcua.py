"""An OPC UA server's endpoints are read from node-opcua's server; what is no server is refused with what to do."""

from __future__ import annotations

import asyncio

import pytest

from protocols.contract import Misfit, Unreachable
from protocols.discover import opcua
from tests.peers.mosquitto import free_port
from tests.peers.opcua import OpcUaServer
from tests.protocols.modbus.plc import listening

NOW_NS = 1_790_000_000_000_000_000


async def test_endpoints_are_told_with_their_security() -> None:
    """Of node-opcua's server: what is proposed to paste is what our client takes."""
    server = OpcUaServer(secure=True, users={"operator": "canary"})
    await asyncio.to_thread(server.launch)
    try:
        found = await opcua.endpoints("127.0.0.1", server.port, timeout_s=20.0, time_ns=NOW_NS)
    finally:
        await asyncio.to_thread(server.end)
    assert {candidate.where for candidate in found} == {f"opc.tcp://127.0.0.1:{server.port}/plant"}
    told = "\n".join(candidate.detail for candidate in found)
    assert "Basic256Sha256, sign and encrypt" in told
    assert "user name" in told
    assert {"type": "opcua", "endpoint": found[0].where, "security": {"policy": "Basic256Sha256", "mode": "sign-and-encrypt"}} in [
        candidate.options for candidate in found
    ]


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
