"""A hostile broker on a real socket: whatever it sends, a connection ends in one of the contract's errors, and soon.

Each connection gets a stream of packets that mosquitto once sent, spoilt, before or after a good CONNACK, torn anywhere; then
the broker hangs up. Meanwhile the session publishes, subscribes and listens, as uplinks do.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Final

import pytest

from gateway.config.model import Broker, MqttUplink
from protocols.contract import DriverError
from protocols.mqtt.client import MqttSession, Rejected, connect
from tests.fuzz import corpus
from tests.fuzz.campaign import frames, measured, seed
from tests.fuzz.mutate import Mutator
from tests.fuzz.still import Complaints

DEADLINE_S: Final = 10.0
PACKETS: Final = frames(100_000, 1_000_000)
AT_ONCE: Final = 30
"""Most spoilt packets of one connection."""
MADE_UP: Final = [
    bytes.fromhex(digits) for digits in ("e000", "e0028e00", "e08080808001", "f00118", "6202000a", "20ffffff7f", "3200", "3000")
]
"""DISCONNECT, AUTH, PUBREL, lengths without end: what mosquitto had no reason to send."""


class HostileBroker:
    """Says what it is told to each that connects, in pieces, and hangs up."""

    def __init__(self) -> None:
        self.pieces: list[bytes] = []
        self.port = 0
        self._talks: set[asyncio.Task[None]] = set()

    @asynccontextmanager
    async def serving(self) -> AsyncIterator[HostileBroker]:
        server = await asyncio.start_server(self._welcome, "127.0.0.1", 0)
        self.port = server.sockets[0].getsockname()[1]
        try:
            yield self
        finally:
            server.close()
            await asyncio.gather(*self._talks)

    def _welcome(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        talk = asyncio.get_running_loop().create_task(self._talk(reader, writer))
        self._talks.add(talk)
        talk.add_done_callback(self._talks.discard)

    async def _talk(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError):  # the gateway hung up first
            await reader.read(4096)
            for piece in self.pieces:
                writer.write(piece)
                await writer.drain()
                await asyncio.sleep(0)
            writer.write_eof()
            while await reader.read(65536):
                pass
        writer.close()


@pytest.mark.parametrize("level", ["5", "3.1.1"])
async def test_a_hostile_broker_only_ends_the_connection(level: str) -> None:
    number = seed()
    good = corpus.load("mosquitto-5" if level == "5" else "mosquitto-4")
    mutator = Mutator(number, [*good.values(), *MADE_UP])
    complaints = Complaints(asyncio.get_running_loop())
    sent = 0
    with measured(f"mqtt-{level}", number, PACKETS // 2) as watch:
        async with HostileBroker().serving() as broker:
            warm = False
            while sent < PACKETS // 2:
                stream, count = _stream(mutator, good["connack"])
                broker.pieces, sent = _torn(mutator, stream), sent + count
                said = ""
                try:
                    async with asyncio.timeout(DEADLINE_S):
                        said = await _session(broker.port, level)
                    complaints.none()
                except Exception as error:
                    raise AssertionError(f"seed {number}, {type(error).__name__}: {error}\n{stream.hex()}") from error
                assert len(said) > 30, "the text says what to do"
                if not warm and sent > PACKETS // 20:
                    warm = True
                    watch.begin()


def _stream(mutator: Mutator, connack: bytes) -> tuple[bytes, int]:
    """Bytes for one connection, and how many spoilt packets there are in them."""
    count = 1 + int(mutator.dice.random() ** 2 * AT_ONCE)
    packets = [mutator.make() if mutator.dice.random() < 0.7 else mutator.pick() for _ in range(count)]
    return (connack if mutator.dice.random() < 0.8 else b"") + b"".join(packets), count


def _torn(mutator: Mutator, stream: bytes) -> list[bytes]:
    pieces = []
    while stream and mutator.dice.random() < 0.5:
        cut = 1 + int(mutator.dice.random() * min(len(stream), 40))
        pieces.append(stream[:cut])
        stream = stream[cut:]
    return [*pieces, stream]


async def _session(port: int, level: str) -> str:
    """Connect and work as an uplink does, until the end; what the error said."""
    options = MqttUplink(name="cloud", host="127.0.0.1", port=port, protocol="5" if level == "5" else "3.1.1", timeout_s=5, keepalive_s=5)
    try:
        async with connect(options, Broker(host="127.0.0.1", port=port), client_id="c") as mqtt:
            await mqtt.while_connected(_work(mqtt))
    except (DriverError, Rejected) as error:
        return str(error)
    raise AssertionError("the connection did not end")


async def _work(mqtt: MqttSession) -> None:
    mqtt.publish0("a/b", b"hello")
    answers = [await mqtt.publish1("a/b", b"once") for _ in range(3)]
    for answer in answers:
        answer.add_done_callback(_looked_at)
    with contextlib.suppress(Rejected):
        await mqtt.subscribe("a/#", 1)
    async for message in mqtt.messages():
        assert len(message.payload) < 1_000_000


def _looked_at(answer: asyncio.Future[None]) -> None:
    """A rejection is an answer; nobody waits for it here."""
    if not answer.cancelled():
        answer.exception()
