"""The prepared templates write, byte for byte, what a protobuf library writes for the same metrics."""

from __future__ import annotations

import math
import struct
from operator import itemgetter
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from protocols.model import COLUMN_OF, DTYPE_OF, Batch, Column, Device, Kind, Quality, Tag
from protocols.sparkplug.kinds import FIELD_OF, Field, sparkplug_quality
from protocols.sparkplug.metric import to_ms
from protocols.sparkplug.sparkplug_b_pb2 import Payload
from protocols.sparkplug.template import MAX_ALIAS, Template, assemble

MEMBER = {
    Field.INT: "int_value",
    Field.LONG: "long_value",
    Field.FLOAT: "float_value",
    Field.DOUBLE: "double_value",
    Field.BOOLEAN: "boolean_value",
    Field.STRING: "string_value",
    Field.BYTES: "bytes_value",
}
KINDS_OF = {column: [kind for kind in Kind if COLUMN_OF[kind] is column] for column in Column}
NOW = 1_763_697_600_123_456_789
GOOD_SUBCODE = 0x00960000


def values_of(kind: Kind) -> st.SearchStrategy[Any]:  # Any: each kind has its own type
    """Everything that ``kind`` can hold, extremes first."""
    if kind is Kind.BOOL:
        return st.booleans()
    if kind is Kind.STRING:
        return st.text(max_size=40)
    if kind is Kind.BYTES:
        return st.binary(max_size=40)
    if kind in (Kind.FLOAT32, Kind.FLOAT64):
        special = st.sampled_from([math.nan, math.inf, -math.inf, 0.0, -0.0, 5e-324, 3.4028234663852886e38, 1e39, -1e308])
        return special | st.floats(width=64)
    bits = int(kind.removeprefix("u").removeprefix("int"))
    low, high = (0, 2**bits - 1) if kind.startswith("u") else (-(2 ** (bits - 1)), 2 ** (bits - 1) - 1)
    return st.sampled_from([low, high, 0, 1, low + 1]) | st.integers(low, high)


TIMES = st.sampled_from([NOW, 0, -1, 2**35 * 1_000_000, 2**35 * 1_000_000 - 1, 2**42 * 1_000_000, 2**42 * 1_000_000 - 1]) | st.integers(
    NOW, NOW + 10**15
)
STATUSES = st.sampled_from([Quality.GOOD] * 4 + [Quality.BAD_TIMEOUT, Quality.UNCERTAIN, Quality.BAD, GOOD_SUBCODE, 0xFFFFFFFF])


@st.composite
def _scan_times(draw: st.DrawFn, count: int) -> list[int]:
    """Those of a scan of a few requests: runs of equal times within a second, in any order."""
    times = draw(st.lists(st.integers(NOW, NOW + 10**9), min_size=1, max_size=3))
    each = draw(st.integers(1, count))
    return [times[min(at // each, len(times) - 1)] for at in range(count)]


@st.composite
def batches(draw: st.DrawFn) -> tuple[Template, list[int], Batch]:
    """A device with mixed tags and any aliases, and a batch of one of its columns."""
    column = draw(st.sampled_from(list(Column)))
    kinds = draw(st.lists(st.sampled_from(KINDS_OF[column]), min_size=1, max_size=6))
    others = draw(st.lists(st.sampled_from(list(Kind)), max_size=3))
    device = Device("line", "boiler", tuple(Tag(name=f"t{at}", kind=kind) for at, kind in enumerate(kinds + others)))
    aliases = draw(st.lists(st.integers(1, 300) | st.integers(1, MAX_ALIAS), min_size=len(device.tags), max_size=len(device.tags)))
    slots = draw(st.just(list(range(len(kinds)))) | st.lists(st.integers(0, len(kinds) - 1), min_size=1, max_size=12))
    count = len(slots)
    value = np.zeros(count, dtype=DTYPE_OF[column])
    value[:] = [draw(values_of(kinds[slot])) for slot in slots]
    quality = draw(st.just([0] * count) | st.lists(STATUSES, min_size=count, max_size=count))
    time_ns = draw(TIMES.map(lambda one: [one] * count) | _scan_times(count) | st.lists(TIMES, min_size=count, max_size=count))
    batch = Batch(device, np.array(slots, np.uint32), value, np.array(quality, dtype=np.uint32), np.array(time_ns, dtype=np.int64))
    return Template(device, aliases), aliases, batch


def reference(aliases: list[int], batch: Batch, *, historical: bool) -> Payload:
    """The same metrics, made with the protobuf library."""
    payload = Payload()
    rows = list(zip(batch.tag.tolist(), batch.value.tolist(), batch.quality.tolist(), batch.time_ns.tolist(), strict=True))
    if not historical:
        rows.sort(key=itemgetter(3))
    for slot, value, status, time_ns in rows:
        metric = payload.metrics.add()
        metric.alias = aliases[slot]
        metric.timestamp = to_ms(time_ns)
        if historical:
            metric.is_historical = True
        if status:
            for name, datatype, field, number in (
                ("Quality", 3, "int_value", sparkplug_quality(status)),
                ("StatusCode", 7, "long_value", status),
            ):
                metric.properties.keys.append(name)
                told = metric.properties.values.add()
                told.type = datatype
                setattr(told, field, number)
        if status & 0x80000000:
            metric.is_null = True
        else:
            _set(metric, batch.device.tags[slot].kind, value)
    return payload


def _set(metric: Payload.Metric, kind: Kind, value: Any) -> None:  # Any: as above
    field = FIELD_OF[kind]
    if field is Field.INT:
        value &= 0xFFFFFFFF
    elif field is Field.LONG:
        value &= 0xFFFFFFFFFFFFFFFF
    elif field is Field.FLOAT:
        value = float(np.float64(value).astype(np.float32)) if abs(value) < 1e38 else _as_float32(value)
    setattr(metric, MEMBER[field], value)


def _as_float32(value: float) -> float:
    try:
        return float(struct.unpack("<f", struct.pack("<f", value))[0])
    except OverflowError:
        return math.copysign(math.inf, value)


@settings(max_examples=400, deadline=None)
@given(made=batches(), historical=st.booleans())
def test_a_batch_becomes_the_bytes_that_protobuf_writes(made: tuple[Template, list[int], Batch], historical: bool) -> None:
    template, aliases, batch = made
    assert template.encode(batch, historical=historical) == reference(aliases, batch, historical=historical).SerializeToString()


@given(seq=st.integers(0, 255), body=st.binary(max_size=300))
def test_a_payload_carries_time_seq_and_body(seq: int, body: bytes) -> None:
    payload = Payload()
    payload.ParseFromString(assemble([], seq=seq, time_ns=NOW, body=body))
    assert (payload.timestamp, payload.seq, payload.body) == (NOW // 1_000_000, seq, body)
    assert payload.HasField("body") is bool(body)


def test_several_batches_of_one_device_stand_in_their_order() -> None:
    device = Device("line", "boiler", (Tag(name="a", kind=Kind.FLOAT64), Tag(name="b", kind=Kind.INT16)))
    template = Template(device, [128, 129])
    floats = _batch(device, [0], np.array([1.5]), NOW)
    later = _batch(device, [0], np.array([2.5]), NOW + 10**9)
    whole = _batch(device, [1], np.array([-12]), NOW)
    payload = Payload()
    payload.ParseFromString(assemble([template.encode(one, historical=False) for one in (floats, whole, later)], seq=3, time_ns=NOW))
    assert [(one.alias, one.timestamp - NOW // 1_000_000) for one in payload.metrics] == [(128, 0), (129, 0), (128, 1000)]
    assert payload.metrics[1].int_value == 2**32 - 12


def test_nan_keeps_being_nan_in_both_widths() -> None:
    device = Device("line", "boiler", (Tag(name="a", kind=Kind.FLOAT64), Tag(name="b", kind=Kind.FLOAT32)))
    payload = Payload()
    payload.ParseFromString(Template(device, [1, 2]).encode(_batch(device, [0, 1], np.array([math.nan, math.nan]), NOW), historical=False))
    assert math.isnan(payload.metrics[0].double_value)
    assert math.isnan(payload.metrics[1].float_value)


def test_columns_that_are_read_only_or_strided_are_encoded_alike() -> None:
    device = Device("line", "boiler", tuple(Tag(name=str(at), kind=Kind.INT32) for at in range(4)))
    template = Template(device, [1, 2, 3, 4])
    plain = _batch(device, [0, 1, 2, 3], np.array([1, -2, 3, -4]), NOW)
    strided = _batch(device, [0, 1, 2, 3], np.array([1, 0, -2, 0, 3, 0, -4, 0])[::2], NOW)
    for column in (strided.tag, strided.value, strided.quality, strided.time_ns):
        column.setflags(write=False)
    assert template.encode(strided, historical=True) == template.encode(plain, historical=True)


@pytest.mark.parametrize("aliases", [[0], [MAX_ALIAS + 1], [], [1, 2]])
def test_aliases_that_do_not_fit_are_refused(aliases: list[int]) -> None:
    with pytest.raises(ValueError, match="one alias"):
        Template(Device("line", "boiler", (Tag(name="a", kind=Kind.BOOL),)), aliases)


def _batch(device: Device, slots: list[int], value: Any, time_ns: int) -> Batch:  # Any: see Batch.value
    count = len(slots)
    return Batch(device, np.array(slots, np.uint32), value, np.zeros(count, np.uint32), np.full(count, time_ns, np.int64))
