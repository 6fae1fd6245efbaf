"""What differs between two documents, as it is told."""

from __future__ import annotations

from gateway.config.differences import LONGEST_VALUE, MOST, differences, text_difference

OLD = {
    "gateway": {"group": "plant", "name": "edge"},
    "connections": [{"name": "hall", "devices": [{"name": "m-1", "scan_s": 1}, {"name": "m-2", "scan_s": 1}]}],
    "names": [1, 2],
}


def paths(before: object, after: object) -> dict[str, str]:
    found, more = differences(before, after)
    assert more == 0
    return {one.path: one.kind for one in found}


def test_equal_documents_differ_in_nothing() -> None:
    assert paths(OLD, dict(OLD)) == {}


def test_entries_are_known_by_their_names_wherever_they_stand() -> None:
    new = {
        **OLD,
        "connections": [{"name": "hall", "devices": [{"name": "m-2", "scan_s": 0.5}, {"name": "m-3"}, {"name": "m-1", "scan_s": 1}]}],
    }
    assert paths(OLD, new) == {
        "connections[hall].devices[m-2].scan_s": "changed",
        "connections[hall].devices[m-3]": "added",
    }


def test_what_goes_what_comes_and_lists_without_names() -> None:
    assert paths(OLD, {"gateway": OLD["gateway"], "names": [2, 1], "api": {}}) == {
        "connections": "removed",
        "names": "changed",
        "api": "added",
    }


def test_a_bool_is_no_number() -> None:
    assert paths({"a": 1}, {"a": True}) == {"a": "changed"}


def test_a_diff_stays_small_whatever_was_sent() -> None:
    found, more = differences({}, {str(at): at for at in range(MOST + 7)})
    assert (len(found), more) == (MOST, 7)
    (one,) = differences({"a": 1}, {"a": "x" * (LONGEST_VALUE + 1)})[0]
    assert len(one.after) < 50
    assert text_difference(b"a\n" * 20_000, b"b\n", "a", "b") == ""


def test_json_is_compared_one_value_a_line() -> None:
    text = text_difference(b'{"a": 1, "b": 2}', b'{"a": 1, "b": 3}', "revision 1", "revision 2")
    assert '-  "b": 2\n+  "b": 3\n' in text
