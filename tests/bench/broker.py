"""A quiet mosquitto for benches, and what a subscriber sees of the stamp device: the way from device to broker in seconds."""

from __future__ import annotations

import asyncio
import contextlib
import shutil
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Final, NamedTuple

import aiomqtt

from gateway.uplink.mark import Mark, decode_mark
from protocols.sparkplug.sparkplug_b_pb2 import Payload
from tests.bench.loads import GATEWAY, GROUP, STAMP_DEVICE
from tests.peers.mosquitto import free_port

QUIET: Final = "listener {port} 127.0.0.1\nallow_anonymous true\nlog_type error\nuser root\nmax_queued_messages 100000\n"
STAMPS: Final = f"spBv1.0/{GROUP}/DDATA/{GATEWAY}/{STAMP_DEVICE}"
BIRTHS: Final = f"spBv1.0/{GROUP}/NBIRTH/{GATEWAY}"
MARKS: Final = f"holdfast/{GROUP}/{GATEWAY}/ledger"
AGAIN_S: Final = 0.02


class Broker:
    """A mosquitto without logs and persistence, since it is not what is measured; it can be killed and started again on its port."""

    def __init__(self, folder: Path) -> None:
        self.port = free_port()
        self._settings = folder / "mosquitto.conf"
        self._settings.write_text(QUIET.format(port=self.port))
        self._process: asyncio.subprocess.Process | None = None

    async def start(self) -> None:
        """Return when it answers."""
        program = shutil.which("mosquitto", path="/usr/sbin:/usr/bin:/usr/local/sbin:/usr/local/bin")
        if program is None:
            raise RuntimeError("mosquitto is not installed: install the package mosquitto")
        self._process = await asyncio.create_subprocess_exec(program, "-c", str(self._settings), stderr=asyncio.subprocess.DEVNULL)
        await self._answers()

    async def kill(self) -> None:
        if self._process is not None:
            self._process.kill()
            await self._process.wait()
            self._process = None

    async def _answers(self) -> None:
        async with asyncio.timeout(10):
            while True:
                with contextlib.suppress(OSError):
                    _, writer = await asyncio.open_connection("127.0.0.1", self.port)
                    writer.close()
                    return
                await asyncio.sleep(0.02)

    @asynccontextmanager
    async def ended(self) -> AsyncIterator[None]:
        """However often it is started within, it does not outlive the block."""
        try:
            yield
        finally:
            await self.kill()


@asynccontextmanager
async def broker(folder: Path) -> AsyncIterator[int]:
    """The port of a broker that runs as long as the block does."""
    one = Broker(folder)
    async with one.ended():
        await one.start()
        yield one.port


class Arrival(NamedTuple):
    """A stamp that came: when the field answered, how old it was at the subscriber, and whether it was sent as live."""

    time_ns: int
    age_s: float
    live: bool


class Latency:
    """Collects every stamp, ledger mark and birth that arrives while ``recording``; survives the broker's absence."""

    def __init__(self) -> None:
        self.recording = False
        self.stamps: list[Arrival] = []
        self.marks: list[tuple[int, Mark]] = []
        """Ledger marks and when they came, UTC nanoseconds."""
        self.births_ns: list[int] = []
        """When the gateway said that it is there."""
        self.connected = asyncio.Event()

    @property
    def seconds(self) -> list[float]:
        """Ages of the stamps that came as live values."""
        return [stamp.age_s for stamp in self.stamps if stamp.live]

    async def listen(self, port: int) -> None:
        """Until cancelled."""
        while True:
            with contextlib.suppress(aiomqtt.MqttError):  # the broker is away: it is tried again
                async with aiomqtt.Client("127.0.0.1", port, identifier="bench-latency") as client:
                    await client.subscribe([(STAMPS, 0), (MARKS, 0), (BIRTHS, 0)])
                    self.connected.set()
                    async for message in client.messages:
                        self._take(message)
            self.connected.clear()
            await asyncio.sleep(AGAIN_S)

    def _take(self, message: aiomqtt.Message) -> None:
        now_ns, payload = time.time_ns(), message.payload
        if not self.recording or not isinstance(payload, bytes):
            return
        topic = str(message.topic)
        if topic == MARKS:
            self.marks.append((now_ns, decode_mark(payload)))
        elif topic == BIRTHS:
            self.births_ns.append(now_ns)
        else:
            self.stamps += [
                Arrival(metric.long_value, (now_ns - metric.long_value) / 1e9, not metric.is_historical)
                for metric in Payload.FromString(payload).metrics
            ]
