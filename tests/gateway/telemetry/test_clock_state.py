"""How the clock is, what is said when that changes, and what a host sees of it."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from gateway import config, links, questions
from gateway.app import running
from gateway.config.model import PlainMqttUplink, SparkplugUplink
from gateway.journal import Lane
from gateway.tasks import cancel
from gateway.telemetry.clock_state import ASK_EVERY_S, DEVICE, CannotAsk, ClockState, Kernel, Word, ask_kernel
from gateway.uplink.plain import Plain
from gateway.uplink.sparkplug import NODE_EVERY_S, Sparkplug
from protocols.clock import ManualClock, SystemClock
from protocols.model import Batch
from protocols.mqtt.client import connect
from tests.gateway.uplink.host import host
from tests.gateway.uplink.plant import BOILER, DEADLINE_S, GATEWAY, Plant, kept, plant, until
from tests.peers.mosquitto import Mosquitto

GOOD = Kernel(synchronised=True, estimated_error_us=20, maximum_error_us=900, leap="none")
FREE = Kernel(synchronised=False, estimated_error_us=16_000_000, maximum_error_us=16_000_000, leap="unknown")


@dataclass
class Asked:
    """A kernel that says what it is told to, and counts how often it was asked."""

    says: Kernel | None = GOOD
    times: int = 0
    recorded: list[Batch] = field(default_factory=list)

    def __call__(self) -> Kernel:
        self.times += 1
        if self.says is None:
            raise CannotAsk("adjtimex: Operation not permitted (EPERM): the service may not ask")
        return self.says

    def told(self) -> list[dict[str, str]]:
        """The records, by tag."""
        return [dict(zip([tag.name for tag in DEVICE.tags], batch.value.tolist(), strict=True)) for batch in self.recorded]


def test_the_kernel_of_this_machine_answers() -> None:
    """adjtimex(2) itself: whatever this machine's clock is, the answer holds together."""
    kernel = ask_kernel()
    assert kernel.maximum_error_us >= kernel.estimated_error_us >= 0
    state = ClockState(SystemClock())
    assert state.now.synchronised is kernel.synchronised
    assert state.trusted


async def test_lost_is_said_once_and_back_once_and_each_is_a_record() -> None:
    clock, kernel = ManualClock(), Asked()
    state = ClockState(clock, kernel)
    with capture_logs() as logs:
        async with state.watched(kernel.recorded.append):
            for says in (GOOD, FREE, FREE, GOOD, GOOD):
                kernel.says = says
                await clock.advance(ASK_EVERY_S)
    assert [one["event"] for one in logs] == ["clock_synchronised", "clock_not_synchronised", "clock_synchronised"]
    assert [(one["before"], one["state"], one["set_by_s"]) for one in kernel.told()] == [
        ("synchronised", "unsynchronised", "0.000000"),
        ("unsynchronised", "synchronised", "0.000000"),
    ]
    assert kernel.times == 6, "once at the start, and once each time"


async def test_a_boot_in_1970_is_told_and_so_is_by_how_much_the_clock_was_set() -> None:
    """Whoever has the records of that time can mend their stamps."""
    clock, kernel = ManualClock(time_ns=10_000_000_000), Asked(FREE)
    state = ClockState(clock, kernel)
    assert state.trusted is False
    async with state.watched(kernel.recorded.append):
        await clock.advance(3 * ASK_EVERY_S)
        clock.set_time_ns(1_795_000_000_000_000_000)
        kernel.says = GOOD
        await clock.advance(ASK_EVERY_S)
    first, then = kernel.told()
    assert first["state"] == "wrong"
    assert (then["before"], then["state"], then["before_since"]) == ("wrong", "synchronised", "10000000000")
    assert float(then["set_by_s"]) == pytest.approx(1_795_000_000 - 25, abs=1)
    assert ClockState(clock, kernel).trusted
    assert (state.now.steps, state.now.maximum_error_us) == (1, 900)


async def test_a_clock_that_may_not_be_asked_is_unknown_and_claims_nothing() -> None:
    state = ClockState(ManualClock(), Asked(None))
    assert (state.now.word, state.now.synchronised, state.now.maximum_error_us) == (Word.UNKNOWN, None, None)
    assert "may not ask" in state.now.detail
    assert state.trusted


class Unset:
    """The machine's clock, so many seconds behind."""

    monotonic = staticmethod(SystemClock.monotonic)
    sleep_until = SystemClock.sleep_until

    def __init__(self, behind_s: float) -> None:
        self.behind_s = behind_s

    def time_ns(self) -> int:
        return time.time_ns() - round(self.behind_s * 1e9)


async def test_a_whole_gateway_that_starts_in_1970_says_so_in_its_events_lane(tmp_path: Path) -> None:
    site, problems = config.load(b"holdfast: 1\ngateway: {group: plant, name: edge}\njournal: {path: journal, commit_window_ms: 5}\n")
    assert site is not None, problems
    clock = Unset(behind_s=time.time() - 1000)
    async with running(site, base=tmp_path, clock=clock) as gateway:
        assert gateway.clock_state.trusted is False
        clock.behind_s = 0.0
        gateway.clock_state.look(gateway.record)
        await until(lambda: gateway.journal.head(Lane.EVENTS) >= 3)
        lines = [line async for line in questions.answer(gateway.journal, questions.Tail(lane=Lane.EVENTS))]
    told = [dict(zip(line["tags"], line["values"], strict=True)) for line in lines if line["device"] == "_clock"]
    assert [one["before"] for one in told] == ["wrong", "wrong"]
    assert told[0]["state"] == "wrong"
    assert float(told[1]["set_by_s"]) == pytest.approx(time.time() - 1000, abs=60)


def test_no_device_may_be_called_as_the_record_of_the_clock() -> None:
    device = "{name: _clock, unit_id: 1, tags: []}"
    text = f"holdfast: 1\ngateway: {{group: g, name: n}}\nconnections: [{{name: a, type: modbus-tcp, host: h, devices: [{device}]}}]\n"
    site, _ = config.load(text.encode())
    assert site is not None
    assert [problem.path for problem in config.check(site) if "clock" in problem.message] == ["connections[0].devices[0].name"]


@pytest.fixture
def broker(tmp_path: Path) -> Iterator[Mosquitto]:
    with Mosquitto(tmp_path / "broker") as running:
        yield running


@pytest.fixture
async def made(tmp_path: Path) -> AsyncIterator[Plant]:
    async with plant(tmp_path / "journal") as one:
        yield one


async def test_a_host_sees_the_clock_in_the_birth_in_data_when_it_changes_and_in_every_mark(broker: Mosquitto, made: Plant) -> None:
    made.has(BOILER)
    clock, kernel = ManualClock(time_ns=time.time_ns()), Asked()
    state = ClockState(clock, kernel)
    options = SparkplugUplink(name="cloud", host="127.0.0.1", port=broker.port)
    status = links.Status("uplink", "cloud")
    uplink = Sparkplug(options, GATEWAY, made.journal.reader("cloud", "oldest"), made.latest, clock=clock, status=status, clock_state=state)
    async with host(broker.port) as seen, kept(uplink):
        birth = await seen.expect("NBIRTH")
        assert (birth.metric("Clock/Synchronised").value, birth.metric("Clock/Error us").value) == (True, 900)
        await seen.expect("DBIRTH")
        made.bring(BOILER, {"steam/pressure": 1.0})
        first = (await seen.expect("mark")).mark
        assert first is not None
        assert first.clock == "synchronised"
        kernel.says = FREE
        state.look(lambda batch: None)
        await made.delivered()
        async with asyncio.timeout(DEADLINE_S):
            while not any(name == "Clock/Synchronised" for one in seen.all("NDATA") for name, _ in seen.values(one)):
                await clock.advance(NODE_EVERY_S)
                await asyncio.sleep(0.005)
        told = dict(pair for one in seen.all("NDATA") for pair in seen.values(one))
        assert (told["Clock/Synchronised"], told["Clock/Error us"]) == (False, None)
        made.bring(BOILER, {"steam/pressure": 2.0})
        await seen.until(lambda: len(seen.all("mark")) == 2)
        second = seen.all("mark")[1].mark
        assert second is not None
        assert second.clock == "unsynchronised"


async def test_plain_json_says_nothing_while_all_is_well_and_the_word_otherwise(broker: Mosquitto, made: Plant) -> None:
    made.has(BOILER)
    kernel = Asked()
    state = ClockState(made.clock, kernel)
    options = PlainMqttUplink(name="cloud", host="127.0.0.1", port=broker.port)
    status = links.Status("uplink", "cloud")
    uplink = Plain(options, GATEWAY, made.journal.reader("cloud", "oldest"), made.clock, status, clock_state=state)
    async with connect(options, options, client_id="listener") as mqtt:
        await mqtt.subscribe("#", 1)
        messages = mqtt.messages()
        delivering = asyncio.create_task(links.keep(uplink.session, status, clock=made.clock))
        made.bring(BOILER, {"steam/pressure": 1.0})
        assert "clock" not in json.loads((await anext(messages)).payload)
        kernel.says = FREE
        state.look(lambda batch: None)
        made.bring(BOILER, {"steam/pressure": 2.0})
        assert json.loads((await anext(messages)).payload)["clock"] == "unsynchronised"
        await cancel(delivering)
