"""What comes over MQTT: payloads, commands, hosts' STATE, ledger marks and their acknowledgements, and a consumer's whole way."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import json
from pathlib import Path
from typing import Any, Final

from gateway.config.model import Broker, MqttUplink, SparkplugUplink
from gateway.consume.account import Account
from gateway.consume.decode import Arrived, Delivery, SparkplugDecoder, decode_plain
from gateway.links import State
from gateway.uplink.mark import decode_ack, decode_mark, decode_stamp, encode, encode_stamp
from protocols.mqtt.client import connect
from protocols.sparkplug.host import PrimaryHost
from protocols.sparkplug.payload import COMMAND_LIMITS, Limits, Malformed, decode, value_of
from protocols.sparkplug.topics import Topic, Verb, parse
from tests.fuzz import corpus
from tests.fuzz.campaign import FRAMES, MOST_GROWTH, frames, measured, peak_bytes, run, seed
from tests.fuzz.mutate import JsonMutator, Mutator, ProtobufMutator, join
from tests.fuzz.still import Complaints
from tests.gateway.uplink.plant import BOILER, kept, plant, sparkplug, until
from tests.peers.mosquitto import Mosquitto


def _payloads() -> list[bytes]:
    return corpus.frames("own-sparkplug", "npm-sparkplug", "own-commands")


# ----------------------------------------------------------------------------------------------------------- decoders


def test_a_payload_is_decoded_or_malformed() -> None:
    """And what is decoded keeps every limit, and its values are values under any datatype."""
    number, limits = seed(), Limits(metrics=50, text=500, name=60, properties=8)
    mutator = ProtobufMutator(number, _payloads(), longest=20_000)

    def judge(content: bytes) -> None:
        try:
            payload = decode(content, limits)
        except Malformed:
            return
        assert len(payload.metrics) <= limits.metrics
        for metric in payload.metrics:
            assert metric.name is None or len(metric.name) <= limits.name
            assert len(metric.properties) <= limits.properties
            for value in (metric.value, *metric.properties.values()):
                assert value is None or isinstance(value, bool | int | float | str | bytes)
                assert not isinstance(value, str | bytes) or len(value) <= limits.text
            value_of(metric.value, metric.datatype or 0)

    run("sparkplug-payload", mutator.make, judge, seed=number)


def test_a_command_is_decoded_or_malformed() -> None:
    number = seed()
    mutator = ProtobufMutator(number, corpus.frames("own-commands"), longest=100_000)

    def judge(content: bytes) -> None:
        try:
            assert len(decode(content, COMMAND_LIMITS).metrics) <= COMMAND_LIMITS.metrics
        except Malformed:
            return

    run("sparkplug-command", mutator.make, judge, seed=number)


def test_a_payload_that_is_small_on_the_wire_is_small_in_memory() -> None:
    """Payloads as large as may be, made of what is shortest: empty metrics, empty names and values of properties, tiny numbers."""
    number, whole = seed(), Limits().payload - 64
    shapes = (b"\x12\0", b"\x12\x02\x08\0", b"\x4a\0", b"\x0a\0", b"\x92\0\0", b"\x8a\0\0", b"\x12\x02\x1a\0", b"\x08\x12", b"\x9a\x01\0")
    wraps: tuple[tuple[int, ...], ...] = ((), (2,), (9, 2), (15, 2))
    with measured("sparkplug-payload-memory", number, len(shapes) * len(wraps) * 2) as watch:
        for shape, wrap, size in itertools.product(shapes, wraps, (whole, 1000)):
            content = shape * (size // len(shape))
            for field in wrap:
                content = join([(field, 2, content)])
            content *= whole // len(content)
            watch.begin()
            with watch.bounded(), contextlib.suppress(Malformed):
                decode(content)
            assert peak_bytes() - watch.base <= MOST_GROWTH, f"{shape.hex()} in {wrap}, {size} bytes each"


def test_state_is_a_word_or_ignored() -> None:
    """Nobody's rubbish on the STATE topic is more than ignored, and an older statement changes nothing."""
    number = seed()
    good = [
        b'{"online":true,"timestamp":1700000000000}',
        b'{"online" : false, "timestamp" : 17}',
        b'{"timestamp":5,"online":true,"bdSeq":[1]}',
    ]
    mutator, host = JsonMutator(number, good), PrimaryHost("scada")
    host.connected("broker")

    def judge(content: bytes) -> None:
        host.take(host.topic, content)
        host.take(content.decode(errors="replace"), b'{"online":true}')

    run("sparkplug-state", mutator.make, judge, seed=number)


def test_a_topic_is_understood_or_none() -> None:
    number = seed()
    topics = [b"spBv1.0/plant/NCMD/gw", b"spBv1.0/plant/DCMD/gw/boiler", b"spBv1.0/STATE/host", b"spBv1.0/plant/DDATA/gw/\xc3\xa4"]
    mutator = Mutator(number, topics)

    def judge(content: bytes) -> None:
        topic = parse(content.decode(errors="replace"))
        assert topic is None or (topic.group and topic.node and bool(topic.device) == topic.verb.of_device)

    run("sparkplug-topic", mutator.make, judge, seed=number)


def test_a_mark_and_its_acknowledgement_are_decoded_or_refused() -> None:
    """What is decoded adds up, and can be written again."""
    number = seed()
    mutator = JsonMutator(number, [frame for frame in corpus.frames("own-marks") if frame[:1] == b"{"])

    def judge(content: bytes) -> None:
        try:
            mark = decode_mark(content)
            lost = sum(span.last - span.first + 1 for span in mark.lost)
            assert mark.records + lost == mark.last - mark.first + 1
            assert decode_mark(encode(mark)) == mark
        except ValueError:
            pass
        try:
            ack = decode_ack(content)
            assert decode_ack(encode(ack)) == ack
        except ValueError:
            pass

    run("ledger-mark", mutator.make, judge, seed=number)


def test_a_stamp_is_decoded_or_refused() -> None:
    """And what is decoded is written again as it was, but for numbers in more bytes than they need."""
    number = seed()
    mutator = Mutator(number, [frame for frame in corpus.frames("own-marks") if frame[:2] == b"HF"], longest=50_000)

    def judge(content: bytes) -> None:
        try:
            stamp = decode_stamp(content)
        except ValueError:
            return
        assert decode_stamp(encode_stamp(stamp)) == stamp
        assert max(stamp.window, stamp.epoch, *stamp.seqs) < 2**63

    run("ledger-stamp", mutator.make, judge, seed=number)


# ----------------------------------------------------------------------------------------------------------- consumer

_HEAD: Final = {"v": 1, "lane": "telemetry", "epoch": 2, "seq": 9, "device": "pump"}
PLAIN: Final[list[dict[str, Any]]] = [  # Any: JSON
    _HEAD | {"tags": ["a", "b"], "values": [1.5, None], "quality": [0, 2147483648], "time_us": [1, 2]},
    _HEAD | {"lane": "events", "tags": ["a"], "values": ["x"], "time_us": 5, "part": 0, "parts": 2},
    _HEAD | {"tags": [{"name": "a", "value": 1, "quality": 0, "time_us": 3}], "historical": True},
    _HEAD | {"seq": 12, "tags": [], "values": [], "lost": [{"first": 10, "last": 11, "reason": "full"}]},
]


def test_a_consumer_takes_anything_that_a_broker_brings() -> None:
    """Births, data, marks and plain messages in any order: decoded, accounted for, or refused with ValueError; the sums hold."""
    number = seed()
    session = corpus.load("own-sparkplug")
    verbs = {payload: name.split("/")[:2] for name, payload in session.items()}
    marks = [frame for frame in corpus.frames("own-marks") if frame[:1] == b"{"]
    payloads = ProtobufMutator(number, list(session.values()), longest=20_000)
    texts = JsonMutator(number + 1, [*(json.dumps(one).encode() for one in PLAIN), *marks])
    dice = payloads.dice
    decoder, account = SparkplugDecoder(), Account()
    topic = Topic("plant", Verb.NDATA, "gw")
    turn = itertools.count()

    def make() -> bytes:
        nonlocal topic, decoder, account
        if next(turn) % 5000 == 0:
            decoder, account = SparkplugDecoder(), Account(from_beginning=True)
        if dice.random() < 0.4:
            topic = Topic("", Verb.NCMD, "")
            return texts.make() if dice.random() < 0.9 else texts.pick()
        chosen = payloads.pick()
        verb = Verb(verbs[chosen][0])
        topic = Topic("plant", verb, "gw", verbs[chosen][1] if verb.of_device else "")
        return payloads.make(chosen) if dice.random() < 0.8 else chosen

    def judge(content: bytes) -> None:
        with contextlib.suppress(ValueError):
            _consume(topic, content, decoder, account)
        verdict = account.verdict() if dice.random() < 0.01 else None
        assert verdict is None or (verdict.missing >= 0 and verdict.received >= 0 and verdict.duplicate >= 0)

    run("consumer", make, judge, seed=number)


def _consume(topic: Topic, content: bytes, decoder: SparkplugDecoder, account: Account) -> None:
    """As the consumer does."""
    if topic.group:
        findings = decoder.message(topic, content)
    elif b'"digest"' in content:
        account.mark(decode_mark(content))
        return
    else:
        findings = [decode_plain(content)]
    for finding in findings:
        if isinstance(finding, Arrived):
            account.arrived(finding.stamp, content, finding.values)
        elif isinstance(finding, Delivery):
            account.lose(finding.stamp.lane, finding.stamp.epoch, finding.lost)
            account.deliver(finding.device, finding.stamp, len(finding.readings), historical=finding.historical)


def test_a_plain_message_is_decoded_or_refused() -> None:
    number = seed()
    mutator = JsonMutator(number, [json.dumps(one).encode() for one in PLAIN])

    def judge(content: bytes) -> None:
        try:
            delivery = decode_plain(content)
        except ValueError:
            return
        assert delivery.stamp.parts > delivery.stamp.part >= 0
        assert all(span.first <= span.last for span in delivery.lost)

    run("plain-message", mutator.make, judge, seed=number)


# ------------------------------------------------------------------------------------------------------- whole uplink


async def test_an_uplink_outlives_every_command_state_and_acknowledgement(tmp_path: Path) -> None:
    """Through a real broker: one connection from the first to the last of them, with data delivered at its end."""
    number = seed()
    count = frames(4_000, 100_000)
    commands = ProtobufMutator(number, corpus.frames("own-commands"), longest=70_000)
    texts = JsonMutator(
        number + 1, [b'{"online":true,"timestamp":1}', *(frame for frame in corpus.frames("own-marks") if frame[:1] == b"{")]
    )
    topics = ["spBv1.0/plant/NCMD/gw", "spBv1.0/plant/DCMD/gw/boiler", "spBv1.0/plant/DCMD/gw/no/such", "spBv1.0/plant/DCMD/gw"]
    words = ["holdfast/plant/gw/ledger/ack", "spBv1.0/STATE/scada"]
    complaints = Complaints(asyncio.get_running_loop())
    with Mosquitto(tmp_path / "broker") as broker, measured("uplink-commands", number, count) as watch:
        options = MqttUplink(name="hostile", host="127.0.0.1", port=broker.port)
        async with (
            plant(tmp_path / "journal") as made,
            connect(options, Broker(host="127.0.0.1", port=broker.port), client_id="hostile") as mqtt,
        ):
            made.has(BOILER)
            await (await mqtt.publish1("spBv1.0/STATE/scada", b'{"online":true,"timestamp":1}', retain=True))
            uplink = sparkplug(made, SparkplugUplink(name="cloud", host="127.0.0.1", port=broker.port, primary_host="scada"))
            async with kept(uplink):
                await until(lambda: uplink.status.state is State.UP)
                watch.begin()
                for at in range(count):
                    is_word = commands.dice.random() < 0.4
                    topic = commands.dice.choice(words if is_word else topics)
                    content = texts.make() if is_word else commands.make()
                    if (
                        topic.startswith("spBv1.0/STATE")
                        and b"online" in content
                        and PrimaryHost("scada").take(topic, content).value != "ignored"
                    ):
                        continue  # a good word would be heeded, as it should
                    answered = await mqtt.publish1(topic, content, retain=False)
                    assert uplink.status.sessions == 1, f"after message {at} on {topic}: {content[:4096].hex()}: {uplink.status.trouble}"
                    if at % 100 == 0:
                        await answered
                made.bring(BOILER, {"steam/pressure": 1.5})
                await made.delivered()
                assert (uplink.status.sessions, uplink.status.state) == (1, State.UP)
                assert sum(uplink.status.counters.errors.values()) > count / 10, "most are refused, and counted"
    complaints.none()


def test_the_count_is_what_was_promised() -> None:
    assert FRAMES >= 100_000
