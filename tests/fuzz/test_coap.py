"""CoAP: messages over UDP and TCP, link format, sealed messages, bodies in blocks; then whole requests to a server's judge.

What a decoder takes must come out again as it went in; a sealed message that was changed opens never.
"""

from __future__ import annotations

import asyncio
import itertools
from pathlib import Path
from typing import Final

import msgspec

from protocols.clock import SystemClock
from protocols.coap.admission import MOST_BODIES, Bodies
from protocols.coap.config import Oscore
from protocols.coap.linkformat import MAX_LINKS, links_of
from protocols.coap.message import Block, Broken, Frames, Message, Option, decode_udp, encode_tcp, encode_udp, ordered, uint
from protocols.coap.oscore import Challenge, Context, Sealed, hint_of
from protocols.coap.plan import place
from protocols.coap.server import PushSession, devices_of
from protocols.coap.server_config import CoapServer
from protocols.secret import FromFile
from tests.fuzz.campaign import frames, run, run_in_loop, seed
from tests.fuzz.mutate import Mutator

COUNT: Final = frames(8_000, 100_000)
ASKED: Final = ordered(*place("/sensors/t1", ("unit=C",)), (Option.OBSERVE, b""), (Option.ACCEPT, uint(112)))
STATE: Final = place("/one/state")
BLOCK: Final = Block(number=0, more=True, exponent=2).option(27)
IN_BLOCKS: Final = ordered(*STATE, (Option.CONTENT_FORMAT, uint(50)), (Option.SIZE1, uint(5000)), BLOCK)
SAMPLES: Final = [
    Message(code=1, options=ASKED, token=b"abcdef"),
    Message(code=0x45, options=ordered((Option.CONTENT_FORMAT, b""), (Option.MAX_AGE, b"Z")), payload=b"21.5", token=b"abcdef", type=2),
    Message(code=2, options=IN_BLOCKS, payload=b'{"level": 3.75, "note": "' + b"x" * 39, token=b"1", type=0),
    Message(code=3, options=ordered(*STATE, (Option.CONTENT_FORMAT, uint(60))), payload=b"\xa1elevel\xf9>\0", token=b"2"),
    Message(code=2, options=ordered((Option.OSCORE, b"\x09\x14\x01")), payload=bytes(range(30)), token=b"3", type=0),
    Message(code=0xE1, options=((2, uint(1152)), (4, b""))),
    Message(code=0, type=0, id=9),
]
LINKS = [
    b'</sensors>;ct=40;title="Sensor Index",</sensors/temp>;rt="temperature-c";if="sensor",</obs>;obs;ct="0 50"',
    b'</>;title="General Info";ct=0,</time>;if="clock";rt="ticks";title="Internal Clock";ct=0;obs,</async>;ct=0',
]


def test_a_datagram_is_a_message_or_broken() -> None:
    number = seed()
    mutator = Mutator(number, [encode_udp(one) for one in SAMPLES], longest=2000)

    def judge(content: bytes) -> None:
        try:
            message = decode_udp(content)
        except Broken:
            return
        assert decode_udp(encode_udp(message)) == message
        message.block(Option.BLOCK1)
        assert len(message.path) <= 64

    run("coap-udp", mutator.make, judge, seed=number, count=COUNT)


def test_a_stream_is_messages_or_broken() -> None:
    number = seed()
    mutator = Mutator(number, [encode_tcp(one) for one in SAMPLES], longest=2000)

    def judge(content: bytes) -> None:
        whole, pieces = Frames(4096), Frames(4096)
        try:
            messages = whole.feed(content)
        except Broken:
            return
        cut = len(content) // 3
        assert pieces.feed(content[:cut]) + pieces.feed(content[cut:]) == messages
        assert len(whole._kept) <= len(content)

    run("coap-tcp", mutator.make, judge, seed=number, count=COUNT)


def test_link_format_is_links_or_nothing() -> None:
    number = seed()
    mutator = Mutator(number, LINKS, longest=4000)

    def judge(content: bytes) -> None:
        for link in links_of(content)[:MAX_LINKS]:
            assert link.path.startswith("/")
            assert all(0 <= form <= 99999 for form in link.formats)

    run("coap-links", mutator.make, judge, seed=number, count=COUNT)


def test_a_sealed_message_that_was_changed_opens_never(tmp_path: Path) -> None:
    number = seed()
    (tmp_path / "secret").write_text("0102030405060708090a0b0c0d0e0f10")
    keys = [
        Oscore(sender_id=ours, recipient_id=theirs, master_secret=FromFile(path=str(tmp_path / "secret")))
        for ours, theirs in (("", "01"), ("01", ""))
    ]
    client, server = (Context(one, str(tmp_path), "device") for one in keys)

    async def sealed() -> Message:
        client.open()
        server.open()
        await client.ready()
        await server.ready()
        first, binding = client.seal(SAMPLES[0])
        try:
            server.open_sealed(first)
        except Challenge as challenge:
            echo = client.open_sealed(challenge.answer, binding)[0].first(Option.ECHO)
        assert echo is not None
        server.open_sealed(client.seal(msgspec.structs.replace(SAMPLES[0], options=SAMPLES[0].but((Option.ECHO, echo))))[0])
        good = client.seal(SAMPLES[1 + 2])[0]
        await client.leave()
        await server.leave()
        return good

    good = asyncio.run(sealed())
    number_of_good = (good.first(Option.OSCORE) or b"")[1:2]
    wire = encode_udp(good)
    mutator = Mutator(number, [wire], longest=400)

    def judge(content: bytes) -> None:
        try:
            message = decode_udp(content)
        except Broken:
            return
        option = message.first(Option.OSCORE) or b""
        if not message.is_request or (message.payload == good.payload and option[1:2] == number_of_good):
            return  # the key id only says whose keys to try
        try:
            hint_of(option)
            server.open_sealed(message)
        except Sealed:
            return
        raise AssertionError("it opened")

    run("coap-oscore", mutator.make, judge, seed=number, count=COUNT)


def test_bodies_in_blocks_stay_within_bounds() -> None:
    number = seed()
    mutator = Mutator(number, [encode_udp(SAMPLES[2])], longest=300)
    bodies, turn = Bodies(), itertools.count()

    def judge(content: bytes) -> None:
        try:
            message = decode_udp(content)
        except Broken:
            return
        at = next(turn)
        answer = bodies.take(at % 500, "/one/state", message, 3000, at / 1000)
        assert len(answer.payload) <= 3000
        assert len(bodies._open) <= MOST_BODIES
        assert bodies._bytes == sum(len(body.content) for body in bodies._open.values())

    run("coap-blocks", mutator.make, judge, seed=number, count=COUNT)


async def test_a_server_answers_or_refuses_whatever_is_pushed() -> None:
    number = seed()
    mutator = Mutator(number, [encode_udp(one) for one in SAMPLES], longest=1200)
    tags = [{"name": "level", "kind": "float64", "at": "$.level"}, {"name": "note", "kind": "string", "at": "$.note"}]
    device = {"name": "one", "path": "/one", "resources": [{"path": "/state", "tags": tags}]}
    options = msgspec.convert({"type": "coap-server", "name": "line", "devices": [device]}, CoapServer)
    session = PushSession(options, devices_of(options), SystemClock())

    async def take() -> None:
        async for _ in session.batches():
            pass

    taking = asyncio.create_task(take())
    await asyncio.sleep(0)

    async def judge(content: bytes) -> None:
        try:
            message = decode_udp(content)
        except Broken:
            return
        if message.is_request:
            response = await session.handle(message, "192.0.2.7", 1)
            assert response is not None
            assert response.is_response
            assert response.payload == b""
            assert len(encode_udp(response)) <= 40

    await run_in_loop("coap-server", mutator.make, judge, seed=number, count=COUNT)
    taking.cancel()
    await asyncio.gather(taking, return_exceptions=True)
    await session.close()
    assert len(session.findings) <= 200
