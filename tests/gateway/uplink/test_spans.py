"""Spans are a set of integers: compared with one."""

from __future__ import annotations

import itertools

from hypothesis import given
from hypothesis import strategies as st

from gateway.uplink.spans import Spans

Step = tuple[bool, int, int]
steps = st.lists(st.tuples(st.booleans(), st.integers(0, 60), st.integers(-2, 12)), max_size=40)


@given(steps)
def test_adding_and_removing_does_what_a_set_does(taken: list[Step]) -> None:
    spans, model = Spans(), set[int]()
    for adds, first, length in taken:
        numbers = set(range(first, first + length + 1))
        if adds:
            assert spans.add(first, first + length) == len(numbers - model)
            model |= numbers
        else:
            spans.remove(first, first + length)
            model -= numbers
        assert spans.count() == len(model)
    assert {number for first, last in spans for number in range(first, last + 1)} == model
    assert all(number in spans for number in model)
    assert not any(number in spans for number in set(range(80)) - model)
    told = list(spans)
    assert all(before[1] + 1 < after[0] for before, after in itertools.pairwise(told)), "sorted, disjoint, not adjacent"
    assert len(spans) == len(told)


@given(steps, st.integers(0, 60), st.integers(0, 60))
def test_gaps_are_what_is_not_in_the_set(taken: list[Step], first: int, last: int) -> None:
    spans = Spans()
    for adds, at, length in taken:
        (spans.add if adds else spans.remove)(at, at + length)
    gaps = {number for a, b in spans.gaps(first, last) for number in range(a, b + 1)}
    assert gaps == {number for number in range(first, last + 1) if number not in spans}


def test_a_million_in_order_take_one_span() -> None:
    spans = Spans()
    for seq in range(1_000_000):
        spans.add(seq, seq)
    assert list(spans) == [(0, 999_999)]
