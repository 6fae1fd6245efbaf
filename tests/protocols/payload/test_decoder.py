"""Payloads of every format become values; whatever cannot be one is bad, alone where it can be alone."""

from __future__ import annotations

import json
from typing import Any

import cbor2
import pytest

from protocols.model import Quality
from protocols.payload import Format, format_of_coap, format_of_media_type
from tests.protocols.payload.rig import NOW_NS, Told

PLACES = {
    "plain": ("float64", "$.a.b[0]"),
    "quoted": ("string", "$['x y']"),
    "filtered": ("int64", "$.list[?@.id=='t1'].v"),
    "deep": ("bool", "$..on"),
    "last": ("uint8", "$.list[-1].v"),
}
DOCUMENT: dict[str, Any] = {  # Any: JSON
    "a": {"b": [2.5]},
    "x y": "hi",
    "list": [{"id": "t0", "v": 1}, {"id": "t1", "v": 2}],
    "q": {"on": True},
}
WANTED = {"plain": 2.5, "quoted": "hi", "filtered": 2, "deep": True, "last": 2}


def test_json_and_cbor_are_read_by_the_same_paths() -> None:
    assert Told(PLACES, format="json").values(json.dumps(DOCUMENT)) == WANTED
    assert Told(PLACES, format="cbor").values(cbor2.dumps(DOCUMENT)) == WANTED


def test_a_wrong_kind_is_bad_alone_and_what_is_absent_is_unknown() -> None:
    told = Told({name: ("int8", f"$.{name}") for name in "abcde"}, format="json")
    assert told.values('{"a": 1, "b": "1", "c": 300, "d": null}') == {
        "a": 1,
        "b": Quality.BAD_DECODING_ERROR,
        "c": Quality.BAD_OUT_OF_RANGE,
        "d": Quality.BAD_DECODING_ERROR,
        "e": Quality.BAD_NODE_ID_UNKNOWN,
    }
    assert told.decoder.absent == [4]


def test_what_is_missing_may_be_kept() -> None:
    told = Told({"a": ("int8", "$.a"), "b": ("int8", "$.b")}, format="json", missing="keep")
    assert told.values('{"a": 1}') == {"a": 1}
    assert told.values("{}") == {}


def test_several_values_where_one_is_meant_are_bad() -> None:
    assert Told({"a": ("int8", "$.l[*].v")}, format="json").values('{"l": [{"v": 1}, {"v": 2}]}') == {"a": Quality.BAD_DECODING_ERROR}


@pytest.mark.parametrize(
    ("format", "payload"),
    [
        ("json", b"{"),
        ("json", b"\xff"),
        ("json", b"NaN"),
        ("json", b'{"a": 1e999}'),
        ("json", b'"\\ud800"'),
        ("json", b"[" * 200_000),
        ("json", b"[" + b"[]," * 200_000 + b"0]"),
        ("cbor", b""),
        ("cbor", b"\x9b\xff\xff\xff\xff\xff\xff\xff\xff"),
        ("cbor", b"\x81" * 5000),
        ("cbor", b"\x99\xff\xff" + b"\x80" * 65535),
        ("cbor", b"\x82\xa1\x81\x01\x01\x59\x20\x00" + bytes(0x2000)),  # a list as a key
        ("cbor", b"\x9a\x00\x0f\x42\x40" + b"\x80" * 900_000),
        ("cbor", b"\xd8\x1c\x81\xd8\x1d\x00"),  # a list that holds itself
        ("cbor", b"\xc4\x82\x1b\x7f\xff\xff\xff\xff\xff\xff\xff\x01"),  # ten to the power of 9e18
        ("senml-json", b"{}"),
        ("senml-cbor", b"\x80"),
        ("text", b"\xff\xfe"),
        ("csv", b'a,b\n"1'),
        ("csv", b"\n" * 100_000),
        ("xml", b"<a>"),
        ("xml", b'<!DOCTYPE a [<!ENTITY b "c">]><a>&b;</a>'),
        ("xml", b'<!DOCTYPE a SYSTEM "file:///etc/passwd"><a/>'),
        ("xml", b"<a>" * 50_000),
        ("sparkplug", b"\xff" * 100),
    ],
)
def test_what_cannot_be_read_makes_every_tag_bad(format: str, payload: bytes) -> None:
    places = {"xml": "/a/b", "csv": "a", "text": "", "raw": "0:int8", "senml-json": "a", "senml-cbor": "a", "sparkplug": "a"}
    told = Told({"a": ("int8", places.get(format, "$.a")), "b": ("string", places.get(format, "$.b"))}, format=format)
    assert told.values(payload) == {"a": Quality.BAD_DECODING_ERROR, "b": Quality.BAD_DECODING_ERROR}
    assert told.decoder.trouble


@pytest.mark.parametrize("payload", [b"\x80", b"\xd8\x23\x61(", b"\xf7", b"\xe0", b"\xa1\x81\x01\x01"])
def test_cbor_that_is_no_map_has_nothing_at_a_path(payload: bytes) -> None:
    """Among it a regular expression, which is its text."""
    assert Told({"a": ("int8", "$.a")}, format="cbor").values(payload) == {"a": Quality.BAD_NODE_ID_UNKNOWN}


def test_a_payload_above_the_limit_is_not_read() -> None:
    told = Told({"a": ("int8", "$.a")}, format="json", max_bytes=10)
    assert told.values('{"a":1}') == {"a": 1}
    assert told.values('{"a":1      }') == {"a": Quality.BAD_DECODING_ERROR}
    assert "12 bytes" in told.decoder.trouble or "bytes, more than the 10" in told.decoder.trouble


def test_numbers_and_truths_as_text_are_read_where_that_is_said() -> None:
    tags = [
        {"name": "n", "kind": "float64", "at": "$.n", "from_text": True},
        {"name": "b", "kind": "bool", "at": "$.b", "from_text": True},
        {"name": "r", "kind": "bytes", "at": "$.r", "from_text": True},
        {"name": "i", "kind": "int32", "at": "$.i", "from_text": True},
    ]
    assert Told(tags, format="json").values('{"n": " 21.5 ", "b": "ON", "r": "AP8=", "i": "12abc"}') == {
        "n": 21.5,
        "b": True,
        "r": b"\x00\xff",
        "i": Quality.BAD_DECODING_ERROR,
    }


def test_cbor_tags_are_read_as_what_they_stand_on() -> None:
    places = {"t": ("string", "$.t"), "big": ("uint64", "$.big"), "part": ("float64", "$.part"), "huge": ("uint64", "$.huge")}
    parts = {"t": "c06131", "big": "c2480000000100000000", "part": "c48221196ab3", "huge": "c249010000000000000000"}
    payload = bytes((0xA0 + len(parts),)) + b"".join(cbor2.dumps(name) + bytes.fromhex(digits) for name, digits in parts.items())
    wanted = {"t": "1", "big": 2**32, "part": 273.15, "huge": Quality.BAD_OUT_OF_RANGE}
    assert Told(places, format="cbor").values(payload) == wanted


@pytest.mark.parametrize(("at", "value"), [("temp", 3.5), ("#2", 3.5), ("temp@1", 2.5), ("temp@-2", 2.5)])
def test_csv_columns_by_name_and_number_and_rows(at: str, value: float) -> None:
    assert Told({"v": ("float32", at)}, format="csv", csv_delimiter=";").values("n; temp\r\n1;2.5\r\n2;3.5\r\n") == {"v": value}


def test_csv_with_a_time_column_is_a_history() -> None:
    told = Told({"v": ("float32", "v"), "w": ("int8", "w")}, format="csv", time_at="t")
    rows = told.rows("t,v,w\n1799999998,1.5,1\n1799999999,2.5,x\n")
    assert [row for row in rows if row[0] == "v"] == [("v", 1.5, Quality.GOOD, -2000), ("v", 2.5, Quality.GOOD, -1000)]
    assert [row for row in rows if row[0] == "w"] == [("w", 1, Quality.GOOD, -2000), ("w", 0, Quality.BAD_DECODING_ERROR, -1000)]


@pytest.mark.parametrize(
    ("at", "kind", "value"),
    [
        ("/m/r[@u='kWh']/v", "float64", 2.5),
        ("/m/r[2]/v", "float64", 2.5),
        ("/m/r[u2='x']/v", "float64", 1.0),
        ("/m/@s", "string", "77"),
        ("/*/@s", "string", "77"),
        ("/m/gone", "string", Quality.BAD_NODE_ID_UNKNOWN),
        ("/m/r/v", "float64", Quality.BAD_DECODING_ERROR),  # two of them
    ],
)
def test_xml_elements_and_attributes(at: str, kind: str, value: Any) -> None:  # Any: as the tag has it
    document = '<m xmlns="urn:x" s="77"><r u="W"><u2>x</u2><v>1</v></r><r u="kWh"><v> 2.5 </v></r></m>'
    assert Told({"v": (kind, at)}, format="xml").values(document) == {"v": value}


@pytest.mark.parametrize(
    ("at", "kind", "value"),
    [
        ("0:uint8", "uint8", 0x81),
        ("0:int8", "int8", -127),
        ("1:int16-le", "int16", 0x0302),
        ("1:uint16-be", "uint16", 0x0203),
        ("1:uint24-be", "uint32", 0x020304),
        ("0.7:bool", "bool", True),
        ("0.1:bool", "bool", False),
        ("4:float32-be", "float32", 1.5),
        ("8:string[4]", "string", "abc"),
        ("8:bytes", "bytes", b"abc\0z"),
        ("13:uint8", "uint8", Quality.BAD_NODE_ID_UNKNOWN),
    ],
)
def test_raw_bytes(at: str, kind: str, value: Any) -> None:  # Any: as the tag has it
    payload = bytes.fromhex("81020304" + "3fc00000") + b"abc\0z"
    assert Told({"v": (kind, at)}, format="raw").values(payload) == {"v": value}


@pytest.mark.parametrize(
    ("kind", "text", "value"),
    [
        ("float64", " 21.5\n", 21.5),
        ("int8", "21.0", 21),
        ("bool", "Off", False),
        ("string", " a ", " a "),
        ("int8", "1_0", None),
        ("bool", "2", None),
    ],
)
def test_text_is_the_whole_payload(kind: str, text: str, value: Any) -> None:  # Any: as the tag has it
    wanted = Quality.BAD_DECODING_ERROR if value is None else value
    assert Told({"v": (kind, "")}, format="text").values(text) == {"v": wanted}


# ---- times


@pytest.mark.parametrize(
    ("raw", "format", "before_ms"),
    [
        ("1799999999", "auto", -1000),
        ("1799999999500", "auto", -500),
        ("1799999999500000", "auto", -500),
        ("1799999999500000000", "auto", -500),
        ("1799999999.5", "auto", -500),
        ('"2027-01-15T07:59:59.5Z"', "auto", -500),
        ('"2027-01-15T08:59:59.500000000+01:00"', "iso8601", -500),
        ('"2027-01-15 07:59:59"', "iso8601", -1000),
        ('"1799999999"', "s", -1000),
        ("1799999999", "s", -1000),
    ],
)
def test_the_source_time_is_taken(raw: str, format: str, before_ms: int) -> None:
    told = Told({"v": ("int8", "$.v")}, format="json", time_at="$.t", time_format=format)
    assert told.rows(f'{{"v": 1, "t": {raw}}}') == [("v", 1, Quality.GOOD, before_ms)]


@pytest.mark.parametrize(
    "raw", ["0", "-5", "1e300", "null", '"never"', '"9999-99-99"', "[]", "1800003600", "true", '"' + "1" * 5000 + '"', "946684799"]
)
def test_a_time_that_cannot_be_is_replaced_by_that_of_arrival_and_the_value_is_uncertain(raw: str) -> None:
    told = Told({"v": ("int8", "$.v")}, format="json", time_at="$.t")
    assert told.rows(f'{{"v": 1, "t": {raw}}}') == [("v", 1, Quality.UNCERTAIN, 0)]
    assert told.rows('{"v": 1}') == [("v", 1, Quality.UNCERTAIN, 0)]


def test_what_was_kept_for_us_is_the_last_usable_value_unless_it_has_a_time() -> None:
    timed = Told({"v": ("int8", "$.v")}, format="json", time_at="$.t")
    assert timed.rows('{"v": 1, "t": 1799990000}', is_old=True) == [("v", 1, Quality.GOOD, -10_000_000)]
    assert Told({"v": ("int8", "$.v")}, format="json").rows('{"v": 1}', is_old=True) == [("v", 1, Quality.UNCERTAIN_LAST_USABLE_VALUE, 0)]


def test_records_of_several_times_are_a_history_in_order() -> None:
    told = Told({"v": ("float64", "$.v")}, format="json", records_at="$.samples[*]", time_at="$.t")
    payload = '{"samples": [{"t": 1799999997, "v": 1}, {"t": 1799999998, "v": 2}, {"t": 1799999999}]}'
    assert told.rows(payload) == [
        ("v", 1.0, Quality.GOOD, -3000),
        ("v", 2.0, Quality.GOOD, -2000),
        ("v", 0.0, Quality.BAD_NODE_ID_UNKNOWN, -1000),
    ]
    times = [batch.time_ns[0] for batch in told.decoder.decode(payload.encode(), NOW_NS)]
    assert times == sorted(times)


# ---- auto


def test_auto_goes_by_what_comes_with_the_payload() -> None:
    told = Told({"v": ("int8", "$.v")})
    assert told.values('{"v": 1}') == {"v": 1}
    assert told.values(cbor2.dumps({"v": 2}), media_type="application/cbor") == {"v": 2}
    assert told.values(cbor2.dumps({"v": 3}), format=Format.CBOR) == {"v": 3}
    assert told.values("<a/>", media_type="image/png") == {"v": Quality.BAD_NOT_SUPPORTED}
    assert told.values("v\n1", media_type="text/plain") == {"v": Quality.BAD_CONFIGURATION_ERROR}


def test_media_types_and_content_formats_are_known_by_name_and_number() -> None:
    assert format_of_media_type("Application/SenML+JSON; charset=utf-8") is Format.SENML_JSON
    assert format_of_media_type("application/vnd.maker+json") is Format.JSON
    assert format_of_media_type("x" * 100_000) is None
    assert [format_of_coap(number) for number in (0, 41, 42, 50, 60, 110, 112, 9999)] == [
        Format.TEXT,
        Format.XML,
        Format.RAW,
        Format.JSON,
        Format.CBOR,
        Format.SENML_JSON,
        Format.SENML_CBOR,
        None,
    ]
