"""What every driver promises, as tests. A driver passes by giving a :class:`Rig`: a real peer and options that reach it.

Subclass :class:`DriverSuite` in a test module and give a ``rig`` fixture; nothing here knows a protocol. What a protocol cannot
have by its nature is left out of ``abilities``, and the tests that need it are not collected. The peer holds
two devices. Device ``one`` has a tag for every value in ``rig.expected``, the tags named below, and one that the peer does
not have; device ``two`` has one tag and can be made silent. Nothing is asserted about time: tests wait for a condition.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import math
import os
import time
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from enum import StrEnum
from pathlib import Path
from typing import Any, ClassVar, Final, Protocol

import numpy as np
import pytest

from protocols.clock import SystemClock
from protocols.contract import Driver, DriverError, Session, Unreachable
from protocols.model import COLUMN_OF, DTYPE_OF, SEVERITY_MASK, Batch, Command, Kind, Outcome, OutcomeState, Quality, ScanStats

PATIENCE_S: Final = 20.0
"""How long a test waits for what must come; reached only when something is broken."""
ONE, TWO = "one", "two"
GHOST: Final = "ghost"
"""A tag of device one that the peer does not have."""
SETPOINT: Final = "setpoint"
"""A writable float of device one."""
STUCK: Final = "stuck"
"""A writable tag of device one that the peer acknowledges and does not change."""
LEVEL: Final = "level"
"""An integer of device one and of device two that the rig can change (``change``); not writable."""

Value = bool | int | float | str | bytes


class Ability(StrEnum):
    """What not every protocol has. A test says what it needs: ``@needs(Ability.WRITES)``."""

    CONNECTS = "connects"
    """We go to the peer, so it can be away. (A server for devices that push waits for ever.)"""
    SCANS = "scans"
    """We ask on a schedule and count scans. (Where values are pushed nobody can be late.)"""
    DEVICES_FALL_SILENT = "devices fall silent"
    """One device behind a connection can be silent while another answers."""
    GHOSTS = "ghosts"
    """The peer says that a value does not exist. (What is never pushed is only waited for.)"""
    WRITES = "writes"
    READS_BACK = "reads back"
    """What was written can be read. (A topic, a webhook, cannot: such a command ends as failed with the reason.)"""
    QUEUES = "queues"
    """One request at a time: commands overtake the reads that wait."""
    NAN = "nan"
    """A float can be NaN. (In JSON it cannot.)"""


def needs(*abilities: Ability) -> pytest.MarkDecorator:
    return pytest.mark.needs(*abilities)


class Rig(Protocol):
    """A peer, and how to reach and hurt it."""

    driver: Driver
    options: Any  # Any: the driver's own Struct
    where: str
    """What an error text must name so that a person finds the peer: host and port, or the serial port."""
    expected: dict[str, Value]
    """What the tags of device one hold, by name; extremes of every kind that the protocol has."""
    faulty: Any  # Any: as options
    """Options that are wrong in several places at once."""
    faults: frozenset[str]
    """The paths at which ``check`` must find something in ``faulty``."""

    async def change(self, device: str, value: int) -> None:
        """Set ``LEVEL`` of a device."""

    async def hush(self, device: str, silent: bool) -> None:
        """Make a device fall silent, or answer again."""

    async def lose(self) -> None:
        """The peer is gone, with every connection to it."""

    async def restore(self) -> None:
        """It is back, at the same place, with the same values."""

    async def seen(self) -> list[str]:
        """``read`` and ``write`` for every request since this was last asked, in order."""

    def hostile(self, misdeed: str) -> AbstractAsyncContextManager[Hostile]:
        """A hostile peer in place of the real one; ``misdeed`` is one of the suite's ``misdeeds``."""


class Hostile(Protocol):
    """A peer that misbehaves, and options that lead to it. Its one device is ``one`` with ``LEVEL`` = ``truth``."""

    options: Any  # Any: as above
    truth: int

    def heal(self) -> None: ...


# -------------------------------------------------------------------------------------------------- what is looked at


def assert_consistent(batch: Batch) -> None:
    """Everything that a batch promises about its own shape."""
    length = len(batch)
    assert length >= 1
    assert [str(column.dtype) for column in (batch.tag, batch.quality, batch.time_ns)] == ["uint32", "uint32", "int64"]
    assert batch.value.dtype == DTYPE_OF[batch.column]
    assert {len(batch.value), len(batch.quality), len(batch.time_ns)} == {length}
    assert len(np.unique(batch.tag)) == length, "a tag stands in a scan once"
    assert int(batch.tag.max()) < len(batch.device.tags)
    assert {COLUMN_OF[batch.device.tags[slot].kind] for slot in batch.tag} == {batch.column}
    assert set(batch.quality.tolist()) <= set(Quality), "every quality is one that we name"
    bad = (batch.quality & SEVERITY_MASK) >= int(Quality.BAD)
    assert not any(batch.value[bad].tolist()), "where the quality is bad the value is the zero of its column"
    now = time.time_ns()
    assert now - 3600 * 10**9 < int(batch.time_ns.min()) <= int(batch.time_ns.max()) <= now


class Seen:
    """The last value and quality of every tag, as batches brought them."""

    def __init__(self) -> None:
        self.values: dict[tuple[str, str], Any] = {}  # Any: what the columns hold
        self.qualities: dict[tuple[str, str], Quality] = {}
        self.batches: dict[str, int] = {}
        self.lost: set[str] = set()

    def take(self, batch: Batch) -> None:
        assert_consistent(batch)
        device = batch.device
        self.batches[device.name] = self.batches.get(device.name, 0) + 1
        if batch.lost:
            self.lost.add(device.name)
        for slot, value, quality in zip(batch.tag, batch.value.tolist(), batch.quality.tolist(), strict=True):
            key = (device.name, device.tags[slot].name)
            self.values[key], self.qualities[key] = value, Quality(quality)

    def good(self, device: str, tag: str) -> Any:  # Any: as above
        """The tag's value; None while it has none that is good."""
        key = (device, tag)
        return self.values[key] if self.qualities.get(key) == Quality.GOOD else None


class Watched:
    """A session with one iteration of its batches, taken up again where it was left, as a gateway iterates."""

    def __init__(self, session: Session) -> None:
        self.session = session
        self.stream: AsyncIterator[Batch] | None = None

    @property
    def stats(self) -> ScanStats:
        return self.session.stats

    async def write(self, *commands: Command) -> list[Outcome]:
        return list(await self.session.write(commands))

    async def close(self) -> None:
        """End the iteration. It is a generator wherever a session is written as one."""
        if isinstance(self.stream, AsyncGenerator):
            await self.stream.aclose()
        self.stream = None


async def watch(watched: Watched, seen: Seen, enough: Callable[[], bool]) -> None:
    """Take batches until ``enough()``."""
    watched.stream = watched.stream or watched.session.batches()
    async with asyncio.timeout(PATIENCE_S):
        async for batch in watched.stream:
            seen.take(batch)
            if enough():
                return
    raise AssertionError("the iteration of batches ended without an error")


async def until(what: str, true: Callable[[], bool]) -> None:
    try:
        async with asyncio.timeout(PATIENCE_S):
            while not true():  # noqa: ASYNC110 # the condition is the process's own state: nobody could set an event
                await asyncio.sleep(0.005)
    except TimeoutError:
        raise AssertionError(f"not within {PATIENCE_S:g} s: {what}") from None


def same(got: Value, wanted: Value) -> bool:
    """Equal to the last bit, NaN included; -0.0 is not 0.0."""
    if isinstance(wanted, float) and isinstance(got, float):
        return (math.isnan(got) and math.isnan(wanted)) or (got == wanted and math.copysign(1, got) == math.copysign(1, wanted))
    return type(got) is type(wanted) and got == wanted


def descriptors() -> set[str]:
    """What this process holds open, by target."""
    targets = set()
    for entry in Path("/proc/self/fd").iterdir():
        with contextlib.suppress(OSError):  # the descriptor of the listing itself
            targets.add(f"{entry.name}:{entry.readlink()}")
    return targets


def resident_bytes() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


class DriverSuite:
    """The tests. A subclass gives the fixture ``rig`` and the names of the hostile peers that can stand in for its peer."""

    misdeeds: ClassVar[tuple[str, ...]] = ()
    abilities: ClassVar[frozenset[Ability]] = frozenset(Ability)
    clock: ClassVar = SystemClock()

    @asynccontextmanager
    async def session(self, rig: Rig, options: Any = None) -> AsyncIterator[Watched]:  # Any: as in Rig
        async with rig.driver.open(options or rig.options, clock=self.clock) as session:
            watched = Watched(session)
            try:
                yield watched
            finally:
                await watched.close()

    def command(self, tag: str, value: Value, *, device: str = ONE, seconds: float = 60.0) -> Command:
        return Command(id=f"{device}-{tag}", device=device, tag=tag, value=value, deadline_ns=self.clock.time_ns() + int(seconds * 1e9))

    async def reach(self, rig: Rig, options: Any, seen: Seen, enough: Callable[[], bool]) -> None:  # Any: as in Rig
        """Open again and again, as a link does, until ``enough()``: a few sessions must do."""
        for _ in range(5):
            with contextlib.suppress(Unreachable):
                async with self.session(rig, options) as session:
                    return await watch(session, seen, enough)
        raise AssertionError("the peer is well again, and five sessions did not reach it")

    # ------------------------------------------------------------------------------------------ devices and batches

    async def test_devices_are_known_before_anything_is_opened_and_stay_the_same_objects(self, rig: Rig) -> None:
        first, second = rig.driver.devices(rig.options), rig.driver.devices(rig.options)
        assert [device.name for device in first] == [ONE, TWO]
        assert all(a is b for a, b in zip(first, second, strict=True))
        assert {*rig.expected, GHOST, SETPOINT, STUCK, LEVEL} <= {tag.name for tag in first[0].tags}

    async def test_the_options_of_the_rig_have_no_problem(self, rig: Rig) -> None:
        assert [problem for problem in rig.driver.check(rig.options) if problem.severity == "error"] == []

    async def test_batches_carry_those_devices_in_consistent_columns(self, rig: Rig) -> None:
        devices = {id(device) for device in rig.driver.devices(rig.options)}
        came: list[Batch] = []
        async with self.session(rig) as session:
            async with asyncio.timeout(PATIENCE_S):
                async for batch in session.session.batches():
                    came.append(batch)
                    if len(came) >= 30:
                        break
        for batch in came:
            assert_consistent(batch)
            assert id(batch.device) in devices

    async def test_every_kind_is_read_exactly(self, rig: Rig) -> None:
        seen = Seen()
        async with self.session(rig) as session:
            await watch(session, seen, lambda: all(seen.good(ONE, tag) is not None for tag in rig.expected))
        wrong = {tag: (seen.good(ONE, tag), value) for tag, value in rig.expected.items() if not same(seen.good(ONE, tag), value)}
        assert wrong == {}

    async def test_the_rig_has_an_extreme_for_every_number(self, rig: Rig) -> None:
        kinds = {tag.name: tag.kind for tag in rig.driver.devices(rig.options)[0].tags}
        covered = {kinds[name] for name in rig.expected}
        assert covered >= {Kind.BOOL, Kind.INT64, Kind.UINT64, Kind.FLOAT32, Kind.FLOAT64}
        assert {-(2**63), 2**63 - 1, 2**64 - 1} <= set(rig.expected.values())
        assert Ability.NAN not in self.abilities or any(isinstance(value, float) and math.isnan(value) for value in rig.expected.values())

    async def test_a_value_that_changes_arrives_changed(self, rig: Rig) -> None:
        seen = Seen()
        async with self.session(rig) as session:
            await rig.change(ONE, 7)
            await watch(session, seen, lambda: seen.good(ONE, LEVEL) == 7)
            await rig.change(ONE, 8)
            await watch(session, seen, lambda: seen.good(ONE, LEVEL) == 8)

    @needs(Ability.GHOSTS)
    async def test_a_tag_that_does_not_exist_is_bad_and_harms_no_neighbour(self, rig: Rig) -> None:
        seen = Seen()
        async with self.session(rig) as session:
            await watch(
                session, seen, lambda: (ONE, GHOST) in seen.qualities and all(seen.good(ONE, tag) is not None for tag in rig.expected)
            )
            at = seen.batches[ONE]
            await watch(session, seen, lambda: seen.batches[ONE] > at + 10)
            said = list(session.session.findings)
        assert seen.qualities[ONE, GHOST].is_bad
        assert [tag for tag in rig.expected if seen.good(ONE, tag) is None] == []
        assert [type(finding) for finding in said] == [str] * len(said)
        assert len([finding for finding in said if GHOST in finding]) == 1, "a person is told once"

    # ------------------------------------------------------------------------------------------ trouble

    @needs(Ability.DEVICES_FALL_SILENT, Ability.SCANS)
    async def test_a_silent_device_is_told_and_the_other_goes_on_in_time(self, rig: Rig) -> None:
        seen = Seen()
        async with self.session(rig) as session:
            await watch(session, seen, lambda: seen.good(TWO, LEVEL) is not None)
            await rig.hush(TWO, True)
            await watch(session, seen, lambda: TWO in seen.lost)
            assert seen.qualities[TWO, LEVEL].is_bad
            scans, missed = session.stats.scans, session.stats.missed
            await watch(session, seen, lambda: session.stats.scans >= scans + 40)
            assert session.stats.missed - missed <= 40, "the silent device costs the other more scans than it was left"
            assert ONE not in seen.lost
            await rig.hush(TWO, False)
            await rig.change(TWO, 99)
            await watch(session, seen, lambda: seen.good(TWO, LEVEL) == 99)

    @needs(Ability.CONNECTS)
    async def test_a_peer_that_goes_is_unreachable_and_serves_again_when_it_is_back(self, rig: Rig) -> None:
        async with self.session(rig) as session:
            await watch(session, Seen(), lambda: True)
            await rig.lose()
            with pytest.raises(Unreachable) as caught:
                await watch(session, Seen(), lambda: False)
        assert rig.where in str(caught.value)
        await rig.restore()
        seen = Seen()
        async with self.session(rig) as session:
            await watch(session, seen, lambda: all(seen.good(ONE, tag) is not None for tag in rig.expected))

    @needs(Ability.CONNECTS)
    async def test_a_peer_that_is_not_there_is_unreachable_with_its_place_in_the_text(self, rig: Rig) -> None:
        await rig.lose()
        with pytest.raises(Unreachable) as caught:
            async with self.session(rig) as session:
                await watch(session, Seen(), lambda: False)
        assert rig.where in str(caught.value)
        assert len(str(caught.value)) > len(rig.where) + 20, "the text says what to do"

    @needs(Ability.CONNECTS, Ability.WRITES)
    async def test_commands_on_a_lost_connection_fail_or_say_unreachable(self, rig: Rig) -> None:
        async with self.session(rig) as session:
            await watch(session, Seen(), lambda: True)
            await rig.lose()
            outcomes: list[Outcome] = []
            with contextlib.suppress(Unreachable):
                outcomes += await session.write(self.command(SETPOINT, 1.0))
            with contextlib.suppress(Unreachable):
                outcomes += await session.write(self.command(SETPOINT, 1.0))
        assert {outcome.state for outcome in outcomes} <= {OutcomeState.FAILED}

    async def test_no_hostile_peer_does_more_than_fail(self, rig: Rig, misdeed: str) -> None:
        """It ends in one of the three errors or in bad qualities, never in a wrong value; and a healed peer serves again."""
        before = resident_bytes()
        async with rig.hostile(misdeed) as peer:
            seen, said = Seen(), "it brought batches until the device was given up"
            try:
                async with self.session(rig, peer.options) as session:
                    await watch(session, seen, lambda: seen.batches.get(ONE, 0) >= 20 or ONE in seen.lost)
            except DriverError as error:
                said = str(error)
            assert len(said) > 30, f"the text says what to do: {said}"
            assert seen.good(ONE, LEVEL) in (None, peer.truth)
            peer.heal()
            await self.reach(rig, peer.options, seen, lambda: seen.good(ONE, LEVEL) == peer.truth)
        assert resident_bytes() - before < 20e6, "what a peer sends is bounded"

    # ------------------------------------------------------------------------------------------ leaving

    async def test_cancelled_at_any_moment_it_leaves_nothing_behind(self, rig: Rig) -> None:
        async with self.session(rig) as session:  # what is made once for ever is made now
            await watch(session, Seen(), lambda: True)
        gc.collect()
        tasks, open_before = asyncio.all_tasks(), descriptors()

        async def work() -> None:
            async with self.session(rig) as session:
                await asyncio.gather(watch(session, Seen(), lambda: True), session.write(self.command(SETPOINT, 2.0)))
                await watch(session, Seen(), lambda: False)

        for turns in (*range(24), 30, 40, 60, 100, 200, 400):
            task = asyncio.create_task(work())
            for _ in range(turns):
                await asyncio.sleep(0)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
        await until("no task is left", lambda: asyncio.all_tasks() <= tasks)
        await until("no descriptor is left", lambda: descriptors() <= open_before)

    async def test_after_a_cancelled_read_the_same_session_reads_right_values(self, rig: Rig) -> None:
        seen = Seen()
        async with self.session(rig) as session:
            for turns in (0, 1, 2, 3, 5, 8, 13, 21):
                task = asyncio.ensure_future(watch(session, Seen(), lambda: True))
                for _ in range(turns):
                    await asyncio.sleep(0)
                task.cancel()
                await asyncio.gather(task, return_exceptions=True)
                await session.close()
            await watch(session, seen, lambda: all(seen.good(ONE, tag) is not None for tag in rig.expected))
        wrong = {tag: (seen.good(ONE, tag), value) for tag, value in rig.expected.items() if not same(seen.good(ONE, tag), value)}
        assert wrong == {}

    # ------------------------------------------------------------------------------------------ commands

    async def outcomes(self, rig: Rig, *commands: Command) -> list[Outcome]:
        async with self.session(rig) as session:
            return await self.outcomes_beside(session, *commands)

    async def outcomes_beside(self, session: Watched, *commands: Command) -> list[Outcome]:
        """The outcomes of ``commands`` while batches are read, as a gateway does both at once."""
        reading = asyncio.ensure_future(watch(session, Seen(), lambda: False))
        try:
            async with asyncio.timeout(PATIENCE_S):
                return await session.write(*commands)
        finally:
            reading.cancel()
            await asyncio.gather(reading, return_exceptions=True)
            await session.close()

    @needs(Ability.WRITES, Ability.READS_BACK)
    async def test_a_command_that_took_effect_is_verified_and_seen_by_the_next_scan(self, rig: Rig) -> None:
        seen = Seen()
        async with self.session(rig) as session:
            (outcome,) = await self.outcomes_beside(session, self.command(SETPOINT, 21.5))
            await watch(session, seen, lambda: seen.good(ONE, SETPOINT) == 21.5)
        assert (outcome.state, outcome.read_back, outcome.command) == (OutcomeState.VERIFIED, 21.5, f"{ONE}-{SETPOINT}")

    @needs(Ability.WRITES, Ability.READS_BACK)
    async def test_a_command_that_the_peer_ignores_is_a_mismatch(self, rig: Rig) -> None:
        (outcome,) = await self.outcomes(rig, self.command(STUCK, 5))
        assert outcome.state is OutcomeState.MISMATCH
        assert outcome.read_back != 5

    @needs(Ability.WRITES)
    async def test_commands_that_cannot_be_are_refused_with_a_reason(self, rig: Rig) -> None:
        refused = [
            self.command(LEVEL, 1),  # not writable
            self.command("no-such-tag", 1),
            self.command(LEVEL, 1, device="no-such-device"),
            self.command(SETPOINT, "warm"),
            self.command(SETPOINT, 1e300),
        ]
        outcomes = await self.outcomes(rig, *refused)
        assert [outcome.state for outcome in outcomes] == [OutcomeState.REFUSED] * len(refused)
        assert all(len(outcome.detail) > 10 for outcome in outcomes)

    @needs(Ability.WRITES)
    async def test_a_command_past_its_deadline_is_never_sent(self, rig: Rig) -> None:
        await rig.seen()
        (outcome,) = await self.outcomes(rig, self.command(SETPOINT, 77.0, seconds=-1))
        assert outcome.state is OutcomeState.EXPIRED
        assert "write" not in await rig.seen()

    @needs(Ability.WRITES, Ability.READS_BACK)
    async def test_outcomes_come_one_for_each_command_in_order(self, rig: Rig) -> None:
        commands = [self.command(SETPOINT, 3.0), self.command(STUCK, 5), self.command(LEVEL, 1), self.command(SETPOINT, 4.0, seconds=-1)]
        outcomes = await self.outcomes(rig, *commands)
        states = [OutcomeState.VERIFIED, OutcomeState.MISMATCH, OutcomeState.REFUSED, OutcomeState.EXPIRED]
        assert [outcome.state for outcome in outcomes] == states
        assert [outcome.command for outcome in outcomes] == [command.id for command in commands]

    @needs(Ability.QUEUES, Ability.WRITES, Ability.READS_BACK)
    async def test_a_command_goes_ahead_of_the_reads_that_wait(self, rig: Rig) -> None:
        """At most the one request in flight, and the read that wins the race to the wire, come before it."""
        async with self.session(rig) as session:
            await watch(session, Seen(), lambda: True)
            reading = asyncio.ensure_future(watch(session, Seen(), lambda: False))
            await asyncio.sleep(0)
            await rig.seen()
            (outcome,) = await session.write(self.command(SETPOINT, 5.0))
            order = await rig.seen()
            reading.cancel()
            await asyncio.gather(reading, return_exceptions=True)
        assert outcome.state is OutcomeState.VERIFIED
        assert order.index("write") <= 2

    # ------------------------------------------------------------------------------------------ checking and probing

    async def test_checking_finds_all_problems_at_once_and_advises(self, rig: Rig) -> None:
        problems = rig.driver.check(rig.faulty)
        assert rig.faults <= {problem.path for problem in problems}
        assert [problem for problem in problems if not problem.message or not problem.advice] == []

    async def test_checking_and_devices_touch_no_network(self, rig: Rig) -> None:
        open_before = descriptors()
        rig.driver.check(rig.options)
        rig.driver.devices(rig.options)
        assert descriptors() <= open_before
        assert await rig.seen() == []

    @needs(Ability.CONNECTS)
    async def test_probing_tells_what_is_there_and_what_is_not(self, rig: Rig) -> None:
        async with asyncio.timeout(PATIENCE_S):
            well = await rig.driver.probe(rig.options)
            await rig.lose()
            badly = await rig.driver.probe(rig.options)
        assert well.findings
        assert not badly.ok
        assert rig.where in " ".join(badly.findings)
