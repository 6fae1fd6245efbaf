"""The table of known faults: one pure function each, from facts to the faults that it sees in them.

A fault's id follows from what it is and what it is about, so that it is the same as long as the fault lasts and whenever it comes
again: what was said of it (put off, and why) stays with it. What cannot be told apart from health is not here.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from hashlib import blake2b
from typing import Final, Literal

from gateway.links import State
from gateway.repairs.facts import Facts, LinkFacts
from gateway.shadow.wish import WishState
from gateway.telemetry.clock_state import Word

Severity = Literal["error", "warning", "info"]

BEHIND_S: Final = 3600.0
"""An uplink whose oldest record waits longer is behind."""
NEARLY: Final = 0.8
"""Of the journal's bytes."""
CERTIFICATE_DAYS: Final = 20.0
"""The gateway renews its own certificate with 30 days left: with fewer than this, something keeps it from that."""
MISSED_SHARE: Final = 0.05
MISSED_LEAST: Final = 20
MOST_FACTS: Final = 20
_DAY_NS: Final = 86_400 * 10**9
_UNTRUSTED: Final = re.compile(r"certificate ([0-9a-f]{16}) of .* is not trusted")


@dataclass(frozen=True, slots=True, kw_only=True)
class Fault:
    """One known fault as it is now."""

    kind: str
    about: Literal["connection", "device", "uplink", "face", "api", "gateway"]
    name: str = ""
    severity: Severity = "error"
    title: str
    evidence: tuple[str, ...]
    effect: str
    advice: str
    devices: tuple[str, ...] = ()
    """Whoever sees all of these may know of it; without any it is about the gateway as a whole."""
    fix: str = ""
    """Key into the table of fixes; empty where only a person can mend it."""
    details: tuple[str, ...] = field(default=(), repr=False)
    """What the fix needs to know."""

    @property
    def id(self) -> str:
        subject = blake2b("\0".join((self.about, self.name, *self.details)).encode(), digest_size=6).hexdigest()
        return f"{self.kind}-{subject}"


Detector = Callable[[Facts], Iterator[Fault]]


def connections_down(facts: Facts) -> Iterator[Fault]:
    for link in _of(facts, "connection"):
        if link.state is not State.WAITING:
            continue
        mark = _UNTRUSTED.search(link.trouble)
        yield Fault(
            kind="certificate-not-trusted" if mark else "connection-down",
            about="connection",
            name=link.name,
            title=f"The server of {link.name} shows a certificate that nobody has accepted" if mark else f"Connection {link.name} is down",
            evidence=(link.trouble, *_counted(link)),
            effect=f"{len(link.devices)} devices are not read; their values are bad, and no command reaches them",
            advice="compare the fingerprint with the one that the server itself shows, then trust it" if mark else _advice(link.trouble),
            devices=link.devices,
            fix="trust-certificate" if mark else "",
            details=(mark[1],) if mark else (),
        )


def devices_silent(facts: Facts) -> Iterator[Fault]:
    for link in _of(facts, "connection"):
        for device in link.lost if link.state is State.UP else ():
            others = len(link.devices) - len(link.lost)
            yield Fault(
                kind="device-silent",
                about="device",
                name=device,
                title=f"Device {device} does not answer",
                evidence=(f"connection {link.name} is up", f"{others} of its {len(link.devices)} devices answer"),
                effect="its values are bad, and commands to it fail",
                advice="is it switched on, and is its address right? A scan of the connection shows which addresses answer",
                devices=(device,),
            )


def findings(facts: Facts) -> Iterator[Fault]:
    for link in _of(facts, "connection"):
        if link.findings:
            more = len(link.findings) - MOST_FACTS
            yield Fault(
                kind="equipment-finding",
                about="connection",
                name=link.name,
                severity="info",
                title=f"The equipment of {link.name} is not quite as it is described",
                evidence=(*sorted(link.findings)[:MOST_FACTS], *((f"and {more} more",) if more > 0 else ())),
                effect="what is named is read in another way, or not at all; everything else is not touched by it",
                advice="change the site document as the evidence says, or put this off",
                devices=link.devices,
            )


def scans_missed(facts: Facts) -> Iterator[Fault]:
    for link in _of(facts, "connection"):
        if link.missed >= MISSED_LEAST and link.missed > MISSED_SHARE * (link.scans + link.missed):
            yield Fault(
                kind="scans-missed",
                about="connection",
                name=link.name,
                severity="warning",
                title=f"Connection {link.name} cannot keep up",
                evidence=(f"{link.missed} scans were skipped, {link.scans} were made, since the start",),
                effect="values come less often than is configured",
                advice="scan less often, or read fewer tags: holdfast check says what the bus can bear",
                devices=link.devices,
            )


def services_down(facts: Facts) -> Iterator[Fault]:
    """Uplinks, faces and the API."""
    for link in facts.links:
        if link.kind not in _CALLED or link.state is not State.WAITING:
            continue
        about, called, effect = _CALLED[link.kind]
        pending = sum(lane.pending for lane in facts.ledger.readers.get(link.name, {}).values())
        yield Fault(
            kind=f"{link.kind}-down",
            about=about,
            name=link.name,
            title=f"{called.format(name=link.name)} is down",
            evidence=(link.trouble, *_counted(link), *((f"{pending} records wait",) if link.kind == "uplink" else ())),
            effect=effect,
            advice=_advice(link.trouble),
        )


_CALLED: Final[dict[str, tuple[Literal["uplink", "face", "api"], str, str]]] = {
    "uplink": ("uplink", "Uplink {name}", "records wait in the journal; none is lost while it has room"),
    "face": ("face", "Face {name}", "no PLC and no SCADA is served there"),
    "api": ("api", "The API", "nobody is served there"),
}


def uplinks_behind(facts: Facts) -> Iterator[Fault]:
    up = {link.name for link in _of(facts, "uplink") if link.state is State.UP}
    for name, lanes in facts.ledger.readers.items():
        pending = sum(lane.pending for lane in lanes.values())
        oldest = min((lane.oldest_pending_ns for lane in lanes.values() if lane.oldest_pending_ns), default=0)
        behind_s = (facts.now_ns - oldest) / 1e9 if oldest else 0.0
        if name in up and behind_s > BEHIND_S:
            yield Fault(
                kind="uplink-behind",
                about="uplink",
                name=name,
                severity="warning",
                title=f"Uplink {name} is behind by {_span(behind_s)}",
                evidence=(f"{pending} records wait", f"the oldest has waited for {_span(behind_s)}"),
                effect="whoever receives sees the past later than it could; nothing is lost while the journal has room",
                advice="after an outage this mends itself; where it grows, the link is too slow for what is configured",
            )


def records_dropped(facts: Facts) -> Iterator[Fault]:
    for name, lanes in facts.ledger.readers.items():
        dropped: dict[str, int] = {}
        for lane in lanes.values():
            for reason, count in lane.dropped.items():
                dropped[reason] = dropped.get(reason, 0) + count
        if any(dropped.values()):
            yield Fault(
                kind="records-dropped",
                about="uplink",
                name=name,
                severity="warning",
                title=f"Records were lost before {name} had them",
                evidence=tuple(f"{count} records: {reason}" for reason, count in sorted(dropped.items())),
                effect="whoever receives is told which; they cannot be had any more",
                advice="give the journal more room (journal.max_bytes), or mend what kept the uplink down for so long",
            )


def records_quarantined(facts: Facts) -> Iterator[Fault]:
    for lane, account in facts.ledger.lanes.items():
        if account.quarantined:
            yield Fault(
                kind="records-quarantined",
                about="gateway",
                name=lane,
                severity="warning",
                title="Records on the disk were damaged and set aside",
                evidence=(f"{account.quarantined} records of lane {lane}",),
                effect="they are not delivered, and whoever receives is told so; all others are intact",
                advice="look at the health of the disk (smartctl, or dmesg); a flash card that does this is at its end",
            )


def journal_trouble(facts: Facts) -> Iterator[Fault]:
    if facts.ledger.trouble:
        yield Fault(
            kind="journal-not-written",
            about="gateway",
            title="The journal cannot be written",
            evidence=(facts.ledger.trouble,),
            effect="readings are kept in memory for a while and then lost, and counted",
            advice="make room on the disk, or mend it; the gateway goes on by itself as soon as it can write",
        )


def journal_filling(facts: Facts) -> Iterator[Fault]:
    ledger = facts.ledger
    pending = sum(lane.pending for lanes in ledger.readers.values() for lane in lanes.values())
    if pending and ledger.max_bytes and ledger.bytes >= NEARLY * ledger.max_bytes and pending > _kept(facts) * NEARLY:
        yield Fault(
            kind="journal-nearly-full",
            about="gateway",
            severity="warning",
            title="The journal is nearly full of records that nobody has received",
            evidence=(f"{_mb(ledger.bytes)} of {_mb(ledger.max_bytes)} are taken", f"{pending} records wait"),
            effect="when it is full, the oldest or the newest are lost, as journal.when_full says, and counted",
            advice="get the uplinks back, or raise journal.max_bytes",
        )
    if ledger.free_bytes < 2 * facts.min_free_bytes:
        yield Fault(
            kind="disk-nearly-full",
            about="gateway",
            title="The disk of the journal is nearly full",
            evidence=(f"{_mb(ledger.free_bytes)} are free; the journal leaves {_mb(facts.min_free_bytes)}",),
            effect="the journal shrinks to leave that much free, and loses its oldest records",
            advice="find out what takes the room (du -x /), and remove it",
        )


def _kept(facts: Facts) -> int:
    return sum(lane.kept for lane in facts.ledger.lanes.values())


def state_not_kept(facts: Facts) -> Iterator[Fault]:
    if facts.state_trouble:
        yield Fault(
            kind="state-not-kept",
            about="gateway",
            title="What the gateway knows besides readings is not kept",
            evidence=(facts.state_trouble,),
            effect="users, tokens, revisions and shadows that are made now are gone after a restart",
            advice="make room, or let the service write there, then restart it",
        )


def state_put_aside(facts: Facts) -> Iterator[Fault]:
    if facts.state_notes:
        yield Fault(
            kind="state-put-aside",
            about="gateway",
            severity="warning",
            title="What a newer release wrote is put aside and not seen",
            evidence=facts.state_notes,
            effect="users, tokens, revisions and shadows of the newer release are not used; readings and the audit log are not touched",
            advice="make anew what is missed; nothing merges the two. Remove the folder that is named when it is not needed any more",
        )


def audit_not_kept(facts: Facts) -> Iterator[Fault]:
    if facts.audit_trouble or facts.audit_lost:
        yield Fault(
            kind="audit-not-kept",
            about="gateway",
            title="The audit log is not written",
            evidence=tuple(
                each for each in (facts.audit_trouble, f"{facts.audit_lost} entries are lost" if facts.audit_lost else "") if each
            ),
            effect="what people do is not on record; control goes on",
            advice="make room on the disk, or let the service write there; it goes on by itself",
        )


def clock_not_right(facts: Facts) -> Iterator[Fault]:
    clock = facts.clock
    if clock.word in (Word.UNSYNCHRONISED, Word.WRONG):
        wrong = clock.word is Word.WRONG
        yield Fault(
            kind="clock-wrong" if wrong else "clock-not-synchronised",
            about="gateway",
            severity="error" if wrong else "warning",
            title="The clock was never set" if wrong else "Nothing keeps the clock right",
            evidence=(f"the kernel says: {clock.word.value}", *((f"it was set {clock.steps} times",) if clock.steps else ())),
            effect="stamps are wrong, commands with a deadline are refused" if wrong else "stamps drift by up to seconds a day",
            advice="let chrony (with rtcsync), ntpd or systemd-timesyncd reach a time server",
        )


def revision_on_trial(facts: Facts) -> Iterator[Fault]:
    if facts.trial:
        yield Fault(
            kind="revision-on-trial",
            about="gateway",
            name=str(facts.trial),
            severity="warning",
            title=f"Revision {facts.trial} waits to be confirmed",
            evidence=("it was applied with a time within which it must be confirmed",),
            effect="the gateway goes back to the revision before when that time is over",
            advice="if everything works as it should, confirm it",
            fix="confirm-revision",
            details=(str(facts.trial),),
        )


def configuration_drift(facts: Facts) -> Iterator[Fault]:
    if facts.drift:
        yield Fault(
            kind="configuration-drift",
            about="gateway",
            severity="warning",
            title="The file differs from what runs",
            evidence=(facts.drift,),
            effect="what runs now was applied here; whoever lays down the file does not know of it",
            advice="bring the change into the file's source, or apply the file: GET /api/v1/configuration/drift shows the difference",
        )


def certificate_ends(facts: Facts) -> Iterator[Fault]:
    if facts.certificate_until_ns and facts.certificate_until_ns - facts.now_ns < CERTIFICATE_DAYS * _DAY_NS:
        left = max(0.0, (facts.certificate_until_ns - facts.now_ns) / _DAY_NS)
        yield Fault(
            kind="certificate-ends",
            about="api",
            severity="warning" if left else "error",
            title="The certificate of the API ends soon" if left else "The certificate of the API has ended",
            evidence=(f"{left:.0f} days are left",),
            effect="clients refuse the API from then on",
            advice="restart the gateway, which renews its own; one of the site's is renewed where it came from",
        )


def locked_out(facts: Facts) -> Iterator[Fault]:
    if facts.lock_outs:
        yield Fault(
            kind="locked-out",
            about="gateway",
            severity="info",
            title="Commands are locked out",
            evidence=facts.lock_outs[:MOST_FACTS],
            effect="no command is carried out there, whoever asks",
            advice="whoever works on the machine lifts it when done",
        )


def wishes_not_taken(facts: Facts) -> Iterator[Fault]:
    for device, tag, wish in facts.wishes:
        yield Fault(
            kind="shadow-not-taken",
            about="device",
            name=device,
            severity="warning",
            title=f"{device} has not taken what is desired of {tag}",
            evidence=(f"desired by {wish.by}: {wish.value}", f"{wish.state.value}: {wish.detail}", f"{wish.tries} commands were sent"),
            effect="the device goes on with another value than the one desired",
            advice=_WISH_ADVICE[wish.state],
            devices=(device,),
            fix="try-shadow-again",
            details=(tag,),
        )


_WISH_ADVICE: Final = {
    WishState.REFUSED: "mend what it says, or desire another value; it is tried again by itself, rarely",
    WishState.MISMATCH: "the device made another value of it: desire one that it takes",
    WishState.EXPIRED: "desire it anew if it is still wanted",
}

DETECTORS: Final[tuple[Detector, ...]] = (
    journal_trouble,
    journal_filling,
    state_not_kept,
    state_put_aside,
    connections_down,
    devices_silent,
    services_down,
    uplinks_behind,
    records_dropped,
    records_quarantined,
    revision_on_trial,
    audit_not_kept,
    clock_not_right,
    certificate_ends,
    wishes_not_taken,
    scans_missed,
    configuration_drift,
    locked_out,
    findings,
)
RANK: Final[dict[Severity, int]] = {"error": 0, "warning": 1, "info": 2}


def detected(facts: Facts) -> list[Fault]:
    """All faults, the worst first."""
    return sorted((fault for detect in DETECTORS for fault in detect(facts)), key=lambda fault: (RANK[fault.severity], fault.id))


def _of(facts: Facts, kind: str) -> Iterator[LinkFacts]:
    return (link for link in facts.links if link.kind == kind)


def _counted(link: LinkFacts) -> tuple[str, ...]:
    told = [f"{count} times {reason}" for reason, count in link.errors.items()]
    return (*told, f"it was up {link.sessions} times" if link.sessions else "it has not been up since the gateway started")


def _advice(trouble: str) -> str:
    """Messages say what to do next after their last colon."""
    head, _, tail = trouble.rpartition(": ")
    return tail if head and len(tail) > 10 else "look at the evidence; it is tried again by itself"


def _span(seconds: float) -> str:
    for size, name in ((86_400, "days"), (3600, "hours"), (60, "minutes")):
        if seconds >= 2 * size:
            return f"{seconds / size:.0f} {name}"
    return f"{seconds:.0f} seconds"


def _mb(count: int) -> str:
    return f"{count / 2**20:.0f} MiB"
