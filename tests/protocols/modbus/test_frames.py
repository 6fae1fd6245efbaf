"""Frames: an answer is believed only if everything fits; whatever else comes is told apart, limited, and never data."""

from __future__ import annotations

import random

import pytest

from protocols.modbus.frames import (
    MAX_PDU,
    TCP_HEADER,
    Taken,
    Verdict,
    is_answer,
    is_exception,
    read_request,
    take_rtu,
    take_tcp,
    write_request,
)
from tests.protocols.modbus.plc import crc

READ = read_request(17, bytes.fromhex("03006b0003"), 6)
CONTENT = bytes.fromhex("022b00000064")
ANSWER = b"\x03\x06" + CONTENT
"""The example of the specification (V1.1b3, 6.3)."""


def tcp(pdu: bytes, *, unit_id: int = 17, transaction: int = 5) -> bytes:
    return transaction.to_bytes(2, "big") + b"\0\0" + (len(pdu) + 1).to_bytes(2, "big") + bytes((unit_id,)) + pdu


def rtu(pdu: bytes, *, unit_id: int = 17) -> bytes:
    return (body := bytes((unit_id,)) + pdu) + crc(body)


def test_requests_are_the_specifications() -> None:
    assert READ.tcp == bytes.fromhex("0000 0006 11 03006b0003")
    assert READ.rtu == bytes.fromhex("11 03006b0003 7687")


def test_an_answer_that_fits_is_taken() -> None:
    assert take_tcp(tcp(ANSWER), READ, 5) == Taken(Verdict.ANSWER, 15, ANSWER)
    assert take_rtu(rtu(ANSWER), READ) == Taken(Verdict.ANSWER, 11, ANSWER)


def test_what_is_taken_at_a_glance_is_what_a_full_look_takes() -> None:
    """Good answers with everything changed that can be: one bit, the length, the request, the transaction."""
    dice = random.Random(11)
    requests = [READ, read_request(1, b"\x01\x00\x00\x00\x09", 2), write_request(17, bytes.fromhex("10 0001 0002 04 000a 0102"))]
    glances = 0
    for _ in range(5000):
        asked, answered = dice.choice(requests), dice.choice(requests)
        frame = bytearray(tcp(answered.head.ljust(answered.expect, b"\1"), unit_id=answered.unit_id, transaction=dice.choice([5, 5, 6])))
        if dice.random() < 0.5:
            frame[dice.randrange(len(frame))] ^= 1 << dice.randrange(8)
        whole = bytes(frame[: dice.choice([len(frame), len(frame), len(frame) - 1])]) + dice.choice([b"", b"", b"\0"])
        taken = take_tcp(whole, asked, 5)
        at_a_glance = is_answer(whole, asked, b"\0\5")
        assert at_a_glance == (taken.verdict is Verdict.ANSWER and taken.used == len(whole) and not is_exception(taken.pdu))
        if at_a_glance:
            assert taken.pdu == whole[TCP_HEADER:]
        glances += at_a_glance
    assert glances > 200


def test_an_exception_is_an_answer() -> None:
    for taken in (take_tcp(tcp(b"\x83\x02"), READ, 5), take_rtu(rtu(b"\x83\x02"), READ)):
        assert taken.verdict is Verdict.ANSWER
        assert is_exception(taken.pdu)


@pytest.mark.parametrize("frame", [tcp(ANSWER), tcp(b"\x83\x02")])
def test_an_answer_cut_at_any_place_is_awaited_and_rubbish_after_it_is_left(frame: bytes) -> None:
    for size in range(1, len(frame)):
        assert take_tcp(frame[:size], READ, 5).verdict is Verdict.MORE
    assert take_tcp(frame + b"rubbish", READ, 5).used == len(frame)


@pytest.mark.parametrize("frame", [rtu(ANSWER), rtu(b"\x83\x02")])
def test_an_rtu_answer_cut_at_any_place_is_awaited_and_rubbish_after_it_is_left(frame: bytes) -> None:
    for size in range(1, len(frame)):
        assert take_rtu(frame[:size], READ).verdict is Verdict.MORE
    assert take_rtu(frame + b"rubbish", READ).used == len(frame)


@pytest.mark.parametrize(
    ("frame", "verdict"),
    [
        (tcp(ANSWER, transaction=4), Verdict.FOREIGN),
        (tcp(ANSWER, unit_id=18), Verdict.FOREIGN),
        (tcp(b"\x04\x06" + CONTENT), Verdict.WRONG),
        (tcp(b"\x03\x04" + CONTENT[:4]), Verdict.WRONG),
        (tcp(b"\x03\x06" + CONTENT[:4]), Verdict.WRONG),
        (tcp(b"\x03\x04" + CONTENT), Verdict.WRONG),
        (tcp(b"\x84\x02"), Verdict.WRONG),
        (tcp(b"\x83\x02\x00"), Verdict.WRONG),
        (b"HTTP/1.1 400 Bad Request", Verdict.GARBAGE),
        (tcp(b"x" * (MAX_PDU + 1)), Verdict.GARBAGE),
        (bytes.fromhex("0005 0000 ffff 11 03"), Verdict.GARBAGE),
        (bytes.fromhex("0005 0000 0000 11 03"), Verdict.GARBAGE),
        (bytes.fromhex("0005 0000 0002 11 03"), Verdict.GARBAGE),
    ],
)
def test_what_does_not_fit_over_tcp(frame: bytes, verdict: Verdict) -> None:
    taken = take_tcp(frame, READ, 5)
    assert taken.verdict is verdict
    assert taken.why
    assert taken.used > 0


def test_an_answer_nobody_waits_for_is_foreign() -> None:
    assert take_tcp(tcp(ANSWER), None, 5).verdict is Verdict.FOREIGN
    assert take_rtu(rtu(ANSWER), None).verdict is Verdict.GARBAGE


@pytest.mark.parametrize(
    "frame",
    [
        rtu(ANSWER, unit_id=18),
        rtu(b"\x04\x06" + CONTENT),
        rtu(b"\x03\x04" + CONTENT[:4]),
        rtu(ANSWER)[:-1] + b"\0",
        rtu(b"\x84\x02"),
        rtu(b"\x83\x02")[:-1] + b"\0",
        b"HTTP/1.1",
    ],
)
def test_what_does_not_fit_over_rtu_is_garbage(frame: bytes) -> None:
    taken = take_rtu(frame, READ)
    assert (taken.verdict, taken.used) == (Verdict.GARBAGE, len(frame))


def test_a_driver_that_switches_on_before_an_rtu_answer_is_no_trouble() -> None:
    """Up to four bytes 00 or FF, as two-wire lines give when a device takes the bus."""
    assert take_rtu(b"\x00\xff" + rtu(ANSWER), READ).pdu == ANSWER
    assert take_rtu(b"\x00" * 5 + rtu(ANSWER), READ).verdict is Verdict.GARBAGE


@pytest.mark.parametrize(
    ("pdu", "answer"),
    [
        ("0500acff00", "0500acff00"),
        ("0600010003", "0600010003"),
        ("0f0013000a02cd01", "0f0013000a"),
        ("10000100020400 0a0102", "1000010002"),
        ("16000400f20025", "16000400f20025"),
    ],
)
def test_a_write_is_confirmed_by_its_own_echo_alone(pdu: str, answer: str) -> None:
    """The examples of the specification; any other echo is not this command's."""
    request, echo = write_request(17, bytes.fromhex(pdu)), bytes.fromhex(answer)
    assert take_tcp(tcp(echo), request, 5).verdict is Verdict.ANSWER
    assert take_rtu(rtu(echo), request).verdict is Verdict.ANSWER
    other = echo[:2] + bytes((echo[2] ^ 1,)) + echo[3:]
    assert take_tcp(tcp(other), request, 5).verdict is Verdict.WRONG
    assert take_rtu(rtu(other), request).verdict is Verdict.GARBAGE
