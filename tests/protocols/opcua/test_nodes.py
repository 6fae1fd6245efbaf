"""Node ids and ways into values, as users write them, and what check says of a connection."""

from __future__ import annotations

import uuid

import msgspec
import pytest

from protocols.opcua.binary import TICKS_1970, Moment, Packed, time_ns
from protocols.opcua.check import check
from protocols.opcua.config import OpcUa
from protocols.opcua.nodes import Impossible, Node, NodeId, Place, parse
from protocols.opcua.session import distance, following


@pytest.mark.parametrize(
    ("text", "place"),
    [
        ("i=2253", Place(Node(None, 0, 2253))),
        ("ns=2;s=a;b=c", Place(Node(None, 2, "a;b=c"))),
        ("nsu=http://x/%3B%25;s=A", Place(Node("http://x/;%", 0, "A"))),
        ("nsu=urn:x;g=09087e75-8e5e-499b-954f-f2a9603db28a", Place(Node("urn:x", 0, uuid.UUID("09087e75-8e5e-499b-954f-f2a9603db28a")))),
        ("nsu=urn:x;b=AAE=", Place(Node("urn:x", 0, b"\x00\x01"))),
        ('nsu=urn:x;s="DB1"."x" > Position > [3]', Place(Node("urn:x", 0, '"DB1"."x"'), ("Position", 3))),
        ("nsu=urn:x;s=Pump > Start()", Place(Node("urn:x", 0, "Pump"), (), "Start")),
        ("nsu=urn:x;s=Pump  >  Start () ", Place(Node("urn:x", 0, "Pump"), (), "Start")),
        ("i=1 > a >\x1c > b", Place(Node(None, 0, 1), ("a >\x1c", "b"))),
    ],
)
def test_what_is_written_is_what_is_meant_and_can_be_written_again(text: str, place: Place) -> None:
    assert parse(text) == place
    assert parse(str(place)) == place


@pytest.mark.parametrize(
    "text",
    ["", "x", "s=", "i=-1", "i=4294967296", "ns=x;i=1", "nsu=;i=1", "g=1", "b=?", "i=1 > ", "i=1 > [x]", "i=1 > ()", "i=1 > a > b()"],
)
def test_what_is_no_place_is_told_with_advice(text: str) -> None:
    with pytest.raises(Impossible) as caught:
        parse(text)
    assert caught.value.advice


def test_the_index_of_a_namespace_is_the_servers() -> None:
    node = parse("nsu=urn:x;i=5").node
    assert [node.on(["", "urn:x"]), node.on(["", "urn:y", "urn:x"]), node.on([""])] == [NodeId(1, 5), NodeId(2, 5), None]


def test_sequence_numbers_go_on_after_their_end() -> None:
    last = 2**32 - 1
    assert (following(last), following(1)) == (1, 2)
    assert [distance(last, 1), distance(last - 1, 1), distance(5, 5), distance(5, 4), distance(0, 1)] == [1, 2, 0, -1, 1]


def test_times_are_nanoseconds_and_none_is_none() -> None:
    assert [time_ns(0), time_ns(-5), time_ns(TICKS_1970 + 15), time_ns(2**63 - 1)] == [0, 0, 1500, 0]
    assert str(Moment(1_500_000_000)) == "1970-01-01T00:00:01.500000Z"
    assert Packed(11, 2, b"\0" * 8 + b"\0\0\0\0\0\0\xf0\x3f").element(1) == 1.0


def test_check_tells_what_a_field_engineer_would_ask_about() -> None:
    tags = [
        {"name": "a", "at": "ns=3;s=x", "kind": "float64"},
        {"name": "b", "at": "nsu=urn:x;s=y > F", "kind": "float64", "writable": True},
        {"name": "c", "at": "nsu=urn:x;s=z", "kind": "string", "server_deadband": 1.0},
        {"name": "d", "at": "nsu=urn:x;s=z > [0]", "kind": "string", "event": {"type": "?"}},
    ]
    options = msgspec.convert(
        {
            "type": "opcua",
            "name": "x",
            "endpoint": "opc.tcp://h",
            "security": {"policy": "none", "cert_file": "a.pem"},
            "keep_s": 10,
            "keepalive_s": 9,
            "devices": [{"name": "d", "mode": "poll", "publishing_s": 1, "tags": tags}],
        },
        OpcUa,
    )
    found = {(problem.path, problem.severity) for problem in check(options)}
    assert found == {
        ("security.policy", "warning"),
        ("security.cert_file", "warning"),
        ("security.cert_file", "error"),
        ("keep_s", "error"),
        ("devices[0].publishing_s", "warning"),
        ("devices[0].tags[0].at", "warning"),
        ("devices[0].tags[1].writable", "error"),
        ("devices[0].tags[2].server_deadband", "error"),
        ("devices[0].tags[2].server_deadband", "warning"),
        ("devices[0].tags[3].at", "error"),
        ("devices[0].tags[3].event.type", "error"),
    }
    assert all(problem.message and problem.advice for problem in check(options))


@pytest.mark.parametrize("endpoint", ["http://h:4840", "opc.tcp://", "opc.tcp://user:password@h:4840", "opc.tcp://h:4840/a b"])
def test_an_endpoint_that_is_none_or_holds_a_password_is_refused(endpoint: str) -> None:
    with pytest.raises(msgspec.ValidationError):
        msgspec.convert({"type": "opcua", "name": "x", "endpoint": endpoint}, OpcUa)
