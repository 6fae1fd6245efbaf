"""The newest frames of one wire, at most so many and so many bytes: what was there before the trouble came.

The ring lies between the wire, which never waits, and whoever reads or keeps the frames: what nobody fetches in time is
overwritten, oldest first, and counted. One event loop; nothing here is shared between threads.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncGenerator
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from protocols.clock import Clock

MAX_FRAMES: Final = 100_000
MAX_BYTES: Final = 8 * 1024**2
FRAME_COST: Final = 120
"""Bytes that a frame takes beside its content, roughly."""
TICK_S: Final = 1.0
"""How often whoever reads is told that nothing came."""
MAX_FOR_S: Final = 86_400.0


class Way(StrEnum):
    SENT = "sent"
    RECEIVED = "received"
    NOTE = "note"
    """No frame: something that did not come, or that ended."""


@dataclass(frozen=True, slots=True)
class Frame:
    """What one side sent without a break, as it was on the wire."""

    time_ns: int
    """UTC: when it was handed to the wire, or when its last byte came."""
    way: Way
    content: bytes = b""
    trouble: str = ""
    """What is wrong, in words; empty where nothing is."""


class Ring:
    """See the module's text."""

    def __init__(self, max_frames: int = MAX_FRAMES, max_bytes: int = MAX_BYTES) -> None:
        self._max_frames, self._max_bytes = max_frames, max_bytes
        self._frames: deque[Frame] = deque()
        self.size = 0
        """Bytes that the frames take, FRAME_COST each included."""
        self.overwritten = 0

    def __len__(self) -> int:
        return len(self._frames)

    def append(self, frame: Frame) -> None:
        self._frames.append(frame)
        self.size += _cost(frame)
        while len(self._frames) > self._max_frames or (self.size > self._max_bytes and len(self._frames) > 1):
            self.pop()
            self.overwritten += 1

    def pop(self) -> Frame | None:
        """The oldest frame, which leaves the ring."""
        if not self._frames:
            return None
        frame = self._frames.popleft()
        self.size -= _cost(frame)
        return frame


def _cost(frame: Frame) -> int:
    return FRAME_COST + len(frame.content) + len(frame.trouble)


class Recorder:
    """A ring, and how it is read: as frames come, or all at once when trouble came and what follows it is in."""

    def __init__(self, ring: Ring, *, after_frames: int = 50, after_s: float = 5.0) -> None:
        """``after_*``: what is still recorded after the first trouble, whichever is reached first."""
        self.ring = ring
        self._after_frames, self._after_s = after_frames, after_s
        self._woken = asyncio.Event()
        self.trouble = ""
        """The first trouble, empty until there is one."""
        self._since = 0

    def take(self, frame: Frame) -> None:
        """One frame more. Cheap, and never raises."""
        self.ring.append(frame)
        if self.trouble:
            self._since += 1
        elif frame.trouble:
            self.trouble = frame.trouble
        self._woken.set()

    async def frames(self, clock: Clock, for_s: float) -> AsyncGenerator[Frame | None, None]:
        """Frames as they come, for ``for_s`` seconds; None at least every second in which nothing came."""
        end = clock.monotonic() + for_s
        while True:
            while (frame := self.ring.pop()) is not None:
                yield frame
            if clock.monotonic() >= end:
                return
            if not await self._wait(end - clock.monotonic()):
                yield None

    async def frames_around_trouble(self, clock: Clock, for_s: float) -> AsyncGenerator[Frame | None, None]:
        """None at least every second, until trouble came or ``for_s`` seconds went by; then all that the ring holds."""
        end = clock.monotonic() + for_s
        met = False
        while self._since < self._after_frames and (left_s := end - clock.monotonic()) > 0:
            if self.trouble and not met:
                met, end = True, min(end, clock.monotonic() + self._after_s)
            await self._wait(left_s)
            yield None
        while (frame := self.ring.pop()) is not None:
            yield frame

    async def _wait(self, most_s: float) -> bool:
        """Whether a frame came within ``most_s`` seconds and within a second."""
        self._woken.clear()
        try:
            async with asyncio.timeout(min(most_s, TICK_S)):
                await self._woken.wait()
        except TimeoutError:
            return False
        return True
