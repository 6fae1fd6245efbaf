"""The live stream over a real journal: what is told, in which order, what is left out and how that is said."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final
from uuid import uuid4

import msgspec
import pytest

from gateway import config
from gateway.commands.outcome import batch_of
from gateway.config.model import JournalOptions, Site
from gateway.identity import identity
from gateway.identity.identity import Identity, Shown
from gateway.identity.principal import Principal, Role
from gateway.identity.sight import EVERYTHING, Sight, sight_of
from gateway.journal import Journal, Lane
from gateway.journal.codec import MAX_VALUE
from gateway.latest import Latest
from gateway.live import Client, Live, client, frame, live
from gateway.objections import NotAllowed, TooMany
from gateway.state import State
from holdfast.shapes.live import Message, Position, Resume, Subscribe
from protocols.clock import SystemClock
from protocols.model import Command, Device, Kind, Outcome, OutcomeState, Quality
from tests.builders import batch, device, floats

DEADLINE_S: Final = 20.0
BOILER: Final = floats(4, max_silence_s=0.0)
PUMP: Final = device(Kind.FLOAT64, Kind.UINT16, Kind.STRING, name="pump-1", max_silence_s=0.0)
SITE: Final = {"holdfast": 1, "gateway": {"group": "g", "name": "n"}, "tenants": [{"name": "builder", "devices": ["pump-*"]}]}
Told = dict[str, Any]  # Any: JSON


@dataclass
class Rig:
    journal: Journal
    latest: Latest
    identity: Identity
    live: Live
    site: Site
    someone: list[tuple[Principal, Shown]]

    async def principal(self, role: Role = Role.ENGINEER, tenant: str = "") -> tuple[Principal, Shown]:
        token = await self.identity.issue_token(f"{role}-{tenant}-{uuid4().hex}", role, tenant=tenant, lifetime_s=600, made_by="test")
        shown = Shown(address="192.0.2.1", authorization=f"Bearer {token}")
        principal = await self.identity.principal(shown)
        assert principal is not None
        return principal, shown

    def open(self, principal: Principal, shown: Shown, sight: Sight = EVERYTHING, **wish: Any) -> Client:  # Any: fields of Subscribe
        one = self.live.open(principal, shown, sight)
        one.subscribe(Subscribe(**wish))
        return one

    async def follow(self, **wish: Any) -> Client:  # Any: fields of Subscribe
        return self.open(*self.someone[0], **wish)

    async def store(self, of: Device, *values: float, **more: Any) -> tuple[int, int]:  # Any: of batch
        one = batch(of, values, **more)
        self.latest.update(one)
        return await self.journal.append(one)

    def offer(self, of: Device, *values: float) -> None:
        one = batch(of, values)
        self.latest.update(one)
        self.journal.offer(one)

    async def outcome(self, of: str, identity: str = "c1") -> tuple[int, int]:
        command = Command(id=identity, device=of, tag="t0", value=1, deadline_ns=0)
        said = Outcome(command=identity, state=OutcomeState.VERIFIED, time_ns=1)
        return await self.journal.append(batch_of(command, said, "test"), Lane.EVENTS)


@asynccontextmanager
async def rig(folder: Path) -> AsyncIterator[Rig]:
    clock = SystemClock()
    loaded, problems = config.load(msgspec.json.encode(SITE))
    assert loaded is not None, problems
    journal = await Journal.open(JournalOptions(path=str(folder / "journal"), commit_window_ms=5, min_free_bytes=0), clock=clock)
    state = await State.open(folder / "state", (identity.MIGRATIONS,), clock)
    latest, who = Latest(), Identity(state, clock)
    for each in (BOILER, PUMP):
        latest.add(each)
    one = Rig(journal, latest, who, Live(journal, latest, who, lambda: loaded, clock), loaded, [])
    one.someone.append(await one.principal())
    try:
        yield one
    finally:
        one.live.end_all("the test is over")
        for each_client in list(one.live._clients):
            one.live.close(each_client)
        await who.close()
        await state.close()
        await journal.close()


@pytest.fixture
async def here(tmp_path: Path) -> AsyncIterator[Rig]:
    async with rig(tmp_path) as one:
        yield one


async def told(by: Client, enough: Callable[[list[Told]], bool]) -> list[Told]:
    """Everything that is said until it is enough; each is one of the stated messages."""
    found: list[Told] = []
    async with asyncio.timeout(DEADLINE_S):
        while not enough(found):
            frame = await by.next()
            assert frame is not None, by.why
            msgspec.json.decode(frame.data, type=Message)
            found.append(msgspec.json.decode(frame.data))
    return found


def of(kind: str, many: int = 1) -> Callable[[list[Told]], bool]:
    return lambda found: sum(each["type"] == kind for each in found) >= many


def records(found: Sequence[Told], lane: str = "telemetry") -> list[Told]:
    return [each for one in found if one["type"] == "records" and one["lane"] == lane for each in one["records"]]


def seqs(found: Sequence[Told], lane: str = "telemetry") -> list[int]:
    return [each["seq"] for each in records(found, lane)]


def until(*wanted: int, lane: str = "telemetry") -> Callable[[list[Told]], bool]:
    return lambda found: set(wanted) <= set(seqs(found, lane))


async def ended(by: Client) -> tuple[int, str]:
    async with asyncio.timeout(DEADLINE_S):
        await by.ended.wait()
    assert by.why is not None
    return by.why


async def test_it_begins_with_the_latest_values_and_goes_on_without_a_hole(here: Rig) -> None:
    await here.store(BOILER, 1.0, 2.0)
    one = await here.follow()
    found = await told(one, of("latest"))
    assert [each["type"] for each in found] == ["subscribed", "live", "latest"]
    entry = next(each for each in found[-1]["entries"] if each["device"] == "boiler-1")
    assert dict(zip(entry["tags"], entry["values"], strict=True)) == {"t0": 1.0, "t1": 2.0, "t2": None, "t3": None}
    for at in range(20):
        await here.store(BOILER, float(at))
    assert seqs(await told(one, until(21))) == list(range(2, 22))


async def test_what_is_told_is_made_once_for_all_who_follow_the_same(here: Rig) -> None:
    ones = [await here.follow(devices=("boiler-*",), snapshot=False) for _ in range(3)]
    for one in ones:
        await told(one, of("live"))
    await here.store(BOILER, 1.0)
    frames = [await one.next() for one in ones]
    assert frames[0] is not None
    assert all(each is frames[0] for each in frames)


async def test_who_comes_back_gets_what_was_told_meanwhile_once_and_in_order(here: Rig) -> None:
    one = await here.follow()
    epoch, seq = await here.store(BOILER, 1.0)
    await told(one, until(seq))
    here.live.close(one)
    for at in range(500):
        here.offer(BOILER, float(at))
    await here.store(BOILER, 0.0)
    again = await here.follow(resume=Resume(telemetry=Position(epoch=epoch, seq=seq)))
    before = await told(again, of("live"))
    last = (await here.store(BOILER, -1.0))[1]
    after = await told(again, until(last))
    assert seqs(before) + seqs(after) == list(range(seq + 1, last + 1))
    assert not of("latest")(before + after)


async def test_it_goes_on_after_a_restart_of_the_gateway(tmp_path: Path) -> None:
    async with rig(tmp_path) as first:
        epoch, seq = await first.store(BOILER, 1.0)
        for at in range(300):
            first.offer(BOILER, float(at))
    async with rig(tmp_path) as second:
        one = await second.follow(resume=Resume(telemetry=Position(epoch=epoch, seq=seq)))
        found = await told(one, of("live"))
        last = (await second.store(BOILER, -1.0))[1]
        assert seqs(found + await told(one, until(last))) == list(range(seq + 1, last + 1))


async def test_a_place_that_the_journal_does_not_know_is_told_and_the_latest_values_follow(here: Rig) -> None:
    epoch, _ = await here.store(BOILER, 1.0)
    for unknown in (Position(epoch=epoch + 1, seq=1), Position(epoch=epoch, seq=10**6)):
        found = await told(await here.follow(resume=Resume(telemetry=unknown)), of("latest"))
        (skipped,) = [each for each in found if each["type"] == "skipped"]
        assert skipped["reason"] == "unknown-position"
        assert skipped["last"] == {"epoch": epoch, "seq": 1}


async def test_records_that_are_lost_are_told_with_their_reason(here: Rig) -> None:
    one = await here.follow(snapshot=False)
    await told(one, of("live"))
    here.journal.offer(batch(PUMP, ["x" * (2 * MAX_VALUE)], slots=[2]))
    await here.store(PUMP, 1.0)
    found = await told(one, until(2))
    (lost,) = [each for each in found if each["type"] == "lost"]
    assert (lost["first"], lost["last"], lost["records"], lost["reason"]) == (1, 1, 1, "too-large")


@pytest.mark.parametrize(
    ("wish", "tags"),
    [
        ({}, ["boiler-1/t0", "boiler-1/t1", "pump-1/t0", "pump-1/t1"]),
        ({"devices": ("pump-?",)}, ["pump-1/t0", "pump-1/t1"]),
        ({"tags": ("t1",)}, ["boiler-1/t1", "pump-1/t1"]),
        ({"kinds": ("uint16",)}, ["pump-1/t1"]),
        ({"least_quality": "good"}, ["boiler-1/t0", "boiler-1/t1", "pump-1/t0"]),
        ({"least_quality": "uncertain", "devices": ("pump-1",), "tags": ("t1", "t2")}, ["pump-1/t1"]),
        ({"devices": ("PUMP-1", "pump-[1]")}, []),
    ],
)
async def test_filters_leave_out_what_was_not_asked_for(here: Rig, wish: Told, tags: list[str]) -> None:
    one = await here.follow(snapshot=False, streams=("values", "events"), **wish)
    await told(one, of("live", 2))
    await here.store(BOILER, 1.0, 2.0)
    await here.store(PUMP, 3.0)
    await here.store(PUMP, 4, slots=[1], quality=Quality.UNCERTAIN)
    await here.outcome("boiler-1" if wish.get("devices") is None else "pump-1")
    if wish.get("devices") == ("PUMP-1", "pump-[1]"):
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.3):
                await one.next()
        return
    found = await told(one, lambda found: bool(records(found, "events")) and len(_named(found)) >= len(tags))
    assert sorted(_named(found)) == tags


def _named(found: Sequence[Told]) -> list[str]:
    return [f"{each['device']}/{tag}" for each in records(found) for tag in each["tags"]]


async def test_of_values_that_come_too_often_the_newest_is_told_and_the_others_are_counted(here: Rig) -> None:
    one = await here.follow(every_ms=200, snapshot=False)
    await told(one, of("live"))
    for at in range(50):
        here.offer(BOILER, float(at), -float(at))
    await here.store(BOILER, 50.0)
    found = await told(one, lambda found: bool(found) and 50.0 in found[-1].get("entries", [{"values": []}])[0]["values"])
    latest = [each for each in found if each["type"] == "latest"]
    assert len(latest) <= 2
    assert sum(each["replaced"] for each in latest) + sum(len(each["entries"][0]["tags"]) for each in latest) == 101
    assert dict(zip(latest[-1]["entries"][0]["tags"], latest[-1]["entries"][0]["values"], strict=True))["t0"] == 50.0


async def test_a_conflated_stream_that_comes_back_is_told_how_many_it_missed(here: Rig) -> None:
    epoch, seq = await here.store(BOILER, 1.0)
    for at in range(9):
        await here.store(BOILER, float(at))
    one = await here.follow(every_ms=100, resume=Resume(telemetry=Position(epoch=epoch, seq=seq)))
    found = await told(one, of("latest"))
    (skipped,) = [each for each in found if each["type"] == "skipped"]
    assert (skipped["records"], skipped["reason"]) == (9, "conflated")


async def test_what_a_slow_client_does_not_take_is_bounded_counted_and_made_up_for(here: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(client, "MOST_WAITING", 4000)
    slow, quick = await here.follow(snapshot=False), await here.follow(snapshot=False)
    await told(slow, of("live"))
    await told(quick, of("live"))
    last = 0
    for at in range(200):
        last = (await here.store(BOILER, float(at), *[0.5] * 3))[1]
        if at % 10 == 0:
            await told(quick, until(last))
            assert slow.waiting <= 4000
    await told(quick, until(last))
    found = await told(slow, of("latest"))
    (skipped,) = [each for each in found if each["type"] == "skipped"]
    assert skipped["reason"] == "slow-client"
    assert len(records(found)) + skipped["records"] == last
    assert (skipped["first"]["seq"], skipped["last"]["seq"]) == (seqs(found)[-1] + 1, last)
    assert found[-1]["entries"][0]["values"][0] == 199.0
    now = (await here.store(BOILER, 1.0))[1]
    assert seqs(await told(slow, until(now))) == [now]


async def test_events_are_never_left_out(here: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(client, "MOST_WAITING", 2000)
    monkeypatch.setattr(frame, "LARGEST", 500)
    one = await here.follow(streams=("events",))
    await told(one, of("live"))
    last = (await asyncio.gather(*(here.outcome("boiler-1", f"c{at}") for at in range(50))))[-1][1]
    await asyncio.sleep(0.1)
    assert seqs(await told(one, until(last, lane="events")), "events") == list(range(1, 51))


async def test_who_takes_nothing_is_cut_and_the_others_go_on(here: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(live, "STALL_S", 0.3)
    stalled, other = await here.follow(snapshot=False), await here.follow(snapshot=False)
    await told(stalled, of("live"))
    await here.store(BOILER, 1.0)
    await stalled.next()  # and never comes back: its frame is on its way for ever
    assert (await ended(stalled))[0] == live.TRY_LATER
    last = (await here.store(BOILER, 2.0))[1]
    assert until(last)(await told(other, until(last)))


async def test_a_follower_that_falls_behind_goes_on_at_the_newest_and_says_so(here: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(live, "LAG_S", -1.0)
    one = await here.follow(snapshot=False)
    await told(one, of("live"))
    await here.store(BOILER, 7.0)
    found = await told(one, of("latest"))
    assert (found[0]["type"], found[0].get("reason"), found[0].get("records")) == ("skipped", "busy-gateway", 1)
    assert 7.0 in found[-1]["entries"][0]["values"]


async def test_a_tenant_follows_its_devices_alone(here: Rig) -> None:
    principal, shown = await here.principal(Role.ADMINISTRATOR, "builder")
    one = here.open(principal, shown, sight_of(principal, here.site.tenants), streams=("values", "events"))
    await told(one, of("latest"))
    await here.store(BOILER, 1.0)
    await here.outcome("boiler-1")
    pump, outcome = (await here.store(PUMP, 2.0))[1], (await here.outcome("pump-1"))[1]
    found = await told(one, lambda found: until(pump)(found) and until(outcome, lane="events")(found))
    assert seqs(found) == [pump]
    assert seqs(found, "events") == [outcome]
    assert "boiler" not in repr(found)
    for stream in ("ledger", "log"):
        with pytest.raises(NotAllowed):
            one.subscribe(Subscribe(streams=(stream,)))


async def test_a_viewer_follows_no_log(here: Rig) -> None:
    one = here.live.open(*await here.principal(Role.VIEWER), EVERYTHING)
    with pytest.raises(NotAllowed):
        one.subscribe(Subscribe(streams=("log",)))


async def test_credentials_that_have_ended_end_their_streams(here: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(live, "RECHECK_S", 0.05)
    principal, shown = await here.principal(Role.VIEWER)
    gone, stays = here.open(principal, shown), await here.follow()
    await here.identity.tokens.remove([principal.name])
    assert (await ended(gone))[0] == live.CREDENTIALS_ENDED
    assert stays.why is None


async def test_the_ledger_is_told_when_it_changes(here: Rig) -> None:
    one = await here.follow(streams=("ledger",))
    await told(one, of("ledger"))
    await here.store(BOILER, 1.0)
    found = await told(one, lambda found: bool(found) and found[-1]["ledger"]["lanes"]["telemetry"]["appended"] == 1)
    assert found


async def test_streams_are_limited_for_one_and_for_all(here: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(live, "MOST_OF_ONE", 2)
    monkeypatch.setattr(live, "MOST_CLIENTS", 3)
    ones = [await here.follow() for _ in range(2)]
    with pytest.raises(TooMany, match="2 live streams"):
        await here.follow()
    here.open(*await here.principal(Role.VIEWER))
    with pytest.raises(TooMany, match="3 live streams"):
        here.open(*await here.principal(Role.OPERATOR))
    here.live.close(ones[0])
    await here.follow()


async def test_an_idle_stream_says_where_it_is(here: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(live, "HEARTBEAT_S", 0.1)
    one = await here.follow(devices=("pump-1",), snapshot=False)
    await here.store(BOILER, 1.0)
    epoch, seq = await here.store(BOILER, 2.0)
    found = await told(one, lambda found: bool(found) and found[-1].get("at") == {"telemetry": {"epoch": epoch, "seq": seq}})
    assert found[-1]["type"] == "heartbeat"


async def test_nothing_runs_while_nobody_follows(here: Rig) -> None:
    one = await here.follow(every_ms=100)
    here.live.close(one)
    await asyncio.sleep(0)
    assert not [task for task in asyncio.all_tasks() if task.get_name().startswith("live ") and not task.cancelling()]
