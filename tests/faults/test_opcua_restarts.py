"""An OPC UA server that is restarted or cut off again and again: few sessions, no lost subscription, no gap in what it still has.

The connection runs as the gateway runs it, inside its link. CI restarts the server twice, ``make long`` 20 times.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from typing import Final

import pytest

from gateway import links
from gateway.connections import Connection
from protocols.clock import SystemClock
from protocols.model import Batch, Kind, Quality
from protocols.opcua.config import Device, OpcUa, Security, Tag
from protocols.opcua.driver import OPCUA
from tests.faults import figures
from tests.fuzz.campaign import IS_LONG
from tests.peers.opcua import URI, OpcUaServer
from tests.peers.proxy import Proxy

RESTARTS: Final = 20 if IS_LONG else 2
CUTS: Final = 30 if IS_LONG else 4
PATIENCE_S: Final = 90.0


class Heard:
    """Good values of LEVEL, in the order in which they came."""

    def __init__(self) -> None:
        self.values: list[int] = []
        self.quality = Quality.BAD
        self.times: list[int] = []

    def take(self, batch: Batch) -> None:
        for value, quality, time_ns in zip(batch.value.tolist(), batch.quality.tolist(), batch.time_ns.tolist(), strict=True):
            self.quality = Quality(quality)
            if quality == Quality.GOOD:
                self.values.append(value)
                self.times.append(time_ns)


def options(port: int, queue_size: int = 5000) -> OpcUa:
    tag = Tag(name="level", at=f"nsu={URI};s=one/level", kind=Kind.UINT16)
    return OpcUa(
        name="plant",
        endpoint=f"opc.tcp://127.0.0.1:{port}/plant",
        security=Security(policy="none"),
        publishing_s=0.05,
        sampling_s=0.0,
        queue_size=queue_size,
        keepalive_s=1.0,
        timeout_s=2.0,
        devices=(Device(name="one", tags=(tag,)),),
    )


@asynccontextmanager
async def running(wanted: OpcUa, heard: Heard) -> AsyncIterator[Connection]:
    status = links.Status(kind="connection", name=wanted.name)
    connection = Connection(OPCUA, wanted, tuple(OPCUA.devices(wanted)), status)
    task = asyncio.ensure_future(connection.keep(heard.take, SystemClock()))
    try:
        yield connection
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def until(what: str, true: Callable[[], bool]) -> None:
    try:
        async with asyncio.timeout(PATIENCE_S):
            while not true():  # noqa: ASYNC110 # the condition is this process's own state: nobody could set an event
                await asyncio.sleep(0.01)
    except TimeoutError:
        raise AssertionError(f"not within {PATIENCE_S:g} s: {what}") from None


@pytest.fixture(scope="module")
def server() -> Iterator[OpcUaServer]:
    peer = OpcUaServer()
    peer.launch()
    yield peer
    peer.close()


async def test_a_cut_connection_leaves_no_gap_and_no_duplicate_and_no_second_session(server: OpcUaServer) -> None:
    """The server counts; the network is cut, reset and refused; every number arrives once, in order, from one session."""
    heard = Heard()
    async with Proxy("127.0.0.1", server.port) as proxy, running(options(proxy.port), heard):
        await until("the first value came", lambda: heard.quality is Quality.GOOD)
        _, created, _ = await server.sessions()
        await server.count(60_000, 20)
        for turn in range(CUTS):
            before = len(heard.values)
            await until("it goes on", lambda before=before: len(heard.values) > before + 20)  # type: ignore[misc] # a lambda's default
            await (proxy.cut, proxy.reset, proxy.refuse)[turn % 3]()
            await until("the loss is told", lambda: heard.quality is not Quality.GOOD)
            await proxy.heal()
        before = len(heard.values)
        await until("it goes on after the last cut", lambda: len(heard.values) > before + 20)
        now, created_since, _ = await server.sessions()
        await server.ask("stop")
    numbers = [value for value in heard.values if value > 0]
    assert numbers == list(range(numbers[0], numbers[0] + len(numbers)))
    assert heard.times == sorted(heard.times)
    assert (now, created_since) == (1, created), "the session was taken up again, not made again"
    figures.record("opcua/cuts", cuts=CUTS, values=len(numbers), gaps=0, duplicates=0)


async def test_a_server_that_is_restarted_gets_few_sessions_and_its_subscriptions_back(server: OpcUaServer) -> None:
    heard, most = Heard(), 0
    async with running(options(server.port), heard) as connection:
        await until("the first value came", lambda: heard.quality is Quality.GOOD)
        for turn in range(RESTARTS):
            await server.stop()
            await until("the loss is told", lambda: heard.quality is not Quality.GOOD)
            await server.start()
            await server.level("one", 1000 + turn)
            await until("the value is there again", lambda turn=turn: heard.values[-1:] == [1000 + turn])  # type: ignore[misc] # as above
            now, created, subscriptions = await server.sessions()
            most = max(most, now, created)
            assert subscriptions == 1
        assert connection.status.sessions == RESTARTS + 1
    assert most <= 2
    await until_sessions(server, 0)
    figures.record("opcua/restarts", restarts=RESTARTS, most_sessions=most)


async def until_sessions(server: OpcUaServer, wanted: int) -> None:
    """A connection that is closed leaves no session."""
    async with asyncio.timeout(PATIENCE_S):
        while (await server.sessions())[0] != wanted:  # noqa: ASYNC110 # as above
            await asyncio.sleep(0.05)
