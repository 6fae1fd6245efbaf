"""What a command sends is what its format reads."""

from __future__ import annotations

from typing import Any

import cbor2
import pytest

from protocols.payload import encode
from protocols.values import Unwritable
from tests.protocols.payload.rig import Told


@pytest.mark.parametrize(
    ("format", "kind", "at", "value"),
    [
        ("json", "float64", "$", 21.5),
        ("json", "string", "$", 'a"b\u2603'),
        ("cbor", "int64", "$", -(2**63)),
        ("cbor", "bytes", "$", b"\x00\xff"),
        ("senml-json", "bool", "d/a", True),
        ("senml-json", "bytes", "d/a", b"\x00\xff\xbf"),
        ("senml-cbor", "string", "d/a", "x"),
        ("text", "float64", "", 0.1),
        ("text", "bool", "", False),
        ("raw", "int16", "0:int16-le", -2),
        ("raw", "float32", "0:float32-be", 1.5),
        ("raw", "string", "0:string[4]", "ab"),
    ],
)
def test_what_is_written_is_read_back(format: str, kind: str, at: str, value: Any) -> None:  # Any: as the tag has it
    told = Told({"a": (kind, at)}, format=format)
    assert told.values(encode(value, told.tags[0], told.options)) == {"a": value}


@pytest.mark.parametrize(
    ("format", "template", "value", "payload"),
    [
        ("json", '{"target": {value}, "unit": "C"}', 21.5, b'{"target": 21.5, "unit": "C"}'),
        ("json", '{"name": "{value}"}', 'a"b', b'{"name": "a\\"b"}'),
        ("cbor", '{"t": [{value}]}', 7, cbor2.dumps({"t": [7]})),
        ("text", "SET {value};", True, b"SET true;"),
        ("xml", "<set>{value}</set>", "<a & b>", b"<set>&lt;a &amp; b&gt;</set>"),
    ],
)
def test_templates_are_filled_and_nothing_breaks_out(format: str, template: str, value: Any, payload: bytes) -> None:  # Any: as above
    kind = {bool: "bool", str: "string"}.get(type(value), "float64")
    at = {"text": "", "xml": "/a"}.get(format, "$.a")
    told = Told([{"name": "a", "kind": kind, "at": at, "writable": True, "write_as": template}], format=format)
    assert encode(value, told.tags[0], told.options) == payload


def test_what_does_not_fit_is_refused() -> None:
    told = Told({"a": ("string", "0:string[4]")}, format="raw")
    with pytest.raises(Unwritable):
        encode("too long", told.tags[0], told.options)
    told = Told({"a": ("string", "a")}, format="sparkplug")
    with pytest.raises(Unwritable):
        encode("x", told.tags[0], told.options)
