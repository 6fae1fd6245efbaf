"""One configured connection while it runs: its driver's session inside a link, its batches into the pipeline.

What the driver does not do is done here, once for all drivers: telling that every tag of a lost connection is bad,
adding up the statistics of successive sessions, and saying a driver's findings once.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Final

import structlog

from gateway import links
from gateway.pipeline import Take
from gateway.tasks import cancel
from protocols.clock import Clock
from protocols.contract import Admission, Admitting, Driver, Proven, Session
from protocols.model import Batch, Device, Quality, ScanStats, silence

log = structlog.get_logger("holdfast.connection")

TELL_S: Final = 5.0
"""Findings are told so often, and with every batch."""
SAID_AT_MOST: Final = 1000
"""Findings remembered per connection so that each is said once; a device that invents more is not worth the memory."""


@dataclass(slots=True)
class Connection:
    driver: Driver
    options: Any  # Any: the driver's own Struct, known to the driver alone
    devices: tuple[Device, ...]
    status: links.Status
    session: Session | None = None
    """The open session, None while there is none."""
    past: ScanStats = field(default_factory=ScanStats)
    """The statistics of the sessions that have ended."""
    said: set[str] = field(default_factory=set)
    admission: Admission | None = None
    """Says of which devices nothing is taken now."""
    watcher: Callable[[Session], None] | None = None
    """Called with every session before its first scan: who looks at this connection, as ``holdfast trace`` does."""

    @property
    def stats(self) -> ScanStats:
        """The statistics of all sessions so far."""
        return added(self.past, self.session.stats) if self.session else self.past

    async def keep(self, take: Take, clock: Clock) -> None:
        """Read this connection for ever, until cancelled."""

        admitted = self._admitted(take)

        async def session(up: links.Up) -> None:
            await self._read(admitted, clock, up)

        for device in self.devices:
            if self.admission is not None and self.admission.refusal(device.name):
                self.out_of_service(device, take, clock)
        await links.keep(session, self.status, clock=clock, on_lost=lambda: self._fall_silent(admitted, clock))

    @property
    def tells_changes_alone(self) -> bool:
        """Whether nothing but a new session would bring what was not taken meanwhile: of those that ask, the next scan does."""
        return self.session is not None and not isinstance(self.session, Admitting)

    def out_of_service(self, device: Device, take: Take, clock: Clock) -> None:
        """Say once of every tag of ``device`` that nothing of it is taken."""
        for batch in silence(device, Quality.BAD_OUT_OF_SERVICE, clock.time_ns(), lost=True):
            take(batch)

    def _admitted(self, take: Take) -> Take:
        """``take`` for what is admitted: also where a session does not ask by itself."""
        admission = self.admission
        if admission is None:
            return take

        def taken(batch: Batch) -> None:
            if not admission.refusal(batch.device.name):
                take(batch)

        return taken

    async def _read(self, take: Take, clock: Clock, up: links.Up) -> None:
        async with self.driver.open(self.options, clock=clock) as session:
            self.session = session
            if self.watcher is not None:
                self.watcher(session)
            if isinstance(session, Admitting):
                session.admission = self.admission
            proven = isinstance(session, Proven) and session.proven
            if proven:
                up()
            telling = asyncio.get_running_loop().create_task(self._tell(session, clock))
            try:
                async for batch in session.batches():
                    if not proven and not batch.lost:  # that it let us connect proves nothing; an answer does
                        proven = True
                        up()
                    take(batch)
                    if session.findings:
                        self._say(session)
            finally:
                self.past = added(self.past, session.stats)
                self.session = None
                await cancel(telling)

    def _fall_silent(self, take: Take, clock: Clock) -> None:
        for device in self.devices:
            for batch in silence(device, Quality.BAD_NO_COMMUNICATION, clock.time_ns(), lost=True):
                take(batch)

    async def _tell(self, session: Session, clock: Clock) -> None:
        """Say what was found where no batch comes that would lead to it: of a device that never speaks, for one.

        All connections do so at the same moments: the process wakes up once for hundreds of them, and waking up is what costs.
        """
        while True:
            if session.findings:
                self._say(session)
            await clock.sleep_until((clock.monotonic() // TELL_S + 1) * TELL_S)

    def _say(self, session: Session) -> None:
        for finding in session.findings:
            if finding not in self.said and len(self.said) < SAID_AT_MOST:
                self.said.add(finding)
                log.warning("finding", connection=self.status.name, finding=finding)
        session.findings.clear()


def added(one: ScanStats, other: ScanStats) -> ScanStats:
    """The sum of two statistics, as a new one."""
    return ScanStats(
        scans=one.scans + other.scans,
        missed=one.missed + other.missed,
        late_s=[a + b for a, b in zip(one.late_s, other.late_s, strict=True)],
        late_sum_s=one.late_sum_s + other.late_sum_s,
        requests=one.requests + other.requests,
        errors={reason: one.errors.get(reason, 0) + other.errors.get(reason, 0) for reason in one.errors | other.errors},
    )
