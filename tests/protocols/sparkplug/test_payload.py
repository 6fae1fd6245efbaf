"""The decoder believes no length, nests nothing, and gives back what was written."""

from __future__ import annotations

import contextlib
import random

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from protocols.model import COLUMN_OF, DTYPE_OF, Batch, Device, Kind, Quality, Tag
from protocols.sparkplug import metric, wire
from protocols.sparkplug.kinds import DATATYPE_OF
from protocols.sparkplug.metric import Value
from protocols.sparkplug.payload import COMMAND_LIMITS, Limits, Malformed, Payload, count_metrics, decode, value_of
from protocols.sparkplug.template import Template, assemble

NOW = 1_763_697_600_123_456_789
EXAMPLES: dict[Kind, Value] = {
    Kind.BOOL: True,
    Kind.INT8: -128,
    Kind.INT16: -12,
    Kind.INT32: -(2**31),
    Kind.INT64: -(2**63),
    Kind.UINT8: 255,
    Kind.UINT16: 65535,
    Kind.UINT32: 2**32 - 1,
    Kind.UINT64: 2**64 - 1,
    Kind.FLOAT32: 1.5,
    Kind.FLOAT64: 0.1,
    Kind.STRING: "Kessel Süd",
    Kind.BYTES: b"\x00\xff",
}


def example() -> bytes:
    """One payload with every kind, a bad one, a birth's metrics and a body."""
    device = Device("line", "boiler", tuple(Tag(name=kind, kind=kind) for kind in Kind))
    template = Template(device, range(1, len(device.tags) + 1))
    metrics = []
    for slot, (kind, value) in enumerate(EXAMPLES.items()):
        column = np.zeros(1, dtype=DTYPE_OF[COLUMN_OF[kind]])
        column[0] = value
        for status in (0, int(Quality.BAD_TIMEOUT)):
            batch = Batch(device, np.array([slot], np.uint32), column, np.array([status], np.uint32), np.array([NOW]))
            metrics.append(template.encode(batch, historical=True))
        metrics.append(metric.birth_metric(kind, slot + 1, kind, "bar", value, 0, NOW))
    return assemble(metrics, seq=17, time_ns=NOW, body=b"stamp")


def test_every_kind_comes_back_as_it_was() -> None:
    payload = decode(example())
    assert (payload.seq, payload.timestamp_ms, payload.body) == (17, NOW // 1_000_000, b"stamp")
    for at, (kind, value) in enumerate(EXAMPLES.items()):
        good, bad, birth = payload.metrics[3 * at : 3 * at + 3]
        assert (good.alias, good.name, good.is_historical) == (at + 1, None, True)
        assert value_of(good.value, DATATYPE_OF[kind]) == value_of(birth.value, birth.datatype or 0) == value
        assert (bad.is_null, bad.value, bad.other) == (True, None, False)
        assert bad.properties == {"Quality": 0, "StatusCode": int(Quality.BAD_TIMEOUT)}
        assert birth.properties == {"engUnit": "bar", "Quality": 192}


def test_an_integer_may_stand_in_either_field() -> None:
    """Encoders differ on where UInt32 and small signed integers stand; both mean the same here."""
    assert value_of(2**32 - 12, DATATYPE_OF[Kind.INT8]) == -12
    assert value_of(2**64 - 12, DATATYPE_OF[Kind.INT16]) == -12
    assert value_of(244, DATATYPE_OF[Kind.INT8]) == -12
    assert value_of(2**32 - 1, DATATYPE_OF[Kind.UINT32]) == 2**32 - 1


def test_what_is_not_read_is_skipped() -> None:
    """A template, a dataset or a field of a later version of Sparkplug does no harm, however deep it nests."""
    nested = b""
    for _ in range(5000):
        nested = wire.block(18, wire.block(2, nested))[:60_000]
    strange = metric.metric(wire.number(2, 5), wire.block(18, nested), wire.block(200, b"new"))
    (one,) = decode(assemble([strange], seq=1, time_ns=NOW)).metrics
    assert (one.alias, one.value, one.other) == (5, None, True)


@pytest.mark.parametrize(
    ("data", "limits"),
    [
        (bytes(65 * 1024), COMMAND_LIMITS),
        (b"\x12\x00" * 300, COMMAND_LIMITS),
        (b"\x12\x00" * 30_000, Limits()),
        (assemble([metric.node_metric("x" * 2000, Kind.BOOL, True, NOW)], seq=0, time_ns=NOW), COMMAND_LIMITS),
        (assemble([metric.node_metric("x", Kind.STRING, "y" * 20_000, NOW)], seq=0, time_ns=NOW), COMMAND_LIMITS),
        (assemble([metric.metric(wire.block(9, wire.block(1, b"key")))], seq=0, time_ns=NOW), Limits()),
        (assemble([metric.metric(wire.block(9, (wire.block(1, b"k") + wire.block(2, b"")) * 17))], seq=0, time_ns=NOW), COMMAND_LIMITS),
        (assemble([metric.metric(wire.block(1, b"\xff\xfe"))], seq=0, time_ns=NOW), Limits()),
        (b"\x12\xff\xff\xff\xff\x7f", Limits()),
        (b"\x12", Limits()),
        (b"\x0b\x00", Limits()),
        (b"\x80" * 11, Limits()),
    ],
)
def test_what_exceeds_a_limit_or_is_no_payload_is_malformed(data: bytes, limits: Limits) -> None:
    with pytest.raises(Malformed):
        decode(data, limits)


@given(st.binary(max_size=400))
def test_rubbish_is_read_or_malformed(data: bytes) -> None:
    with contextlib.suppress(Malformed):
        assert isinstance(decode(data), Payload)


def test_a_payload_cut_anywhere_is_read_or_malformed() -> None:
    whole = example()
    for end in range(len(whole)):
        with contextlib.suppress(Malformed):
            decode(whole[:end])


@settings(deadline=None, max_examples=20)
@given(seed=st.integers(0, 2**32))
def test_a_mutated_payload_is_read_or_malformed(seed: int) -> None:
    """No mutation crashes or hangs the decoder: 20 times 500 frames, each with a few bytes changed."""
    chance = random.Random(seed)
    whole = example()
    for _ in range(500):
        data = bytearray(whole)
        for _ in range(chance.randint(1, 6)):
            data[chance.randrange(len(data))] = chance.randrange(256)
        with contextlib.suppress(Malformed):
            decode(bytes(data))


def test_counting_stops_early() -> None:
    assert count_metrics(b"\x12\x00" * 1000, 10) == 11
