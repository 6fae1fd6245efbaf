"""The reference consumer at the far end of a real broker, with a real journal and real uplinks at the near end."""

from __future__ import annotations

import asyncio
import io
import json
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from gateway import links
from gateway.config.model import PlainMqttUplink, SparkplugUplink
from gateway.consume import ConsumeOptions, Consumer, consume
from gateway.tasks import cancel
from gateway.uplink.plain import Plain
from protocols.clock import SystemClock
from tests.gateway.uplink.plant import BOILER, GATEWAY, PUMP, Plant, kept, plant, sparkplug, until
from tests.peers.mosquitto import Mosquitto


@pytest.fixture
def broker(tmp_path: Path) -> Iterator[Mosquitto]:
    with Mosquitto(tmp_path / "broker") as running:
        yield running


class PatientClock(SystemClock):
    """A real clock whose sleeps are short, so that nobody waits for a back-off."""

    async def sleep_until(self, moment: float) -> None:
        await super().sleep_until(min(moment, self.monotonic() + 0.05))


def uplink(broker: Mosquitto, **more: Any) -> SparkplugUplink:  # Any: fields of the Struct
    return SparkplugUplink(name="cloud", host=broker.host, port=broker.port, **{"keepalive_s": 2, "timeout_s": 5.0, **more})


@asynccontextmanager
async def listening(consumer: Consumer) -> AsyncIterator[None]:
    status = links.Status("consumer", "consumer")
    task = asyncio.create_task(links.keep(consumer.session, status, clock=PatientClock()))
    try:
        await until(lambda: status.state is links.State.UP)
        yield
    finally:
        await cancel(task)


@asynccontextmanager
async def consuming(broker: Mosquitto, out: io.StringIO | None = None, **more: Any) -> AsyncIterator[Consumer]:
    options = ConsumeOptions(group=GATEWAY.group, gateway=GATEWAY.name, host=broker.host, port=broker.port, **more)
    consumer = Consumer(options, out, clock=PatientClock())
    async with listening(consumer):
        yield consumer


def bring(one: Plant, count: int) -> None:
    for i in range(count):
        one.bring(BOILER, {"steam/pressure": float(i)})
        one.bring(PUMP, {"speed": i * 10.0})


def lines(out: io.StringIO) -> list[dict[str, Any]]:
    return [json.loads(line) for line in out.getvalue().splitlines()]


async def test_everything_is_received_checked_and_printed(tmp_path: Path, broker: Mosquitto) -> None:
    out = io.StringIO()
    async with plant(tmp_path / "journal", clock=PatientClock()) as one, consuming(broker, out, from_beginning=True) as consumer:
        one.has(BOILER, PUMP)
        bring(one, 50)
        async with kept(sparkplug(one, uplink(broker))):
            bring(one, 50)
            await one.delivered()
            await until(lambda: consumer.verdict().received == 200)
        verdict = consumer.verdict()
        assert verdict.ok, verdict
        assert (verdict.duplicate, verdict.missing, verdict.values, verdict.marks_wrong) == (0, 0, 200, 0)
        assert {name: device.received for name, device in verdict.devices.items()} == {"boiler": 100, "pump": 100}
        data = [line for line in lines(out) if "device" in line]
        assert sorted(seq for line in data for seq in line["seqs"]) == list(range(1, 201))
        assert all(reading["quality"] == 0 for line in data for reading in line["readings"])


async def test_the_consumer_confirms_and_the_cursor_moves_by_that(tmp_path: Path, broker: Mosquitto) -> None:
    async with plant(tmp_path / "journal", clock=PatientClock()) as one:
        one.has(BOILER, PUMP)
        async with kept(sparkplug(one, uplink(broker, acknowledge="consumer", acknowledge_timeout_s=0.5))):
            bring(one, 20)
            await one.stored()
            assert one.pending() == 40, "nobody has confirmed anything"
            async with consuming(broker, acknowledge=True, from_beginning=True) as consumer:
                await one.delivered()
                await until(lambda: consumer.verdict().received == 40)
                assert consumer.verdict().missing == 0


async def test_a_consumer_that_is_back_after_the_gateway_gets_history_in_order(tmp_path: Path, broker: Mosquitto) -> None:
    """History that went out while nobody listened is sent again before what follows it, though live values flow all the while."""
    out = io.StringIO()

    async def flow(of: Plant) -> None:
        while True:
            bring(of, 1)
            await asyncio.sleep(0.01)

    async with plant(tmp_path / "journal", clock=PatientClock()) as one:
        one.has(BOILER, PUMP)
        choice = uplink(broker, acknowledge="consumer", acknowledge_timeout_s=1.0, backfill_share=0.05)
        delivering = sparkplug(one, choice)
        who = ConsumeOptions(group=GATEWAY.group, gateway=GATEWAY.name, host=broker.host, port=broker.port, acknowledge=True)
        consumer = Consumer(who, out, clock=PatientClock())
        async with kept(delivering), listening(consumer):
            bring(one, 1)
            await until(lambda: consumer.verdict().received == 2)
        broker.kill()
        bring(one, 2000)
        await one.stored()
        broker.start()
        live = asyncio.create_task(flow(one))
        async with kept(delivering):
            await until(lambda: delivering.status.counters.taken > 40)
            async with listening(consumer):
                await until(lambda: consumer.verdict().received > 4002)
                await cancel(live)
                await one.delivered()
    for device in ("boiler", "pump"):
        came = [seq for line in lines(out) if line.get("device") == device for seq in line.get("seqs", ())]
        history = [seq for seq in dict.fromkeys(came) if seq <= 4002]
        assert history == sorted(history)


async def test_a_broker_killed_in_mid_stream_loses_nothing_when_the_consumer_confirms(tmp_path: Path, broker: Mosquitto) -> None:
    async with plant(tmp_path / "journal", clock=PatientClock()) as one:
        one.has(BOILER, PUMP)
        async with consuming(broker, acknowledge=True, from_beginning=True, host_id="scada") as consumer:
            choice = uplink(broker, acknowledge="consumer", acknowledge_timeout_s=1.0, primary_host="scada")
            async with kept(sparkplug(one, choice)):
                for _ in range(3):
                    before = consumer.verdict().received
                    bring(one, 40)
                    await until(lambda: consumer.verdict().received > before)  # noqa: B023 # awaited at once
                    broker.kill()
                    bring(one, 10)
                    broker.start()
                await one.delivered()
                await until(lambda: consumer.verdict().received == 300)
        verdict = consumer.verdict()
        assert (verdict.missing, verdict.disorder, verdict.lost) == (0, 0, {})


async def test_a_consumer_that_starts_late_asks_for_births_and_misses_nothing_from_then_on(tmp_path: Path, broker: Mosquitto) -> None:
    async with plant(tmp_path / "journal", clock=PatientClock()) as one:
        one.has(BOILER, PUMP)
        async with kept(sparkplug(one, uplink(broker))):
            bring(one, 20)
            await one.delivered()
            async with consuming(broker) as consumer:
                bring(one, 20)
                await one.delivered()
                await until(lambda: consumer.verdict().received == 40)
                assert consumer.rebirths >= 1
                assert consumer.verdict().missing == 0


@pytest.mark.parametrize("shape", ["columns", "tags"])
async def test_the_plain_uplink_can_be_checked_as_well(tmp_path: Path, broker: Mosquitto, shape: Any) -> None:
    clock = PatientClock()
    topic = "{group}/{gateway}/{device}"
    listening = consuming(broker, sparkplug=False, plain_topic=topic, from_beginning=True)
    async with plant(tmp_path / "journal", clock=clock) as one, listening as consumer:
        bring(one, 30)
        options = PlainMqttUplink(name="cloud", host=broker.host, port=broker.port, topic=topic, payload=shape)
        status = links.Status("uplink", "cloud")
        plain = Plain(options, GATEWAY, one.journal.reader("cloud"), clock, status)
        task = asyncio.create_task(links.keep(plain.session, status, clock=clock))
        await one.delivered()
        await until(lambda: consumer.verdict().received == 60)
        await cancel(task)
        assert consumer.verdict().ok, consumer.verdict()


async def test_rubbish_on_the_topics_is_counted_and_hurts_nobody(tmp_path: Path, broker: Mosquitto) -> None:
    out = io.StringIO()
    async with plant(tmp_path / "journal", clock=PatientClock()) as one, consuming(broker, out, plain_topic="p/{device}") as consumer:
        one.has(BOILER, PUMP)
        async with kept(sparkplug(one, uplink(broker))):
            rubbish = ["spBv1.0/plant/DDATA/gw/boiler", "holdfast/plant/gw/ledger", "p/x"]
            for topic in rubbish:
                await publish(broker, topic, b"\xff\x00rubbish")
            bring(one, 10)
            await one.delivered()
            await until(lambda: consumer.verdict().received == 20 and consumer.malformed == 3)
            assert [line["topic"] for line in lines(out) if line.get("finding") == "malformed"] == rubbish


class Pipe(io.StringIO):
    """A pipe whose reader goes away after some records; what is found on the way is in lines as well."""

    def write(self, text: str) -> int:
        if sum('"finding"' not in line for line in self.getvalue().splitlines()) >= 3:
            raise BrokenPipeError
        return super().write(text)


async def test_consume_ends_with_a_verdict_when_nobody_reads_its_lines(tmp_path: Path, broker: Mosquitto) -> None:
    options = ConsumeOptions(group=GATEWAY.group, gateway=GATEWAY.name, host=broker.host, port=broker.port)
    async with plant(tmp_path / "journal", clock=PatientClock()) as one, kept(sparkplug(one, uplink(broker))):
        one.has(BOILER, PUMP)
        consumption = asyncio.create_task(consume(options, Pipe()))
        while not consumption.done():
            bring(one, 1)
            await asyncio.wait([consumption], timeout=0.02)
        assert (await consumption).received >= 3


async def test_a_verdict_about_nothing_is_not_good(broker: Mosquitto) -> None:
    options = ConsumeOptions(group="g", gateway="gw", host=broker.host, port=broker.port)
    never = Consumer(options, None, clock=SystemClock()).verdict()
    assert (never.ok, never.unsure) == (False, "the broker was never reached: check host, port and credentials")
    async with consuming(broker) as consumer:
        assert "nothing came" in consumer.verdict().unsure


async def test_consume_ends_when_it_is_told_to(broker: Mosquitto) -> None:
    stop = asyncio.Event()
    stop.set()
    options = ConsumeOptions(group="g", gateway="gw", host=broker.host, port=broker.port)
    assert (await consume(options, None, stop=stop)).received == 0


async def publish(broker: Mosquitto, topic: str, payload: bytes) -> None:
    process = await asyncio.create_subprocess_exec(
        "mosquitto_pub", "-p", str(broker.port), "-t", topic, "-s", "-q", "1", stdin=asyncio.subprocess.PIPE
    )
    await process.communicate(payload)
    assert process.returncode == 0
