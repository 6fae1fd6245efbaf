"""The npm package ``sparkplug-payload`` as a peer: it decodes what Holdfast sends, and encodes what a host would send.

It needs node and ``npm ci`` in ``tests/peers/node``; a test that asks for it is skipped where they are missing.
"""

from __future__ import annotations

import math
import shutil
import struct
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec
import pytest

from protocols.model import Kind
from protocols.sparkplug.kinds import DATATYPE_OF

NODE = Path(__file__).parent / "node"
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


def decoded(payloads: Sequence[bytes]) -> list[Any]:  # Any: JSON of the peer's own shape
    """What the peer makes of the payloads of one edge node, one answer each."""
    answers = [msgspec.json.decode(line) for line in _said("decode.mjs", [f"one {payload.hex()}" for payload in payloads])]
    assert len(answers) == len(payloads)
    return answers


def encoded(payloads: Sequence[Any]) -> list[bytes]:  # Any: JSON of the peer's own shape
    """The bytes that the peer makes of payloads, as a host application would send them."""
    return [bytes.fromhex(line.decode()) for line in _said("encode.mjs", [msgspec.json.encode(payload).decode() for payload in payloads])]


def _said(program: str, lines: Sequence[str]) -> list[bytes]:
    node = shutil.which("node")
    if node is None or not (NODE / "node_modules" / "sparkplug-payload").is_dir():
        pytest.skip("node or its packages are missing: run `npm ci` in tests/peers/node")
    text = "".join(f"{line}\n" for line in lines)
    done = subprocess.run([node, str(NODE / program)], input=text.encode(), capture_output=True, check=True, timeout=60)
    return done.stdout.splitlines()


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
