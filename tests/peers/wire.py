"""A serial line that takes its time: a pty whose bytes arrive as they would over a two-wire RS-485 bus.

What the gateway writes to ``wire.path`` reaches the devices byte by byte at the line's baud rate, and their answers come
back the same way. Moments are computed, not slept: a byte that is handed on late by a busy machine does not push the
next, so the line is never slower than its baud rate. Everything a bus does is there: half duplex with collisions, the
silence of 3.5 characters that ends a frame, lost and broken bytes, noise, an adapter that hears itself, a wrong baud
rate. Devices are :class:`tests.peers.unit.Unit`, or foreign programs on ``wire.tap_path``.

The line measures itself. ``optimum_s`` is the least time in which the traffic seen could have passed (each frame's
characters, the silence after it, what the device itself took to answer); ``utilisation`` is its share of the time that
passed. ``python -m tests.peers.wire`` runs a line as a process of its own, for benches.
"""

from __future__ import annotations

import argparse
import contextlib
import heapq
import itertools
import json
import os
import random
import select
import struct
import sys
import termios
import threading
import time
import tty
from collections import deque
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from types import TracebackType
from typing import Final, Literal, Self

from tests.peers.unit import Unit, rtu_content, rtu_frame

Talker = Literal["gateway", "device"]
FRAMES_KEPT: Final = 10_000
CHUNK: Final = 4096


@dataclass
class Faults:
    """What is wrong with the line; may be changed while it runs."""

    lose: float = 0.0
    """Share of bytes that never arrive."""
    corrupt: float = 0.0
    """Share of bytes of which one bit arrives wrong."""
    silent: set[int] = field(default_factory=set)
    """Unit ids that do not answer."""
    late_s: dict[int, float] = field(default_factory=dict)
    """Time that a unit takes before it answers, beyond the 3.5 characters."""
    echo: bool = False
    """The gateway's adapter hears what it sends."""
    deaf: bool = False
    """The cable is cut: nothing arrives anywhere."""


@dataclass(frozen=True, slots=True)
class Frame:
    """What one side sent without a pause. Seconds since the line was opened."""

    talker: Talker
    start_s: float
    end_s: float
    content: bytes


@dataclass(frozen=True, slots=True)
class Report:
    """What passed over the line since it was opened, or since ``forget``."""

    requests: int
    answers: int
    bytes: int
    elapsed_s: float
    """From the first character to the silence after the last."""
    busy_s: float
    """Time in which a character was on the line."""
    optimum_s: float
    """Least time in which this traffic could have passed."""
    collisions: int
    """Times that one side began while the other was talking."""
    early: int
    """Times that the gateway began before 3.5 characters of silence had passed."""

    @property
    def utilisation(self) -> float:
        return self.optimum_s / self.elapsed_s if self.elapsed_s else 0.0


@dataclass
class _End:
    """One end of the line: a pty of which we hold both sides (so that it outlives whoever opens it)."""

    talker: Talker
    ours: int
    theirs: int
    path: str
    free_at: float = 0.0
    """When its transmitter has sent everything that it was given."""
    sending: bytearray = field(default_factory=bytearray)
    began: float = 0.0


def _open_end(talker: Talker) -> _End:
    ours, theirs = os.openpty()
    tty.setraw(theirs)
    os.set_blocking(ours, False)
    return _End(talker, ours, theirs, os.ttyname(theirs))


class Wire:
    """``with Wire({1: Unit(...)}, baud=9600) as wire: ... wire.path``. Runs in a thread of its own."""

    def __init__(
        self, units: Mapping[int, Unit] | None = None, *, baud: int = 9600, bits: int = 11, tap: bool = False, seed: int = 1
    ) -> None:
        """``bits`` a character: 11 with parity or two stop bits, 10 without. ``tap`` adds an end for a foreign device."""
        self.units = dict(units or {})
        self.baud, self.character_s = baud, bits / baud
        self.silence_s = 3.5 * self.character_s if baud <= 19200 else 1.75e-3
        """MODBUS over Serial Line 1.02, 2.5.1.1: above 19,200 baud the silence is fixed."""
        self.faults = Faults()
        self.frames: deque[Frame] = deque(maxlen=FRAMES_KEPT)
        self._random = random.Random(seed)
        self._gateway = _open_end("gateway")
        self._tap = _open_end("device") if tap else None
        self._units_free_at = 0.0
        self._due: list[tuple[float, int, int | None, bytes]] = []  # moment, order, where to (None: the units listen), byte
        self._order = itertools.count()
        self._opened = time.monotonic()
        self._first = self._last = 0.0
        self._answered = 0.0
        self._count = dict.fromkeys(("requests", "answers", "bytes", "collisions", "early"), 0)
        self._optimum_s = 0.0
        self._heard = bytearray()
        self._woken, self._wake = os.pipe()
        self._lock = threading.Lock()
        self._stopping = False
        self._thread = threading.Thread(target=self._run, name="wire", daemon=True)

    @property
    def path(self) -> str:
        """The serial port to give to the gateway."""
        return self._gateway.path

    @property
    def tap_path(self) -> str:
        """The serial port to give to a foreign device."""
        assert self._tap is not None, "make the wire with tap=True"
        return self._tap.path

    def report(self) -> Report:
        with self._lock:
            elapsed = self._last + self.silence_s - self._first if self._last else 0.0
            busy = self._count["bytes"] * self.character_s
            return Report(**self._count, elapsed_s=elapsed, busy_s=busy, optimum_s=self._optimum_s)

    def forget(self) -> None:
        """Start measuring anew."""
        with self._lock:
            self._count = dict.fromkeys(self._count, 0)
            self._optimum_s = self._first = self._last = 0.0
            self.frames.clear()

    def disturb(self, noise: bytes) -> None:
        """Bytes that nobody sent arrive at the gateway."""
        with self._lock:
            self._transmit_to_gateway(noise, time.monotonic())
        os.write(self._wake, b".")

    def close(self) -> None:
        self._stopping = True
        os.write(self._wake, b".")
        self._thread.join()
        ends = [self._gateway, self._tap] if self._tap else [self._gateway]
        for descriptor in (*(fd for end in ends for fd in (end.ours, end.theirs)), self._woken, self._wake):
            os.close(descriptor)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    # ------------------------------------------------------------------------------------------ the thread

    def _run(self) -> None:
        ends = {end.ours: end for end in (self._gateway, self._tap) if end is not None}
        while not self._stopping:
            ready, _, _ = select.select([*ends, self._woken], [], [], self._wait_s())
            now = time.monotonic()
            with self._lock:
                for descriptor in ready:
                    if descriptor in ends:
                        self._take(ends[descriptor], os.read(descriptor, CHUNK), now)
                    else:
                        os.read(descriptor, CHUNK)
                self._hand_on(now)

    def _wait_s(self) -> float | None:
        return max(0.0, self._due[0][0] - time.monotonic()) if self._due else None

    def _push(self, moment: float, target: int | None, content: bytes) -> None:
        heapq.heappush(self._due, (moment, next(self._order), target, content))

    def _take(self, end: _End, content: bytes, now: float) -> None:
        """``end`` was given bytes to send: they follow what it is sending, else begin now."""
        if now > end.free_at:
            end.began = now
            end.sending.clear()
            self._begin(end.talker, now)
        start = max(now, end.free_at)
        end.sending += content
        end.free_at = start + len(content) * self.character_s
        targets = self._listeners(end)
        for at, byte in enumerate(self._spoil(end, content)):
            if byte is not None:
                for target in targets:
                    self._push(start + (at + 1) * self.character_s, target, bytes([byte]))
        self._push(end.free_at + self.silence_s, -1 - end.ours, b"")  # the silence that ends the frame, unless more follows

    def _listeners(self, end: _End) -> list[int | None]:
        """Who hears ``end``: descriptors, and None for the units."""
        if end is not self._gateway:
            return [self._gateway.ours]
        heard_by: list[int | None] = [None]
        if self._tap is not None:
            heard_by.append(self._tap.ours)
        if self.faults.echo:
            heard_by.append(self._gateway.ours)
        return heard_by

    def _begin(self, talker: Talker, now: float) -> None:
        other_free = self._gateway.free_at if talker == "device" else max(self._units_free_at, self._tap.free_at if self._tap else 0.0)
        self._first = self._first or now
        if other_free > now:
            self._count["collisions"] += 1
            self._due = [(at, n, target, b"\xa5" if content else content) for at, n, target, content in self._due]
        elif talker == "gateway" and now < self._last + self.silence_s:
            self._count["early"] += 1

    def _spoil(self, end: _End, content: bytes) -> list[int | None]:
        faults = self.faults
        wrong_rate = end is self._gateway and not self._rate_fits()
        if not (faults.lose or faults.corrupt or faults.deaf or wrong_rate):
            return list(content)
        spoilt: list[int | None] = []
        for byte in content:
            luck = self._random.random()
            if faults.deaf or luck < faults.lose:
                spoilt.append(None)
            elif luck < faults.lose + faults.corrupt:
                spoilt.append(byte ^ 1 << self._random.randrange(8))
            else:
                spoilt.append(byte ^ 0x5A if wrong_rate else byte)
        return spoilt

    def _rate_fits(self) -> bool:
        speed: int = termios.tcgetattr(self._gateway.theirs)[5]
        wanted: int | None = getattr(termios, f"B{self.baud}", None)
        return wanted is None or speed == wanted

    def _hand_on(self, now: float) -> None:
        """Everything that is due arrives; answers that this brings about may be due as well."""
        arriving: dict[int, bytearray] = {}
        while self._due and self._due[0][0] <= now:
            moment, _, target, content = heapq.heappop(self._due)
            if target is None:
                self._heard += content
            elif target < 0:
                self._silence(-1 - target, moment)
            else:
                arriving.setdefault(target, bytearray()).extend(content)
        for descriptor, characters in arriving.items():
            with contextlib.suppress(BlockingIOError):  # nobody reads that end: a real receiver overruns as well
                os.write(descriptor, characters)

    def _silence(self, descriptor: int, moment: float) -> None:
        """3.5 characters after ``descriptor`` stopped: if nothing followed, its frame is over."""
        end = self._gateway if descriptor == self._gateway.ours else self._tap
        assert end is not None
        if abs(moment - self.silence_s - end.free_at) > 1e-9:
            return
        if end is self._gateway:
            self._count_frame("gateway", end.began, end.free_at, bytes(end.sending))
            heard, self._heard = bytes(self._heard), bytearray()
            self._let_units_answer(heard, end.free_at)
        else:
            self._count_frame("device", end.began, end.free_at, bytes(end.sending))

    def _let_units_answer(self, heard: bytes, request_end: float) -> None:
        content = rtu_content(heard)
        if content is None or content[0] not in self.units or content[0] in self.faults.silent:
            return
        unit_id, pdu = content
        start = request_end + self.silence_s + self.faults.late_s.get(unit_id, 0.0)
        self._transmit_to_gateway(rtu_frame(unit_id, self.units[unit_id].answer(pdu)), start)

    def _transmit_to_gateway(self, content: bytes, start: float) -> None:
        end = start + len(content) * self.character_s
        self._units_free_at = end
        for at, byte in enumerate(self._spoil(self._gateway, content)):
            if byte is not None:
                self._push(start + (at + 1) * self.character_s, self._gateway.ours, bytes([byte]))
        self._count_frame("device", start, end, content)

    def _count_frame(self, talker: Talker, start: float, end: float, content: bytes) -> None:
        thinking = start - self._answered - self.silence_s if talker == "device" and self._answered else 0.0
        self._answered = end if talker == "gateway" else 0.0
        self._count["requests" if talker == "gateway" else "answers"] += 1
        self._count["bytes"] += len(content)
        self._optimum_s += len(content) * self.character_s + self.silence_s + thinking
        self._last = max(self._last, end)
        self.frames.append(Frame(talker, start - self._opened, end - self._opened, content))


# ---------------------------------------------------------------------------------------------- a process of its own


def counting(registers: int) -> Unit:
    """A unit whose float32 values in ``registers`` holding registers grow by one with every request."""
    scans = itertools.count()

    def renew(unit: Unit, pdu: bytes) -> None:
        if pdu[0] == 3:
            scan = next(scans)
            words = struct.unpack(f">{registers}H", struct.pack(f">{registers // 2}f", *(pair + scan for pair in range(registers // 2))))
            unit.holding.update(enumerate(words))

    return Unit(on_request=renew)


def main() -> None:
    """Says ``ready PATH``; each line on standard input is answered by ``ok`` and a report as JSON; ``forget`` starts anew."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--baud", type=int, default=9600)
    parser.add_argument("--bits", type=int, default=11)
    parser.add_argument("--units", type=int, default=1)
    parser.add_argument("--registers", type=int, default=100)
    given = parser.parse_args()
    units = {unit_id: counting(given.registers) for unit_id in range(1, given.units + 1)}
    with Wire(units, baud=given.baud, bits=given.bits) as wire:
        _say("ready", wire.path)
        for line in sys.stdin:
            report = wire.report()
            _say("ok", json.dumps(asdict(report) | {"utilisation": report.utilisation}).replace(" ", ""))
            if line.strip() == "forget":
                wire.forget()


def _say(*words: str) -> None:
    sys.stdout.write(" ".join(words) + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main()
