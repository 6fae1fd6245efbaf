"""The plain MQTT uplink between a real journal and a real broker: nothing is acknowledged that did not arrive."""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from gateway import links
from gateway.config.model import Broker, Gateway, JournalOptions, PlainMqttUplink
from gateway.journal.journal import Journal
from gateway.journal.record import Lane
from gateway.tasks import cancel
from gateway.uplink.plain import Plain
from protocols.clock import ManualClock, SystemClock
from protocols.contract import DriverError, Unreachable
from protocols.model import Device, Kind, Tag
from protocols.mqtt.client import connect
from tests.gateway.uplink.shelf import DEVICE, Shelf, batch
from tests.peers.mosquitto import Mosquitto

DEADLINE_S = 20.0
GATEWAY = Gateway(group="plant-7", name="gw-01")
WIDE = Device("line", "wide", tuple(Tag(name=f"some/long/tag/name/{i}", kind=Kind.FLOAT64) for i in range(200)))


class PatientClock(SystemClock):
    """A real clock whose sleeps are short, so that nobody waits for a back-off."""

    async def sleep_until(self, moment: float) -> None:
        await super().sleep_until(min(moment, self.monotonic() + 0.05))


@dataclass
class Line:
    """A journal, uplinks that read it, and what a subscriber at the broker got."""

    journal: Journal
    folder: Path
    clock: PatientClock = field(default_factory=PatientClock)
    statuses: dict[str, links.Status] = field(default_factory=dict)
    tasks: list[asyncio.Task[None]] = field(default_factory=list)
    got: list[dict[str, Any]] = field(default_factory=list)  # Any: JSON

    def uplink(self, broker: Mosquitto, name: str = "historian", **more: Any) -> links.Status:  # Any: fields of the Struct
        options = PlainMqttUplink(name=name, host=broker.host, port=broker.port, **{"keepalive_s": 2, "timeout_s": 5.0, **more})
        status = self.statuses[name] = links.Status("uplink", name)
        plain = Plain(options, GATEWAY, self.journal.reader(name), self.clock, status)
        self.tasks.append(asyncio.create_task(links.keep(plain.session, status, clock=self.clock)))
        return status

    async def stop_uplinks(self) -> None:
        for task in self.tasks:
            await cancel(task)
        self.tasks.clear()

    async def subscribe(self, broker: Mosquitto, topic: str = "#") -> None:
        """Collect what arrives, through restarts of the broker."""
        ready = asyncio.Event()

        async def listen(up: Callable[[], None]) -> None:
            choice = PlainMqttUplink(name="listener", host=broker.host, port=broker.port, keepalive_s=2)
            async with connect(choice, Broker(host=broker.host, port=broker.port), client_id="listener", clean=False) as session:
                await session.subscribe(topic, 1)
                up()
                ready.set()
                async for message in session.messages():
                    self.got.append({"topic": message.topic, **json.loads(message.payload)})

        self.tasks.append(asyncio.create_task(links.keep(listen, links.Status("listener", "listener"), clock=self.clock)))
        await asyncio.wait_for(ready.wait(), DEADLINE_S)

    async def put(self, count: int, device: Device = DEVICE) -> None:
        for _ in range(count - 1):
            self.journal.offer(batch(device))
        await self.journal.append(batch(device))

    def pending(self, name: str = "historian") -> int:
        return sum(last - first + 1 for first, last in self.journal.reader(name).pending(Lane.TELEMETRY))

    async def drained(self, name: str = "historian") -> None:
        await until(lambda: not self.pending(name))

    def seqs(self) -> Counter[tuple[int, int]]:
        return Counter((message["epoch"], message["seq"]) for message in self.got)


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(DEADLINE_S):
        while not condition():  # noqa: ASYNC110 # brought about by another process or thread
            await asyncio.sleep(0.005)


@asynccontextmanager
async def line(folder: Path) -> AsyncIterator[Line]:
    clock = SystemClock()
    journal = await Journal.open(JournalOptions(path=str(folder / "journal"), commit_window_ms=5), clock=clock)
    made = Line(journal, folder)
    try:
        yield made
    finally:
        await made.stop_uplinks()
        await journal.close()


async def test_every_record_arrives_and_is_acknowledged(tmp_path: Path, broker: Mosquitto) -> None:
    async with line(tmp_path) as one:
        await one.subscribe(broker)
        await one.put(20)
        status = one.uplink(broker)
        await until(lambda: status.state is links.State.UP)
        await one.put(30)
        await one.drained()
        await until(lambda: len(one.got) == 50)
        assert set(one.seqs().values()) == {1}
        assert {message["topic"] for message in one.got} == {"plant-7/gw-01/boiler"}
        assert sum("historical" in message for message in one.got) >= 20
        assert status.counters.given == 50


async def test_a_broker_killed_in_mid_stream_costs_nothing(tmp_path: Path, broker: Mosquitto) -> None:
    broker.config = (
        f"persistence true\npersistence_location {tmp_path}/\nautosave_interval 1\nautosave_on_changes true\nmax_queued_messages 100000"
    )
    broker.kill()
    broker.start()
    async with line(tmp_path) as one:
        await one.subscribe(broker)
        status = one.uplink(broker)
        for _ in range(3):
            await one.put(200)
            await until(lambda: status.counters.given > 0)
            broker.kill()
            await one.put(50)
            broker.start()
        await one.drained()
        assert one.pending() == 0
        acknowledged = one.journal.ledger().readers["historian"]["telemetry"]
        assert (acknowledged.acknowledged, acknowledged.dropped) == (750, {})


async def test_a_broker_stopped_and_started_gets_everything_in_order(tmp_path: Path, broker: Mosquitto) -> None:
    """It keeps what it acknowledged (persistence), so the subscriber sees every record, and repetitions with the same number."""
    broker.config = f"persistence true\npersistence_location {tmp_path}/\nmax_queued_messages 100000"
    broker.stop()
    broker.start()
    async with line(tmp_path) as one:
        await one.subscribe(broker)
        one.uplink(broker, in_flight=10)
        for _ in range(3):
            await one.put(100)
            broker.stop()
            await one.put(20)
            broker.start()
        await one.drained()
        await until(lambda: len(one.seqs()) == 360)
        first_seen = list(dict.fromkeys((message["epoch"], message["seq"]) for message in one.got if "historical" in message))
        assert first_seen == sorted(first_seen)


async def test_a_frozen_broker_costs_nothing(tmp_path: Path, broker: Mosquitto) -> None:
    async with line(tmp_path) as one:
        await one.subscribe(broker)
        status = one.uplink(broker)
        await until(lambda: status.state is links.State.UP)
        broker.freeze()
        await one.put(50)
        await until(lambda: status.state is not links.State.UP)
        assert "silent" in status.trouble
        broker.thaw()
        await one.drained()
        await until(lambda: len(one.seqs()) == 50)


async def test_a_rejected_message_stays_in_the_journal(tmp_path: Path) -> None:
    """The broker's access list denies the topic; when the operator allows it, everything is delivered."""
    broker = Mosquitto(tmp_path / "broker", acl="topic read #")
    with broker:
        async with line(tmp_path) as one:
            status = one.uplink(broker)
            await one.put(10)
            await until(lambda: status.counters.errors["Refused"] > 0)
            assert "Not authorized (0x87)" in status.trouble
            assert "access list" in status.trouble
            assert one.pending() == 10
            broker.kill()
            broker.acl = "topic readwrite #"
            broker.start()
            await one.subscribe(broker)
            await one.drained()
            await until(lambda: len(one.seqs()) == 10)


@pytest.mark.parametrize("limit", ["max_packet_size 4000", "message_size_limit 4000"])
async def test_a_record_too_large_for_the_broker_is_sent_in_parts(tmp_path: Path, limit: str) -> None:
    """Whether the broker says its limit when we connect, or only when a message is above it."""
    with Mosquitto(tmp_path / "broker", config=limit) as broker:
        async with line(tmp_path) as one:
            await one.subscribe(broker)
            one.uplink(broker)
            await one.put(3, WIDE)
            await one.drained()
            await until(lambda: sum(len(m["tags"]) for m in one.got) == 3 * len(WIDE.tags))
            for seq in (1, 2, 3):
                parts = sorted((m["part"], m["tags"]) for m in one.got if m["seq"] == seq)
                assert [name for _, tags in parts for name in tags] == [tag.name for tag in WIDE.tags]


async def test_two_uplinks_have_their_own_cursors(tmp_path: Path, broker: Mosquitto) -> None:
    """One broker is away: the other uplink goes on, and nothing is lost for the first."""
    with Mosquitto(tmp_path / "second") as second:
        second.stop()
        async with line(tmp_path) as one:
            await one.subscribe(broker)
            one.uplink(broker, "near")
            away = one.uplink(second, "far", payload="tags")
            await one.put(40)
            await one.drained("near")
            assert one.pending("far") == 40
            assert away.state is not links.State.UP
            second.start()
            await one.drained("far")
            assert away.counters.given == 40


async def test_an_uplink_that_is_changed_goes_on_where_it_was(tmp_path: Path, broker: Mosquitto) -> None:
    async with line(tmp_path) as one:
        one.uplink(broker)
        await one.put(30)
        await one.drained()
        await one.stop_uplinks()
        await one.put(10)
        await one.subscribe(broker)
        one.uplink(broker, topic="changed/{device}", payload="tags")
        await one.drained()
        await until(lambda: len(one.got) == 10)
        assert {message["topic"] for message in one.got} == {"changed/boiler"}


async def test_what_the_journal_had_to_drop_is_told_with_the_next_record(tmp_path: Path, broker: Mosquitto) -> None:
    """Records 2 and 3 were on their way when the broker froze; before it came back the journal dropped them."""
    shelf, clock = Shelf(ManualClock()), PatientClock()
    async with line(tmp_path) as one:
        await one.subscribe(broker)
        status = links.Status("uplink", "historian")
        options = PlainMqttUplink(name="historian", host=broker.host, port=broker.port, keepalive_s=1)
        plain = Plain(options, GATEWAY, shelf, clock, status)
        one.tasks.append(asyncio.create_task(links.keep(plain.session, status, clock=clock)))
        shelf.put(1)
        await until(lambda: not shelf.pending(Lane.TELEMETRY))
        broker.freeze()
        shelf.put(4)
        await until(lambda: status.counters.taken == 5)
        await until(lambda: status.state is not links.State.UP)
        shelf.drop(2, 3)
        broker.thaw()
        await until(lambda: not shelf.pending(Lane.TELEMETRY) and any("lost" in message for message in one.got))
        told = [(message["seq"], message["lost"]) for message in one.got if "lost" in message]
        assert told[0] == (4, [{"first": 2, "last": 3, "reason": "full"}])
        await until(lambda: not shelf.untold(Lane.TELEMETRY))


async def test_what_was_lost_is_told_in_a_later_connection_where_none_had_a_record_to_ride_with(tmp_path: Path, broker: Mosquitto) -> None:
    """Everything is refused for a while and nothing follows; the connection ends, and the next one has a record."""
    shelf, clock = Shelf(ManualClock()), PatientClock()
    async with line(tmp_path) as one:
        await one.subscribe(broker)
        options = PlainMqttUplink(name="historian", host=broker.host, port=broker.port)
        for _ in range(2):  # two lives of the gateway
            status = links.Status("uplink", "historian")
            plain = Plain(options, GATEWAY, shelf, clock, status)
            session = asyncio.create_task(links.keep(plain.session, status, clock=clock))
            await until(partial(_is_up, status))
            shelf.put(3)
            first = shelf.head(Lane.TELEMETRY) - 3
            shelf.drop(first, first + 2)
            await asyncio.sleep(0.2)
            session.cancel()
            await asyncio.wait([session])
        assert shelf.untold(Lane.TELEMETRY) == ((1, 6),)
        assert one.got == []
        status = links.Status("uplink", "historian")
        one.tasks.append(asyncio.create_task(links.keep(Plain(options, GATEWAY, shelf, clock, status).session, status, clock=clock)))
        await until(partial(_is_up, status))
        shelf.put(1)
        await until(lambda: not shelf.pending(Lane.TELEMETRY) and not shelf.untold(Lane.TELEMETRY))
        told = [span for message in one.got for span in message.get("lost", [])]
        assert told == [{"first": 1, "last": 6, "reason": "full"}]


def _is_up(status: links.Status) -> bool:
    return status.state is links.State.UP


async def test_thingsboard_gets_its_own_topic(tmp_path: Path, broker: Mosquitto) -> None:
    async with line(tmp_path) as one:
        await one.subscribe(broker)
        one.uplink(broker, payload="thingsboard")
        await one.put(1)
        await until(lambda: len(one.got) == 1)
        assert one.got[0]["topic"] == "v1/gateway/telemetry"
        assert one.got[0]["boiler"][0]["values"] == {"steam/pressure": 1.5, "steam/flow": 1.5}


async def test_acknowledgements_count_in_any_order(tmp_path: Path) -> None:
    """A server acknowledges the 3rd and then the 2nd of four messages: the 1st and the 4th stay pending."""
    connections = 0

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal connections
        connections += 1
        await reader.read(1000)
        writer.write(b"\x20\x03\x00\x00\x00")
        identities: list[bytes] = []
        with suppress(asyncio.IncompleteReadError):
            while len(identities) < 4:
                await reader.readexactly(1)
                body = await reader.readexactly(await varint(reader))
                at = 2 + int.from_bytes(body[:2], "big")
                identities.append(body[at : at + 2])
            for place in (2, 1):
                writer.write(b"\x40\x02" + identities[place])
            await writer.drain()
        writer.close()

    async def varint(reader: asyncio.StreamReader) -> int:
        value = shift = 0
        while True:
            byte = (await reader.readexactly(1))[0]
            value |= (byte & 0x7F) << shift
            shift += 7
            if byte < 0x80:
                return value

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    async with line(tmp_path) as one:
        await one.put(4)
        options = PlainMqttUplink(name="historian", host="127.0.0.1", port=server.sockets[0].getsockname()[1])
        plain = Plain(options, GATEWAY, one.journal.reader("historian"), one.clock, links.Status("uplink", "historian"))
        error = None
        try:
            await asyncio.wait_for(plain.session(lambda: None), DEADLINE_S)
        except DriverError as caught:
            error = caught
        assert isinstance(error, Unreachable)
        assert one.journal.reader("historian").pending(Lane.TELEMETRY) == ((1, 1), (4, 4))
    server.close()
    await server.wait_closed()
