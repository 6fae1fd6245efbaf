"""Decoding: births give names, data before its birth waits, and rubbish is refused."""

from __future__ import annotations

import random

import numpy as np
import pytest

from gateway.consume.decode import Arrived, Delivery, Finding, RebirthNeeded, SparkplugDecoder, decode_plain
from gateway.journal.record import Lane
from gateway.uplink.mark import Stamp, encode_stamp
from protocols.model import Batch, Device, Kind, Quality, Tag
from protocols.sparkplug.session import EdgeNode, Publish
from protocols.sparkplug.topics import parse

NOW_NS = 1_700_000_000_000_000_000
DEVICE = Device("line", "boiler", (Tag(name="total", kind=Kind.INT64), Tag(name="count", kind=Kind.INT64)))
STAMP = Stamp(7, Lane.TELEMETRY, 1, (5,))


def batch(*values: int, quality: int = 0) -> Batch:
    rows = len(values)
    return Batch(
        DEVICE,
        np.arange(rows, dtype=np.uint32),
        np.array(values, dtype=np.int64),
        np.full(rows, quality, dtype=np.uint32),
        np.full(rows, NOW_NS, dtype=np.int64),
    )


class Node:
    """An edge node that says what a gateway says."""

    def __init__(self) -> None:
        self.node = EdgeNode("g", "gw")
        self.node.connect(1)
        self.nbirth = self.node.nbirth([], NOW_NS)
        self.dbirth = self.node.dbirth([DEVICE], [], NOW_NS)

    def ddata(self, one: Batch, *, historical: bool = False, stamp: Stamp | None = STAMP) -> Publish:
        template = self.node.fit(DEVICE)
        assert template is not None
        body = encode_stamp(stamp) if stamp else b""
        return self.node.ddata("boiler", [template.encode(one, historical=historical)], NOW_NS, body)


def take(decoder: SparkplugDecoder, message: Publish) -> list[Finding]:
    topic = parse(message.topic)
    assert topic is not None
    return decoder.message(topic, message.payload)


def test_data_after_its_birth_has_names_and_values() -> None:
    node, decoder = Node(), SparkplugDecoder()
    assert take(decoder, node.nbirth) == take(decoder, node.dbirth) == []
    arrived, delivery = take(decoder, node.ddata(batch(-(2**63), 2**63 - 1), historical=True))
    assert arrived == Arrived(STAMP, 2)
    assert isinstance(delivery, Delivery)
    assert (delivery.device, delivery.stamp, delivery.historical) == ("boiler", STAMP, True)
    assert [(reading.tag, reading.value, reading.quality, reading.time_ms) for reading in delivery.readings] == [
        ("total", -(2**63), 0, NOW_NS // 1_000_000),
        ("count", 2**63 - 1, 0, NOW_NS // 1_000_000),
    ]


def test_a_bad_quality_is_told_and_its_value_is_null() -> None:
    node, decoder = Node(), SparkplugDecoder()
    take(decoder, node.dbirth)
    _, delivery = take(decoder, node.ddata(batch(0, 0, quality=Quality.BAD_TIMEOUT)))
    assert isinstance(delivery, Delivery)
    assert [(reading.value, reading.quality) for reading in delivery.readings] == [(None, int(Quality.BAD_TIMEOUT))] * 2


def test_data_before_its_birth_waits_for_it_and_a_rebirth_is_asked_for() -> None:
    node, decoder = Node(), SparkplugDecoder()
    assert take(decoder, node.ddata(batch(1, 2))) == [Arrived(STAMP, 2), RebirthNeeded("boiler")]
    (delivery,) = take(decoder, node.dbirth)
    assert isinstance(delivery, Delivery)
    assert [reading.value for reading in delivery.readings] == [1, 2]


def test_a_new_birth_of_the_node_makes_the_old_ones_void() -> None:
    node, decoder = Node(), SparkplugDecoder()
    for message in (node.nbirth, node.dbirth, node.nbirth):
        take(decoder, message)
    assert RebirthNeeded("boiler") in take(decoder, node.ddata(batch(1, 2)))


def test_what_waits_for_a_birth_is_limited(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gateway.consume.decode.MAX_KEPT_BYTES", 1000)
    node, decoder = Node(), SparkplugDecoder()
    for _ in range(100):
        take(decoder, node.ddata(batch(1, 2)))
    assert decoder.unread >= 80
    assert len(take(decoder, node.dbirth)) == 100 - decoder.unread


def test_data_without_a_stamp_proves_nothing_and_is_passed_over() -> None:
    node, decoder = Node(), SparkplugDecoder()
    take(decoder, node.dbirth)
    assert take(decoder, node.ddata(batch(1, 2), stamp=None)) == []


def test_mutated_messages_are_refused_or_read_and_nothing_else() -> None:
    chance = random.Random(11)
    node = Node()
    messages = [node.dbirth, node.ddata(batch(1, 2)), node.ddata(batch(3, 4))]
    for _ in range(2000):
        decoder = SparkplugDecoder()
        for message in messages:
            payload = bytearray(message.payload)
            for _ in range(chance.randint(0, 3)):
                payload[chance.randrange(len(payload))] = chance.randrange(256)
            cut = bytes(payload[: chance.randint(0, len(payload))]) if chance.random() < 0.3 else bytes(payload)
            try:
                take(decoder, Publish(message.topic, cut))
            except ValueError:
                continue


RUBBISH = [
    b"",
    b"{}",
    b"[]",
    b"null",
    b"\xff\xfe",
    b"[" * 100_000,
    b'{"v":1,"lane":"telemetry","epoch":1,"seq":1,"device":"d","tags":["a"],"values":[1,2],"time_us":0}',
    b'{"v":1,"lane":"telemetry","epoch":1,"seq":1,"device":"d","tags":[1],"values":[1],"time_us":0}',
    b'{"v":1,"lane":"telemetry","epoch":1,"seq":1,"device":"d","tags":["a"],"time_us":0}',
    b'{"v":2,"lane":"telemetry","epoch":1,"seq":1,"device":"d","tags":["a"],"values":[1],"time_us":0}',
    b'{"v":1,"lane":"telemetry","epoch":-1,"seq":1,"device":"d","tags":["a"],"values":[1],"time_us":0}',
    b'{"v":1,"lane":"telemetry","epoch":1,"seq":1,"device":"d","tags":["a"],"values":[1],"part":3,"parts":3}',
    b'{"v":1,"lane":"telemetry","epoch":1,"seq":1,"device":"d","tags":["a"],"values":[1],"parts":1000000000}',
    b'{"v":1,"lane":"kitchen","epoch":1,"seq":1,"device":"d","tags":["a"],"values":[1]}',
]


@pytest.mark.parametrize("rubbish", RUBBISH)
def test_a_plain_message_that_makes_no_sense_is_refused(rubbish: bytes) -> None:
    with pytest.raises(ValueError):  # noqa: PT011 # each says something else
        decode_plain(rubbish)
