"""The verdict from facts: what is well, what is not, and what a baseline excuses."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from gateway.health import before
from gateway.health.checks import judge, said
from gateway.health.facts import DeviceFacts, Facts, LinkFacts, UplinkFacts
from gateway.journal import Ledger, ReaderLane
from gateway.links import State
from holdfast.shapes.health import Check, HealthReport


def ledger(trouble: str = "", **readers: ReaderLane) -> Ledger:
    told = {name: {"telemetry": account} for name, account in readers.items()}
    return Ledger(lanes={}, readers=told, bytes=1, max_bytes=2, free_bytes=3, trouble=trouble)


def account(appended: int, acknowledged: int, pending: int) -> ReaderLane:
    return ReaderLane(
        appended=appended, acknowledged=acknowledged, pending=pending, dropped={}, quarantined=0, oldest_pending_ns=0, untold=0
    )


def facts(**changed: Any) -> Facts:  # Any: fields of Facts
    well = {
        "release": "0.2.0",
        "uptime_s": 5.0,
        "applied": True,
        "stored": True,
        "ledger": ledger(cloud=account(5, 5, 0)),
        "devices": (DeviceFacts(name="meter", connection="hall", state=State.UP, good=True),),
        "uplinks": (UplinkFacts(name="cloud", state=State.UP),),
        "links": (LinkFacts(kind="api", name="api", state=State.UP),),
    }
    return Facts(**{**well, **changed})


def verdict(told: Facts, **more: Any) -> HealthReport:  # Any: what judge takes
    return judge(told, gateway="plant/gw", time_ns=1, **more)


def failed(report: HealthReport) -> list[Check]:
    return [check for check in report.checks if not check.ok]


def test_where_all_is_well_the_verdict_is_ok() -> None:
    report = verdict(facts(), release="0.2.0")
    assert report.ok
    assert not failed(report)
    assert {"release", "site", "journal", "ledger", "state", "device:meter", "uplink:cloud", "api"} == {one.name for one in report.checks}


def device(**changed: Any) -> dict[str, Any]:  # Any: fields of DeviceFacts
    return {"devices": (DeviceFacts(**{"name": "meter", "connection": "hall", "state": State.UP, "good": True, **changed}),)}


def uplink(**changed: Any) -> dict[str, Any]:  # Any: fields of UplinkFacts
    return {"uplinks": (UplinkFacts(**{"name": "cloud", "state": State.UP, **changed}),)}


@pytest.mark.parametrize(
    ("name", "changed"),
    [
        ("site", {"applied": False}),
        ("journal", {"stored": False}),
        ("journal", {"not_stored": "full"}),
        ("journal", {"ledger": ledger("the disk is full")}),
        ("journal", {"journal_notes": ("a file of a newer format",)}),
        ("ledger", {"ledger": ledger(cloud=account(5, 3, 1))}),
        ("state", {"state_trouble": "read only"}),
        ("audit", {"audit_trouble": "full"}),
        ("device:meter", device(state=State.WAITING, trouble="refused")),
        ("device:meter", device(lost=True)),
        ("device:meter", device(good=False)),
        ("api", {"links": (LinkFacts(kind="api", name="api", state=State.WAITING, trouble="the port is taken"),)}),
        ("face:scada", {"links": (LinkFacts(kind="face", name="scada", state=State.WAITING),)}),
        ("uplink:cloud", uplink(state=State.CONNECTING)),
        ("uplink:cloud", uplink(waiting=("events",))),
        ("uplink:cloud", uplink(pending=600, pending_then=300, appended=500)),
    ],
)
def test_each_thing_that_is_not_well_fails_with_advice_and_is_excused_by_name(name: str, changed: dict[str, Any]) -> None:
    report = verdict(facts(**changed))
    assert not report.ok
    assert [one.name for one in failed(report)] == [name]
    assert failed(report)[0].advice
    assert any("NOT OK" in line and name in line for line in said(report))
    excused = verdict(facts(**changed), excused={name})
    assert excused.ok
    assert [one.excused for one in failed(excused)] == [True]
    assert not verdict(facts(**changed), excused={"device:other"}).ok


def test_another_release_than_the_one_that_is_to_run_fails() -> None:
    assert [one.name for one in failed(verdict(facts(), release="0.3.0"))] == ["release"]


@pytest.mark.parametrize(
    "changed",
    [
        device(good=False, comes=True),
        device(good=False, refused="suspended by anna"),
        uplink(pending=50_000, pending_then=60_000, appended=100),
        uplink(pending=350, pending_then=300, appended=60),
        {"state_notes": ("3 revisions of a newer release are not seen",)},
    ],
)
def test_what_is_as_it_should_be_fails_nothing(changed: dict[str, Any]) -> None:
    """A device that comes when it wants, one that was suspended, a backlog that shrinks, what is put aside and kept."""
    assert verdict(facts(**changed)).ok


def fault(about: str, name: str, kind: str = "x-down", severity: str = "error") -> dict[str, Any]:  # Any: JSON
    return {
        "about": about,
        "name": name,
        "kind": kind,
        "severity": severity,
        "title": "It is down",
        "evidence": ["so it said"],
        "advice": "look",
    }


def test_a_gateway_of_before_is_judged_by_its_repairs_and_its_ledger() -> None:
    then, now = ledger(cloud=account(10, 5, 5)), ledger(cloud=account(12, 9, 3))
    devices = {"hall": ["a", "b"], "yard": ["c"]}

    def told(faults: list[dict[str, Any]], first: Ledger = then, last: Ledger = now) -> list[str]:  # Any: JSON
        report = before.report(faults, first, last, devices, gateway="plant/gw", time_ns=1, excused={"device:c"})
        assert report.ok == all(one.ok or one.excused for one in report.checks)
        assert msgspec.convert(msgspec.to_builtins(report), HealthReport) == report
        return [one.name for one in failed(report) if not one.excused]

    assert told([]) == []
    assert told([fault("device", "b"), fault("connection", "yard")]) == ["device:b"]
    assert told([fault("connection", "hall")]) == ["device:a", "device:b"]
    assert told([fault("uplink", "cloud"), fault("api", "")]) == ["api", "uplink:cloud"]
    assert told([fault("gateway", "", "state-not-kept")]) == ["state"]
    assert told([fault("gateway", "", "configuration-drift", "warning")]) == []
    assert told([], now, now) == ["uplink:cloud"]
    assert told([], ledger(cloud=account(9, 9, 0)), ledger(cloud=account(9, 9, 0))) == []
    for release, ok in (("0.1.0", True), ("0.2.0", False), ("0.10.0", False)):
        assert before.report([], then, now, devices, gateway="plant/gw", time_ns=1, release=release).ok == ok
    assert told([], then, ledger("the disk is full", cloud=account(12, 9, 3))) == ["journal"]


def test_only_what_is_asked_for_counts() -> None:
    """A broker that is away makes nobody start a gateway anew that writes its journal; a misspelt name is not well."""
    away = facts(uplinks=(UplinkFacts(name="cloud", state=State.WAITING, trouble="refused"),))
    assert not verdict(away).ok
    alone = verdict(away, only=("journal",))
    assert alone.ok
    assert [check.name for check in alone.checks] == ["journal"]
    assert not verdict(facts(stored=False), only=("journal",)).ok
    (misspelt,) = failed(verdict(facts(), only=("jornal",)))
    assert (misspelt.name, misspelt.sentence) == ("jornal", "there is no check of this name")
