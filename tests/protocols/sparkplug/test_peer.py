"""What Holdfast writes, the npm package ``sparkplug-payload`` reads: same names, kinds and values, extremes included."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from protocols.model import COLUMN_OF, DTYPE_OF, Batch, Device, Kind, Quality, Tag
from protocols.sparkplug.session import EdgeNode
from tests.peers.sparkplug_payload import EXTREMES, TYPE_NAME, decoded, same

NOW = 1_763_697_600_123_456_789


def column(device: Device, slots: list[int], values: list[Any], quality: int = Quality.GOOD) -> Batch:  # Any: as above
    value = np.zeros(len(slots), dtype=DTYPE_OF[COLUMN_OF[device.tags[slots[0]].kind]])
    value[:] = values
    count = len(slots)
    return Batch(device, np.array(slots, np.uint32), value, np.full(count, quality, np.uint32), np.full(count, NOW, np.int64))


@pytest.mark.parametrize("kind", list(Kind))
def test_every_kind_reaches_the_peer_with_its_extremes(kind: Kind) -> None:
    """In births and in data, the peer reads the name, the type and each value as they are."""
    values = EXTREMES[kind]
    device = Device("line", "boiler", tuple(Tag(name=f"t/{at}", kind=kind, unit="bar") for at in range(len(values))))
    node = EdgeNode("plant", "gw")
    node.connect(7)
    batch = column(device, list(range(len(values))), values)
    birth = node.dbirth([device], [batch], NOW)
    template = node.fit(device)
    assert template is not None
    data = node.ddata("boiler", [template.encode(batch, historical=True)], NOW, b"\x01\x02")
    for answer, message in zip(decoded([birth.payload, data.payload]), ("birth", "data"), strict=True):
        assert [one["name"] for one in answer["metrics"]] == [tag.name for tag in device.tags]
        assert {one["type"] for one in answer["metrics"]} == {TYPE_NAME[kind]}
        assert {one["timestamp"] for one in answer["metrics"]} == {str(NOW // 1_000_000)}
        wrong = [one for one, value in zip(answer["metrics"], values, strict=True) if not same(kind, one["value"], value)]
        assert not wrong, message
    assert answer["body"] == "0102"
    assert all(one["historical"] for one in answer["metrics"])


def test_qualities_reach_the_peer() -> None:
    """Bad is null with Quality 0, uncertain keeps its value with 500; both carry the whole status code."""
    device = Device("line", "boiler", (Tag(name="a", kind=Kind.FLOAT32), Tag(name="b", kind=Kind.FLOAT32, unit="bar")))
    node = EdgeNode("plant", "gw")
    birth = node.dbirth([device], [column(device, [0, 1], [1.0, 2.0])], NOW)
    template = node.fit(device)
    assert template is not None
    bad = template.encode(column(device, [0], [0.0], Quality.BAD_TIMEOUT), historical=False)
    unsure = template.encode(column(device, [1], [2.5], Quality.UNCERTAIN_LAST_USABLE_VALUE), historical=False)
    told, data = decoded([birth.payload, node.ddata("boiler", [bad, unsure], NOW, b"").payload])
    assert [one["properties"] for one in told["metrics"]] == [{"Quality": "192"}, {"engUnit": "bar", "Quality": "192"}]
    assert [(one["value"], one["properties"]) for one in data["metrics"]] == [
        (None, {"Quality": "0", "StatusCode": str(int(Quality.BAD_TIMEOUT))}),
        ("2.5", {"Quality": "500", "StatusCode": str(int(Quality.UNCERTAIN_LAST_USABLE_VALUE))}),
    ]


def test_births_and_deaths_of_the_node_reach_the_peer() -> None:
    """NBIRTH tells bdSeq and the rebirth command; NDEATH tells the same bdSeq and no seq."""
    node = EdgeNode("plant", "gw")
    will = node.connect(255)
    birth, death = decoded([node.nbirth([], NOW).payload, will.payload])
    assert [(one["name"], one["type"], one["value"], one["alias"]) for one in birth["metrics"]] == [
        ("bdSeq", "Int64", "255", None),
        ("Node Control/Rebirth", "Boolean", "false", None),
    ]
    assert birth["seq"] == "0"
    assert [(one["name"], one["value"]) for one in death["metrics"]] == [("bdSeq", "255")]
    assert death["seq"] is None
