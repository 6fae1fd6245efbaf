"""What the site's rules refuse, each with its reason."""

from __future__ import annotations

from typing import Any

import pytest

from gateway.commands.origin import Origin, origin_of
from gateway.commands.rules import Past, may_repeat, misfit, objection
from gateway.config.commands import CommandRule, Commands, problems
from gateway.identity.principal import Role
from protocols.model import Command, Device, Kind, Tag

S = 1_000_000_000
BOILER = Device(
    "line",
    "boiler",
    (
        Tag(name="setpoint", kind=Kind.FLOAT64, writable=True),
        Tag(name="pump", kind=Kind.BOOL, writable=True),
        Tag(name="recipe", kind=Kind.STRING, writable=True),
        Tag(name="pressure", kind=Kind.FLOAT64),
    ),
)
AT_20 = Past(20.0, 0)
ANNA = Origin(kind="api", who="user:anna", role=Role.OPERATOR)


def command(value: Any = 21.5, tag: str = "setpoint", device: str = "boiler") -> Command:  # Any: hostile ones too
    return Command(id="1", device=device, tag=tag, value=value, deadline_ns=10 * S)


def judged(rule: CommandRule, *, value: float = 21.5, origin: Origin = ANNA, reason: str = "", past: Past = AT_20) -> str:
    return objection(Commands(rules=(rule,)), command(value), origin, reason, past, 100 * S)


@pytest.mark.parametrize(
    ("tag", "value", "why"),
    [
        ("setpoint", "21.5", "number"),
        ("setpoint", b"21", "number"),
        ("setpoint", float("nan"), "NaN"),
        ("setpoint", float("-inf"), "NaN"),
        ("setpoint", 10**400, "out of range"),
        ("pump", "on", "true or false"),
        ("recipe", 5, "text"),
        ("recipe", b"5", "text"),
        ("pressure", 1.0, "not writable"),
        ("no-such", 1.0, "no tag"),
    ],
)
def test_a_value_that_is_none_of_the_tags_kind_is_refused(tag: str, value: Any, why: str) -> None:  # Any: as above
    assert why in misfit(command(value, tag), BOILER)


@pytest.mark.parametrize(("tag", "value"), [("setpoint", 21), ("setpoint", -0.0), ("pump", True), ("recipe", "bread")])
def test_a_value_that_fits_may_go(tag: str, value: Any) -> None:  # Any: as above
    assert misfit(command(value, tag), BOILER) == ""


def test_without_rules_a_writable_tag_may_be_written_unless_the_default_says_no() -> None:
    assert objection(Commands(), command(), ANNA, "", Past(None, 0), S) == ""
    assert "no rule allows" in objection(Commands(default="refuse"), command(), ANNA, "", Past(None, 0), S)
    named = Commands(default="refuse", rules=(CommandRule(devices=("boil*",), tags=("set?oint",)),))
    assert objection(named, command(), ANNA, "", Past(None, 0), S) == ""
    assert objection(named, command(device="other"), ANNA, "", Past(None, 0), S) != ""


def test_the_first_rule_that_fits_holds() -> None:
    rules = (CommandRule(tags=("setpoint",), maximum=10), CommandRule(maximum=100))
    assert "out of range" in objection(Commands(rules=rules), command(50.0), ANNA, "", Past(None, 0), S)
    assert objection(Commands(rules=rules), command(50.0, "other"), ANNA, "", Past(None, 0), S) == ""


def test_only_those_who_are_named_may_write() -> None:
    rule = CommandRule(sources=("api", "scada"))
    assert judged(rule) == ""
    assert judged(rule, origin=Origin(kind="face", name="scada", who="192.0.2.7")) == ""
    assert "cloud" in judged(rule, origin=Origin(kind="uplink", name="cloud"))
    assert judged(CommandRule(sources=())) != ""


def test_a_tag_may_need_a_higher_role_and_what_has_no_role_is_not_asked_for_one() -> None:
    rule = CommandRule(least_role="engineer")
    assert "engineer" in judged(rule)
    assert judged(rule, origin=Origin(kind="api", who="user:otto", role=Role.ENGINEER)) == ""
    assert judged(rule, origin=Origin(kind="face", name="scada")) == ""


def test_a_tag_may_need_a_reason() -> None:
    assert "reason" in judged(CommandRule(needs_reason=True), reason="  ")
    assert judged(CommandRule(needs_reason=True), reason="new recipe") == ""


@pytest.mark.parametrize(
    ("rule", "value", "past", "fine"),
    [
        (CommandRule(minimum=10, maximum=30), 30.0, Past(None, 0), True),
        (CommandRule(minimum=10, maximum=30), 30.1, Past(None, 0), False),
        (CommandRule(minimum=10, maximum=30), 9.9, Past(None, 0), False),
        (CommandRule(most_change=5), 25.0, Past(20.0, 0), True),
        (CommandRule(most_change=5), 14.9, Past(20.0, 0), False),
        (CommandRule(most_change=5), 20.0, Past(None, 0), False),
        (CommandRule(most_change_per_s=1), 29.0, Past(20.0, 90 * S), True),
        (CommandRule(most_change_per_s=1), 31.0, Past(20.0, 90 * S), False),
        (CommandRule(most_change_per_s=1), 1e9, Past(20.0, 0), True),
        (CommandRule(most_change_per_s=1, most_change=5), 26.0, Past(20.0, 90 * S), False),
        (CommandRule(least_interval_s=10), 20.0, Past(20.0, 90 * S), True),
        (CommandRule(least_interval_s=10), 20.0, Past(20.0, 91 * S), False),
        (CommandRule(least_interval_s=10), 20.0, Past(20.0, 101 * S), False),
    ],
)
def test_range_rate_of_change_and_pace(rule: CommandRule, value: float, past: Past, fine: bool) -> None:
    assert (judged(rule, value=value, past=past) == "") is fine


def test_what_may_be_a_pulse_is_not_sent_twice_unless_a_rule_says_so() -> None:
    setpoint, pump = BOILER.tags[0], BOILER.tags[1]
    assert may_repeat(Commands(), command(), setpoint)
    assert not may_repeat(Commands(), command(True, "pump"), pump)
    assert may_repeat(Commands(rules=(CommandRule(repeat="always"),)), command(True, "pump"), pump)
    assert not may_repeat(Commands(rules=(CommandRule(repeat="never"),)), command(), setpoint)


def test_an_origin_reads_from_the_text_that_people_see() -> None:
    assert origin_of("face scada, 192.0.2.7") == Origin(kind="face", name="scada", who="192.0.2.7")
    assert str(origin_of("face scada, 192.0.2.7")) == "face scada, 192.0.2.7"
    assert origin_of("shadow").kind == "shadow"
    assert origin_of("somebody else").kind == "local"


@pytest.mark.parametrize(
    ("rule", "path", "words"),
    [
        (CommandRule(minimum=5, maximum=1), "rules[0].minimum", "above maximum"),
        (CommandRule(tags=("presure",)), "rules[0].tags", "no tag of any device fits"),
        (CommandRule(tags=("pressure",)), "rules[0].tags", "is writable"),
        (CommandRule(sources=("clod",)), "rules[0].sources", "nobody is called"),
    ],
)
def test_a_rule_that_does_nothing_is_found_when_the_site_is_checked(rule: CommandRule, path: str, words: str) -> None:
    (problem,) = problems(Commands(rules=(rule,)), [BOILER], ["cloud"])
    assert (problem.path, words in problem.message) == (path, True)


def test_a_rule_that_others_hide_is_found() -> None:
    (problem,) = problems(Commands(rules=(CommandRule(), CommandRule(tags=("setpoint",)))), [BOILER], [])
    assert (problem.path, problem.severity) == ("rules[1]", "warning")
