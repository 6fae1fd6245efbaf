"""What the Sparkplug 3.0 conformance kit asks of an edge node, observed on the wire of real sessions.

Each test records sessions between the uplink and a mosquitto through a tap that reads MQTT by itself, and carries the
``tck-id`` of every sentence of the specification (repository eclipse-sparkplug/sparkplug, commit e45b610) that it looks at.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from gateway.config.model import Broker, SparkplugUplink
from gateway.uplink.sparkplug import NODE_EVERY_S
from protocols.clock import ManualClock
from protocols.model import Kind, Quality
from protocols.sparkplug.kinds import DATATYPE_OF
from protocols.sparkplug.payload import Metric, Payload, decode
from protocols.sparkplug.sparkplug_b_pb2 import Payload as Raw
from protocols.sparkplug.topics import parse
from tests.gateway.uplink.host import host
from tests.gateway.uplink.plant import BOILER, PUMP, Plant, batch, kept, plant, sparkplug, until
from tests.peers.mosquitto import Mosquitto
from tests.peers.tap import Connect, Disconnect, Packet, Publish, Subscribe, tap

REBIRTH = "Node Control/Rebirth"
HOST = "spBv1.0/STATE/scada-1"


def tck(*ids: str) -> Callable[[Any], Any]:  # Any: a test function, returned as it is
    """Says which sentences a test looks at."""
    return pytest.mark.parametrize("ids", [pytest.param(ids, id=f"{len(ids)} ids")])


@dataclass(frozen=True, slots=True)
class Said:
    """One Sparkplug message as it stood on the wire."""

    verb: str
    device: str
    payload: Payload
    packet: Publish

    def metric(self, name: str) -> Metric:
        return next(one for one in self.payload.metrics if one.name == name)


@dataclass
class Recording:
    """Two sessions: the first with a rebirth, data, a lost device and an intended end, the second ended by a stop."""

    sessions: list[list[Packet]]
    began_ms: int
    ended_ms: int

    def connects(self) -> list[Connect]:
        return [packet for session in self.sessions for packet in session if isinstance(packet, Connect)]

    def said(self, session: int, *verbs: str) -> list[Said]:
        found = []
        for packet in self.sessions[session]:
            topic = parse(packet.topic) if isinstance(packet, Publish) else None
            if topic is not None and isinstance(packet, Publish) and (not verbs or topic.verb in verbs):
                assert (topic.group, topic.node) == ("plant", "gw")
                found.append(Said(str(topic.verb), topic.device, decode(packet.payload), packet))
        return found


async def _record(folder: Path, protocol: str) -> Recording:
    began_ms = time.time_ns() // 1_000_000
    with Mosquitto(folder / "broker") as broker:
        async with plant(folder / "journal") as made, tap(broker.port) as heard, host(broker.port) as seen:
            made.has(BOILER, PUMP)
            made.latest.update(batch(BOILER, {"steam/pressure": 1.5}, time_ns=time.time_ns()))
            options = SparkplugUplink(name="cloud", host="127.0.0.1", port=heard.port, protocol=protocol)  # type: ignore[arg-type] # one of two
            uplink = sparkplug(made, options, bdseq_file=folder / "bdseq")
            async with kept(uplink):
                await seen.expect("DBIRTH", "pump")
                await _live(made, 300)
                await seen.ask_for_rebirth()
                await seen.expect("DBIRTH", "pump", count=2)
                made.take(batch(BOILER, {"steam/pressure": 0.0}, time_ns=time.time_ns(), quality=Quality.BAD_TIMEOUT))
                made.take(batch(BOILER, {"steam/pressure": 2.0}, time_ns=time.time_ns(), quality=Quality.UNCERTAIN))
                made.lose(PUMP)
                await seen.expect("DDEATH", "pump")
                made.bring(PUMP, {"speed": 5.0})
                await seen.expect("DBIRTH", "pump", count=3)
                await made.delivered()
            for number in range(5):
                made.bring(BOILER, {"steam/pressure": float(number)})
            await made.stored()
            async with kept(uplink):
                await made.delivered()
            await until(lambda: heard.open == 0)
            return Recording(heard.sessions, began_ms, time.time_ns() // 1_000_000)


async def _live(made: Plant, count: int) -> None:
    """So many records, in as many messages as possible."""
    for number in range(count):
        made.bring(BOILER, {"steam/pressure": float(number)})
        if number % 10 == 0:
            await asyncio.sleep(0.006)


@pytest.fixture(scope="module", params=["5", "3.1.1"])
def recording(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Recording:
    return asyncio.run(_record(tmp_path_factory.mktemp("tck"), request.param))


@tck(
    "tck-id-message-flow-edge-node-birth-publish-will-message",
    "tck-id-message-flow-edge-node-birth-publish-will-message-topic",
    "tck-id-message-flow-edge-node-birth-publish-will-message-payload",
    "tck-id-message-flow-edge-node-birth-publish-will-message-payload-bdSeq",
    "tck-id-message-flow-edge-node-birth-publish-will-message-qos",
    "tck-id-message-flow-edge-node-birth-publish-will-message-will-retained",
    "tck-id-topics-ndeath-topic",
    "tck-id-topics-ndeath-payload",
    "tck-id-topics-ndeath-seq",
    "tck-id-payloads-ndeath-seq",
    "tck-id-payloads-ndeath-will-message",
    "tck-id-payloads-ndeath-will-message-qos",
    "tck-id-payloads-ndeath-will-message-retain",
    "tck-id-payloads-ndeath-bdseq",
)
def test_each_connect_carries_the_ndeath_as_its_will(recording: Recording, ids: tuple[str, ...]) -> None:
    for connect in recording.connects():
        assert (connect.will_topic, connect.will_qos, connect.will_retain) == ("spBv1.0/plant/NDEATH/gw", 1, False)
        payload = decode(connect.will_payload)
        assert [(one.name, one.datatype) for one in payload.metrics] == [("bdSeq", DATATYPE_OF[Kind.INT64])]
        assert payload.seq is None


@tck("tck-id-principles-persistence-clean-session-311", "tck-id-principles-persistence-clean-session-50")
def test_each_session_is_clean(recording: Recording, ids: tuple[str, ...]) -> None:
    assert all(connect.clean and connect.session_expiry_s == 0 for connect in recording.connects())


@tck(
    "tck-id-topics-nbirth-bdseq-included",
    "tck-id-topics-nbirth-bdseq-matching",
    "tck-id-topics-nbirth-bdseq-increment",
    "tck-id-payloads-nbirth-bdseq",
    "tck-id-payloads-nbirth-bdseq-repeat",
    "tck-id-message-flow-edge-node-birth-publish-nbirth-payload-bdSeq",
    "tck-id-operational-behavior-data-commands-rebirth-action-3",
)
def test_bdseq_is_that_of_the_will_and_rises_by_one_for_each_connect(recording: Recording, ids: tuple[str, ...]) -> None:
    wills = [decode(connect.will_payload).metrics[0].value for connect in recording.connects()]
    for session, will in enumerate(wills):
        births = recording.said(session, "NBIRTH")
        assert {one.metric("bdSeq").value for one in births} == {will}
        assert {one.metric("bdSeq").datatype for one in births} == {DATATYPE_OF[Kind.INT64]}
    assert isinstance(wills[0], int)
    assert wills[1] == (wills[0] + 1) % 256


@tck(
    "tck-id-message-flow-edge-node-ncmd-subscribe",
    "tck-id-message-flow-device-dcmd-subscribe",
)
def test_commands_are_subscribed_before_the_birth(recording: Recording, ids: tuple[str, ...]) -> None:
    for session in recording.sessions:
        first_publish = next(at for at, packet in enumerate(session) if isinstance(packet, Publish))
        subscribed = {packet.topic: packet.qos for packet in session[:first_publish] if isinstance(packet, Subscribe)}
        assert subscribed == {"spBv1.0/plant/NCMD/gw": 1, "spBv1.0/plant/DCMD/gw/#": 1}


@tck(
    "tck-id-message-flow-edge-node-birth-publish-connect",
    "tck-id-message-flow-edge-node-birth-publish-nbirth-topic",
    "tck-id-message-flow-edge-node-birth-publish-nbirth-payload",
    "tck-id-message-flow-edge-node-birth-publish-nbirth-qos",
    "tck-id-message-flow-edge-node-birth-publish-nbirth-retained",
    "tck-id-message-flow-edge-node-birth-publish-nbirth-payload-seq",
    "tck-id-message-flow-device-birth-publish-nbirth-wait",
    "tck-id-message-flow-device-birth-publish-dbirth-topic",
    "tck-id-message-flow-device-birth-publish-dbirth-match-edge-node-topic",
    "tck-id-message-flow-device-birth-publish-dbirth-payload",
    "tck-id-message-flow-device-birth-publish-dbirth-qos",
    "tck-id-message-flow-device-birth-publish-dbirth-retained",
    "tck-id-message-flow-device-birth-publish-dbirth-payload-seq",
    "tck-id-topics-nbirth-topic",
    "tck-id-topics-nbirth-seq-num",
    "tck-id-topics-dbirth-topic",
    "tck-id-payloads-nbirth-edge-node-descriptor",
    "tck-id-payloads-nbirth-seq",
    "tck-id-payloads-dbirth-order",
    "tck-id-payloads-sequence-num-req-nbirth",
)
def test_a_session_begins_with_nbirth_then_dbirths(recording: Recording, ids: tuple[str, ...]) -> None:
    first, second = recording.said(0), recording.said(1)
    assert [(one.verb, one.device) for one in first[:3]] == [("NBIRTH", ""), ("DBIRTH", "boiler"), ("DBIRTH", "pump")]
    assert second[0].verb == "NBIRTH"
    assert first[0].packet.topic == "spBv1.0/plant/NBIRTH/gw"
    assert first[1].packet.topic == "spBv1.0/plant/DBIRTH/gw/boiler"
    assert {one.payload.seq for session in (0, 1) for one in recording.said(session, "NBIRTH")} == {0}


@tck(
    "tck-id-topics-nbirth-mqtt",
    "tck-id-topics-dbirth-mqtt",
    "tck-id-topics-ddata-mqtt",
    "tck-id-topics-ddeath-mqtt",
    "tck-id-payloads-nbirth-qos",
    "tck-id-payloads-nbirth-retain",
    "tck-id-payloads-dbirth-qos",
    "tck-id-payloads-dbirth-retain",
    "tck-id-payloads-ddata-qos",
    "tck-id-payloads-ddata-retain",
)
def test_births_data_and_device_deaths_are_qos_0_and_not_retained(recording: Recording, ids: tuple[str, ...]) -> None:
    said = [one for session in (0, 1) for one in recording.said(session, "NBIRTH", "DBIRTH", "DDATA", "DDEATH")]
    assert {one.verb for one in said} == {"NBIRTH", "DBIRTH", "DDATA", "DDEATH"}
    assert {(one.packet.qos, one.packet.retain) for one in said} == {(0, False)}


@tck(
    "tck-id-payloads-sequence-num-always-included",
    "tck-id-payloads-sequence-num-incrementing",
    "tck-id-payloads-dbirth-seq",
    "tck-id-payloads-dbirth-seq-inc",
    "tck-id-payloads-ddata-seq",
    "tck-id-payloads-ddata-seq-inc",
    "tck-id-payloads-ddata-order",
    "tck-id-payloads-ddeath-seq",
    "tck-id-payloads-ddeath-seq-inc",
    "tck-id-payloads-ddeath-seq-number",
    "tck-id-topics-dbirth-seq",
    "tck-id-topics-ddata-seq-num",
    "tck-id-topics-ddeath-seq-num",
)
def test_seq_rises_by_one_from_message_to_message(recording: Recording, ids: tuple[str, ...]) -> None:
    for session in (0, 1):
        expected = 0
        for one in recording.said(session, "NBIRTH", "DBIRTH", "NDATA", "DDATA", "DDEATH"):
            expected = 0 if one.verb == "NBIRTH" else (expected + 1) % 256
            assert one.payload.seq == expected


@tck(
    "tck-id-topics-nbirth-timestamp",
    "tck-id-topics-dbirth-timestamp",
    "tck-id-topics-ddata-timestamp",
    "tck-id-payloads-timestamp-in-UTC",
    "tck-id-payloads-metric-timestamp-in-UTC",
    "tck-id-payloads-name-birth-data-requirement",
    "tck-id-payloads-nbirth-timestamp",
    "tck-id-payloads-dbirth-timestamp",
    "tck-id-payloads-ddata-timestamp",
    "tck-id-payloads-ddeath-timestamp",
)
def test_every_message_and_metric_carries_its_time_in_utc(recording: Recording, ids: tuple[str, ...]) -> None:
    for session in (0, 1):
        for one in recording.said(session, "NBIRTH", "DBIRTH", "DDATA", "DDEATH"):
            times = [one.payload.timestamp_ms, *(metric.timestamp_ms for metric in one.payload.metrics)]
            assert all(at is not None and recording.began_ms - 1 <= at <= recording.ended_ms for at in times)


@tck(
    "tck-id-topics-nbirth-metric-reqs",
    "tck-id-topics-nbirth-metrics",
    "tck-id-topics-dbirth-metric-reqs",
    "tck-id-topics-dbirth-metrics",
    "tck-id-payloads-metric-datatype-req",
    "tck-id-payloads-metric-datatype-value",
    "tck-id-payloads-metric-datatype-value-type",
    "tck-id-payloads-name-requirement",
    "tck-id-payloads-alias-birth-requirement",
    "tck-id-payloads-alias-uniqueness",
    "tck-id-operational-behavior-data-publish-nbirth-values",
    "tck-id-operational-behavior-data-publish-dbirth-values",
)
def test_births_tell_name_alias_datatype_and_value_or_null(recording: Recording, ids: tuple[str, ...]) -> None:
    aliases: dict[int, tuple[str, str | None]] = {}
    for one in recording.said(0, "NBIRTH", "DBIRTH"):
        for metric in one.payload.metrics:
            assert metric.name
            assert metric.datatype in set(DATATYPE_OF.values())
            assert metric.is_null == (metric.value is None)
            if metric.name in ("bdSeq", REBIRTH):
                continue
            assert metric.alias is not None
            assert aliases.setdefault(metric.alias, (one.device, metric.name)) == (one.device, metric.name)
    birth = recording.said(0, "DBIRTH")[0]
    assert [metric.name for metric in birth.payload.metrics] == [tag.name for tag in BOILER.tags]
    assert birth.metric("steam/pressure").value == 1.5


@tck(
    "tck-id-topics-ddata-topic",
    "tck-id-topics-ddata-payload",
    "tck-id-payloads-alias-data-cmd-requirement",
    "tck-id-payloads-metric-datatype-not-req",
    "tck-id-operational-behavior-data-publish-dbirth",
    "tck-id-operational-behavior-data-publish-dbirth-order",
)
def test_data_carries_aliases_of_the_birth_alone_in_order_of_time(recording: Recording, ids: tuple[str, ...]) -> None:
    known: dict[str, set[int | None]] = {}
    for one in recording.said(0, "DBIRTH", "DDATA"):
        if one.verb == "DBIRTH":
            known[one.device] = {metric.alias for metric in one.payload.metrics}
            continue
        assert one.packet.topic == f"spBv1.0/plant/DDATA/gw/{one.device}"
        assert all(metric.name is None and metric.datatype is None for metric in one.payload.metrics)
        assert {metric.alias for metric in one.payload.metrics} <= known[one.device]
        live = [metric.timestamp_ms for metric in one.payload.metrics if not metric.is_historical]
        assert live == sorted(at or 0 for at in live)


@tck(
    "tck-id-payloads-propertyset-keys-array-size",
    "tck-id-payloads-propertyset-values-array-size",
    "tck-id-payloads-metric-propertyvalue-type-type",
    "tck-id-payloads-metric-propertyvalue-type-value",
    "tck-id-payloads-metric-propertyvalue-type-req",
    "tck-id-payloads-propertyset-quality-value-type",
    "tck-id-payloads-propertyset-quality-value-value",
)
def test_quality_is_an_int32_of_0_192_or_500(recording: Recording, ids: tuple[str, ...]) -> None:
    seen = set()
    for one in recording.said(0, "DBIRTH", "DDATA"):
        raw = Raw()
        raw.ParseFromString(one.packet.payload)
        for metric in raw.metrics:
            assert len(metric.properties.keys) == len(metric.properties.values)
            for name, value in zip(metric.properties.keys, metric.properties.values, strict=True):
                assert value.type in (3, 7, 12)
                if name == "Quality":
                    assert (value.type, value.WhichOneof("value")) == (3, "int_value")
                    seen.add(value.int_value)
    assert seen == {0, 192, 500}


@tck(
    "tck-id-topics-nbirth-rebirth-metric",
    "tck-id-payloads-nbirth-rebirth-req",
    "tck-id-operational-behavior-data-commands-rebirth-name",
    "tck-id-operational-behavior-data-commands-rebirth-name-aliases",
    "tck-id-operational-behavior-data-commands-rebirth-datatype",
    "tck-id-operational-behavior-data-commands-rebirth-value",
)
def test_every_nbirth_offers_rebirth(recording: Recording, ids: tuple[str, ...]) -> None:
    for one in recording.said(0, "NBIRTH"):
        offered = one.metric(REBIRTH)
        assert (offered.datatype, offered.value, offered.alias) == (DATATYPE_OF[Kind.BOOL], False, None)


@tck(
    "tck-id-operational-behavior-data-commands-rebirth-action-1",
    "tck-id-operational-behavior-data-commands-rebirth-action-2",
)
def test_a_rebirth_is_a_whole_birth_sequence_with_no_data_in_it(recording: Recording, ids: tuple[str, ...]) -> None:
    said = recording.said(0)
    second = [at for at, one in enumerate(said) if one.verb == "NBIRTH"][1]
    assert [(one.verb, one.device) for one in said[second : second + 3]] == [("NBIRTH", ""), ("DBIRTH", "boiler"), ("DBIRTH", "pump")]


@tck("tck-id-operational-behavior-device-ddeath", "tck-id-topics-ddeath-topic")
def test_a_lost_device_has_its_ddeath_and_is_born_before_its_next_data(recording: Recording, ids: tuple[str, ...]) -> None:
    pump = [one for one in recording.said(0) if one.device == "pump"]
    death = next(at for at, one in enumerate(pump) if one.verb == "DDEATH")
    assert [one.verb for one in pump[death - 1 : death + 3]] == ["DDATA", "DDEATH", "DBIRTH", "DDATA"]
    assert pump[death].packet.topic == "spBv1.0/plant/DDEATH/gw/pump"


@tck(
    "tck-id-operational-behavior-edge-node-intentional-disconnect-ndeath",
    "tck-id-operational-behavior-edge-node-intentional-disconnect-packet",
    "tck-id-payloads-ndeath-will-message-publisher",
    "tck-id-payloads-ndeath-will-message-publisher-disconnect-mqtt311",
    "tck-id-payloads-ndeath-will-message-publisher-disconnect-mqtt50",
)
def test_an_intended_end_is_an_ndeath_and_then_a_disconnect_with_will(recording: Recording, ids: tuple[str, ...]) -> None:
    for session, connect in zip(recording.sessions, recording.connects(), strict=True):
        sparkplug_packets = [packet for packet in session if isinstance(packet, Publish) and parse(packet.topic) is not None]
        death = sparkplug_packets[-1]
        assert death.topic == "spBv1.0/plant/NDEATH/gw"
        assert decode(death.payload).metrics[0].value == decode(connect.will_payload).metrics[0].value
        after = session[session.index(death) + 1 :]
        assert after == ([Disconnect(4)] if connect.level == 5 else [])


@tck(
    "tck-id-topic-structure",
    "tck-id-topic-structure-namespace-a",
    "tck-id-topic-structure-namespace-valid-group-id",
    "tck-id-topic-structure-namespace-valid-edge-node-id",
    "tck-id-topic-structure-namespace-valid-device-id",
    "tck-id-topic-structure-namespace-unique-device-id",
    "tck-id-topic-structure-namespace-device-id-associated-message-types",
    "tck-id-topic-structure-namespace-device-id-non-associated-message-types",
)
def test_topics_are_of_the_namespace_and_the_ledger_lies_beside_it(recording: Recording, ids: tuple[str, ...]) -> None:
    topics = {packet.topic for session in recording.sessions for packet in session if isinstance(packet, Publish)}
    others = {topic for topic in topics if parse(topic) is None}
    assert others == {"holdfast/plant/gw/ledger"}
    assert all(topic.startswith("spBv1.0/plant/") for topic in topics - others)


@tck(
    "tck-id-topics-ndata-topic",
    "tck-id-topics-ndata-mqtt",
    "tck-id-topics-ndata-seq-num",
    "tck-id-topics-ndata-timestamp",
    "tck-id-topics-ndata-payload",
    "tck-id-payloads-ndata-timestamp",
    "tck-id-payloads-ndata-seq",
    "tck-id-payloads-ndata-seq-inc",
    "tck-id-payloads-ndata-qos",
    "tck-id-payloads-ndata-retain",
    "tck-id-operational-behavior-data-publish-nbirth",
    "tck-id-operational-behavior-data-publish-nbirth-change",
)
async def test_ndata_tells_changes_of_the_nodes_own_metrics(tmp_path: Path, ids: tuple[str, ...]) -> None:
    clock = ManualClock(time_ns=time.time_ns())
    with Mosquitto(tmp_path / "broker") as broker:
        async with plant(tmp_path / "journal") as made, tap(broker.port) as heard, host(broker.port) as seen:
            made.has(BOILER)
            async with kept(sparkplug(made, SparkplugUplink(name="cloud", host="127.0.0.1", port=heard.port), clock=clock)):
                await seen.expect("DBIRTH")
                made.bring(BOILER, {"steam/pressure": 1.0})
                await made.delivered()
                for _ in range(3):  # the figures change once, so they are told once
                    await clock.advance(NODE_EVERY_S)
                await seen.expect("NDATA")
    said = Recording(heard.sessions, 0, 0).said(0)
    (ndata,) = [one for one in said if one.verb == "NDATA"]
    known = {metric.alias for metric in said[0].payload.metrics}
    assert (ndata.packet.topic, ndata.packet.qos, ndata.packet.retain) == ("spBv1.0/plant/NDATA/gw", 0, False)
    assert ndata.payload.seq == 3
    assert ndata.payload.timestamp_ms is not None
    assert {metric.alias for metric in ndata.payload.metrics} <= known


# ---- the primary host


@pytest.fixture
async def made(tmp_path: Path) -> AsyncIterator[Plant]:
    async with plant(tmp_path / "journal") as one:
        one.has(BOILER)
        yield one


@tck(
    "tck-id-message-flow-edge-node-birth-publish-phid-wait",
    "tck-id-message-flow-edge-node-birth-publish-phid-wait-id",
    "tck-id-message-flow-edge-node-birth-publish-phid-wait-online",
    "tck-id-message-flow-edge-node-birth-publish-phid-wait-timestamp",
    "tck-id-message-flow-edge-node-birth-publish-phid-offline",
    "tck-id-operational-behavior-edge-node-birth-sequence-wait",
    "tck-id-operational-behavior-edge-node-termination-host-offline",
    "tck-id-operational-behavior-edge-node-termination-host-offline-reconnect",
    "tck-id-operational-behavior-edge-node-termination-host-offline-timestamp",
    "tck-id-operational-behavior-primary-application-state-with-multiple-servers-state-subs",
)
async def test_the_primary_host_decides_when_there_is_a_session(made: Plant, tmp_path: Path, ids: tuple[str, ...]) -> None:
    """The kit's PrimaryHostTest: wrong host, right host off line, on line, an old word, off line, an old word, on line."""
    with Mosquitto(tmp_path / "broker") as broker:
        async with tap(broker.port) as heard, host(broker.port) as seen:
            options = SparkplugUplink(name="cloud", host="127.0.0.1", port=heard.port, primary_host="scada-1")
            uplink = sparkplug(made, options)
            async with kept(uplink):
                await until(lambda: heard.sessions and Subscribe(HOST, 1) in heard.sessions[0])
                await seen.state("scada-1_WRONG", True, 100)
                await seen.state("scada-1", False, 100)
                assert not _publishes(heard.sessions[0])
                await seen.state("scada-1", True, 100)
                await seen.expect("NBIRTH")
                await seen.state("scada-1", False, 99)
                made.bring(BOILER, {"steam/pressure": 1.0})
                await seen.expect("DDATA")
                await seen.state("scada-1", False, 100)
                await until(lambda: len(heard.sessions) == 2 and Subscribe(HOST, 1) in heard.sessions[1])
                await seen.state("scada-1", True, 99)
                await until(lambda: uplink.status.trouble.startswith("waits"))
                assert not _publishes(heard.sessions[1])
                await seen.state("scada-1", True, 101)
                await seen.expect("NBIRTH", count=2)
    first = heard.sessions[0]
    assert [parsed.verb for topic in _publishes(first) if (parsed := parse(topic)) is not None] == ["NBIRTH", "DBIRTH", "DDATA", "NDEATH"]
    assert isinstance(first[-1], Disconnect)


def _publishes(session: list[Packet]) -> list[str]:
    return [packet.topic for packet in session if isinstance(packet, Publish)]


@tck(
    "tck-id-operational-behavior-primary-application-state-with-multiple-servers-single-server",
    "tck-id-operational-behavior-primary-application-state-with-multiple-servers-walk",
)
async def test_the_node_walks_from_broker_to_broker_and_is_on_one_at_a_time(made: Plant, tmp_path: Path, ids: tuple[str, ...]) -> None:
    with Mosquitto(tmp_path / "one") as one, Mosquitto(tmp_path / "two") as two:
        async with host(one.port) as here, host(two.port, "other") as there, tap(one.port) as heard:
            await here.state("scada-1", True, 1)
            await there.state("scada-1", True, 1)
            fallback = (Broker(host="127.0.0.1", port=two.port),)
            options = SparkplugUplink(name="cloud", host="127.0.0.1", port=heard.port, primary_host="scada-1", fallback=fallback)
            async with kept(sparkplug(made, options)):
                await here.expect("NBIRTH")
                await here.state("scada-1", False, 2)
                await there.expect("NBIRTH")
                assert heard.open == 0
                assert here.all("NDEATH")
                await there.state("scada-1", False, 2)
                await here.state("scada-1", True, 3)
                await here.expect("NBIRTH", count=2)
            assert heard.most_open == 1
