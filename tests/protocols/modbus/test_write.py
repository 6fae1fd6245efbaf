"""Commands: the right function, scaling undone, refusals in words, and nothing believed that was not read back."""

from __future__ import annotations

import asyncio
import contextlib
import math
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from protocols.clock import ManualClock
from protocols.contract import Unreachable
from protocols.modbus.driver import TCP
from protocols.modbus.session import ModbusSession
from protocols.model import Command, Outcome, OutcomeState
from tests.protocols.modbus.plc import Plc, Unit, device, options, tag

Value = bool | int | float | str | bytes
NOW = 1_700_000_000_000_000_000


@asynccontextmanager
async def writing(plc: Plc, *tags: dict[str, Any], **fields: Any) -> AsyncIterator[ModbusSession]:  # Any: as people write it
    clock = ManualClock(NOW)
    async with plc.serve() as port:
        line = options(port=port, timeout_s=0.5, devices=[device(*tags, **fields)])
        async with TCP.open(line, clock=clock) as session:
            yield session


def command(at: str, value: Value, *, deadline_ns: int = NOW + 10**9, name: str = "plc") -> Command:
    return Command(id=f"{at}={value!r}", device=name, tag=at, value=value, deadline_ns=deadline_ns)


async def write(plc: Plc, one: dict[str, Any], value: Value, **fields: Any) -> Outcome:  # Any: as above
    """Write one tag and nothing else."""
    async with writing(plc, {"writable": True, **one}, **fields) as session:
        (outcome,) = await session.write([command(one["name"], value)])
    return outcome


@pytest.mark.parametrize(
    ("one", "value", "function", "content"),
    [
        (tag("coil:3", "bool"), True, 5, None),
        (tag("holding:3", "uint16"), 1234, 6, "04d2"),
        (tag("holding:3", "int16"), -2, 6, "fffe"),
        (tag("holding:3", "float32"), 1.5, 16, "3fc00000"),
        (tag("holding:3", "float32", word_order="little"), 1.5, 16, "00003fc0"),
        (tag("holding:3", "float32", byte_order="little"), 1.5, 16, "c03f0000"),
        (tag("holding:3", "float64"), -0.25, 16, "bfd0000000000000"),
        (tag("holding:3", "uint64"), 2**64 - 1, 16, "ffffffffffffffff"),
        (tag("holding:3", "int64"), -(2**63) + 1, 16, "8000000000000001"),
        (tag("holding:3", "uint32", encoding="bcd"), 12345678, 16, "12345678"),
        (tag("holding:3", "int16", scale=0.1, offset=5.0), -20.0, 6, "ff06"),
        (tag("holding:3", "string", length=5), "abc", 16, "616263000000"),
        (tag("holding:3", "bytes", length=4), b"\1\0\3\4", 16, "01000304"),
        (tag("holding:3", "bool"), True, 6, "0001"),
        (tag("holding:3.9", "bool"), True, 22, "0200"),
        (tag("holding:3", "uint8"), 0xAB, 22, "00ab"),
        (tag("holding:3", "int8", byte_order="little"), -1, 22, "ff00"),
    ],
)
async def test_each_kind_is_written_by_its_function_and_verified(
    one: dict[str, Any], value: Value, function: int, content: str | None
) -> None:
    plc = Plc(1)
    outcome = await write(plc, one, value)
    assert (outcome.state, outcome.detail) == (OutcomeState.VERIFIED, "")
    assert outcome.read_back == pytest.approx(value) if isinstance(value, float) else outcome.read_back == value
    assert plc.functions()[0] == function
    if content is not None:
        size = len(bytes.fromhex(content)) // 2
        assert b"".join(plc.unit.words[3 + at].to_bytes(2, "big") for at in range(size)).hex() == content


@pytest.mark.parametrize(("one", "value", "function"), [(tag("coil:3", "bool"), True, 15), (tag("holding:3"), 7, 16)])
async def test_a_device_that_knows_only_multiple_writes_gets_them(one: dict[str, Any], value: Value, function: int) -> None:
    """By configuration, or found out when the single function is refused, and remembered."""
    plc = Plc(1)
    assert (await write(plc, one, value, write_with="multiple")).state is OutcomeState.VERIFIED
    assert plc.functions()[0] == function
    plc = Plc(1)
    plc.unit.refused = {5: 1, 6: 1}
    async with writing(plc, {**one, "writable": True}) as session:
        for _ in range(2):
            (outcome,) = await session.write([command(one["name"], value)])
            assert outcome.state is OutcomeState.VERIFIED
    assert [one for one in plc.functions() if one > 4] == [5 if function == 15 else 6, function, function]


async def test_bits_keep_their_neighbours() -> None:
    plc = Plc(1)
    plc.unit.words = {3: 0b1010}
    assert (await write(plc, tag("holding:3.0", "bool"), True)).state is OutcomeState.VERIFIED
    assert plc.unit.words[3] == 0b1011
    assert (await write(plc, tag("holding:3.1", "bool"), False)).state is OutcomeState.VERIFIED
    assert plc.unit.words[3] == 0b1001


async def test_a_device_without_mask_write_is_read_changed_and_written_and_the_outcome_says_so() -> None:
    plc = Plc(1)
    plc.unit.words, plc.unit.refused = {3: 0x8001}, {22: 1}
    outcome = await write(plc, tag("holding:3.4", "bool"), True)
    assert outcome.state is OutcomeState.VERIFIED
    assert "refuses mask write (22)" in outcome.detail
    assert plc.unit.words[3] == 0x8011
    assert plc.functions() == [22, 3, 6, 3]


async def test_an_acknowledged_write_that_changes_nothing_is_a_mismatch() -> None:
    plc = Plc(1)
    plc.unit.fixed = {3}
    outcome = await write(plc, tag("holding:3"), 9)
    assert (outcome.state, outcome.read_back) == (OutcomeState.MISMATCH, 0)
    assert "wrote 9, read back 0" in outcome.detail


@pytest.mark.parametrize(
    ("one", "value", "words"),
    [
        (tag("holding:3", writable=False), 1, "not writable"),
        (tag("holding:3"), 65536, "out of range"),
        (tag("holding:3"), -1, "out of range"),
        (tag("holding:3"), 1.5, "no whole number"),
        (tag("holding:3"), True, "write a number"),
        (tag("holding:3"), "1", "write a number"),
        (tag("holding:3", "int16", scale=0.1), 4000.0, "out of range"),
        (tag("holding:3", "float32"), math.nan, "NaN"),
        (tag("holding:3", "float64"), math.inf, "NaN and infinity"),
        (tag("holding:3", "float32"), 1e39, "out of range"),
        (tag("holding:3", "float64", scale=1e-300), 1e300, "out of range"),
        (tag("holding:3", "int32", scale=1e-300), 1e300, "out of range"),
        (tag("holding:3", "float64"), 10**310, "out of range"),
        (tag("holding:3", "int16", scale=0.5), 10**60, "out of range"),
        (tag("holding:3", encoding="bcd"), 10000, "out of range"),
        (tag("holding:3", invalid=[0xFFFF]), 65535, "mean no value"),
        (tag("holding:3", "int16", scale=0.1, invalid=[7, -32768]), -3276.8, "mean no value"),
        (tag("holding:3", encoding="bcd", invalid=[9999]), 9999, "mean no value"),
        (tag("holding:3", "float32", invalid=[-999]), -999.0, "mean no value"),
        (tag("holding:3", "float64", scale=0.1, invalid=[-9990]), -999, "mean no value"),
        (tag("holding:3", "string", length=2), "abc", "too long"),
        (tag("holding:3", "string", length=2), 5, "write text"),
        (tag("holding:3", "string", length=2, charset="latin-1"), "Ж", "lacks"),
        (tag("holding:3", "bytes", length=2), "ab", "write bytes"),
        (tag("coil:3", "bool"), 2, "write true or false"),
        (tag("coil:3", "bool"), "on", "write true or false"),
        (tag("holding:3", minimum=10.0, maximum=20.0), 21, "the tag takes 10 to 20"),
        (tag("holding:3", "float32", minimum=10.0), 9.5, "the tag takes 10 to"),
    ],
    ids=lambda part: str(part)[:40],
)
async def test_what_cannot_be_right_is_refused_and_never_sent(one: dict[str, Any], value: Value, words: str) -> None:
    plc = Plc(1)
    outcome = await write(plc, {"writable": True, **one}, value)
    assert outcome.state is OutcomeState.REFUSED
    assert words in outcome.detail
    assert plc.asked == []


async def test_a_refusal_is_told_in_words() -> None:
    plc = Plc(1)
    plc.unit.refused = {16: 3}
    outcome = await write(plc, tag("holding:3", "float32"), 1.0)
    assert outcome.state is OutcomeState.REFUSED
    assert "exception 3, illegal data value" in outcome.detail


async def test_a_command_after_its_deadline_is_never_sent() -> None:
    plc = Plc(1)
    async with writing(plc, tag("holding:3", writable=True)) as session:
        (outcome,) = await session.write([command("holding:3", 1, deadline_ns=NOW)])
    assert outcome.state is OutcomeState.EXPIRED
    assert plc.asked == []


async def test_unknown_devices_and_tags_are_refused_and_the_others_carried_out_in_order() -> None:
    plc = Plc(1)
    async with writing(plc, tag("holding:3", writable=True)) as session:
        outcomes = await session.write(
            [command("x", 1), command("holding:3", 1, name="who"), command("holding:3", 5), command("holding:3", 6)]
        )
    states = [outcome.state for outcome in outcomes]
    assert states == [OutcomeState.REFUSED, OutcomeState.REFUSED, OutcomeState.VERIFIED, OutcomeState.VERIFIED]
    assert plc.unit.words[3] == 6


async def test_a_write_without_an_answer_has_failed_and_nobody_can_say() -> None:
    plc = Plc(1)
    plc.silent = {1}
    outcome = await write(plc, tag("holding:3"), 1)
    assert outcome.state is OutcomeState.FAILED
    assert "nobody can say" in outcome.detail


async def test_a_tag_that_can_be_written_and_not_read_has_failed_after_the_acknowledgement() -> None:
    plc = Plc(1)
    plc.unit.refused = {3: 2}
    outcome = await write(plc, tag("holding:3"), 1)
    assert outcome.state is OutcomeState.FAILED
    assert "acknowledged, but it cannot be read back" in outcome.detail
    assert plc.unit.words[3] == 1


async def test_a_lost_connection_fails_the_command_in_flight_and_then_refuses_to_write() -> None:
    plc = Plc(1)

    def drop(frame: bytes) -> list[bytes]:
        plc.kick()
        return []

    plc.send = drop
    async with writing(plc, tag("holding:3", writable=True)) as session:
        (outcome,) = await session.write([command("holding:3", 1)])
        assert outcome.state is OutcomeState.FAILED
        with pytest.raises(Unreachable):
            await session.write([command("holding:3", 1)])


async def test_writes_work_while_nobody_reads_and_while_somebody_does() -> None:
    plc = Plc(1)
    async with writing(plc, tag("holding:3", writable=True), scan_s=0.01) as session:
        assert (await session.write([command("holding:3", 1)]))[0].state is OutcomeState.VERIFIED

        async def read() -> None:
            async for _ in session.batches():
                pass

        task = asyncio.ensure_future(read())
        for value in range(20):
            assert (await session.write([command("holding:3", value)]))[0].state is OutcomeState.VERIFIED
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task


def test_the_test_plc_writes_as_the_specification_says() -> None:
    """V1.1b3, 6.16: 0x12 masked with 0xF2 and 0x25 is 0x17."""
    unit = Unit(words={4: 0x12})
    unit.answer(bytes.fromhex("16000400f20025"))
    assert unit.words[4] == 0x17
