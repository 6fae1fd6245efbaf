"""What the gateway answers, as lines for a person: shapes in, text out.

A line is as wide as the terminal or shorter, and says the least that helps. Ages are told by the gateway's own clock, whose time is an
argument: the machine that the console runs on may be wrong. Pure.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Final

from holdfast.client import Refused
from holdfast.shapes.audit import AuditEntry
from holdfast.shapes.commands import Command, LockOut
from holdfast.shapes.common import Value
from holdfast.shapes.connections import Connection
from holdfast.shapes.devices import Device, Tag
from holdfast.shapes.diagnostics import ClockStatus, Job
from holdfast.shapes.gateway import Gateway
from holdfast.shapes.journal import Journal, LaneAccount, UplinkAccount
from holdfast.shapes.repairs import Repair
from holdfast.shapes.session import Account
from holdfast.shapes.uplinks import Uplink
from holdfast.shapes.values import Reading
from tui.plain import clean, table, wrapped
from tui.words import WORDS, Word

_S: Final = 1_000_000_000
_BYTES: Final = ((1 << 30, "GB"), (1 << 20, "MB"), (1 << 10, "kB"))
_SPANS: Final = ((86_400, "d"), (3600, "h"), (60, "min"))
_ENDS: Final = {
    "verified": "done: it was read back, and is {read}",
    "mismatch": "MISMATCH: the device took it, and reads {read} now",
    "refused": "REFUSED, nothing was sent",
    "expired": "EXPIRED, nothing was sent",
    "failed": "FAILED",
}
_UNDER_WAY: Final = "under way ({stage}): 'commands' shows its end"
ENDS: Final = frozenset(_ENDS)
"""Stages at which a command is over."""


def span(seconds: float) -> str:
    """A length of time in its greatest unit: ``0.4 s``, ``12 min``, ``3 d``."""
    for size, unit in _SPANS:
        if seconds >= size * (2 if size > 60 else 1):
            return f"{seconds / size:.0f} {unit}"
    return f"{seconds:.1f} s" if seconds < 10 else f"{seconds:.0f} s"


def age(now_ns: int, then_ns: int) -> str:
    """How long ago ``then_ns`` was; nothing where it never was or nobody knows what time it is."""
    if not then_ns or not now_ns:
        return "-"
    return span((now_ns - then_ns) / _S) if now_ns >= then_ns else f"{span((then_ns - now_ns) / _S)} ahead"


def moment(time_ns: int, form: str = "%Y-%m-%d %H:%M:%S") -> str:
    """A moment, UTC. What no calendar has is told as a number."""
    try:
        return datetime.fromtimestamp(time_ns // _S, tz=UTC).strftime(form)
    except (ValueError, OverflowError, OSError):
        return str(time_ns)


def size(count: int) -> str:
    """So many bytes, in the greatest unit."""
    return next((f"{count / unit:.1f} {name}" for unit, name in _BYTES if count >= unit), f"{count} B")


def shown(value: Value, unit: str = "") -> str:
    """A value with its unit; a truth is on or off, and ``-`` stands for none."""
    if value is None:
        return "-"
    if isinstance(value, bool):
        return "on" if value else "off"
    text = f"{value:.7g}" if isinstance(value, float) else str(value)
    return f"{text} {unit}".rstrip()


def refusal(refused: Refused, width: int) -> list[str]:
    """Why the gateway said no, and what to do next."""
    problem = refused.problem
    lines = wrapped(str(refused), width)
    for fault in problem.problems[:10]:
        lines += wrapped(f"{fault.path}: {fault.message} {fault.advice}", width, "    ", "  - ")
    return lines


# --------------------------------------------------------------------------------------------------------- the gateway


def gateway(one: Gateway, width: int) -> list[str]:
    text = f"{one.group}/{one.name}, version {one.version}, up {span(one.uptime_s)}, {moment(one.time_ns)} UTC"
    return fact("gateway", text, width)


def clock(one: ClockStatus, width: int) -> list[str]:
    said = one.state if one.trusted else f"{one.state.upper()}: deadlines of commands cannot be judged"
    return fact("clock", f"{said} {one.detail}".rstrip(), width)


def device_counts(devices: Sequence[Device], width: int) -> list[str]:
    lost = [one.name for one in devices if one.lost]
    bad = sum(one.bad for one in devices)
    text = f"{len(devices) - len(lost)} of {len(devices)} answer" + (f", {bad} values are bad" if bad else "")
    return fact("devices", text + (f"; LOST: {', '.join(lost[:20])}" if lost else ""), width)


def journal(one: Journal, now_ns: int, width: int) -> list[str]:
    text = f"{size(one.bytes)} of {size(one.max_bytes)}, when full {one.when_full}, {size(one.free_bytes)} free on its disk"
    lines = fact("journal", f"NOTHING IS STORED: {one.trouble}" if one.trouble else text, width)
    for lane in one.lanes:
        lines += fact("", _lane(lane, now_ns), width)
    return lines


def _lane(one: LaneAccount, now_ns: int) -> str:
    text = f"{one.lane}: {one.kept} records kept" + (f", the oldest {age(now_ns, one.oldest_ns)} old" if one.oldest_ns else "")
    return text + (f", {one.unwritten} not yet written" if one.unwritten else "")


def ledger(accounts: Sequence[LaneAccount | UplinkAccount], width: int) -> list[str]:
    unaccounted = sum(one.unaccounted for one in accounts)
    lost = sum(sum(one.dropped.values()) + one.quarantined for one in accounts)
    text = "every record is accounted for" if not unaccounted else f"{unaccounted} RECORDS ARE NOT ACCOUNTED FOR: make a support bundle"
    return fact("ledger", text + (f"; {lost} dropped or set aside as damaged" if lost else ", none dropped"), width)


def uplink(one: Uplink, now_ns: int, width: int) -> list[str]:
    text = f"{one.name} ({one.type}) {one.state} for {age(now_ns, one.since_ns)}" + (f": {one.trouble}" if one.trouble else "")
    lines = fact("uplink", text, width)
    for each in one.lanes:
        waits = f" (the oldest {span(each.oldest_pending_s)})" if each.pending else ""
        dropped = sum(each.dropped.values())
        counts = f"{each.lane}: {each.acknowledged} acknowledged, {each.pending} pending{waits}, {dropped} dropped"
        lines += fact("", counts, width)
    return lines


def faults(repairs: Sequence[Repair], lock_outs: Sequence[LockOut], width: int) -> list[str]:
    lines = fact("repairs", f"{len(repairs)} known faults: say 'repairs'" if repairs else "none", width)
    return lines + (fact("locked out", ", ".join(one.id for one in lock_outs) + ": say 'lock-outs'", width) if lock_outs else [])


def fact(name: str, text: str, width: int) -> list[str]:
    """A line of a list of facts: its name, and what is said under it."""
    return wrapped(text, width, " " * 12, f"{name:<12}")


# ------------------------------------------------------------------------------------------------- devices and values


def devices(found: Sequence[Device], now_ns: int, width: int) -> list[str]:
    rows = [("device", "state", "tags", "bad", "last value", "connection")]
    rows += [
        (one.name, "LOST" if one.lost else _state(one), str(one.tags), str(one.bad or "-"), age(now_ns, one.last_seen_ns), one.connection)
        for one in found
    ]
    return table(rows, width)


def _state(one: Device) -> str:
    return "answers" if one.state == "up" else one.state


def device(one: Device, readings: Sequence[Reading], now_ns: int, width: int) -> list[str]:
    state = "LOST: it does not answer" if one.lost else _state(one)
    lines = [f"{clean(one.name)}  {clean(state)}  on {clean(one.connection)}, last value {age(now_ns, one.last_seen_ns)}"]
    rows = [(each.tag, shown(each.value, each.unit), each.quality_name, age(now_ns, each.time_ns)) for each in readings]
    return lines + table([("tag", "value", "quality", "age"), *rows], width)


def reading(one: Reading, tag: Tag | None, now_ns: int, width: int) -> list[str]:
    lines = fact("value", shown(one.value, one.unit), width)
    lines += fact("quality", one.quality_name, width)
    lines += fact("time", f"{moment(one.time_ns)} UTC, {age(now_ns, one.time_ns)} ago" if one.time_ns else "never", width)
    if tag is not None:
        period = f"every {span(tag.scan_s)}" if tag.scan_s else "when the device says so"
        lines += fact("tag", f"{tag.kind}, {period}, {'may be written' if tag.writable else 'read only'}", width)
    return lines


def change(time_ns: int, tag: str, value: Value, unit: str, quality: int) -> str:
    """One line of what is watched."""
    text = f"{moment(time_ns, '%H:%M:%S')}  {clean(tag)}  {clean(shown(value, unit))}"
    return text if quality == 0 else f"{text}  {graded(quality)}"


def graded(quality: int) -> str:
    """A quality by its severity (OPC 10000-4, 7.39), with its code."""
    grade = ("good", "uncertain", "BAD", "BAD")[(quality >> 30) & 3]
    return grade if quality == 0 else f"{grade} 0x{quality & 0xFFFFFFFF:08X}"


def connections(found: Sequence[Connection], now_ns: int, width: int) -> list[str]:
    rows = [("connection", "type", "state", "for", "devices", "trouble")]
    rows += [(one.name, one.type, one.state, age(now_ns, one.since_ns), str(one.devices), one.trouble or "-") for one in found]
    return table(rows, width, shrinks=5)


# ------------------------------------------------------------------------------------------------ faults and commands


def repairs(found: Sequence[Repair], now_ns: int, width: int) -> list[str]:
    rows = [("", "severity", "since", "fix", "fault")]
    rows += [
        (str(number), "put off" if one.put_off else one.severity, age(now_ns, one.since_ns), "yes" if one.fix else "-", one.title)
        for number, one in enumerate(found, start=1)
    ]
    return table(rows, width, shrinks=4)


def repair(one: Repair, now_ns: int, width: int) -> list[str]:
    lines = wrapped(f"{one.title} ({one.severity}, for {age(now_ns, one.since_ns)})", width)
    lines += [line for each in one.evidence for line in fact("seen", each, width)]
    lines += fact("effect", one.effect, width)
    lines += fact("advice", one.advice, width)
    if one.put_off is not None:
        lines += fact("put off", f"by {one.put_off.by}: {one.put_off.reason}", width)
    if one.fix is not None:
        lines += fact("fix", f"{one.fix.label}. {one.fix.confirm}", width)
        lines += fact("undo", one.fix.undo, width)
    return lines


def outcome(one: Command, unit: str, width: int) -> list[str]:
    """What became of a command, in a sentence that claims no more than is known."""
    said = _ENDS.get(one.stage, _UNDER_WAY).format(read=shown(one.read_back, unit), stage=one.stage)
    if one.by_device:
        said += " by the device itself: nothing has changed"
    return wrapped(f"{said}: {one.detail}" if one.detail else said, width)


def commands(found: Sequence[Command], width: int) -> list[str]:
    rows = [("time", "tag", "value", "outcome", "by")]
    rows += [
        (
            moment(min(one.times_ns.values(), default=0), "%m-%d %H:%M:%S"),
            f"{one.device} {one.tag}",
            shown(one.value),
            one.stage,
            one.source,
        )
        for one in found
    ]
    return table(rows, width, shrinks=4)


def lock_outs(found: Sequence[LockOut], now_ns: int, width: int) -> list[str]:
    lines = []
    for one in found:
        until = f", until {moment(one.until_ns)} UTC" if one.until_ns else ""
        lines += wrapped(f"{one.id}: {one.why} ({one.who}, {age(now_ns, one.since_ns)} ago{until})", width, "    ", "")
    return lines or ["nothing is locked out"]


# ---------------------------------------------------------------------------------------------------------- the rest


def job(one: Job, width: int) -> list[str]:
    """How a job ended, and what it found."""
    lines = wrapped(f"{one.kind} {one.state}. {one.detail or one.progress}", width)
    if one.kind == "trace":
        lines += wrapped(f"{one.frames} frames, {size(one.bytes)}; job {one.id}", width)
    for each in one.found:
        lines += wrapped(f"{each.where}  {each.detail}", width, "      ", "  ")
        lines += wrapped(each.tag, width, "      ", "      ") if each.tag else []
    return lines


def audit(found: Sequence[AuditEntry], width: int) -> list[str]:
    rows = [("time", "who", "what", "on", "outcome")]
    rows += [(moment(one.time_ns, "%m-%d %H:%M:%S"), one.who, one.action, one.on, one.outcome) for one in found]
    return table(rows, width, shrinks=3)


def account(one: Account, url: str, width: int) -> list[str]:
    where = f" of tenant {one.tenant}" if one.tenant else ""
    lines = fact("you", f"{one.name} ({one.kind}), {one.role}{where}, at {url}", width)
    if one.session is not None:
        lines += fact("session", f"since {moment(one.session.began_ns)} UTC; it ends {span(one.session.left_s)} after you stop", width)
    return lines + fact("may", ", ".join(one.permissions), width)


def help_(width: int, permissions: Sequence[str]) -> list[str]:
    """Every word; those that need what this account has not are marked."""
    rows = [(each.name, each.what + ("" if not each.needs or each.needs in permissions else " (not for you)")) for each in WORDS]
    ends = "Tab completes words and names. Ctrl-C stops what runs. 'help WORD' says more."
    return [*table(rows, width, shrinks=1), *wrapped(ends, width)]


def help_word(one: Word, width: int) -> list[str]:
    lines = wrapped(one.typed, width, "    ") + wrapped(one.what, width, "    ", "    ")
    lines += wrapped(one.more, width, "    ", "    ") if one.more else []
    return lines + (wrapped(f"It needs the permission '{one.needs}'.", width, "    ", "    ") if one.needs else [])
