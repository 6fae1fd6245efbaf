"""The JSON form of values and entries keeps every bit or says what it cannot."""

from __future__ import annotations

import json

from gateway import readable
from gateway.journal.record import Lane, Lost, Record
from protocols.model import Kind, Quality
from tests.builders import batch, device, floats


def test_integers_keep_every_digit() -> None:
    at = device(Kind.UINT64, Kind.UINT64)
    assert readable.values(batch(at, [2**64 - 1, 0])) == [18446744073709551615, 0]


def test_nan_and_infinity_are_named() -> None:
    at = floats(4)
    assert readable.values(batch(at, [float("nan"), float("inf"), float("-inf"), 1.5])) == ["NaN", "Infinity", "-Infinity", 1.5]


def test_bytes_are_base64_and_strings_are_themselves() -> None:
    at = device(Kind.BYTES, Kind.STRING)
    assert readable.values(batch(at, [b"\x00\xff", "Dampf"])) == ["AP8=", "Dampf"]


def test_a_bad_value_is_null() -> None:
    assert readable.values(batch(floats(1), [1.0], quality=Quality.BAD_TIMEOUT)) == [None]


def test_an_entry_is_json_with_its_identity() -> None:
    line = readable.entry(Record(7, 42, Lane.TELEMETRY, 5, batch(floats(2), [1.0, 2.0], time_ns=9)))
    assert json.loads(json.dumps(line)) == {
        "epoch": 7,
        "seq": 42,
        "lane": "telemetry",
        "device": "boiler-1",
        "tags": ["t0", "t1"],
        "values": [1.0, 2.0],
        "time_ns": 9,
    }


def test_a_gap_names_its_reason() -> None:
    assert readable.entry(Lost(7, 3, 5, "full")) == {"lost": "full", "epoch": 7, "first": 3, "last": 5, "records": 3}
