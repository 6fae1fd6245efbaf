"""Payloads of every format, spoilt: batches come out, never an exception; and what two decoders say of good bytes stays the same.

Each decoder is one that has read good payloads before: what was learnt (births, compiled paths) is there.
"""

from __future__ import annotations

import contextlib
import json
from typing import Any, Final

import cbor2
import numpy as np
import pytest

from protocols.model import DTYPE_OF, SEVERITY_MASK, Quality
from protocols.payload import PayloadTag, encode
from protocols.payload.edge import Edge
from protocols.payload.trouble import BadPlace
from protocols.sparkplug.topics import parse
from protocols.values import Unwritable
from tests.fuzz import corpus
from tests.fuzz.campaign import frames, run, seed
from tests.fuzz.mutate import Mutator
from tests.protocols.payload.rig import NOW_NS, Told

PAYLOADS: Final = frames(1_500, 1_000_000)
"""For each format."""
DOCUMENT: Final[dict[str, Any]] = {  # Any: JSON
    "a": {"b": [2.5, -1]},
    "name": "Pumpé",
    "list": [{"id": "t0", "v": 1}, {"id": "t1", "v": 2}],
    "on": True,
    "n": 18446744073709551615,
    "text": "12.5",
    "t": 1799999999.5,
}
PATHS: Final[list[dict[str, Any]]] = [  # Any: as above
    {"name": "f", "kind": "float64", "at": "$.a.b[0]"},
    {"name": "s", "kind": "string", "at": "$.name"},
    {"name": "i", "kind": "int32", "at": "$.list[?@.id=='t1'].v"},
    {"name": "b", "kind": "bool", "at": "$..on"},
    {"name": "u", "kind": "uint64", "at": "$.n"},
    {"name": "x", "kind": "float32", "at": "$.text", "from_text": True},
    {"name": "r", "kind": "bytes", "at": "$.name", "from_text": True},
]
PACK: Final[list[dict[Any, Any]]] = [  # Any: as above
    {"bn": "d/", "bt": 1799999990, "bu": "C", "bv": 1, "bver": 10, "n": "a", "v": 1.5},
    {"n": "s", "vs": "x", "t": -3},
    {"n": "b", "vb": True, "u": "1"},
    {"n": "r", "vd": "AP8"},
    {"n": "a", "s": 5, "t": 5},
]
NUMBERS: Final = {"bn": -2, "bt": -3, "bu": -4, "bv": -5, "bver": -1, "n": 0, "v": 2, "vs": 3, "vb": 4, "vd": 8, "t": 6, "u": 1, "s": 5}
RECORDS: Final[list[dict[str, Any]]] = [  # Any: as above
    {"name": "a", "kind": "float64", "at": "d/a"},
    {"name": "s", "kind": "string", "at": "d/s"},
    {"name": "b", "kind": "bool", "at": "d/b"},
    {"name": "r", "kind": "bytes", "at": "d/r"},
    {"name": "e", "kind": "int64", "at": "d/a#sum"},
]
CASES: Final[dict[str, tuple[Told, list[bytes]]]] = {
    "json": (Told(PATHS, format="json", time_at="$.t"), [json.dumps(DOCUMENT).encode(), json.dumps(DOCUMENT, indent=1).encode()]),
    "json-records": (
        Told([{"name": "v", "kind": "int8", "at": "$.v"}], format="json", records_at="$.list[*]", time_at="$.t"),
        [json.dumps(DOCUMENT).encode()],
    ),
    "cbor": (
        Told(PATHS, format="cbor", time_at="$.t"),
        [
            cbor2.dumps(DOCUMENT),
            cbor2.dumps({**DOCUMENT, "t": cbor2.CBORTag(1, 1799999999), "n": 2**70}),
            bytes.fromhex("bf616181c48221196ab36161d81c81d81d00ff"),
            cbor2.dumps({str(number): number for number in range(2000)}),
        ],
    ),
    "senml-json": (Told(RECORDS, format="senml-json"), [json.dumps(PACK).encode()]),
    "senml-cbor": (
        Told(RECORDS, format="senml-cbor"),
        [cbor2.dumps([{NUMBERS[key]: value for key, value in one.items()} for one in PACK])],
    ),
    "text": (
        Told({"a": ("float64", ""), "b": ("bool", ""), "c": ("int64", ""), "d": ("bytes", "")}, format="text"),
        [b"12.5", b"on", b"AP8="],
    ),
    "csv": (
        Told({"a": ("float64", "a"), "b": ("string", "#2"), "c": ("int8", "a@1")}, format="csv", time_at="t"),
        [b't,a,b\n1799999990,1,"x ""y"""\n2027-01-15T07:59:59Z,2.5,z\n'],
    ),
    "xml": (
        Told({"a": ("float64", "/m/r[@u='kWh']/v"), "b": ("string", "/m/@s"), "c": ("int8", "/*/r[2]/v")}, format="xml", time_at="/m/t"),
        [
            b'<?xml version="1.0"?><m xmlns="urn:x" s="77"><t>2027-01-15T07:59:59Z</t><r u="W"><v>1</v></r><r u="kWh"><v>2.5</v></r></m>',
            b'<!DOCTYPE m [<!ENTITY a "b">]><m>&a;</m>',
        ],
    ),
    "raw": (
        Told(
            {"a": ("int16", "0:int16-le"), "b": ("bool", "2.3:bool"), "c": ("float64", "3:float64-be"), "d": ("string", "11:string[8]")},
            format="raw",
            time_at="19:uint32-be",
        ),
        [bytes(range(11)) + b"Pump\xc3\xa9\0\0" + (1799999999).to_bytes(4, "big")],
    ),
}


@pytest.mark.parametrize("format", list(CASES))
def test_no_payload_brings_more_than_bad_values(format: str) -> None:
    told, good = CASES[format]
    number = seed()
    mutator = Mutator(number, good)
    before = [told.rows(one) for one in good]

    def judge(payload: bytes) -> None:
        for batch in told.decoder.decode(payload, NOW_NS):
            assert len(batch) >= 1
            assert batch.value.dtype == DTYPE_OF[batch.column]
            assert {int(each) for each in batch.quality} <= set(Quality)
            bad = (batch.quality & SEVERITY_MASK) >= int(Quality.BAD)
            assert not any(batch.value[bad].tolist())
            assert int(batch.time_ns.max()) <= NOW_NS + 600 * 10**9
            assert len(np.unique(batch.tag)) == len(batch)

    run(f"payload-{format}", mutator.make, judge, seed=number, count=PAYLOADS)
    assert [told.rows(one) for one in good] == before, "what was made of good payloads is made of them still"


def test_no_message_of_an_edge_node_does_harm() -> None:
    """A Sparkplug host's view: births, data, deaths, each spoilt, in any order."""
    number = seed()
    told = Told({"a": ("float64", "a"), "b": ("string", "b"), "c": ("bool", "Node Control/Rebirth")}, format="sparkplug")
    edge = Edge("g", "n", {"": told.decoder, "d": told.decoder})
    mutator = Mutator(number, corpus.frames("npm-sparkplug", "own-sparkplug"))
    topics = [f"spBv1.0/g/{verb}/n" for verb in ("NBIRTH", "NDATA", "NDEATH")] + [
        f"spBv1.0/g/{verb}/n/{device}" for verb in ("DBIRTH", "DDATA", "DDEATH") for device in ("d", "x")
    ]

    def judge(payload: bytes) -> None:
        edge.take(mutator.dice.choice(topics), payload, NOW_NS)

    assert all(parse(topic) for topic in topics)
    run("payload-sparkplug", mutator.make, judge, seed=number, count=PAYLOADS)


@pytest.mark.parametrize("format", ["json", "cbor", "senml-json", "csv", "xml", "raw"])
def test_no_place_and_no_template_does_more_than_be_refused(format: str) -> None:
    number = seed()
    places = [
        "$.a.b[0]",
        "$..x[?@.a > 1 && @.b == 'c']",
        "d/a#sum",
        "a@-1",
        "#3",
        "/a/b[@c='d'][2]/@e",
        "4:int16-le",
        "3.7:bool",
        "8:string[10]",
    ]
    mutator = Mutator(number, [place.encode() for place in places], longest=1024)
    templates = Mutator(number, [b'{"a": {value}}', b"<a>{value}</a>", b'[{"b": ["{value}"]}]'], longest=4096)

    def judge(place: bytes) -> None:
        at = place.decode(errors="replace")
        told = Told({"a": ("int32", at)}, format=format)
        told.rows(b'{"a": {"b": [1]}}')
        tag = PayloadTag(name="a", kind=told.tags[0].kind, at=at, write_as=templates.make().decode(errors="replace"))
        with contextlib.suppress(Unwritable, BadPlace):
            encode(7, tag, told.options)

    run(f"payload-places-{format}", mutator.make, judge, seed=number, count=PAYLOADS // 10)
