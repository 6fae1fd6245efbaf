"""A quiet mosquitto for benches, and what a subscriber sees of the stamp device: the way from device to broker in seconds."""

from __future__ import annotations

import asyncio
import contextlib
import shutil
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import aiomqtt

from protocols.sparkplug.sparkplug_b_pb2 import Payload
from tests.bench.loads import GATEWAY, GROUP, STAMP_DEVICE
from tests.peers.mosquitto import free_port

QUIET = "listener {port} 127.0.0.1\nallow_anonymous true\nlog_type error\nuser root\nmax_queued_messages 100000\n"


@asynccontextmanager
async def broker(folder: Path) -> AsyncIterator[int]:
    """Its port. Without logging and persistence: it is not what is measured."""
    program = shutil.which("mosquitto", path="/usr/sbin:/usr/bin:/usr/local/sbin:/usr/local/bin")
    if program is None:
        raise RuntimeError("mosquitto is not installed: install the package mosquitto")
    port = free_port()
    settings = folder / "mosquitto.conf"
    settings.write_text(QUIET.format(port=port))
    process = await asyncio.create_subprocess_exec(program, "-c", str(settings), stderr=asyncio.subprocess.DEVNULL)
    try:
        await _answers(port)
        yield port
    finally:
        process.kill()
        await process.wait()


async def _answers(port: int) -> None:
    async with asyncio.timeout(10):
        while True:
            with contextlib.suppress(OSError):
                _, writer = await asyncio.open_connection("127.0.0.1", port)
                writer.close()
                return
            await asyncio.sleep(0.02)


class Latency:
    """Collects the age of every stamp that arrives while ``recording``."""

    def __init__(self) -> None:
        self.recording = False
        self.seconds: list[float] = []

    async def listen(self, port: int) -> None:
        """Until cancelled."""
        async with aiomqtt.Client("127.0.0.1", port, identifier="bench-latency") as client:
            await client.subscribe(f"spBv1.0/{GROUP}/DDATA/{GATEWAY}/{STAMP_DEVICE}")
            async for message in client.messages:
                now = time.time_ns()
                if self.recording and isinstance(message.payload, bytes):
                    self.seconds += [(now - metric.long_value) / 1e9 for metric in Payload.FromString(message.payload).metrics]
