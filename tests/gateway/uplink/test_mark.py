"""Stamps and ledger marks: what goes in comes out, and nothing else is taken."""

from __future__ import annotations

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.journal.record import Lane, Lost
from gateway.uplink import mark as m
from gateway.uplink.mark import Mark, Stamp, Tally, acknowledge, decode_ack, decode_mark, decode_stamp, encode, encode_stamp

numbers = st.integers(0, 2**62)
seqs = st.lists(st.integers(0, 2**62), min_size=1, max_size=40, unique=True).map(lambda found: tuple(sorted(found)))
stamps = st.builds(Stamp, numbers, st.sampled_from(Lane), numbers, seqs, st.just(0), st.integers(1, 9))


@given(stamps)
def test_a_stamp_comes_back_as_it_was(stamp: Stamp) -> None:
    assert decode_stamp(encode_stamp(stamp)) == stamp


def test_the_bytes_of_a_stamp_stay_what_they_are() -> None:
    stamp = Stamp(1_763_697_600_123, Lane.TELEMETRY, 300, (127, 128, 5000), 2, 200)
    assert encode_stamp(stamp).hex() == "484601" + "fbccc6a4aa33" + "01" + "ac02" + "02" + "c801" + "03" + "7f" + "01" + "8826"


def test_a_stamp_is_small() -> None:
    """A message with one record pays about twenty bytes for it."""
    assert len(encode_stamp(Stamp(1_700_000_000_000, Lane.TELEMETRY, 12, (1_000_000,)))) < 20


@given(stamps)
def test_a_stamp_cut_anywhere_is_refused(stamp: Stamp) -> None:
    whole = encode_stamp(stamp)
    for cut in range(len(whole)):
        with pytest.raises(ValueError, match="stamp"):
            decode_stamp(whole[:cut])


@given(stamps, st.data())
def test_a_mutated_stamp_is_refused_or_makes_sense(stamp: Stamp, data: st.DataObject) -> None:
    mutated = bytearray(encode_stamp(stamp))
    mutated[data.draw(st.integers(0, len(mutated) - 1))] = data.draw(st.integers(0, 255))
    try:
        found = decode_stamp(bytes(mutated))
    except ValueError:
        return
    assert decode_stamp(encode_stamp(found)) == found
    assert list(found.seqs) == sorted(set(found.seqs))


@pytest.mark.parametrize("bad", [(), (5, 5), (5, 4), tuple(range(m.MAX_STAMPED + 1))])
def test_a_stamp_names_rising_records_and_not_too_many(bad: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match=r"rise|holds"):
        encode_stamp(Stamp(1, Lane.EVENTS, 1, bad))


def test_rubbish_is_no_stamp() -> None:
    for rubbish in (b"", b"HF", b"HF\x02abc", b"HF\x01" + b"\xff" * 100, b"HF\x01" + b"\x01" * 100_000):
        with pytest.raises(ValueError, match="stamp"):
            decode_stamp(rubbish)


def example(**more: object) -> Mark:
    plain = Mark(
        uplink="cloud",
        group="g",
        gateway="gw",
        window=7,
        lane=Lane.TELEMETRY,
        epoch=2,
        first=10,
        last=19,
        previous=(1, 9),
        records=8,
        values=800,
        messages=3,
        digest="0123456789abcdef",
        lost=m.lost_spans([Lost(2, 12, 13, "full")]),
        historical=True,
    )
    return msgspec.structs.replace(plain, **more)


def test_a_mark_comes_back_as_it_was() -> None:
    assert decode_mark(encode(example())) == example()


@pytest.mark.parametrize("more", [{"records": 9}, {"last": 20}, {"lost": ()}, {"first": 13, "records": 5}])
def test_a_mark_that_does_not_add_up_is_refused(more: dict[str, object]) -> None:
    with pytest.raises(ValueError, match="ledger mark"):
        decode_mark(encode(example(**more)))


@pytest.mark.parametrize("rubbish", [b"", b"{}", b"[]", b"\xff", encode(example(v=2)), encode(example(digest="short")), b"[" * 100_000])
def test_rubbish_is_no_mark(rubbish: bytes) -> None:
    with pytest.raises(ValueError):  # noqa: PT011 # each says something else
        decode_mark(rubbish)


def test_an_ack_repeats_the_marks_figures() -> None:
    ack = decode_ack(encode(acknowledge(example())))
    assert (ack.window, ack.lane, ack.epoch, ack.first, ack.last, ack.digest) == (7, Lane.TELEMETRY, 2, 10, 19, "0123456789abcdef")


def test_the_sums_do_not_depend_on_the_order_but_on_every_byte() -> None:
    def summed(*payloads: bytes) -> str:
        tally = Tally()
        for payload in payloads:
            tally.add(payload, 2)
        assert (tally.messages, tally.values) == (len(payloads), 2 * len(payloads))
        return tally.digest

    assert summed(b"one", b"two") == summed(b"two", b"one")
    assert len({summed(), summed(b"one"), summed(b"one", b"one"), summed(b"onf", b"two"), summed(b"one", b"two")}) == 5
    assert m.digest(b"holdfast") == 0x8FA2C9F0898CA45D  # printf holdfast | b2sum -l 64
