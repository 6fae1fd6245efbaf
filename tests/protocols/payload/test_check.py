"""Places that cannot be are found when the configuration is checked, each with its path and advice."""

from __future__ import annotations

from typing import Any

import pytest

from protocols.payload import check
from tests.protocols.payload.rig import Told


@pytest.mark.parametrize(
    ("format", "at"),
    [
        ("json", "a.b"),
        ("json", "$.a["),
        ("json", "$.a[?match(@.b, '(a+)+')]"),
        ("json", "$..a..b"),
        ("json", "$.a | $.b"),
        ("auto", "$."),
        ("auto", "a b"),
        ("senml-json", ""),
        ("senml-json", "a#total"),
        ("csv", ""),
        ("csv", "#0"),
        ("csv", "a@0"),
        ("csv", "a@x"),
        ("xml", "a/b"),
        ("xml", "//b"),
        ("xml", "/a[contains(b,'c')]"),
        ("xml", "/a/"),
        ("raw", "0"),
        ("raw", "0:int16"),
        ("raw", "0:int12-le"),
        ("raw", "0:bool-le"),
        ("text", "$.a"),
        ("sparkplug", ""),
    ],
)
def test_a_place_that_cannot_be_is_an_error_with_advice(format: str, at: str) -> None:
    told = Told({"a": ("int32", at)}, format=format)
    (problem,) = check(told.tags, told.options, "tags", "payload")
    assert (problem.path, problem.severity) == ("tags[0].at", "error")
    assert problem.advice


@pytest.mark.parametrize(
    ("options", "path"),
    [
        ({"format": "json", "time_at": "x"}, "payload.time_at"),
        ({"format": "text", "time_at": "x"}, "payload.time_at"),
        ({"format": "json", "records_at": "$.a[?"}, "payload.records_at"),
        ({"format": "xml", "records_at": "/a"}, "payload.records_at"),
        ({"format": "json", "time_format": "s"}, "payload.time_format"),
    ],
)
def test_options_that_cannot_be_are_found(options: dict[str, str], path: str) -> None:
    told = Told({}, **options)
    assert [problem.path for problem in check(told.tags, told.options, "tags", "payload")] == [path]


def test_what_stands_in_a_tag_is_checked_too() -> None:
    tags: list[dict[str, Any]] = [  # Any: JSON
        {"name": "a", "kind": "int32", "at": "$.a", "write_as": "no mark"},
        {"name": "a", "kind": "bytes", "at": "$.b"},
        {"name": "c", "kind": "int32", "at": "$.c", "writable": True, "write_as": '{"a": {value}'},
        {"name": "d", "kind": "int32", "at": "$.c", "scale": 0},
    ]
    told = Told(tags, format="json")
    found = {problem.path for problem in check(told.tags, told.options, "tags", "payload")}
    assert found == {"tags[0].write_as", "tags[1].name", "tags[1].kind", "tags[2].write_as", "tags[3].scale"}
