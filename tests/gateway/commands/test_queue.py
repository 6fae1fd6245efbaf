"""Commands that wait, are tried again, and are remembered: what is said of them is what is known, no more."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from gateway import commands, links
from gateway.commands import Course, Gate, Memory, Origin, Stage
from gateway.commands.lockout import LockOut
from gateway.config.commands import CommandRule, Commands
from gateway.connections import Connection
from gateway.objections import Conflict, NotThere
from gateway.state import State
from protocols.clock import ManualClock
from protocols.contract import Unreachable
from protocols.modbus.driver import TCP
from protocols.model import Batch, Command, Device, Kind, Outcome, OutcomeState, ScanStats, Tag
from protocols.steps import Step, tell

BOILER = Device("line", "boiler", (Tag(name="setpoint", kind=Kind.FLOAT64, writable=True), Tag(name="pump", kind=Kind.BOOL, writable=True)))
ANNA = Origin(kind="api", who="user:anna")
Act = Callable[[Command], OutcomeState]


class Field:
    """A session that tells its steps; each write does the next of ``acts``, the last one for ever."""

    tells = True

    def __init__(self) -> None:
        self.acts: list[Act] = [self.takes]
        self.written: list[Any] = []
        self.held: float = 0.0
        """What the device holds."""
        self.stats = ScanStats()
        self.findings: list[str] = []
        self.may_go = asyncio.Event()
        self.may_go.set()

    async def batches(self) -> AsyncIterator[Batch]:
        nothing: list[Batch] = []
        for batch in nothing:
            yield batch

    async def write(self, wishes: Sequence[Command]) -> Sequence[Outcome]:
        (wish,) = wishes
        act = self.acts.pop(0) if len(self.acts) > 1 else self.acts[0]
        await self.may_go.wait()
        state = act(wish)
        return [Outcome(command=wish.id, state=state, time_ns=5, detail="so it was")]

    def takes(self, wish: Command) -> OutcomeState:
        tell(Step.SENT)
        self.written.append(wish.value)
        self.held = float(wish.value)
        tell(Step.ACKNOWLEDGED)
        return OutcomeState.VERIFIED

    def takes_and_says_nothing(self, wish: Command) -> OutcomeState:
        tell(Step.SENT)
        self.written.append(wish.value)
        self.held = float(wish.value)
        return OutcomeState.FAILED

    def loses_it(self, wish: Command) -> OutcomeState:
        tell(Step.SENT)
        self.written.append(wish.value)
        return OutcomeState.FAILED

    def is_not_reached(self, wish: Command) -> OutcomeState:
        raise Unreachable("192.0.2.1: gone: it will be tried again")

    def says_no(self, wish: Command) -> OutcomeState:
        tell(Step.SENT)
        return OutcomeState.REFUSED

    def acknowledges_and_is_not_read(self, wish: Command) -> OutcomeState:
        tell(Step.SENT)
        tell(Step.ACKNOWLEDGED)
        self.written.append(wish.value)
        return OutcomeState.FAILED


class Site:
    def __init__(self, memory: Memory | None = None) -> None:
        self.clock = ManualClock()
        self.field = Field()
        self.line = Connection(TCP, None, (BOILER,), links.Status("connection", "line"), session=self.field)
        self.records: list[str] = []
        self.options = Commands()
        self.scans = True
        self.gate = Gate(
            lambda name: (self.line, BOILER) if name == "boiler" else None,
            lambda batch: self.records.append(str(batch.value[5])),
            self.clock,
            memory=memory,
            options=lambda: self.options,
            seen=self._seen,
        )

    def _seen(self, device: Device) -> Sequence[Batch]:
        """A scan of this moment."""
        if not self.scans:
            return ()
        one = np.array([0], np.uint32)
        return [Batch(device, one, np.array([self.field.held]), np.zeros(1, np.uint32), np.array([self.clock.time_ns()]))]

    def wish(self, value: float = 21.5, *, identity: str = "1", seconds: float = 10.0, tag: str = "setpoint") -> Command:
        return Command(id=identity, device="boiler", tag=tag, value=value, deadline_ns=self.clock.time_ns() + int(seconds * 1e9))

    async def over(self, course: Course) -> Course:
        """Time passes until ``course`` has ended."""
        async with asyncio.timeout(10):
            while not course.is_over():
                await asyncio.sleep(0)
                await self.clock.advance(0.05)
        return course


@pytest.fixture
def site() -> Site:
    return Site()


async def test_a_command_waits_for_its_connection(site: Site) -> None:
    site.line.session = None
    course = site.gate.take(site.wish(), ANNA)
    for _ in range(20):
        await site.clock.advance(0.1)
    assert course.stage is Stage.QUEUED
    site.line.session = site.field
    assert (await site.over(course)).stage is Stage.VERIFIED


async def test_it_expires_where_the_connection_does_not_come_back(site: Site) -> None:
    site.line.session = None
    first, behind = site.gate.take(site.wish(seconds=20), ANNA), site.gate.take(site.wish(identity="2", seconds=1), ANNA)
    assert (await site.over(behind)).stage is Stage.EXPIRED
    assert first.stage is Stage.QUEUED, "the one behind it has the nearer deadline"
    assert (await site.over(first)).stage is Stage.EXPIRED
    assert site.field.written == []


async def test_what_was_not_sent_is_tried_again(site: Site) -> None:
    site.field.acts = [site.field.is_not_reached, site.field.is_not_reached, site.field.takes]
    course = await site.over(site.gate.take(site.wish(), ANNA))
    assert (course.stage, course.attempts, site.field.written) == (Stage.VERIFIED, 3, [21.5])


async def test_what_was_sent_and_not_answered_is_looked_at_before_anything_else(site: Site) -> None:
    site.field.acts = [site.field.takes_and_says_nothing]
    course = await site.over(site.gate.take(site.wish(), ANNA))
    assert (course.stage, course.attempts, site.field.written) == (Stage.VERIFIED, 1, [21.5])
    assert "a later scan reads it" in course.detail


async def test_it_is_sent_again_where_the_field_shows_that_it_did_not_come_about(site: Site) -> None:
    site.field.acts = [site.field.loses_it, site.field.takes]
    course = await site.over(site.gate.take(site.wish(), ANNA))
    assert (course.stage, course.attempts, site.field.written) == (Stage.VERIFIED, 2, [21.5, 21.5])


async def test_what_may_be_a_pulse_is_sent_once(site: Site) -> None:
    site.options = Commands(rules=(CommandRule(repeat="never"),))
    site.field.acts = [site.field.loses_it]
    course = await site.over(site.gate.take(site.wish(), ANNA))
    assert (course.stage, site.field.written) == (Stage.FAILED, [21.5])
    assert "not sent twice" in course.detail


async def test_where_no_scan_says_anything_nobody_can_say(site: Site) -> None:
    site.scans = False
    site.field.acts = [site.field.loses_it]
    course = await site.over(site.gate.take(site.wish(), ANNA))
    assert (course.stage, course.attempts) == (Stage.FAILED, 1)


async def test_acknowledged_and_not_read_back_is_never_sent_again(site: Site) -> None:
    site.field.acts = [site.field.acknowledges_and_is_not_read]
    course = await site.over(site.gate.take(site.wish(), ANNA))
    assert (course.stage, course.read_back, site.field.written) == (Stage.MISMATCH, 0.0, [21.5])


async def test_a_no_of_the_device_is_no_refusal_of_ours(site: Site) -> None:
    site.field.acts = [site.field.says_no]
    course = await site.over(site.gate.take(site.wish(), ANNA))
    assert (course.stage, course.by_device, Stage.SENT in course.times) == (Stage.FAILED, True, True)
    assert site.records == ["failed"]


async def test_commands_of_one_device_go_out_in_their_order(site: Site) -> None:
    site.field.may_go.clear()
    courses = [site.gate.take(site.wish(float(number), identity=str(number)), ANNA) for number in range(10)]
    await asyncio.sleep(0)
    site.field.may_go.set()
    for course in courses:
        await site.over(course)
    assert site.field.written == [float(number) for number in range(10)]


async def test_a_lock_out_holds_for_what_is_queued(site: Site) -> None:
    site.line.session = None
    course = site.gate.take(site.wish(), ANNA)
    await site.gate.lock_out(LockOut(scope="device", name="boiler", who="user:otto", why="belt is off", since_ns=1))
    site.line.session = site.field
    assert (await site.over(course)).stage is Stage.REFUSED
    assert "belt is off" in course.detail
    assert site.field.written == []
    await site.gate.lift("device:boiler", "user:otto")
    assert (await site.over(site.gate.take(site.wish(identity="2"), ANNA))).stage is Stage.VERIFIED
    with pytest.raises(NotThere):
        await site.gate.lift("device:boiler", "user:otto")


async def test_a_lock_out_with_an_end_ends(site: Site) -> None:
    until_ns = site.clock.time_ns() + 60_000_000_000
    await site.gate.lock_out(LockOut(scope="gateway", who="user:otto", why="tests", since_ns=1, until_ns=until_ns))
    assert (await site.over(site.gate.take(site.wish(), ANNA))).stage is Stage.REFUSED
    await site.clock.advance(61)
    assert site.gate.lock_outs() == []
    assert (await site.over(site.gate.take(site.wish(identity="2"), ANNA))).stage is Stage.VERIFIED


async def test_an_id_stands_for_one_command(site: Site) -> None:
    course = await site.over(site.gate.take(site.wish(), ANNA))
    assert site.gate.take(site.wish(), ANNA) is course
    with pytest.raises(Conflict):
        site.gate.take(site.wish(22.0), ANNA)
    assert (await site.gate.carry_out(site.wish(22.0), source="shadow")).state is OutcomeState.REFUSED
    assert site.field.written == [21.5]


async def test_nothing_is_taken_once_the_gate_is_closed(site: Site) -> None:
    await site.gate.close()
    assert site.gate.take(site.wish(), ANNA).stage is Stage.REFUSED


# ---- restarts


async def opened(folder: Path) -> State:
    return await State.open(folder, (commands.MIGRATIONS,), ManualClock())


async def test_what_was_is_remembered_and_what_was_under_way_is_said_to_be_unknown(tmp_path: Path) -> None:
    state = await opened(tmp_path)
    before = Site(Memory(state))
    done = await before.gate.submit(before.wish(), ANNA, reason="recipe")
    await before.over(done)
    before.field.may_go.clear()
    sending = await before.gate.submit(before.wish(30.0, identity="sending"), ANNA)
    waiting = await before.gate.submit(before.wish(31.0, identity="waiting"), ANNA)
    await before.gate.lock_out(LockOut(scope="connection", name="line", who="user:otto", why="belt", since_ns=1))
    assert (sending.stage, waiting.stage, sending.handed, waiting.handed) == (Stage.QUEUED, Stage.QUEUED, True, False)
    for worker in before.gate._workers.values():  # the gateway is killed: nobody closes the gate
        worker.cancel()
    await state.close()

    state = await opened(tmp_path)
    after = Site(Memory(state))
    await after.gate.begin()
    assert [str(one) for one in after.gate.lock_outs()] == ["connection line is locked out by user:otto: belt"]
    again = after.gate.take(before.wish(), ANNA)
    assert (again.stage, again.reason, str(again.origin), again.times) == (Stage.VERIFIED, "recipe", "api, user:anna", done.times)
    found = {identity: after.gate.course(identity) for identity in ("sending", "waiting")}
    assert [course.stage for course in found.values()] == [Stage.FAILED, Stage.FAILED]
    assert "nobody can say" in found["sending"].detail
    assert "nothing was sent" in found["waiting"].detail
    assert (after.field.written, after.records) == ([], ["failed", "failed"])
    await after.gate.close()
    await state.close()


async def test_commands_go_on_where_their_memory_cannot_be_written(tmp_path: Path) -> None:
    state = await opened(tmp_path)
    memory = Memory(state)
    site = Site(memory)
    await state.do(lambda db: db.conn.execute("DROP TABLE command"))
    course = await site.gate.submit(site.wish(), ANNA)
    assert (await site.over(course)).stage is Stage.VERIFIED
    await site.gate.close()
    assert memory.unkept > 0
    await state.close()


# ---- what the rules need to know of the field


async def test_pace_and_change_are_judged_by_what_was_sent_and_what_was_read(site: Site) -> None:
    site.options = Commands(rules=(CommandRule(least_interval_s=5, most_change=10),))
    site.field.held = 20.0
    assert (await site.over(site.gate.take(site.wish(30.1, identity="far"), ANNA))).stage is Stage.REFUSED
    assert (await site.over(site.gate.take(site.wish(30.0, identity="near"), ANNA))).stage is Stage.VERIFIED
    assert (await site.over(site.gate.take(site.wish(31.0, identity="soon"), ANNA))).stage is Stage.REFUSED
    await site.clock.advance(6)
    assert (await site.over(site.gate.take(site.wish(40.0, identity="later"), ANNA))).stage is Stage.VERIFIED
    site.scans = False
    await site.clock.advance(6)
    blind = await site.over(site.gate.take(site.wish(41.0, identity="blind"), ANNA))
    assert (blind.stage, "not known" in blind.detail) == (Stage.REFUSED, True)
