"""The S7 driver: plan, channel and session put together, and the probe. Wiring.

A plan is computed once for an options object and kept as long as that object lives: batches carry the very devices that ``devices``
gave, and a new session knows what the last one learnt about holes.
"""

from __future__ import annotations

import weakref
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any, Final

import msgspec

from protocols.clock import Clock
from protocols.contract import DriverError, ProbeReport, Problem
from protocols.model import Device as Known
from protocols.model import ScanStats
from protocols.s7.answer import meaning
from protocols.s7.channel import Channel
from protocols.s7.check import check
from protocols.s7.config import S7 as Options
from protocols.s7.config import Device
from protocols.s7.plan import Item, Plan, Wire, make_plan, most_bytes
from protocols.s7.session import S7Session

MAX_TAGS: Final = 50
"""Tags of one device that a probe asks one by one."""


class S7Driver:
    """See the driver contract."""

    name = "s7"
    options: type[msgspec.Struct] = Options

    def __init__(self) -> None:
        self._plans: dict[int, tuple[weakref.ref[Options], Plan]] = {}

    def check(self, options: Any) -> Sequence[Problem]:  # Any: the contract's; an Options
        return check(options)

    def devices(self, options: Any) -> Sequence[Known]:  # Any: as above
        return [plan.device for plan in self._plan(options).devices]

    @asynccontextmanager
    async def open(self, options: Any, *, clock: Clock) -> AsyncIterator[S7Session]:  # Any: as above
        stats = ScanStats()
        channel = Channel(options, stats)
        try:
            await channel.open()
            yield S7Session(options, self._plan(options), channel, clock, stats)
        finally:
            await channel.close()

    async def probe(self, options: Any) -> ProbeReport:  # Any: as above
        channel = Channel(options, ScanStats())
        try:
            await channel.open()
            said = [f"{channel.where}: connected, rack {options.rack}, slot {options.slot}, PDUs of {channel.pdu} bytes"]
            troubles = [each for device in make_plan(options).devices for each in await _asked(device.options, device.wires, channel)]
            return ProbeReport(ok=not troubles, findings=(*said, *troubles))
        except DriverError as error:
            return ProbeReport(ok=False, findings=(str(error),))
        finally:
            await channel.close()

    def _plan(self, options: Options) -> Plan:
        """The plan of this very object; equal objects have plans of their own."""
        key = id(options)
        if key not in self._plans:
            forget = weakref.ref(options, lambda _: self._plans.pop(key, None))
            self._plans[key] = (forget, make_plan(options))
        return self._plans[key][1]


async def _asked(device: Device, wires: Sequence[Wire], channel: Channel) -> list[str]:
    """What is wrong with the first tags of a device, each asked alone (of one that no answer holds whole, as much as it holds)."""
    troubles = []
    for tag, wire in zip(device.tags[:MAX_TAGS], wires[:MAX_TAGS], strict=True):
        (told,) = await channel.read([Item(wire.place.area, wire.place.block, wire.place.byte, min(wire.size, most_bytes(channel.pdu)))])
        if isinstance(told, int):
            troubles.append(f"{device.name}: tag {tag.name} at {tag.at}: {meaning(told)[1]}")
    return troubles


S7: Final = S7Driver()
