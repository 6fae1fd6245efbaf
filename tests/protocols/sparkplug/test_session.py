"""The session counts, names and remembers as Sparkplug asks for."""

from __future__ import annotations

import numpy as np
import pytest

from protocols.model import Batch, Device, Kind, Quality, Tag
from protocols.sparkplug.kinds import DATATYPE_OF
from protocols.sparkplug.payload import Metric, decode, value_of
from protocols.sparkplug.session import BDSEQ, REBIRTH, EdgeNode, Throttle

NOW = 1_763_697_600_123_456_789
BOILER = Device("line", "boiler", (Tag(name="p", kind=Kind.FLOAT32, unit="bar"), Tag(name="n", kind=Kind.INT16)))
PUMP = Device("line", "pump", (Tag(name="n", kind=Kind.INT16),))


def floats(device: Device, value: float, time_ns: int = NOW) -> Batch:
    return Batch(device, np.array([0], np.uint32), np.array([value]), np.zeros(1, np.uint32), np.array([time_ns]))


def by_name(payload: bytes) -> dict[str | None, Metric]:
    return {one.name: one for one in decode(payload).metrics}


def test_seq_starts_at_0_with_the_nbirth_and_wraps_after_255() -> None:
    node = EdgeNode("plant", "gw")
    node.connect(1)
    seen = [decode(node.nbirth([], NOW).payload).seq, decode(node.dbirth([BOILER], [], NOW).payload).seq]
    seen += [decode(node.ddata("boiler", [], NOW, b"").payload).seq for _ in range(255)]
    assert seen == [*range(256), 0]
    assert decode(node.nbirth([], NOW).payload).seq == 0


@pytest.mark.parametrize(("asked", "told"), [(0, 0), (255, 255), (256, 0)])
def test_will_nbirth_and_ndeath_tell_the_same_bdseq(asked: int, told: int) -> None:
    node = EdgeNode("plant", "gw")
    said = [node.connect(asked), node.nbirth([], NOW), node.nbirth([], NOW), node.ndeath(NOW)]
    assert [by_name(one.payload)[BDSEQ].value for one in said] == [told] * 4
    assert [one.topic for one in said] == [f"spBv1.0/plant/{verb}/gw" for verb in ("NDEATH", "NBIRTH", "NBIRTH", "NDEATH")]
    assert decode(said[0].payload).seq is None


def test_the_nbirth_offers_rebirth_without_alias() -> None:
    node = EdgeNode("plant", "gw", [Tag(name="Journal/Pending", kind=Kind.INT64)])
    told = by_name(node.nbirth([], NOW).payload)
    assert (told[REBIRTH].value, told[REBIRTH].alias, told[REBIRTH].datatype) == (False, None, DATATYPE_OF[Kind.BOOL])
    assert told["Journal/Pending"].alias is not None


def test_a_dbirth_tells_name_alias_kind_unit_time_and_value_or_null() -> None:
    node = EdgeNode("plant", "gw")
    told = by_name(node.dbirth([BOILER], [floats(BOILER, 1.5)], NOW + 10**9).payload)
    assert (told["p"].value, told["p"].datatype, told["p"].properties) == (
        1.5,
        DATATYPE_OF[Kind.FLOAT32],
        {"engUnit": "bar", "Quality": 192},
    )
    assert told["p"].timestamp_ms == NOW // 1_000_000
    assert (told["n"].is_null, told["n"].properties["Quality"]) == (True, 0)


def test_aliases_are_unique_over_the_node_and_stay() -> None:
    node = EdgeNode("plant", "gw", [Tag(name="own", kind=Kind.INT64)])

    def births() -> list[int | None]:
        said = [node.nbirth([], NOW), node.dbirth([BOILER], [], NOW), node.dbirth([PUMP], [], NOW)]
        return [one.alias for message in said for one in decode(message.payload).metrics if one.alias is not None]

    first = births()
    assert len(set(first)) == len(first) == 4
    assert births() == first


def test_a_device_is_encoded_only_while_its_birth_holds() -> None:
    node = EdgeNode("plant", "gw")
    assert node.fit(BOILER) is None
    node.dbirth([BOILER], [floats(BOILER, 1.0)], NOW)
    assert node.template(BOILER) is None
    assert node.fit(BOILER) is node.template(BOILER) is not None
    assert node.born_upto("boiler") == NOW
    node.ddeath("boiler", NOW)
    assert node.template(BOILER) is node.fit(BOILER) is None
    assert not node.is_alive("boiler")
    node.dbirth([BOILER], [], NOW)
    node.nbirth([], NOW)
    assert node.alive() == []


def test_an_earlier_configuration_is_born_beside_the_current_one() -> None:
    """A tag that is gone and one whose kind changed keep a metric of their own, so that old records can be delivered."""
    old = Device("line", "boiler", (Tag(name="n", kind=Kind.UINT32), Tag(name="gone", kind=Kind.BOOL)))
    node = EdgeNode("plant", "gw")
    told = by_name(node.dbirth([BOILER, old], [floats(BOILER, 1.5)], NOW).payload)
    assert list(told) == ["p", "n", "n@uint32", "gone"]
    assert (told["n"].datatype, told["n@uint32"].datatype) == (DATATYPE_OF[Kind.INT16], DATATYPE_OF[Kind.UINT32])
    assert (told["gone"].is_null, told["gone"].properties["StatusCode"]) == (True, int(Quality.BAD_OUT_OF_SERVICE))
    template = node.fit(old)
    assert template is not None
    batch = Batch(old, np.array([0], np.uint32), np.array([2**32 - 1], np.uint64), np.zeros(1, np.uint32), np.array([NOW]))
    (one,) = decode(node.ddata("boiler", [template.encode(batch, historical=True)], NOW, b"").payload).metrics
    assert one.alias == told["n@uint32"].alias
    assert value_of(one.value, DATATYPE_OF[Kind.UINT32]) == 2**32 - 1
    assert node.shapes("boiler") == [BOILER, old]


def test_a_value_that_never_came_has_the_time_of_its_birth() -> None:
    """Not 1970: a host would sort it before everything."""
    node = EdgeNode("plant", "gw")
    waiting = Batch(
        BOILER, np.array([0], np.uint32), np.zeros(1), np.array([Quality.BAD_WAITING_FOR_INITIAL_DATA], np.uint32), np.zeros(1, np.int64)
    )
    assert by_name(node.dbirth([BOILER], [waiting], NOW).payload)["p"].timestamp_ms == NOW // 1_000_000


def test_a_birth_lists_its_metrics_in_the_order_of_their_times() -> None:
    device = Device("line", "boiler", tuple(Tag(name=name, kind=Kind.FLOAT64) for name in "abc"))
    batch = Batch(device, np.arange(3, dtype=np.uint32), np.zeros(3), np.zeros(3, np.uint32), np.array([NOW + 3, NOW + 1, NOW + 2]))
    payload = decode(EdgeNode("plant", "gw").dbirth([device], [batch], NOW).payload)
    assert [one.name for one in payload.metrics] == ["b", "c", "a"]


def test_node_metrics_travel_in_ndata_by_alias() -> None:
    node = EdgeNode("plant", "gw", [Tag(name="Journal/Pending", kind=Kind.INT64)])
    batch = Batch(node.device, np.array([0], np.uint32), np.array([12]), np.zeros(1, np.uint32), np.array([NOW]))
    alias = by_name(node.nbirth([batch], NOW).payload)["Journal/Pending"].alias
    said = node.ndata([batch], NOW)
    assert said.topic == "spBv1.0/plant/NDATA/gw"
    (one,) = decode(said.payload).metrics
    assert (one.alias, one.value, one.name) == (alias, 12, None)


def test_a_storm_of_requests_is_served_once_in_its_time() -> None:
    throttle = Throttle(5.0)
    assert throttle.due() is None
    throttle.ask()
    assert throttle.due() == float("-inf")
    throttle.done(100.0)
    for _ in range(100):
        throttle.ask()
    assert throttle.due() == 105.0
    throttle.done(105.0)
    assert throttle.due() is None
