"""A broker that is away for 20 seconds, and for three days: everything comes, in order, and what is new does not wait for it.

The three days are written by the journal itself, under a clock that walks through them; the field is asked as often as it
would have been, so the records hold what it gave and its numbers go on from there when the gateway starts.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

from gateway.config.drivers import installed
from gateway.config.load import load_bytes
from gateway.journal import Journal
from protocols.clock import ManualClock
from protocols.model import Batch, Device
from tests.faults import figures
from tests.faults.oracle import raw
from tests.faults.rig import UPLINK, Plan, Rig, many, rig, spread
from tests.peers.cloud import Absence, Arrival, Told
from tests.peers.fast import ROUND, STAMP, read_request

OUTAGE_S: Final = 20.0
HOURS: Final = many(1, 72)
SCAN_S: Final = 1.0
TAGS: Final = 11
DRAIN_TIMES: Final = 10.0
LIVE_P99_S: Final = 5.0
DRAIN_DEADLINE_S: Final = 1800.0
ANSWER_BYTES: Final = 17
REQUESTS_AT_ONCE: Final = 128
ROUNDS_AT_ONCE: Final = 100


@dataclass(slots=True)
class Stream:
    """Listens beside the oracle: live and history, and which came when."""

    since_ms: float = float("inf")
    """Wall clock from which on live records are measured; what is older and comes later is the backlog."""
    live_s: list[float] = field(default_factory=list)
    """How old live values were when they came."""
    history: int = 0
    """Records of the backlog."""
    live_between: int = 0
    """Live records that came before the last of the backlog."""
    began_s: float = 0.0
    ended_s: float = 0.0

    def __call__(self, thing: Arrival | Absence | Told) -> None:
        if not isinstance(thing, Arrival):
            return
        time_ms = thing.rows[0].time_ms
        if time_ms < self.since_ms < float("inf"):
            self.history += 1
            self.began_s = self.began_s or thing.at
            self.ended_s, self.live_between = thing.at, len(self.live_s)
        elif time_ms >= self.since_ms and not thing.historical:
            self.live_s.append(time.time() - time_ms / 1000)

    def measure(self) -> None:
        """From now on."""
        self.since_ms = time.time() * 1000

    @property
    def drain_per_s(self) -> float:
        return self.history / max(self.ended_s - self.began_s, 0.001)


async def kill(plant: Rig) -> None:
    plant.broker.kill()


async def revive(plant: Rig) -> None:
    await asyncio.to_thread(plant.broker.start)


async def refuse(plant: Rig) -> None:
    await plant.proxy.refuse()


async def heal(plant: Rig) -> None:
    await plant.proxy.heal()


async def black_hole(plant: Rig) -> None:
    plant.proxy.black_hole()


Step = Callable[[Rig], Awaitable[None]]
AWAY: Final[dict[str, tuple[Step, Step]]] = {"killed": (kill, revive), "refuses": (refuse, heal), "black hole": (black_hole, heal)}


async def live_out(folder: Path, how: str) -> None:
    """One plant through one outage."""
    go, come = AWAY[how]
    stream = Stream()
    async with rig(folder, Plan(devices=5)) as plant:
        plant.oracle.also.append(stream)
        await plant.arrive(100)
        await go(plant)
        await asyncio.sleep(OUTAGE_S)  # the promise names the length
        missed = (await plant.ledger())["pending"]
        await come(plant)
        stream.measure()
        began = time.monotonic()
        await plant.until("live records flow again", lambda: len(stream.live_s) > 0, 60)
        back_s = time.monotonic() - began
        await plant.arrive(int(missed), 60)
        verdict = await plant.finish()
    assert verdict.lost == verdict.dropped == {}
    assert stream.history >= 0.5 * OUTAGE_S * plant.records_per_s, "hardly anything was recorded during the outage"
    figures.record(
        f"outage, {how}",
        outage_s=OUTAGE_S,
        records=verdict.records,
        backlog=stream.history,
        duplicates=verdict.duplicates,
        lost=sum(verdict.dropped.values()),
        back_s=round(back_s, 2),
        drain_records_per_s=round(stream.drain_per_s),
        **spread("live", stream.live_s),
    )


async def test_a_broker_that_is_away_for_20_s_gets_everything_and_live_first(tmp_path: Path) -> None:
    """Killed, refusing and swallowed by a black hole, side by side."""
    async with asyncio.TaskGroup() as plants:
        for how in AWAY:
            plants.create_task(live_out(tmp_path / how.replace(" ", "-"), how))


async def test_a_backlog_of_three_days_drains_while_live_values_stay_live(tmp_path: Path) -> None:
    """It drains at ten times the live rate or more, and the 99th percentile of live latency stays below 5 s meanwhile."""
    stream, took_s = Stream(), [0.0]
    rounds = round(HOURS * 3600 / SCAN_S)

    async def remember(plant: Rig) -> None:
        began = time.monotonic()
        await asyncio.gather(*(ask_often(port, rounds) for port in plant.field.ports))
        await write(plant, rounds)
        took_s[0] = time.monotonic() - began
        plant.oracle.also.append(stream)
        stream.measure()

    async with rig(tmp_path, Plan(devices=5, scan_s=SCAN_S, tags=TAGS, before=remember)) as plant:
        backlog = rounds * plant.plan.devices
        await plant.until("the backlog is there", lambda: stream.history >= backlog, DRAIN_DEADLINE_S)
        await plant.until("live records came", lambda: len(stream.live_s) > 0)
        verdict = await plant.finish(deadline_s=DRAIN_DEADLINE_S)
    during = sorted(stream.live_s[: max(stream.live_between, 1)])
    p99_s = during[int(len(during) * 0.99)]
    times = stream.drain_per_s / plant.records_per_s
    figures.record(
        f"outage of {HOURS} h",
        backlog=backlog,
        values=verdict.values,
        prepared_s=round(took_s[0], 1),
        drained_s=round(stream.ended_s - stream.began_s, 1),
        drain_records_per_s=round(stream.drain_per_s),
        drain_times_live=round(times),
        duplicates=verdict.duplicates,
        lost=sum(verdict.dropped.values()),
        live_records=len(during),
        **spread("live", during),
    )
    assert verdict.lost == verdict.dropped == {}
    assert stream.live_between > 0, "live records waited for the whole backlog"
    assert times >= DRAIN_TIMES, f"the backlog drained at {times:.1f} times the live rate"
    if figures.LONG:
        assert p99_s < LIVE_P99_S, f"live values were late while the backlog drained: p99 {p99_s:.2f} s"


# ---- three days in a minute


async def ask_often(port: int, rounds: int) -> None:
    """Have one device of the field answer so many scans, as fast as it can."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    request = read_request(0, 1, 3, ROUND, 4)
    for at in range(0, rounds, REQUESTS_AT_ONCE):
        count = min(REQUESTS_AT_ONCE, rounds - at)
        writer.write(request * count)
        await reader.readexactly(count * ANSWER_BYTES)
    writer.close()
    await writer.wait_closed()


async def write(plant: Rig, rounds: int) -> None:
    """Have the journal record what every device gave in ``rounds`` scans until now."""
    site, problems = load_bytes(json.dumps(plant.site()).encode())
    assert site is not None, problems
    drivers = installed()
    devices = [device for options in site.connections for device in drivers[options.__struct_config__.tag].devices(options)]
    start_ns = time.time_ns() - round(rounds * SCAN_S * 1e9)
    clock = ManualClock(start_ns)
    journal = await Journal.open(site.journal, clock=clock)
    journal.reader(UPLINK)
    values = table()
    for first in range(1, rounds + 1, ROUNDS_AT_ONCE):
        last = min(first + ROUNDS_AT_ONCE - 1, rounds)
        for scan in range(first, last + 1):
            time_ns = start_ns + round(scan * SCAN_S * 1e9)
            for device in devices:
                batch = given(device, values, scan, time_ns)
                if scan == last and device is devices[-1]:
                    await journal.append(batch)  # all before it are durable as well: the journal never runs ahead of its disk
                else:
                    journal.offer(batch)
        await clock.advance((last + 1 - first) * SCAN_S)
    await journal.close()


def table() -> NDArray[np.uint64]:
    """What the tags hold in a scan, by its number modulo 1000, with room for the number itself."""
    pairs = range(STAMP // 2 - TAGS, STAMP // 2)
    return np.array([[*(raw(pair, scan) for pair in pairs), 0] for scan in range(1000)], dtype=np.uint64)


def given(device: Device, values: NDArray[np.uint64], scan: int, time_ns: int) -> Batch:
    count = TAGS + 1
    row = values[scan % 1000].copy()
    row[-1] = scan
    quality = np.zeros(count, dtype=np.uint32)
    return Batch(device, np.arange(count, dtype=np.uint32), row, quality, np.full(count, time_ns, dtype=np.int64))
