"""The plot of the demonstration: what runs on the stage, the outage, the end, and how all of it looks at any moment.

The plot decides nothing about delivery: it kills and starts the broker, stops the scanning at the end, and waits for what
the ledger and the consumer say.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final

import msgspec

from gateway import app
from gateway.config.model import Site
from gateway.consume import Consumer, Verdict
from gateway.demo import broker as brokers
from gateway.demo import gather
from gateway.demo.view import Account, Broker, DeviceView, Far, Outage, Scanning, View, drain_s
from protocols.clock import Clock

GROUP: Final = "plant-7"
GATEWAY: Final = "gw-demo"
UPLINK: Final = "cloud"
LEAD_S: Final = 8.0
"""How long everything runs before the broker is cut."""
DRAIN_S: Final = 30.0
"""How long the end waits for what is still under way."""
BACK: Final = {
    "up": "the broker is back: what piled up is delivered",
    "connecting": "the broker is back: the gateway connects",
    "waiting": "the broker is back: the gateway tries again soon",
    "stopped": "the broker is back",
}
"""What is said after an outage, by the state of the uplink."""
LOOK_S: Final = 0.25
"""Time between two looks."""
HISTORY: Final = 240
"""Looks that are remembered: a minute."""


@dataclass
class Stage:
    """Everything that runs, and what is going on."""

    appliance: app.Appliance
    broker: brokers.Broker
    consumer: Consumer
    clock: Clock
    began: float
    outage: Outage = field(default_factory=Outage)
    phase: str = ""
    rates: gather.Rates = field(default_factory=gather.Rates)
    lag: gather.Lag = field(default_factory=gather.Lag)
    devices: tuple[DeviceView, ...] = ()
    scanning: Scanning = field(default_factory=Scanning)
    """Both as they were last seen: at the end, when scanning has stopped, the appliance has none."""

    @property
    def elapsed_s(self) -> float:
        return self.clock.monotonic() - self.began

    def account(self) -> Account:
        return gather.account(self.appliance.journal.ledger(), UPLINK)

    def look(self) -> View:
        """Everything as it is now; remembers how much was pending."""
        ledger, now_ns = self.appliance.journal.ledger(), self.clock.time_ns()
        one = gather.account(ledger, UPLINK)
        self.outage.history.append(one.pending)
        del self.outage.history[:-HISTORY]
        self.outage.peak = max(self.outage.peak, one.pending)
        if scans := self.appliance.scan_stats:
            self.devices = gather.devices(self.appliance.latest, now_ns)
            self.scanning = self.rates.scanning(self.appliance.statuses, scans, self.clock.monotonic())
        state, trouble = gather.uplink_state(self.appliance, UPLINK)
        return View(
            gateway=f"{GROUP}/{GATEWAY}",
            elapsed_s=self.elapsed_s,
            broker=Broker(self.broker.flavour.name, self.broker.up),
            devices=self.devices,
            scanning=self.scanning,
            journal_bytes=ledger.bytes,
            uplink=state,
            trouble=trouble,
            lag_s=self.lag.seconds(one, self.clock.monotonic()),
            account=one,
            far=far(self.consumer.verdict()),
            pending=tuple(self.outage.history),
            phase=self.phase,
        )

    async def wait(self, true: Callable[[], bool], stop: asyncio.Event | None, say: Callable[[], str]) -> None:
        """Until ``true()``, or ``stop`` is set; meanwhile the phase says ``say()``."""
        while not true() and not (stop and stop.is_set()):
            self.phase = say()
            await self.clock.sleep_until(self.clock.monotonic() + LOOK_S)


async def plot(stage: Stage, outage_s: float, for_s: float, stop: asyncio.Event) -> None:
    """What happens: a lead, the outage if one is wished for, and on until time is up or somebody says stop."""
    if outage_s:
        await stage.wait(lambda: stage.elapsed_s >= LEAD_S, stop, lambda: f"the broker is cut in {LEAD_S - stage.elapsed_s:.0f} s")
        if not stop.is_set():
            await cut(stage, outage_s, stop)
    drained = f"drained in {drain_s(stage.outage):.1f} s; " if stage.outage.drained_s else ""
    if for_s:
        await stage.wait(lambda: stage.elapsed_s >= for_s, stop, lambda: f"{drained}{for_s - stage.elapsed_s:.0f} s to go")
    else:
        await stage.wait(lambda: False, stop, lambda: f"{drained}Ctrl-C ends")


async def cut(stage: Stage, seconds: float, stop: asyncio.Event) -> None:
    """Kill the broker, bring it back after ``seconds``, and see everything that piled up delivered."""
    outage = stage.outage
    await stage.broker.stop()
    outage.began_s = stage.elapsed_s
    back_s = outage.began_s + seconds
    await stage.wait(lambda: stage.elapsed_s >= back_s, stop, lambda: f"the broker is away, back in {back_s - stage.elapsed_s:.0f} s")
    await stage.broker.start()
    outage.ended_s = stage.elapsed_s
    piled_up = stage.account().appended
    await stage.wait(lambda: stage.account().settled >= piled_up, stop, lambda: BACK[gather.uplink_state(stage.appliance, UPLINK)[0]])
    outage.drained_s = stage.elapsed_s


async def wind_down(stage: Stage, started: Site) -> None:
    """Stop scanning and wait until everything has arrived, for at most DRAIN_S."""
    await stage.appliance.apply(msgspec.structs.replace(started, connections=()))
    end_s = stage.elapsed_s + DRAIN_S

    def arrived() -> bool:
        one = stage.account()
        return one.pending == 0 and stage.consumer.verdict().received >= one.appended

    await stage.wait(lambda: arrived() or stage.elapsed_s > end_s, None, lambda: "scanning has stopped: the last records arrive")
    stage.phase = ""


def far(verdict: Verdict) -> Far:
    return Far(
        received=verdict.received,
        values=verdict.values,
        duplicate=verdict.duplicate,
        missing=verdict.missing,
        disorder=verdict.disorder,
        marks=verdict.marks,
        unsure=verdict.unsure,
    )
