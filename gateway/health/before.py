"""The same report of a gateway of before 0.2.0, which cannot be asked for one: from its list of repairs and its ledger. Pure.

It is what a baseline is made of before the first upgrade, and what is asked after a rollback to such a release. It shows less: nothing is
appended for the question, so an uplink is well where nothing waits, or where more is acknowledged than at the first look.
"""

from __future__ import annotations

from collections.abc import Container, Iterator, Mapping, Sequence
from typing import Any, Final

from gateway.health.checks import excuse, is_well
from gateway.journal import Ledger
from gateway.releases.number import number_of
from holdfast.shapes.health import Check, HealthReport

SINCE: Final = "0.2.0"
"""The first release that can be asked."""
_OF_STATE: Final = ("state-not-kept",)

Fault = Mapping[str, Any]  # Any: JSON, as ``holdfast repairs --json`` prints it


def report(
    faults: Sequence[Fault],
    then: Ledger,
    now: Ledger,
    devices: Mapping[str, Sequence[str]],
    *,
    gateway: str,
    time_ns: int,
    excused: Container[str] = (),
    release: str = "",
) -> HealthReport:
    """The verdict. ``devices`` are those of each connection; ``then`` is the ledger at the first look; ``release`` is to run."""
    checks = [excuse(one, excused) for one in (_release(release), *_checks(faults, then, now, devices))]
    return HealthReport(ok=is_well(checks), release="", gateway=gateway, time_ns=time_ns, uptime_s=0.0, checks=checks)


def _release(wanted: str) -> Check:
    sentence = f"a release before {SINCE} runs: it cannot say more of itself"
    if not wanted or number_of(wanted) < number_of(SINCE):
        return Check(name="release", ok=True, sentence=sentence)
    advice = "was the service restarted after the switch?"
    return Check(name="release", ok=False, sentence=f"{sentence}, and it is not {wanted}", advice=advice)


def _checks(faults: Sequence[Fault], then: Ledger, now: Ledger, devices: Mapping[str, Sequence[str]]) -> Iterator[Check]:
    if now.trouble:
        yield Check(name="journal", ok=False, sentence=f"the journal does not store: {now.trouble}", advice="make room, or mend the disk")
    else:
        yield Check(name="journal", ok=True, sentence="the journal stores")
    by_about: dict[tuple[str, str], Fault] = {(one["about"], one["name"]): one for one in faults if one["severity"] == "error"}
    for connection, names in devices.items():
        for name in names:
            fault = by_about.get(("device", name)) or by_about.get(("connection", connection))
            yield _told(f"device:{name}", fault, "it is up")
    state = next((one for one in faults if one["kind"] in _OF_STATE), None)
    yield _told("state", state, "what the gateway knows is kept")
    for (about, name), fault in by_about.items():
        if about == "face" or about == "api":
            yield _told(about if about == "api" else f"face:{name}", fault, "")
    for name in now.readers:
        yield _uplink(name, by_about.get(("uplink", name)), then, now)


def _told(name: str, fault: Fault | None, well: str) -> Check:
    if fault is None:
        return Check(name=name, ok=True, sentence=well)
    return Check(name=name, ok=False, sentence="; ".join((fault["title"], *fault["evidence"])), advice=fault["advice"])


def _uplink(name: str, fault: Fault | None, then: Ledger, now: Ledger) -> Check:
    if fault is not None:
        return _told(f"uplink:{name}", fault, "")
    pending, acknowledged = _sums(now, name)
    before = _sums(then, name)[1]
    if pending and acknowledged <= before:
        sentence = f"{pending} records wait, and none has been acknowledged since this was asked"
        return Check(name=f"uplink:{name}", ok=False, sentence=sentence, advice="wait; if it stays, does whoever acknowledges work?")
    return Check(
        name=f"uplink:{name}", ok=True, sentence=f"{acknowledged - before} records were acknowledged since this was asked; {pending} wait"
    )


def _sums(ledger: Ledger, name: str) -> tuple[int, int]:
    lanes = ledger.readers.get(name, {}).values()
    return sum(lane.pending for lane in lanes), sum(lane.acknowledged for lane in lanes)
