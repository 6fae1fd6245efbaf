"""Frames prove themselves, and batches come back bit for bit."""

from __future__ import annotations

import random
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from gateway.journal import Lane, codec, salvage
from gateway.journal.codec import MAX_BODY, FrameKind, Unreadable
from protocols.model import COLUMN_OF, DTYPE_OF, Batch, Column, Device, Kind, Tag

NUMBERS: dict[Kind, st.SearchStrategy[Any]] = {  # Any: values of the kind
    Kind.BOOL: st.booleans(),
    Kind.INT8: st.integers(-(2**63), 2**63 - 1) | st.integers(-128, 127),
    Kind.INT64: st.integers(-(2**63), 2**63 - 1),
    Kind.UINT16: st.integers(0, 2**64 - 1) | st.integers(0, 65535),
    Kind.UINT64: st.integers(0, 2**64 - 1),
    Kind.FLOAT32: st.floats(width=32) | st.floats(),
    Kind.FLOAT64: st.floats(),
    Kind.STRING: st.text(max_size=20) | st.text(st.characters(), max_size=20),
    Kind.BYTES: st.binary(max_size=20),
}
FITTING: dict[Kind, st.SearchStrategy[Any]] = {  # Any: as above
    Kind.INT8: st.integers(-128, 127),
    Kind.UINT16: st.integers(0, 65535),
    Kind.FLOAT32: st.floats(width=32),
}
"""Values that the kind can hold: all of them together are stored in its own width."""


@st.composite
def batches(draw: st.DrawFn) -> Batch:
    kind = draw(st.sampled_from(sorted(NUMBERS)))
    count = draw(st.integers(1, 60))
    slots = draw(st.integers(0, 70_000) | st.just(0))
    device = Device("c", draw(st.text(max_size=10)), (Tag(name="t", kind=kind),) * (slots + count))
    value: NDArray[Any] = np.empty(count, dtype=DTYPE_OF[COLUMN_OF[kind]])  # Any: see Batch.value
    numbers = draw(st.sampled_from([NUMBERS[kind], FITTING.get(kind, NUMBERS[kind])]))
    value[:] = draw(st.lists(numbers, min_size=count, max_size=count))
    tag = np.arange(slots, slots + count, dtype=np.uint32)
    if draw(st.booleans()):
        np.random.default_rng(count).shuffle(tag)
    quality = draw(st.sampled_from([[0], [0x80000000], [0, 0x40900000]]))
    times = draw(st.sampled_from([[0], [2**62], [-1, 5, 2**63 - 1]]))
    return Batch(
        device,
        tag,
        value,
        np.resize(np.array(quality, dtype=np.uint32), count),
        np.resize(np.array(times, dtype=np.int64), count),
        draw(st.booleans()),
    )


def stored(batch: Batch) -> tuple[codec.Definition, list[list[tuple[int, bytes]]]]:
    definition = codec.define(batch.device)
    pieces = codec.pack(batch, definition)
    return definition, [codec.record_frames(piece, definition.id, 1, 5, 7 + n, 9) for n, piece in enumerate(pieces)]


def back(batch: Batch) -> list[Batch]:
    definition, records = stored(batch)
    device = codec.undefine(definition.id, definition.body).device
    return [codec.unpack(*codec.join([frame for _, frame in rows]), device).batch for rows in records]


@settings(deadline=None)
@given(batches())
def test_a_batch_comes_back_bit_for_bit(batch: Batch) -> None:
    """All kinds, NaN payloads and signed zeros included; also values that do not fit the kind that the tag declares."""
    (found,) = back(batch)
    assert (found.device.connection, found.device.name, found.device.tags) == ("c", batch.device.name, batch.device.tags)
    assert found.tag.tobytes() == batch.tag.tobytes()
    assert found.tag.dtype == batch.tag.dtype
    assert found.value.dtype == batch.value.dtype
    if batch.column is Column.OBJECT:
        assert found.value.tolist() == batch.value.tolist()
    else:
        assert found.value.tobytes() == batch.value.tobytes()
    assert found.quality.tobytes() == batch.quality.tobytes()
    assert found.time_ns.tobytes() == batch.time_ns.tobytes()
    assert found.lost == batch.lost


def numbers(count: int) -> Batch:
    device = Device("c", "d", tuple(Tag(name=f"t{n}", kind=Kind.FLOAT64) for n in range(count)))
    return Batch(
        device,
        np.arange(count, dtype=np.uint32),
        np.random.default_rng(1).normal(size=count),
        np.zeros(count, dtype=np.uint32),
        np.arange(count, dtype=np.int64),
    )


def test_a_large_batch_becomes_several_records_in_order() -> None:
    batch = numbers(5000)
    found = back(batch)
    assert len(found) > 1
    assert np.concatenate([each.value for each in found]).tobytes() == batch.value.tobytes()
    assert np.concatenate([each.tag for each in found]).tobytes() == batch.tag.tobytes()
    assert all(len(frame) <= codec.HEAD.size + MAX_BODY for rows in stored(batch)[1] for _, frame in rows)


def text(length: int) -> Batch:
    value = np.empty(1, dtype=np.object_)
    value[0] = "x" * length
    one = np.zeros(1, dtype=np.uint32)
    return Batch(Device("c", "d", (Tag(name="t", kind=Kind.STRING),)), one, value, one, np.ones(1, dtype=np.int64))


def test_a_large_value_is_one_record_of_several_frames_and_a_too_large_one_is_refused() -> None:
    (found,) = back(text(codec.MAX_VALUE))
    assert found.value[0] == "x" * codec.MAX_VALUE
    large = text(codec.MAX_VALUE + 100)
    (piece,) = codec.pack(large, codec.define(large.device))
    assert piece.too_large


def test_one_hundred_float32_take_little_more_than_their_bytes() -> None:
    device = Device("c", "d", tuple(Tag(name=f"t{n}", kind=Kind.FLOAT32) for n in range(100)))
    value = np.random.default_rng(1).normal(size=100).astype(np.float32).astype(np.float64)
    batch = Batch(device, np.arange(100, dtype=np.uint32), value, np.zeros(100, dtype=np.uint32), np.full(100, 5, dtype=np.int64))
    assert len(stored(batch)[1][0][0][1]) == 400 + 12 + codec.HEAD.size


def test_a_value_that_overflows_its_kind_is_kept_whole() -> None:
    device = Device("c", "d", (Tag(name="t", kind=Kind.FLOAT32),))
    one = np.zeros(1, dtype=np.uint32)
    batch = Batch(device, one, np.array([1e300]), one, np.ones(1, dtype=np.int64))
    assert back(batch)[0].value.tolist() == [1e300]


def test_equal_devices_have_the_same_definition_and_others_do_not() -> None:
    def device(unit: str) -> Device:
        return Device("c", "d", (Tag(name="t", kind=Kind.FLOAT32, unit=unit),))

    assert codec.define(device("bar")).id == codec.define(device("bar")).id
    assert codec.define(device("bar")).id != codec.define(device("psi")).id
    with pytest.raises(Unreadable, match="another one"):
        codec.undefine(codec.define(device("psi")).id, codec.define(device("bar")).body)


def test_no_single_flipped_bit_passes() -> None:
    frame = stored(numbers(10))[1][0][0][1]
    codec.open_frame(frame)
    for at in range(len(frame) * 8):
        flipped = bytearray(frame)
        flipped[at // 8] ^= 1 << at % 8
        with pytest.raises(Unreadable):
            codec.open_frame(bytes(flipped))


def test_a_frame_cut_anywhere_is_no_frame() -> None:
    frame = stored(numbers(10))[1][0][0][1]
    for size in range(len(frame)):
        with pytest.raises(Unreadable):
            codec.open_frame(frame[:size])


def test_mutated_frames_are_unreadable_and_nothing_else() -> None:
    """Even with a right checksum, content that makes no sense is Unreadable, not a crash."""
    dice = random.Random(7)
    definition, records = stored(numbers(10))
    head, body = codec.open_frame(records[0][0][1])
    for _ in range(3000):
        mutated = bytearray(body)
        for _ in range(dice.randrange(1, 4)):
            mutated[dice.randrange(len(mutated))] = dice.randrange(256)
        content = bytes(mutated[: dice.randrange(len(mutated) + 1)])
        made = codec.frame(
            dice.choice([1, 2, 9]), dice.randrange(3), 5, 7, content, form=dice.randrange(64), count=dice.choice([0, 1, 10, 2**31]),
            column=dice.randrange(7), dtype=dice.randrange(14), parts=dice.randrange(3),
        )  # fmt: skip
        try:
            codec.unpack(*codec.join([made]), definition.device)
        except Unreadable:
            continue
    assert head.count == 10


def test_a_search_finds_every_intact_frame_between_rubbish_and_names_the_damaged() -> None:
    frames = [
        rows[0][1]
        for n in range(20)
        for rows in [codec.record_frames(codec.pack(numbers(5), codec.define(numbers(5).device))[0], 1, 1, 5, n, 9)]
    ]
    spoilt = bytearray(frames[3])
    spoilt[-1] ^= 1
    dice = random.Random(3)
    data = b"".join(dice.randbytes(dice.randrange(50)) + each for each in [*frames[:3], bytes(spoilt), *frames[4:]])
    finds = salvage.Finds()
    salvage.search(data + codec.MAGIC, Lane.TELEMETRY, 5, finds)
    assert sorted(row >> 8 for row in finds.rows) == [n for n in range(20) if n != 3]
    assert finds.spoilt() == {3}


def test_state_of_any_length_comes_back_whole_or_not_at_all() -> None:
    content = random.Random(1).randbytes(3 * MAX_BODY + 1)
    frames = codec.frames(FrameKind.STATE, Lane.EVENTS, 5, 77, content)
    assert codec.join(frames)[1] == content
    with pytest.raises(Unreadable, match="absent"):
        codec.join(frames[:-1])
