"""``holdfast template`` from the command line, against a Modbus server that is not ours; and templates in site documents."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any, Final

import pytest
import yaml
from click.testing import CliRunner, Result
from jsonschema import Draft202012Validator

from gateway import config
from gateway.cli.template import template as command
from protocols.templates.library import own
from protocols.templates.shape import Template
from tests.peers.libmodbus import LibmodbusLine, LibmodbusServer
from tests.peers.wire import Wire
from tests.protocols.templates.proof import serve
from tests.protocols.templates.sunspec_map import suns_map

METER: Final = "eastron/sdm630"
UNIT: Final = 3


def run(*arguments: str) -> Result:
    return CliRunner().invoke(command, [*arguments])


async def try_on(server: LibmodbusServer, *arguments: str) -> Result:
    """The command beside the server, in a thread: each has its own loop."""
    given = ["try", *arguments, "--host", "127.0.0.1", "--port", str(server.port)]
    return await asyncio.to_thread(run, *given)


async def meter(server: LibmodbusServer, name: str = METER) -> Template:
    one = own()[name]
    assert one.recorded is not None
    await serve(server, UNIT, one.recorded)
    return one


def test_list_finds_by_any_word() -> None:
    assert METER in run("list").stdout
    found = run("list", "Carlo Gavazzi EM34").stdout.split()
    assert found[0] == "carlo-gavazzi/em340"
    assert run("list", "nobody makes this").exit_code == 1


@pytest.mark.parametrize(
    ("said", "first"),
    [
        ("Schneider Electric, METSEPM5110, V02.00", "schneider/pm5110"),
        ("vendor ABB; product B23 312-100", "abb/b23"),
        ("WAGO 750-881 PFC ETHERNET", "wago/750-880"),
    ],
)
def test_what_a_device_says_of_itself_leads_to_its_template(said: str, first: str) -> None:
    assert run("list", said).stdout.split()[0] == first


def test_show_says_everything() -> None:
    said = yaml.safe_load(run("show", METER).stdout)
    assert said["questions"]["wiring"]["default"] == "3P4W"
    assert {"name": "voltage/l1-l2", "at": "input:0x00c8"}.items() <= next(
        tag for tag in said["tags"] if tag["name"] == "voltage/l1-l2"
    ).items()
    assert said["licences"] == {"mbmd": "BSD-3-Clause", "sdm-modbus": "MIT", "openems": "EPL-2.0"}
    assert said["checked"].startswith("two sources for")


def test_a_name_that_is_nearly_right_is_helped() -> None:
    result = run("show", "eastron/sdm12")
    assert result.exit_code == 2
    assert "did you mean eastron/sdm120?" in result.stderr


async def test_try_reads_every_tag_once_and_recognises_the_device() -> None:
    async with LibmodbusServer(units=[UNIT]) as server:
        one = await meter(server)
        result = await try_on(server, METER, "--unit-id", str(UNIT))
    assert result.exit_code == 0, result.output
    lines = {line.split()[0]: line.split()[1:] for line in result.stdout.splitlines()}
    assert lines["voltage/l1"] == ["230.4", "V", "good"]
    assert lines["power/active/l3"][0].startswith("-")
    assert result.stdout.count("fits: ") == 2
    assert f"{len(one.tags)} of {len(one.tags)} tags are good" in result.stdout


async def test_try_says_what_does_not_answer() -> None:
    """A tag that the device does not have is named; the others are read."""
    async with LibmodbusServer(units=[UNIT]) as server:
        await meter(server)
        await server.hole(UNIT, "input", 0x48, 0x49)
        result = await try_on(server, METER, "--unit-id", str(UNIT))
    assert result.exit_code == 1
    assert "not: energy/active/import\n" in result.stdout
    assert "bad node id unknown" in result.stdout


async def test_try_tells_a_device_that_is_not_one() -> None:
    """Registers that cannot be this meter's do not fit."""
    async with LibmodbusServer(units=[UNIT]) as server:
        result = await try_on(server, METER, "--unit-id", str(UNIT))
    assert "DOES NOT FIT: phase voltage L1" in result.stdout


async def test_try_on_a_silent_unit_ends() -> None:
    async with LibmodbusServer(units=[UNIT]) as server:
        await server.silent(UNIT)
        result = await try_on(server, "eastron/sdm72", "--unit-id", str(UNIT), "--timeout", "0.2", "--within", "5")
    assert result.exit_code == 1
    assert "0 of 4 tags are good" in result.stdout or "answer" in result.output


async def test_try_over_a_serial_line() -> None:
    """The template's own speed and parity are taken; a number of the command line wins."""
    with Wire(baud=9600, tap=True) as wire:
        async with LibmodbusLine(wire.tap_path, 9600, units=[UNIT]) as server:
            await meter(server, "xy/xy-md02")
            given = ["try", "xy/xy-md02", "--serial", wire.path, "--unit-id", str(UNIT), "--stop-bits", "2"]
            result = await asyncio.to_thread(run, *given)
    assert result.exit_code == 0, result.output
    lines = {line.split()[0]: line.split()[1:] for line in result.stdout.splitlines()}
    assert (lines["temperature"], lines["humidity"]) == (["30.5", "°C", "good"], ["54.6", "%", "good"])


async def test_answers_choose_and_refuse() -> None:
    async with LibmodbusServer(units=[UNIT]) as server:
        await meter(server)
        result = await try_on(server, METER, "--unit-id", str(UNIT), "--answer", "wiring=1P2W")
        assert "voltage/l2" not in result.stdout
        wrong = await try_on(server, METER, "--answer", "wiring=5P")
    assert wrong.exit_code == 2
    assert "'5P' is not one of 1P2W, 3P3W, 3P4W" in wrong.stderr


async def test_as_device_prints_a_block_that_a_site_can_hold() -> None:
    async with LibmodbusServer(units=[UNIT]) as server:
        await meter(server)
        result = await try_on(server, METER, "--unit-id", str(UNIT), "--answer", "wiring=1P2W", "--as-device", "m1")
    assert yaml.safe_load(result.stdout) == [{"name": "m1", "template": METER, "unit_id": UNIT, "answers": {"wiring": "1P2W"}}]
    assert "voltage/l1" in result.stderr


async def test_a_sunspec_device_is_walked() -> None:
    """Its tags are found, read with their scale factors, and written out for the site."""
    registers = suns_map(40000, {1: {"Mn": "Maker", "Md": "One"}, 103: {"W": 4210, "W_SF": 1, "Hz": 5002, "Hz_SF": -2, "St": 4}})
    async with LibmodbusServer(units=[UNIT]) as server:
        await server.set(UNIT, "holding", 40000, *registers.values())
        await server.hole(UNIT, "holding", 40000 + len(registers), 40000 + len(registers) + 200)
        result = await try_on(server, "sunspec/inverter", "--unit-id", str(UNIT), "--as-device", "pv-1")
    assert result.exit_code == 0, result.output
    lines = {line.split()[0]: line.split()[1:] for line in result.stderr.splitlines() if line}
    assert lines["inverter_three_phase/W"] == ["42100", "W", "good"]
    assert lines["inverter_three_phase/Hz"] == ["50.02", "Hz", "good"]
    assert lines["common/Mn"][0] == "Maker"
    (block,) = yaml.safe_load(result.stdout)
    assert block["name"] == "pv-1"
    assert block["unit_id"] == UNIT
    assert next(tag for tag in block["tags"] if tag["name"] == "inverter_three_phase/W")["scale"] == 10.0


async def test_a_device_without_a_map_is_told() -> None:
    async with LibmodbusServer(units=[UNIT]) as server:
        result = await try_on(server, "sunspec/any", "--unit-id", str(UNIT))
    assert result.exit_code == 1
    assert "no SunSpec device" in result.stderr


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with one template of a user's own."""
    path = tmp_path / "templates" / "acme"
    path.mkdir(parents=True)
    (path / "thing.yaml").write_text(OWN)
    return tmp_path / "templates"


OWN: Final = """\
template: 1
manufacturer: Acme
kind: sensor
connection: {protocols: [modbus-tcp]}
tags:
  - {name: level, at: "holding:7", kind: uint16, scale: 0.1, unit: m}
products:
  level-1: {models: [Level 1]}
"""


def test_own_templates_are_found_in_a_folder(folder: Path) -> None:
    assert "acme/level-1" in run("list", "acme", "--folder", str(folder)).stdout
    assert run("show", "acme/level-1").exit_code == 2


@pytest.mark.parametrize(
    ("text", "says"),
    [
        (OWN.replace("kind: sensor", "kind: toaster"), "Invalid enum value 'toaster'"),
        (OWN + "products: {}\n", "the key 'products' stands twice"),
        (OWN.replace("manufacturer: Acme", "manufacturer: &a Acme\ndescription: *a"), "has no aliases"),
        (OWN.replace("unit: m}", "unit: m, times: [ratio]}"), "names the question 'ratio', which is not asked"),
        (OWN.replace("unit: m}", "unit: m, group: rarely}"), "is in the group 'rarely'"),
        (OWN.replace("scale: 0.1", "scale: [1]"), "has a scale or an offset that is no number"),
        ("{", "is not YAML"),
        ("? [a]\n: b\n", "a key is a list or a mapping"),
    ],
)
def test_a_wrong_template_is_told(folder: Path, text: str, says: str) -> None:
    (folder / "acme" / "thing.yaml").write_text(text)
    result = run("list", "--folder", str(folder))
    assert result.exit_code == 2
    assert says in result.stderr


def site(devices: str, kind: str = "modbus-tcp", where: str = "host: 192.0.2.1") -> bytes:
    """A site document whose first device stands in line 8."""
    head = f"holdfast: 1\ngateway: {{group: g, name: n}}\nconnections:\n  - name: c\n    type: {kind}\n    {where}\n    devices:\n"
    return (head + devices).encode()


def devices(document: bytes) -> tuple[Any, ...]:  # Any: the driver's own options
    found, problems = config.load(document)
    assert found is not None, problems
    assert [problem for problem in config.check(found) if problem.severity == "error"] == []
    options: Any = found.connections[0]
    return tuple(options.devices)


def test_a_device_of_a_site_names_a_template() -> None:
    (one,) = devices(site("      - {name: m1, template: eastron/sdm630, unit_id: 3}\n"))
    tags = {tag.name: tag for tag in one.tags}
    assert (one.unit_id, one.max_registers, len(tags)) == (3, 80, 72)
    assert tags["energy/active/import"].scan_s == 10.0
    assert tags["voltage/l1"].scan_s is None


def test_what_is_written_wins_over_the_template() -> None:
    """Keys of the device, tags of a known name, and the period."""
    text = """\
      - name: m1
        template: eastron/sdm630
        max_registers: 20
        scan_s: 30
        answers: {wiring: 1P2W}
        template_tags: ["voltage/*", "energy/active/import"]
        tags:
          - {name: energy/active/import, deadband: 0.5}
          - {name: serial, at: "holding:0xFC00", kind: uint32}
"""
    (one,) = devices(site(text))
    tags = {tag.name: tag for tag in one.tags}
    assert [tag.name for tag in one.tags][:2] == ["energy/active/import", "serial"]
    assert set(tags) == {"energy/active/import", "serial", "voltage/l1", "voltage/average"}
    assert (one.max_registers, one.scan_s) == (20, 30.0)
    assert (tags["energy/active/import"].deadband, tags["energy/active/import"].at) == (0.5, "input:0x0048")
    assert tags["energy/active/import"].scan_s == 30.0


def test_answers_scale_and_move_tags() -> None:
    rows = """\
      - {name: a, template: chint/dtsu666, answers: {ct_ratio: 40}, unit_id: 1}
      - {name: b, template: siemens/s7-1200-registers, answers: {first: 100}, unit_id: 2}
"""
    meter, plc = devices(site(rows))
    assert {tag.name: tag.scale for tag in meter.tags}["current/l1"] == 0.04
    assert {tag.name: tag.at for tag in plc.tags}["register/1"] == "holding:101"


def test_a_template_opens_nothing_to_commands_by_itself() -> None:
    rows = "".join(f"      - {{name: d{at}, template: {name}, unit_id: {at + 1}}}\n" for at, name in enumerate(WRITABLE))
    assert not [tag.name for one in devices(site(rows)) for tag in one.tags if tag.writable]
    (opened,) = devices(site("      - {name: r, template: waveshare/modbus-rtu-relay, answers: {writable: 'yes'}}\n"))
    assert all(tag.writable for tag in opened.tags)


WRITABLE: Final = [one.name for one in own().find() if any(tag.options.get("writable") for tag in one.tags)]


@pytest.mark.parametrize(
    ("row", "line", "path", "says"),
    [
        ("{name: m, template: eastron/sdm63}", 8, "template", "there is no template"),
        ("{name: m, template: 7}", 8, "template", "expected the name of a template"),
        ("{name: m, template: ../../etc}", 8, "template", "there is no template"),
        ("{name: m, template: sunspec/any}", 8, "template", "found in the device"),
        ("{name: m, template: eastron/sdm630, answers: {wiring: 5P}}", 8, "answers.wiring", "is not one of"),
        ("{name: m, template: eastron/sdm630, answers: {colour: red}}", 8, "answers.colour", "does not ask"),
        ("{name: m, template: eastron/sdm630, answers: [1]}", 8, "answers", "expected the questions"),
        ("{name: m, template: chint/dtsu666, answers: {ct_ratio: .nan}}", 8, "answers.ct_ratio", "expected a number"),
        ("{name: m, template: chint/dtsu666, answers: {ct_ratio: -1}}", 8, "answers.ct_ratio", "out of range"),
        ("{name: m, template: eastron/sdm630, template_tags: [volts]}", 8, "template_tags", "has no tag 'volts'"),
        ("{name: m, answers: {wiring: 1P2W}}", 8, "answers", "there is no template"),
        ("{name: m, template: eastron/sdm630, unit: 3}", 8, "unit", "there is no key"),
        ("{name: m, template: eastron/sdm630, tags: [{name: x}]}", 8, "tags[0].at", "at is missing"),
    ],
)
def test_what_is_wrong_is_said_where_it_stands(row: str, line: int, path: str, says: str) -> None:
    found, problems = config.load(site(f"      - {row}\n"))
    assert found is None
    problem = problems[0]
    assert isinstance(problem, config.Located)
    assert (problem.line, problem.path) == (line, f"connections[0].devices[0].{path}")
    assert says in problem.message


def test_a_problem_of_a_templates_tag_is_said_at_the_template() -> None:
    """A tag that a changed device no longer fits: its line is that of ``template``, its name is told."""
    text = "      - name: m\n        template: abb/b23\n        max_registers: 2\n"
    document = site(text)
    found, _ = config.load(document)
    assert found is not None
    problems = config.locate([*config.check(found)], document)
    errors = [problem for problem in problems if problem.severity == "error" and isinstance(problem, config.Located)]
    assert errors
    assert {(problem.path, getattr(problem, "line", 0)) for problem in errors} == {("connections[0].devices[0].template", 9)}
    assert any("energy/active/import of template abb/b23: it takes 4 registers" in problem.message for problem in errors)


def test_a_sites_own_templates_lie_beside_it(folder: Path) -> None:
    path = folder.parent / "site.yaml"
    path.write_bytes(site("      - {name: m, template: acme/level-1}\n"))
    found, problems = config.judge(path)
    assert found is not None, problems
    options: Any = found.connections[0]
    assert [tag.name for tag in options.devices[0].tags] == ["level"]
    (folder / "acme" / "thing.yaml").write_text("{")
    assert "is not YAML" in config.judge(path)[1][0].message


def test_a_tag_that_stands_twice_is_told(folder: Path) -> None:
    """Two tags of one name are right only where their questions part them."""
    twice = '  - {name: level, at: "holding:9", kind: uint16}\nproducts:'
    (folder / "acme" / "thing.yaml").write_text(OWN.replace("products:", twice))
    (folder.parent / "site.yaml").write_bytes(site("      - {name: m, template: acme/level-1}\n"))
    assert "has the tag 'level' twice" in config.judge(folder.parent / "site.yaml")[1][0].message


def test_three_hundred_devices_are_three_hundred_lines() -> None:
    rows = "".join(f"      - {{name: m{at}, template: eastron/sdm630, unit_id: {at % 247 + 1}}}\n" for at in range(300))
    found, problems = config.load(site(rows))
    assert found is not None, problems
    options: Any = found.connections[0]
    assert sum(len(one.tags) for one in options.devices) == 300 * 72


def test_a_few_lines_do_not_stand_for_endless_memory() -> None:
    rows = "".join(f"      - {{name: m{at}, template: eastron/sdm630}}\n" for at in range(2200))
    found, problems = config.load(site(rows))
    assert found is None
    assert any("more than 150000 tags" in problem.message for problem in problems)


def test_the_schema_knows_the_keys() -> None:
    """A document with templates is right for the JSON Schema; a wrong one is not."""
    judge = Draft202012Validator(config.schema())
    good = yaml.safe_load(site("      - {name: m, template: eastron/sdm630, answers: {wiring: 1P2W}, tags: [{name: x, deadband: 1}]}\n"))
    assert judge.is_valid(good)
    assert not judge.is_valid(yaml.safe_load(site("      - {name: m, template: 7}\n")))
    assert not judge.is_valid(yaml.safe_load(site("      - {name: m, tags: [{name: x}]}\n")))
