"""Numbers that no float holds are out of range, and a row has one minus at most."""

from __future__ import annotations

from protocols.model import Quality
from protocols.payload import check
from tests.protocols.payload.rig import Told


def test_a_number_of_four_hundred_digits_is_out_of_range() -> None:
    kinds = ("int8", "int64", "uint64", "float32", "float64")
    told = Told({kind: (kind, "$.v") for kind in kinds}, format="json")
    assert told.values('{"v": ' + "9" * 400 + "}") == dict.fromkeys(kinds, Quality.BAD_OUT_OF_RANGE)


def test_a_row_of_three_minuses_is_no_row() -> None:
    told = Told({"a": ("int32", "a@---1")}, format="csv")
    assert [problem.path for problem in check(told.tags, told.options, "tags", "payload")] == ["tags[0].at"]
