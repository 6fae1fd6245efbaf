"""See README.md."""

from __future__ import annotations

import asyncio
import contextlib
from pathlib import Path

import pytest

from gateway.config.model import Broker, MqttUplink
from protocols.contract import Unreachable
from protocols.mqtt.client import connect
from tests.fuzz.still import Complaints


@pytest.mark.parametrize("line", Path(__file__).with_name("packets.hex").read_text().splitlines())
async def test_a_packet_that_is_none_ends_the_connection_at_once(line: str) -> None:
    complaints, ended = Complaints(asyncio.get_running_loop()), asyncio.Event()

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(ConnectionError):
            await reader.read(4096)
            writer.write(bytes.fromhex(line))
            await ended.wait()  # it does not hang up: the gateway has to
        writer.close()

    server = await asyncio.start_server(talk, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    options = MqttUplink(name="cloud", host="127.0.0.1", port=port, keepalive_s=60, timeout_s=60)

    async def listen() -> None:
        async with connect(options, Broker(host="127.0.0.1", port=port), client_id="c") as mqtt:
            async for _ in mqtt.messages():
                pass

    try:
        with pytest.raises(Unreachable, match="no MQTT packet"):
            await asyncio.wait_for(listen(), 20)
    finally:
        ended.set()
        server.close()
    complaints.none()
