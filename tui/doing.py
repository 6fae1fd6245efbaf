"""What each word does: asks the gateway, and says what it answered.

A function for each word, all alike, and a table of them. Whatever the gateway refuses is raised and said by the loop; parts of a view
that this account may not see say so and leave the rest. What changes something in the field is asked once before, in full.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import islice
from typing import Final, Literal, TypeVar

from msgspec import UNSET

from holdfast.client import Ask, Client, ClientError, NotAllowed, NotThere, asks
from holdfast.shapes.commands import Command, NewCommand, NewLockOut
from holdfast.shapes.common import Page, Value
from holdfast.shapes.devices import Tag
from holdfast.shapes.diagnostics import Job, NumberWish, ScanWish, TraceWish
from holdfast.shapes.live import Entry, Latest, LostRecords, Message, Records, Subscribe
from holdfast.shapes.session import Account
from tui import views
from tui.terminal import Idle, Terminal
from tui.words import BY_NAME, Wrong

T = TypeVar("T")
MOST: Final = 2000
"""Items of a list."""
LAST: Final = 30
"""Commands and entries of the audit log that are told."""
WATCH_MS: Final = 1000
WAIT_S: Final = 5.0
JOB_WAIT_S: Final = 1.0
_TRUTHS: Final = {"on": True, "true": True, "1": True, "off": False, "false": False, "0": False}


@dataclass
class Here:
    """Who is at which terminal, signed in to which gateway."""

    client: Client
    terminal: Terminal
    account: Account
    gateway: str = ""
    """Its name, which stands before each line: nobody writes to another one than they think."""
    listed: list[str] = field(default_factory=list)
    """Ids of the faults that were listed last: what NUMBER means."""

    @property
    def width(self) -> int:
        return self.terminal.width

    def now_ns(self) -> int:
        """The gateway's own time; 0 where this account may not know it."""
        try:
            return self.client.get_gateway().time_ns
        except NotAllowed:
            return 0

    def all(self, ask: Ask[Page[T]]) -> list[T]:
        """Every item of a list, and a word where there are more than anybody reads."""
        found = list(islice(self.client.each(ask), MOST + 1))
        if len(found) > MOST:
            self.terminal.say(f"there are more: these are the first {MOST}")
        return found[:MOST]

    def may(self, permission: str) -> bool:
        return permission in self.account.permissions


def status(here: Here, _said: Sequence[str]) -> None:
    here.terminal.show(_status(here))


def _status(here: Here) -> Iterator[str]:
    client, width = here.client, here.width
    gateway = client.get_gateway()
    now_ns = gateway.time_ns
    yield from views.gateway(gateway, width)
    parts: list[tuple[str, Callable[[], Iterable[str]]]] = [
        ("clock", lambda: views.clock(client.get_clock(), width)),
        ("devices", lambda: views.device_counts(here.all(asks.list_devices()), width)),
        ("journal", lambda: views.journal(client.get_journal(), now_ns, width)),
        ("ledger", lambda: views.ledger([*(told := client.get_ledger()).lanes, *told.uplinks], width)),
        ("uplinks", lambda: [line for one in here.all(asks.list_uplinks()) for line in views.uplink(one, now_ns, width)]),
        ("repairs", lambda: views.faults(here.all(asks.list_repairs()), here.all(asks.list_lock_outs()), width)),
    ]
    for name, part in parts:
        try:
            yield from part()
        except NotAllowed as refused:
            yield from views.fact(name, f"not for you: {refused.problem.detail}", width)


def devices(here: Here, said: Sequence[str]) -> None:
    text = said[0].casefold() if said else ""
    found = [one for one in here.all(asks.list_devices()) if text in one.name.casefold()]
    here.terminal.show(views.devices(found, here.now_ns(), here.width) if found else ["no device has such a name"])


def device(here: Here, said: Sequence[str]) -> None:
    one = here.client.get_device(said[0])
    readings = here.all(asks.list_device_values(said[0]))
    here.terminal.show(views.device(one, readings, here.now_ns(), here.width))


def value(here: Here, said: Sequence[str]) -> None:
    reading = here.client.get_value(said[0], said[1])
    here.terminal.show(views.reading(reading, _tag(here, *said), here.now_ns(), here.width))


def _tag(here: Here, device: str, tag: str) -> Tag | None:
    """What a tag is; None where this account may not know."""
    try:
        return here.client.get_tag(device, tag)
    except NotAllowed:
        return None


def watch(here: Here, said: Sequence[str]) -> None:
    units = {one.tag: one.unit for one in here.all(asks.list_device_values(said[0]))}
    if said[1:] and said[1] not in units:
        raise Wrong(f"{said[0]} has no tag {said[1]!r}: 'device {said[0]}' lists them")
    before: dict[str, tuple[Value, int]] = {}
    here.terminal.say("values as they change, times in UTC: Ctrl-C ends it")
    try:
        with here.terminal.patience():
            for message in here.client.follow(Subscribe(devices=(said[0],), every_ms=WATCH_MS)):
                _tell(here, message, said, units, before)
    except Idle:
        here.terminal.say("watched for long enough: it ended by itself")


def _tell(here: Here, message: Message, said: Sequence[str], units: dict[str, str], before: dict[str, tuple[Value, int]]) -> None:
    """Say what is new in ``message``."""
    if isinstance(message, LostRecords):
        here.terminal.say(f"{message.records} records are lost: {message.reason}")
    entries: Sequence[Entry] = message.entries if isinstance(message, Latest) else message.records if isinstance(message, Records) else ()
    for entry in entries:
        if entry.device != said[0]:  # its name may be a pattern that fits others
            continue
        for time_ns, tag, one, quality in _rows(entry):
            if tag in (said[1:] or (tag,)) and before.get(tag) != (one, quality):
                before[tag] = (one, quality)
                here.terminal.say(views.change(time_ns, tag, one, units.get(tag, ""), quality))
        if entry.device_lost:
            here.terminal.say(f"{entry.device} does not answer any more")


def _rows(entry: Entry) -> Iterator[tuple[int, str, Value, int]]:
    """The columns of ``entry`` as rows: time, tag, value, quality."""
    times = [entry.time_ns] * len(entry.tags) if isinstance(entry.time_ns, int) else entry.time_ns
    qualities = [0] * len(entry.tags) if entry.quality is UNSET else entry.quality
    return zip(times, entry.tags, entry.values, qualities, strict=True)


def connections(here: Here, _said: Sequence[str]) -> None:
    here.terminal.show(views.connections(here.all(asks.list_connections()), here.now_ns(), here.width))


def repairs(here: Here, _said: Sequence[str]) -> None:
    found = here.all(asks.list_repairs())
    here.listed = [one.id for one in found]
    here.terminal.show(views.repairs(found, here.now_ns(), here.width) if found else ["no fault is known"])


def repair(here: Here, said: Sequence[str]) -> None:
    one = here.client.get_repair(_listed(here, said[0]))
    here.terminal.show(views.repair(one, here.now_ns(), here.width))
    if one.fix is None:
        here.terminal.say("nothing can be pressed here: a person mends it")
        return
    for needed in ("repair", one.fix.needs):
        if needed and not here.may(needed):
            here.terminal.say(not_for(here, needed, "pressing it"))
            return
    if here.terminal.agrees(f"{one.fix.label}?"):
        done = here.client.fix_repair(one.id)
        here.terminal.show([*views.fact("done", done.done, here.width), *views.fact("undo", done.undo, here.width)])
    else:
        here.terminal.say("nothing was done")


def _listed(here: Here, said: str) -> str:
    """The id that NUMBER means, or an id as it is."""
    if not said.isdecimal():
        return said
    if not 1 <= int(said) <= len(here.listed):
        raise Wrong("there is no such number: 'repairs' lists them")
    return here.listed[int(said) - 1]


def not_for(here: Here, permission: str, what: str) -> str:
    role = here.account.role
    return f"{what} is not for you: it needs the permission '{permission}', which {role} {here.account.name!r} does not have"


def write(here: Here, said: Sequence[str]) -> None:
    device, tag, typed, *why = said
    known, now = _tag(here, device, tag), here.client.get_value(device, tag)
    if known is not None and not known.writable:
        raise Wrong(f"{tag} of {device} is read only: nothing was sent")
    wished = wish(typed, known.kind if known else "")
    question = f"Write {device} {tag}: {views.shown(now.value, now.unit)} -> {views.shown(wished, now.unit)}."
    if not here.terminal.agrees(question):
        here.terminal.say("nothing was sent")
        return
    body = NewCommand(device=device, tag=tag, value=wished, reason=" ".join(why))
    command = _ended(here, here.client.create_command(body, wait_s=WAIT_S))
    here.terminal.say(*views.outcome(command, now.unit, here.width))


def wish(typed: str, kind: str) -> bool | int | float | str:
    """What was typed, as a value of ``kind``. Raises Wrong."""
    if kind in ("string", "bytes"):
        return typed
    if kind == "bool":
        if typed.lower() not in _TRUTHS:
            raise Wrong("it is on or off")
        return _TRUTHS[typed.lower()]
    try:
        number = float(typed) if kind.startswith("float") or not typed.lstrip("+-").isdecimal() else int(typed)
    except ValueError:
        raise Wrong(f"{typed[:40]!r} is no number: write it as 21.5") from None
    if not math.isfinite(number):
        raise Wrong(f"{typed[:40]!r} cannot be written: it is no number that a device could hold")
    return number


def _ended(here: Here, command: Command) -> Command:
    """``command`` at its end; Ctrl-C leaves it to the gateway."""
    try:
        while command.stage not in views.ENDS:
            here.terminal.say(f"{command.stage}: waiting; Ctrl-C leaves it to the gateway")
            command = here.client.get_command(command.id, wait_s=WAIT_S)
    except KeyboardInterrupt:
        here.terminal.say("")
    return command


def commands(here: Here, said: Sequence[str]) -> None:
    page = here.client.list_commands(device=said[0] if said else None, limit=LAST)
    here.terminal.show(views.commands(page.items, here.width) if page.items else ["there were none"])


def lock_outs(here: Here, _said: Sequence[str]) -> None:
    here.terminal.show(views.lock_outs(here.all(asks.list_lock_outs()), here.now_ns(), here.width))


def lock_out(here: Here, said: Sequence[str]) -> None:
    scopes: dict[str, Literal["gateway", "connection", "device"]] = {"gateway": "gateway", "connection": "connection", "device": "device"}
    scope = scopes.get(said[0])
    name, why = ("", said[1:]) if scope == "gateway" else (said[1], said[2:])
    if scope is None or not why:
        raise Wrong(f"it is: lock-out {BY_NAME['lock-out'].usage}")
    one = here.client.set_lock_out(NewLockOut(scope=scope, name=name, why=" ".join(why)))
    here.terminal.say(f"{one.id} is locked out: nobody writes there until somebody says 'lift {one.id}'")
    here.terminal.say("it is no switch at the machine: lock and tag that as well")


def lift(here: Here, said: Sequence[str]) -> None:
    one = next((each for each in here.all(asks.list_lock_outs()) if each.id == said[0]), None)
    if one is None:
        raise Wrong(f"{said[0]!r} is not locked out: 'lock-outs' lists what is")
    here.terminal.show(views.lock_outs([one], here.now_ns(), here.width))
    if here.terminal.agrees("Is nobody at the machine any more, and may it be written to again?"):
        here.client.lift_lock_out(one.id)
        here.terminal.say(f"{one.id} is open again")
    else:
        here.terminal.say("it stays locked out")


def scan(here: Here, said: Sequence[str]) -> None:
    _show(here, here.client.start_scan(ScanWish(connection=said[0])))


def find(here: Here, said: Sequence[str]) -> None:
    _show(here, here.client.find_number(NumberWish(connection=said[0], unit_id=_whole(said[1], 255), shown=said[2])))


def trace(here: Here, said: Sequence[str]) -> None:
    seconds = _whole(said[1], 600) if said[1:] else 30
    _show(here, here.client.start_trace(TraceWish(connection=said[0], for_s=float(seconds))))


def _whole(said: str, most: int) -> int:
    if not said.isdecimal() or not 1 <= int(said[:9]) <= most:
        raise Wrong(f"{said[:40]!r}: a whole number from 1 to {most} stands there")
    return int(said)


def _show(here: Here, job: Job) -> None:
    """Wait for the end of ``job``, which Ctrl-C brings about, and say what it found."""
    here.terminal.say(f"{job.kind} of {job.about}: Ctrl-C ends it")
    told = ""
    try:
        while job.state == "running":
            if job.progress != told:
                told = job.progress
                here.terminal.say(told)
            time.sleep(JOB_WAIT_S)
            job = here.client.get_job(job.id)
    except KeyboardInterrupt:
        here.client.remove_job(job.id)
        here.terminal.say("ended, and forgotten")
        return
    here.terminal.show(views.job(job, here.width))


def audit(here: Here, _said: Sequence[str]) -> None:
    here.terminal.show(views.audit(here.client.list_audit_entries(limit=LAST).items, here.width))


def who(here: Here, _said: Sequence[str]) -> None:
    here.terminal.show(views.account(here.client.get_session(), here.client.url, here.width))


def help_(here: Here, said: Sequence[str]) -> None:
    if not said:
        here.terminal.show(views.help_(here.width, here.account.permissions))
        return
    word = BY_NAME.get(said[0].lower())
    if word is None:
        raise Wrong(f"there is no word {said[0][:40]!r}: 'help' lists them")
    here.terminal.show(views.help_word(word, here.width))


def quit_(_here: Here, _said: Sequence[str]) -> None:
    raise Leave


class Leave(Exception):
    """Whoever is here wants to go."""


DOING: Final[dict[str, Callable[[Here, Sequence[str]], None]]] = {
    "status": status,
    "devices": devices,
    "device": device,
    "value": value,
    "watch": watch,
    "connections": connections,
    "repairs": repairs,
    "repair": repair,
    "write": write,
    "commands": commands,
    "lock-outs": lock_outs,
    "lock-out": lock_out,
    "lift": lift,
    "scan": scan,
    "find": find,
    "trace": trace,
    "audit": audit,
    "who": who,
    "help": help_,
    "quit": quit_,
}


@dataclass
class Names:
    """What completion offers: names as the gateway has them, asked for once."""

    client: Client
    _known: dict[tuple[str, ...], list[str]] = field(default_factory=dict)

    def __call__(self, kind: str, before: Sequence[str]) -> list[str]:
        key = (kind, before[-1]) if kind == "tag" and before else (kind,)
        if key not in self._known:
            try:
                self._known[key] = list(islice(self._ask(*key), MOST))
            except (NotAllowed, NotThere):
                self._known[key] = []
            except ClientError:  # a key that completes nothing says enough; the next one asks again
                return []
        return self._known[key]

    def _ask(self, kind: str, device: str = "") -> Iterator[str]:
        if kind == "device":
            return (one.name for one in self.client.each(asks.list_devices()))
        if kind == "connection":
            return (one.name for one in self.client.each(asks.list_connections()))
        return (one.name for one in self.client.each(asks.list_tags(device))) if kind == "tag" and device else iter(())
