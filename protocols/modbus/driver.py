"""The four Modbus drivers: the same plan and session over four kinds of wire. Wiring.

A plan is computed once for an options object and kept as long as that object lives: a new session begins with what the
last one learnt about holes, and batches carry the very devices that ``devices`` gave.
"""

from __future__ import annotations

import weakref
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any

import msgspec

from protocols.clock import Clock
from protocols.contract import DriverError, Load, ProbeReport, Problem
from protocols.modbus.check import check, is_paced
from protocols.modbus.config import AnyConnection, ModbusRtu, ModbusRtuTcp, ModbusTcp, ModbusTls
from protocols.modbus.line import NetworkLine
from protocols.modbus.plan import Plan, make_plan
from protocols.modbus.probe import probe
from protocols.modbus.serial_line import SerialLine
from protocols.modbus.session import ModbusSession
from protocols.model import Device, ScanStats


class ModbusDriver:
    """A kind of Modbus connection. See the driver contract."""

    def __init__(self, name: str, options: type[msgspec.Struct]) -> None:
        self.name = name
        self.options = options
        self._plans: dict[int, tuple[weakref.ref[AnyConnection], Plan]] = {}

    def check(self, options: Any) -> Sequence[Problem]:  # Any: the contract's; an AnyConnection
        return check(options)

    def devices(self, options: Any) -> Sequence[Device]:  # Any: as above
        return [plan.device for plan in self._plan(options).devices]

    def load(self, options: Any) -> Load:  # Any: as above
        """Of the plan as the document gives it: what a device has taught since is not counted."""
        plan = make_plan(options)
        requests = sum(1 / group.period_s for device in plan.devices for group in device.groups for _ in group.blocks)
        return Load(requests_s=requests, share=sum(device.load() for device in plan.devices) if is_paced(options) else None)

    @asynccontextmanager
    async def open(self, options: Any, *, clock: Clock) -> AsyncIterator[ModbusSession]:  # Any: as above
        stats = ScanStats()
        line = make_line(options, stats)
        try:
            await line.open()
            yield ModbusSession(options, self._plan(options), line, clock, stats)
        finally:
            await line.close()

    async def probe(self, options: Any) -> ProbeReport:  # Any: as above
        line = make_line(options, ScanStats())
        try:
            await line.open()
            return await probe(make_plan(options), line)
        except DriverError as error:
            return ProbeReport(ok=False, findings=(str(error),))
        finally:
            await line.close()

    def _plan(self, options: AnyConnection) -> Plan:
        """The plan of this very object; equal objects have plans of their own."""
        key = id(options)
        if key not in self._plans:
            forget = weakref.ref(options, lambda _: self._plans.pop(key, None))
            self._plans[key] = (forget, make_plan(options))
        return self._plans[key][1]


def make_line(options: AnyConnection, stats: ScanStats) -> NetworkLine | SerialLine:
    return SerialLine(options, stats) if isinstance(options, ModbusRtu) else NetworkLine(options, stats)


TCP = ModbusDriver("modbus-tcp", ModbusTcp)
RTU = ModbusDriver("modbus-rtu", ModbusRtu)
RTU_OVER_TCP = ModbusDriver("modbus-rtu-tcp", ModbusRtuTcp)
TLS = ModbusDriver("modbus-tls", ModbusTls)
