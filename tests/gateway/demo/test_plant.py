"""The simulated plant on the wire: what a master reads is what the model holds, and what it writes reaches the model."""

from __future__ import annotations

import struct
from collections import Counter

import pytest
from pymodbus.client import AsyncModbusTcpClient

from gateway.demo import plant as demo_plant
from gateway.demo.physics import Plant
from gateway.demo.plant import LINES, Signal, Unit, connections, decode, image, registers, running, runs
from protocols.clock import ManualClock

UNITS = [pytest.param(unit, id=unit.name) for line in LINES for unit in line.units]


@pytest.mark.parametrize("unit", UNITS)
def test_no_two_signals_share_a_place(unit: Unit) -> None:
    """Names are unique, and each register, coil and bit belongs to one signal."""
    assert max(Counter(signal.name for signal in unit.signals).values()) == 1
    places: Counter[tuple[str, int, int | None]] = Counter()
    plant = Plant()
    for signal in unit.signals:
        width = 1 if signal.bit is not None or signal.table in ("coil", "discrete") else len(registers(signal, signal.read(plant)))
        places.update((signal.table, signal.address + i, signal.bit) for i in range(width))
    assert max(places.values()) == 1


@pytest.mark.parametrize("unit", UNITS)
def test_registers_give_back_the_value(unit: Unit) -> None:
    """Every number decodes from its registers to what the model holds, within its resolution."""
    plant = Plant()
    plant.step(20)
    for signal in unit.signals:
        if signal.table in ("holding", "input") and signal.kind != "string" and signal.bit is None:
            value = float(signal.read(plant))
            assert decode(signal, registers(signal, value)) == pytest.approx(value, rel=1e-6, abs=signal.scale)


@pytest.mark.parametrize(
    ("kind", "value", "words"),
    [("uint16", 70000.0, [0xFFFF]), ("uint16", -5.0, [0]), ("int16", -40000.0, [0x8000]), ("int64", -1.0, [0xFFFF] * 4)],
)
def test_values_that_do_not_fit_are_clipped(kind: str, value: float, words: list[int]) -> None:
    """A value beyond its kind is clipped to the kind's end, and never wraps."""
    assert registers(Signal("x", "holding:0", kind, "", lambda _: value), value) == words


def test_little_word_order_swaps_words_and_not_bytes() -> None:
    """With the low word first, the words change places and the bytes in them do not."""
    big = Signal("x", "holding:0", "uint32", "", lambda _: 0)
    little = Signal("x", "holding:0", "uint32", "", lambda _: 0, little=True)
    assert registers(big, 0x01020304) == [0x0102, 0x0304]
    assert registers(little, 0x01020304) == [0x0304, 0x0102]


def test_runs_leave_holes_out() -> None:
    """Neighbouring addresses become one run; a hole starts another."""
    assert runs({0: 5, 1: 6, 4: 7}) == [(0, [5, 6]), (4, [7])]


def test_one_meter_has_a_hole() -> None:
    """Registers 24 to 29 of the float meters do not exist, so that a reader meets what real devices do to it."""
    meter = next(unit for line in LINES for unit in line.units if unit.name == "meter-main")
    assert not set(range(24, 30)) & image(meter, Plant())["input"].keys()


def test_the_document_names_every_signal() -> None:
    """The plant's part of the site document has each device and each tag once, with the ports that were given."""
    said = connections({"boiler-house": 1, "water-works": 2, "meters": 3})
    assert [connection["port"] for connection in said] == [1, 2, 3]
    tags = sum(len(device["tags"]) for connection in said for device in connection["devices"])
    assert tags == sum(len(unit.signals) for line in LINES for unit in line.units)
    assert 60 <= tags <= 120


async def test_a_master_reads_the_model_and_writes_to_it() -> None:
    """Over TCP: a float read equals the model, a hole is refused, and a written setpoint and coil reach the model."""
    plant, clock = Plant(), ManualClock()
    async with running(plant, clock=clock) as ports:
        client = AsyncModbusTcpClient("127.0.0.1", port=ports["boiler-house"])
        assert await client.connect()
        try:
            answer = await client.read_holding_registers(0, count=2, device_id=1)
            (pressure,) = struct.unpack(">f", struct.pack(">2H", *answer.registers))
            assert pressure == pytest.approx(plant.boiler.pressure_bar)
            assert (await client.read_holding_registers(0, count=42, device_id=1)).isError()
            await client.write_registers(40, list(struct.unpack(">2H", struct.pack(">f", 9.25))), device_id=1)
            await client.write_coil(0, False, device_id=1)
            await clock.advance(2 * demo_plant.STEP_S)
            assert plant.boiler.setpoint_bar == 9.25
            assert plant.boiler.enabled is False
            bits = (await client.read_coils(0, count=4, device_id=1)).bits
            assert [bits[0], bits[3]] == [plant.boiler.enabled, plant.boiler.burning]
        finally:
            client.close()


async def test_each_meter_answers_under_its_own_unit_id() -> None:
    """Three meters share one port and keep apart by unit id; words are in the order that the map says."""
    plant = Plant()
    async with running(plant, clock=ManualClock()) as ports:
        client = AsyncModbusTcpClient("127.0.0.1", port=ports["meters"])
        assert await client.connect()
        try:
            main = (await client.read_input_registers(18, count=2, device_id=1)).registers
            swapped = (await client.read_input_registers(18, count=2, device_id=2)).registers
            small = (await client.read_holding_registers(9, count=2, device_id=3)).registers
        finally:
            client.close()
    assert struct.unpack(">f", struct.pack(">2H", *main))[0] == pytest.approx(plant.main.kw, rel=1e-6)
    assert struct.unpack(">f", struct.pack(">2H", *swapped[::-1]))[0] == pytest.approx(plant.boiler_house.kw, rel=1e-6)
    assert struct.unpack(">i", struct.pack(">2H", *small))[0] == round(plant.water_works.kw * 1000)
