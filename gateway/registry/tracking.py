"""How each device is, from a small sample now and then: last seen, share of good values, and what is left of the error budget.

Nothing is done for a value: every SAMPLE_S the last values of all devices are looked at, some devices in one go, and those of one
device when it is asked for. The budget is about the last 24 hours, in steps of a quarter of an hour, and begins anew with the gateway:
``covered_s`` says how much of the day it knows.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from typing import Final

import numpy as np
from numpy.typing import NDArray

from gateway.latest import Latest
from protocols.clock import Clock
from protocols.model import Device

SAMPLE_S: Final = 10.0
AT_ONCE: Final = 50
"""Devices that are looked at before others have their turn."""
STEP_S: Final = 900
STEPS: Final = 96
TARGET: Final = 0.99
"""Share of good values that a device owes us, in 24 hours."""


@dataclass(slots=True)
class Track:
    """What is known of one device."""

    device: Device
    began_s: float
    last_seen_ns: int = 0
    """Time of its newest good value; 0: there was none since the start."""
    lost: bool = False
    lost_since_ns: int = 0
    good_now: float = 0.0
    """Share of its tags whose last value is good."""
    step: int = 0
    good: NDArray[np.int64] = field(default_factory=lambda: np.zeros(STEPS, dtype=np.int64))
    total: NDArray[np.int64] = field(default_factory=lambda: np.zeros(STEPS, dtype=np.int64))

    @property
    def good_day(self) -> float | None:
        """Share of good values in the last 24 hours; None before the first sample."""
        total = int(self.total.sum())
        return int(self.good.sum()) / total if total else None

    @property
    def budget_left(self) -> float | None:
        """Share of the error budget that is left: 1 all, 0 none; below 0 it is overdrawn."""
        share = self.good_day
        return None if share is None else 1 - (1 - share) / (1 - TARGET)

    def sample(self, latest: Latest, now_s: float, now_ns: int) -> None:
        """Look, and count what is seen."""
        self._forget(int(now_s // STEP_S))
        good, total = self.look(latest, now_ns)
        self.good[self.step % STEPS] += good
        self.total[self.step % STEPS] += total

    def look(self, latest: Latest, now_ns: int) -> tuple[int, int]:
        """How it is now; how many of its values are good, and how many it has."""
        good = total = 0
        for batch in latest.batches(self.device):
            total += len(batch)
            if not batch.quality.any():
                good, newest_ns = good + len(batch), int(batch.time_ns.max())
            elif (is_good := (batch.quality >> 30) == 0).any():
                good, newest_ns = good + int(is_good.sum()), int(batch.time_ns[is_good].max())
            else:
                continue
            self.last_seen_ns = max(self.last_seen_ns, newest_ns)
        self.good_now = good / total if total else 0.0
        lost = latest.is_lost(self.device)
        if lost and not self.lost:
            self.lost_since_ns = now_ns
        self.lost = lost
        return good, total

    def _forget(self, step: int) -> None:
        """What is older than a day."""
        for gone in range(max(self.step + 1, step - STEPS + 1), step + 1):
            self.good[gone % STEPS] = self.total[gone % STEPS] = 0
        self.step = step


class Tracking:
    """All devices of the site. Belongs to the event loop."""

    def __init__(self, latest: Latest, clock: Clock) -> None:
        self._latest = latest
        self._clock = clock
        self._tracks: dict[str, Track] = {}

    def of(self, device: str) -> Track | None:
        """How a device is now; None where there is none, or it has come just now."""
        track = self._tracks.get(device)
        if track is not None and self._latest.device(device) is track.device:
            track.look(self._latest, self._clock.time_ns())
        return track

    def covered_s(self, track: Track) -> float:
        """How much of the last 24 hours is known."""
        return min(STEP_S * STEPS, self._clock.monotonic() - track.began_s)

    async def sample(self) -> list[str]:
        """Look at every device once; the names of those that have a good value."""
        devices = [device for device in self._latest.devices() if not device.name.startswith("_")]
        for name in self._tracks.keys() - {device.name for device in devices}:
            del self._tracks[name]
        seen = []
        for at, device in enumerate(devices):
            if at % AT_ONCE == AT_ONCE - 1:
                await asyncio.sleep(0)
            if self._latest.device(device.name) is device and self.sample_one(device):  # it may have been replaced meanwhile
                seen.append(device.name)
        return seen

    def sample_one(self, device: Device) -> bool:
        """Look at ``device``, which is of the site; whether it has a good value."""
        now_s = self._clock.monotonic()
        track = self._tracks.get(device.name)
        if track is None or track.device is not device:
            track = self._tracks[device.name] = Track(device, now_s, step=int(now_s // STEP_S))
        track.sample(self._latest, now_s, self._clock.time_ns())
        return track.good_now > 0
