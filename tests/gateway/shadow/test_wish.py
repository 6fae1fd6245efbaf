"""What may be desired of a tag, and what becomes of it."""

from __future__ import annotations

import msgspec
import pytest

from gateway.shadow.wish import FAILED_S, REFUSED_S, Unwishable, Wish, WishState, after, same, seen, wished
from protocols.model import Kind, OutcomeState, Tag

JsonValue = bool | int | float | str | None


def wish(value: JsonValue = 5, **more: object) -> Wish:
    return msgspec.structs.replace(Wish(value=value, version=1, state=WishState.PENDING, by="user:anna", set_ns=1), **more)


@pytest.mark.parametrize(
    ("kind", "value", "taken"),
    [
        (Kind.BOOL, True, True),
        (Kind.UINT16, 65535, 65535),
        (Kind.UINT16, 7.0, 7),
        (Kind.UINT64, 2**64 - 1, 2**64 - 1),
        (Kind.FLOAT32, 3, 3.0),
        (Kind.STRING, "north", "north"),
        (Kind.BYTES, "aGk=", b"hi"),
    ],
)
def test_a_value_of_the_right_kind_is_taken(kind: Kind, value: JsonValue, taken: object) -> None:
    assert wished(value, Tag(name="t", kind=kind)) == taken


@pytest.mark.parametrize(
    ("kind", "value"),
    [
        (Kind.BOOL, 1),
        (Kind.UINT16, True),
        (Kind.UINT16, 65536),
        (Kind.INT8, -129),
        (Kind.INT32, 1.5),
        (Kind.FLOAT64, "1"),
        (Kind.FLOAT64, 10**400),
        (Kind.STRING, 5),
        (Kind.STRING, "x" * 5000),
        (Kind.BYTES, "no base64!"),
        (Kind.UINT16, None),
    ],
)
def test_any_other_value_is_refused_and_why_is_said(kind: Kind, value: JsonValue) -> None:
    with pytest.raises(Unwishable, match=r"\w+ \w+"):
        wished(value, Tag(name="t", kind=kind))


def test_what_a_float32_or_a_scale_loses_makes_no_difference_and_anything_else_does() -> None:
    assert same(21.3, 21.299999237060547)
    assert same(21.3, 213 * 0.1)
    assert not same(21.3, 21.4)
    assert not same(2**53, 2**53 + 1)
    assert not same(True, 1)
    assert not same("1", 1)


def test_what_the_device_took_is_in_sync_until_somebody_else_changes_it() -> None:
    done = after(wish(tries=1), OutcomeState.VERIFIED, "", 5, now_ns=100, now_s=0.0)
    assert seen(done, 4, time_ns=90) is WishState.IN_SYNC, "a value from before it was written says nothing"
    assert seen(done, 5, time_ns=110) is WishState.IN_SYNC
    assert seen(done, 6, time_ns=110) is WishState.DIVERGED
    assert not done.is_open, "nobody fights whoever stands at the panel"


def test_a_device_that_rounds_has_what_it_made_of_the_wish() -> None:
    done = after(wish(5.04, tries=1), OutcomeState.VERIFIED, "", 5.0, now_ns=100, now_s=0.0)
    assert seen(done, 5.0, time_ns=110) is WishState.IN_SYNC


def test_a_mismatch_is_not_tried_again() -> None:
    ended = after(wish(5000, tries=1), OutcomeState.MISMATCH, "wrote 5000, read back 1000", 1000, now_ns=100, now_s=0.0)
    assert (ended.state, ended.is_open) == (WishState.MISMATCH, False)


@pytest.mark.parametrize(
    ("outcome", "state", "pauses"),
    [
        (OutcomeState.FAILED, WishState.PENDING, FAILED_S),
        (OutcomeState.EXPIRED, WishState.PENDING, FAILED_S),
        (OutcomeState.REFUSED, WishState.REFUSED, REFUSED_S),
    ],
)
def test_what_failed_or_was_refused_is_tried_again_with_growing_pauses(
    outcome: OutcomeState, state: WishState, pauses: tuple[float, float]
) -> None:
    first, longest = pauses
    ended = [after(wish(tries=tries), outcome, "no", None, now_ns=1, now_s=1000.0) for tries in (1, 2, 3, 50, 10_000)]
    assert {one.state for one in ended} == {state}
    assert [one.due_s - 1000.0 for one in ended] == [first, 2 * first, 4 * first, longest, longest]
