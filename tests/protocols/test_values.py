"""What a device says one by one becomes columns of the right kind, or a bad quality; commands are judged the same way."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

from protocols.model import Batch, Column, Device, Kind, Quality
from protocols.options import TagOptions, tag_problems, unique_names
from protocols.values import LONGEST_TEXT, RANGE, Composer, Unwritable, is_same, raw_of, value_of

GOOD = int(Quality.GOOD)


def tag(kind: Kind, name: str = "t", **more: Any) -> TagOptions:
    return TagOptions(name=name, kind=kind, **more)


def composed(*pairs: tuple[TagOptions, Any], quality: int = GOOD) -> list[Batch]:
    tags = [options for options, _ in pairs]
    device = Device("c", "d", tuple(options.tag() for options in tags))
    return Composer(device, tags).batches((slot, raw, quality, 1_000 + slot) for slot, (_, raw) in enumerate(pairs))


@pytest.mark.parametrize("kind", sorted(RANGE))
def test_integers_keep_every_bit_and_know_their_range(kind: Kind) -> None:
    low, high = RANGE[kind]
    (batch,) = composed((tag(kind, "a"), low), (tag(kind, "b"), high), (tag(kind, "c"), high + 1), (tag(kind, "d"), low - 1))
    assert batch.value.tolist() == [low, high, 0, 0]
    assert batch.quality.tolist() == [GOOD, GOOD, Quality.BAD_OUT_OF_RANGE, Quality.BAD_OUT_OF_RANGE]
    assert batch.time_ns.tolist() == [1000, 1001, 1002, 1003]


@pytest.mark.parametrize(
    ("kind", "raw"),
    [
        (Kind.INT16, 1.5),
        (Kind.INT16, math.inf),
        (Kind.INT16, True),
        (Kind.FLOAT64, "12"),
        (Kind.FLOAT64, None),
        (Kind.BOOL, 2),
        (Kind.BOOL, "true"),
        (Kind.STRING, b"x"),
        (Kind.BYTES, "x"),
        (Kind.STRING, {"a": 1}),
    ],
)
def test_what_cannot_be_what_the_tag_is_has_a_bad_quality(kind: Kind, raw: Any) -> None:
    assert value_of(raw, tag(kind))[1] is Quality.BAD_DECODING_ERROR


@pytest.mark.parametrize(
    ("kind", "raw", "value"),
    [
        (Kind.INT16, 7.0, 7),
        (Kind.BOOL, 1, True),
        (Kind.BOOL, np.bool_(False), False),
        (Kind.FLOAT64, 3, 3.0),
        (Kind.FLOAT64, math.inf, math.inf),
        (Kind.FLOAT32, np.float32(0.5), 0.5),
        (Kind.UINT64, np.uint64(2**64 - 1), 2**64 - 1),
        (Kind.STRING, "ä", "ä"),
        (Kind.BYTES, b"\0", b"\0"),
    ],
)
def test_what_can_be_is_exact(kind: Kind, raw: Any, value: Any) -> None:
    got, quality = value_of(raw, tag(kind))
    assert (got, type(got), quality) == (value, type(value), Quality.GOOD)


def test_numbers_beyond_a_float_and_texts_beyond_reason_are_out_of_range() -> None:
    assert value_of(10**400, tag(Kind.FLOAT64))[1] is Quality.BAD_OUT_OF_RANGE
    assert value_of(1e39, tag(Kind.FLOAT32))[1] is Quality.BAD_OUT_OF_RANGE
    assert value_of(1e300, tag(Kind.FLOAT64, scale=1e300))[1] is Quality.BAD_OUT_OF_RANGE
    assert value_of("x" * (LONGEST_TEXT + 1), tag(Kind.STRING))[1] is Quality.BAD_OUT_OF_RANGE


def test_a_scaled_integer_is_a_float_for_everybody_else() -> None:
    (batch,) = composed((tag(Kind.INT16, "a", scale=0.1, offset=-5), 250), (tag(Kind.INT16, "b", scale=0.1), 2297))
    assert (batch.column, batch.value.tolist()) == (Column.FLOAT, [20.0, 229.7])


def test_columns_are_apart_and_a_history_keeps_its_order() -> None:
    tags = [tag(Kind.FLOAT64, "a"), tag(Kind.BOOL, "b")]
    device = Device("c", "d", tuple(options.tag() for options in tags))
    batches = Composer(device, tags).batches([(0, 1.0, GOOD, 1), (1, True, GOOD, 1), (0, 2.0, GOOD, 2), (0, 3.0, GOOD, 3)])
    assert [(batch.column, batch.tag.tolist(), batch.value.tolist()) for batch in batches] == [
        (Column.FLOAT, [0], [1.0]),
        (Column.BOOL, [1], [True]),
        (Column.FLOAT, [0], [2.0]),
        (Column.FLOAT, [0], [3.0]),
    ]


@pytest.mark.parametrize(
    ("said", "kept"),
    [
        (0x40930000, Quality.UNCERTAIN_SENSOR_NOT_ACCURATE),
        (0x40FF0000, Quality.UNCERTAIN),
        (0x80FF0000, Quality.BAD),
        (0xC0000000, Quality.BAD),
        (0x00A20000, Quality.GOOD),
    ],
)
def test_a_quality_that_has_no_name_here_keeps_its_severity(said: int, kept: Quality) -> None:
    (batch,) = composed((tag(Kind.STRING), "x"), quality=said)
    assert batch.quality.tolist() == [kept]
    assert batch.value.tolist() == ["" if kept.is_bad else "x"]


def test_a_command_is_unscaled_and_judged() -> None:
    assert raw_of(20.0, tag(Kind.INT16, scale=0.1, offset=-5)) == 250
    assert raw_of(1, tag(Kind.BOOL)) is True
    wrong: list[tuple[Any, TagOptions]] = [
        ("warm", tag(Kind.FLOAT64)),
        (True, tag(Kind.INT8)),
        (1e300, tag(Kind.FLOAT32)),
        (2.5, tag(Kind.INT8)),
        (300, tag(Kind.INT8)),
        (math.nan, tag(Kind.FLOAT64)),
        (11, tag(Kind.FLOAT64, maximum=10)),
        (10**400, tag(Kind.FLOAT64)),
        (b"x", tag(Kind.STRING)),
        ("x" * (LONGEST_TEXT + 1), tag(Kind.STRING)),
    ]
    for value, options in wrong:
        with pytest.raises(Unwritable):
            raw_of(value, options)


def test_what_was_read_back_is_compared_as_the_device_holds_it() -> None:
    assert is_same(0.1, float(np.float32(0.1)), tag(Kind.FLOAT32))
    assert not is_same(0.1, float(np.float32(0.1)), tag(Kind.FLOAT64))
    assert not is_same(True, 1, tag(Kind.BOOL))
    assert is_same(5, 5, tag(Kind.UINT8))


def test_keys_that_every_tag_has_are_judged_once_for_all_drivers() -> None:
    wrong = tag(Kind.BOOL, scale=0.0, minimum=2, maximum=1, deadband=1)
    assert {problem.path for problem in tag_problems(wrong, "t")} == {"t.scale", "t.minimum", "t.deadband"}
    twice = [tag(Kind.BOOL, "a"), tag(Kind.BOOL, "b"), tag(Kind.BOOL, "a")]
    assert [problem.path for problem in unique_names(twice, "tags", "tag")] == ["tags[2].name"]
