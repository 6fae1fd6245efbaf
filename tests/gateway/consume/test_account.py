"""The consumer's account: messages and marks in, a verdict out. Each way in which records go astray is told."""

from __future__ import annotations

import random
from collections.abc import Iterable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.consume.account import MAX_WINDOWS, Account, Verdict
from gateway.journal.record import Lane
from gateway.uplink.mark import LostSpan, Mark, Stamp, Tally

LANE = Lane.TELEMETRY


class Wire:
    """A gateway that sends windows, and a wire that may lose, repeat or delay what it is told to."""

    def __init__(self, account: Account) -> None:
        self.account = account
        self.window = 100

    def send(
        self,
        first: int,
        last: int,
        *,
        epoch: int = 1,
        lose: Iterable[int] = (),
        no_mark: bool = False,
        historical: bool = False,
        gone: tuple[LostSpan, ...] = (),
        previous: tuple[int, int] | None = None,
        spoil: bool = False,
    ) -> bool | None:
        """One window with a message for each record; whether the mark was found good."""
        self.window += 1
        tally = Tally()
        skipped = {seq for span in gone for seq in range(span.first, span.last + 1)}
        kept = [seq for seq in range(first, last + 1) if seq not in skipped]
        for seq in kept:
            payload = f"{self.window} {epoch} {seq}".encode()
            tally.add(payload, 2)
            if seq not in set(lose):
                self.arrive(seq, epoch, payload + b"!" * spoil, historical)
        if no_mark:
            return None
        mark = Mark(
            uplink="cloud",
            group="g",
            gateway="gw",
            window=self.window,
            lane=LANE,
            epoch=epoch,
            first=first,
            last=last,
            previous=previous,
            records=len(kept),
            values=tally.values,
            messages=tally.messages,
            digest=tally.digest,
            lost=gone,
            historical=historical,
        )
        return self.account.mark(mark).good

    def arrive(self, seq: int, epoch: int, payload: bytes, historical: bool) -> None:
        stamp = Stamp(self.window, LANE, epoch, (seq,))
        self.account.arrived(stamp, payload, 2)
        self.account.deliver("boiler", stamp, 2, historical=historical)


@pytest.fixture
def account() -> Account:
    return Account()


@pytest.fixture
def wire(account: Account) -> Wire:
    return Wire(account)


def figures(verdict: Verdict) -> tuple[int, int, int]:
    return verdict.received, verdict.duplicate, verdict.missing


def test_nothing_astray_is_a_good_verdict(account: Account, wire: Wire) -> None:
    assert wire.send(1, 10)
    assert wire.send(11, 20)
    verdict = account.verdict()
    assert figures(verdict) == (20, 0, 0)
    assert verdict.ok
    assert (verdict.values, verdict.marks, verdict.devices["boiler"].received) == (40, 2, 20)


def test_a_lost_message_is_missing_until_it_comes_again(account: Account, wire: Wire) -> None:
    assert wire.send(1, 5)
    assert not wire.send(6, 10, lose=[7, 8])
    verdict = account.verdict()
    assert figures(verdict) == (8, 0, 2)
    assert not verdict.ok
    assert [(span.first, span.last) for span in verdict.missing_spans] == [(7, 8)]
    assert wire.send(6, 10, historical=True)
    verdict = account.verdict()
    assert figures(verdict) == (10, 3, 0)
    assert verdict.ok
    assert verdict.marks_wrong == 1


def test_a_whole_window_lost_shows_at_the_next_mark(account: Account, wire: Wire) -> None:
    wire.send(1, 5)
    wire.send(6, 10, lose=range(6, 11), no_mark=True)
    wire.send(11, 15)
    assert figures(account.verdict()) == (10, 0, 5)


def test_the_mark_alone_tells_that_records_existed(account: Account, wire: Wire) -> None:
    wire.send(1, 5)
    assert not wire.send(6, 10, lose=range(6, 11))
    assert account.verdict().missing == 5


def test_a_changed_payload_is_not_acknowledged(account: Account, wire: Wire) -> None:
    wire.send(1, 1)
    assert not wire.send(2, 3, spoil=True)


def test_two_transmissions_of_the_same_records_do_not_mix(account: Account, wire: Wire) -> None:
    wire.send(1, 5)
    wire.send(6, 10, no_mark=True)
    assert wire.send(6, 10, historical=True)
    assert figures(account.verdict()) == (10, 5, 0)


def test_the_same_mark_twice_gets_the_same_answer(account: Account) -> None:
    tally = Tally()
    stamp = Stamp(5, LANE, 1, (1,))
    account.arrived(stamp, b"x", 1)
    account.deliver("d", stamp, 1, historical=False)
    tally.add(b"x", 1)
    mark = Mark(
        uplink="u",
        group="g",
        gateway="w",
        window=5,
        lane=LANE,
        epoch=1,
        first=1,
        last=1,
        records=1,
        values=1,
        messages=1,
        digest=tally.digest,
    )
    assert account.mark(mark).good
    assert account.mark(mark).good
    assert account.verdict().marks == 1


def test_what_the_gateway_lost_is_lost_and_not_missing(account: Account, wire: Wire) -> None:
    wire.send(1, 5)
    assert wire.send(6, 20, gone=(LostSpan(8, 10, "full"), LostSpan(15, 15, "quarantined")), historical=True)
    verdict = account.verdict()
    assert figures(verdict) == (16, 0, 0)
    assert verdict.lost == {"full": 3, "quarantined": 1}


def test_a_consumer_that_starts_late_calls_nothing_missing_that_was_before(account: Account, wire: Wire) -> None:
    assert not wire.send(1001, 1010, lose=range(1001, 1006))
    verdict = account.verdict()
    assert (verdict.missing, verdict.marks_wrong) == (0, 0)
    wire.send(1011, 1020)
    assert wire.send(900, 950, historical=True)
    assert account.verdict().missing == 0
    wire.send(1021, 1030, lose=[1025])
    assert account.verdict().missing == 1


def test_a_consumer_that_was_there_from_the_beginning_expects_everything() -> None:
    account = Account(from_beginning=True)
    wire = Wire(account)
    wire.send(11, 20)
    assert account.verdict().missing == 10
    wire.send(1, 10, historical=True)
    assert account.verdict().ok


def test_an_epoch_that_continues_the_last_one_proves_that_nothing_lies_between(account: Account, wire: Wire) -> None:
    wire.send(1, 10)
    wire.send(21, 30, epoch=2, previous=(1, 20))
    assert account.verdict().missing == 10
    wire.send(11, 20, historical=True)
    assert account.verdict().missing == 0


def test_a_journal_that_starts_again_makes_new_records_of_old_numbers(account: Account, wire: Wire) -> None:
    wire.send(1, 10)
    wire.send(1, 10, epoch=2)
    assert figures(account.verdict()) == (20, 0, 0)


def test_disorder_of_a_devices_records_is_counted(account: Account, wire: Wire) -> None:
    wire.send(1, 3)
    wire.send(7, 9)
    wire.send(4, 6)
    assert account.verdict().disorder == 1, "the first of the three came after 9; the others follow it"
    assert not account.verdict().ok


def test_history_between_live_records_is_no_disorder(account: Account, wire: Wire) -> None:
    wire.send(10, 12)
    wire.send(1, 3, historical=True)
    wire.send(13, 15)
    wire.send(4, 9, historical=True)
    assert account.verdict().disorder == 0


def test_a_record_in_parts_is_received_when_all_parts_are(account: Account) -> None:
    def part(number: int, of: int) -> bool:
        return account.deliver("d", Stamp(0, LANE, 1, (1,), number, of), 3, historical=False)

    assert part(1, 3)
    assert part(0, 3)
    assert figures(account.verdict())[0] == 0
    assert part(2, 3)
    assert (account.verdict().received, account.verdict().values) == (1, 9)
    assert not part(2, 3)


def test_open_windows_are_limited(account: Account) -> None:
    for window in range(1, MAX_WINDOWS * 3):
        account.arrived(Stamp(window, LANE, 1, (window,)), b"x", 1)
        account.deliver("d", Stamp(window, LANE, 1, (window,)), 1, historical=False)
    assert len(account._windows) == len(account._unordered) == MAX_WINDOWS


@given(st.integers(0, 2**32))
def test_whatever_the_wire_does_the_verdict_is_true(seed: int) -> None:
    """A hundred records in windows, some messages lost, windows sent again: received and missing are what they are."""
    chance = random.Random(seed)
    account = Account(from_beginning=True)
    wire = Wire(account)
    came: set[int] = set()
    first = 1
    while first <= 100:
        last = min(100, first + chance.randint(0, 12))
        for attempt in range(chance.randint(1, 3)):
            lose = {seq for seq in range(first, last + 1) if chance.random() < 0.2}
            good = wire.send(first, last, lose=lose, no_mark=chance.random() < 0.2, historical=attempt > 0)
            came |= set(range(first, last + 1)) - lose
            assert good is None or good == (not lose)
        first = last + 1
    wire.send(101, 101)
    verdict = account.verdict()
    assert (verdict.received, verdict.missing) == (len(came) + 1, 100 - len(came))
