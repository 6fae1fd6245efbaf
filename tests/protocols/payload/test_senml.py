"""SenML packs as RFC 8428 writes them, its own examples first."""

from __future__ import annotations

import cbor2
import msgspec
import pytest

from protocols.model import Quality
from protocols.payload import senml
from protocols.payload.trouble import Undecodable
from tests.protocols.payload.rig import NOW_NS, Told

MULTIPLE = (  # 5.1.2, shortened: times before now
    b'[{"bn":"urn:dev:ow:10e2073a0108006:","bt":1.276020076001e+09,"bu":"A","bver":5,"n":"voltage","u":"V","v":120.1},'
    b'{"n":"current","t":-5,"v":1.2},{"n":"current","t":-4,"v":1.3}]'
)
RFC_CBOR = bytes.fromhex(  # clause 6
    "87a721781b75726e3a6465763a6f773a3130653230373361303130383030363a22fb41d303a15b00106223614120050067766f6c7461676501615602fb405e066666"
    "666666a3006763757272656e74062402fb3ff3333333333333a3006763757272656e74062302fb3ff4cccccccccccda3006763757272656e74062202fb3ff6666666"
    "666666a3006763757272656e74062102f93e00a3006763757272656e74062002fb3ff999999999999aa3006763757272656e74060002fb3ffb333333333333"
)
CURRENT = "urn:dev:ow:10e2073a0108006:current"


def test_base_fields_are_added_and_records_come_in_order_of_time() -> None:
    records = senml.read_senml_json(MULTIPLE, NOW_NS)
    assert [(one.name.rpartition(":")[2], one.unit, one.value) for one in records] == [
        ("current", "A", 1.2),
        ("current", "A", 1.3),
        ("voltage", "V", 120.1),
    ]
    assert [one.time_ns for one in records] == [1276020071001000000, 1276020072001000000, 1276020076001000000]


def test_the_cbor_example_of_the_standard_is_read() -> None:
    records = senml.read_senml_cbor(RFC_CBOR, NOW_NS)
    assert [one.value for one in records if one.name == CURRENT] == [1.2, 1.3, 1.4, 1.5, 1.6, 1.7]
    told = Told({"current": ("float64", CURRENT), "gone": ("float64", "urn:x")}, format="senml-cbor")
    rows = told.rows(RFC_CBOR)
    assert [row[1] for row in rows if row[0] == "current"] == [1.2, 1.3, 1.4, 1.5, 1.6, 1.7]
    assert [row[2] for row in rows if row[0] == "gone"] == [Quality.BAD_NODE_ID_UNKNOWN]


def test_relative_times_count_from_now() -> None:
    pack = [{"n": "a", "v": 1, "t": -2}, {"n": "a", "v": 2}, {"n": "a", "v": 3, "t": -1.5}]
    told = Told({"a": ("int8", "a")}, format="senml-json")
    assert told.rows(msgspec.json.encode(pack)) == [
        ("a", 1, Quality.GOOD, -2000),
        ("a", 3, Quality.GOOD, -1500),
        ("a", 2, Quality.GOOD, 0),
    ]


def test_values_of_every_kind_and_sums() -> None:
    pack = [
        {"bn": "d/", "n": "v", "v": 1, "bv": 10},
        {"n": "vs", "vs": "x"},
        {"n": "vb", "vb": True},
        {"n": "vd", "vd": "AP-_"},
        {"n": "e", "s": 5},
    ]
    places = {"v": ("int8", "d/v"), "vs": ("string", "d/vs"), "vb": ("bool", "d/vb"), "vd": ("bytes", "d/vd"), "e": ("float64", "d/e#sum")}
    assert Told(places, format="senml-json").values(msgspec.json.encode(pack)) == {
        "v": 11,
        "vs": "x",
        "vb": True,
        "vd": b"\x00\xff\xbf",
        "e": 5.0,
    }
    binary = [{-2: "d/", 0: "vd", 8: b"\x00\xff"}]
    assert Told({"vd": ("bytes", "d/vd")}, format="senml-cbor").values(cbor2.dumps(binary)) == {"vd": b"\x00\xff"}


@pytest.mark.parametrize(
    "pack",
    [
        [],
        {},
        [1],
        [{"v": 1}],  # no name
        [{"n": "-a", "v": 1}],
        [{"n": "a b", "v": 1}],
        [{"n": "a", "v": 1, "vb": True}],
        [{"n": "a", "v": "1"}],
        [{"n": "a", "v": True}],
        [{"n": "a", "vs": 1}],
        [{"n": "a", "v": 1, "must_": 1}],
        [{"n": "a", "v": 1, "bver": 11}],
        [{"n": 5, "v": 1}],
        [{"n": "a", "vd": "%%%"}],
        [{"n": "a", "v": 1}] * 10_001,
    ],
)
def test_a_pack_that_breaks_the_rules_is_refused_whole(pack: object) -> None:
    with pytest.raises(Undecodable):
        senml.resolve(pack, NOW_NS, binary=False)


def test_a_time_beyond_all_bounds_is_uncertain_and_no_exception() -> None:
    pack = [{"n": "a", "v": 1, "t": 1e300}, {"n": "b", "v": 1, "bt": 1.7e308, "t": 1.7e308}]
    told = Told({"a": ("int8", "a"), "b": ("int8", "b")}, format="senml-json")
    assert [row[2] for row in told.rows(msgspec.json.encode(pack))] == [Quality.UNCERTAIN, Quality.UNCERTAIN]
