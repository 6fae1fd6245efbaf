"""One campaign: many made-up inputs through one decoder, with its limits on time and memory, and a report that can be repeated.

The seed is printed. It comes from ``HOLDFAST_SEED``; else a long campaign draws one, and a short one has always the same, so
that a test that fails has met a change and not a chance. What a decoder may do with an input is for the caller to
say: it gets each input in turn and lets through only errors that are documented; whatever else comes out is a failure, which
is told with the seed, and with the input in hex, made as short as still fails in the same way.
"""

from __future__ import annotations

import gc
import os
import random
import signal
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Final

from tests.faults import figures

IS_LONG: Final = os.environ.get("HOLDFAST_CAMPAIGN") == "long"
FRAMES: Final = 1_000_000 if IS_LONG else 100_000
"""Promised for each decoder."""
SHORT_SEED: Final = 20_261_121
MOST_GROWTH: Final = 20_000_000
HUNG_S: Final = 20.0
"""No single input takes so long, on a busy machine either. Most take microseconds."""
LOOK_S: Final = 1.0
"""How often it is looked whether one does."""
WARM: Final = 2000
"""Inputs before memory is first looked at: caches fill, modules are imported."""
SHRINKS: Final = 2000
SHOWN_BYTES: Final = 4096

Judge = Callable[[bytes], None]


class Hung(Exception):
    """One input took longer than HUNG_S."""


def seed() -> int:
    """``HOLDFAST_SEED``, or one that is drawn where the campaign is long, or SHORT_SEED."""
    drawn = random.SystemRandom().randrange(2**32) if IS_LONG else SHORT_SEED
    return int(os.environ.get("HOLDFAST_SEED") or drawn)


def frames(ci: int, long: int) -> int:
    """How many inputs where one of them costs more than a decoder's: a socket, a document."""
    return long if IS_LONG else ci


def run(name: str, make: Callable[[], bytes], judge: Judge, *, seed: int, count: int = FRAMES) -> None:
    """``count`` inputs from ``make`` through ``judge``. Raises AssertionError with everything that is needed to see it again."""
    with measured(name, seed, count) as watch:
        for at in range(count):
            content = make()
            try:
                with watch.bounded():
                    judge(content)
            except Exception as error:
                raise _failure(name, seed, at, content, error, judge) from error
            if at == min(WARM, count // 10):
                watch.begin()


async def run_in_loop(name: str, make: Callable[[], bytes], judge: Callable[[bytes], Awaitable[None]], *, seed: int, count: int) -> None:
    """As :func:`run`, for what needs an event loop. Inputs are not shortened: what came before may matter."""
    with measured(name, seed, count) as watch:
        for at in range(count):
            content = make()
            try:
                with watch.bounded():
                    await judge(content)
            except Exception as error:
                raise AssertionError(_told(name, seed, at, content, error)) from error
            if at == min(WARM, count // 10):
                watch.begin()


class Watch:
    """Time and memory of one campaign. One timer looks at all its inputs: to set one for each takes longer than most decoders do."""

    def __init__(self) -> None:
        self.base = 0
        self.slowest_s = 0.0
        self._began: float | None = None

    def begin(self) -> None:
        """From here on growth counts."""
        gc.collect()
        self.base = peak_bytes(reset=True)

    @contextmanager
    def armed(self) -> Iterator[None]:
        """Within the block no :meth:`bounded` one may hang."""
        signal.signal(signal.SIGALRM, self._look)
        signal.setitimer(signal.ITIMER_REAL, LOOK_S, LOOK_S)
        try:
            yield
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)

    def bounded(self) -> Watch:
        """``with watch.bounded()`` raises Hung where the block takes longer than HUNG_S, while this is :meth:`armed`."""
        return self

    def __enter__(self) -> None:
        self._began = time.perf_counter()

    def __exit__(self, *_: object) -> None:
        assert self._began is not None
        took_s, self._began = time.perf_counter() - self._began, None
        if took_s > self.slowest_s:
            self.slowest_s = took_s

    def _look(self, number: int, frame: FrameType | None) -> None:
        if self._began is not None and time.perf_counter() - self._began > HUNG_S:
            raise Hung(f"still not done after {HUNG_S:g} s")


@contextmanager
def measured(name: str, seed: int, count: int) -> Iterator[Watch]:
    """Prints and records what a campaign took. Raises AssertionError where the process grew, even for a moment."""
    print(f"{name}: seed {seed}, {count} inputs (run it again with HOLDFAST_SEED={seed})")  # noqa: T201 # what pytest shows of a failed test
    watch, began = Watch(), time.perf_counter()
    watch.begin()
    with watch.armed():
        yield watch
    growth, seconds = peak_bytes() - watch.base, time.perf_counter() - began
    figures.record(f"fuzz/{name}", count=count, seed=seed, seconds=round(seconds, 2), growth=growth, slowest_s=round(watch.slowest_s, 4))
    assert growth <= MOST_GROWTH, f"{name}: seed {seed}: grew by {growth} bytes"


def peak_bytes(*, reset: bool = False) -> int:
    """The most memory that this process had resident since the last reset (VmHWM; proc(5), clear_refs)."""
    if reset:
        Path("/proc/self/clear_refs").write_text("5")
    status = Path("/proc/self/status").read_text()
    return 1024 * int(next(line for line in status.splitlines() if line.startswith("VmHWM")).split()[1])


def _failure(name: str, seed: int, at: int, content: bytes, error: Exception, judge: Judge) -> AssertionError:
    return AssertionError(_told(name, seed, at, shrunk(content, judge, error), error))


def _told(name: str, seed: int, at: int, content: bytes, error: Exception) -> str:
    shown = content[:SHOWN_BYTES].hex() + ("..." if len(content) > SHOWN_BYTES else "")
    return f"{name}: input {at} of seed {seed} gave {type(error).__name__}: {error}\n{len(content)} bytes: {shown}"


def shrunk(content: bytes, judge: Judge, error: Exception) -> bytes:
    """A shorter input that fails with the same kind of error: parts are left out, larger ones first, until none can be."""
    tries, size = 0, max(1, len(content) // 2)
    while size and tries < SHRINKS and not isinstance(error, Hung):
        at, smaller = 0, False
        while at < len(content) and tries < SHRINKS:
            tries += 1
            candidate = content[:at] + content[at + size :]
            if _fails(candidate, judge, type(error)):
                content, smaller = candidate, True
            else:
                at += size
        size = size if smaller and size == 1 else size // 2
    return content


def _fails(content: bytes, judge: Judge, kind: type[Exception]) -> bool:
    try:
        judge(content)
    except kind:
        return True
    except (ValueError, ArithmeticError, LookupError, TypeError, AssertionError, RuntimeError, AttributeError, OSError):
        return False
    return False
