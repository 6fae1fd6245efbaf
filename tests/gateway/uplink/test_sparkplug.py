"""The Sparkplug uplink against a real mosquitto, a real journal and a host application that decodes everything."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from gateway import links
from gateway.config.model import Broker, SparkplugUplink
from gateway.journal import Lane
from gateway.uplink.confirm import MOST_OPEN
from gateway.uplink.mark import Ack, Mark, Tally, acknowledge, encode
from gateway.uplink.sparkplug import NODE_EVERY_S, QUIET_S, REBIRTH_EVERY_S, TIDY_EVERY_S
from protocols.clock import ManualClock
from protocols.contract import Misfit, Refused
from protocols.model import Device, Kind, Quality, Tag
from protocols.sparkplug.session import BDSEQ
from protocols.sparkplug.topics import Verb
from tests.gateway.uplink.host import LEDGER, Host, Seen, host, seqs
from tests.gateway.uplink.plant import BOILER, DEADLINE_S, PUMP, Plant, batch, kept, plant, sparkplug, until
from tests.peers.mosquitto import Mosquitto
from tests.peers.proxy import Proxy


@pytest.fixture
def broker(tmp_path: Path) -> Iterator[Mosquitto]:
    with Mosquitto(tmp_path / "broker") as running:
        yield running


@pytest.fixture
async def made(tmp_path: Path) -> AsyncIterator[Plant]:
    async with plant(tmp_path / "journal") as one:
        yield one


def options(broker: Mosquitto, **more: Any) -> SparkplugUplink:  # Any: whichever options a test sets
    return SparkplugUplink(name="cloud", host="127.0.0.1", port=broker.port, **more)


def still() -> ManualClock:
    """A clock that stands at the present time."""
    return ManualClock(time_ns=time.time_ns())


async def passing(clock: ManualClock, seconds: float, ready: Callable[[], object]) -> None:
    """Time passes in steps of ``seconds`` until ``ready()``."""
    async with asyncio.timeout(DEADLINE_S):
        while not ready():
            await clock.advance(seconds)
            await asyncio.sleep(0.005)


def pressures(seen: Host) -> list[float]:
    """The boiler's pressures of all data messages, in the order they came."""
    return [value for one in seen.all("DDATA", "boiler") for name, value in seen.values(one) if isinstance(value, float)]


def historical(seen: Seen) -> list[bool]:
    assert seen.payload is not None
    return [one.is_historical for one in seen.payload.metrics]


def _said(seen: Host, verb: str, count: int) -> Callable[[], bool]:
    return lambda: len(seen.all(verb)) >= count


# ---- delivery


@pytest.mark.parametrize("protocol", ["5", "3.1.1"])
async def test_a_live_record_is_data_then_a_mark_then_forgotten(broker: Mosquitto, made: Plant, protocol: str) -> None:
    """The DDATA names the record in its stamp, the mark's figures are those of what was sent, the PUBACK moves the cursor."""
    made.has(BOILER)
    async with host(broker.port) as seen, kept(sparkplug(made, options(broker, protocol=protocol))):
        await seen.expect("DBIRTH", "boiler")
        made.bring(BOILER, {"steam/pressure": 2.5})
        data = await seen.expect("DDATA", "boiler")
        mark = (await seen.expect("mark")).mark
        await made.delivered()
    assert [one.verb for one in seen.seen[:4]] == ["NBIRTH", "DBIRTH", "DDATA", "mark"]
    assert (seen.values(data), historical(data)) == ([("steam/pressure", 2.5)], [False])
    tally = Tally()
    tally.add(data.message.payload, 1)
    assert mark is not None
    assert (mark.first, mark.last, mark.records, mark.values, mark.messages) == (*data.stamp.seqs * 2, 1, 1, 1)
    assert (mark.digest, mark.window, mark.historical, mark.epoch) == (tally.digest, data.stamp.window, False, data.stamp.epoch)


async def test_what_waited_is_history_and_comes_in_order(broker: Mosquitto, made: Plant) -> None:
    made.has(BOILER)
    for number in range(1200):
        made.bring(BOILER, {"steam/pressure": float(number)})
    await made.stored()
    async with host(broker.port) as seen, kept(sparkplug(made, options(broker))):
        await made.delivered()
        await seen.until(lambda: len(pressures(seen)) >= 1200)
    assert pressures(seen) == [float(number) for number in range(1200)]
    assert all(flag for one in seen.all("DDATA") for flag in historical(one))
    assert sum(one.mark.records for one in seen.all("mark") if one.mark is not None) == 1200
    assert len(seen.all("DDATA")) < 20, "records of one device travel together"


async def test_every_kind_of_column_and_two_devices_in_one_portion(broker: Mosquitto, made: Plant) -> None:
    made.has(BOILER, PUMP)
    made.bring(BOILER, {"steam/pressure": 1.5})
    made.bring(BOILER, {"burner/on": True})
    made.bring(PUMP, {"speed": 1500.0})
    made.bring(BOILER, {"total": 2**32 - 1})
    await made.stored()
    async with host(broker.port) as seen, kept(sparkplug(made, options(broker))):
        await made.delivered()
        boiler, pump, mark = await seen.expect("DDATA", "boiler"), await seen.expect("DDATA", "pump"), (await seen.expect("mark")).mark
    assert seen.values(boiler) == [("steam/pressure", 1.5), ("burner/on", True), ("total", 2**32 - 1)]
    assert seen.values(pump) == [("speed", 1500.0)]
    assert (boiler.stamp.seqs, pump.stamp.seqs) == ((1, 2, 4), (3,))
    assert mark is not None
    assert (mark.first, mark.last, mark.records, mark.values, mark.messages) == (1, 4, 4, 4, 2)


async def test_events_go_ahead_of_telemetry(broker: Mosquitto, made: Plant) -> None:
    made.has(BOILER)
    made.bring(BOILER, {"steam/pressure": 1.5})
    made.bring(BOILER, {"steam/pressure": 9.5}, Lane.EVENTS)
    await made.stored()
    async with host(broker.port) as seen, kept(sparkplug(made, options(broker))):
        await made.delivered()
        await seen.until(lambda: len(seen.all("mark")) == 2)
    assert pressures(seen) == [9.5, 1.5]
    assert [one.stamp.lane for one in seen.all("DDATA")] == [Lane.EVENTS, Lane.TELEMETRY]


async def test_a_record_too_large_for_one_message_comes_in_parts(broker: Mosquitto, made: Plant) -> None:
    wide = Device("line", "wide", tuple(Tag(name=f"t{at}", kind=Kind.BOOL) for at in range(10_000)))
    told = {tag.name: at % 3 == 0 for at, tag in enumerate(wide.tags)}
    made.has(wide)
    async with host(broker.port) as seen, kept(sparkplug(made, options(broker))):
        await seen.expect("DBIRTH", "wide")
        made.bring(wide, told)
        await made.delivered()
        mark = (await seen.expect("mark")).mark
    data = seen.all("DDATA")
    assert [value for one in data for _, value in seen.values(one)] == list(told.values())
    assert [(one.stamp.part, one.stamp.parts, one.stamp.seqs) for one in data] == [(at, len(data), (1,)) for at in range(len(data))]
    assert len(data) > 1
    assert all(len(one.message.payload) <= 64 * 1024 for one in data)
    assert mark is not None
    assert (mark.records, mark.values, mark.messages) == (1, 10_000, len(data))


async def test_a_broker_that_is_killed_costs_nothing(broker: Mosquitto, made: Plant) -> None:
    """A consumer that confirms what is whole gets everything: repetitions have the same (epoch, seq), order holds."""
    made.has(BOILER)
    got: dict[tuple[int, int], set[float]] = {}
    values = iter(range(1000))

    def scan(count: int) -> None:
        for _ in range(count):
            made.bring(BOILER, {"steam/pressure": float(next(values))})

    def note(seen: Host) -> None:
        for one in seen.all("DDATA", "boiler"):
            for seq, (_, value) in zip(one.stamp.seqs, seen.values(one), strict=True):
                assert isinstance(value, float)
                got.setdefault((one.stamp.epoch, seq), set()).add(value)

    settings = options(broker, acknowledge="consumer", acknowledge_timeout_s=0.5)
    async with kept(sparkplug(made, settings)):
        for _ in range(3):
            async with host(broker.port) as seen:
                seen.confirm_what_is_whole()
                await seen.ask_for_rebirth()
                await seen.expect("DBIRTH")
                scan(50)
                await seen.expect("DDATA")
                scan(50)
                broker.kill()
                note(seen)
            scan(50)
            broker.start()
        async with host(broker.port) as seen:
            seen.confirm_what_is_whole()
            await seen.expect("DBIRTH")
            await made.delivered()
            note(seen)
    assert [got[place] for place in sorted(got)] == [{float(number)} for number in range(450)]


@pytest.mark.parametrize("seed", [1, 2, 3])
async def test_a_link_that_breaks_again_and_again_costs_nothing(broker: Mosquitto, made: Plant, seed: int) -> None:
    """Cut and reset at random moments: all values come, repetitions have the same (epoch, seq), order holds."""
    chance, clock, count = random.Random(seed), still(), 0
    made.has(BOILER)
    async with Proxy("127.0.0.1", broker.port) as proxy, host(broker.port) as seen:
        settings = SparkplugUplink(name="cloud", host="127.0.0.1", port=proxy.port, backfill_share=1.0)
        async with kept(sparkplug(made, settings, clock=clock)):
            for breaks in range(10):
                await passing(clock, 1.0, _said(seen, "NBIRTH", breaks + 1))
                for _ in range(chance.randrange(1, 200)):
                    made.bring(BOILER, {"steam/pressure": float(count)})
                    count += 1
                    if chance.random() < 0.05:
                        await asyncio.sleep(chance.random() * 0.01)
                await chance.choice([proxy.cut, proxy.reset])()
            await made.stored()
            await passing(clock, 1.0, lambda: not made.pending())
        await seen.until(lambda: seen.all("mark")[-1].mark is not None and len(set(pressures(seen))) == count)
    told: dict[int, float] = {}
    live, history = 0, 0
    for one in seen.all("DDATA", "boiler"):
        for seq, (_, value) in zip(one.stamp.seqs, seen.values(one), strict=True):
            assert isinstance(value, float)
            if seq in told:
                assert told[seq] == value
                continue
            told[seq] = value
            if seq > live:  # the flag does not tell: live values that a birth has overtaken have it too
                live = seq
            else:
                assert seq > history, f"{seq} comes after {history} in history, and live values are at {live}"
                history = seq
    assert [told[seq] for seq in sorted(told)] == [float(number) for number in range(count)]


async def test_what_no_mark_confirmed_is_sent_again_as_history(broker: Mosquitto, made: Plant) -> None:
    """The broker is frozen, so that bytes leave and no PUBACK comes back; after it is killed all of it comes again."""
    made.has(BOILER)
    async with kept(sparkplug(made, options(broker, keepalive_s=5, timeout_s=1.0))):
        async with host(broker.port) as seen:
            await seen.ask_for_rebirth()
            await seen.expect("DBIRTH")
            made.bring(BOILER, {"steam/pressure": 0.0})
            await made.delivered()
        broker.freeze()
        for number in range(1, 20):
            made.bring(BOILER, {"steam/pressure": float(number)})
        await made.stored()
        broker.kill()
        broker.start()
        async with host(broker.port) as seen:
            await seen.until(lambda: len(pressures(seen)) >= 19)
            await made.delivered()
    assert pressures(seen) == [float(number) for number in range(1, 20)]
    assert all(flag for one in seen.all("DDATA") for flag in historical(one))


async def test_a_mark_that_the_broker_rejects_ends_the_session_and_confirms_nothing(tmp_path: Path, made: Plant) -> None:
    with Mosquitto(tmp_path / "strict", acl="topic readwrite spBv1.0/#\ntopic deny holdfast/#") as strict:
        made.has(BOILER)
        made.bring(BOILER, {"steam/pressure": 1.0})
        await made.stored()
        uplink = sparkplug(made, options(strict))
        with pytest.raises(Refused, match="access list"):
            async with asyncio.timeout(DEADLINE_S):
                await uplink.session(lambda: None)
    assert made.pending() == 1


async def test_a_device_whose_name_fits_no_topic_is_told_and_nothing_is_lost(broker: Mosquitto, made: Plant) -> None:
    odd = Device("line", "a/b", (Tag(name="x", kind=Kind.FLOAT64),))
    made.has(odd)
    made.bring(odd, {"x": 1.0})
    uplink = sparkplug(made, options(broker))
    with pytest.raises(Misfit, match="a/b"):
        async with asyncio.timeout(DEADLINE_S):
            await uplink.session(lambda: None)
    await made.stored()
    assert made.pending() == 1


async def test_live_values_of_a_message_stand_in_the_order_of_their_times(broker: Mosquitto, made: Plant) -> None:
    """Within a batch they are sorted; a batch that is older than the one before it begins a message of its own."""
    made.has(BOILER)
    async with host(broker.port) as seen, kept(sparkplug(made, options(broker))):
        await seen.expect("DBIRTH")
        now = time.time_ns()
        for ahead in (20, 10, 30):
            made.journal.offer(batch(BOILER, {"steam/pressure": float(ahead)}, time_ns=now + ahead * 1_000_000))
        await made.delivered()
        await seen.until(lambda: len(pressures(seen)) == 3)
    for one in seen.all("DDATA"):
        assert one.payload is not None
        times = [metric.timestamp_ms or 0 for metric in one.payload.metrics]
        assert times == sorted(times)
    assert pressures(seen) == [20.0, 10.0, 30.0]


# ---- a consumer confirms


async def test_a_puback_is_not_enough_where_a_consumer_confirms(broker: Mosquitto, made: Plant) -> None:
    made.has(BOILER)
    async with host(broker.port) as seen, kept(sparkplug(made, options(broker, acknowledge="consumer"))):
        await seen.expect("DBIRTH")
        made.bring(BOILER, {"steam/pressure": 1.0})
        await seen.expect("mark")
        await seen.ask_for_rebirth()  # a message and its answer after the mark: its PUBACK has come as well
        await seen.expect("NBIRTH", count=2)
        assert made.pending() == 1
        seen.confirm_what_is_whole()
        made.bring(BOILER, {"steam/pressure": 2.0})
        await until(lambda: made.pending() == 1)
        await seen.expect("mark", count=2)


async def test_what_a_consumer_does_not_confirm_in_time_is_sent_again(broker: Mosquitto, made: Plant) -> None:
    made.has(BOILER)
    clock = still()
    uplink = sparkplug(made, options(broker, acknowledge="consumer", acknowledge_timeout_s=30.0, backfill_share=1.0), clock=clock)
    async with host(broker.port) as seen, kept(uplink):
        await seen.expect("DBIRTH")
        made.bring(BOILER, {"steam/pressure": 1.0})
        first = await seen.expect("mark")
        seen.confirm_what_is_whole()
        await passing(clock, 10.0, lambda: uplink.status.counters.errors["not-confirmed"])
        await seen.expect("mark", count=2)
        await made.delivered()
    again = seen.all("DDATA")[1]
    assert (seen.values(again), historical(again)) == ([("steam/pressure", 1.0)], [True])
    second = seen.all("mark")[1].mark
    assert first.mark is not None
    assert second is not None
    assert (second.first, second.last, second.historical) == (first.mark.first, first.mark.last, True)
    assert second.window != first.mark.window
    assert uplink.status.counters.errors["not-confirmed"] == 1


async def test_live_values_flow_while_the_consumer_is_away_and_it_gets_all_when_it_is_back(broker: Mosquitto, made: Plant) -> None:
    """Nothing is sent to nobody again and again: at most a piece at a time, until the consumer speaks."""
    made.has(BOILER)
    count = MOST_OPEN + 20
    uplink = sparkplug(made, options(broker, acknowledge="consumer", acknowledge_timeout_s=0.1, backfill_share=1.0))
    async with host(broker.port) as seen, kept(uplink):
        await seen.expect("DBIRTH")
        for number in range(count):
            made.bring(BOILER, {"steam/pressure": float(number)})
            await seen.expect("mark", count=number + 1)
        live = [value for one in seen.all("DDATA") if not any(historical(one)) for _, value in seen.values(one)]
        assert live == [float(number) for number in range(count)]
        await seen.until(lambda: sum(one.mark.historical for one in seen.all("mark") if one.mark is not None) >= 2)
        assert made.pending() == count
        seen.confirm_what_is_whole()
        await made.delivered()
    assert uplink.status.counters.given == count


async def test_a_word_that_comes_late_is_believed(broker: Mosquitto, made: Plant) -> None:
    """A consumer that is always slower than the timeout is served none the less."""
    made.has(BOILER)
    clock = still()
    uplink = sparkplug(made, options(broker, acknowledge="consumer", acknowledge_timeout_s=30.0, backfill_share=1.0), clock=clock)
    async with host(broker.port) as seen, kept(uplink):
        await seen.expect("DBIRTH")
        made.bring(BOILER, {"steam/pressure": 1.0})
        mark = (await seen.expect("mark")).mark
        await passing(clock, 10.0, lambda: uplink.status.counters.errors["not-confirmed"])
        assert mark is not None
        await (await seen.mqtt.publish1(f"{LEDGER}/ack", encode(acknowledge(mark))))
        await made.delivered()
    assert uplink.status.counters.errors["ack-unknown"] == 0


@pytest.mark.parametrize("lie", [{"digest": "0" * 16}, {"last": 999}, {"window": 1}])
async def test_a_word_that_does_not_fit_is_not_believed(broker: Mosquitto, made: Plant, lie: dict[str, Any]) -> None:
    """Any: fields of an Ack."""

    def wrong(mark: Mark) -> Ack:
        right = acknowledge(mark)
        fields = {name: getattr(right, name) for name in right.__struct_fields__}
        return Ack(**{**fields, **lie})

    made.has(BOILER)
    uplink = sparkplug(made, options(broker, acknowledge="consumer"))
    async with host(broker.port) as seen, kept(uplink):
        seen.acknowledges = wrong
        await seen.expect("DBIRTH")
        made.bring(BOILER, {"steam/pressure": 1.0})
        await until(lambda: uplink.status.counters.errors["ack-unknown"])
    assert made.pending() == 1


# ---- births and deaths


async def test_births_carry_the_latest_values(broker: Mosquitto, made: Plant) -> None:
    made.has(BOILER)
    made.latest.update(batch(BOILER, {"steam/pressure": 7.5}, time_ns=time.time_ns()))
    async with host(broker.port) as seen, kept(sparkplug(made, options(broker))):
        birth = await seen.expect("DBIRTH", "boiler")
    assert (birth.metric("steam/pressure").value, birth.metric("steam/pressure").properties["engUnit"]) == (7.5, "bar")
    assert birth.metric("burner/on").is_null
    assert birth.metric("burner/on").properties["StatusCode"] == Quality.BAD_WAITING_FOR_INITIAL_DATA


async def test_what_a_birth_has_told_is_not_followed_by_older_live_values(broker: Mosquitto, made: Plant) -> None:
    """Unless the clock went back: then what comes is live again, whatever its time."""
    made.has(BOILER, PUMP)
    async with host(broker.port) as seen, kept(sparkplug(made, options(broker))):
        await seen.expect("DBIRTH", "pump")
        now = time.time_ns()
        made.latest.update(batch(BOILER, {"steam/pressure": 2.0}, time_ns=now))
        made.latest.update(batch(PUMP, {"speed": 2.0}, time_ns=now + 10**12))
        await seen.ask_for_rebirth()
        await seen.expect("DBIRTH", "pump", count=2)
        made.journal.offer(batch(BOILER, {"steam/pressure": 1.0}, time_ns=now - 1))
        made.journal.offer(batch(PUMP, {"speed": 1.0}, time_ns=now - 1))
        boiler, pump = await seen.expect("DDATA", "boiler"), await seen.expect("DDATA", "pump")
    assert (historical(boiler), historical(pump)) == ([True], [False])


async def test_a_lost_device_dies_after_its_data_and_is_born_before_its_next(broker: Mosquitto, made: Plant) -> None:
    made.has(BOILER, PUMP)
    async with host(broker.port) as seen, kept(sparkplug(made, options(broker))):
        await seen.expect("DBIRTH", "pump")
        made.lose(PUMP)
        await seen.expect("DDEATH", "pump")
        made.bring(PUMP, {"speed": 2.0})
        await seen.expect("DDATA", "pump", count=2)
        await made.delivered()
    pump = [one for one in seen.seen if one.device == "pump"]
    assert [one.verb for one in pump] == ["DBIRTH", "DDATA", "DDEATH", "DBIRTH", "DDATA"]
    assert pump[1].payload is not None
    assert pump[1].payload.metrics[0].is_null
    assert pump[3].metric("speed").value == 2.0
    numbers = list(seqs(seen.seen))
    assert numbers == list(range(len(numbers)))


async def test_a_lost_device_is_not_born_at_the_start(broker: Mosquitto, made: Plant) -> None:
    made.has(PUMP, BOILER)
    made.lose(PUMP)
    await made.stored()
    async with host(broker.port) as seen, kept(sparkplug(made, options(broker))):
        await seen.expect("DBIRTH", "boiler")
        await made.delivered()
    assert seen.all("DBIRTH")[0].device == "boiler"


async def test_records_of_an_earlier_configuration_are_born_before_they_are_sent(broker: Mosquitto, made: Plant) -> None:
    """A tag of another kind becomes ``name@kind``, a tag that is gone keeps its name, and today's values are not disturbed."""
    before = Device("line", "boiler", (Tag(name="steam/pressure", kind=Kind.INT16), Tag(name="gone", kind=Kind.INT16)))
    made.bring(before, {"steam/pressure": -12, "gone": 5})
    await made.stored()
    made.has(BOILER)
    async with host(broker.port) as seen, kept(sparkplug(made, options(broker))):
        await made.delivered()
        data = await seen.expect("DDATA", "boiler")
        made.bring(BOILER, {"steam/pressure": 1.5})
        live = await seen.expect("DDATA", "boiler", count=2)
    assert seen.values(data) == [("steam/pressure@int16", -12), ("gone", 5)]
    assert seen.values(live) == [("steam/pressure", 1.5)]
    assert [one.verb for one in seen.seen if one.device == "boiler"] == ["DBIRTH", "DBIRTH", "DDATA", "DDATA"]
    numbers = list(seqs(seen.seen))
    assert numbers == list(range(len(numbers)))


async def test_a_device_that_is_gone_lives_for_its_records_and_then_dies(broker: Mosquitto, made: Plant) -> None:
    made.bring(PUMP, {"speed": 3.0})
    await made.stored()
    made.has(BOILER)
    clock = still()
    async with host(broker.port) as seen, kept(sparkplug(made, options(broker), clock=clock)):
        await seen.expect("DDATA", "pump")
        await passing(clock, TIDY_EVERY_S, lambda: seen.all("DDEATH", "pump"))
        assert clock.monotonic() - 1000.0 >= QUIET_S
        made.bring(BOILER, {"steam/pressure": 1.0})
        await seen.expect("DDATA", "boiler")
    assert [one.verb for one in seen.seen if one.device == "pump"] == ["DBIRTH", "DDATA", "DDEATH"]
    assert not seen.all("DDEATH", "boiler")


async def test_a_changed_configuration_is_born_anew_with_what_it_has(broker: Mosquitto, made: Plant) -> None:
    """While the session goes on: the next record of the new configuration brings a birth without the tags that are gone."""
    made.has(BOILER)
    async with host(broker.port) as seen, kept(sparkplug(made, options(broker))):
        await seen.expect("DBIRTH", "boiler")
        fewer = Device("line", "boiler", (Tag(name="steam/pressure", kind=Kind.FLOAT32), Tag(name="new", kind=Kind.FLOAT64)))
        made.latest.remove(BOILER)
        made.has(fewer)
        made.bring(fewer, {"new": 4.0})
        birth = await seen.expect("DBIRTH", "boiler", count=2)
        data = await seen.expect("DDATA", "boiler")
    assert birth.payload is not None
    assert {one.name for one in birth.payload.metrics} == {"steam/pressure", "new"}
    assert seen.values(data) == [("new", 4.0)]


async def test_an_equal_configuration_after_a_restart_needs_no_second_birth(broker: Mosquitto, tmp_path: Path) -> None:
    async with plant(tmp_path / "again") as before:
        before.has(BOILER)
        before.bring(BOILER, {"steam/pressure": 1.0})
        before.journal.reader("cloud")
        await before.stored()
    async with plant(tmp_path / "again") as after:
        after.has(Device(BOILER.connection, BOILER.name, BOILER.tags))
        async with host(broker.port) as seen, kept(sparkplug(after, options(broker))):
            await after.delivered()
            await seen.expect("DDATA", "boiler")
    assert [one.verb for one in seen.seen if one.device == "boiler"] == ["DBIRTH", "DDATA"]


async def test_an_intended_stop_says_ndeath_first(broker: Mosquitto, made: Plant) -> None:
    async with host(broker.port) as seen:
        async with kept(sparkplug(made, options(broker))):
            birth = await seen.expect("NBIRTH")
        death = await seen.expect("NDEATH")
    assert death.metric(BDSEQ).value == birth.metric(BDSEQ).value
    assert death.payload is not None
    assert death.payload.seq is None


async def test_bdseq_goes_up_by_one_for_each_connect_and_over_restarts(broker: Mosquitto, made: Plant, tmp_path: Path) -> None:
    file = tmp_path / "cloud.bdseq"
    file.write_text("254\n")
    async with host(broker.port) as seen:
        for count in range(1, 4):
            async with kept(sparkplug(made, options(broker), bdseq_file=file)):
                await seen.expect("NBIRTH", count=count)
        births = [one.metric(BDSEQ).value for one in seen.all("NBIRTH")]
        await seen.until(lambda: {one.metric(BDSEQ).value for one in seen.all("NDEATH")} == {255, 0, 1})
    assert births == [255, 0, 1]


async def test_the_node_tells_of_itself(broker: Mosquitto, made: Plant) -> None:
    made.has(BOILER)
    clock = still()
    async with host(broker.port) as seen, kept(sparkplug(made, options(broker), clock=clock)):
        birth = await seen.expect("NBIRTH")
        await seen.expect("DBIRTH")
        made.bring(BOILER, {"steam/pressure": 1.0})
        await seen.expect("mark")
        await made.delivered()
        await passing(clock, NODE_EVERY_S, lambda: seen.all("NDATA"))
    assert isinstance(birth.metric("Holdfast/Version").value, str)
    assert dict(seen.values(seen.all("NDATA")[0])) == {"Holdfast/Pending": 0, "Holdfast/Delivered": 1, "Holdfast/Dropped": 0}


# ---- commands


async def test_rebirth_says_everything_again_from_0_with_the_same_bdseq(broker: Mosquitto, made: Plant) -> None:
    made.has(BOILER, PUMP)
    async with host(broker.port) as seen, kept(sparkplug(made, options(broker))):
        await seen.expect("DBIRTH", "pump")
        made.bring(BOILER, {"steam/pressure": 1.0})
        await seen.expect("mark")
        await seen.ask_for_rebirth()
        await seen.expect("DBIRTH", "pump", count=2)
        made.bring(BOILER, {"steam/pressure": 2.0})
        await seen.expect("DDATA", "boiler", count=2)
    first, second = seen.all("NBIRTH")
    assert first.metric(BDSEQ).value == second.metric(BDSEQ).value
    assert list(seqs(seen.seen)) == [0, 1, 2, 3, 0, 1, 2, 3]
    assert second.metric("Holdfast/Version").alias == first.metric("Holdfast/Version").alias


async def test_a_storm_of_rebirth_requests_costs_two_births(broker: Mosquitto, made: Plant) -> None:
    """One at once, and one for all the others when REBIRTH_EVERY_S have passed."""
    clock = still()
    made.has(BOILER)
    async with host(broker.port) as seen, kept(sparkplug(made, options(broker), clock=clock)):
        await seen.expect("DBIRTH")
        await seen.ask_for_rebirth()
        await seen.expect("DBIRTH", count=2)
        for _ in range(100):
            await seen.ask_for_rebirth()
        made.bring(BOILER, {"steam/pressure": 1.0})
        await seen.expect("mark")
        assert len(seen.all("NBIRTH")) == 2
        await passing(clock, REBIRTH_EVERY_S, lambda: len(seen.all("NBIRTH")) == 3)
        for _ in range(3):
            await clock.advance(REBIRTH_EVERY_S)
        made.bring(BOILER, {"steam/pressure": 2.0})
        await seen.expect("mark", count=2)
    assert len(seen.all("NBIRTH")) == 3


async def test_every_other_command_is_refused_and_counted(broker: Mosquitto, made: Plant) -> None:
    uplink = sparkplug(made, options(broker))
    errors = uplink.status.counters.errors
    async with host(broker.port) as seen:
        await seen.ask_for_rebirth(retain=True)  # a trap for whoever connects next
        async with kept(uplink):
            await seen.expect("NBIRTH")
            await seen.ask_for_rebirth(False)
            await seen.command(Verb.NCMD, "Node Control/Reboot", True)
            await seen.command(Verb.DCMD, "steam/pressure", True, device="boiler")
            await seen.command(Verb.DCMD, "Node Control/Rebirth", True, device="boiler")
            await (await seen.mqtt.publish1("spBv1.0/plant/NCMD/gw", b"\xff rubbish"))
            await until(lambda: errors["command-malformed"])
    assert (errors["command-retained"], errors["command-not-writable"], errors["command-malformed"]) == (1, 3, 1)
    assert len(seen.all("NBIRTH")) == 1


# ---- the primary host


async def test_births_wait_for_the_primary_host(broker: Mosquitto, made: Plant) -> None:
    uplink = sparkplug(made, options(broker, primary_host="scada-1"))
    async with host(broker.port) as seen, kept(uplink):
        await until(lambda: uplink.status.trouble)
        assert "scada-1" in uplink.status.trouble
        await seen.state("scada-2", True, 5)
        await seen.state("scada-1", False, 10)
        await seen.state("scada-1", True, 9)
        await (await seen.mqtt.publish1("spBv1.0/STATE/scada-1", b"rubbish"))
        assert not seen.all("NBIRTH")
        await seen.state("scada-1", True, 10)
        await seen.expect("NBIRTH")
    assert uplink.status.state is links.State.STOPPED
    assert uplink.status.sessions == 1


async def test_a_primary_host_that_goes_away_ends_the_session_with_an_ndeath(broker: Mosquitto, made: Plant) -> None:
    made.has(BOILER)
    uplink = sparkplug(made, options(broker, primary_host="scada-1"))
    async with host(broker.port) as seen, kept(uplink):
        await seen.state("scada-1", True, 10)
        birth = await seen.expect("NBIRTH")
        await seen.state("scada-1", False, 9)  # older than what is known: not believed
        made.bring(BOILER, {"steam/pressure": 1.0})
        await made.delivered()
        await seen.state("scada-1", False, 10)
        death = await seen.expect("NDEATH")
        made.bring(BOILER, {"steam/pressure": 2.0})
        await until(lambda: uplink.status.trouble.startswith("waits"))
        assert len(seen.all("NBIRTH")) == 1
        await seen.state("scada-1", True, 11)
        again = await seen.expect("NBIRTH", count=2)
        await made.delivered()
        data = await seen.expect("DDATA", count=2)
    assert death.metric(BDSEQ).value == birth.metric(BDSEQ).value
    assert again.metric(BDSEQ).value != birth.metric(BDSEQ).value
    assert historical(data) == [True]


async def test_the_uplink_walks_to_the_broker_where_its_primary_host_is(broker: Mosquitto, made: Plant, tmp_path: Path) -> None:
    with Mosquitto(tmp_path / "second") as second:
        made.has(BOILER)
        made.bring(BOILER, {"steam/pressure": 1.0})
        await made.stored()
        fallback = (Broker(host="127.0.0.1", port=second.port),)
        async with host(broker.port) as here, host(second.port) as there:
            await here.state("scada-1", False, 10)
            await there.state("scada-1", True, 10)
            async with kept(sparkplug(made, options(broker, primary_host="scada-1", fallback=fallback))):
                await there.expect("NBIRTH")
                await made.delivered()
                assert not here.all("NBIRTH")
                await here.state("scada-1", True, 11)
                await there.state("scada-1", False, 11)
                await there.expect("NDEATH")
                await here.expect("NBIRTH")


async def test_a_dead_broker_is_left_for_the_next(broker: Mosquitto, made: Plant, tmp_path: Path) -> None:
    with Mosquitto(tmp_path / "dead") as dead:
        gone = dead.port
    settings = SparkplugUplink(
        name="cloud", host="127.0.0.1", port=gone, timeout_s=1.0, fallback=(Broker(host="127.0.0.1", port=broker.port),)
    )
    async with host(broker.port) as seen, kept(sparkplug(made, settings)):
        await seen.expect("NBIRTH")
