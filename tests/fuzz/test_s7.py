"""A controller's answer, spoilt: it is taken apart, or it is one of the two documented errors; and memory becomes values or nothing."""

from __future__ import annotations

import struct
from typing import Final

from protocols.model import Kind
from protocols.s7.address import BadAddress, parse
from protocols.s7.answer import BadAnswer, NotServed, items, parts
from protocols.s7.check import size
from protocols.s7.config import Tag
from protocols.s7.words import raw_value
from tests.fuzz.campaign import frames, run, seed
from tests.fuzz.mutate import Mutator
from tests.peers.s7_hostile import item, reply

REQUEST: Final = struct.pack(">BBHHHH", 0x32, 1, 0, 1, 26, 0)
ANSWERS: Final = frames(20_000, 1_000_000)
SIZES: Final = (1, 4, 22)
CORPUS: Final = [
    reply(REQUEST, b"\x04\x03", item(b"\7") + b"\0" + item(b"abcd") + item(b"\x14\x05Pumps" + bytes(15))),
    reply(REQUEST, b"\x04\x03", item(b"\7") + b"\0" + item(b"", code=0x0A) + item(b"\x14\x14" + b"x" * 20)),
    reply(REQUEST, b"\x04\x03", bytes.fromhex("ff090001 0700 ff090004 00000001 05000000")),
    reply(REQUEST, b"", error=0x8104, kind=2),
]
TAGS: Final = (
    Tag(name="a", kind=Kind.BOOL, at="DB1.DBX0.5"),
    Tag(name="b", kind=Kind.FLOAT32, at="DB1.DBD4"),
    Tag(name="c", kind=Kind.STRING, at="DB1.DBB8", length=20),
)
ADDRESSES: Final = [b"DB10.DBX4.3", b"DB10.DBW2", b"IW4", b"M7.0", b"QD65535", b"%DB1.DBD0", b"E0.1"]


def judge(content: bytes) -> None:
    """Every item has the size that was asked for, or is a code."""
    try:
        parameters, data = parts(content, 1)
        found = items(data, SIZES)
    except (BadAnswer, NotServed):
        return
    assert len(parameters) + len(data) + 12 == len(content)
    assert len(found) == len(SIZES)
    for part, wanted, tag in zip(found, SIZES, TAGS, strict=True):
        if isinstance(part, int):
            assert 0 <= part < 0xFF
            continue
        assert len(part) == wanted == size(tag)
        value = raw_value(part, tag, parse(tag.at))
        assert value is None or isinstance(value, bool | float | str)
        assert not isinstance(value, str) or len(value) <= tag.length


def judge_address(content: bytes) -> None:
    try:
        place = parse(content.decode("latin-1"))
    except BadAddress:
        return
    assert 0 <= place.byte <= 65535
    assert 0 <= place.block <= 65535
    assert place.bit is None or 0 <= place.bit <= 7


def test_spoilt_answers_are_items_or_refused() -> None:
    drawn = seed()
    for good in CORPUS[:3]:
        parameters, data = parts(good, 1)
        assert (parameters, len(items(data, SIZES))) == (b"\x04\x03", 3), "the corpus is right before it is spoilt"
    run("s7 answers", Mutator(drawn, CORPUS).make, judge, seed=drawn, count=ANSWERS)


def test_spoilt_addresses_are_refused_with_advice() -> None:
    drawn = seed()
    run("s7 addresses", Mutator(drawn, ADDRESSES, longest=40).make, judge_address, seed=drawn, count=ANSWERS)
