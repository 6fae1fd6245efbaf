"""What proves itself by its checksum and makes no sense is no entry, and costs little memory."""

from __future__ import annotations

import json
import resource
import struct
import zlib
from pathlib import Path
from typing import Any, Final

import pytest

from gateway.journal import codec
from gateway.journal.chain import _facts
from gateway.journal.codec import FrameKind, Unreadable
from gateway.journal.heads import Heads
from gateway.journal.ledger import decode_state
from protocols.model import Kind
from tests.builders import batch, device

INPUTS: Final[dict[str, Any]] = json.loads((Path(__file__).parent / "inputs.json").read_text())  # Any: JSON


def contents(entry: str) -> list[bytes]:
    return [bytes.fromhex(part) * times for part, times in INPUTS[entry]]


def test_a_definition_of_nonsense_is_unreadable() -> None:
    for content in contents("definition"):
        with pytest.raises(Unreadable):
            codec.undefine(1, zlib.compress(content))


def test_a_definition_that_inflates_without_end_takes_no_more_than_a_definition_can() -> None:
    press, zeros = zlib.compressobj(9), bytes(codec.MAX_DEFINITION // 16)
    bomb = b"".join([press.compress(zeros) for _ in range(16 * 16)] + [press.flush()])
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(Unreadable):
        codec.undefine(1, bomb)
    assert (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) * 1024 <= 3 * codec.MAX_DEFINITION


def test_a_state_and_facts_of_nonsense_are_none() -> None:
    assert [decode_state(content) for content in contents("state")] == [None] * len(INPUTS["state"])
    assert [_facts(content) for content in contents("facts")] == [{}] * len(INPUTS["facts"])


def test_heads_of_nonsense_say_nothing(tmp_path: Path) -> None:
    for content in contents("heads"):
        heads = Heads(tmp_path)
        heads.path.write_bytes(codec.frame(FrameKind.HEADS, 0, 1, 0, content))
        heads.recall()
        assert heads.told == {}


def test_a_record_of_slots_that_no_device_has_is_unreadable() -> None:
    boiler = device(Kind.INT16, Kind.INT16, Kind.INT16)
    definition = codec.define(boiler)
    (piece,) = codec.pack(batch(boiler, [1, 2, 3]), definition)
    head, body = codec.join([content for _, content in codec.record_frames(piece, definition.id, 1, 1, 1, 1)])
    assert codec.unpack(head, body, boiler).batch.value.tolist() == [1, 2, 3]
    for start in INPUTS["slots_start"]:
        with pytest.raises(Unreadable):
            codec.unpack(head, struct.pack("<I", start) + body[4:], boiler)
