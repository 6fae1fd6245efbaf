"""The driver contract for MQTT: mosquitto between us and devices that are a program of their own."""

from __future__ import annotations

import json
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Final

import pytest

from protocols.contract import Driver
from protocols.model import Kind
from protocols.mqtt.config import Device, Mqtt, Tag
from protocols.mqtt.driver import MQTT
from protocols.payload import Format
from tests.contract.driver_suite import GHOST, LEVEL, ONE, SETPOINT, STUCK, TWO, Ability, DriverSuite, Rig, Value
from tests.peers.mosquitto import Mosquitto
from tests.peers.program import Program
from tests.protocols.mqtt.hostile import MISDEEDS, HostileBroker

VALUES: Final[dict[str, tuple[Kind, Value]]] = {
    "int8/least": (Kind.INT8, -128),
    "int16/least": (Kind.INT16, -(2**15)),
    "int32/least": (Kind.INT32, -(2**31)),
    "int64/least": (Kind.INT64, -(2**63)),
    "int64/most": (Kind.INT64, 2**63 - 1),
    "int64/odd": (Kind.INT64, 2**53 + 1),
    "uint8/most": (Kind.UINT8, 255),
    "uint16/most": (Kind.UINT16, 2**16 - 1),
    "uint32/most": (Kind.UINT32, 2**32 - 1),
    "uint64/most": (Kind.UINT64, 2**64 - 1),
    "float32/exact": (Kind.FLOAT32, 1.5),
    "float64/tenth": (Kind.FLOAT64, 0.1),
    "float64/least": (Kind.FLOAT64, 5e-324),
    "float64/zero": (Kind.FLOAT64, -0.0),
    "text": (Kind.STRING, "Pumpé \u2603"),
    "truth": (Kind.BOOL, True),
}


def _tag(name: str, kind: Kind, **more: Any) -> Tag:  # Any: further keys
    return Tag(name=name, kind=kind, at=f"$['{name}']", **more)


def _devices() -> tuple[Device, ...]:
    common: dict[str, Any] = {"format": Format.JSON, "status_topic": "plant/{device}/status", "silence_s": 10.0}  # Any: keys of a device
    tags = (
        *(_tag(name, kind) for name, (kind, _) in VALUES.items()),
        _tag(LEVEL, Kind.UINT16),
        _tag(GHOST, Kind.UINT16),
        _tag(SETPOINT, Kind.FLOAT32, writable=True, write_as='{"value": {value}}'),
        _tag(STUCK, Kind.UINT16, writable=True, write_as='{"value": {value}}'),
    )
    one = Device(
        name=ONE, topic="plant/{device}/state", command_topic="plant/{device}/set/{tag}", verify=True, verify_s=0.5, tags=tags, **common
    )
    return (one, Device(name=TWO, topic="plant/{device}/state", tags=(_tag(LEVEL, Kind.UINT16),), **common))


BROKEN: Final = (
    Device(
        name="one",
        topic="plant/#/state",
        tags=(
            Tag(name="a", at="$.", kind=Kind.FLOAT64),
            Tag(name="b", at="$.b", kind=Kind.UINT16, writable=True),  # no command topic
            Tag(name="c", at="4:uint16", topic="raw", format=Format.RAW, kind=Kind.UINT16),  # no byte order
        ),
    ),
    Device(name="one", topic="x", tags=()),
    Device(name="three", topic="x", records_at="$.a[", tags=()),
)
FAULTS: Final = frozenset(
    {
        "devices[0].topic",
        "devices[0].tags[0].at",
        "devices[0].tags[1].writable",
        "devices[0].tags[2].at",
        "devices[1].name",
        "devices[2].records_at",
    }
)


class MqttRig:
    faults = FAULTS

    def __init__(self, broker: Mosquitto, devices: Program, client_id: str) -> None:
        self.broker, self.devices = broker, devices
        self.expected: dict[str, Value] = {name: value for name, (_, value) in VALUES.items()}
        self.driver: Driver = MQTT
        self.options = _options(broker.port, client_id, _devices())
        self.faulty = _options(broker.port, client_id, BROKEN)
        self.where = f"127.0.0.1:{broker.port}"

    async def furnish(self) -> None:
        state = {name: value for name, (_, value) in VALUES.items()} | {LEVEL: 1, SETPOINT: 0.0, STUCK: 3}
        await self.devices.ask(f"hold {ONE} {json.dumps(state)}")
        await self.devices.ask(f"keep {ONE} {STUCK}")
        await self.devices.ask(f"hush {ONE} 0")
        await self.devices.ask(f"hold {TWO} {json.dumps({LEVEL: 2})}")
        await self.devices.ask(f"hush {TWO} 0")
        await self.devices.ask("seen")

    async def change(self, device: str, value: int) -> None:
        await self.devices.ask(f"set {device} {LEVEL} {value}")

    async def hush(self, device: str, silent: bool) -> None:
        await self.devices.ask(f"hush {device} {int(silent)}")

    async def lose(self) -> None:
        self.broker.kill()

    async def restore(self) -> None:
        self.broker.start()

    async def seen(self) -> list[str]:
        return await self.devices.ask("seen")

    @asynccontextmanager
    async def hostile(self, misdeed: str) -> AsyncIterator[HostileMqtt]:
        await self.change(ONE, HostileMqtt.truth)
        async with HostileBroker(misdeed, self.broker.port).serving() as broker:
            yield HostileMqtt(broker)


class HostileMqtt:
    truth = 777

    def __init__(self, broker: HostileBroker) -> None:
        tags = (_tag(LEVEL, Kind.UINT16), _tag("text", Kind.STRING))
        device = Device(name=ONE, topic="plant/{device}/state", format=Format.JSON, silence_s=1.0, tags=tags)
        self.options = _options(broker.port, "hostile", (device,), timeout_s=1.0)
        self._broker = broker

    def heal(self) -> None:
        self._broker.healed = True


def _options(port: int, client_id: str, devices: tuple[Device, ...], **more: Any) -> Mqtt:  # Any: further keys
    return Mqtt(name="hall", host="127.0.0.1", port=port, client_id=client_id, keepalive_s=5, devices=devices, session_expiry_s=0, **more)


@pytest.fixture(scope="module")
def broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Mosquitto]:
    with Mosquitto(tmp_path_factory.mktemp("mosquitto")) as broker:
        yield broker


class TestMqtt(DriverSuite):
    abilities = frozenset({Ability.CONNECTS, Ability.GHOSTS, Ability.WRITES, Ability.READS_BACK})
    misdeeds = tuple(MISDEEDS)

    @pytest.fixture
    async def rig(self, broker: Mosquitto, request: pytest.FixtureRequest) -> AsyncIterator[Rig]:
        async with Program(Path(sys.executable), "-m", "tests.protocols.mqtt.device", "127.0.0.1", str(broker.port)) as devices:
            rig = MqttRig(broker, devices, "gateway")
            await rig.furnish()
            try:
                yield rig
            finally:
                if broker._process is None:
                    broker.start()
