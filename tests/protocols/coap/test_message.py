"""CoAP messages as bytes, held against aiocoap's; block options, and streams in pieces of any size."""

from __future__ import annotations

import random

import aiocoap  # type: ignore[import-untyped] # it has no marker
import pytest

from protocols.coap.message import Block, Broken, Frames, Message, Option, decode_udp, encode_tcp, encode_udp, ordered, said, uint

DICE = random.Random(7)
NUMBERS = (1, 4, 6, 12, 14, 23, 60, 252, 292, 2048, 60000)
LENGTHS = (0, 1, 5, 12, 13, 14, 200, 268, 269, 270, 900)


def made() -> Message:
    options = ordered(*((DICE.choice(NUMBERS), DICE.randbytes(DICE.choice(LENGTHS))) for _ in range(DICE.randrange(6))))
    return Message(
        code=DICE.choice((1, 2, 69, 132)),
        options=options,
        payload=DICE.randbytes(DICE.choice((0, 1, 50))),
        token=DICE.randbytes(DICE.randrange(9)),
        type=DICE.randrange(4),
        id=DICE.randrange(65536),
    )


def test_what_is_encoded_is_decoded() -> None:
    for _ in range(2000):
        message = made()
        assert decode_udp(encode_udp(message)) == message


def test_aiocoap_reads_what_we_write() -> None:
    message = Message(
        code=1,
        options=ordered((Option.URI_PATH, b"sensors"), (Option.URI_PATH, "ü".encode()), (Option.ACCEPT, uint(112)), (Option.OBSERVE, b"")),
        token=b"abcd",
        type=0,
        id=0x1234,
    )
    theirs = aiocoap.Message.decode(encode_udp(message))
    assert (theirs.opt.uri_path, int(theirs.opt.accept), theirs.opt.observe) == (("sensors", "ü"), 112, 0)
    assert (theirs.token, theirs.mid, int(theirs.mtype)) == (b"abcd", 0x1234, 0)


def test_we_read_what_aiocoap_writes() -> None:
    theirs = aiocoap.Message(code=aiocoap.CONTENT, payload=b"21.5", _mtype=2, _mid=7, _token=b"t")
    theirs.opt.block2 = (3, True, 2)
    theirs.opt.max_age = 90
    ours = decode_udp(theirs.encode())
    assert (ours.payload, ours.uint(Option.MAX_AGE), ours.block(Option.BLOCK2)) == (b"21.5", 90, Block(number=3, more=True, exponent=2))
    assert ours.is_response
    assert ours.is_success


def test_a_stream_gives_the_same_messages_in_pieces_of_any_size() -> None:
    messages = [made() for _ in range(30)]
    wanted = [Message(code=one.code, options=one.options, payload=one.payload, token=one.token) for one in messages]
    stream = b"".join(encode_tcp(one) for one in messages)
    for size in (1, 2, 3, 7, 100, len(stream)):
        frames = Frames(10_000)
        assert [one for at in range(0, len(stream), size) for one in frames.feed(stream[at : at + size])] == wanted


def test_a_stream_that_announces_too_much_is_refused_before_it_comes() -> None:
    with pytest.raises(Broken, match="announces"):
        Frames(1000).feed(b"\xf0\xff\xff\xff\xff\x45")


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\x40",
        b"\x80\x01\x00\x01",  # version 2
        b"\x4f\x01\x00\x01" + bytes(15),  # a token of 15 bytes
        b"\x44\x01\x00\x01ab",  # a token that is not there
        b"\x40\x00\x00\x01\xffx",  # empty, and something follows
        b"\x40\x01\x00\x01\xff",  # a payload that is not there
        b"\x40\x01\x00\x01\xf1x",  # the reserved delta
        b"\x40\x01\x00\x01\x1fx",  # the reserved length
        b"\x40\x01\x00\x01\xd1",  # cut in the delta
        b"\x40\x01\x00\x01\x15abc",  # cut in the value
        b"\x40\x01\x00\x01" + b"\x00" * 65,  # more options than there may be
        b"\x40\x01\x00\x01" + b"\xe0\xff\xff" * 2,  # a number that cannot be
    ],
)
def test_what_is_no_message_is_refused(data: bytes) -> None:
    with pytest.raises(Broken):
        decode_udp(data)


def test_a_block_has_the_size_that_it_says() -> None:
    assert Block(number=0, more=True, exponent=2).fits(64)
    assert not Block(number=0, more=True, exponent=2).fits(63)
    assert Block(number=3, more=False, exponent=2).fits(0)
    assert not Block(number=3, more=False, exponent=2).fits(65)
    assert Block(number=0, more=True, exponent=7).fits(4096)  # BERT, RFC 8323
    assert not Block(number=0, more=True, exponent=7).fits(0)


def test_codes_are_said_as_people_know_them() -> None:
    assert (said(0x84), said(0x45), said(0x9E)) == ("4.04 Not Found", "2.05 Content", "4.30")
