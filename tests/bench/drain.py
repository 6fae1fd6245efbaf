"""How a backlog drains: how fast history goes out, and how late live values are meanwhile.

``drain`` takes the broker away from a running gateway for some seconds; ``drain_deep`` starts a gateway on a journal that
holds days of records, written beforehand under a clock that walks through them; ``drain_narrow`` does so behind a link that
carries little. In all, time is counted
from the moment at which the broker answers, and the backlog is delivered when a ledger mark of history has come that
reaches the last record of before that moment. A *live* value is one that was read after the gateway was connected again;
one that is overtaken and comes as history after all counts with the age that it has then.
"""

from __future__ import annotations

import asyncio
import os
import signal
import time
from collections.abc import Iterator
from contextlib import aclosing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import msgspec
import numpy as np

from gateway.config.model import JournalOptions
from gateway.control import ask
from gateway.journal import Journal, Lane
from gateway.questions import Stat
from gateway.uplink.mark import Mark
from protocols.clock import ManualClock
from protocols.modbus.config import ModbusTcp
from protocols.modbus.driver import TCP
from protocols.model import Batch, Device
from tests.bench.broker import Latency
from tests.bench.loads import STAMP_SCAN_S, UPLINK, Load, connections
from tests.bench.measure import Spread, peak_bytes
from tests.bench.whole import Moment, Rig, running
from tests.peers.proxy import Proxy

Timed = tuple[int, Mark]
"""A ledger mark and when it came, UTC nanoseconds."""
DEADLINE_S: Final = 600.0
SETTLE_S: Final = 2.0
"""Goes by after the backlog is delivered, so that short drains have live values as well."""
LOOK_EVERY_S: Final = 0.02
VALUE_BYTES: Final = 21
"""On the wire, of a float32 in Sparkplug, with its share of everything around it."""
GROUP_ROUNDS: Final = 20
"""So many rounds of scans are stored together when a journal is written beforehand."""


@dataclass(frozen=True)
class Drained:
    """What one backlog cost. Seconds, bytes, values."""

    load: Load
    backlog_records: int
    backlog_values: int
    connected_s: float
    """From the broker's return to the gateway's NBIRTH: its waiting to try again."""
    delivered_s: float
    """From the broker's return until all of the backlog was there."""
    values_per_s: float
    """Of history, from NBIRTH on."""
    records_per_s: float
    live_multiple: float
    """``values_per_s`` over the rate at which values are read."""
    latency: Spread | None
    """Of live values, from the device to a subscriber, from NBIRTH until a little after the drain."""
    demoted: int
    """Live values that came as history."""
    missed: int
    dropped: int
    peak_bytes: int
    cpu_s_per_million: float
    """For all values that were sent, live and history."""
    cpu_share: float
    others_share: float


async def drain(load: Load, folder: Path, outage_s: float) -> Drained:
    """A running gateway loses its broker for ``outage_s``."""
    async with running(load, folder) as rig:
        await asyncio.sleep(load.warm_s)
        await rig.broker.kill()
        await asyncio.sleep(outage_s)
        return await _drained(rig)


async def drain_deep(load: Load, folder: Path, hours: float) -> Drained:
    """A gateway starts with ``hours`` of records in its journal, and then finds its broker."""
    await write(load, folder / "journal", hours)
    async with running(load, folder, with_broker=False) as rig:
        return await _drained(rig)


async def drain_narrow(load: Load, folder: Path, hours: float, times_live: float) -> Drained:
    """The same over a link that can carry ``times_live`` of what the plant says, and queues a megabyte or so, as modems do."""
    await write(load, folder / "journal", hours)
    async with Proxy("127.0.0.1", 0) as link, running(load, folder, with_broker=False, link=link) as rig:
        link.bytes_per_s = times_live * load.values_per_s * VALUE_BYTES
        return await _drained(rig)


async def _drained(rig: Rig) -> Drained:
    """Let the broker return, and look on."""
    latency = rig.latency
    head = int((await _ledger(rig))["lanes"][Lane.TELEMETRY]["head"])
    latency.recording = True
    with _frozen(rig.pid):  # else the gateway may be there before the subscriber, and nobody sees the beginning
        await rig.broker.start()
        await latency.connected.wait()
    returned_ns = time.time_ns()
    before = await rig.look()
    history = await _delivered(latency, head)
    after = await rig.look()
    await asyncio.sleep(SETTLE_S)
    latency.recording = False
    return _result(rig, returned_ns, before, after, history)


@contextmanager
def _frozen(pid: int) -> Iterator[None]:
    os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(pid, signal.SIGCONT)


async def _ledger(rig: Rig) -> dict[str, Any]:  # Any: JSON
    async with aclosing(ask(rig.folder / "journal", Stat())) as lines:
        return await anext(lines)


async def _delivered(latency: Latency, head: int) -> list[Timed]:
    """Wait for the backlog; the marks that brought it."""
    async with asyncio.timeout(DEADLINE_S):
        while True:
            if history := _history(latency.marks, head):
                return history
            await asyncio.sleep(LOOK_EVERY_S)


def _history(marks: list[Timed], head: int) -> list[Timed]:
    """The marks of history up to the one that reaches the record before ``head``; none while it has not come."""
    old = [(at_ns, mark) for at_ns, mark in marks if mark.historical and mark.lane is Lane.TELEMETRY]
    last = next((place for place, (_, mark) in enumerate(old) if mark.last >= head - 1), None)
    return [] if last is None else old[: last + 1]


def _result(rig: Rig, returned_ns: int, before: Moment, after: Moment, history: list[Timed]) -> Drained:
    load, stamps = rig.load, rig.latency.stamps
    connected_ns, done_ns = rig.latency.births_ns[0], history[-1][0]
    drain_s = (done_ns - connected_ns) / 1e9
    records, values = (sum(getattr(mark, what) for _, mark in history) for what in ("records", "values"))
    sent = sum(mark.values for at_ns, mark in rig.latency.marks if at_ns <= done_ns)
    live = [stamp for stamp in stamps if stamp.time_ns >= connected_ns]
    grown = {name: value - before.metrics.get(name, 0.0) for name, value in after.metrics.items()}
    return Drained(
        load=load,
        backlog_records=records,
        backlog_values=values,
        connected_s=(connected_ns - returned_ns) / 1e9,
        delivered_s=(done_ns - returned_ns) / 1e9,
        values_per_s=values / drain_s,
        records_per_s=records / drain_s,
        live_multiple=values / drain_s / (load.values_per_s + 1 / STAMP_SCAN_S),
        latency=Spread.of([stamp.age_s for stamp in live]),
        demoted=sum(not stamp.live for stamp in live),
        missed=int(grown.get("holdfast_scans_missed_total", 0)),
        dropped=int(grown.get("holdfast_journal_dropped_total", 0) + grown.get("holdfast_uplink_dropped_total", 0)),
        peak_bytes=peak_bytes(rig.pid),
        cpu_s_per_million=(after.cpu_s - before.cpu_s) / sent * 1e6,
        cpu_share=(after.cpu_s - before.cpu_s) / (after.at - before.at),
        others_share=after.machine.others_since(before.machine),
    )


# ------------------------------------------------------------------------------------------------------ three days ago


async def write(load: Load, folder: Path, hours: float) -> None:
    """A journal in ``folder`` as a gateway under ``load`` leaves it that had no broker for ``hours`` until now."""
    rounds = round(hours * 3600 / load.scan_s)
    clock = ManualClock(time.time_ns() - round(rounds * load.scan_s * 1e9))
    devices = _devices(load)
    journal = await Journal.open(JournalOptions(path=str(folder)), clock=clock)
    journal.reader(UPLINK)
    try:
        for number in range(rounds):
            batches = [_reading(device, number, clock.time_ns()) for device in devices]
            for batch in batches[:-1]:
                journal.offer(batch)
            if number % GROUP_ROUNDS == GROUP_ROUNDS - 1 or number == rounds - 1:
                await journal.append(batches[-1])
            else:
                journal.offer(batches[-1])
            await clock.advance(load.scan_s)
    finally:
        await journal.close()


def _devices(load: Load) -> list[Device]:
    """As the driver makes them of the site's document; the stamp device has no past."""
    ports = range(1, load.ports + 1)  # a journal knows devices, and no ports
    lines = [msgspec.convert(line, ModbusTcp) for line in connections(load, ports)[:-1]]
    return [device for line in lines for device in TCP.devices(line)]


def _reading(device: Device, number: int, time_ns: int) -> Batch:
    count = len(device.tags)
    return Batch(
        device=device,
        tag=np.arange(count, dtype=np.uint32),
        value=np.arange(count, dtype=np.float64) * 1000 + number % 1000,
        quality=np.zeros(count, dtype=np.uint32),
        time_ns=np.full(count, time_ns, dtype=np.int64),
    )
