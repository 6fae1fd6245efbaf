"""Every template is proven: the real driver plans its tags, libmodbus serves its recorded registers, and what is read is what
was recorded.

All templates are read over one connection for each server, each as a unit id of its own.
"""

from __future__ import annotations

import asyncio
import math
from typing import Any

import msgspec
import pytest

from protocols.modbus.check import check
from protocols.modbus.config import ModbusRtu
from protocols.model import Quality
from protocols.templates.library import own, resolved, sources
from protocols.templates.shape import Family
from tests.peers.libmodbus import LibmodbusServer
from tests.protocols.templates.proof import UNITS, Reading, connection, covered, device, quick, read, serve, without_value

LIBRARY = own()
FIXED = [template for template in LIBRARY.find() if not template.walk]
NAMES = [template.name for template in FIXED]
Readings = dict[str, dict[str, Reading]]


@pytest.fixture(scope="module")
def readings() -> Readings:
    """What every template reads from its own recorded registers."""
    return asyncio.run(_readings())


async def _readings() -> Readings:
    found: Readings = {}
    for first in range(0, len(FIXED), UNITS):
        mine = FIXED[first : first + UNITS]
        async with LibmodbusServer(units=range(1, len(mine) + 1)) as server:
            rows = []
            for unit, template in enumerate(mine, start=1):
                assert template.recorded is not None
                await serve(server, unit, template.recorded)
                rows.append(quick(device(template, template.name.replace("/", "."), unit)))
            found |= await read(connection(rows, server.port))
    return {name: found[name.replace("/", ".")] for name in NAMES}


@pytest.mark.parametrize("name", NAMES)
def test_it_reads_what_was_recorded(name: str, readings: Readings) -> None:
    """Each tag is good and has the recorded value; there is no tag without one and no value without a tag."""
    template = LIBRARY[name]
    assert template.recorded is not None
    wrong = {tag: (value, quality) for tag, (value, quality) in readings[name].items() if quality is not Quality.GOOD}
    assert not wrong
    seen = {tag: value for tag, (value, _) in readings[name].items()}
    expected = {tag: template.recorded.values[tag] for tag in seen}
    assert {tag: (value, expected[tag]) for tag, value in seen.items() if not equal(value, expected[tag])} == {}


def equal(seen: Any, recorded: Any) -> bool:  # Any: numbers, text, bools
    if isinstance(recorded, bool | str):
        return bool(seen == recorded) and type(seen) is type(recorded)
    return math.isclose(seen, recorded, rel_tol=1e-6, abs_tol=1e-9)


SILENT = [template for template in FIXED if any(tag.options.get("invalid") for tag in template.tags)]


async def test_what_has_no_value_is_bad_and_nothing_else() -> None:
    """Every tag with numbers that mean no value, holding each of them, in the order of its own device; its neighbours stay good."""
    most = max(len(tag.options.get("invalid", ())) for template in SILENT for tag in template.tags)
    async with LibmodbusServer(units=range(1, len(SILENT) + 1)) as server:
        rows = [quick(device(template, template.name.replace("/", "."), unit)) for unit, template in enumerate(SILENT, start=1)]
        for unit, template in enumerate(SILENT, start=1):
            assert template.recorded is not None
            await serve(server, unit, template.recorded)
        for nth in range(most):
            for row in rows:
                for table, address, words in without_value(row, nth):
                    await server.set(row["unit_id"], table, address, *words)
            readings = await read(connection(rows, server.port))
            for row in rows:
                gone = {tag["name"] for tag in row["tags"] if tag.get("invalid")}
                assert {name: reading for name, reading in readings[row["name"]].items() if name in gone} == dict.fromkeys(
                    gone, (0, Quality.BAD_OUT_OF_SERVICE)
                )
                assert {quality for name, (_, quality) in readings[row["name"]].items() if name not in gone} <= {Quality.GOOD}


async def test_an_abb_meter_says_itself_what_it_does_not_measure() -> None:
    """As captured from one with a single phase wired: 01b3 for the total power factor, 7fff for those of the phases."""
    template = LIBRARY["abb/b23"]
    wanted = {"power-factor/total", "power-factor/l1", "power-factor/l2", "power-factor/l3"}
    made = quick(device(template, "meter", 1))
    made["tags"] = [tag for tag in made["tags"] if tag["name"] in wanted]
    async with LibmodbusServer(units=[1]) as server:
        await server.set(1, "holding", 0x5B3A, 0x01B3, 0x7FFF, 0x7FFF, 0x7FFF)
        readings = (await read(connection([made], server.port)))["meter"]
    assert readings.pop("power-factor/total") == (0.435, Quality.GOOD)
    assert set(readings.values()) == {(0.0, Quality.BAD_OUT_OF_SERVICE)}
    assert len(readings) == 3


def test_a_kind_has_its_numbers_in_the_whole_family_and_a_tag_its_own() -> None:
    written = {
        "template": 1, "manufacturer": "Acme", "kind": "sensor", "connection": {"protocols": ["modbus-tcp"]},
        "invalid": {"int16": [-32768], "uint16": [65535]}, "defaults": {"kind": "int16"},
        "tags": [
            {"name": "a", "at": "input:0"}, {"name": "b", "at": "input:1", "kind": "uint16"},
            {"name": "c", "at": "input:2", "kind": "float32"},
            {"name": "d", "at": "input:4", "invalid": [32767]}, {"name": "e", "at": "input:5", "invalid": []},
        ],
        "products": {"one": {"models": ["One"]}},
    }  # fmt: skip
    one = resolved("acme/one", msgspec.convert(written, Family), "one")
    assert {tag.name: tag.options.get("invalid") for tag in one.tags} == {"a": [-32768], "b": [65535], "c": None, "d": [32767], "e": []}
    with pytest.raises(msgspec.ValidationError, match="invalid"):
        msgspec.convert({**written, "invalid": {"int17": [1]}}, Family)


@pytest.mark.parametrize("name", NAMES)
def test_nothing_is_wrong_with_it(name: str) -> None:
    """Its device passes the driver's check without an error and without a warning, and its example covers every tag."""
    template = LIBRARY[name]
    made = device(template, "one", 1)
    assert check(connection([made], 502)) == []
    assert covered(template, made) == []


@pytest.mark.parametrize("name", [template.name for template in FIXED if "modbus-rtu" in template.connection.protocols])
def test_its_own_line_carries_it(name: str) -> None:
    """On a serial line as the device leaves the factory its scans fit, at the template's own speeds."""
    template = LIBRARY[name]
    hints = {key: value for key in ("baud_rate", "parity", "stop_bits") if (value := getattr(template.connection, key)) is not None}
    line = {"type": "modbus-rtu", "name": "line", "serial_port": "/dev/null", **hints, "devices": [device(template, "one", 1)]}
    assert [problem for problem in check(msgspec.convert(line, ModbusRtu)) if problem.path != "stop_bits"] == []


@pytest.mark.parametrize("name", NAMES)
def test_its_facts_have_a_source(name: str) -> None:
    """Its sources are known ones; what is said to be confirmed cannot be more than there is."""
    template = LIBRARY[name]
    assert template.sources
    assert set(template.sources) <= set(sources())
    assert template.confirmed <= len(template.tags)
    assert not template.confirmed or len(template.sources) > 1 or "; " in template.sources.get("manual", "")


def test_there_are_enough() -> None:
    """At least sixty products are described."""
    assert len(FIXED) >= 60


def test_the_proof_bites() -> None:
    """A value that differs in the last figure shown is not taken for equal."""
    assert equal(230.4, 230.4000001)
    assert not equal(230.4, 230.5)
    assert not equal(1, True)
    assert not equal(0.0, 0.1)


def test_templates_speak_one_language() -> None:
    """The same quantity has the same unit in every energy meter."""
    units: dict[str, set[str]] = {}
    for template in FIXED:
        if template.kind == "energy meter":
            for tag in template.tags:
                units.setdefault(tag.name, set()).add(str(tag.options.get("unit", "")))
    assert {name: found for name, found in units.items() if len(found) > 1} == {}


def test_every_family_is_used() -> None:
    """No product is without a tag, and no family has a tag that none of its products has."""
    assert [template.name for template in FIXED if not template.tags] == []
