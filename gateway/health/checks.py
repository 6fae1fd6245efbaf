"""The verdict: one check for each thing that has to be well, from facts. Pure.

It is a gate for upgrades, so it says *well* only of what has been shown: that a record appended for the question is on disk,
that every uplink has had it acknowledged, that devices gave a good value to this process. What was not well before the upgrade is excused
by name: a meter that has been dead for a year keeps nobody from upgrading.
"""

from __future__ import annotations

from collections.abc import Container, Iterable, Iterator, Sequence
from typing import Final

import msgspec

from gateway.health.facts import DeviceFacts, Facts, LinkFacts, UplinkFacts
from gateway.journal import Ledger
from gateway.links import State
from holdfast.shapes.health import Check, HealthReport

LEAST_GROWTH: Final = 100
"""So many records more than before may wait without a word: they are on their way."""


def judge(
    facts: Facts, *, gateway: str, time_ns: int, excused: Container[str] = (), release: str = "", only: Sequence[str] = ()
) -> HealthReport:
    """The verdict on ``facts``. ``release`` is the one that is to run, empty is any; ``only`` names the checks that count, empty is all."""
    checks = [excuse(each, excused) for each in narrowed((*_release(facts, release), *_of(facts)), only)]
    return HealthReport(
        ok=is_well(checks),
        release=facts.release,
        gateway=gateway,
        time_ns=time_ns,
        uptime_s=round(facts.uptime_s, 3),
        checks=checks,
    )


def narrowed(checks: Sequence[Check], only: Sequence[str]) -> list[Check]:
    """Those of ``checks`` that ``only`` names, all where it is empty. A name that none has is not well: it would be looked at in vain."""
    if not only:
        return list(checks)
    found = {check.name: check for check in checks if check.name in only}
    advice = "holdfast health --json names them all"
    return [found.get(name) or _bad(name, "there is no check of this name", advice) for name in only]


def keeping(ledger: Ledger, state_trouble: str) -> str:
    """Why what is read or known is not kept; empty where it is."""
    return ledger.trouble or state_trouble


def is_well(checks: Iterable[Check]) -> bool:
    """Whether nothing is wrong that is not excused."""
    return all(each.ok or each.excused for each in checks)


def excuse(check: Check, excused: Container[str]) -> Check:
    """The check, excused where it is not well and ``excused`` names it."""
    return msgspec.structs.replace(check, excused=not check.ok and check.name in excused)


def _release(facts: Facts, wanted: str) -> Iterator[Check]:
    if wanted and wanted != facts.release:
        yield _bad("release", f"release {facts.release or 'unknown'} runs, and not {wanted}", "was the service restarted after the switch?")
    else:
        yield _good("release", f"release {facts.release} runs, for {_span(facts.uptime_s)}")


def _of(facts: Facts) -> Iterator[Check]:
    if facts.applied:
        yield _good("site", f"revision {facts.revision} runs" + (", on trial" if facts.on_trial else ""))
    else:
        yield _bad("site", "the site's parts are still being started", "wait; if it stays, look at the log: journalctl -u holdfast")
    yield _journal(facts)
    yield _ledger(facts.ledger)
    yield _state(facts)
    if facts.audit_trouble:
        yield _bad("audit", f"the audit log is not kept: {facts.audit_trouble}", "make room, or mend the disk")
    for device in facts.devices:
        yield _device(device)
    for link in facts.links:
        yield _link(link)
    for uplink in facts.uplinks:
        yield _uplink(uplink)


def _journal(facts: Facts) -> Check:
    trouble = keeping(facts.ledger, "") or facts.not_stored
    if trouble:
        return _bad(
            "journal", f"the journal does not store: {trouble}", "make room, or mend the disk; meanwhile readings are lost, and counted"
        )
    if facts.journal_notes:
        return _bad("journal", "; ".join(facts.journal_notes), "a newer release wrote it, and reads it again: go forward to that release")
    if not facts.stored:
        return _bad("journal", "a record that was appended for this question is not on disk yet", "wait; if it stays, look at the disk")
    kept = sum(lane.kept for lane in facts.ledger.lanes.values())
    return _good("journal", f"a record that was appended for this question is on disk, behind {kept} others")


def _ledger(ledger: Ledger) -> Check:
    for name, lanes in ledger.readers.items():
        for lane, account in lanes.items():
            told = account.acknowledged + account.pending + sum(account.dropped.values()) + account.quarantined
            if told != account.appended:
                return _bad(
                    "ledger",
                    f"{name}, {lane}: {account.appended} records were appended, {told} are accounted for",
                    "this is a defect: make a support bundle (holdfast support) and tell the makers",
                )
    return _good("ledger", f"the accounts of {len(ledger.readers)} uplinks balance")


def _state(facts: Facts) -> Check:
    if facts.state_trouble:
        return _bad("state", f"what the gateway knows is not kept: {facts.state_trouble}", "make room, or let the service write there")
    return _good("state", "; ".join(("what the gateway knows is kept", *facts.state_notes)))


def _device(device: DeviceFacts) -> Check:
    name = f"device:{device.name}"
    if device.refused:
        return _good(name, f"nothing is taken of it, as somebody wants: {device.refused}")
    if device.state is not State.UP:
        why = device.trouble or f"connection {device.connection} is {device.state.value}"
        return _bad(name, f"connection {device.connection} is not up: {why}", "holdfast probe says more")
    if device.lost:
        return _bad(name, f"it does not answer on {device.connection}", "is it switched on, and is its address right?")
    if device.good:
        return _good(name, "it is up")
    if device.comes:
        return _good(name, f"it is listened for on {device.connection}, and has said nothing since the start")
    return _bad(name, "none of its values is good", "wait for its first scan; then holdfast repairs and the log say more")


def _link(link: LinkFacts) -> Check:
    name = link.kind if link.kind == "api" else f"{link.kind}:{link.name}"
    if link.state is State.UP:
        return _good(name, "it is up")
    return _bad(name, f"it is not up: {link.trouble or link.state.value}", "holdfast repairs and the log say more")


def _uplink(uplink: UplinkFacts) -> Check:
    name = f"uplink:{uplink.name}"
    more = uplink.pending - uplink.pending_then
    if uplink.state is not State.UP:
        why = uplink.trouble or uplink.state.value
        return _bad(
            name, f"it is not connected: {why}; {uplink.pending} records wait", "they are kept; is the broker there, and its name right?"
        )
    if uplink.waiting:
        lanes = " and ".join(uplink.waiting)
        return _bad(
            name,
            f"it is connected, but what was newest in {lanes} when this was asked is not acknowledged; {uplink.pending} records wait",
            "wait; if it stays, does whoever acknowledges (broker or consumer) work?",
        )
    if more > max(LEAST_GROWTH, uplink.appended // 2):
        return _bad(
            name,
            f"it is connected, but falls behind: {uplink.pending} records wait, {more} more than when this was asked",
            "the link is too slow for what is configured",
        )
    waits = f"; {uplink.pending} older ones wait" if uplink.pending else ""
    return _good(name, f"it is connected, and what was newest when this was asked is acknowledged{waits}")


def _good(name: str, sentence: str) -> Check:
    return Check(name=name, ok=True, sentence=sentence)


def _bad(name: str, sentence: str, advice: str) -> Check:
    return Check(name=name, ok=False, sentence=sentence, advice=advice)


def _span(seconds: float) -> str:
    return f"{seconds:.0f} s" if seconds < 600 else f"{seconds / 3600:.1f} h"


def said(report: HealthReport) -> list[str]:
    """The report for people: what is not well, each with advice, then what is, devices and links in one line."""
    lines = [line for check in report.checks if not check.ok for line in _told(check)]
    for check in report.checks:
        if check.ok and ":" not in check.name:
            lines.append(f"ok        {check.name}: {check.sentence}")
    lines += [f"ok        {check.name}: {check.sentence}" for check in report.checks if check.ok and check.name.startswith("uplink:")]
    lines += [f"ok        {count} {kind}{' is' if count == 1 else 's are'} up" for kind, count in _counts(report.checks) if count]
    return lines


def _told(check: Check) -> tuple[str, ...]:
    sign = "as before" if check.excused else "NOT OK"
    return (f"{sign:9} {check.name}: {check.sentence}", *((f"          {check.advice}",) if check.advice and not check.excused else ()))


def _counts(checks: Sequence[Check]) -> list[tuple[str, int]]:
    kinds = ("device", "connection", "face")
    return [(kind, sum(check.ok and check.name.startswith(f"{kind}:") for check in checks)) for kind in kinds]
