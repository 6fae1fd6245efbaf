"""Whether the wall clock can be believed, as the kernel says it (adjtimex(2)), and what is told of it to whoever receives data.

Nothing is marked value by value: that would cost every record something, and the quality of a value is the device's word, not the
clock's. Instead three things are said, which together leave no span of time open:

- with everything delivered stands how the clock is *now* (the ledger mark, the node's birth, a key in plain JSON);
- whenever that changes, or the clock is set by more than STEP_S, one record goes into the events lane under the device ``_clock``:
  how it is, how it was before and since when, and by how much it was set. What was stamped before such a record, in the same life
  of the gateway, was stamped by a clock that was off by about that much;
- a start with a clock that cannot be right (1970) is such a record at once.

The kernel calls a clock synchronised while something disciplines it (chrony with ``rtcsync``, ntpd, systemd-timesyncd). Where it may
not be asked, that is unknown, and nothing is claimed.
"""

from __future__ import annotations

import asyncio
import ctypes
import errno
import os
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from enum import StrEnum
from typing import Final, Literal

import msgspec
import numpy as np
import structlog

from gateway.config.model import CLOCK
from gateway.tasks import cancel
from protocols.clock import Clock
from protocols.model import Batch, Device, Kind, Quality, Tag

log = structlog.get_logger("holdfast.clock")

ASK_EVERY_S: Final = 5.0
NOT_BEFORE_NS: Final = 1_672_531_200_000_000_000
"""2023-01-01: before this software was begun no clock that runs it can be right."""
STEP_S: Final = 0.5
"""A clock that is this much off its course was set; what disciplines a clock moves it by 0.5 ms in a second at most."""

_STA_UNSYNC: Final = 0x0040
Leap = Literal["none", "insert", "delete", "in progress", "over", "unknown"]
_LEAPS: Final[dict[int, Leap]] = {0: "none", 1: "insert", 2: "delete", 3: "in progress", 4: "over"}
"""What adjtimex(2) returns. 5 (TIME_ERROR) says that the clock is not synchronised, and hides the rest."""


class Word(StrEnum):
    """How the clock is, in one word."""

    SYNCHRONISED = "synchronised"
    UNSYNCHRONISED = "unsynchronised"
    """Nothing disciplines it: it runs freely from where it was set."""
    WRONG = "wrong"
    """It stands before 2023: it was never set."""
    UNKNOWN = "unknown"
    """The kernel may not be asked, or is none that knows."""


class Kernel(msgspec.Struct, frozen=True, kw_only=True):
    """What the kernel says of its clock. Errors in microseconds; they mean something only while it is synchronised."""

    synchronised: bool
    estimated_error_us: int
    maximum_error_us: int
    leap: Leap


class CannotAsk(Exception):
    """The kernel says nothing of its clock. The text says why."""


class ClockNow(msgspec.Struct, frozen=True, kw_only=True):
    """The clock at one moment, as it is told."""

    word: Word
    since_ns: int
    """UTC since when ``word`` has been so, as this clock says it."""
    estimated_error_us: int | None = None
    """None while it is not synchronised: then nobody can say."""
    maximum_error_us: int | None = None
    leap: Leap = "unknown"
    steps: int = 0
    """How often it has been set since the gateway started."""
    last_step_s: float = 0.0
    """By how much, the last time; positive is forward."""
    detail: str = ""

    @property
    def synchronised(self) -> bool | None:
        """None where nobody knows."""
        return None if self.word is Word.UNKNOWN else self.word is Word.SYNCHRONISED

    @property
    def rough(self) -> tuple[Word, int]:
        """What is worth a message when it changes: the word, and the doublings of the error."""
        return self.word, (self.maximum_error_us or 0).bit_length()


class _Timex(ctypes.Structure):
    """``struct timex`` of Linux; the time in it is not used."""

    _fields_ = (
        ("modes", ctypes.c_uint),
        ("offset", ctypes.c_long),
        ("freq", ctypes.c_long),
        ("maxerror", ctypes.c_long),
        ("esterror", ctypes.c_long),
        ("status", ctypes.c_int),
        ("constant", ctypes.c_long),
        ("precision", ctypes.c_long),
        ("tolerance", ctypes.c_long),
        ("rest", ctypes.c_byte * 256),
    )


def ask_kernel() -> Kernel:
    """What adjtimex(2) says; it changes nothing and takes a microsecond. Raises CannotAsk."""
    timex = _Timex()
    try:
        libc = ctypes.CDLL(None, use_errno=True)
        state = int(libc.adjtimex(ctypes.byref(timex)))
    except (AttributeError, OSError) as error:  # a system that is not Linux
        raise CannotAsk(f"this system has no adjtimex: {error}") from error
    if state < 0:
        number = ctypes.get_errno()
        raise CannotAsk(f"adjtimex: {os.strerror(number)} ({errno.errorcode.get(number, number)}): the service may not ask")
    return Kernel(
        synchronised=not timex.status & _STA_UNSYNC,
        estimated_error_us=int(timex.esterror),
        maximum_error_us=int(timex.maxerror),
        leap=_LEAPS.get(state, "unknown"),
    )


class ClockState:
    """The clock as it is told: asked of the kernel every ASK_EVERY_S while ``watched``, and never more often."""

    def __init__(self, clock: Clock, ask: Callable[[], Kernel] = ask_kernel) -> None:
        self._clock = clock
        self._ask = ask
        self._offset_s = self._offset()
        self.now = self._asked(ClockNow(word=Word.UNKNOWN, since_ns=clock.time_ns()))
        """How it is, as it was asked last."""

    @property
    def trusted(self) -> bool:
        """False where no deadline can be judged by this clock, because it was never set. True for a clock that runs freely: on a plant
        without a time server nothing else is to be had, and it says so with everything that is delivered."""
        return self._clock.time_ns() >= NOT_BEFORE_NS

    @asynccontextmanager
    async def watched(self, record: Callable[[Batch], None]) -> AsyncIterator[None]:
        """Follow the clock until left. ``record`` takes what is worth a record."""
        _say(self.now)
        if self.now.word is Word.WRONG:
            record(batch_of(self.now, self.now, 0.0, self._clock.time_ns()))
        watching = asyncio.create_task(self._watch(record), name="clock state")
        try:
            yield
        finally:
            await cancel(watching)

    async def _watch(self, record: Callable[[Batch], None]) -> None:
        while True:
            await self._clock.sleep_until(self._clock.monotonic() + ASK_EVERY_S)
            self.look(record)

    def look(self, record: Callable[[Batch], None]) -> None:
        """Ask once, and say and record what has changed."""
        before, step_s = self.now, self._step()
        now = self._asked(before)
        if step_s:
            now = msgspec.structs.replace(now, steps=before.steps + 1, last_step_s=step_s)
            log.warning("clock_set", by_s=step_s)
        self.now = now
        if now.word is not before.word:
            _say(now)
        if step_s or now.word is not before.word:
            record(batch_of(now, before, step_s, self._clock.time_ns()))

    def _asked(self, before: ClockNow) -> ClockNow:
        at_ns = self._clock.time_ns()
        try:
            kernel, detail = self._ask(), ""
        except CannotAsk as cannot:
            kernel, detail = None, str(cannot)
        word = _word(kernel, at_ns)
        same = word is before.word
        known = kernel if kernel is not None and word is Word.SYNCHRONISED else None
        return ClockNow(
            word=word,
            since_ns=before.since_ns if same else at_ns,
            estimated_error_us=known.estimated_error_us if known else None,
            maximum_error_us=known.maximum_error_us if known else None,
            leap=kernel.leap if kernel else "unknown",
            steps=before.steps,
            last_step_s=before.last_step_s,
            detail=detail,
        )

    def _offset(self) -> float:
        return self._clock.time_ns() / 1e9 - self._clock.monotonic()

    def _step(self) -> float:
        """By how much the clock was set since it was looked at last, in seconds; 0 where it was not."""
        offset_s = self._offset()
        step_s, self._offset_s = offset_s - self._offset_s, offset_s
        return round(step_s, 6) if abs(step_s) >= STEP_S else 0.0


def _word(kernel: Kernel | None, at_ns: int) -> Word:
    if at_ns < NOT_BEFORE_NS:
        return Word.WRONG
    if kernel is None:
        return Word.UNKNOWN
    return Word.SYNCHRONISED if kernel.synchronised else Word.UNSYNCHRONISED


def _say(now: ClockNow) -> None:
    if now.word is Word.SYNCHRONISED:
        log.info("clock_synchronised", maximum_error_us=now.maximum_error_us)
    elif now.word is Word.UNKNOWN:
        log.info("clock_unknown", why=now.detail)
    else:
        log.warning("clock_not_synchronised", word=now.word.value, advice="let chrony, ntpd or systemd-timesyncd reach a time server")


_TAGS: Final = (
    Tag(name="state", kind=Kind.STRING, max_silence_s=0.0),
    Tag(name="before", kind=Kind.STRING, max_silence_s=0.0),
    Tag(name="before_since", kind=Kind.STRING, max_silence_s=0.0),
    Tag(name="set_by_s", kind=Kind.STRING, max_silence_s=0.0),
)
DEVICE: Final = Device("", CLOCK, _TAGS)
"""What changes of the clock are recorded under. All text, so that one record holds all of it."""
_SLOTS: Final = np.arange(len(_TAGS), dtype=np.uint32)


def batch_of(now: ClockNow, before: ClockNow, step_s: float, time_ns: int) -> Batch:
    """A change of the clock: its state now, the one before and since when (UTC nanoseconds, by the clock of then), and the step."""
    value = np.empty(len(_TAGS), dtype=np.object_)
    value[:] = [now.word.value, before.word.value, str(before.since_ns), f"{step_s:.6f}"]
    good = np.full(len(_TAGS), Quality.GOOD, dtype=np.uint32)
    return Batch(DEVICE, _SLOTS, value, good, np.full(len(_TAGS), time_ns, dtype=np.int64))
