"""How records look in JSON: each shape, each kind, each value that JSON cannot say."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import gateway.uplink
from gateway.config.model import Gateway
from gateway.consume.decode import decode_plain
from gateway.journal.record import Lane, Record
from gateway.uplink.mark import LostSpan, decode_mark, encode
from gateway.uplink.shapes import TooLarge, Writer, topic_of
from protocols.model import COLUMN_OF, DTYPE_OF, Batch, Device, Kind, Quality, Tag

GATEWAY = Gateway(group="plant-7", name="gw-01")
NOON_NS = 1_700_000_000_123_456_789


def record(
    kind: Kind, values: list[Any], *, quality: list[int] | None = None, times: list[int] | None = None, lost: bool = False
) -> Record:
    rows = len(values)
    column = np.empty(rows, dtype=DTYPE_OF[COLUMN_OF[kind]])
    column[:] = values
    device = Device("line", "boiler-1", tuple(Tag(name=f"t{i}", kind=kind, unit="bar") for i in range(rows)))
    tags = np.arange(rows, dtype=np.uint32)
    batch = Batch(
        device, tags, column, np.array(quality or [0] * rows, dtype=np.uint32), np.array(times or [NOON_NS] * rows, dtype=np.int64), lost
    )
    return Record(3, 17, Lane.TELEMETRY, NOON_NS, batch)


def written(shape: str, one: Record, **more: Any) -> Any:  # Any: JSON
    (payload,) = Writer(shape, GATEWAY).payloads(one, **{"historical": False, **more})
    return json.loads(payload)


def test_columns() -> None:
    assert written("columns", record(Kind.FLOAT64, [6.125, 7.5])) == {
        "v": 1,
        "lane": "telemetry",
        "epoch": 3,
        "seq": 17,
        "group": "plant-7",
        "gateway": "gw-01",
        "connection": "line",
        "device": "boiler-1",
        "tags": ["t0", "t1"],
        "values": [6.125, 7.5],
        "time_us": 1_700_000_000_123_456,
    }


def test_columns_say_what_is_not_as_usual() -> None:
    one = record(Kind.FLOAT64, [1.0, 2.0], quality=[0, Quality.BAD_TIMEOUT], times=[NOON_NS, NOON_NS + 5000], lost=True)
    told = written("columns", one, historical=True, lost=(LostSpan(9, 12, "full"),))
    assert told["values"] == [1.0, None]
    assert told["quality"] == [0, int(Quality.BAD_TIMEOUT)]
    assert told["time_us"] == [NOON_NS // 1000, NOON_NS // 1000 + 5]
    assert told["historical"] is True
    assert told["device_lost"] is True
    assert told["lost"] == [{"first": 9, "last": 12, "reason": "full"}]


def test_tags() -> None:
    told = written("tags", record(Kind.INT32, [5, 6], quality=[0, Quality.BAD]))
    assert told["tags"] == [
        {"name": "t0", "value": 5, "unit": "bar", "quality": 0, "time_us": NOON_NS // 1000},
        {"name": "t1", "value": None, "unit": "bar", "quality": int(Quality.BAD), "time_us": NOON_NS // 1000},
    ]


def test_thingsboard() -> None:
    one = record(Kind.FLOAT64, [1.5, 2.5, 3.5], quality=[0, Quality.BAD, 0], times=[NOON_NS, NOON_NS, NOON_NS + 1_000_000])
    assert written("thingsboard", one) == {
        "boiler-1": [
            {"ts": 1_700_000_000_123, "values": {"t0": 1.5, "t1#quality": int(Quality.BAD)}},
            {"ts": 1_700_000_000_124, "values": {"t2": 3.5}},
        ]
    }


VALUES: dict[Kind, tuple[list[Any], list[Any]]] = {
    Kind.BOOL: ([True, False], [True, False]),
    Kind.INT64: ([-(2**63), 2**63 - 1], [-(2**63), 2**63 - 1]),
    Kind.UINT64: ([0, 2**64 - 1], [0, 2**64 - 1]),
    Kind.FLOAT64: ([math.nan, math.inf, -math.inf, 0.1, 5e-324], ["NaN", "Infinity", "-Infinity", 0.1, 5e-324]),
    Kind.STRING: (["Kessel", 'a"b\\\n\u2028', "\ud800"], ["Kessel", 'a"b\\\n\u2028', "?"]),
    Kind.BYTES: ([b"", b"\x00\xff"], ["", "AP8="]),
}


@pytest.mark.parametrize("shape", ["columns", "tags"])
@pytest.mark.parametrize("kind", VALUES)
def test_every_kind_keeps_what_it_says(shape: str, kind: Kind) -> None:
    values, expected = VALUES[kind]
    (payload,) = Writer(shape, GATEWAY).payloads(record(kind, values), historical=False)
    assert [reading.value for reading in decode_plain(payload).readings] == expected


@pytest.mark.parametrize("shape", ["columns", "tags", "thingsboard"])
@given(rows=st.integers(1, 60), limit=st.integers(300, 3000))
def test_parts_fit_and_together_are_the_record(shape: str, rows: int, limit: int) -> None:
    payloads = Writer(shape, GATEWAY).payloads(record(Kind.INT32, list(range(rows))), historical=False, limit=limit)
    assert all(len(payload) <= limit for payload in payloads)
    if shape == "thingsboard":
        told = [value for payload in payloads for entry in json.loads(payload)["boiler-1"] for value in entry["values"].values()]
        assert told == list(range(rows))
        return
    parts = [decode_plain(payload) for payload in payloads]
    assert [reading.value for part in parts for reading in part.readings] == list(range(rows))
    assert [(part.stamp.part, part.stamp.parts) for part in parts] == [(i, len(parts)) for i in range(len(parts))]


def test_a_single_value_that_fits_into_no_message_is_said() -> None:
    with pytest.raises(TooLarge, match="boiler-1"):
        Writer("columns", GATEWAY).payloads(record(Kind.STRING, ["x" * 5000, "y"]), historical=False, limit=4000)


def test_the_names_of_devices_that_follow_each_other_do_not_mix() -> None:
    writer = Writer("columns", GATEWAY)
    for i in range(100):
        device = Device("line", f"d{i}", (Tag(name=f"only-{i}", kind=Kind.FLOAT64),))
        batch = Batch(device, np.zeros(1, np.uint32), np.ones(1), np.zeros(1, np.uint32), np.full(1, NOON_NS, np.int64))
        (payload,) = writer.payloads(Record(1, i, Lane.TELEMETRY, NOON_NS, batch), historical=False)
        assert json.loads(payload)["tags"] == [f"only-{i}"]


def test_the_readme_shows_what_is_sent() -> None:
    """Its JSON is what the three shapes make of one record, and what a mark looks like."""
    text = (Path(gateway.uplink.__file__).parent / "README.md").read_text()
    columns, tags, thingsboard, mark, *_ = [json.loads(block.split("```")[0]) for block in text.split("```json")[1:]]
    device = Device(
        "line",
        "boiler-1",
        (Tag(name="steam/pressure", kind=Kind.FLOAT64, unit="bar"), Tag(name="steam/flow", kind=Kind.FLOAT64, unit="t/h")),
    )
    plain = record(Kind.FLOAT64, [6.125, 0.0], quality=[0, Quality.BAD_TIMEOUT]).batch
    one = Record(3, 17, Lane.TELEMETRY, NOON_NS, Batch(device, plain.tag, plain.value, plain.quality, plain.time_ns))
    assert written("columns", one) == columns
    assert written("tags", one) == tags
    assert written("thingsboard", one) == thingsboard
    assert json.loads(encode(decode_mark(json.dumps(mark).encode()))) == mark


def test_a_topic_is_filled_in_without_wildcards() -> None:
    assert topic_of("{group}/{gateway}/{connection}/{device}", GATEWAY, "line", "a+b#") == "plant-7/gw-01/line/a_b_"
