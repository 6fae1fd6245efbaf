"""The demonstration's broker: a real one, that can be killed and comes back on its port."""

from __future__ import annotations

import asyncio
from pathlib import Path

import aiomqtt
import pytest

from gateway.demo import broker
from gateway.demo.broker import Flavour, NoBroker
from protocols.clock import SystemClock

PROTOCOL = {"3.1.1": aiomqtt.ProtocolVersion.V311, "5": aiomqtt.ProtocolVersion.V5}


@pytest.fixture(params=["mosquitto", "amqtt"])
def flavour(request: pytest.FixtureRequest) -> Flavour:
    return broker.choose(request.param)


async def _said_and_heard(flavour: Flavour, port: int) -> bytes:
    async with asyncio.timeout(20), aiomqtt.Client("127.0.0.1", port, protocol=PROTOCOL[flavour.protocol]) as client:
        await client.subscribe("a/#", qos=1)
        await client.publish("a/b", b"hello", qos=1)
        message = await anext(aiter(client.messages))
    assert isinstance(message.payload, bytes)
    return message.payload


async def test_it_carries_messages_and_comes_back_on_its_port(flavour: Flavour, tmp_path: Path) -> None:
    """A QoS 1 message comes through; killed, nobody answers; started again, it serves on the same port."""
    async with broker.running(tmp_path, SystemClock(), flavour) as one:
        port = one.port
        assert await _said_and_heard(flavour, port) == b"hello"
        await one.stop()
        assert not one.up
        with pytest.raises(ConnectionRefusedError):
            await asyncio.open_connection("127.0.0.1", port)
        await one.start()
        assert one.port == port
        assert await _said_and_heard(flavour, port) == b"hello"
    assert not one.up


async def test_a_broker_that_does_not_start_says_why(tmp_path: Path) -> None:
    """A broker that ends at once is reported with what it said."""
    broken = Flavour("broken", "5", ("/bin/sh", "-c", "echo no licence; exit 3"), str)
    with pytest.raises(NoBroker, match=r"broken did not start on .*: no licence"):
        async with broker.running(tmp_path, SystemClock(), broken):
            pass


def test_a_broker_that_is_not_installed_is_said() -> None:
    """Asking for a broker that is not there says how to get one."""
    with pytest.raises(NoBroker, match="apt-get install"):
        broker.choose("emqx")
