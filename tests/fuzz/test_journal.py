"""The journal's decoders, fed with rubbish: frames, records, definitions, state, and the search for frames in raw bytes.

A checksum guards each frame, so half of the spoilt frames get a true one: what is behind it must hold as well. Spoilt files
as a whole, bit by bit, are ``tests/faults/journal``'s.
"""

from __future__ import annotations

import struct
import zlib
from typing import Final

import msgspec

from gateway.journal import codec
from gateway.journal.codec import HEAD, MAGIC, FrameKind, Unreadable
from gateway.journal.ledger import BookState, _ReaderState, decode_state
from gateway.journal.record import Lane
from gateway.journal.salvage import Finds, search, whole
from gateway.journal.spans import Facts
from protocols.model import DTYPE_OF, Batch, Kind
from tests.builders import batch, device
from tests.fuzz.campaign import frames, run, seed
from tests.fuzz.mutate import Mutator

EPOCH: Final = 3
NUMBERS: Final = device(Kind.FLOAT32, Kind.FLOAT64, Kind.INT8, Kind.UINT64, Kind.BOOL, Kind.STRING, Kind.BYTES)


def _batches() -> list[Batch]:
    texts = device(*[Kind.STRING] * 3)
    flags = device(*[Kind.BOOL] * 9)
    return [
        batch(device(*[Kind.FLOAT64] * 20), [at * 0.1 for at in range(20)]),
        batch(device(*[Kind.INT16] * 5), [-1, 0, 1, 32767, -32768], slots=[4, 0, 3, 2, 1]),
        batch(texts, ["", "Kessel", "x" * 300]),
        batch(flags, [True, False] * 4 + [True], quality=0x800A0000),
        batch(device(Kind.UINT64), [2**64 - 1], lost=True),
    ]


def _frames() -> list[bytes]:
    found = []
    for at, one in enumerate(_batches()):
        definition = codec.define(one.device)
        (piece,) = codec.pack(one, definition)
        found += [content for _, content in codec.record_frames(piece, definition.id, 1, EPOCH, 100 + at, 10**18)]
        found += codec.frames(FrameKind.DEFINITION, Lane.TELEMETRY, EPOCH, definition.id, definition.body)
    return [*found, *codec.frames(FrameKind.STATE, Lane.TELEMETRY, EPOCH, 1, msgspec.msgpack.encode({"a": 1}))]


def _sealed(frame: bytes) -> bytes:
    """``frame`` with a true magic, length and checksum, whatever else is in it."""
    if len(frame) < HEAD.size:
        return frame
    body = struct.pack("<I", len(frame)) + frame[12:]
    return MAGIC + struct.pack("<I", zlib.crc32(body)) + body


def test_a_frame_is_intact_or_unreadable() -> None:
    """And an intact one gives a record of consistent columns, of its device's kinds, or is unreadable."""
    number = seed()
    mutator = Mutator(number, _frames(), longest=9000)
    devices = [one.device for one in _batches()]

    def make() -> bytes:
        spoilt = mutator.make()
        return _sealed(spoilt) if mutator.dice.random() < 0.7 else spoilt

    def judge(content: bytes) -> None:
        try:
            head, body = codec.join([content])
        except Unreadable:
            return
        for of in (devices[head.seq % len(devices)], NUMBERS):
            try:
                record = codec.unpack(head, body, of)
            except Unreadable:
                continue
            one: Batch = record.batch
            assert len(one.tag) == len(one.value) == len(one.quality) == len(one.time_ns) == head.count > 0
            assert int(one.tag.max()) < len(of.tags)
            assert one.value.dtype in DTYPE_OF.values()

    run("journal-frames", make, judge, seed=number)


def test_a_definition_is_the_one_it_says_or_unreadable() -> None:
    number = seed()
    definitions = [codec.define(one.device) for one in _batches()]
    mutator = Mutator(number, [content for known in definitions for content in (known.body, zlib.decompress(known.body))])

    def judge(content: bytes) -> None:
        for body in (content, zlib.compress(content, 1)):
            try:
                found = codec.undefine(definitions[len(content) % len(definitions)].id, body)
            except Unreadable:
                continue
            assert found.id in {known.id for known in definitions}

    run("journal-definitions", mutator.make, judge, seed=number)


def test_a_state_is_one_or_none() -> None:
    number = seed()
    readers = {"cloud": _ReaderState(1, 90, {"full": 3}, [(95, 99, "acknowledged")])}
    facts = Facts(EPOCH, 100, 119)
    state = BookState(7, EPOCH, 120, 4711, 10**18, 3000, {"full": 4}, 2, [(10, 12, EPOCH, "full")], readers, 1, facts)
    written = msgspec.msgpack.encode(state)
    assert decode_state(written) == state
    mutator = Mutator(number, [written, written, b"\x91" * 2000])

    def judge(content: bytes) -> None:
        found = decode_state(content)
        assert found is None or isinstance(found, BookState)

    run("journal-state", mutator.make, judge, seed=number)


def test_a_search_finds_frames_in_any_bytes() -> None:
    """What it takes for intact is intact; what it guesses of the rest are numbers that a record can have."""
    number = seed()
    mutator = Mutator(number, _frames(), longest=60_000)

    def make() -> bytes:
        parts = [mutator.make() if mutator.dice.random() < 0.5 else mutator.pick() for _ in range(int(mutator.dice.random() * 12))]
        return b"".join((*parts, mutator.make(MAGIC * 20)))

    def judge(content: bytes) -> None:
        finds = Finds()
        search(content, Lane.TELEMETRY, EPOCH, finds)
        for row, frame in whole(finds.rows).items():
            head, _ = codec.open_frame(frame)
            assert (head.lane, head.epoch, head.seq) == (Lane.TELEMETRY, EPOCH, row >> codec.PART_BITS)
        assert all(0 <= seq < 2**64 for seq in finds.spoilt())

    run("journal-search", make, judge, seed=number, count=frames(20_000, 400_000))
