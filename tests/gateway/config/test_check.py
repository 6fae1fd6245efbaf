"""Checking: each rule finds its mistake, with path and advice, and touches nothing."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from gateway.config import check, load
from gateway.config.check import client_id, is_loopback
from gateway.config.drivers import Drivers, own
from gateway.config.model import Site

PLANT = Path(__file__).with_name("plant.yaml")
HEAD = "holdfast: 1\ngateway: {group: g, name: n}\n"
TAG = "{name: t, at: 'coil:1', kind: bool}"


def site_of(text: str, drivers: Drivers) -> Site:
    site, problems = load((HEAD + text).encode(), drivers=drivers)
    assert problems == []
    assert site is not None
    return site


def found(text: str, drivers: Drivers) -> list[tuple[str, str, str]]:
    return [(one.path, one.severity, one.message) for one in check(site_of(text, drivers), drivers=drivers)]


def test_the_documents_example_has_no_problem(drivers: Drivers) -> None:
    site, _ = load(PLANT, drivers=drivers)
    assert site is not None
    assert check(site, drivers=drivers) == []


def boxes(*names: str, tags: str = "") -> str:
    return "[" + ", ".join(f"{{name: {name}, tags: [{tags}]}}" for name in names) + "]"


def tcp(name: str, host: str, devices: str = "[]", rest: str = "") -> str:
    return f"  - {{name: {name}, type: modbus-tcp, host: {host}, devices: {devices}{rest}}}\n"


def mqtt(name: str, rest: str = "", kind: str = "mqtt", host: str = "localhost") -> str:
    return f"  - {{name: {name}, type: {kind}, host: {host}{', ' + rest if rest else ''}}}\n"


def face(rest: str = "", name: str = "scada") -> str:
    return f"faces:\n  - {{name: {name}, type: modbus-server{', ' + rest if rest else ''}}}\n"


RULES = [
    (face("clients: [everybody]"), "faces[0].clients", "error", "neither an address nor a network"),
    (face("host: 192.0.2.1"), "faces[0].clients", "warning", "nobody but this machine"),
    (face("registers: [{device: d, tag: t, at: 'input:0'}]"), "faces[0].registers[0].device", "error", "there is no device 'd'"),
    (
        "connections:\n" + tcp("a", "h", boxes("d", tags=TAG)) + face("registers: [{device: d, tag: u, at: 'input:0'}]"),
        "faces[0].registers[0].tag",
        "error",
        "has no tag 'u'",
    ),
    (
        "connections:\n" + tcp("a", "h", boxes("d", tags=TAG)) + face("registers: [{device: d, tag: t, at: 'holding:7.3'}]"),
        "faces[0].registers[0].at",
        "error",
        "no bits of registers",
    ),
    (
        "connections:\n" + tcp("a", "h", boxes("d", tags=TAG)) + face("registers: [{device: d, tag: t, at: 'nowhere'}]"),
        "faces[0].registers[0].at",
        "error",
        "is not an address",
    ),
    (face("port: 1502") + "  - {name: two, type: modbus-server, port: 1502}\n", "faces[1].port", "error", "faces[0].port is 1502 too"),
    ("connections:\n" + tcp("a", "h") + tcp("a", "i"), "connections[1].name", "error", "there are two connections 'a'"),
    ("connections:\n" + tcp("a", "h") + tcp("A", "i"), "connections[1].name", "warning", "only in upper and lower case"),
    (
        "connections:\n" + tcp("a", "h", boxes("d")) + tcp("b", "i", boxes("d")),
        "connections[1].devices[0].name",
        "error",
        "two devices 'd'",
    ),
    ("connections:\n" + tcp("a", "h", boxes("d", tags=f"{TAG}, {TAG}")), "connections[0].devices[0].tags[1].name", "error", "two tags 't'"),
    ("connections:\n" + tcp("a", "h", boxes("_commands")), "connections[0].devices[0].name", "error", "outcomes of commands"),
    ("connections:\n" + tcp("a", "h", boxes("d/e")), "connections[0].devices[0].name", "error", "cannot be part of a topic"),
    ("connections:\n" + tcp("a", "h", boxes('"d#"')), "connections[0].devices[0].name", "error", "cannot be part of a topic"),
    ("connections:\n" + tcp('"a+b"', "h"), "connections[0].name", "error", "cannot be part of a topic"),
    ("connections:\n" + tcp("a", "h") + tcp("b", "H"), "connections[1].host", "warning", "connections[0] already goes to h:502"),
    (
        "connections:\n"
        + "".join(f"  - {{name: {one}, type: modbus-rtu, serial_port: {port}}}\n" for one, port in [("a", "/dev/x"), ("b", "/dev//x")]),
        "connections[1].serial_port",
        "error",
        "connections[0] already uses /dev//x",
    ),
    (
        "connections:\n" + tcp("a", "h", boxes("d", tags="{name: t, at: 'holding:99999', kind: bool}")),
        "connections[0].devices[0].tags[0].at",
        "error",
        "there is no register 99999",
    ),
    ("uplinks:\n" + mqtt("a") + mqtt("a"), "uplinks[1].name", "error", "two uplinks 'a'"),
    ("uplinks:\n" + mqtt("a", "client_id: x") + mqtt("b", "client_id: x"), "uplinks[1].client_id", "error", "the same client id"),
    ("uplinks:\n" + mqtt("a", kind="sparkplug") + mqtt("b", kind="sparkplug"), "uplinks[1].host", "error", "same Sparkplug edge node"),
    ("uplinks:\n" + mqtt("a", 'topic: "x/{devise}"'), "uplinks[0].topic", "error", "{devise} stands for nothing here"),
    ("uplinks:\n" + mqtt("a", 'topic: "x/{device.name}"'), "uplinks[0].topic", "error", "stands for nothing here"),
    ("uplinks:\n" + mqtt("a", 'topic: "x/{device!r}"'), "uplinks[0].topic", "error", "stands for nothing here"),
    ("uplinks:\n" + mqtt("a", 'topic: "x/{device"'), "uplinks[0].topic", "error", "a brace is left open"),
    ("uplinks:\n" + mqtt("a", 'topic: "x/#"'), "uplinks[0].topic", "error", "has no + or #"),
    ("uplinks:\n" + mqtt("a", 'topic: "$SYS/x"'), "uplinks[0].topic", "error", "belong to the broker"),
    ("uplinks:\n" + mqtt("a", 'topic: "spBv1.0/x"'), "uplinks[0].topic", "error", "belong to Sparkplug"),
    ("uplinks:\n" + mqtt("a", 'ledger_topic: "x/{device}"', "sparkplug"), "uplinks[0].ledger_topic", "error", "stands for nothing"),
    ("uplinks:\n" + mqtt("a", "port: 8883"), "uplinks[0].port", "warning", "tls is missing"),
    ("uplinks:\n" + mqtt("a", "tls: {}"), "uplinks[0].port", "warning", "tls is set"),
    ("uplinks:\n" + mqtt("a", "password: {from: env, name: P}", host="h"), "uplinks[0].password", "warning", "goes to h in the clear"),
    ("uplinks:\n" + mqtt("a", 'protocol: "3.1.1", password: {from: env, name: P}'), "uplinks[0].username", "error", "no password without"),
    ("uplinks:\n" + mqtt("a", "port: 8883, tls: {key_file: k}"), "uplinks[0].tls.cert_file", "error", "no certificate"),
    ("uplinks:\n" + mqtt("a", "port: 8883, tls: {cert_file: k}"), "uplinks[0].tls.key_file", "warning", "no key_file"),
    ("connections:\n" + tcp("a", "h", rest=", tls: {key_file: k}"), "connections[0].tls.cert_file", "error", "no certificate"),
    (
        "uplinks:\n" + mqtt("a", "port: 8883, tls: {key_password: {from: env, name: P}}"),
        "uplinks[0].tls.key_password",
        "error",
        "no key that it opens",
    ),
    ("telemetry: {metrics_host: 0.0.0.0, metrics_port: 9100}\n", "telemetry.metrics_host", "warning", "without a password"),
    ("journal: {max_age_s: 3600}\n", "journal.max_age_s", "error", "before the outage budget"),
]


@pytest.mark.parametrize(("text", "path", "severity", "message"), RULES, ids=[f"{one[1]}: {one[3][:30]}" for one in RULES])
def test_each_rule_finds_its_mistake_and_nothing_else(text: str, path: str, severity: str, message: str, drivers: Drivers) -> None:
    problems = check(site_of(text, drivers), drivers=drivers)
    (problem,) = problems
    assert (problem.path, problem.severity) == (path, severity)
    assert message in problem.message
    assert problem.advice


def test_all_mistakes_come_at_once_and_in_order(drivers: Drivers) -> None:
    text = "uplinks:\n" + mqtt("a", 'topic: "x/#"') + mqtt("a", "port: 8883") + "connections:\n" + tcp("a", "h", boxes("d", "d/"))
    assert [one[0] for one in found(text, drivers)] == [
        "connections[0].devices[1].name",
        "uplinks[0].topic",
        "uplinks[1].name",
        "uplinks[1].port",
    ]


def test_two_uplinks_on_one_broker_have_ids_of_their_own(drivers: Drivers) -> None:
    text = "uplinks:\n" + mqtt("a") + mqtt("b")
    assert found(text, drivers) == []
    assert [client_id(site_of(text, drivers), one) for one in site_of(text, drivers).uplinks] == ["holdfast-g-n-a", "holdfast-g-n-b"]


def test_one_client_id_on_two_brokers_is_right(drivers: Drivers) -> None:
    assert found("uplinks:\n" + mqtt("a", "client_id: x") + mqtt("b", "client_id: x, port: 1884"), drivers) == []


def test_two_sparkplug_uplinks_that_share_a_fallback_broker_clash(drivers: Drivers) -> None:
    text = "uplinks:\n" + mqtt("a", "fallback: [{host: spare}]", "sparkplug") + mqtt("b", kind="sparkplug", host="spare")
    assert [one[0] for one in found(text, drivers)] == ["uplinks[1].host"]


def points(count: int, rest: str = "") -> str:
    return ", ".join(f"{{name: t{at}, at: 'holding:{at}', kind: float32{rest}}}" for at in range(count))


def test_an_outage_that_the_journal_cannot_hold_is_an_error_with_figures_and_ways_out(drivers: Drivers) -> None:
    site = site_of("journal: {max_bytes: 100000000}\nconnections:\n" + tcp("a", "h", boxes("d", tags=points(100))), drivers)
    (problem,) = check(site, drivers=drivers)
    assert (problem.path, problem.severity) == ("journal.max_bytes", "error")
    assert "100 values/s fill 737 bytes/s" in problem.message
    assert "holds 37.7 h of an outage, not the 3 days" in problem.message
    assert all(word in problem.advice for word in ("journal.max_bytes to 201,326,592", "scan_s", "deadband", "outage_budget_s: 135600"))


def test_following_the_advice_mends_the_budget(drivers: Drivers) -> None:
    connections = "connections:\n" + tcp("a", "h", boxes("d", tags=points(100)))
    for line in ("journal: {max_bytes: 201326592}\n", "journal: {max_bytes: 100000000}\noutage_budget_s: 135600\n"):
        assert check(site_of(line + connections, drivers), drivers=drivers) == []


def test_deadbands_turn_the_budget_error_into_a_warning(drivers: Drivers) -> None:
    tags = points(100, ", deadband: 1")
    text = "journal: {max_bytes: 100000000}\nconnections:\n" + tcp("a", "h", boxes("d", tags=tags))
    ((path, severity, message),) = found(text, drivers)
    assert (path, severity) == ("journal.max_bytes", "warning")
    assert "if every value changes at every scan" in message


def test_check_does_not_look_at_files(tmp_path: Path, drivers: Drivers, monkeypatch: pytest.MonkeyPatch) -> None:
    site, _ = load(PLANT, drivers=drivers)
    assert site is not None
    opened: list[object] = []
    monkeypatch.setattr(os, "stat", lambda *args, **_: opened.append(args))
    monkeypatch.setattr("builtins.open", lambda *args, **_: opened.append(args))
    check(site, drivers=drivers)
    monkeypatch.undo()
    assert opened == []


@pytest.mark.parametrize(
    ("host", "expected"), [("127.0.0.1", True), ("::1", True), ("[::1]", True), ("LocalHost", True), ("10.0.0.5", False)]
)
def test_loopback_is_known(host: str, expected: bool) -> None:
    assert is_loopback(host) is expected


def test_the_budget_says_what_it_cannot_count() -> None:
    devices = "[{name: d, topic: t/d, tags: [{name: t, at: $.t, kind: float64}]}]"
    site, problems = load((HEAD + "connections:\n" + mqtt("a", f"devices: {devices}")).encode(), drivers=own())
    assert problems == []
    assert site is not None
    said = [problem for problem in check(site, drivers=own()) if problem.path == "outage_budget_s"]
    assert [(problem.severity, "when their devices like" in problem.message) for problem in said] == [("warning", True)]
