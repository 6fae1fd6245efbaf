"""The gateway with an MQTT connection: up without a word from a device, values in the latest, findings told, silence told."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from gateway import app
from gateway.config.model import Gateway, JournalOptions, Site, Telemetry
from gateway.links import State
from protocols.model import Kind, Quality
from protocols.mqtt.config import Device, Mqtt, Tag
from protocols.payload import Format
from tests.peers.holdfast import Holdfast
from tests.peers.mosquitto import Mosquitto
from tests.protocols.mqtt.rig import pub


async def until(what: str, condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < deadline, f"not {what}"
        await asyncio.sleep(0.02)


def site(broker: Mosquitto, folder: Path, **device: Any) -> Site:  # Any: keys of a device
    one = Device(
        name="env-1",
        topic="sensors/+/env",
        format=Format.JSON,
        tags=(Tag(name="temperature", kind=Kind.FLOAT64, at="$.t"),),
        **device,
    )
    return Site(
        holdfast=1,
        gateway=Gateway(group="plant", name="gw"),
        journal=JournalOptions(path=str(folder / "journal")),
        telemetry=Telemetry(metrics_port=0),
        connections=(Mqtt(name="hall", host="127.0.0.1", port=broker.port, client_id="gw", devices=(one,)),),
        uplinks=(),
    )


async def test_a_connection_is_up_before_any_device_speaks_and_its_values_arrive(broker: Mosquitto, tmp_path: Path) -> None:
    """Up when the broker has taken the subscriptions; a device that then speaks, and falls silent, is seen."""
    async with app.running(site(broker, tmp_path, silence_s=2.0), base=tmp_path) as gateway:
        (status,) = gateway.statuses
        await until("up", lambda: status.state is State.UP)
        assert gateway.scan_stats["hall"].requests == 0
        (device,) = gateway.latest.devices()
        await pub(broker, "sensors/env-1/env", '{"t": 21.5}')
        await until("read", lambda: _value(gateway, device) == (21.5, Quality.GOOD))
        await until("lost", lambda: _value(gateway, device)[1] == Quality.BAD_NO_COMMUNICATION)
        assert status.state is State.UP, "the broker is still there"


def _value(gateway: app.Appliance, device: Any) -> tuple[float, int]:  # Any: a Device
    (column,) = gateway.latest.batches(device)
    return float(column.value[0]), int(column.quality[0])


async def test_a_gateway_that_is_killed_has_every_value_that_was_published(broker: Mosquitto, tmp_path: Path) -> None:
    """SIGKILL twice while a device publishes at QoS 1: what was acknowledged was durable, what was not comes again."""
    tag = {"name": "n", "kind": "int64", "at": "$.n", "max_silence_s": 0}
    device = {"name": "counter", "topic": "killed/{device}", "format": "json", "silence_s": 60, "tags": [tag]}
    place = {"host": "127.0.0.1", "port": broker.port, "client_id": "killed"}
    connection = {"name": "hall", "type": "mqtt", **place, "devices": [device]}
    document = {"holdfast": 1, "gateway": {"group": "g", "name": "n"}, "connections": [connection]}
    gateway = Holdfast(tmp_path / "gateway", document)
    published = 0
    try:
        for life in range(3):
            await asyncio.to_thread(gateway.start)
            if life == 0:
                await until("subscribed", lambda: "Received SUBSCRIBE from killed" in broker.log())
            for _ in range(12):
                published += 1
                await pub(broker, "killed/counter", f'{{"n": {published}}}')
            if life < 2:
                gateway.kill()
                published += 1
                await pub(broker, "killed/counter", f'{{"n": {published}}}')
        await until("the last one is there", lambda: published in _numbers(gateway))
        numbers = _numbers(gateway)
        assert sorted(set(numbers)) == list(range(1, published + 1)), "every one, and none twice but what came again"
    finally:
        gateway.end()


def _numbers(gateway: Holdfast) -> list[int]:
    """The counter's good values in the journal, in its order."""
    return [int(line["values"][0]) for line in gateway.ask("export") if "values" in line and "quality" not in line]
