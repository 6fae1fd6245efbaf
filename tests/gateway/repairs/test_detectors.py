"""Each detector sees its own fault in facts that show it, and none in a gateway that is well."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import msgspec
import pytest

from gateway.journal import LaneLedger, Ledger, ReaderLane
from gateway.links import State
from gateway.repairs.detectors import DETECTORS, RANK, detected
from gateway.repairs.facts import Facts, LinkFacts
from gateway.repairs.repairs import FIXES
from gateway.shadow.wish import Wish, WishState
from gateway.telemetry.clock_state import ClockNow, Word

NOW_NS = 1_795_000_000_000_000_000
GIB = 2**30
LANE = LaneLedger(
    appended=10,
    values=10,
    unwritten=0,
    kept=10,
    retired=0,
    dropped={},
    quarantined=0,
    first=1,
    head=11,
    epoch=1,
    oldest_ns=1,
    bytes=1,
    segments=1,
)
READER = ReaderLane(appended=10, acknowledged=10, pending=0, dropped={}, quarantined=0, oldest_pending_ns=0, untold=0)
LEDGER = Ledger(lanes={"telemetry": LANE}, readers={"cloud": {"telemetry": READER}}, bytes=1, max_bytes=GIB, free_bytes=GIB, trouble="")
LINE = LinkFacts(kind="connection", name="hall", state=State.UP, sessions=1, devices=("m-1", "m-2"), type="modbus-tcp", scans=1000)
CLOUD = LinkFacts(kind="uplink", name="cloud", state=State.UP, sessions=1)
WELL = Facts(
    now_ns=NOW_NS,
    links=(LINE, CLOUD),
    ledger=LEDGER,
    min_free_bytes=64 * 2**20,
    clock=ClockNow(word=Word.SYNCHRONISED, since_ns=1),
    certificate_until_ns=NOW_NS + 300 * 86_400 * 10**9,
)
WISH = Wish(value=5, version=1, state=WishState.MISMATCH, by="user:anna", set_ns=1, detail="wrote 5, read back 4", tries=1)


def line(**more: Any) -> Facts:  # Any: fields of LinkFacts
    return replace(WELL, links=(replace(LINE, **more), CLOUD))


def ledger(**more: Any) -> Facts:  # Any: fields of Ledger
    return replace(WELL, ledger=msgspec.structs.replace(LEDGER, **more))


def lane(**more: Any) -> Facts:  # Any: fields of LaneLedger
    return ledger(lanes={"telemetry": msgspec.structs.replace(LANE, **more)})


def reader(**more: Any) -> dict[str, Any]:  # Any: as Ledger takes it
    return {"readers": {"cloud": {"telemetry": msgspec.structs.replace(READER, **more)}}}


def down(trouble: str) -> Facts:
    return line(state=State.WAITING, trouble=trouble, errors={"Unreachable": 3})


SICK: list[tuple[str, Facts]] = [
    ("connection-down", down("10.0.0.5:502: nothing listens there: check port, and that the device's Modbus server is on")),
    ("certificate-not-trusted", down("opc.tcp://plc: certificate 0123456789abcdef of CN=plc is not trusted: accept it")),
    ("device-silent", line(lost=("m-2",))),
    ("equipment-finding", line(findings=("m-1: registers 5 to 9 cannot be read",))),
    ("scans-missed", line(missed=500)),
    ("uplink-down", replace(WELL, links=(LINE, replace(CLOUD, state=State.WAITING, trouble="broker: not authorised: check username")))),
    ("face-down", replace(WELL, links=(LINE, LinkFacts(kind="face", name="scada", state=State.WAITING, trouble="port taken")))),
    ("uplink-behind", ledger(**reader(pending=5, oldest_pending_ns=NOW_NS - 7200 * 10**9))),
    ("records-dropped", ledger(**reader(dropped={"full": 3}))),
    ("records-quarantined", lane(quarantined=2)),
    ("journal-not-written", ledger(trouble="No space left on device")),
    ("journal-nearly-full", ledger(bytes=GIB - 1, **reader(pending=10, oldest_pending_ns=NOW_NS))),
    ("disk-nearly-full", ledger(free_bytes=70 * 2**20)),
    ("state-not-kept", replace(WELL, state_trouble="state.db: read-only file system")),
    ("state-put-aside", replace(WELL, state_notes=("what a newer release wrote lies in kept/000002-newer and is not seen",))),
    ("audit-not-kept", replace(WELL, audit_trouble="No space left on device")),
    ("clock-not-synchronised", replace(WELL, clock=ClockNow(word=Word.UNSYNCHRONISED, since_ns=1))),
    ("clock-wrong", replace(WELL, clock=ClockNow(word=Word.WRONG, since_ns=1))),
    ("revision-on-trial", replace(WELL, trial=7)),
    ("configuration-drift", replace(WELL, drift="3 differences between site.yaml and revision 7")),
    ("certificate-ends", replace(WELL, certificate_until_ns=NOW_NS + 5 * 86_400 * 10**9)),
    ("locked-out", replace(WELL, lock_outs=("device m-1 is locked out by user:anna: belt is open",))),
    ("shadow-not-taken", replace(WELL, wishes=(("m-1", "setpoint", WISH),))),
]


def test_a_gateway_that_is_well_has_nothing_to_repair() -> None:
    assert detected(WELL) == []


@pytest.mark.parametrize(("kind", "facts"), SICK, ids=[kind for kind, _ in SICK])
def test_a_fault_is_seen_alone_with_evidence_effect_and_advice(kind: str, facts: Facts) -> None:
    (fault,) = detected(facts)
    assert fault.kind == kind
    assert fault.id == detected(replace(facts, now_ns=NOW_NS + 1))[0].id, "the id stays"
    assert all((fault.title, fault.effect, len(fault.advice) > 10, fault.evidence, all(fault.evidence)))
    assert not fault.fix or FIXES[fault.fix].confirm(fault).endswith((".", "?"))


def test_every_detector_is_shown_by_a_fault() -> None:
    seen = {detect for detect in DETECTORS for _, facts in SICK if list(detect(facts))}
    assert seen == set(DETECTORS)


def test_the_worst_stands_first_and_no_two_are_one() -> None:
    all_at_once = replace(
        WELL,
        links=(replace(LINE, lost=("m-1", "m-2"), findings=("x",)), CLOUD),
        wishes=(("m-1", "a", WISH), ("m-1", "b", WISH)),
        state_trouble="read-only",
    )
    faults = detected(all_at_once)
    assert [RANK[fault.severity] for fault in faults] == sorted(RANK[fault.severity] for fault in faults)
    assert len({fault.id for fault in faults}) == len(faults) == 6
