"""Loading: a good document gives a Site, a bad one gives every problem with its path, its line and advice."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import msgspec
import pytest

from gateway.config import Located, load, locate
from gateway.config.document import MAX_BYTES, MAX_DEPTH, MAX_NODES, parse, resolve, show, steps
from gateway.config.drivers import Broken, Drivers, Installed
from gateway.config.model import PlainMqttUplink, Site, SparkplugUplink
from protocols.contract import Problem

PLANT = Path(__file__).with_name("plant.yaml")
HEAD = "holdfast: 1\ngateway: {group: g, name: n}\n"


def problems_of(text: str | bytes, drivers: Drivers) -> list[Problem]:
    site, problems = load(text.encode() if isinstance(text, str) else text, drivers=drivers)
    assert site is None
    assert problems
    return problems


def one_problem(text: str, drivers: Drivers) -> Located:
    (problem,) = problems_of(text, drivers)
    assert isinstance(problem, Located)
    return problem


def test_the_documents_example_loads(drivers: Drivers) -> None:
    site, problems = load(PLANT, drivers=drivers)
    assert problems == []
    assert site is not None
    assert site.gateway.name == "gw-01"
    assert [one.name for one in site.connections] == ["boiler-house", "meters"]
    assert [type(one) for one in site.uplinks] == [SparkplugUplink, PlainMqttUplink]
    assert site.connections[0].devices[0].tags[1].scale == 0.001


def test_json_is_a_document_too(drivers: Drivers) -> None:
    site, _ = load(PLANT, drivers=drivers)
    again, problems = load(msgspec.json.encode(site), drivers=drivers)
    assert problems == []
    assert again == site


def test_all_problems_come_at_once_in_the_order_of_the_lines(drivers: Drivers) -> None:
    text = (
        PLANT.read_text()
        .replace("max_age_s: 2592000", "max_age: 30d")
        .replace("port: 502", "port: '502'")
        .replace("kind: bool", "kind: boolean")
        .replace("type: sparkplug", "type: sparkplugb")
        .replace("unit_id: 1", "slave: 1")
        .replace("gateway: {group: plant-7, ", "gateway: {")
        .replace("scan_s: 1.0", "scan_s: -1")
    )
    found = [(one.path, getattr(one, "line", 0)) for one in problems_of(text, drivers)]
    assert found == [
        ("gateway.group", 2),
        ("journal.max_age", 3),
        ("connections[0].port", 8),
        ("connections[0].devices[0].slave", 12),
        ("connections[0].devices[0].scan_s", 13),
        ("connections[0].devices[0].tags[2].kind", 17),
        ("uplinks[0].type", 24),
    ]


ADVICE = [
    ("gateway: {group: g, name: n, naem: x}", "gateway.naem", "did you mean name?"),
    ("journal: {commit_window: 5}", "journal.commit_window", "did you mean commit_window_ms?"),
    ("journal: {max_bytes: 2GiB}", "journal.max_bytes", "write the number alone, in bytes"),
    ("journal: {max_age_s: 30 days}", "journal.max_age_s", "write the number alone, in seconds"),
    ("journal: {commit_window_ms: 0100}", "journal.commit_window_ms", "write 100, without quotes, leading zeros or separators"),
    ("journal: {max_bytes: 1_000_000_000}", "journal.max_bytes", "write 1000000000, without quotes, leading zeros or separators"),
    ("journal: {max_age_s: .inf}", "journal.max_age_s", "Records older than this are dropped, in seconds."),
    ("journal: {max_age_s: .nan}", "journal.max_age_s", "Records older than this are dropped, in seconds."),
    ("journal: {commit_window_ms: 5.0}", "journal.commit_window_ms", "write 5"),
    ("journal: {when_full: drop_oldest}", "journal.when_full", "did you mean drop-oldest?"),
    ("journal: {path: 5}", "journal.path", 'put it in quotes: "5"'),
    ("journal: {path: }", "journal.path", "give a value, or remove the key to have the default"),
    ("gateway: {group: a/b#, name: n}", "gateway.group", 'write it without "/" "#"'),
    ("gateway: {group: -a, name: n}", "gateway.group", "begin with a letter or digit"),
    ('gateway: {group: "a\\n", name: n}', "gateway.group", 'write it without "\\n"'),
    ("journal: [1]", "journal", "remove the dash: this is one thing, not a list"),
    ("journal:", "journal", "indent the keys below this line further than the line itself"),
    ("uplinks: {name: x}", "uplinks", "begin each entry with a dash, or write [a, b]"),
    ("uplinks: [{name: x, host: h}]", "uplinks[0]", "say what it is: type is one of sparkplug, mqtt"),
    ("uplinks: [5]", "uplinks[0]", "write key: value pairs, indented below it"),
    ("connections: [{name: x, type: modbus_tcp, host: h}]", "connections[0].type", "did you mean modbus-tcp?"),
    ("connections: [{name: x, type: opc-ua}]", "connections[0].type", "type is one of modbus-rtu, modbus-tcp"),
    ("connections: [{name: x}]", "connections[0]", "say what it is: type is one of modbus-rtu, modbus-tcp"),
    ("connections: [x]", "connections[0]", "begin with - name: and type:"),
    ("connections: [{name: x, type: modbus-tcp, ip: h}]", "connections[0].ip", "did you mean host?"),
    ("connections: [{name: x, type: modbus-tcp}]", "connections[0].host", "add host: Host name or IP address."),
    (
        'connections: [{name: x, type: modbus-tcp, host: h, devices: [{name: d, tags: [{name: t, at: "coil:1", '
        "kind: bool, writable: yes}]}]}]",
        "connections[0].devices[0].tags[0].writable",
        "write true without quotes",
    ),
]


@pytest.mark.parametrize(("line", "path", "advice"), ADVICE, ids=[one[0][:50] for one in ADVICE])
def test_each_mistake_has_its_advice(line: str, path: str, advice: str, drivers: Drivers) -> None:
    head = "holdfast: 1\n" if line.startswith("gateway") else HEAD
    found = {one.path: one for one in problems_of(head + line, drivers)}
    assert found[path].advice == advice
    assert getattr(found[path], "line", 0) == head.count("\n") + 1


def test_a_wrong_value_says_what_is_possible(drivers: Drivers) -> None:
    assert one_problem(HEAD + "telemetry: {metrics_port: 70000}", drivers).message == (
        "expected a whole number from 0 to 65535, got the number 70000"
    )
    assert one_problem(HEAD + "outage_budget_s: -1", drivers).message == "expected a number from 0 to 3153600000, got the number -1"


def test_a_key_that_stands_twice_is_an_error(drivers: Drivers) -> None:
    problem = one_problem(HEAD + "journal:\n  path: a\n  path: b\n", drivers)
    assert (problem.path, problem.line) == ("journal.path", 5)
    assert problem.message == "the key stands twice; first in line 4"


def test_a_key_that_stands_twice_in_json_is_an_error_with_its_line(drivers: Drivers) -> None:
    problem = one_problem('{"holdfast": 1,\n"gateway": {"group": "g", "name": "n"},\n"gateway": {"group": "g", "name": "m"}}', drivers)
    assert (problem.path, problem.line) == ("gateway", 3)


def test_problems_of_json_have_lines(drivers: Drivers) -> None:
    problem = one_problem('{"holdfast": 1,\n"gateway": {"group": "g",\n"name": 5}}', drivers)
    assert (problem.path, problem.line) == ("gateway.name", 3)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("on", "on"), ("yes", "yes"), ("NO", "NO"), ("12:30", "12:30"), ("012", "012"), ("0o14", 12), ("0x1F", 31), ("-7", -7),
        ("1e3", 1000.0), ("1.", 1.0), (".5", 0.5), ("1e999", "1e999"), ("2026-01-02", "2026-01-02"), ("~", None), ("", None),
        ("true", True), ("False", False), ("9" * 100, "9" * 100), ("+", "+"), (".inf", ".inf"), ("18446744073709551615", 2**64 - 1),
    ],
)  # fmt: skip
def test_scalars_follow_yaml_1_2_and_not_1_1(text: str, value: object) -> None:
    assert resolve(text) == value
    assert type(resolve(text)) is type(value)


def test_anchors_and_merge_keys_work(drivers: Drivers) -> None:
    text = HEAD + (
        "connections:\n"
        "  - {name: a, type: modbus-tcp, host: h, devices: [&box {name: d1, unit_id: 7, tags: [{name: t, at: 'coil:1', kind: bool}]}]}\n"
        "  - {name: b, type: modbus-tcp, host: i, devices: [{<<: *box, name: d2}]}\n"
    )
    site, problems = load(text.encode(), drivers=drivers)
    assert problems == []
    assert site is not None
    device = site.connections[1].devices[0]
    assert (device.name, device.unit_id, device.tags[0].name) == ("d2", 7, "t")


FATAL = [
    ("a: [1, 2", "this is not YAML"),
    ("a:\n\tb: 1", "this is not YAML"),
    ("a: *b", "*b refers to nothing"),
    ("a: &x [*x]", "*x contains itself"),
    ("a: 1\n---\nb: 2", "a second document begins here"),
    ("a: " + "[" * 200 + "]" * 200, f"nested more than {MAX_DEPTH} deep"),
    ('{"a": ' + "[" * 50_000 + "]" * 50_000 + "}", f"nested more than {MAX_DEPTH} deep"),
    ("a: " + "[" * 100_000, f"nested more than {MAX_DEPTH} deep"),
    ("a: \x00", "this is not YAML"),
    (b"a: \xff", "the document is not UTF-8 text"),
    (b" " * (MAX_BYTES + 1), f"the document has more than {MAX_BYTES} bytes"),
    ("", "the document is empty"),
]


@pytest.mark.parametrize(("text", "message"), FATAL, ids=range(len(FATAL)))
def test_what_cannot_be_read_is_one_clear_problem(text: str | bytes, message: str, drivers: Drivers) -> None:
    (problem,) = problems_of(text, drivers)
    assert message in problem.message
    assert problem.advice


def test_an_alias_bomb_is_refused_before_it_is_followed(drivers: Drivers) -> None:
    bomb = "a0: &a0 [1, 1, 1, 1, 1, 1, 1, 1, 1, 1]\n"
    bomb += "".join(f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]\n" for n in range(1, 30))
    assert f"more than {MAX_NODES} values" in problems_of(bomb, drivers)[0].message


def test_foreign_yaml_tags_are_refused(drivers: Drivers) -> None:
    found = problems_of("a: !!python/object/apply:os.system ['true']\nb: !vault x\nc: !!str 5\n", drivers)
    assert [one.path for one in found if "is not allowed" in one.message] == ["a", "b"]


def test_a_key_that_is_a_mapping_is_a_problem_and_not_a_crash(drivers: Drivers) -> None:
    assert "a key is a list or a mapping" in [one.message for one in problems_of("{[1]: 2}: 3\n? {a: b}\n: c\n", drivers)]


def test_a_file_that_is_not_there_is_a_problem(tmp_path: Path, drivers: Drivers) -> None:
    site, (problem,) = load(tmp_path / "none.yaml", drivers=drivers)
    assert site is None
    assert "No such file" in problem.message


def test_problems_found_later_get_their_line(drivers: Drivers) -> None:
    (problem,) = locate([Problem("connections[0].devices[0].tags[2].kind", "x")], PLANT)
    assert isinstance(problem, Located)
    assert problem.line == 17


@pytest.mark.parametrize("path", [("a", 0, "b"), ("a", "x.y", 3), ('q"]', 1), ("tags", 12, "at")])
def test_a_path_can_be_read_back(path: tuple[str | int, ...]) -> None:
    assert steps(show(path)) == path


def test_an_integer_beyond_64_bits_is_a_problem(drivers: Drivers) -> None:
    assert one_problem(HEAD + "journal: {max_bytes: " + "9" * 30 + "}", drivers).path == "journal.max_bytes"


def test_a_large_document_that_is_wrong_everywhere_gives_the_first_thousand_problems(drivers: Drivers) -> None:
    text = HEAD + "uplinks: [5]\nconnections:\n" + "  - {name: a, type: modbus-tcp, host: h, prot: 1}\n" * 5000
    problems = problems_of(text, drivers)
    assert len(problems) == 1001
    assert problems[0].path == "uplinks[0]"
    assert problems[-1].message == "there are more problems than are shown"


def test_half_a_surrogate_pair_is_not_text(drivers: Drivers) -> None:
    problems = problems_of('{"holdfast": 1, "gateway": {"group": "g", "name": "n"}, "journal": {"path": "\\ud800"}}', drivers)
    assert json.dumps([one.message for one in problems], ensure_ascii=False).encode()


def test_a_pair_of_surrogates_in_json_is_one_character() -> None:
    document, problems = parse(b'{"a": "\\ud83d\\ude00"}')
    assert problems == []
    assert document is not None
    assert document.value == {"a": "\N{GRINNING FACE}"}


def _plant(folder: Path, module: str, entry: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Install a distribution with one driver into ``folder``, as pip would leave it."""
    (folder / "planted_driver.py").write_text(module)
    info = folder / "planted-1.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: planted\nVersion: 1\n")
    (info / "entry_points.txt").write_text(f"[holdfast.drivers]\n{entry}\n")
    monkeypatch.syspath_prepend(str(folder))
    monkeypatch.delitem(sys.modules, "planted_driver", raising=False)


GOOD_DRIVER = """
import msgspec
class Options(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag_field="type", tag="planted"):
    name: str
class Planted:
    name = "planted"
    options = Options
"""


def test_a_driver_of_somebody_else_is_found_through_its_entry_point(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _plant(tmp_path, GOOD_DRIVER, "planted = planted_driver:Planted", monkeypatch)
    site, problems = load(f"{HEAD}connections: [{{name: a, type: planted}}]".encode(), drivers=Installed())
    assert problems == []
    assert site is not None
    assert site.connections[0].name == "a"


@pytest.mark.parametrize(
    ("module", "reason"),
    [
        ("import no_such_module_at_all", "cannot be imported: ModuleNotFoundError"),
        ("syntax error", "cannot be imported: SyntaxError"),
        ("raise RuntimeError('boom')", "cannot be imported: RuntimeError: boom"),
        ("x = 1", "cannot be imported: AttributeError"),
        ("Planted = 5", "has no options Struct"),
        (GOOD_DRIVER.replace('tag="planted"', 'tag="other"'), "its options are tagged type: other"),
        (GOOD_DRIVER.replace("name: str", "name: str | bytes"), "msgspec cannot use its options"),
    ],
)
def test_a_driver_that_cannot_be_used_is_a_problem_of_its_connection(
    module: str, reason: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _plant(tmp_path, module, "planted = planted_driver:Planted", monkeypatch)
    drivers = Installed()
    with pytest.raises(Broken):
        drivers["planted"]
    problem = one_problem(f"{HEAD}connections:\n  - name: a\n    type: planted\n", drivers)
    assert (problem.path, problem.line) == ("connections[0].type", 5)
    assert reason in problem.message


def test_what_only_msgspec_refuses_is_said_too(drivers: Drivers) -> None:
    class Picky(msgspec.Struct, frozen=True, tag_field="type", tag="picky"):
        name: str

        def __post_init__(self) -> None:
            raise ValueError("never right")

    class Driver:
        options = Picky

    picky: Any = {"picky": Driver()}  # Any: only options is looked at
    problem = one_problem(HEAD + "connections: [{name: a, type: picky}]", picky)
    assert (problem.path, problem.message) == ("connections[0]", "never right")


def test_the_site_is_frozen(drivers: Drivers) -> None:
    site, _ = load(PLANT, drivers=drivers)
    assert isinstance(site, Site)
    with pytest.raises(AttributeError):
        site.holdfast = 1  # type: ignore[misc]  # the point of the test
