"""Every command goes through one gate: refused there, or carried out once, and recorded either way."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from typing import Any

import pytest

from gateway import links
from gateway.commands import Gate
from gateway.commands.gate import MOST_AT_ONCE, REMEMBERED
from gateway.commands.outcome import DEVICE, LONGEST
from gateway.commands.rules import LONGEST_ID
from gateway.connections import Connection
from protocols.clock import ManualClock
from protocols.contract import Unreachable
from protocols.modbus.driver import TCP
from protocols.model import Batch, Command, Device, Kind, Outcome, OutcomeState, ScanStats, Tag

BOILER = Device("line", "boiler", (Tag(name="setpoint", kind=Kind.FLOAT64, writable=True), Tag(name="pressure", kind=Kind.FLOAT64)))


class Field:
    """An open session that does as it is told and remembers it."""

    def __init__(self) -> None:
        self.told: list[Command] = []
        self.trouble: Exception | None = None
        self.may_go = asyncio.Event()
        self.may_go.set()
        self.stats = ScanStats()
        self.findings: list[str] = []

    async def batches(self) -> AsyncIterator[Batch]:
        nothing: list[Batch] = []
        for batch in nothing:
            yield batch

    async def write(self, commands: Sequence[Command]) -> Sequence[Outcome]:
        self.told += commands
        await self.may_go.wait()
        if self.trouble is not None:
            raise self.trouble
        return [Outcome(command=each.id, state=OutcomeState.VERIFIED, time_ns=5, read_back=each.value) for each in commands]


class Site:
    """A connection with one device, a gate before it, and what the gate recorded."""

    def __init__(self) -> None:
        self.clock = ManualClock()
        self.field = Field()
        self.line = Connection(TCP, None, (BOILER,), links.Status("connection", "line"), session=self.field)
        self.records: list[dict[str, Any]] = []
        self.gate = Gate(lambda name: (self.line, BOILER) if name == "boiler" else None, self._record, self.clock)

    def _record(self, batch: Batch) -> None:
        assert batch.device is DEVICE
        self.records.append({batch.device.tags[slot].name: value for slot, value in zip(batch.tag, batch.value, strict=True)})

    async def ask(self, tag: str = "setpoint", *, identity: str = "1", device: str = "boiler", seconds: float = 10.0) -> Outcome:
        deadline = self.clock.time_ns() + int(seconds * 1e9)
        return await self.gate.carry_out(Command(id=identity, device=device, tag=tag, value=21.5, deadline_ns=deadline), source="test")


@pytest.fixture
def site() -> Site:
    return Site()


async def test_a_command_is_carried_out_and_recorded(site: Site) -> None:
    outcome = await site.ask()
    assert (outcome.state, outcome.read_back) == (OutcomeState.VERIFIED, 21.5)
    assert site.records == [
        {
            "id": "1",
            "source": "local, test",
            "device": "boiler",
            "tag": "setpoint",
            "value": "21.5",
            "state": "verified",
            "detail": "",
            "read_back": "21.5",
        }
    ]


@pytest.mark.parametrize(
    ("asked", "state", "why"),
    [
        ({"device": "no-such"}, OutcomeState.REFUSED, "no device"),
        ({"tag": "no-such"}, OutcomeState.REFUSED, "no tag"),
        ({"tag": "pressure"}, OutcomeState.REFUSED, "not writable"),
        ({"identity": ""}, OutcomeState.REFUSED, "id"),
        ({"identity": "x" * (LONGEST_ID + 1)}, OutcomeState.REFUSED, "id"),
        ({"seconds": 0.0}, OutcomeState.EXPIRED, "deadline"),
    ],
)
async def test_what_may_not_be_is_refused_recorded_and_never_sent(site: Site, asked: dict[str, Any], state: OutcomeState, why: str) -> None:
    outcome = await site.ask(**asked)
    assert outcome.state is state
    assert why in outcome.detail
    assert site.field.told == []
    assert [record["state"] for record in site.records] == [state.value]
    assert all(len(value) <= LONGEST for record in site.records for value in record.values())


async def test_the_same_id_is_carried_out_once_also_while_it_is_on_its_way(site: Site) -> None:
    site.field.may_go.clear()
    first, second = asyncio.ensure_future(site.ask()), asyncio.ensure_future(site.ask())
    await asyncio.sleep(0)
    site.field.may_go.set()
    assert await first == await second == await site.ask()
    assert len(site.field.told) == len(site.records) == 1


async def test_what_is_remembered_is_bounded(site: Site) -> None:
    for number in range(REMEMBERED + 10):
        await site.ask(identity=str(number))
    await site.ask(identity=str(REMEMBERED))
    assert len(site.field.told) == REMEMBERED + 10
    await site.ask(identity="0")
    assert len(site.field.told) == REMEMBERED + 11


async def test_a_connection_that_is_down_or_lost_fails_the_command(site: Site) -> None:
    site.field.trouble = Unreachable("192.0.2.1: gone: it will be tried again")
    lost = await site.ask(identity="lost")
    site.line.session = None
    down = await site.ask(identity="down")
    assert [lost.state, down.state] == [OutcomeState.FAILED] * 2
    assert "gone" in lost.detail
    assert "nothing was sent" in down.detail


async def test_a_driver_that_breaks_fails_its_command_alone(site: Site) -> None:
    site.field.trouble = ZeroDivisionError("a bug")
    assert (await site.ask()).state is OutcomeState.FAILED
    site.field.trouble = None
    assert (await site.ask(identity="2")).state is OutcomeState.VERIFIED


async def test_no_more_than_a_line_can_bear_are_on_their_way(site: Site) -> None:
    site.field.may_go.clear()
    waiting = [asyncio.ensure_future(site.ask(identity=str(number))) for number in range(MOST_AT_ONCE)]
    await asyncio.sleep(0)
    assert (await site.ask(identity="one too many")).state is OutcomeState.REFUSED
    site.field.may_go.set()
    assert {outcome.state for outcome in await asyncio.gather(*waiting)} == {OutcomeState.VERIFIED}
    assert (await site.ask(identity="later")).state is OutcomeState.VERIFIED


async def test_a_stopped_gateway_says_that_nobody_knows(site: Site) -> None:
    site.field.may_go.clear()
    asked = asyncio.ensure_future(site.ask())
    await asyncio.sleep(0)
    await site.gate.close()
    assert (await asked).state is OutcomeState.FAILED
    assert [record["state"] for record in site.records] == ["failed"]
