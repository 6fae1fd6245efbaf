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
