"""What MQTT in costs: many devices that publish JSON once a second to a mosquitto, read by the driver alone or by a whole gateway.

    python -m tests.bench.mqtt_in [--devices 1000] [--tags 5] [--seconds 20] [--rate 1]

Prints values a second, CPU seconds for a million values, the most memory, and how long a message takes from the device's clock
to the batch. The reader is a process of its own; broker and devices run beside it and are not counted.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any, Final

import msgspec
import paho.mqtt.client as paho
import uvloop
from paho.mqtt.enums import CallbackAPIVersion

from gateway import app
from gateway.config.model import Gateway, JournalOptions, Site
from protocols.clock import SystemClock
from protocols.mqtt.config import Mqtt
from protocols.mqtt.driver import MQTT
from tests.bench.broker import Broker
from tests.bench.measure import Spread, cpu_s, machine, peak_bytes
from tests.peers.leash import start

WARM_S: Final = 4.0
CLIENTS: Final = 10
"""Connections of the devices' side; what is behind them is no concern of the reader."""


def options(port: int, devices: int, tags: int) -> Mqtt:
    keys = [{"name": f"v{number}", "kind": "float64", "at": f"$.v{number}"} for number in range(tags)]
    names = [f"env-{number}" for number in range(devices)]
    family = {"names": names, "topic": "sensors/{device}/env", "format": "json", "time_at": "$.t", "silence_s": 30, "tags": keys}
    told = {
        "type": "mqtt",
        "name": "hall",
        "host": "127.0.0.1",
        "port": port,
        "client_id": "bench",
        "families": [family],
    }
    return msgspec.convert(told, Mqtt)


def publish(port: int, devices: int, tags: int, rate: float, seconds: float) -> None:
    """Every device in its turn, evenly over each period, at QoS 1."""
    clients = [paho.Client(CallbackAPIVersion.VERSION2, client_id=f"devices-{number}") for number in range(CLIENTS)]
    for client in clients:
        client.max_inflight_messages_set(0)
        client.connect("127.0.0.1", port)
        client.loop_start()
    began = time.monotonic()
    for turn in range(int(devices * rate * seconds)):
        wait_s = began + turn / (devices * rate) - time.monotonic()
        if wait_s > 0.001:
            time.sleep(wait_s)
        device = turn % devices
        values = ",".join(f'"v{number}":{turn * 0.25 + number}' for number in range(tags))
        clients[device % CLIENTS].publish(f"sensors/env-{device}/env", f'{{"t":{time.time():.6f},{values}}}'.encode(), 1)


async def read_alone(told: Mqtt, seconds: float) -> dict[str, Any]:  # Any: figures
    count, late = 0, list[float]()

    async def read() -> None:
        nonlocal count
        async with MQTT.open(told, clock=SystemClock()) as session:
            async for batch in session.batches():
                count += len(batch)
                late.append((time.time_ns() - int(batch.time_ns[0])) / 1e9)

    reading = asyncio.ensure_future(read())
    await asyncio.sleep(WARM_S)
    late.clear()
    figures = await _measured(lambda: count, seconds)
    reading.cancel()
    await asyncio.gather(reading, return_exceptions=True)
    spread = Spread.of(late)
    return figures | ({"p50_ms": spread.p50 * 1e3, "p99_ms": spread.p99 * 1e3, "most_ms": spread.most * 1e3} if spread else {})


async def read_all(told: Mqtt, seconds: float, folder: Path) -> dict[str, Any]:  # Any: as above
    site = Site(
        holdfast=1,
        gateway=Gateway(group="bench", name="gw"),
        journal=JournalOptions(path=str(folder / "journal")),
        connections=(told,),
    )
    async with app.running(site, base=folder) as gateway:
        await asyncio.sleep(WARM_S)
        (status,) = gateway.statuses
        figures = await _measured(lambda: status.counters.taken, seconds)
        return figures | {"errors": dict(gateway.scan_stats["hall"].errors), "given": status.counters.given}


async def _measured(count: Any, seconds: float) -> dict[str, Any]:  # Any: a function that counts; figures
    values, cpu, began = count(), cpu_s(os.getpid()), time.monotonic()
    await asyncio.sleep(seconds)
    values, cpu, elapsed = count() - values, cpu_s(os.getpid()) - cpu, time.monotonic() - began
    return {
        "values_per_s": values / elapsed,
        "cpu_share": cpu / elapsed,
        "cpu_s_per_million": cpu / max(values, 1) * 1e6,
        "peak_mb": peak_bytes(os.getpid()) / 1e6,
    }


async def bench(told: argparse.Namespace, folder: Path) -> None:
    broker = Broker(folder)
    broker._settings.write_text(broker._settings.read_text() + "max_inflight_messages 2000\n")
    await broker.start()
    say(json.dumps(machine()))
    try:
        for role in ("driver", "gateway"):
            words = (sys.executable, "-m", "tests.bench.mqtt_in", "--port", str(broker.port), "--folder", str(folder))
            same = ("--devices", str(told.devices), "--tags", str(told.tags), "--rate", str(told.rate), "--seconds", str(told.seconds))
            reader = start(*words, *same, "--role", role, stdout=subprocess.PIPE)
            devices = start(*words, *same, "--role", "devices")
            said, _ = await asyncio.to_thread(reader.communicate)
            devices.kill()
            await asyncio.to_thread(devices.wait)
            say(f"{role}: {said.decode().strip()}")
    finally:
        await broker.kill()


def say(text: str) -> None:
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


def main() -> None:
    words = argparse.ArgumentParser(description=__doc__)
    words.add_argument("--devices", type=int, default=1000)
    words.add_argument("--tags", type=int, default=5)
    words.add_argument("--rate", type=float, default=1.0, help="messages of each device a second")
    words.add_argument("--seconds", type=float, default=20.0)
    words.add_argument("--role", choices=("bench", "driver", "gateway", "devices"), default="bench", help=argparse.SUPPRESS)
    words.add_argument("--port", type=int, default=0, help=argparse.SUPPRESS)
    words.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    told = words.parse_args()
    if told.role == "devices":
        publish(told.port, told.devices, told.tags, told.rate, told.seconds + 3 * WARM_S)
    elif told.role == "bench":
        with tempfile.TemporaryDirectory() as folder:
            asyncio.run(bench(told, Path(folder)))
    else:
        mine = options(told.port, told.devices, told.tags)
        work = read_alone(mine, told.seconds) if told.role == "driver" else read_all(mine, told.seconds, told.folder)
        say(json.dumps({name: round(value, 3) if isinstance(value, float) else value for name, value in uvloop.run(work).items()}))


if __name__ == "__main__":
    main()
