"""What a DCMD asks for, and what it may not be taken for."""

from __future__ import annotations

from typing import Any

import pytest

from protocols.model import Kind
from protocols.sparkplug.commands import Wish, wishes
from protocols.sparkplug.kinds import DATATYPE_OF, Datatype
from protocols.sparkplug.payload import Metric, Payload
from tests.peers.sparkplug_payload import EXTREMES

TAGS = {kind.value: kind for kind in Kind}
ALIASES = {128: "uint16", 129: "bool"}


def asked(value: Any, **more: Any) -> Wish:  # Any: whatever a peer writes
    said: dict[str, Any] = {"name": "uint16", "alias": None, "timestamp_ms": 5, "datatype": None, "is_null": False, "is_historical": False}
    metric = Metric(**{**said, "value": value, "other": False, "properties": {}, **more})
    (wish,) = wishes(Payload(7, None, (metric,), b""), TAGS, ALIASES.get)
    return wish


@pytest.mark.parametrize("kind", list(Kind))
def test_every_value_of_every_kind_is_read_as_it_was_meant(kind: Kind) -> None:
    for value in EXTREMES[kind]:
        wire = value if not isinstance(value, int) or isinstance(value, bool) else value & (2**64 - 1 if "64" in kind.value else 2**32 - 1)
        wish = asked(wire, name=kind.value, datatype=DATATYPE_OF[kind])
        assert wish.why == ""
        assert wish.value == value or (value != value and wish.value != wish.value)


@pytest.mark.parametrize(
    ("value", "more", "why"),
    [
        (70_000, {}, "out of its range"),
        (2**32 - 1, {}, "out of its range"),
        (200, {"name": "int8"}, ""),
        (300, {"name": "int8"}, "out of its range"),
        (1, {"datatype": Datatype.INT32}, "is not the birth's"),
        (1, {"datatype": 999}, "is not the birth's"),
        (True, {}, "is not UInt16"),
        ("1", {}, "is not UInt16"),
        (1, {"name": "float64"}, "is not Double"),
        (1, {"name": "bool"}, "is not Boolean"),
        (1e300, {"name": "float32"}, "is not Float"),
        (None, {"is_null": True}, "has none"),
        (None, {}, "has none"),
        (1, {"is_historical": True}, "historical"),
        (1, {"name": "no-such"}, "no metric"),
        (1, {"name": None, "alias": 999}, "in no birth"),
        (1, {"alias": 129}, "two metrics"),
        (1, {"name": None}, "no metric"),
    ],
)
def test_what_does_not_fit_the_birth_is_refused_and_never_cut(value: Any, more: dict[str, Any], why: str) -> None:  # Any: as above
    found = asked(value, **more).why
    assert why in found
    assert bool(why) == bool(found)


def test_an_alias_stands_for_the_metric_of_its_birth() -> None:
    assert asked(3, name=None, alias=128) == Wish("uint16", 3, 5)


def test_the_older_of_two_stamps_counts() -> None:
    """A metric cannot make its message younger."""
    assert [asked(1, timestamp_ms=stamp).stamp_ms for stamp in (5, 9, None)] == [5, 7, 7]
