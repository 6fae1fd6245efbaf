"""A check of every stored byte, at somebody's wish: one at a time, beside everything else, and its result is kept until the next."""

from __future__ import annotations

import asyncio
from typing import Literal

import msgspec
import structlog

from gateway.journal import Journal, StorageError, VerifyReport
from gateway.objections import Conflict
from protocols.clock import Clock

log = structlog.get_logger("holdfast.verification")


class Check(msgspec.Struct, frozen=True, kw_only=True):
    """How the last check is, or was."""

    state: Literal["never", "running", "ended", "failed"] = "never"
    begun_ns: int = 0
    ended_ns: int = 0
    detail: str = ""
    report: VerifyReport | None = None


class Verification:
    def __init__(self, journal: Journal, clock: Clock, tasks: asyncio.TaskGroup) -> None:
        self._journal = journal
        self._clock = clock
        self._tasks = tasks
        self._task: asyncio.Task[None] | None = None
        self.last = Check()

    def begin(self) -> Check:
        """Begin to check. Raises Conflict while a check runs."""
        if self.last.state == "running":
            raise Conflict("the journal is being checked already", "ask how far it is: GET /api/v1/journal/verification")
        self.last = Check(state="running", begun_ns=self._clock.time_ns())
        self._task = self._tasks.create_task(self._run(), name="verification")
        return self.last

    async def stop(self) -> None:
        """End a check that runs: what it has not read is not checked, and nothing else is touched by it."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait([self._task])

    async def _run(self) -> None:
        begun = self.last.begun_ns
        try:
            report = await self._journal.verify()
        except StorageError as error:
            self.last = Check(state="failed", begun_ns=begun, ended_ns=self._clock.time_ns(), detail=str(error))
            log.error("verification_failed", trouble=str(error))
        else:
            self.last = Check(state="ended", begun_ns=begun, ended_ns=self._clock.time_ns(), report=report)
            log.info("verified", records=report.records, quarantined=report.quarantined, missing=report.missing)
