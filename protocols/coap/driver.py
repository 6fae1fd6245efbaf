"""The CoAP client driver. Wiring: options to plan, channels and session."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any, Final

import msgspec

from protocols.clock import Clock
from protocols.coap.channel import Channel
from protocols.coap.check import check
from protocols.coap.config import Coap
from protocols.coap.oscore import Context
from protocols.coap.plan import Kept, Plan, make_plan
from protocols.coap.probe import browse, probe
from protocols.coap.session import CoapSession
from protocols.coap.wire import make_wire
from protocols.coap.write import Writer
from protocols.contract import DriverError, Offer, ProbeReport, Problem
from protocols.model import Device, ScanStats
from protocols.tls import client_context


class CoapDriver:
    """See the driver contract."""

    name = "coap"
    options: type[msgspec.Struct] = Coap

    def __init__(self) -> None:
        self._plans: Kept[Coap, Plan] = Kept(make_plan)

    def check(self, options: Any) -> Sequence[Problem]:  # Any: the contract's; a Coap
        return check(options)

    def devices(self, options: Any) -> Sequence[Device]:  # Any: as above
        return [plan.device for plan in self._plans.of(options).devices]

    @asynccontextmanager
    async def open(self, options: Any, *, clock: Clock) -> AsyncIterator[CoapSession]:  # Any: as above
        stats = ScanStats()
        async with channels_of(options, stats) as channels:
            session = CoapSession(options, self._plans.of(options), channels, clock, stats)
            session.write_with(Writer(session, clock).write)
            try:
                yield session
            finally:
                await session.rest()

    async def probe(self, options: Any) -> ProbeReport:  # Any: as above
        try:
            async with channels_of(options, ScanStats()) as channels:
                return await probe(make_plan(options).devices, channels)
        except DriverError as error:
            return ProbeReport(ok=False, findings=(str(error),))

    async def browse(self, options: Any, *, start: str, limit: int) -> AsyncIterator[Offer]:  # Any: as above
        async with channels_of(options, ScanStats()) as channels:
            async for offer in browse(make_plan(options).devices, channels, start, limit):
                yield offer


@asynccontextmanager
async def channels_of(options: Coap, stats: ScanStats) -> AsyncIterator[list[Channel]]:
    """The way to each device; nothing is sent yet. Raises Misfit, SecretMissing."""
    channels: list[Channel] = []
    try:
        tls = _context(options)
        for device in options.devices:
            where = f"device {device.name} at {device.where}"
            keys = Context(device.oscore, options.state_folder, where) if device.oscore else None
            channel = Channel(make_wire(device, options, stats, tls), options.timeout_s, device.block_size, keys)
            channels.append(channel)
            await channel.open()
        yield channels
    finally:
        await asyncio.gather(*(channel.close() for channel in channels))


def _context(options: Coap) -> ssl.SSLContext | None:
    return client_context(options.tls) if any(device.scheme == "coaps+tcp" for device in options.devices) else None


CLIENT: Final = CoapDriver()
