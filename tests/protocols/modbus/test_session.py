"""Sessions: scans on a drift-free schedule, qualities that say which trouble it is, holes learnt, dead devices set aside."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from typing import Any

import pytest
import uvloop

from protocols.clock import ManualClock, SystemClock
from protocols.contract import Unreachable
from protocols.modbus.driver import RTU, TCP
from protocols.modbus.session import ABSENT_RETRY_S, ModbusSession
from protocols.model import Batch, Quality
from tests.peers.unit import Unit
from tests.peers.wire import Wire
from tests.protocols.modbus.plc import Plc, PtyLine, device, options, qualities, tag, until, values


class Reader:
    """Reads a session in the background; ``scan()`` moves the clock by one period and gives the batches that came."""

    def __init__(self, session: ModbusSession, clock: ManualClock, period_s: float = 1.0) -> None:
        self.session, self._clock, self._period_s = session, clock, period_s
        self.batches: list[Batch] = []
        self.task = asyncio.ensure_future(self._read())

    async def _read(self) -> None:
        async for batch in self.session.batches():
            self.batches.append(batch)

    async def scan(self, count: int = 1) -> list[Batch]:
        """The batches of the next ``count`` periods."""
        self.batches.clear()
        for _ in range(count):
            await self._clock.advance(self._period_s)
            await self.idle()
        return list(self.batches)

    async def idle(self) -> None:
        """Wait until the session has done what is due and sleeps, or has ended."""
        await until(lambda: self.task.done() or self._clock.sleeping > 0)


@asynccontextmanager
async def reading(plc: Plc, *devices: dict[str, Any], **fields: Any) -> AsyncIterator[Reader]:  # Any: as people write it
    """A session on ``plc`` that is read in the background."""
    clock = ManualClock()
    async with plc.serve() as port, TCP.open(options(port=port, devices=list(devices), **fields), clock=clock) as session:
        reader = Reader(session, clock)
        try:
            yield reader
        finally:
            reader.task.cancel()
            with contextlib.suppress(asyncio.CancelledError, Unreachable):
                await reader.task


async def test_values_come_every_period_with_stamps_of_the_clock() -> None:
    plc = Plc(1)
    plc.unit.words = {0: 7}
    async with reading(plc, device(tag("holding:0"))) as reader:
        first = await reader.scan()
        assert values(first) == {"holding:0": 7}
        assert await reader.scan(10)
        assert len(reader.batches) == 10
        stamps = [int(batch.time_ns[0]) for batch in reader.batches]
        assert {b - a for a, b in itertools.pairwise(stamps)} == {1_000_000_000}
        assert reader.session.stats.missed == 0


class Hurrying(ManualClock):
    """Each look at the time takes some."""

    def __init__(self, step_ns: int) -> None:
        super().__init__()
        self._step_ns = step_ns

    def time_ns(self) -> int:
        self.set_time_ns(super().time_ns() + self._step_ns)
        return super().time_ns()


@pytest.mark.parametrize(("apart_ns", "stamps"), [(1_000_000, 1), (11_000_000, 2), (-1, 2)])
async def test_answers_of_one_moment_share_a_stamp(apart_ns: int, stamps: int) -> None:
    """Two requests of one scan; answers that are further apart, or before which a clock went back, have their own."""
    plc, clock = Plc(1), Hurrying(apart_ns)
    async with plc.serve() as port:
        line = options(port=port, devices=[device(tag("holding:0"), tag("input:0"))])
        async with TCP.open(line, clock=clock) as session:
            reader = Reader(session, clock)
            batch, *_ = await reader.scan()
            reader.task.cancel()
    assert len(set(batch.time_ns.tolist())) == stamps


async def test_batches_carry_the_devices_that_devices_gives() -> None:
    plc, clock = Plc(1), ManualClock()
    async with plc.serve() as port:
        line = options(port=port, devices=[device(tag("holding:0"))])
        (known,) = TCP.devices(line)
        async with TCP.open(line, clock=clock) as session:
            reader = Reader(session, clock)
            (batch,) = (await reader.scan())[:1]
            reader.task.cancel()
        assert batch.device is known is TCP.devices(line)[0]


async def test_each_period_of_a_device_has_its_own_scans() -> None:
    plc = Plc(1)
    async with reading(plc, device(tag("holding:0"), tag("holding:1", scan_s=5.0))) as reader:
        await reader.scan()
        names = [name for batch in await reader.scan(10) for name in values([batch])]
        assert (names.count("holding:0"), names.count("holding:1")) == (10, 2)


async def test_a_hole_is_learnt_said_once_and_kept_for_the_next_session() -> None:
    plc, clock = Plc(1), ManualClock()
    plc.unit.holes = {5}
    plc.unit.words = {0: 1, 9: 2}
    async with plc.serve() as port:
        line = options(port=port, devices=[device(tag("holding:0"), tag("holding:9"))])
        for turn in range(2):
            async with TCP.open(line, clock=clock) as session:
                reader = Reader(session, clock)
                batches = await reader.scan(3)
                reader.task.cancel()
                assert values(batches) == {"holding:0": 1, "holding:9": 2}
                assert set(qualities(batches).values()) == {Quality.GOOD}
                assert [("a hole lies between" in finding) for finding in session.findings] == ([True] if turn == 0 else [])
                assert session.stats.errors == ({"exception_2": 1} if turn == 0 else {})


async def test_a_tag_that_does_not_exist_is_unknown_and_harms_no_neighbour() -> None:
    plc = Plc(1)
    plc.unit.words = {at: at for at in range(40)}
    plc.unit.holes = {17}
    async with reading(plc, device(*(tag(f"holding:{at}") for at in range(40)))) as reader:
        batches = await reader.scan(2)
        good = {name for name, quality in qualities(batches).items() if quality == Quality.GOOD}
        assert len(good) == 39
        assert qualities(batches)["holding:17"] == Quality.BAD_NODE_ID_UNKNOWN
        assert values(batches)["holding:18"] == 18
        assert [
            finding for finding in reader.session.findings if "holding:17" in finding and "no such address" in finding
        ] == reader.session.findings
        plc.asked.clear()
        await reader.scan(5)
        assert len(plc.asked) == 10  # two blocks a scan: nothing is tried again, and nothing more is split than must be


async def test_an_absent_tag_is_tried_again_rarely_and_comes_back() -> None:
    plc = Plc(1)
    plc.unit.holes = {1}
    async with reading(plc, device(tag("holding:0"), tag("holding:1"), scan_s=100.0)) as reader:
        assert qualities(await reader.scan(100))["holding:1"] == Quality.BAD_NODE_ID_UNKNOWN
        plc.unit.holes.clear()
        assert qualities(await reader.scan(round(ABSENT_RETRY_S) + 200))["holding:1"] == Quality.GOOD
        lost, back = reader.session.findings
        assert ("no such address" in lost, "exists by now" in back) == (True, True)


async def test_a_device_that_gives_fewer_registers_than_asked_is_read_in_parts() -> None:
    """Exception 3 to a block that is too long: found out, said, and not tried again."""
    plc = Plc(1)
    plc.unit.most = 16
    async with reading(plc, device(*(tag(f"holding:{at}") for at in range(60)))) as reader:
        batches = await reader.scan(3)
        assert set(qualities(batches[-1:]).values()) == {Quality.GOOD}
        assert len(qualities(batches[-1:])) == 60


async def test_a_device_that_lacks_everything_says_so_and_is_not_hammered() -> None:
    plc = Plc(1)
    plc.unit.holes = set(range(200))
    async with reading(plc, device(*(tag(f"holding:{at}") for at in range(100)))) as reader:
        await reader.scan()
        assert len(plc.asked) <= 80
        batches = await reader.scan(12)
        assert set(qualities(batches[-1:]).values()) == {Quality.BAD_NODE_ID_UNKNOWN}


@pytest.mark.parametrize(
    ("code", "quality"),
    [
        (1, Quality.BAD_NOT_SUPPORTED),
        (4, Quality.BAD_DEVICE_FAILURE),
        (5, Quality.BAD_RESOURCE_UNAVAILABLE),
        (6, Quality.BAD_RESOURCE_UNAVAILABLE),
        (8, Quality.BAD_DEVICE_FAILURE),
        (99, Quality.BAD),
    ],
)
async def test_an_exception_is_a_quality(code: int, quality: Quality) -> None:
    plc = Plc(1)
    plc.unit.refused = {3: code}
    async with reading(plc, device(tag("holding:0"), tag("input:0"))) as reader:
        assert qualities(await reader.scan()) == {"holding:0": quality, "input:0": Quality.GOOD}


async def test_a_silent_device_is_demoted_said_once_and_slows_no_other() -> None:
    plc = Plc(1, 2)
    devices = [device(tag("holding:0")), {**device(tag("holding:0")), "name": "dead", "unit_id": 2}]
    async with reading(plc, *devices, timeout_s=0.03) as reader:
        await reader.scan(2)
        plc.silent = {2}
        await reader.scan(4)
        dead = [batch for batch in reader.batches if batch.device.name == "dead"]
        assert [(int(batch.quality[0]), batch.lost) for batch in dead] == [(Quality.BAD_TIMEOUT, False), (Quality.BAD_TIMEOUT, True)]
        assert ["set aside" in finding for finding in reader.session.findings] == [True]
        plc.asked.clear()
        alive = await reader.scan(300)
        assert len(alive) == 300
        assert sum(unit_id == 2 for unit_id, _ in plc.asked) <= 9
        plc.silent.clear()
        back = [batch for batch in await reader.scan(62) if batch.device.name == "dead"]
        assert back
        assert back[0].quality[0] == Quality.GOOD
        assert len(reader.session.findings) == 1


async def test_a_gateway_that_reaches_no_device_is_no_communication() -> None:
    """Exceptions 10 and 11 come from the gateway: the device behind it is away."""
    plc = Plc(1, 2)
    devices = [device(tag("holding:0")), {**device(tag("holding:0")), "name": "dead", "unit_id": 2}]
    async with reading(plc, *devices) as reader:
        await reader.scan(2)
        plc.units[2].refused = {3: 11}
        dead = [batch for batch in await reader.scan(4) if batch.device.name == "dead"]
        assert [(int(batch.quality[0]), batch.lost) for batch in dead] == [
            (Quality.BAD_NO_COMMUNICATION, False),
            (Quality.BAD_NO_COMMUNICATION, True),
        ]


async def test_a_device_that_never_answered_is_lost_at_once() -> None:
    """No batch that is not marked lost: nothing has proven that anybody is there."""
    plc = Plc(1)
    plc.silent = {1}
    async with reading(plc, device(tag("holding:0")), timeout_s=0.03) as reader:
        await reader.scan(2)
        assert [batch.lost for batch in reader.batches] == [True]
        with pytest.raises(Unreachable):
            await reader.task


async def test_when_no_device_answers_the_connection_is_unreachable() -> None:
    """Connected is not reachable: a half-open connection ends so, too."""
    plc = Plc(1)
    plc.silent = {1}
    async with reading(plc, device(tag("holding:0")), timeout_s=0.03) as reader:
        await reader.scan(4)
        with pytest.raises(Unreachable, match="no device answers"):
            await reader.task


async def test_a_connection_lost_between_scans_is_noticed_within_a_second() -> None:
    plc = Plc(1)
    async with reading(plc, device(tag("holding:0"), scan_s=3600.0)) as reader:
        await reader.scan(2)
        plc.kick()
        await until(lambda: reader.session._line.trouble is not None)
        await reader.scan()
        with pytest.raises(Unreachable, match="closed by the peer"):
            await reader.task


async def test_cancelling_at_any_moment_leaves_the_connection_closable() -> None:
    for turns in range(0, 40, 3):
        plc = Plc(1)
        async with reading(plc, device(*(tag(f"holding:{40 * at}") for at in range(5)))) as reader:
            advancing = asyncio.ensure_future(reader.scan())
            for _ in range(turns):
                await asyncio.sleep(0)
            reader.task.cancel()
            await advancing


async def test_a_connection_without_devices_stays_open() -> None:
    async with reading(Plc(1)) as reader:
        assert await reader.scan(5) == []
        assert not reader.task.done()


async def test_an_idle_connection_is_closed_where_the_device_wants_it() -> None:
    plc = Plc(1)
    async with reading(plc, device(tag("holding:0"), scan_s=10.0), idle_close_s=2.0) as reader:
        await reader.scan(40)
        assert plc.connections >= 4


async def test_many_devices_share_one_connection() -> None:
    plc = Plc(*range(1, 51))
    devices = [{**device(tag("holding:0")), "name": f"d{unit_id}", "unit_id": unit_id} for unit_id in range(1, 51)]
    for unit_id, unit in plc.units.items():
        unit.words = {0: unit_id}
    async with reading(plc, *devices) as reader:
        batches = await reader.scan(2)
        assert {batch.device.name: int(batch.value[0]) for batch in batches} == {f"d{unit_id}": unit_id for unit_id in range(1, 51)}


async def test_the_same_over_a_serial_line() -> None:
    plc, clock = Plc(1), ManualClock()
    plc.unit.words = {0: 7}
    pty = PtyLine(plc)
    async with RTU.open(options("modbus-rtu", serial_port=pty.path, devices=[device(tag("holding:0"))]), clock=clock) as session:
        reader = Reader(session, clock)
        assert values(await reader.scan()) == {"holding:0": 7}
        reader.task.cancel()
    pty.close()


async def test_probing_says_what_each_device_and_tag_has_to_say() -> None:
    plc = Plc(1)
    plc.unit.holes = {5}
    async with plc.serve() as port:
        good = options(port=port, devices=[device(tag("holding:0"))])
        assert (await TCP.probe(good)).ok
        bad = options(
            port=port,
            timeout_s=0.05,
            devices=[device(tag("holding:0"), tag("holding:5")), {**device(tag("input:1")), "name": "x", "unit_id": 9}],
        )
        report = await TCP.probe(bad)
        assert not report.ok
        assert any("holding:5: exception 2, illegal data address" in finding for finding in report.findings)
        assert any("x: " in finding and "did not answer" in finding for finding in report.findings)
    report = await TCP.probe(options(port=port))
    assert not report.ok


@pytest.mark.parametrize("run", [asyncio.run, uvloop.run], ids=["asyncio", "uvloop"])
def test_the_silence_before_each_request_is_never_cut_short(
    run: Callable[[Coroutine[Any, Any, None]], None],
) -> None:  # Any: as it is there
    run(silences())


async def silences() -> None:
    """On a line that measures itself: 3.5 characters, at every request, whatever the event loop's timers do."""
    units = {unit_id: Unit(holding={0: unit_id, 1: unit_id, 2: unit_id}) for unit_id in (1, 2)}
    devices = [
        {**device(tag("holding:0"), tag("holding:2")), "name": f"d{unit_id}", "unit_id": unit_id, "scan_s": 0.01} for unit_id in units
    ]
    with Wire(units, baud=19200) as line:
        async with RTU.open(options("modbus-rtu", serial_port=line.path, baud_rate=19200, devices=devices), clock=SystemClock()) as session:
            seen: list[Batch] = []
            async with asyncio.timeout(20):
                async for batch in session.batches():
                    seen.append(batch)
                    if len(seen) == 60:
                        break
        report = line.report()
    assert (report.early, report.collisions) == (0, 0)
    assert session.stats.errors == {}
    assert all((batch.value == int(batch.device.name[1:])).all() for batch in seen)
