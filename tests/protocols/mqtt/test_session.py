"""A session against mosquitto, with mosquitto's own clients (and paho) as devices: what becomes of messages, wills, silence, commands."""

from __future__ import annotations

import asyncio
import json
import sys
import time
from pathlib import Path
from typing import Any, Final

import paho.mqtt.client as paho
import pytest
from paho.mqtt.enums import CallbackAPIVersion

from protocols.clock import SystemClock
from protocols.model import Command, OutcomeState, Quality
from protocols.mqtt.config import Mqtt
from protocols.mqtt.driver import MQTT
from tests.peers.mosquitto import Mosquitto
from tests.peers.program import Program
from tests.protocols.mqtt.rig import listener, options, pub, reading

T: Final[dict[str, Any]] = {"name": "t", "kind": "float64", "at": "$.t"}  # Any: JSON


def one(port: int, *, topic: str, connection: dict[str, Any] | None = None, **device: Any) -> Mqtt:  # Any: JSON
    """Options of one device that publishes JSON with a value ``t``."""
    return options(port, devices=[{"name": "d", "format": "json", "topic": topic, "tags": [T], **device}], **(connection or {}))


def command(tag: str, value: Any, device: str = "d") -> Command:  # Any: a value
    return Command(id="1", device=device, tag=tag, value=value, deadline_ns=time.time_ns() + 10**10)


async def test_a_retained_value_is_the_last_usable_one_unless_it_carries_its_time(broker: Mosquitto) -> None:
    await pub(broker, "kept/a", '{"t": 1.5}', "-r")
    stamp = time.time() - 60
    await pub(broker, "kept/b", json.dumps({"t": 2.5, "at": stamp}), "-r")
    devices = [
        {"name": "a", "format": "json", "topic": "kept/a", "tags": [T]},
        {"name": "b", "format": "json", "topic": "kept/b", "time_at": "$.at", "tags": [T]},
    ]
    async with reading(options(broker.port, session_expiry_s=0, devices=devices)) as read:
        await read.until("both", lambda: len(read.batches) == 2)
        await pub(broker, "kept/a", '{"t": 3.5}', "-r")
        await read.until("fresh", lambda: len(read.history("t", "a")) == 2)
    assert read.history("t", "a") == [(1.5, Quality.UNCERTAIN_LAST_USABLE_VALUE), (3.5, Quality.GOOD)]
    assert read.history("t", "b") == [(2.5, Quality.GOOD)]
    (at,) = [int(batch.time_ns[0]) for batch in read.batches if batch.device.name == "b"]
    assert abs(at - stamp * 1e9) < 1e6


@pytest.mark.parametrize("protocol", ["5", "3.1.1"])
async def test_what_is_published_while_the_gateway_is_away_arrives_later_in_order(broker: Mosquitto, protocol: str) -> None:
    told = one(broker.port, topic=f"away/{protocol}", connection={"protocol": protocol, "client_id": f"away-{protocol}", "hold_s": 0})
    async with reading(told):
        pass
    for value in (1.0, 2.0, 3.0):
        await pub(broker, f"away/{protocol}", json.dumps({"t": value}))
    async with reading(told) as read:
        await read.until("all", lambda: len(read.batches) == 3)
        await asyncio.sleep(0.6)  # so that what is acknowledged a moment later is
    assert read.history("t") == [(1.0, Quality.GOOD), (2.0, Quality.GOOD), (3.0, Quality.GOOD)]
    async with reading(told) as again:
        await pub(broker, f"away/{protocol}", '{"t": 4.0}')
        await again.until("the next", lambda: bool(again.batches))
    assert again.history("t") == [(4.0, Quality.GOOD)], "what was acknowledged does not come again"


async def test_what_was_taken_and_not_yet_durable_comes_again_after_a_crash(broker: Mosquitto) -> None:
    told = one(broker.port, topic="held", connection={"client_id": "held", "hold_s": 10})
    async with reading(told) as read:
        await pub(broker, "held", '{"t": 1.0}')
        await read.until("taken", lambda: bool(read.batches))
    async with reading(told) as again:
        await again.until("taken again", lambda: bool(again.batches))
    assert again.history("t") == [(1.0, Quality.GOOD)]


async def test_a_broker_that_forgot_the_session_is_told(tmp_path: Path) -> None:
    """What was published meanwhile is lost: nobody can bring it back, but somebody can say so."""
    with Mosquitto(tmp_path) as forgetful:
        told = one(forgetful.port, topic="x")
        async with reading(told) as read:
            assert read.session.findings == []
        async with reading(told) as read:
            assert read.session.findings == []
        forgetful.kill()
        forgetful.start()
        async with reading(told) as read:
            assert ["forgotten" in finding for finding in read.session.findings] == [True]
            assert read.session.stats.errors == {"session_forgotten": 1}


async def test_more_messages_than_may_be_held_are_acknowledged_at_once(tmp_path: Path) -> None:
    """Else a broker that sends few at a time would be brought to a halt."""
    with Mosquitto(tmp_path, "max_inflight_messages 12") as slow:
        told = one(slow.port, topic="many", connection={"protocol": "3.1.1", "hold_s": 10, "hold_messages": 10})
        async with reading(told) as read:
            await pub(slow, "many", "".join(f'{{"t": {value}}}\n' for value in range(200)), lines=True)
            await read.until("all", lambda: len(read.batches) == 200)


async def test_a_broker_that_waits_for_acknowledgements_is_not_slowed_down(tmp_path: Path) -> None:
    """mosquitto sends 20 messages to a client of 3.1.1 and waits; with half a second for each 20, 2,000 would take 50 s."""
    with Mosquitto(tmp_path, "max_queued_messages 5000") as slow:
        async with reading(one(slow.port, topic="many", connection={"protocol": "3.1.1"})) as read:
            await pub(slow, "many", "".join(f'{{"t": {value}}}\n' for value in range(2000)), lines=True)
            await read.until("all", lambda: len(read.batches) == 2000)


async def test_a_broker_that_does_not_wait_is_held_to_the_last_message(tmp_path: Path) -> None:
    with Mosquitto(tmp_path, "max_queued_messages 5000") as swift:
        async with reading(one(swift.port, topic="many")) as read:
            await pub(swift, "many", "".join(f'{{"t": {value}}}\n' for value in range(500)), lines=True)
            await read.until("all", lambda: len(read.batches) == 500)
            assert read.session.findings == []


async def test_a_last_will_makes_the_device_lost_and_its_next_word_brings_it_back(broker: Mosquitto) -> None:
    told = one(broker.port, topic="plant/{device}/state", status_topic="plant/{device}/status", connection={"session_expiry_s": 0})
    program = Program(Path(sys.executable), "-m", "tests.protocols.mqtt.device", "127.0.0.1", str(broker.port))
    async with program as device, reading(told) as read:
        await device.ask('hold d {"t": 1.0}')
        await read.until("read", lambda: (1.0, Quality.GOOD) in read.history("t"))
        await device.ask("die d")
        await read.until("lost", lambda: read.lost() == ["d"])
        assert read.history("t")[-1] == (0.0, Quality.BAD_NO_COMMUNICATION)
        await pub(broker, "plant/d/state", '{"t": 2.0}')
        await read.until("back", lambda: read.history("t")[-1] == (2.0, Quality.GOOD))


async def test_a_status_inside_json_is_found(broker: Mosquitto) -> None:
    told = one(broker.port, topic="s/x", status_topic="s/state", status_at="$.alive", offline="false", connection={"session_expiry_s": 0})
    async with reading(told) as read:
        await pub(broker, "s/x", '{"t": 1}')
        await read.until("read", lambda: bool(read.batches))
        await pub(broker, "s/state", '{"alive": true}')
        await pub(broker, "s/state", "no json")
        await pub(broker, "s/state", '{"alive": false}')
        await read.until("lost", lambda: read.lost() == ["d"])
    assert read.session.stats.errors["undecodable"] == 1


async def test_a_device_that_says_nothing_is_lost_and_the_connection_is_not(broker: Mosquitto) -> None:
    told = one(broker.port, topic="quiet", silence_s=0.5, connection={"session_expiry_s": 0})
    async with reading(told) as read:
        await read.until("lost without a word", lambda: read.lost() == ["d"])
        await pub(broker, "quiet", '{"t": 1}')
        await read.until("back", lambda: read.history("t")[-1] == (1.0, Quality.GOOD))
        await read.until("lost again", lambda: read.lost() == ["d", "d"])


async def test_a_family_is_one_subscription_and_strangers_are_counted_and_told(broker: Mosquitto) -> None:
    names = [f"env-{number}" for number in range(20)]
    told = options(
        broker.port, session_expiry_s=0, families=[{"names": names, "format": "json", "topic": "family/{device}/env", "tags": [T]}]
    )
    assert [device.name for device in MQTT.devices(told)] == names
    async with reading(told) as read:
        for stranger in range(30):
            await pub(broker, f"family/stranger-{stranger}/env", '{"t": 1}', "-q", "0")
        await pub(broker, "family/env-7/env", '{"t": 7}')
        await read.until("read", lambda: bool(read.batches))
        findings, errors = list(read.session.findings), dict(read.session.stats.errors)
    assert [batch.device.name for batch in read.batches] == ["env-7"]
    assert errors == {"unknown_topic": 30}
    assert len(findings) == 21
    assert "family/stranger-0/env" in findings[0]
    assert "only counted" in findings[20]


async def test_tags_with_topics_and_formats_of_their_own(broker: Mosquitto) -> None:
    tags = [
        {"name": "power", "kind": "bool", "topic": "stat/{device}/POWER", "format": "text"},
        {"name": "rssi", "kind": "int8", "topic": "raw/{device}", "format": "raw", "at": "1:int8"},
        T,
    ]
    told = options(broker.port, session_expiry_s=0, devices=[{"name": "d", "topic": "tele/{device}", "tags": tags}])
    async with reading(told) as read:
        await pub(broker, "stat/d/POWER", "ON")
        await pub(broker, "raw/d", b"\x00\xb0")
        await pub(broker, "tele/d", '{"t": 2}')
        await read.until("all", lambda: len(read.batches) == 3)
    assert read.history("power") + read.history("rssi") + read.history("t") == [
        (True, Quality.GOOD),
        (-80, Quality.GOOD),
        (2.0, Quality.GOOD),
    ]


async def test_the_content_type_of_a_message_decides_where_the_format_is_auto(broker: Mosquitto) -> None:
    told = one(broker.port, topic="typed", connection={"session_expiry_s": 0}, format="auto")
    publish = ("-V", "5", "-D", "publish", "content-type")
    async with reading(told) as read:
        await pub(broker, "typed", bytes.fromhex("a16174fb3ff8000000000000"), *publish, "application/cbor")
        await pub(broker, "typed", b"\x89PNG", *publish, "image/png")
        await read.until("both", lambda: len(read.batches) == 2)
    assert read.history("t") == [(1.5, Quality.GOOD), (0.0, Quality.BAD_NOT_SUPPORTED)]


async def test_a_payload_that_is_too_long_is_bad_and_the_next_one_is_good(broker: Mosquitto) -> None:
    """Above max_bytes, and far above, where nobody even builds it."""
    told = one(broker.port, topic="long", max_bytes=1000, connection={"session_expiry_s": 0, "hold_s": 0})
    async with reading(told) as read:
        await pub(broker, "long", b" " * 2000)
        await pub(broker, "long", b" " * 5_000_000)
        await pub(broker, "long", '{"t": 1}')
        await read.until("all", lambda: len(read.batches) == 3)
    assert [quality for _, quality in read.history("t")] == [Quality.BAD_DECODING_ERROR, Quality.BAD_OUT_OF_RANGE, Quality.GOOD]
    assert read.session.stats.errors == {"undecodable": 1, "too_long": 1}


async def test_what_overflows_while_nobody_reads_is_counted_and_told(broker: Mosquitto) -> None:
    told = one(broker.port, topic="flood", connection={"session_expiry_s": 0})
    client = paho.Client(CallbackAPIVersion.VERSION2, client_id="flood")
    client.max_queued_messages_set(0)
    async with MQTT.open(told, clock=SystemClock()) as session:
        client.connect("127.0.0.1", broker.port)
        client.loop_start()
        sent = [client.publish("flood", b'{"t": 1}', 0) for _ in range(15_000)]
        await asyncio.to_thread(sent[-1].wait_for_publish, 10)
        deadline = time.monotonic() + 15
        while not session.stats.errors.get("dropped"):
            assert time.monotonic() < deadline
            await asyncio.sleep(0.05)
        client.loop_stop()
        assert any("dropped" in finding for finding in session.findings)


# ---- commands


async def test_a_command_goes_out_as_its_template_says_and_is_never_retained(broker: Mosquitto) -> None:
    tags = [{"name": "setpoint", "kind": "float64", "at": "$.sp", "writable": True, "scale": 0.1, "write_as": '{"target": {value}}'}]
    device = {"name": "d", "format": "json", "topic": "c/state", "command_topic": "c/{device}/{tag}", "tags": tags}
    async with listener(broker, "c/d/#") as told, reading(options(broker.port, session_expiry_s=0, devices=[device])) as read:
        (outcome,) = await read.session.write([command("setpoint", 21.5)])
        topic, retained, payload = await asyncio.wait_for(told.get(), 10)
    assert (topic, retained, json.loads(payload)) == ("c/d/setpoint", 0, {"target": 215.0})
    async with listener(broker, "c/d/#") as later:
        assert later.empty(), "nobody who comes later is told"
    assert outcome.state is OutcomeState.FAILED
    assert "nobody can say" in outcome.detail


async def test_a_command_that_the_broker_does_not_allow_is_refused(guarded: Mosquitto, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BROKER_PASSWORD", "secret")
    who = {"username": "gateway", "password": {"from": "env", "name": "BROKER_PASSWORD"}, "session_expiry_s": 0}
    tags = [{**T, "writable": True}]
    device = {"name": "d", "format": "json", "topic": "allowed/x", "command_topic": "denied/x", "tags": tags}
    async with reading(options(guarded.port, devices=[device], **who)) as read:
        (outcome,) = await read.session.write([command("t", 1.0)])
    assert outcome.state is OutcomeState.REFUSED
    assert "Not authorized" in outcome.detail


async def test_a_probe_tells_what_was_heard_and_what_was_not(broker: Mosquitto) -> None:
    await pub(broker, "probe/a", '{"t": 1}', "-r")
    devices = [{"name": name, "format": "json", "topic": f"probe/{name}", "tags": [T]} for name in ("a", "b")]
    report = await MQTT.probe(options(broker.port, devices=devices))
    assert report.ok
    assert "took 2 of 2 subscriptions" in report.findings[0]
    assert any("heard within 3 s: a" in finding for finding in report.findings)
    assert any("not heard within 3 s: b" in finding for finding in report.findings)
