"""OPC UA: what a server sends, from the bytes of a connection to columns. Nothing but the documented errors comes out.

The corpus is what node-opcua sent. Chunks go through the connection as asyncua and our bounds make it; answers, types and structures
through our own decoders, and what they bring into columns, which must be consistent.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from typing import Any, Final

import pytest
from asyncua import ua

from protocols.model import SEVERITY_MASK, Kind, Quality
from protocols.opcua import answers, structures
from protocols.opcua.answers import Fault, Message
from protocols.opcua.binary import Extension, Malformed, Reader
from protocols.opcua.columns import Columns
from protocols.opcua.config import Device, Event, OpcUa, Security, Tag
from protocols.opcua.events import said_event
from protocols.opcua.nodes import Impossible, NodeId, parse
from protocols.opcua.plan import Plan, make_plan
from protocols.opcua.shell import MAX_CHUNK, _Wire
from protocols.opcua.structures import Absent, Field, Structure, Types
from tests.fuzz import corpus
from tests.fuzz.campaign import frames, run, seed
from tests.fuzz.mutate import Mutator

DECODED: Final = frames(20_000, 1_000_000)
WIRED: Final = frames(4_000, 100_000)
KINDS: Final = tuple(Kind)
NOW_NS: Final = 1_795_000_000 * 10**9

READERS: Final[dict[int, Callable[[bytes], object]]] = {
    answers.READ: answers.read,
    answers.WRITE: lambda content: answers.statuses(content, answers.WRITE),
    answers.CALL: answers.call,
    answers.BROWSE: lambda content: answers.browsed(content, answers.BROWSE),
    answers.MONITOR: answers.monitored,
    answers.SUBSCRIBE: answers.subscribed,
    answers.PUBLISH: answers.published,
}


def _plan() -> Plan:
    tags = [Tag(name=f"{kind}-{at}", at=f"i={at}" + (" > [1]" if at % 3 == 2 else ""), kind=kind) for at in range(3) for kind in KINDS]
    return make_plan(
        OpcUa(name="x", endpoint="opc.tcp://x", security=Security(policy="none"), devices=(Device(name="d", tags=tuple(tags)),))
    )


def test_no_answer_does_more_than_be_refused_or_fill_columns() -> None:
    number = seed()
    found = corpus.load("node-opcua")
    mutator = Mutator(number, list(found.values()), longest=8192)
    columns = Columns(_plan())
    event = Event(fields=("A/B",))

    def judge(content: bytes) -> None:
        for reader in {READERS.get(int.from_bytes(content[2:4], "little"), answers.read), answers.published}:
            with contextlib.suppress(Malformed, Fault):
                told = reader(content)
                if isinstance(told, Message):
                    _into_columns(told, columns, event)

    run("opcua-answers", mutator.make, judge, seed=number, count=DECODED)


def _into_columns(message: Message, columns: Columns, event: Event) -> None:
    for part in message.changes:
        part.handles[:] = [handle % (len(KINDS) * 3 + 1) for handle in part.handles]
        for batch in columns.changes(part, NOW_NS):
            bad = (batch.quality & SEVERITY_MASK) >= int(Quality.BAD)
            assert len(batch.tag) == len(batch.value) == len(batch.quality) == len(batch.time_ns) == len(set(batch.tag.tolist()))
            assert set(batch.quality.tolist()) <= set(Quality)
            assert not any(batch.value[bad].tolist())
            assert int(batch.time_ns.max()) <= NOW_NS + 86_401 * 10**9
            assert int(batch.time_ns.min()) >= 946_684_800 * 10**9
    for one in message.events:
        told = said_event(event, one.fields, ["", "urn:x"])
        assert told is None or isinstance(told[0], str)


INNER: Final = Structure(NodeId(2, 11), NodeId(0, 22), 0, (Field("x", NodeId(0, 11), -1, False), Field("s", NodeId(0, 12), -1, False)))
FIELDS: Final = (
    Field("name", NodeId(0, 12), -1, False),
    Field("maybe", NodeId(0, 6), -1, True),
    Field("inner", NodeId(2, 1), -1, False),
    Field("many", NodeId(2, 1), 1, False),
    Field("numbers", NodeId(0, 11), 1, False),
    Field("any", NodeId(0, 24), -1, True),
    Field("self", NodeId(2, 2), 1, True),
)


def test_no_structure_does_more_than_be_refused() -> None:
    number = seed()
    types = Types.none()
    types.add(NodeId(2, 1), INNER)
    for form in range(5):
        shape = Structure(NodeId(2, 20 + form), NodeId(0, 22), form, FIELDS)
        types.encodings[shape.encoding] = types.structures[NodeId(2, 2)] = shape
    inner = bytes(8) + b"\x01\0\0\0c"
    body = b"\x7f\0\0\0\x02\0\0\0ab" + bytes(4) + inner + b"\x01\0\0\0" + inner + b"\x02\0\0\0" + bytes(16) + b"\x06\x01\0\0\0" + bytes(8)
    mutator = Mutator(number, [body, b"\x01" + body, bytes(200)])

    def judge(content: bytes) -> None:
        for form in range(5):
            with contextlib.suppress(Malformed, Absent):
                structures.fields(Extension(NodeId(2, 20 + form), content), types)
        with contextlib.suppress(Malformed):
            structures.definition(Extension(structures.STRUCTURE_DEFINITION, content))

    run("opcua-structures", mutator.make, judge, seed=number, count=DECODED)


def test_no_text_does_more_than_be_no_place() -> None:
    number = seed()
    texts = ["nsu=http://a%3Bb;s=x > [3] > y", "ns=2;g=09087e75-8e5e-499b-954f-f2a9603db28a", "b=YWJj > start()", "i=2253"]
    mutator = Mutator(number, [text.encode() for text in texts], longest=300)

    def judge(content: bytes) -> None:
        with contextlib.suppress(Impossible):
            place = parse(content.decode("utf-8", "replace"))
            assert parse(str(place)) == place

    run("opcua-places", mutator.make, judge, seed=number, count=DECODED)


class _Transport:
    """Takes what is written, and can be closed."""

    def __init__(self) -> None:
        self.closed = False

    def write(self, content: bytes) -> None:
        pass

    def close(self) -> None:
        self.closed = True

    abort = close

    def is_closing(self) -> bool:
        return self.closed


async def test_no_chunk_does_more_than_end_the_connection() -> None:
    """Whatever comes, in whatever pieces: the connection is closed or waits, holds a chunk at most, and raises nothing."""
    number = seed()
    chunks = list(corpus.load("node-opcua-wire").values())
    mutator = Mutator(number, chunks, longest=8192)

    def judge(content: bytes) -> None:
        wire = _Wire(1.0)
        transport: Any = _Transport()  # Any: what the connection needs of a transport
        wire.connection_made(transport)
        wire._open_secure_channel_exchange = ua.OpenSecureChannelParameters()
        futures = [asyncio.get_running_loop().create_future() for _ in range(30)]
        wire._callbackmap.update(enumerate(futures))
        at = mutator.dice.randrange(len(chunks))
        stream = b"".join([*chunks[:at], content, *chunks[at + 1 :]])
        while stream and not transport.closed:
            size = mutator.dice.randrange(1, 4000)
            wire.data_received(stream[:size])
            stream = stream[size:]
            assert len(wire._pending) <= MAX_CHUNK
        assert transport.closed or wire.trouble is None
        for future in futures:
            if future.done() and not future.cancelled():
                future.exception()
            future.cancel()

    run("opcua-wire", mutator.make, judge, seed=number, count=WIRED)


@pytest.mark.parametrize("name", sorted(corpus.load("node-opcua")))
def test_an_answer_cut_anywhere_is_malformed_and_nothing_else(name: str) -> None:
    content = corpus.load("node-opcua")[name]
    read = READERS[int(name.split("-")[0])]
    read(content)
    for at in range(0, len(content), 7 if len(content) > 500 else 1):
        with contextlib.suppress(Malformed, Fault):
            read(content[:at])


def test_a_length_that_lies_makes_nothing() -> None:
    for count in (2**31 - 1, 2**30, 65536):
        with pytest.raises(Malformed):
            Reader(b"\x8b" + count.to_bytes(4, "little") + b"\0" * 100).variant()
