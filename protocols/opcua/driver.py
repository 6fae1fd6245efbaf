"""The OPC UA driver: its plan once for an options object, a session that outlives a broken connection. Wiring.

asyncua takes a second to import and 40 MB of memory, so it is imported when a connection is first opened, in a thread: checking a
document costs nobody that, and no other connection waits for it.
"""

from __future__ import annotations

import asyncio
import importlib
import weakref
from collections.abc import AsyncIterator, Sequence
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass
from typing import Any, Final

import msgspec

from protocols.clock import Clock, SystemClock
from protocols.contract import DriverError, Offer, ProbeReport, Problem, Session, Unreachable
from protocols.model import Device, ScanStats
from protocols.opcua.check import check
from protocols.opcua.config import OpcUa
from protocols.opcua.plan import Plan, make_plan
from protocols.secret import SecretMissing


@dataclass(slots=True)
class _Known:
    """What is kept for one options object."""

    forget: weakref.ref[OpcUa]
    plan: Plan
    kept: Any = None  # Any: shell.Kept, of a module that is not imported before it is needed
    """The session of a connection that broke, to be taken up again."""


class OpcUaDriver:
    """See the driver contract."""

    name: str = "opcua"
    options: type[msgspec.Struct] = OpcUa

    def __init__(self) -> None:
        self._known: dict[int, _Known] = {}

    def check(self, options: Any) -> Sequence[Problem]:  # Any: the contract's; an OpcUa
        return check(options)

    def devices(self, options: Any) -> Sequence[Device]:  # Any: as above
        return self._of(options).plan.devices

    @asynccontextmanager
    async def open(self, options: Any, *, clock: Clock) -> AsyncIterator[Session]:  # Any: as above
        parts, known = await _parts(), self._of(options)
        kept = known.kept
        peer = await parts.shell.connect(options, clock, kept)
        known.kept = None
        account = kept.subscriptions[0] if kept is not None and kept.subscriptions else None
        session = parts.session.OpcUaSession(known.plan, peer, clock, ScanStats(), account)
        broke = False
        try:
            try:
                yield session
            except Unreachable:
                broke = True
                raise
        finally:
            broke = broke or (peer.is_lost and isinstance(peer.trouble, Unreachable))
            account = session.account() if broke else None
            if account is not None:
                known.kept = peer.keep([account])
            await peer.close(politely=account is None)

    async def probe(self, options: Any) -> ProbeReport:  # Any: as above
        parts = await _parts()
        try:
            peer = await parts.shell.connect(options, SystemClock())
            try:
                report: ProbeReport = await parts.probe.probe(make_plan(options), peer)
            finally:
                await peer.close(politely=True)
        except (DriverError, SecretMissing) as error:
            return ProbeReport(ok=False, findings=(str(error),))
        return report

    async def browse(self, options: Any, *, start: str, limit: int) -> AsyncIterator[Offer]:  # Any: as above
        parts = await _parts()
        peer = await parts.shell.connect(options, SystemClock())
        try:
            async with aclosing(parts.browse.browse(peer, start, limit, options.max_nodes)) as offers:
                async for offer in offers:
                    yield offer
        finally:
            await peer.close(politely=True)

    def _of(self, options: OpcUa) -> _Known:
        """What is kept for this very object; equal objects have plans of their own."""
        key = id(options)
        if key not in self._known:
            self._known[key] = _Known(weakref.ref(options, lambda _: self._known.pop(key, None)), make_plan(options))
        return self._known[key]


@dataclass(frozen=True)
class _Parts:
    """The modules that need asyncua."""

    shell: Any  # Any: modules
    session: Any
    probe: Any
    browse: Any


async def _parts() -> _Parts:
    names = ("shell", "session", "probe", "browse")
    return await asyncio.to_thread(lambda: _Parts(*(importlib.import_module(f"protocols.opcua.{name}") for name in names)))


OPCUA: Final = OpcUaDriver()
