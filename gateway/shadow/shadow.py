"""The shadow of each device: what it reported last, what is desired of it, and what differs, also while it is away.

Desired values lie in the gateway's state, durable before whoever wishes is answered; each change raises the device's version.
They become commands, through the one gate like all others, when the device answers and reports another value. What then becomes of
a wish is decided in ``wish.py``; here it is kept, handed on and shown.

Reported values are looked at every LOOK_S and written to the disk every KEEP_S at most, where they have changed, and at the end: a
flash disk bears that for decades. After a power cut they may be so much older, and each says how old it is.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from hashlib import blake2b
from typing import Any, Final, Protocol

import msgspec
import structlog
from sqlite_utils import Database, Migrations

from gateway import readable
from gateway.commands.origin import Origin
from gateway.identity.principal import Principal
from gateway.latest import Latest
from gateway.objections import Conflict, Outdated, TooMany, Unavailable, Unfit
from gateway.shadow import wish
from gateway.shadow.known import Known, Reported, packed, unpacked
from gateway.shadow.wish import JsonValue, Unwishable, Wish, WishState
from gateway.state import State
from gateway.tasks import cancel
from gateway.telemetry.clock_state import ClockState
from protocols.clock import Clock
from protocols.contract import Problem
from protocols.model import Command, Device, Outcome, OutcomeState, Quality, Tag

log = structlog.get_logger("holdfast.shadow")

MIGRATIONS: Final = Migrations("shadow")
MOST_WISHES: Final = 10_000
"""Desired values of the whole gateway."""
LOOK_S: Final = 2.0
KEEP_S: Final = 600.0
DEADLINE_S: Final = 30.0
"""For a command that a wish becomes."""
DEVICES_AT_ONCE: Final = 16
KEPT_AT_ONCE: Final = 200
"""Devices whose reported values are written together."""
PORTION: Final = 50
"""Devices that are looked at before the loop may do something else."""


@MIGRATIONS()
def _0001_shadow(db: Database) -> None:
    db.table("shadow").create({"device": str, "version": int, "reported": str}, pk="device", not_null={"version", "reported"})
    db.table("wish").create({"device": str, "tag": str, "version": int, "wish": str}, pk=("device", "tag"), not_null={"version", "wish"})


class Gate(Protocol):
    """What carries commands out: ``gateway.commands``."""

    async def carry_out(self, command: Command, *, source: Origin | str, reason: str = "") -> Outcome: ...


@dataclass(frozen=True, slots=True)
class Standing:
    """One device's shadow at one moment."""

    device: Device
    version: int
    present: bool
    """Whether the device answers now."""
    desired: Mapping[str, Wish]
    delta: Mapping[str, JsonValue]
    """Desired values that the device has not."""
    all_reported: Callable[[], dict[str, Reported]]
    """Gives what was reported last, by tag; for threads where a device has thousands of tags."""

    @property
    def reported(self) -> dict[str, Reported]:
        return self.all_reported()


def _seen(one: Wish, reported: Reported | None) -> Wish:
    """``one`` as whoever looks sees it."""
    return one if reported is None else msgspec.structs.replace(one, state=wish.seen(one, reported.value, reported.time_ns))


def _has(one: Wish, reported: Reported | None) -> bool:
    return reported is not None and (
        wish.same(one.value, reported.value) or (one.state is WishState.IN_SYNC and wish.same(one.applied, reported.value))
    )


@dataclass(slots=True)
class _Shadow:
    version: int = 0
    desired: dict[str, Wish] = field(default_factory=dict)
    busy: bool = False


class Shadows:
    """All shadows of a gateway. Made by ``open``; ``working`` keeps them true."""

    def __init__(self, state: State, latest: Latest, gate: Gate, clock: Clock, clock_state: ClockState) -> None:
        self._state = state
        self._latest = latest
        self._gate = gate
        self._clock = clock
        self._clock_state = clock_state
        self._shadows: dict[str, _Shadow] = {}
        self._known: dict[str, Known] = {}
        self._kept: dict[str, dict[str, Reported]] = {}
        """What was reported before the start, by device."""
        self._changed = asyncio.Event()
        self._changing = asyncio.Lock()
        self._unkept = ""
        """Why what becomes of wishes is not durable, if it is not."""

    async def open(self) -> None:
        """Read what is kept."""
        for device, version, reported in await self._state.do(_shadows):
            self._shadows[device] = _Shadow(version)
            self._kept[device] = unpacked(reported)
        for device, tag, text in await self._state.do(_wishes):
            one = msgspec.json.decode(text, type=Wish)
            self._shadows.setdefault(device, _Shadow()).desired[tag] = msgspec.structs.replace(one, due_s=0.0)

    @asynccontextmanager
    async def working(self) -> AsyncIterator[None]:
        """Look at devices and carry out wishes until left."""
        await self.open()
        tasks = [asyncio.create_task(work, name="shadow") for work in (self._look_on(), self._carry_on())]
        try:
            yield
        finally:
            for task in tasks:
                await cancel(task)
            await self._keep()

    # ---- asking and wishing

    def devices(self) -> list[Device]:
        """Those that have a shadow: all but the gateway's own."""
        return [device for device in self._latest.devices() if device.connection]

    def standing(self, device: Device) -> Standing:
        known = self._look(device)
        shadow = self._shadows.get(device.name, _Shadow())
        desired = {tag: (_seen(one, known.one(tag)), known.one(tag)) for tag, one in shadow.desired.items()}
        return Standing(
            device=device,
            version=shadow.version,
            present=self._present(device),
            desired={tag: one for tag, (one, _) in desired.items()},
            delta={tag: one.value for tag, (one, reported) in desired.items() if not _has(one, reported)},
            all_reported=known.all(),
        )

    def troubled(self) -> Iterator[tuple[str, str, Wish]]:
        """Device, tag and wish of each wish that the device has not taken and will not take by itself."""
        for name, shadow in self._shadows.items():
            if self._latest.device(name) is not None:
                for tag, one in shadow.desired.items():
                    if one.state in (WishState.REFUSED, WishState.MISMATCH, WishState.EXPIRED):
                        yield name, tag, one

    async def change(
        self,
        device: Device,
        desired: Mapping[str, JsonValue],
        *,
        by: Principal,
        version: int | None = None,
        lifetime_s: float | None = None,
        reason: str = "",
    ) -> None:
        """Merge ``desired`` into what is desired of ``device`` (RFC 7396: null removes). Durable when it returns.

        Each tag that is named is wished anew, also with the value that it had. Raises Unfit, Outdated, TooMany, Conflict, Unavailable.
        """
        _must_fit(device, desired)
        if lifetime_s is not None and not self._clock_state.trusted:
            raise Conflict(
                "the gateway's clock was never set: it cannot know when a wish is over", "set the clock, or wish without lifetime_s"
            )
        async with self._changing:
            shadow = self._shadows.get(device.name) or _Shadow()
            if version is not None and version != shadow.version:
                raise Outdated(
                    f"the shadow of {device.name} has version {shadow.version}, not {version}", "read it again, then decide again"
                )
            merged = self._merged(shadow, desired, by, lifetime_s, reason)
            if merged is None:
                return
            if sum(len(each.desired) for each in self._shadows.values()) - len(shadow.desired) + len(merged) > MOST_WISHES:
                raise TooMany(f"{MOST_WISHES} values are desired already", "remove some: send null for them")
            await self._state.do(_change_of(device.name, shadow.version + 1, merged, desired))
            shadow.version += 1
            for tag in desired:  # only these: what became of the others meanwhile stays
                shadow.desired.pop(tag, None)
                if tag in merged:
                    shadow.desired[tag] = merged[tag]
            self._shadows[device.name] = shadow
        self._changed.set()

    async def try_again(self, device: str, tag: str) -> None:
        """Write a wish once more that the device has not taken. Raises Conflict where there is none."""
        shadow = self._shadows.get(device)
        one = shadow.desired.get(tag) if shadow else None
        if shadow is None or one is None:
            raise Conflict(f"nothing is desired of {device}/{tag}", "read the shadow again")
        # the tries are counted on: they are part of the command's id, and what was carried out once is not carried out again
        again = msgspec.structs.replace(one, state=WishState.PENDING, detail="", due_s=0.0, expires_ns=0)
        await self._state.do(_wish_of(device, tag, again))
        shadow.desired[tag] = again
        self._changed.set()

    def _merged(
        self, shadow: _Shadow, desired: Mapping[str, JsonValue], by: Principal, lifetime_s: float | None, reason: str
    ) -> dict[str, Wish] | None:
        """None where nothing changes: what is removed was not there."""
        merged, now_ns = dict(shadow.desired), self._clock.time_ns()
        expires_ns = 0 if lifetime_s is None else now_ns + round(lifetime_s * 1e9)
        changed = False
        for tag, value in desired.items():
            if value is None:
                changed |= merged.pop(tag, None) is not None
            else:
                changed = True
                merged[tag] = Wish(
                    value=value,
                    version=shadow.version + 1,
                    state=WishState.PENDING,
                    by=by.called,
                    role=by.role,
                    reason=reason,
                    set_ns=now_ns,
                    expires_ns=expires_ns,
                )
        return merged if changed else None

    # ---- looking

    def _look(self, device: Device) -> Known:
        known = self._known.get(device.name)
        if known is None or known.device is not device:
            before = known.all()() if known is not None else self._kept.get(device.name)
            known = self._known[device.name] = Known(device, before)
        known.look(self._latest.batches(device))
        return known

    def _present(self, device: Device) -> bool:
        """Whether the device answers: it is not lost, and something of it is good."""
        return self._latest.best_quality(device) < Quality.BAD

    async def _look_on(self) -> None:
        keep_s = self._clock.monotonic() + KEEP_S
        while True:
            for count, device in enumerate(self.devices()):
                if self._latest.device(device.name) is device:
                    self._look(device)
                if count % PORTION == PORTION - 1:
                    await asyncio.sleep(0)
            if any(one.is_open for shadow in self._shadows.values() for one in shadow.desired.values()):
                self._changed.set()  # a device may be back
            if self._clock.monotonic() >= keep_s:
                keep_s = self._clock.monotonic() + KEEP_S
                await self._keep()
            await self._clock.sleep_until(self._clock.monotonic() + LOOK_S)

    async def _keep(self) -> None:
        """Write what was reported, where it has changed: many devices in one go, for a disk may need a second for each."""
        changed: list[tuple[str, Known]] = []
        for count, (name, known) in enumerate(list(self._known.items())):
            if known.changed:
                changed.append((name, known))
            if count % PORTION == PORTION - 1:
                await asyncio.sleep(0)
        for first in range(0, len(changed), KEPT_AT_ONCE):
            some = changed[first : first + KEPT_AT_ONCE]
            for _, known in some:
                known.kept()
            await self._store(_all_of([_reported_of(name, known.all()) for name, known in some]))

    async def _store(self, work: Callable[[Database], None]) -> None:
        """What nobody waits for: a disk that says no is told once, and everything goes on."""
        try:
            await self._state.do(work)
            self._unkept = ""
        except Unavailable as error:
            if not self._unkept:
                log.warning("shadow_not_kept", trouble=error.detail, advice=error.advice)
            self._unkept = error.detail

    # ---- carrying out

    async def _carry_on(self) -> None:
        async with asyncio.TaskGroup() as tasks:
            while True:
                await self._changed.wait()
                self._changed.clear()
                self._begin(tasks)
                await self._clock.sleep_until(self._clock.monotonic() + 0.05)

    def _begin(self, tasks: asyncio.TaskGroup) -> None:
        """Start on each device that has something to be done and is there."""
        if not self._clock_state.trusted:
            return  # no command can have a deadline
        busy = sum(shadow.busy for shadow in self._shadows.values())
        for name, shadow in self._shadows.items():
            if busy >= DEVICES_AT_ONCE:
                return
            device = self._latest.device(name)
            if shadow.busy or device is None or not any(self._due(one) for one in shadow.desired.values()):
                continue
            if self._present(device) or any(self._over(one) for one in shadow.desired.values()):
                shadow.busy, busy = True, busy + 1
                tasks.create_task(self._serve(device, shadow), name=f"shadow {name}")

    def _due(self, one: Wish) -> bool:
        return one.is_open and (one.due_s <= self._clock.monotonic() or self._over(one))

    def _over(self, one: Wish) -> bool:
        return one.is_open and 0 < one.expires_ns <= self._clock.time_ns()

    async def _serve(self, device: Device, shadow: _Shadow) -> None:
        try:
            for tag, one in list(shadow.desired.items()):
                if self._due(one):
                    await self._fulfil(device, shadow, tag, one)
        finally:
            shadow.busy = False

    async def _fulfil(self, device: Device, shadow: _Shadow, tag: str, one: Wish) -> None:
        if self._over(one):
            over = msgspec.structs.replace(one, state=WishState.EXPIRED, detail="its lifetime ended before the device had it")
            await self._become(device.name, shadow, tag, one, over)
            return
        if self._latest.device(device.name) is not device or not self._present(device):
            return
        reported = self._look(device).one(tag)
        if reported is not None and wish.same(one.value, reported.value):
            has = msgspec.structs.replace(one, state=WishState.IN_SYNC, applied=reported.value, applied_ns=reported.time_ns, detail="")
            await self._become(device.name, shadow, tag, one, has)
            return
        await self._write(device, shadow, tag, one)

    async def _write(self, device: Device, shadow: _Shadow, tag: str, one: Wish) -> None:
        trying = msgspec.structs.replace(one, tries=one.tries + 1)
        if not await self._become(device.name, shadow, tag, one, trying):  # a crash in between leads to a new try with a new id
            return
        now_ns = self._clock.time_ns
        try:
            command = self._command(device, tag, trying)
        except Unwishable as error:  # the document has changed since
            outcome = Outcome(command="", state=OutcomeState.REFUSED, time_ns=now_ns(), detail=str(error))
        else:
            outcome = await self._gate.carry_out(command, source=Origin(kind="shadow", who=one.by, role=one.role), reason=one.reason)
        read_back = readable.value(outcome.read_back)
        ended = wish.after(trying, outcome.state, outcome.detail, read_back, now_ns(), self._clock.monotonic())
        await self._become(device.name, shadow, tag, trying, ended)

    def _command(self, device: Device, tag: str, one: Wish) -> Command:
        """Raises Unwishable."""
        found = _tag(device, tag)
        if found is None:
            raise Unwishable(f"device {device.name} has no tag {tag} any more")
        place = blake2b(f"{device.name}\0{tag}\0{one.set_ns}".encode(), digest_size=8).hexdigest()
        return Command(
            id=f"shadow-{place}-{one.version}-{one.tries}",
            device=device.name,
            tag=tag,
            value=wish.wished(one.value, found),
            deadline_ns=self._clock.time_ns() + round(DEADLINE_S * 1e9),
        )

    async def _become(self, device: str, shadow: _Shadow, tag: str, before: Wish, now: Wish) -> bool:
        """False where somebody has wished otherwise meanwhile."""
        if shadow.desired.get(tag) is not before:
            return False
        shadow.desired[tag] = now
        if now.state is not before.state:
            say = log.info if now.state in (WishState.IN_SYNC, WishState.PENDING) else log.warning
            say("wish", device=device, tag=tag, version=now.version, state=now.state.value, detail=now.detail)
        await self._store(_wish_of(device, tag, now))
        return shadow.desired.get(tag) is now


def _tag(device: Device, name: str) -> Tag | None:
    return next((tag for tag in device.tags if tag.name == name), None)


def _must_fit(device: Device, desired: Mapping[str, JsonValue]) -> None:
    """Raises Unfit with each thing that is wrong. What is removed need not be there any more."""
    problems = []
    for name, value in desired.items():
        tag = _tag(device, name)
        path = f"desired.{name}"
        if value is None:
            continue
        if tag is None:
            problems.append(Problem(path, f"device {device.name} has no tag {name}", f"GET /api/v1/devices/{device.name}/tags lists them"))
        elif not tag.writable:
            problems.append(Problem(path, f"tag {name} of {device.name} is not writable", "set writable in the site document"))
        else:
            try:
                wish.wished(value, tag)
            except Unwishable as error:
                problems.append(Problem(path, str(error), "send another value"))
    if problems:
        raise Unfit(f"{len(problems)} of what is desired of {device.name} cannot be; nothing was changed", "problems says where", problems)


# ---- what is kept


def _shadows(db: Database) -> list[tuple[str, int, str]]:
    return [(row["device"], row["version"], row["reported"]) for row in db.table("shadow").rows]


def _wishes(db: Database) -> list[tuple[str, str, str]]:
    return [(row["device"], row["tag"], row["wish"]) for row in db.table("wish").rows]


_VERSION: Final = """
INSERT INTO shadow (device, version, reported) VALUES (?, ?, '{}')
ON CONFLICT (device) DO UPDATE SET version = excluded.version"""
_REPORTED: Final = """
INSERT INTO shadow (device, version, reported) VALUES (?, 0, ?)
ON CONFLICT (device) DO UPDATE SET reported = excluded.reported"""
_WISH: Final = "UPDATE wish SET wish = ? WHERE device = ? AND tag = ? AND version = ?"


def _change_of(device: str, version: int, merged: Mapping[str, Wish], named: Mapping[str, Any]) -> Callable[[Database], None]:  # Any: JSON
    rows = [{"device": device, "tag": tag, "version": merged[tag].version, "wish": _text(merged[tag])} for tag in named if tag in merged]
    gone = [tag for tag in named if tag not in merged]

    def work(db: Database) -> None:
        db.execute(_VERSION, [device, version])
        db.table("wish").upsert_all(rows, pk=("device", "tag"))
        for tag in gone:
            db.execute("DELETE FROM wish WHERE device = ? AND tag = ?", [device, tag])

    return work


def _wish_of(device: str, tag: str, one: Wish) -> Callable[[Database], None]:
    """Nothing is written where it was wished otherwise meanwhile."""

    def work(db: Database) -> None:
        db.execute(_WISH, [_text(one), device, tag, one.version])

    return work


def _all_of(works: Sequence[Callable[[Database], None]]) -> Callable[[Database], None]:
    def work(db: Database) -> None:
        for each in works:
            each(db)

    return work


def _reported_of(device: str, reported: Callable[[], dict[str, Reported]]) -> Callable[[Database], None]:
    def work(db: Database) -> None:
        db.execute(_REPORTED, [device, packed(reported())])

    return work


def _text(one: Wish) -> str:
    return msgspec.json.encode(one).decode()
