"""What the tests of the MQTT driver share: options, a session that is read, devices that publish with mosquitto's own clients."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any, Final

import msgspec

from protocols.clock import SystemClock
from protocols.model import Batch, Quality
from protocols.mqtt.config import Mqtt
from protocols.mqtt.driver import MQTT
from protocols.mqtt.session import Session
from tests.peers.leash import leashed
from tests.peers.mosquitto import Mosquitto

PATIENCE_S: Final = 15.0
SYNC: Final = "listener/ready"
"""A retained message that comes when the subscriptions before it are there."""


def options(port: int, **more: Any) -> Mqtt:  # Any: keys of a connection, as a document has them
    return msgspec.convert({"type": "mqtt", "name": "hall", "host": "127.0.0.1", "port": port, "client_id": "gw", **more}, Mqtt)


async def pub(broker: Mosquitto, topic: str, payload: bytes | str, *words: str, lines: bool = False) -> None:
    """``mosquitto_pub``, QoS 1 unless told otherwise; with ``lines`` each line of the payload is a message."""
    content = payload.encode() if isinstance(payload, str) else payload
    command = leashed("mosquitto_pub", "-h", "127.0.0.1", "-p", str(broker.port), "-t", topic, "-q", "1", *words, "-l" if lines else "-s")
    process = await asyncio.create_subprocess_exec(*command, stdin=asyncio.subprocess.PIPE)
    async with asyncio.timeout(PATIENCE_S):
        await process.communicate(content)
    assert process.returncode == 0


class Reading:
    """A session while its batches are read."""

    def __init__(self, session: Session) -> None:
        self.session = session
        self.batches: list[Batch] = []
        self._task: asyncio.Task[None] | None = None

    def history(self, tag: str, device: str = "") -> list[tuple[Any, Quality]]:  # Any: what a column holds
        """Every value and quality of a tag, in order."""
        return [
            (value, Quality(quality))
            for batch in self.batches
            if not device or batch.device.name == device
            for slot, value, quality in zip(batch.tag, batch.value.tolist(), batch.quality.tolist(), strict=True)
            if batch.device.tags[slot].name == tag
        ]

    def lost(self) -> list[str]:
        return [batch.device.name for batch in self.batches if batch.lost]

    async def read(self) -> None:
        async for batch in self.session.batches():
            self.batches.append(batch)

    async def until(self, what: str, condition: Callable[[], bool]) -> None:
        assert self._task is not None
        deadline = time.monotonic() + PATIENCE_S
        while not condition():
            assert not self._task.done(), self._task.exception()
            assert time.monotonic() < deadline, f"not {what}: {[(b.device.name, b.value, b.quality) for b in self.batches[-5:]]}"
            await asyncio.sleep(0.01)


@asynccontextmanager
async def reading(told: Mqtt) -> AsyncIterator[Reading]:
    async with MQTT.open(told, clock=SystemClock()) as session:
        one = Reading(session)
        one._task = asyncio.ensure_future(one.read())
        try:
            yield one
        finally:
            one._task.cancel()
            await asyncio.gather(one._task, return_exceptions=True)


@asynccontextmanager
async def listener(broker: Mosquitto, *filters: str) -> AsyncGenerator[asyncio.Queue[tuple[str, int, bytes]], None]:
    """``mosquitto_sub``: topic, retain and payload of what is published."""
    told: asyncio.Queue[tuple[str, int, bytes]] = asyncio.Queue()
    await pub(broker, SYNC, "ready", "-r")
    words = [word for each in (*filters, SYNC) for word in ("-t", each)]
    command = leashed("mosquitto_sub", "-h", "127.0.0.1", "-p", str(broker.port), "-q", "1", *words, "-F", "%t %r %x")
    process = await asyncio.create_subprocess_exec(*command, stdout=asyncio.subprocess.PIPE)
    assert process.stdout is not None
    subscribed = asyncio.Event()

    async def pump(stream: asyncio.StreamReader) -> None:
        while line := await stream.readline():
            topic, retain, digits = line.decode().rstrip("\n").split(" ", 2)
            if topic == SYNC:
                subscribed.set()
            else:
                told.put_nowait((topic, int(retain), bytes.fromhex(digits)))

    task = asyncio.ensure_future(pump(process.stdout))
    try:
        async with asyncio.timeout(PATIENCE_S):
            await subscribed.wait()
        yield told
    finally:
        process.kill()
        await process.wait()
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
