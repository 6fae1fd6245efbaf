"""What Holdfast writes, the npm package ``sparkplug-payload`` reads: same names, kinds and values, extremes included."""

from __future__ import annotations

import math
import shutil
import struct
import subprocess
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest

from protocols.model import COLUMN_OF, DTYPE_OF, Batch, Device, Kind, Quality, Tag
from protocols.sparkplug.kinds import DATATYPE_OF
from protocols.sparkplug.session import EdgeNode, Publish

PEER = Path(__file__).parents[2] / "peers" / "node"
NOW = 1_763_697_600_123_456_789
FLOATS = [0.0, -0.0, 1.5, -3.4028234663852886e38, 3.4028234663852886e38, math.inf, -math.inf, math.nan, 1e-45]
EXTREMES: dict[Kind, list[Any]] = {  # Any: each kind has its own type
    Kind.BOOL: [True, False],
    Kind.INT8: [-128, -12, -1, 0, 127],
    Kind.INT16: [-(2**15), -1, 0, 2**15 - 1],
    Kind.INT32: [-(2**31), -1, 0, 2**31 - 1],
    Kind.INT64: [-(2**63), -1, 0, 2**53 + 1, 2**63 - 1],
    Kind.UINT8: [0, 127, 128, 255],
    Kind.UINT16: [0, 2**16 - 1],
    Kind.UINT32: [0, 2**31, 2**32 - 1],
    Kind.UINT64: [0, 2**53 + 1, 2**63, 2**64 - 1],
    Kind.FLOAT32: FLOATS,
    Kind.FLOAT64: [*FLOATS, 5e-324, 1.7976931348623157e308, 0.1],
    Kind.STRING: ["", "Kessel Süd", "\N{SNOWMAN}\N{GRINNING FACE}", "a\x00b", "x" * 300],
    Kind.BYTES: [b"", b"\x00\xff\x80", bytes(range(256))],
}
TYPE_NAME = {
    kind: {"BOOLEAN": "Boolean", "STRING": "String", "BYTES": "Bytes", "FLOAT": "Float", "DOUBLE": "Double"}.get(
        datatype.name,
        datatype.name.replace("UINT", "UInt").replace("INT", "Int") if datatype.name[0] == "U" else datatype.name.capitalize(),
    )
    for kind, datatype in DATATYPE_OF.items()
}


def peer(messages: list[Publish]) -> list[Any]:  # Any: JSON of the peer's own shape
    """What the peer makes of ``messages``, one answer each."""
    node = shutil.which("node")
    if node is None or not (PEER / "node_modules" / "sparkplug-payload").is_dir():
        pytest.skip("node or its packages are missing: run `npm ci` in tests/peers/node")
    lines = "".join(f"one {message.payload.hex()}\n" for message in messages)
    done = subprocess.run([node, str(PEER / "decode.mjs")], input=lines.encode(), capture_output=True, check=True, timeout=60)
    answers = [msgspec.json.decode(line) for line in done.stdout.splitlines()]
    assert len(answers) == len(messages)
    return answers


def column(device: Device, slots: list[int], values: list[Any], quality: int = Quality.GOOD) -> Batch:  # Any: as above
    value = np.zeros(len(slots), dtype=DTYPE_OF[COLUMN_OF[device.tags[slots[0]].kind]])
    value[:] = values
    count = len(slots)
    return Batch(device, np.array(slots, np.uint32), value, np.full(count, quality, np.uint32), np.full(count, NOW, np.int64))


def same(kind: Kind, told: str | None, value: Any) -> bool:  # Any: as above
    """``told``, the peer's text, means ``value``."""
    if told is None:
        return False
    if kind is Kind.BOOL:
        return bool(told == str(value).lower())
    if kind is Kind.BYTES:
        return bool(told == value.hex())
    if kind is Kind.STRING:
        return bool(told == value)
    if kind in (Kind.FLOAT32, Kind.FLOAT64):
        number = float(told.replace("Infinity", "inf"))
        expected = struct.unpack("<f", struct.pack("<f", value))[0] if kind is Kind.FLOAT32 else value
        return struct.pack("<d", number) == struct.pack("<d", expected) or (math.isnan(number) and math.isnan(expected))
    return bool(int(told) == value)


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
    for answer, message in zip(peer([birth, data]), ("birth", "data"), strict=True):
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
    told, data = peer([birth, node.ddata("boiler", [bad, unsure], NOW, b"")])
    assert [one["properties"] for one in told["metrics"]] == [{"Quality": "192"}, {"engUnit": "bar", "Quality": "192"}]
    assert [(one["value"], one["properties"]) for one in data["metrics"]] == [
        (None, {"Quality": "0", "StatusCode": str(int(Quality.BAD_TIMEOUT))}),
        ("2.5", {"Quality": "500", "StatusCode": str(int(Quality.UNCERTAIN_LAST_USABLE_VALUE))}),
    ]


def test_births_and_deaths_of_the_node_reach_the_peer() -> None:
    """NBIRTH tells bdSeq and the rebirth command; NDEATH tells the same bdSeq and no seq."""
    node = EdgeNode("plant", "gw")
    will = node.connect(255)
    birth, death = peer([node.nbirth([], NOW), will])
    assert [(one["name"], one["type"], one["value"], one["alias"]) for one in birth["metrics"]] == [
        ("bdSeq", "Int64", "255", None),
        ("Node Control/Rebirth", "Boolean", "false", None),
    ]
    assert birth["seq"] == "0"
    assert [(one["name"], one["value"]) for one in death["metrics"]] == [("bdSeq", "255")]
    assert death["seq"] is None
