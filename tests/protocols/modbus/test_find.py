"""The number finder: what a display shows is found among registers, whatever the kind, order and scale, and ranked sensibly."""

from __future__ import annotations

import math
import struct
from typing import Any

import msgspec
import numpy as np
import pytest
import yaml

from protocols.contract import Unreachable
from protocols.modbus import config
from protocols.modbus.address import Table
from protocols.modbus.decode import compile_recipe
from protocols.modbus.find import (
    FORMS,
    MAX_MATCHES,
    TABLES,
    Form,
    Match,
    NotANumber,
    Shown,
    Window,
    narrow,
    places,
    search,
    shown,
    tag_line,
    wider,
)
from protocols.modbus.line import Missed
from protocols.modbus.plan import make_plan
from protocols.modbus.scan import OwnLine
from protocols.modbus.window import Survey
from protocols.model import Kind
from tests.peers.libmodbus import LibmodbusServer, registers
from tests.protocols.modbus.plc import Plc, options

FIRST = 40
"""Where the value lies in these tests."""


def window(*words: int, table: Table = Table.INPUT, at: int = FIRST) -> Window:
    """A device with 200 registers, all 257 (as a float, a number that no display shows) but for ``words``."""
    made = Window()
    made.put(table, 0, np.full(200, 257, ">u2").tobytes())
    made.put(table, at, np.array(words, ">u2").tobytes())
    return made


@pytest.mark.parametrize(
    ("text", "value", "decimals", "unit", "power"),
    [
        ("230.4", 230.4, 1, "", 0),
        ("230,4 V", 230.4, 1, "V", 0),
        (" 1.234 kWh", 1.234, 3, "kWh", 3),
        ("12 345.6", 12345.6, 1, "", 0),
        ("1,234.5", 1234.5, 1, "", 0),
        ("1.234.567", 1234567.0, 0, "", 0),
        ("-12.5A", -12.5, 1, "A", 0),
        ("−3", -3.0, 0, "", 0),
        ("+7", 7.0, 0, "", 0),
        ("0.000512 MWh", 0.000512, 6, "MWh", 6),
        ("21.5 °C", 21.5, 1, "°C", 0),
        ("50.01 Hz", 50.01, 2, "Hz", 0),
        ("7 m3", 7.0, 0, "m3", 0),
    ],
)
def test_what_a_display_shows_is_understood(text: str, value: float, decimals: int, unit: str, power: int) -> None:
    """Points and commas, blanks between thousands, signs, and units with their prefix."""
    found = shown(text)
    assert found.value == pytest.approx(value)
    assert (found.decimals, found.unit, found.power) == (decimals, unit, power)


@pytest.mark.parametrize("text", ["", "OFF", "--", "1e5", "12 k V", "0", "0.000", "1.2.3,4,5", "9" * 41, "12 V and more than that", "."])
def test_what_is_no_reading_is_refused_with_advice(text: str) -> None:
    with pytest.raises(NotANumber, match=r"type what|wait until"):
        shown(text)


def test_display_rounding_is_allowed_for_and_no_more() -> None:
    """230.4 stands for 230.35 to 230.45."""
    for value, fits in ((230.36, True), (230.449, True), (230.34, False), (230.46, False)):
        assert bool(search(window(*registers("f", value)), shown("230.4"))) is fits, value


def test_the_usual_float_of_a_meter_comes_first() -> None:
    found = search(window(*registers("f", 230.43)), shown("230.4 V"))
    assert (found[0].at, found[0].form, found[0].power, found[0].exact) == ("input:40", Form(Kind.FLOAT32, 2), 0, True)
    assert tag_line(found[0], "u1", "V") == '- {name: u1, at: "input:40", kind: float32, unit: V}'


def _encoded(form: Form, raw: float) -> list[int]:
    """Registers as a device of this form would hold ``raw``: written apart from the code under test."""
    if form.bcd:
        content = bytes.fromhex(f"{int(raw):0{4 * form.words}d}")
    else:
        letter = {"f": "fd", "i": "hiq", "u": "HIQ"}[form.kind[0]]
        letter = letter["248".index(str(2 * form.words))] if len(letter) == 3 else letter["48".index(str(2 * form.words))]
        content = struct.pack(">" + letter, raw if form.kind[0] == "f" else int(raw))
    words = [content[at : at + 2] for at in range(0, len(content), 2)]
    if form.word_order == "little":
        words.reverse()
    return [int.from_bytes(word, "big" if form.byte_order == "big" else "little") for word in words]


@pytest.mark.parametrize("form", FORMS, ids=str)
@pytest.mark.parametrize("scale", [1.0, 0.1, 0.001])
def test_every_form_is_found_again(form: Form, scale: float) -> None:
    """Of every kind, order and usual scale; and the driver reads with the line that is pasted what the display shows."""
    reading = shown("-230.4") if form.kind in (Kind.INT16, Kind.INT32, Kind.INT64) else shown("230.4")
    if scale == 0.001 and form.words == 1:
        reading = Shown(math.copysign(2.3, reading.value), 1)
    raw = reading.value / scale
    if scale == 1.0 and form.kind[0] != "f":
        reading = Shown(math.copysign(230.0, reading.value), 0)
        raw = reading.value
    there = window(*_encoded(form, round(raw) if form.kind[0] != "f" else raw))
    power = round(math.log10(scale))
    found = [match for match in search(there, reading) if (match.number, match.form, match.power) == (FIRST, form, power)]
    assert found, f"{form} was not found"
    assert found[0].value == pytest.approx(reading.value, abs=reading.half)
    assert _read_with(tag_line(found[0], "x"), there) == pytest.approx(reading.value, abs=reading.half)


def _read_with(line: str, there: Window) -> float:
    """What the driver reads with a pasted tag line."""
    tag: dict[str, Any] = yaml.safe_load(line)[0]
    device = msgspec.convert({"name": "meter", "tags": [tag]}, config.Device)
    plan = make_plan(config.ModbusTcp(name="line", host="h", devices=(device,)))
    group = plan.devices[0].groups[0]
    recipe = compile_recipe(plan.devices[0].device, plan.devices[0].wires, group.blocks)
    (block,) = group.blocks
    content = there.words[block.table][block.number : block.end].astype(">u2").tobytes()
    (batch,) = recipe.decode(group.requests[0].head + content, [0, 0], None)
    return float(batch.value[0])


def test_a_prefix_of_the_unit_makes_its_scale_likely() -> None:
    """1.234 kWh of a meter that counts Wh in a float: 0.001 comes before stranger scales."""
    found = search(window(*registers("f", 1234.2)), shown("1.234 kWh"))
    assert [match.power for match in found if match.number == FIRST][:1] == [-3]
    assert found[0].cost < search(window(*registers("f", 1234.2)), shown("1.234"))[0].cost


def test_the_common_comes_before_the_strange() -> None:
    """The same number as uint16 in tenths and as a byte-swapped one: the plain one is first."""
    there = window(2304, 257, int.from_bytes((2304).to_bytes(2, "little"), "big"))
    found = [match for match in search(there, shown("230.4")) if match.form.words == 1]
    assert [match.number for match in found] == [FIRST, FIRST + 2]


def test_a_counter_that_would_overflow_is_pointed_out() -> None:
    """A small number under a register of zeros may be the low half of a counter."""
    there = window(0, 2304)
    plain = next(match for match in search(there, shown("230.4")) if match.form == Form(Kind.UINT16, 1))
    beside = wider(plain, there)
    assert beside is not None
    assert (beside.at, beside.form) == ("input:40", Form(Kind.UINT32, 2))
    assert wider(msgspec.structs.replace(plain, number=FIRST), there) is None


def test_what_was_not_read_is_not_searched() -> None:
    """A value that lies half in a hole is none."""
    there = Window()
    there.put(Table.HOLDING, 10, struct.pack(">f", 230.4)[:2])
    assert search(there, shown("230.4")) == []


def test_a_value_that_moved_meanwhile_is_kept_as_near() -> None:
    found = search(window(*registers("f", 231.9)), shown("230.4"), drift=0.01)
    assert [match.exact for match in found if match.form.kind is Kind.FLOAT32][:1] == [False]
    assert search(window(*registers("f", 231.9)), shown("230.4")) == []


def test_a_second_reading_throws_out_constants() -> None:
    """Two registers show 230.4; only one follows the display."""
    first, second = shown("230.4"), shown("231.0")
    found = search(window(2304, 0, 0, 2304), first)
    assert {match.number for match in found if match.form == Form(Kind.UINT16, 1)} == {FIRST, FIRST + 3}
    kept = narrow(found, window(2310, 0, 0, 2304), first, second)
    assert {match.number for match in kept} == {FIRST}


def test_a_constant_that_is_near_goes_behind_what_followed_the_display() -> None:
    first, second = shown("230.4"), shown("231.0")
    found = search(window(2304, 0, 0, 2304), first, drift=0.01)
    kept = narrow(found, window(2310, 0, 0, 2304), first, second, drift=0.01)
    assert kept[0].number == FIRST
    assert next(match for match in kept if match.number == FIRST + 3).cost > kept[0].cost + 5


def test_registers_of_noise_do_not_drown_the_answer() -> None:
    """All 131,072 registers random: what is found is bounded, and the value is among the first that are kept after a second reading."""
    dice = np.random.default_rng(7)
    there, later = Window(), Window()
    for table in TABLES:
        words = dice.integers(0, 65536, 65536).astype(">u2").tobytes()
        there.put(table, 0, words)
        later.put(table, 0, words)
    there.put(Table.INPUT, 52, struct.pack(">f", 1234.51))
    later.put(Table.INPUT, 52, struct.pack(">f", 1240.02))
    found = search(there, shown("1234.5"), drift=0.01)
    assert len(found) <= MAX_MATCHES
    kept = narrow(found, later, shown("1234.5"), shown("1240.0"), drift=0.01)
    assert (kept[0].at, kept[0].form) == ("input:52", Form(Kind.FLOAT32, 2))


def test_what_fits_without_end_is_bounded() -> None:
    there = Window()
    for table in TABLES:
        there.put(table, 0, np.full(65536, 7, ">u2").tobytes())
    assert len(search(there, shown("7"))) == MAX_MATCHES


def test_matches_survive_being_kept_in_a_file() -> None:
    found = search(window(*registers("f", 230.43)), shown("230.4"))
    assert msgspec.json.decode(msgspec.json.encode(found), type=list[Match]) == found


# ------------------------------------------------------------------------------------- reading a device that is not known


def own(port: int, **fields: Any) -> OwnLine:  # Any: as options takes them
    return OwnLine(options(port=port, timeout_s=0.3, **fields))


async def test_everything_that_a_device_has_is_read_around_its_holes() -> None:
    """libmodbus's server with holes, of registers that belong together and of single ones."""
    async with LibmodbusServer(units=[1]) as server:
        await server.set(1, "holding", 300, *range(1000, 1100))
        await server.hole(1, "holding", 0, 99)
        await server.hole(1, "holding", 333, 333)
        line = own(server.port)
        survey = Survey(line, 1, lambda text: None)
        read = await survey.read(0, 999)
        await line.close()
        known = read.known[Table.HOLDING]
        assert np.flatnonzero(~known[:1000]).tolist() == [*range(100), 333]
        assert read.words[Table.HOLDING][300:400][known[300:400]].tolist() == [*range(1000, 1033), *range(1034, 1100)]
        assert read.known[Table.INPUT][:1000].all()
        assert {request.function for request in await server.requests()} == {3, 4}, "nothing but reads"


async def test_a_device_that_gives_few_registers_at_once_is_read_whole() -> None:
    """Exception 3 teaches the size once."""
    async with LibmodbusServer(units=[1]) as server:
        await server.most(1, 20)
        line = own(server.port)
        read = await Survey(line, 1, lambda text: None).read(0, 499)
        await line.close()
        assert read.known[Table.HOLDING][:500].all()
        refused = [request for request in await server.requests() if request.count > 20]
        assert len(refused) < 10, "it is not asked for too much again and again"


async def test_a_table_that_a_device_does_not_have_is_asked_for_once() -> None:
    plc = Plc(1)
    plc.unit.refused[4] = 1
    async with plc.serve() as port:
        line = own(port)
        read = await Survey(line, 1, lambda text: None).read(0, 999)
        await line.close()
    assert plc.functions().count(4) == 1
    assert read.known[Table.HOLDING][:1000].all()
    assert not read.known[Table.INPUT].any()


async def test_a_device_that_is_not_there_is_given_up() -> None:
    async with LibmodbusServer(units=[1]) as server:
        line = own(server.port)
        with pytest.raises(Unreachable, match="holdfast scan"):
            await Survey(line, 9, lambda text: None).read()
        await line.close()
        assert len(await server.requests()) == 3


async def test_a_second_look_asks_little_and_reads_what_was_found() -> None:
    """Places that lie together are read together."""
    async with LibmodbusServer(units=[1]) as server:
        await server.set(1, "input", 52, *registers("f", 230.4), *registers("f", 231.4))
        line = own(server.port)
        survey = Survey(line, 1, lambda text: None)
        found = search(await survey.read(0, 199), shown("230.4"), drift=0.01)
        await server.requests()
        await server.set(1, "input", 52, *registers("f", 232.0))
        again = await survey.again(places(found))
        await line.close()
        assert len(await server.requests()) == 1
        assert again.words[Table.INPUT][52:54].tolist() == registers("f", 232.0)


async def test_a_question_that_gets_no_answer_is_a_miss() -> None:
    async with LibmodbusServer(units=[1]) as server:
        line = own(server.port)
        survey = Survey(line, 1, lambda text: None)
        found = search(await survey.read(0, 99), shown("1"), drift=0) or [Match(Table.INPUT, 0, Form(Kind.UINT16, 1), 0, 1.0, 0.0)]
        await server.silent(1)
        with pytest.raises(Missed):
            await survey.again(places(found))
        await line.close()
