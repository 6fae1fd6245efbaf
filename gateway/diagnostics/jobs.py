"""What takes a while and is looked at from outside: traces, scans, searches. Bounded in number, time and memory; any can be ended.

A job lives in memory alone: it is about now. It is forgotten an hour after its end, or when newer ones need its room.
"""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any, Final, Literal

import structlog

from gateway.objections import NotThere, TooMany
from gateway.tasks import cancel
from gateway.wires import CannotLook
from protocols.clock import Clock
from protocols.contract import DriverError
from protocols.modbus.line import Missed
from protocols.modbus.scan import Spent

log = structlog.get_logger("holdfast.diagnostics")

MOST_RUNNING: Final = 4
MOST_KEPT: Final = 20
MOST_KEPT_BYTES: Final = 32 * 2**20
EXPIRE_S: Final = 3600.0
MOST_FOUND: Final = 2000

Kind = Literal["trace", "scan", "find-number"]
State = Literal["running", "done", "failed", "cancelled"]


@dataclass(slots=True, eq=False)
class Job:
    """One of them. What it finds is added while it runs."""

    id: str
    kind: Kind
    about: str
    """The connection or network."""
    by: str
    began_ns: int
    state: State = "running"
    ended_ns: int = 0
    ended_s: float = 0.0
    progress: str = ""
    detail: str = ""
    """What there is to say at its end: a budget that was used up, or why it failed."""
    found: list[dict[str, Any]] = field(default_factory=list)  # Any: JSON
    content: bytearray = field(default_factory=bytearray)
    """Of a trace: a pcapng file."""
    frames: int = 0
    task: asyncio.Task[None] | None = None

    def tell(self, text: str) -> None:
        self.progress = text[:200]

    def find(self, one: dict[str, Any]) -> None:  # Any: JSON
        """Add a finding. Raises Spent when there are enough."""
        if len(self.found) >= MOST_FOUND:
            raise Spent(f"{MOST_FOUND} findings are enough: look at a smaller part")
        self.found.append(one)


Work = Callable[[Job], Awaitable[None]]


class Jobs:
    """All of a gateway. ``kept`` ends those that run when it is left."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._jobs: dict[str, Job] = {}

    @asynccontextmanager
    async def kept(self) -> AsyncIterator[None]:
        try:
            yield
        finally:
            for job in self.all():
                await self._end(job)

    def all(self) -> list[Job]:
        """The newest first."""
        self._tidy()
        return sorted(self._jobs.values(), key=lambda job: (-job.began_ns, job.id))

    def one(self, identity: str) -> Job:
        """Raises NotThere."""
        self._tidy()
        job = self._jobs.get(identity)
        if job is None:
            raise NotThere(
                f"no job has the id {identity[:64]!r}", "GET /api/v1/diagnostics/jobs lists them; an hour after its end one is forgotten"
            )
        return job

    def start(self, kind: Kind, about: str, by: str, work: Work) -> Job:
        """Begin ``work``. Raises TooMany."""
        self._tidy()
        running = [job for job in self._jobs.values() if job.state == "running"]
        if len(running) >= MOST_RUNNING:
            raise TooMany(f"{MOST_RUNNING} jobs are running", "end one, or wait", retry_after_s=10)
        job = Job(secrets.token_hex(8), kind, about, by, self._clock.time_ns())
        self._jobs[job.id] = job
        job.task = asyncio.create_task(self._run(job, work), name=f"{kind} {job.id}")
        job.task.add_done_callback(lambda task: self._ended(job, task))
        return job

    async def remove(self, identity: str) -> Job:
        """End it if it runs, and forget it. Raises NotThere."""
        job = self.one(identity)
        await self._end(job)
        self._jobs.pop(identity, None)
        return job

    async def _end(self, job: Job) -> None:
        if job.task is not None and not job.task.done():
            job.state = "cancelled"
            await cancel(job.task)

    async def _run(self, job: Job, work: Work) -> None:
        state: State = "done"
        try:
            await work(job)
        except Spent as spent:
            job.detail = str(spent)
        except (DriverError, Missed, CannotLook) as error:
            state, job.detail = "failed", str(error)
        job.state = state

    def _ended(self, job: Job, task: asyncio.Task[None]) -> None:
        job.ended_ns, job.ended_s = self._clock.time_ns(), self._clock.monotonic()
        if task.cancelled():
            job.state = "cancelled"
        elif (bug := task.exception()) is not None:  # ours: it ends the job, and nothing else
            job.state, job.detail = "failed", "the gateway failed at this: its log says more"
            log.error("job_failed", kind=job.kind, about=job.about, exc_info=bug)

    def _tidy(self) -> None:
        over = sorted((job for job in self._jobs.values() if job.state != "running" and job.ended_ns), key=lambda job: job.ended_s)
        for job in over:
            bytes_kept = sum(len(each.content) for each in self._jobs.values())
            old = self._clock.monotonic() - job.ended_s > EXPIRE_S
            if old or len(self._jobs) > MOST_KEPT or bytes_kept > MOST_KEPT_BYTES:
                self._jobs.pop(job.id, None)
