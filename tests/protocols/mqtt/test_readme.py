"""The samples of the driver's README load, check, and read a device over mosquitto."""

from __future__ import annotations

import asyncio
import re
import sys
from pathlib import Path
from typing import Any

import msgspec
import yaml

import protocols.mqtt
from protocols.mqtt.config import Mqtt
from protocols.mqtt.driver import MQTT
from tests.peers.leash import leashed
from tests.peers.mosquitto import Mosquitto
from tests.protocols.mqtt.rig import PATIENCE_S, pub, reading

README = (Path(protocols.mqtt.__file__).parent / "README.md").read_text()


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", README, re.DOTALL)


def sample(**more: Any) -> Mqtt:  # Any: keys of a connection
    (block,) = blocks("yaml")
    (connection,) = yaml.safe_load(block)["connections"]
    return msgspec.convert({**connection, **more}, Mqtt)


def test_the_sample_is_right() -> None:
    assert MQTT.check(sample()) == []


async def test_the_sample_reads_what_its_devices_publish(broker: Mosquitto) -> None:
    async with reading(sample(port=broker.port, client_id="readme", session_expiry_s=0)) as read:
        state = '{"at": "2026-11-21T14:00:00Z", "steam": {"pressure": 7.5}, "burner": "ON", "setpoint": 8}'
        await pub(broker, "plant/boiler/state", state)
        await pub(broker, "stat/plug-3/POWER", "OFF")
        await pub(broker, "tele/plug-3/SENSOR", '{"ENERGY": {"Total": 12.5}}')
        await pub(broker, "sensors/env-2/env", '[{"n": "urn:dev:env:temperature", "v": 21.5}]')
        await read.until("all", lambda: bool(read.history("temperature", "env-2")))
    told = {tag: read.history(tag)[0][0] for tag in ("steam/pressure", "burner/on", "setpoint", "power", "energy/total")}
    assert told == {"steam/pressure": 7.5, "burner/on": True, "setpoint": 8.0, "power": False, "energy/total": 12.5}
    assert read.history("temperature", "env-2")[0][0] == 21.5


async def test_the_python_sample_runs(broker: Mosquitto) -> None:
    """As it stands in the README, but for the broker's port."""
    (text,) = blocks("python")
    text = text.replace('"host": "127.0.0.1",', f'"host": "127.0.0.1", "port": {broker.port},')
    await pub(broker, "sensors/env-1/env", '{"temperature": 21.5}', "-r")
    process = await asyncio.create_subprocess_exec(*leashed(sys.executable, "-u", "-c", text), stdout=asyncio.subprocess.PIPE)
    assert process.stdout is not None
    try:
        async with asyncio.timeout(PATIENCE_S):
            line = (await process.stdout.readline()).decode()
    finally:
        process.kill()
        await process.wait()
    assert line.startswith("env-1 [21.5]"), line


def test_every_option_that_the_text_names_exists() -> None:
    schema = str(msgspec.json.schema(Mqtt))
    named = set(re.findall(r"`([a-z]+_[a-z_]+)`", README)) - {"max_queued_messages", "max_inflight_messages", "unknown_topic"}
    assert {name for name in named if f"'{name}'" not in schema} == set()
