"""Decoding: every kind, every order, bits, BCD, text, scaling; and values that mean nothing where the quality is bad."""

from __future__ import annotations

import itertools
import math
import random
import struct
from typing import Any

import numpy as np
import pytest

from protocols.modbus.plan import DevicePlan, make_plan
from protocols.model import Batch, Column, Kind, Quality
from tests.protocols.modbus.plc import Unit, device, options, qualities, tag, values

FORMATS = {
    "int16": "h",
    "uint16": "H",
    "int32": "i",
    "uint32": "I",
    "int64": "q",
    "uint64": "Q",
    "float32": "f",
    "float64": "d",
}
EXTREMES: dict[str, list[Any]] = {  # Any: ints or floats, by kind
    "int16": [0, 1, -1, 2**15 - 1, -(2**15)],
    "uint16": [0, 1, 2**16 - 1],
    "int32": [0, -1, 2**31 - 1, -(2**31)],
    "uint32": [0, 2**32 - 1, 0x12345678],
    "int64": [0, -1, 2**63 - 1, -(2**63), 2**53 + 1],
    "uint64": [0, 2**64 - 1, 2**53 + 1, 0x0102030405060708],
    "float32": [0.0, -0.0, 1.5, math.inf, -math.inf, 3.4028234663852886e38, 2.0**-149],
    "float64": [0.0, math.pi, math.inf, 5e-324, 1.7976931348623157e308],
}


def plan_of(*tags: dict[str, Any], **fields: Any) -> DevicePlan:  # Any: fields of a device
    return make_plan(options(devices=[device(*tags, **fields)])).devices[0]


def scan(plan: DevicePlan, unit: Unit, statuses: list[int] | None = None) -> list[Batch]:
    """One round of the first group against ``unit``."""
    group = plan.groups[0]
    answers = b"".join(unit.answer(request.pdu) for request in group.requests)
    return group.recipe.decode(answers, [1_000 + at for at in range(len(group.blocks) + 1)], statuses)


def registers(packed: bytes, *, words: str, bytes_: str) -> bytes:
    """Big-endian bytes as a device with these orders holds them."""
    pairs = [packed[at : at + 2] for at in range(0, len(packed), 2)]
    if words == "little":
        pairs.reverse()
    return b"".join(pair if bytes_ == "big" else pair[::-1] for pair in pairs)


@pytest.mark.parametrize("kind", FORMATS)
@pytest.mark.parametrize(("words", "bytes_"), list(itertools.product(("big", "little"), repeat=2)))
def test_numbers_keep_every_bit_in_every_order(kind: str, words: str, bytes_: str) -> None:
    for value in EXTREMES[kind]:
        unit = Unit()
        unit.set(7, registers(struct.pack(">" + FORMATS[kind], value), words=words, bytes_=bytes_))
        (batch,) = scan(plan_of(tag("holding:7", kind, word_order=words, byte_order=bytes_)), unit)
        assert batch.value[0].item() == value
        assert math.copysign(1, batch.value[0].item()) == math.copysign(1, value)
        assert batch.quality[0] == Quality.GOOD


@pytest.mark.parametrize("kind", ["float32", "float64"])
@pytest.mark.parametrize("pattern", ["7fc00000", "7f800001", "ffc00001"])
def test_every_nan_stays_nan_without_a_warning(kind: str, pattern: str) -> None:
    """Signalling NaNs too: they raise a flag in the processor when widened."""
    content = bytes.fromhex(pattern) if kind == "float32" else bytes.fromhex("7ff0000000000001")
    unit = Unit()
    unit.set(0, content)
    (batch,) = scan(plan_of(tag("holding:0", kind)), unit)
    assert math.isnan(batch.value[0])


def test_device_orders_hold_where_the_tag_says_nothing() -> None:
    unit = Unit()
    unit.set(0, bytes.fromhex("0002 0001") + bytes.fromhex("0001 0002"))
    plan = plan_of(tag("holding:0", "uint32"), tag("holding:2", "uint32", word_order="big"), word_order="little")
    assert values(scan(plan, unit)) == {"holding:0": 0x10002, "holding:2": 0x10002}


@pytest.mark.parametrize(("scale", "decimals"), [(0.1, 1), (0.01, 2), (0.001, 3), (0.0001, 4)])
def test_a_decimal_scale_gives_what_the_display_shows(scale: float, decimals: int) -> None:
    """2297 at 0.1 is 229.7 to the last bit."""
    plan, unit = plan_of(tag("holding:0", "uint16", scale=scale)), Unit()
    for raw in range(0, 65536, 7):
        unit.set(0, struct.pack(">H", raw))
        assert values(scan(plan, unit)) == {"holding:0": float(f"{raw}e-{decimals}")}


def test_scaled_integers_are_float64() -> None:
    unit = Unit()
    unit.set(0, struct.pack(">hI", -250, 4_000_000_000))
    plan = plan_of(tag("holding:0", "int16", scale=0.1, offset=5.0), tag("holding:1", "uint32", scale=0.001), tag("holding:3", "uint16"))
    assert [one.kind for one in plan.device.tags] == [Kind.FLOAT64, Kind.FLOAT64, Kind.UINT16]
    assert values(scan(plan, unit)) == {"holding:0": pytest.approx(-20.0), "holding:1": pytest.approx(4_000_000.0), "holding:3": 0}


def test_bits_of_registers_count_from_the_least_significant() -> None:
    unit = Unit()
    unit.set(0, bytes.fromhex("8001"))
    tags = [tag(f"holding:0.{bit}", "bool") for bit in range(16)]
    assert [bool(value) for value in values(scan(plan_of(*tags), unit)).values()] == [True] + [False] * 14 + [True]


def test_bits_follow_the_byte_order() -> None:
    unit = Unit()
    unit.set(0, bytes.fromhex("0100"))
    plan = plan_of(tag("holding:0.0", "bool", byte_order="little"), tag("holding:0.8", "bool"))
    assert list(values(scan(plan, unit)).values()) == [True, True]


def test_coils_and_discrete_inputs_are_bits() -> None:
    unit = Unit(bits={at: at % 3 == 0 for at in range(40)})
    tags = [tag(f"coil:{at}", "bool") for at in range(5, 40)] + [tag(f"discrete:{at}", "bool") for at in (9, 10)]
    seen = values(scan(plan_of(*tags), unit))
    assert all(seen[f"coil:{at}"] == (at % 3 == 0) for at in range(5, 40))
    assert (seen["discrete:9"], seen["discrete:10"]) == (True, False)


def test_a_whole_register_read_as_bool_is_true_unless_zero() -> None:
    unit = Unit(words={0: 0, 1: 256})
    assert list(values(scan(plan_of(tag("holding:0", "bool"), tag("holding:1", "bool")), unit)).values()) == [False, True]


def test_eight_bit_kinds_take_half_a_register() -> None:
    unit = Unit(words={0: 0x7FFE})
    plan = plan_of(tag("holding:0", "int8"), tag("holding:0", "uint8", name="high", byte_order="little"))
    assert values(scan(plan, unit)) == {"holding:0": -2, "high": 0x7F}


@pytest.mark.parametrize(
    ("kind", "content", "value"), [("uint16", "1234", 1234), ("uint32", "12345678", 12345678), ("uint64", "9" * 16, 10**16 - 1)]
)
def test_bcd_is_four_bits_a_digit(kind: str, content: str, value: int) -> None:
    unit = Unit()
    unit.set(0, bytes.fromhex(content))
    assert values(scan(plan_of(tag("holding:0", kind, encoding="bcd")), unit)) == {"holding:0": value}


def test_bcd_with_a_digit_above_nine_is_a_decoding_error_and_harms_no_neighbour() -> None:
    unit = Unit(words={0: 0x12A4, 1: 0x0042})
    batches = scan(plan_of(tag("holding:0", encoding="bcd"), tag("holding:1", encoding="bcd")), unit)
    assert qualities(batches) == {"holding:0": Quality.BAD_DECODING_ERROR, "holding:1": Quality.GOOD}
    assert values(batches) == {"holding:0": 0, "holding:1": 42}


def test_strings_end_at_nul_without_trailing_blanks_and_bytes_do_neither() -> None:
    unit = Unit()
    unit.set(0, "Größe ".encode() + b"\0xyz" + b"\1\0\3 ")
    plan = plan_of(tag("holding:0", "string", length=12), tag("holding:6", "bytes", length=3))
    assert values(scan(plan, unit)) == {"holding:0": "Größe", "holding:6": b"\1\0\3"}


def test_strings_with_swapped_bytes() -> None:
    unit = Unit()
    unit.set(0, b"oHdlaftsx\0")
    assert values(scan(plan_of(tag("holding:0", "string", length=8, byte_order="little")), unit)) == {"holding:0": "Holdfast"}


def test_text_that_is_not_utf_8_is_a_decoding_error() -> None:
    unit = Unit()
    unit.set(0, b"\xff\xfe")
    batches = scan(
        plan_of(tag("holding:0", "string", length=2), tag("holding:0", "string", name="latin", length=2, charset="latin-1")), unit
    )
    assert qualities(batches) == {"holding:0": Quality.BAD_DECODING_ERROR, "latin": Quality.GOOD}
    assert values(batches) == {"holding:0": "", "latin": "ÿþ"}


@pytest.mark.parametrize(
    ("kind", "content", "invalid"),
    [
        ("int8", "0080", -128),
        ("uint8", "00ff", 0xFF),
        ("int16", "8000", -0x8000),
        ("int16", "7fff", 0x7FFF),
        ("uint16", "ffff", 0xFFFF),
        ("int32", "8000 0000", -0x80000000),
        ("uint32", "ffff ffff", 0xFFFFFFFF),
        ("int64", "8000 0000 0000 0000", -(2**63)),
        ("uint64", "ffff ffff ffff ffff", 2**64 - 1),
        ("float32", "c479 c000", -999),
        ("float64", "c08f 3800 0000 0000", -999),
    ],
)
@pytest.mark.parametrize("scale", [1.0, 0.1, 10.0])
def test_a_number_that_means_no_value_is_bad_for_it_alone(kind: str, content: str, invalid: int, scale: float) -> None:
    """In one batch with a tag that holds the same number and was not told what it means."""
    raw, unit = bytes.fromhex(content), Unit()
    places = [tag(f"holding:{4 * at}", kind, name=name, scale=scale) for at, name in enumerate(["gone", "told", "untold"])]
    for at in range(3):
        unit.set(4 * at, raw if at != 1 else bytes(len(raw) - 1) + b"\1")
    plan = plan_of({**places[0], "invalid": [invalid]}, {**places[1], "invalid": [invalid]}, places[2])
    batches = scan(plan, unit)
    assert qualities(batches) == {"gone": Quality.BAD_OUT_OF_SERVICE, "told": Quality.GOOD, "untold": Quality.GOOD}
    assert values(batches)["gone"] == 0
    assert values(batches)["untold"] == pytest.approx(invalid * scale, rel=1e-15)


def test_each_tag_has_its_own_numbers_that_mean_no_value() -> None:
    """Lists of different lengths, decoded together: none borrows from its neighbour."""
    lists = [[1], [2, 3], [4, 5, 6, 7, 8, 9, 10, 11], [0]]
    plan = plan_of(*(tag(f"holding:{at}", invalid=invalid) for at, invalid in enumerate(lists)))
    for number in range(13):
        seen = qualities(scan(plan, Unit(words=dict.fromkeys(range(4), number))))
        wanted = [Quality.BAD_OUT_OF_SERVICE if number in invalid else Quality.GOOD for invalid in lists]
        assert [seen[f"holding:{at}"] for at in range(4)] == wanted


def test_bcd_has_numbers_that_mean_no_value_in_its_own_digits() -> None:
    unit = Unit(words={0: 0x9999, 1: 0x9999, 2: 0x999A, 3: 9999})
    plan = plan_of(
        *(tag(f"holding:{at}", encoding="bcd", invalid=[9999] if at != 1 else []) for at in range(3)), tag("holding:3", invalid=[9999])
    )
    batches = scan(plan, unit)
    assert [qualities(batches)[f"holding:{at}"] for at in range(4)] == [
        Quality.BAD_OUT_OF_SERVICE, Quality.GOOD, Quality.BAD_DECODING_ERROR, Quality.BAD_OUT_OF_SERVICE,
    ]  # fmt: skip
    assert values(batches) == {"holding:0": 0, "holding:1": 9999, "holding:2": 0, "holding:3": 0}


@pytest.mark.parametrize("words", ["big", "little"])
def test_no_value_is_seen_in_every_order(words: str) -> None:
    unit = Unit()
    unit.set(0, registers(struct.pack(">i", -(2**31)), words=words, bytes_="big"))
    assert qualities(scan(plan_of(tag("holding:0", "int32", word_order=words, invalid=[-(2**31)])), unit)) == {
        "holding:0": Quality.BAD_OUT_OF_SERVICE
    }


def test_a_block_that_failed_keeps_its_quality_whatever_lies_in_its_place() -> None:
    plan = plan_of(tag("holding:0", invalid=[0]), tag("holding:500", invalid=[0]))
    seen = qualities(scan(plan, Unit(), [Quality.GOOD, Quality.BAD_TIMEOUT]))
    assert seen == {"holding:0": Quality.BAD_OUT_OF_SERVICE, "holding:500": Quality.BAD_TIMEOUT}


def test_nan_stays_nan_where_a_number_means_no_value() -> None:
    unit = Unit()
    unit.set(0, bytes.fromhex("7fc00000"))
    (batch,) = scan(plan_of(tag("holding:0", "float32", invalid=[-999])), unit)
    assert math.isnan(batch.value[0])
    assert batch.quality[0] == Quality.GOOD


def test_a_batch_holds_one_kind_of_column_and_every_slot_once() -> None:
    kinds = ["bool", "int16", "uint16", "float32", "int32"]
    plan = plan_of(*(tag(f"holding:{2 * at}", kind) for at, kind in enumerate(kinds)), tag("holding:20", "string", length=4))
    batches = scan(plan, Unit())
    assert sorted(slot for batch in batches for slot in batch.tag.tolist()) == list(range(6))
    assert sorted(batch.column for batch in batches) == sorted(Column)


def test_a_block_that_failed_has_its_quality_and_blank_values() -> None:
    unit = Unit(words={0: 7, 500: 8})
    plan = plan_of(tag("holding:0"), tag("holding:500"))
    statuses: list[int] = [Quality.GOOD, Quality.BAD_TIMEOUT]
    batches = scan(plan, unit, statuses)
    assert qualities(batches) == {"holding:0": Quality.GOOD, "holding:500": Quality.BAD_TIMEOUT}
    assert values(batches) == {"holding:0": 7, "holding:500": 0}


def test_absent_tags_are_unknown_nodes_even_when_all_is_well() -> None:
    plan = plan_of(tag("holding:0"), tag("holding:1"), tag("holding:2"))
    plan.replan(plan.groups[0], [1])
    batches = scan(plan, Unit(words={0: 5, 1: 6, 2: 7}))
    assert values(batches) == {"holding:0": 5, "holding:1": 0, "holding:2": 7}
    assert qualities(batches)["holding:1"] == Quality.BAD_NODE_ID_UNKNOWN
    assert [str(block) for block in plan.groups[0].blocks] == ["holding:0", "holding:2"]


def test_each_value_has_the_stamp_of_its_answer() -> None:
    (batch,) = scan(plan_of(tag("holding:0"), tag("holding:500")), Unit())
    assert batch.time_ns.tolist() == [1_000, 1_001]


def test_each_value_has_the_stamp_of_its_answer_however_many_there_are() -> None:
    """Blocks that lie apart, their tags in any order: few runs of one block, and more than are written one by one."""
    rng = random.Random(3)
    for blocks in (2, 3, 4, 5, 6, 12):
        places = [400 * block + at for block in range(blocks) for at in range(rng.randint(1, 4))]
        rng.shuffle(places)
        plan = plan_of(*(tag(f"holding:{place}", rng.choice(["uint16", "int16"])) for place in places))
        assert len(plan.groups[0].blocks) == blocks
        for batch in scan(plan, Unit()):
            at = {slot: 1_000 + place for place, block in enumerate(plan.groups[0].blocks) for slot in block.slots}
            assert batch.time_ns.tolist() == [at[slot] for slot in batch.tag.tolist()]


def test_shared_columns_cannot_be_edited() -> None:
    (batch,) = scan(plan_of(tag("holding:0")), Unit())
    assert not batch.tag.flags.writeable
    assert not batch.quality.flags.writeable


def test_random_devices_decode_as_struct_does() -> None:
    """300 random devices of mixed kinds and orders, each compared with a plain reading of its registers.

    Some of their values are among the numbers that mean no value; some others are beside such numbers.
    """
    rng = random.Random(20261121)
    silent = 0
    for _ in range(300):
        unit = Unit()
        tags, expected, gone, address = [], {}, set[str](), 0
        for at in range(rng.randint(1, 30)):
            kind, words, bytes_ = rng.choice(list(FORMATS)), rng.choice(["big", "little"]), rng.choice(["big", "little"])
            content = rng.randbytes(struct.calcsize(FORMATS[kind]))
            address += rng.choice([0, 0, 1, 3, 60])
            unit.set(address, registers(content, words=words, bytes_=bytes_))
            value = struct.unpack(">" + FORMATS[kind], content)[0]
            invalid = [rng.randint(0, 100) for _ in range(rng.choice([0, 0, 1, 3]))]
            if invalid and isinstance(value, int) and rng.random() < 0.5:
                invalid[rng.randrange(len(invalid))] = value
            gone |= {f"t{at}"} if value in invalid else set()
            tags.append(tag(f"holding:{address}", kind, name=f"t{at}", word_order=words, byte_order=bytes_, invalid=invalid))
            expected[f"t{at}"] = 0 if value in invalid else value
            address += len(content) // 2
        batches = scan(plan_of(*tags), unit)
        seen = values(batches)
        for name, value in expected.items():
            assert np.array_equal(np.array(seen[name]), np.array(value), equal_nan=isinstance(value, float)), name
        assert {name for name, quality in qualities(batches).items() if quality != Quality.GOOD} == gone
        silent += len(gone)
    assert silent > 100
