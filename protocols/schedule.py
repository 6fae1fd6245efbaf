"""When to scan what: drift-free periods, spread phases, lateness counted, silent devices set aside. Pure: time is an argument.

A job is due at ``(k + phase) * period`` of the monotonic clock, for whole k: it cannot drift, and a reconnect does not
move it. Phases come from the connection's name and the device's place by the golden ratio, so that 500 devices at 1 s are
spread evenly, within a connection and across connections, without anybody coordinating them.

A device that does not answer is demoted: its jobs leave the schedule and one cheap retry takes their place, at growing
intervals, until it answers.
"""

from __future__ import annotations

import hashlib
import heapq
import itertools
import math
from bisect import bisect_left
from dataclasses import dataclass, field
from typing import Final

from protocols.model import LATENESS_BUCKETS_S, ScanStats

GOLDEN: Final = (math.sqrt(5) - 1) / 2
PHASES: Final = 10
"""Scans start on so many steps of their period, or fewer: see STEP_S."""
STEP_S: Final = 0.5
"""No step is shorter: fast scans start together, and slow ones of every period share their steps. Connections that share a step wake
the process once for all of them and find its code in the processor's caches, and what they bring is stored and sent together: at
100 connections of one scan a second two steps cost two thirds of what five cost for a value, and half of what ten cost. What it costs is
lateness: a step of 50 scans is worked off in 10 ms, one of 250 in 20 ms."""
START_SPREAD_S: Final = 1.0
"""The first scans of a session are spread over this time, however long their periods are."""
FIRST_RETRY_S: Final = 2.0
MISSES: Final = 2
"""Scans in a row that find a device silent before it is demoted; one is enough for a device that has never answered."""


def phase_of(name: str, place: int = 0) -> float:
    """A share of the period, 0 <= phase < 1: even over the places of one name, and deterministic."""
    digest = hashlib.blake2b(name.encode(), digest_size=8).digest()
    return (int.from_bytes(digest, "big") / 2**64 + place * GOLDEN) % 1.0


def on_step(phase: float, period_s: float) -> float:
    """``phase`` moved back to a step of its period."""
    steps = max(1, min(PHASES, round(period_s / STEP_S)))
    return math.floor(phase * steps) / steps


@dataclass(slots=True)
class Job:
    """One thing to do again and again, or (``period_s`` 0) one retry of a demoted device."""

    device: int
    group: int
    period_s: float
    phase: float
    cost_s: float
    due: float = 0.0

    @property
    def is_retry(self) -> bool:
        return self.period_s == 0.0


def next_due(job: Job, now: float) -> float:
    """The first moment of the job's grid that is later than ``now``."""
    turn = math.floor(now / job.period_s - job.phase) + 1
    due = (turn + job.phase) * job.period_s
    return due if due > now else due + job.period_s  # the division may have rounded up


@dataclass(slots=True)
class Health:
    """What is known about one device's silence."""

    misses: int = 0
    has_answered: bool = False
    retry_s: float = 0.0
    """The current interval between retries; 0 while the device takes part."""

    @property
    def is_demoted(self) -> bool:
        return self.retry_s > 0


@dataclass(slots=True)
class Schedule:
    """The jobs of one connection, the one that is due first in front; of equals the cheapest."""

    stats: ScanStats
    retry_max_s: float = 60.0
    _jobs: list[tuple[float, float, int, Job]] = field(default_factory=list)
    _order: itertools.count[int] = field(default_factory=itertools.count)
    _members: dict[int, list[Job]] = field(default_factory=dict)
    _health: dict[int, Health] = field(default_factory=dict)
    _demoted: int = 0

    def add(self, job: Job, now: float) -> None:
        """Take ``job`` in: first soon after ``now``, then on its grid, with its phase on a step."""
        job.phase = on_step(job.phase, job.period_s)
        self._members.setdefault(job.device, []).append(job)
        self._health.setdefault(job.device, Health())
        soon = now + job.phase * min(job.period_s, START_SPREAD_S)
        job.due = min(soon, next_due(job, now))
        self._push(job)

    @property
    def due(self) -> float:
        """When the next job is due; infinity if there is none."""
        return self._jobs[0][0] if self._jobs else math.inf

    def start(self, now: float) -> Job:
        """Take the first job, which is due, count how late it is and plan its next turn. A retry is not counted."""
        job = heapq.heappop(self._jobs)[3]
        if job.is_retry:
            return job
        self._count(job, now - job.due)
        job.due = next_due(job, now)
        self._push(job)
        return job

    def _count(self, job: Job, late_s: float) -> None:
        late_s = max(0.0, late_s)
        stats = self.stats
        stats.scans += 1
        stats.missed += int(late_s / job.period_s)
        stats.late_sum_s += late_s
        stats.late_s[bisect_left(LATENESS_BUCKETS_S, late_s)] += 1

    def missed(self, device: int, now: float) -> bool:
        """``device`` did not answer a scan or a retry. True when it is demoted by this."""
        health = self._health[device]
        health.misses += 1
        if health.is_demoted:
            health.retry_s = min(2 * health.retry_s, self.retry_max_s)
            self._retry(device, now + health.retry_s)
            return False
        if health.misses < MISSES and health.has_answered:
            return False
        health.retry_s = min(FIRST_RETRY_S, self.retry_max_s)
        self._demoted += 1
        self._jobs = [entry for entry in self._jobs if entry[3].device != device]
        heapq.heapify(self._jobs)
        self._retry(device, now + health.retry_s)
        return True

    def answered(self, device: int, now: float) -> bool:
        """``device`` answered. True when this ends a demotion: its jobs are due at once, then on their grid."""
        health = self._health[device]
        health.misses, health.has_answered = 0, True
        if not health.is_demoted:
            return False
        health.retry_s = 0.0
        self._demoted -= 1
        self._jobs = [entry for entry in self._jobs if entry[3].device != device]
        heapq.heapify(self._jobs)
        for job in self._members[device]:
            job.due = now
            self._push(job)
        return True

    def is_demoted(self, device: int) -> bool:
        return self._health[device].is_demoted

    @property
    def all_demoted(self) -> bool:
        """Whether there are devices, and none of them answers."""
        return 0 < len(self._health) == self._demoted

    def _retry(self, device: int, due: float) -> None:
        self._push(Job(device, 0, 0.0, 0.0, math.inf, due))

    def _push(self, job: Job) -> None:
        heapq.heappush(self._jobs, (job.due, job.cost_s, next(self._order), job))
