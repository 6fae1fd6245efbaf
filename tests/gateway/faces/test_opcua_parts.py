"""The parts of the OPC UA server that need no client: names, units, bytes, what is wrong with a document."""

from __future__ import annotations

import math
import struct

import msgspec
import pytest
from asyncua import ua
from asyncua.ua.ua_binary import struct_from_binary
from asyncua.ua.uaprotocol_auto import MonitoredItemNotification

from gateway.config.check import check
from gateway.config.faces import FaceUser, OpcuaFace, OpcuaSecurity
from gateway.config.model import Gateway, Site
from gateway.faces.opcua.numbers import moment
from gateway.faces.opcua.sessions import code_of
from gateway.faces.opcua.tree import ROOT, Tree, application, grow, namespace
from gateway.faces.opcua.units import CODES, unit_id
from gateway.faces.opcua.values import TYPE_OF, Point, data_value, notification, ticks
from protocols.model import Device, Kind, Outcome, OutcomeState, Quality, Tag
from protocols.secret import FromEnv

NOW_NS = 1_795_000_000_123_456_700


def tree_of(*names: str) -> Tree:
    tree = Tree()
    device = Device("line", "boiler", tuple(Tag(name=name, kind=Kind.BOOL) for name in names))
    assert sum(1 for _ in grow(tree, "gw", [device])) == len(names)
    return tree


def test_slashes_make_folders_and_every_tag_keeps_its_own_id() -> None:
    names = ("a", "a/b", "a/c/d", "/", "//x", "x/", "a//b")
    tree = tree_of(*names)
    assert [leaf.device.tags[leaf.slot].name for leaf in tree.leaves.values()] == list(names)
    assert list(tree.leaves) == [f"boiler/{name}" for name in names]
    assert tree.folders[ROOT].children == ["connection:line"]
    assert tree.folders["folder:boiler/a"].children == ["boiler/a/b", "folder:boiler/a/c", "boiler/a//b"]
    assert tree.folders["boiler"].children == ["boiler/a", "folder:boiler/a", "boiler//", "boiler///x", "boiler/x/"]
    assert [tree.leaves[f"boiler/{name}"].name for name in ("a", "a/c/d", "/", "//x", "x/")] == ["a", "d", "/", "x", "x"]


def test_names_in_uris_are_escaped() -> None:
    assert namespace("Plant 7", "gw.1") == "urn:holdfast:Plant%207:gw.1"
    assert application("p", "g", "mes") == "urn:holdfast:p:g:mes"


def test_a_unit_is_the_characters_of_its_code() -> None:
    assert unit_id("°C") == 4408652  # as OPC 10000-8, 5.6.4.3 has it
    assert unit_id("furlong") == -1
    assert all(2 <= len(code) <= 3 and code.isalnum() and code.isupper() | code.isdigit() for code in CODES.values())


@pytest.mark.parametrize("quality", [Quality.GOOD, Quality.UNCERTAIN, Quality.BAD_TIMEOUT])
@pytest.mark.parametrize(
    ("kind", "value"),
    [
        (Kind.BOOL, True),
        (Kind.INT8, -128),
        (Kind.UINT8, 255),
        (Kind.INT16, -(2**15)),
        (Kind.UINT16, 2**16 - 1),
        (Kind.INT32, -(2**31)),
        (Kind.UINT32, 2**32 - 1),
        (Kind.INT64, -(2**63)),
        (Kind.UINT64, 2**64 - 1),
        (Kind.FLOAT32, 1.5),
        (Kind.FLOAT64, -math.inf),
        (Kind.STRING, "Pumpé"),
        (Kind.STRING, ""),
        (Kind.BYTES, b"\0\xff"),
    ],
)
def test_a_notification_is_read_as_it_was_meant(kind: Kind, value: bool | int | float | str | bytes, quality: Quality) -> None:
    raw = notification(7, kind, (value, int(quality), NOW_NS), ticks(NOW_NS + 1000))
    buffer = ua.utils.Buffer(raw)  # type: ignore[attr-defined]  # asyncua's
    found = struct_from_binary(MonitoredItemNotification, buffer)
    assert len(buffer) == 0
    assert found.ClientHandle == 7
    assert found.Value.StatusCode.value == quality
    assert found.Value.SourceTimestamp == moment(NOW_NS)
    assert found.Value.ServerTimestamp == moment(NOW_NS + 1000)
    if quality.is_bad:
        assert found.Value.Value is None or found.Value.Value.Value is None
    else:
        assert (found.Value.Value.VariantType, found.Value.Value.Value) == (TYPE_OF[kind], value)


@pytest.mark.parametrize(("kind", "value"), [(Kind.INT8, 128), (Kind.UINT16, -1), (Kind.FLOAT32, 1e300), (Kind.INT32, 1.5)])
def test_what_its_type_cannot_hold_is_out_of_range(kind: Kind, value: float) -> None:
    point: Point = (value, 0, NOW_NS)
    assert struct.unpack_from("<I", notification(7, kind, point, 0), 5)[0] == Quality.BAD_OUT_OF_RANGE
    read = data_value(kind, point, NOW_NS)
    assert read.StatusCode is not None
    assert int(read.StatusCode.value) == Quality.BAD_OUT_OF_RANGE


def test_only_what_was_verified_is_good() -> None:
    good = [
        state
        for state in OutcomeState
        for detail in ("", "out of range", "no")
        if not code_of(Outcome(command="", state=state, time_ns=0, detail=detail))
    ]
    assert set(good) == {OutcomeState.VERIFIED}


FACE = OpcuaFace(name="mes", host="192.0.2.1", clients=("192.0.2.0/24",), users=(FaceUser(name="a", password=FromEnv(name="A")),))


@pytest.mark.parametrize(
    ("change", "path"),
    [
        ({}, ""),
        ({"users": ()}, "faces[0].users"),
        ({"users": (), "anonymous": True}, ""),
        ({"security": OpcuaSecurity(policies=("none",))}, "faces[0].security.policies"),
        ({"security": OpcuaSecurity(policies=("none",)), "host": "127.0.0.1"}, ""),
        ({"security": OpcuaSecurity(cert_file="x")}, "faces[0].security.key_file"),
        ({"clients": ("nobody",)}, "faces[0].clients"),
        ({"users": FACE.users * 2}, "faces[0].users[1].name"),
    ],
)
def test_what_is_wrong_with_a_face_is_said(change: dict[str, object], path: str) -> None:
    site = Site(holdfast=1, gateway=Gateway(group="g", name="g"), faces=(msgspec.structs.replace(FACE, **change),))
    assert [problem.path for problem in check(site, drivers={})] == [path] * bool(path)
