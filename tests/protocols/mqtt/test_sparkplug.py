"""Reading a Sparkplug edge node whose payloads the npm package sparkplug-payload writes, over mosquitto."""

from __future__ import annotations

import asyncio
import json
import shutil
import subprocess
import time
from typing import Any, Final

import pytest

from protocols.model import Command, OutcomeState, Quality
from tests.peers.mosquitto import Mosquitto
from tests.peers.sparkplug_payload import NODE, decoded
from tests.protocols.mqtt.rig import listener, options, pub, reading

ENCODE: Final = """
const { encodePayload } = require(process.argv[1]);
const revive = (key, value) => (typeof value === "string" && /^\\d+n$/.test(value) ? Number(value.slice(0, -1)) : value);
console.log(Buffer.from(encodePayload(JSON.parse(process.argv[2], revive))).toString("hex"));
"""


def encoded(payload: dict[str, Any]) -> bytes:  # Any: JSON
    node, package = shutil.which("node"), NODE / "node_modules" / "sparkplug-payload" / "lib" / "sparkplugbpayload.js"
    if node is None or not package.exists():
        pytest.skip("node or its packages are missing: run `npm ci` in tests/peers/node")
    done = subprocess.run([node, "-e", ENCODE, str(package), json.dumps(payload)], capture_output=True, check=True, timeout=60)
    return bytes.fromhex(done.stdout.decode())


def metric(name: str, kind: str, value: Any, **more: Any) -> dict[str, Any]:  # Any: JSON
    return {"name": name, "type": kind, "value": value, "timestamp": round(time.time() * 1000), **more}


def message(seq: int | None, *metrics: dict[str, Any]) -> bytes:  # Any: JSON
    return encoded({"timestamp": round(time.time() * 1000), "metrics": metrics, **({} if seq is None else {"seq": seq})})


async def test_births_data_commands_and_deaths(broker: Mosquitto) -> None:
    tags = [
        {"name": "temperature", "kind": "float64", "at": "Temp"},
        {"name": "count", "kind": "int16", "at": "Count", "writable": True},
    ]
    device = {"name": "press-1", "format": "sparkplug", "topic": "plant/edge/press", "verify": True, "tags": tags}
    commands = listener(broker, "spBv1.0/plant/NCMD/edge", "spBv1.0/plant/DCMD/edge/press")
    async with commands as told, reading(options(broker.port, session_expiry_s=0, devices=[device])) as read:
        topic, _, payload = await asyncio.wait_for(told.get(), 10)
        assert topic == "spBv1.0/plant/NCMD/edge", "a host that comes asks for births"
        (asked,) = decoded([payload])
        assert asked["metrics"][0]["name"] == "Node Control/Rebirth"

        await pub(broker, "spBv1.0/plant/NBIRTH/edge", message(0, metric("bdSeq", "Int64", 4)))
        birth = message(1, metric("Temp", "Double", 21.5, alias=7), metric("Count", "Int16", -3, alias=8))
        await pub(broker, "spBv1.0/plant/DBIRTH/edge/press", birth)
        await read.until("born", lambda: len(read.history("count")) == 1)
        assert read.history("temperature") + read.history("count") == [(21.5, Quality.GOOD), (-3, Quality.GOOD)]

        await pub(broker, "spBv1.0/plant/DDATA/edge/press", message(2, {"alias": 7, "type": "Double", "value": 22.5}))
        await read.until("read", lambda: read.history("temperature")[-1] == (22.5, Quality.GOOD))

        writing = asyncio.ensure_future(
            read.session.write([Command(id="1", device="press-1", tag="count", value=-9, deadline_ns=time.time_ns() + 10**10)])
        )
        topic, retained, payload = await asyncio.wait_for(told.get(), 10)
        assert (topic, retained) == ("spBv1.0/plant/DCMD/edge/press", 0)
        (command,) = decoded([payload])
        assert command["metrics"][0]["name"] == "Count"
        await pub(broker, "spBv1.0/plant/DDATA/edge/press", message(3, {"alias": 8, "type": "Int16", "value": -9}))
        (outcome,) = await writing
        assert (outcome.state, outcome.read_back) == (OutcomeState.VERIFIED, -9)

        await pub(broker, "spBv1.0/plant/NDEATH/edge", message(None, metric("bdSeq", "Int64", 3)))
        await pub(broker, "spBv1.0/plant/NDEATH/edge", message(None, metric("bdSeq", "Int64", 4)))
        await read.until("dead", lambda: read.lost() == ["press-1", "press-1"])  # one batch for each kind of column
        assert read.history("temperature")[-1] == (0.0, Quality.BAD_NO_COMMUNICATION)
