"""The polling driver: plans, client and session put together. Wiring.

A plan is computed once for an options object and kept as long as that object lives: batches carry the very devices that
``devices`` gave, and a new session still knows which answers have not changed.
"""

from __future__ import annotations

import weakref
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any, Final

import msgspec

from protocols.clock import Clock
from protocols.contract import DriverError, ProbeReport, Problem
from protocols.http.check import check_http
from protocols.http.client import Client
from protocols.http.config import Http
from protocols.http.plan import Plan, make_plan
from protocols.http.probe import probe
from protocols.http.session import HttpSession
from protocols.model import Device, ScanStats
from protocols.secret import SecretMissing


class HttpDriver:
    """See the driver contract."""

    name = "http"
    options: type[msgspec.Struct] = Http

    def __init__(self) -> None:
        self._plans: dict[int, tuple[weakref.ref[Http], Plan]] = {}

    def check(self, options: Any) -> Sequence[Problem]:  # Any: the contract's; an Http
        return check_http(options)

    def devices(self, options: Any) -> Sequence[Device]:  # Any: as above
        return [plan.device for plan in self._plan(options).devices]

    @asynccontextmanager
    async def open(self, options: Any, *, clock: Clock) -> AsyncIterator[HttpSession]:  # Any: as above
        stats, plan = ScanStats(), self._plan(options)
        client = Client(options, plan.where, stats)
        session = HttpSession(options, plan, client, clock, stats)
        try:
            await client.open()
            yield session
        finally:
            await session.close()
            await client.close()

    async def probe(self, options: Any) -> ProbeReport:  # Any: as above
        plan = make_plan(options)
        client = Client(options, plan.where, ScanStats())
        try:
            await client.open()
            return await probe(plan, client)
        except (DriverError, SecretMissing) as error:
            return ProbeReport(ok=False, findings=(str(error),))
        finally:
            await client.close()

    def _plan(self, options: Http) -> Plan:
        """The plan of this very object; equal objects have plans of their own."""
        key = id(options)
        if key not in self._plans:
            forget = weakref.ref(options, lambda _: self._plans.pop(key, None))
            self._plans[key] = (forget, make_plan(options))
        return self._plans[key][1]


HTTP: Final = HttpDriver()
