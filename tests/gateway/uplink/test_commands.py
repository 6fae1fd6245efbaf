"""Commands from afar, on a whole gateway: over a real broker to a real device, and back as what became of them."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiomqtt
import pytest
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties

from gateway import config, links
from gateway.app import Appliance, running
from gateway.commands.lockout import LockOut
from protocols.clock import SystemClock
from protocols.sparkplug.payload import decode
from tests.gateway.api.conftest import meters, until
from tests.peers.libmodbus import LibmodbusServer
from tests.peers.mosquitto import Mosquitto
from tests.peers.sparkplug_payload import encoded

Json = dict[str, Any]  # Any: JSON
DCMD = "spBv1.0/plant/DCMD/edge/meter-1"
TOPIC = "holdfast/plant/edge/commands"
OUTCOMES = f"{TOPIC}/outcomes"


@dataclass
class Cloud:
    """Whoever sits behind the broker: sends commands and hears outcomes."""

    mqtt: aiomqtt.Client
    appliance: Appliance
    heard: list[tuple[str, Json, bytes]] = field(default_factory=list)
    """Topic, answer, correlation data."""
    aliases: dict[str, int] = field(default_factory=dict)
    """Of meter-1, by its birth."""

    async def listen(self) -> None:
        async for message in self.mqtt.messages:
            topic, payload = message.topic.value, bytes(message.payload)
            if "/DBIRTH/" in topic:
                self.aliases |= {one.name: one.alias for one in decode(payload).metrics if one.name and one.alias is not None}
            elif topic.startswith(f"{TOPIC}/"):
                self.heard.append((topic, json.loads(payload), getattr(message.properties, "CorrelationData", b"")))

    async def outcome(self, count: int = 1) -> Json:
        """The ``count``-th outcome that was heard."""
        await until("an outcome", lambda: len(self.heard) >= count)
        return self.heard[count - 1][1]

    async def dcmd(self, *metrics: Json, age_s: float = 0.0, retain: bool = False, **more: Any) -> bytes:
        """A DCMD as the npm package makes it. Its bytes."""
        stamp = int((time.time() - age_s) * 1000)
        told = [{"timestamp": stamp, **metric} for metric in metrics]
        (payload,) = await asyncio.to_thread(encoded, [{"timestamp": stamp, "metrics": told, **more}])
        await self.mqtt.publish(DCMD, payload, qos=0, retain=retain)
        return payload

    async def wish(self, properties: Properties | None = None, *, retain: bool = False, **said: Any) -> None:
        """A command as JSON."""
        body = {"id": "1", "device": "meter-1", "tag": "setpoint", "value": 5, "deadline_ns": time.time_ns() + 10**10, **said}
        body = {name: value for name, value in body.items() if value is not None}
        await self.mqtt.publish(TOPIC, json.dumps(body), qos=1, retain=retain, properties=properties)

    @property
    def errors(self) -> dict[str, int]:
        (uplink,) = [one for one in self.appliance.statuses if one.kind == "uplink"]
        return uplink.counters.errors


@pytest.fixture
def broker(tmp_path: Path) -> Iterator[Mosquitto]:
    with Mosquitto(tmp_path / "broker") as running_broker:
        yield running_broker


@pytest.fixture
async def server() -> AsyncIterator[LibmodbusServer]:
    async with LibmodbusServer(units=[1]) as one:
        yield one


@asynccontextmanager
async def cloud(
    broker: Mosquitto,
    server: LibmodbusServer,
    folder: Path,
    kind: str = "sparkplug",
    before: Callable[[aiomqtt.Client], Any] | None = None,
    **more: Any,
) -> AsyncIterator[Cloud]:
    """A gateway with one meter and one uplink, and the cloud behind its broker; ``before`` is done before the gateway is there."""
    site = {
        "holdfast": 1,
        "gateway": {"group": "plant", "name": "edge"},
        "journal": {"path": "journal"},
        "connections": [meters(server.port, 1)],
        "uplinks": [{"type": kind, "name": "cloud", "host": "127.0.0.1", "port": broker.port, "commands": True}],
        "commands": {"clock": "set"},
        **more,
    }
    loaded, problems = config.load(json.dumps(site).encode())
    assert loaded is not None, problems
    async with aiomqtt.Client("127.0.0.1", broker.port, protocol=aiomqtt.ProtocolVersion.V5, identifier="cloud-test") as mqtt:
        await mqtt.subscribe("spBv1.0/#")
        await mqtt.subscribe(f"{TOPIC}/#", options=None)
        if before is not None:
            await before(mqtt)
        async with running(loaded, base=folder) as appliance:
            one = Cloud(mqtt, appliance)
            listening = asyncio.create_task(one.listen())
            await until("all is up", lambda: all(each.state is links.State.UP for each in appliance.statuses))
            try:
                yield one
            finally:
                listening.cancel()
                await asyncio.gather(listening, return_exceptions=True)


async def test_a_dcmd_ends_as_what_the_device_made_of_it(broker: Mosquitto, server: LibmodbusServer, tmp_path: Path) -> None:
    """Verified, by name and by alias; mismatch where the device clips; failed where it says no. Each is told on the response topic."""
    async with cloud(broker, server, tmp_path) as far:
        await far.dcmd({"name": "setpoint", "type": "UInt16", "value": 21})
        done = await far.outcome()
        assert (done["stage"], done["read_back"], await server.get(1, "holding", 10)) == ("verified", 21, [21])
        await until("the birth", lambda: "setpoint" in far.aliases)
        await far.dcmd({"alias": far.aliases["setpoint"], "type": "UInt16", "value": 22})
        assert (await far.outcome(2))["stage"] == "verified"
        await server.clamp(1, 10, 10, 50)
        await far.dcmd({"name": "setpoint", "type": "UInt16", "value": 80})
        clipped = await far.outcome(3)
        assert (clipped["stage"], clipped["read_back"]) == ("mismatch", 50)
        await server.fail(1, 2)
        await far.dcmd({"name": "setpoint", "type": "UInt16", "value": 30})
        no = await far.outcome(4)
        assert (no["stage"], no["by_device"], "exception 2" in no["detail"]) == ("failed", True, True)
        assert {topic for topic, _, _ in far.heard} == {OUTCOMES}
        course = next(iter(far.appliance.commands.courses()))
        assert str(course.origin) == "uplink cloud"


async def test_what_cannot_be_believed_is_refused_recorded_and_never_sent(
    broker: Mosquitto, server: LibmodbusServer, tmp_path: Path
) -> None:
    async with cloud(broker, server, tmp_path) as far:
        await server.requests()
        good = {"name": "setpoint", "type": "UInt16", "value": 9}
        wrong: list[tuple[Json, Json, str]] = [
            (good, {"age_s": 3600.0}, "command-stale"),
            (good, {"age_s": -3600.0}, "command-ahead"),
            ({**good, "type": "Int32"}, {}, "command-misfit"),
            ({**good, "type": "Double"}, {}, "command-misfit"),
            ({**good, "name": "no-such"}, {}, "command-misfit"),
            ({"alias": 9999, "type": "UInt16", "value": 1}, {}, "command-misfit"),
            ({**good, "value": 70_000}, {}, "command-misfit"),
        ]
        for at, (metric, more, reason) in enumerate(wrong, start=1):
            before = far.errors[reason]
            await far.dcmd(metric, **more)
            told = await far.outcome(at)
            assert (told["stage"], far.errors[reason]) == ("refused", before + 1), (metric, told)
        await far.dcmd({"name": "voltage", "type": "Float", "value": 1.0})
        assert "not writable" in (await far.outcome(8))["detail"]
        await far.dcmd({**good, "value": 2000})
        assert "range" in (await far.outcome(9))["detail"]
        await far.mqtt.publish(DCMD, b"\xff rubbish")
        assert "protobuf" in (await far.outcome(10))["detail"]
        assert {request.function for request in await server.requests()} <= {3}
        head = far.appliance.journal.ledger()
        assert head is not None
        assert far.appliance.latest.device("_commands") is not None


async def test_a_retained_dcmd_is_a_trap_that_does_not_spring(broker: Mosquitto, server: LibmodbusServer, tmp_path: Path) -> None:
    async def leave(mqtt: aiomqtt.Client) -> None:
        stamp = int(time.time() * 1000)
        metric = {"name": "setpoint", "type": "UInt16", "value": 66, "timestamp": stamp}
        (payload,) = await asyncio.to_thread(encoded, [{"timestamp": stamp, "metrics": [metric]}])
        await mqtt.publish(DCMD, payload, qos=1, retain=True)

    await server.set(1, "holding", 10, 7)
    async with cloud(broker, server, tmp_path, before=leave) as far:
        told = await far.outcome()
        assert (told["stage"], "retained" in told["detail"]) == ("refused", True)
        assert far.errors["command-retained"] == 1
    assert await server.get(1, "holding", 10) == [7]


async def test_the_same_bytes_are_the_same_command_also_after_a_restart(broker: Mosquitto, server: LibmodbusServer, tmp_path: Path) -> None:
    async with cloud(broker, server, tmp_path) as far:
        payload = await far.dcmd({"name": "setpoint", "type": "UInt16", "value": 21})
        assert (await far.outcome())["stage"] == "verified"
        await server.set(1, "holding", 10, 3)
        await far.mqtt.publish(DCMD, payload)
        await far.outcome(2)
        assert far.errors["command-duplicate"] == 1
    async with cloud(broker, server, tmp_path) as far:
        await far.mqtt.publish(DCMD, payload)
        again = await far.outcome()
        assert (again["stage"], far.errors["command-duplicate"]) == ("verified", 1)
    assert await server.get(1, "holding", 10) == [3], "it was not written a second time"


async def test_an_uplink_is_closed_until_it_is_opened_and_a_lock_out_holds_against_it(
    broker: Mosquitto, server: LibmodbusServer, tmp_path: Path
) -> None:
    shut = {"type": "sparkplug", "name": "cloud", "host": "127.0.0.1", "port": broker.port}
    metric = {"name": "setpoint", "type": "UInt16", "value": 21}
    async with cloud(broker, server, tmp_path / "shut", uplinks=[shut]) as far:
        await far.dcmd(metric)
        assert "not taken" in (await far.outcome())["detail"]
    async with cloud(broker, server, tmp_path / "open") as far:
        await far.appliance.commands.lock_out(LockOut(scope="connection", name="hall", who="user:anna", why="belt is off", since_ns=1))
        await far.dcmd(metric)
        assert "belt is off" in (await far.outcome())["detail"]
    async with cloud(broker, server, tmp_path / "open") as far:
        await far.dcmd({**metric, "value": 22})
        assert "belt is off" in (await far.outcome())["detail"], "it holds after a restart"
        await far.appliance.commands.lift("connection:hall", "user:anna")
        await far.dcmd({**metric, "value": 23})
        assert (await far.outcome(2))["stage"] == "verified"


async def test_without_a_clock_that_is_synchronised_nothing_from_afar_is_believed(
    broker: Mosquitto, server: LibmodbusServer, tmp_path: Path
) -> None:
    async with cloud(broker, server, tmp_path, commands={"clock": "synchronised"}) as far:
        state = far.appliance.clock_state
        await far.dcmd({"name": "setpoint", "type": "UInt16", "value": 21})
        told = await far.outcome()
        believed = state.now.word.value == "synchronised"  # of the machine that this runs on
        assert (told["stage"], far.errors["command-clock"]) == (("verified", 0) if believed else ("refused", 1))


async def test_json_is_answered_where_it_asks_within_the_uplinks_own_topics(
    broker: Mosquitto, server: LibmodbusServer, tmp_path: Path
) -> None:
    async with cloud(broker, server, tmp_path, "mqtt") as far:
        for at, (asked, answered) in enumerate(((f"{TOPIC}/answers/7", f"{TOPIC}/answers/7"), ("spBv1.0/plant/NCMD/edge", OUTCOMES)), 1):
            properties = Properties(PacketTypes.PUBLISH)  # type: ignore[no-untyped-call] # paho annotates it only in part
            properties.ResponseTopic, properties.CorrelationData = asked, b"\x07"
            await far.wish(properties, id=f"r{at}", value=at)
            assert (await far.outcome(at))["stage"] == "verified"
            assert (far.heard[at - 1][0], far.heard[at - 1][2]) == (answered, b"\x07")
        assert far.errors["response-topic-foreign"] == 1
        assert await server.get(1, "holding", 10) == [2]


async def test_json_that_is_no_command_now_is_refused(broker: Mosquitto, server: LibmodbusServer, tmp_path: Path) -> None:
    async def leave(mqtt: aiomqtt.Client) -> None:
        await mqtt.publish(
            TOPIC, json.dumps({"id": "old", "device": "meter-1", "tag": "setpoint", "value": 1, "time_ns": 1}), 1, retain=True
        )

    async with cloud(broker, server, tmp_path, "mqtt", before=leave) as far:
        assert "retained" in (await far.outcome())["detail"]
        await server.requests()
        now = SystemClock().time_ns()
        wrong: list[tuple[Json, str]] = [
            ({"deadline_ns": None}, "command-unstamped"),
            ({"deadline_ns": None, "time_ns": 1}, "command-stale"),
            ({"deadline_ns": now + 10**18}, "command-ahead"),
            ({"id": None}, "command-malformed"),
            ({"value": [1]}, "command-malformed"),
            ({"sudo": True}, "command-malformed"),
        ]
        for at, (said, reason) in enumerate(wrong, start=2):
            await far.wish(**{"id": f"w{at}", **said})
            told = await far.outcome(at)
            assert (told["stage"], far.errors[reason] > 0) == ("refused", True), (said, told)
        await far.wish(id="late", deadline_ns=now - 1)
        assert (await far.outcome(8))["stage"] == "expired"
        await far.wish(id="same", value=4)
        assert (await far.outcome(9))["stage"] == "verified"
        await far.wish(id="same", value=5)
        assert "another command" in (await far.outcome(10))["detail"]
        writes = [request for request in await server.requests() if request.function != 3]
        assert len(writes) == 1
        assert await server.get(1, "holding", 10) == [4]


async def test_a_flood_is_counted_and_fills_neither_journal_nor_memory(broker: Mosquitto, server: LibmodbusServer, tmp_path: Path) -> None:
    async with cloud(broker, server, tmp_path, "mqtt") as far:
        for number in range(600):
            await far.mqtt.publish(TOPIC, b"{%d" % number, qos=0)
        await until("the flood is over", lambda: far.errors["command-malformed"] + far.errors["command-flood"] == 600)
        assert far.errors["command-flood"] > 0
        (uplink,) = [one for one in far.appliance.statuses if one.kind == "uplink"]
        assert uplink.counters.dropped["command-refusal"] > 0
        await asyncio.wait_for(_recovers(far), 20)


async def _recovers(far: Cloud) -> None:
    """Soon a command is taken again."""
    at = 0
    while not any(told["stage"] == "verified" for _, told, _ in far.heard):
        at += 1
        await far.wish(id=f"after-{at}", value=at % 100)
        await asyncio.sleep(0.1)
