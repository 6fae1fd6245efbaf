"""Accounts and gaps agree with plain sets of numbers."""

from __future__ import annotations

from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from gateway.journal.age import Moment
from gateway.journal.ledger import MOST_UNTOLD, Book, decode_state
from gateway.journal.record import Lane
from gateway.journal.spans import Account, Facts, Gaps

SETTLEMENTS = st.lists(st.tuples(st.integers(1, 60), st.integers(0, 20), st.sampled_from(["acknowledged", "full", "missing"])), max_size=30)


@given(SETTLEMENTS, st.integers(1, 20))
def test_each_record_is_settled_once_by_the_first_cause(settlements: list[tuple[int, int, str]], start: int) -> None:
    account = Account(start, start)
    causes: dict[int, str] = {}
    for first, more, cause in settlements:
        fresh = [seq for seq in range(max(first, start), first + more + 1) if seq not in causes]
        assert account.settle(first, first + more, cause) == len(fresh)
        causes |= dict.fromkeys(fresh, cause)
    for until in (start, 30, 100):
        pending = [seq for seq in range(start, until) if seq not in causes]
        assert [seq for a, b in account.pending(until) for seq in range(a, b + 1)] == pending
        assert account.pending_records(until) == len(pending)
    assert {cause: n for cause, n in account.counts.items() if n} == {
        cause: list(causes.values()).count(cause) for cause in causes.values()
    }


@given(SETTLEMENTS)
def test_a_gap_keeps_its_first_reason(settlements: list[tuple[int, int, str]]) -> None:
    gaps = Gaps()
    reasons: dict[int, str] = {}
    for first, more, reason in settlements:
        fresh = [seq for seq in range(first, first + more + 1) if seq not in reasons]
        assert [seq for a, b in gaps.add(first, first + more, 1, reason) for seq in range(a, b + 1)] == fresh
        reasons |= dict.fromkeys(fresh, reason)
    assert {seq: reason for a, b, _, reason in gaps.spans for seq in range(a, b + 1)} == reasons
    assert [seq for a, b in gaps.outside(5, 50) for seq in range(a, b + 1)] == [seq for seq in range(5, 51) if seq not in reasons]


@given(SETTLEMENTS, st.integers(1, 20))
def test_what_is_lost_while_pending_stays_untold_until_it_is_acknowledged(settlements: list[tuple[int, int, str]], start: int) -> None:
    account = Account(start, start)
    settled: set[int] = set()
    untold: set[int] = set()
    for first, more, cause in settlements:
        span = set(range(max(first, start), first + more + 1))
        if cause == "acknowledged":
            assert account.acknowledge(first, first + more) == bool(span - settled or span & untold)
            untold -= span
        else:
            account.settle(first, first + more, cause)
            untold |= span - settled
        settled |= span
    assert {seq for a, b in account.untold for seq in range(a, b + 1)} == untold
    assert all(before[1] + 1 < after[0] for before, after in pairwise(account.untold))


def test_a_stored_account_is_bounded_however_much_was_lost_and_not_told() -> None:
    """What is forgotten are the oldest losses that were not told: they stay counted."""
    book = Book(Lane.TELEMETRY)
    book.reader("cloud", 1)
    book.next = 10 * MOST_UNTOLD
    for seq in range(1, 4 * MOST_UNTOLD, 2):
        book.acknowledge("cloud", seq, seq)
        book.lose(seq + 1, seq + 1, 7, "too-large")
    state = decode_state(book.state(book.next, 0, Moment(0.0, 1, 0), Facts(7, 1, 2))[1])
    assert state is not None
    again = Book(Lane.TELEMETRY)
    again.restore(state)
    untold = again.untold("cloud", book.next)
    assert untold == book.untold("cloud", book.next)[-MOST_UNTOLD:]
    assert len(untold) == MOST_UNTOLD
    assert again.readers["cloud"].counts == book.readers["cloud"].counts


def test_acknowledging_in_order_keeps_nothing_but_a_number() -> None:
    account = Account(1, 1)
    for first in range(1, 10_001, 10):
        account.settle(first, first + 9, "acknowledged")
    assert account.spans == []
    assert account.pending(10_011) == ((10_001, 10_010),)
