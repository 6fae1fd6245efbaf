"""What sampled stacks say about where CPU time goes, grouped so that a person can act on it.

Two questions are asked of each stack. *Whose* time is it: the innermost frame that belongs to an area (a part of the
gateway, or a library that serves it) decides, so what NumPy does for the Sparkplug encoder counts as the encoder's. *What
kind* of work is it: the innermost frame of all decides; the kernel, a lock, NumPy, other C, or the interpreter.

A sampler takes a thread that was pushed off its core for a running one, and now and then a sleeping one too. So samples
only say how time is shared out within a thread's user and kernel time; how much there is of these comes from the kernel's
own account (:class:`ThreadCpu`). Everything here is pure.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Final, NamedTuple

AREAS: Final[tuple[tuple[str, tuple[str, ...]], ...]] = (
    ("Modbus: ask, frame, match", ("protocols/modbus/line.py", "protocols/modbus/frames.py", "protocols/modbus/wire.py", "pymodbus/")),
    ("Modbus: decode", ("protocols/modbus/decode.py", "protocols/model.py")),
    ("scans: schedule, session", ("protocols/modbus/", "protocols/schedule.py", "protocols/clock.py", "gateway/connections.py")),
    ("report by exception, latest", ("gateway/report.py", "gateway/pipeline.py", "gateway/latest.py")),
    ("journal: pack, checksum", ("gateway/journal/codec.py", "gateway/journal/record.py")),
    ("journal: SQLite", ("gateway/journal/segment.py", "apsw/")),
    ("journal: accounts, tail", ("gateway/journal/",)),
    ("Sparkplug: encode", ("protocols/sparkplug/", "google/protobuf/", "google/_upb/")),
    ("MQTT", ("protocols/mqtt/client.py", "protocols/mqtt/dial.py", "aiomqtt/", "paho/")),
    ("uplink: windows, marks", ("gateway/uplink/",)),
    ("metrics, logs", ("gateway/telemetry/", "prometheus_client/", "structlog/")),
    ("event loop", ("uvloop/", "asyncio/", "gateway/")),
)
"""Name and beginnings of file names; the first that fits counts."""
ELSEWHERE: Final = "event loop"
"""The area of stacks in which nothing of AREAS occurs: start-up and the threads' own frames."""


class Work(StrEnum):
    """What kind of work a stack does."""

    KERNEL = "kernel"
    LOCK = "locks"
    NUMPY = "NumPy"
    C = "other C"
    PYTHON = "Python"


_CALLS: Final = re.compile(
    r"writev?|send(to|msg)?|readv?|recv(from|msg)?|epoll_(wait|pwait|ctl)|p?poll|select|accept4|pwrite64|pread64|f(data)?sync|"
    r"ftruncate64|fstat(at)?64|fcntl64|open(at)?64|close|unlink|sched_yield"
)
"""Functions of the C library that do nothing but call the kernel."""
_FRAME: Final = re.compile(r"^(?P<function>.*) \((?P<file>[^()]*?)(?::(?P<line>\d+))?\)$")


class Frame(NamedTuple):
    function: str
    file: str

    @property
    def is_python(self) -> bool:
        return self.file.endswith((".py", ">"))


@dataclass(frozen=True)
class Stack:
    """What one thread was doing, outermost frame first, in ``samples`` of the samples."""

    thread: int
    frames: tuple[Frame, ...]
    samples: int


@dataclass(frozen=True)
class ThreadCpu:
    """The kernel's account of a thread over some time, in seconds."""

    name: str
    user_s: float
    kernel_s: float


@dataclass(frozen=True)
class Share:
    """CPU seconds of one function for one area."""

    area: str
    work: Work
    function: Frame
    seconds: float


def parse(folded: str) -> list[Stack]:
    """The stacks that ``py-spy record --format raw --threads`` wrote. Raises ValueError for a line that it cannot have written."""
    return [_stack(line) for line in folded.splitlines() if line]


def _stack(line: str) -> Stack:
    words, _, samples = line.rpartition(" ")
    thread, *frames = words.split(";")
    number = re.search(r"\((?:0x)?([0-9A-Fa-f]+)\)", thread)
    if not number or not frames:
        raise ValueError(f"not a stack: {line[:200]!r}")
    return Stack(int(number[1]), tuple(_frame(text) for text in frames), int(samples))


def _frame(text: str) -> Frame:
    found = _FRAME.match(text)
    return Frame(found["function"], found["file"]) if found else Frame(text, "")


def shares(stacks: Sequence[Stack], threads: Mapping[int, ThreadCpu]) -> list[Share]:
    """Where the CPU time of ``threads`` went, by the stacks that were sampled of them."""
    waits = _waiting(stacks)
    found: list[Share] = []
    for number, cpu in threads.items():
        own = [stack for stack in stacks if stack.thread == number and not _waits(stack, waits)]
        for seconds, in_kernel in ((cpu.user_s, False), (cpu.kernel_s, True)):
            ring = [stack for stack in own if (work_of(stack) is Work.KERNEL) is in_kernel]
            total = sum(stack.samples for stack in ring)
            found += [Share(area_of(stack), work_of(stack), function_of(stack), stack.samples / total * seconds) for stack in ring]
    return found


def _waiting(stacks: Iterable[Stack]) -> set[Frame]:
    """The innermost C frames in which an idle worker stands: where anybody waits for a lock or for work."""
    return {stack.frames[-1] for stack in stacks if _is_idle_worker(stack) and not stack.frames[-1].is_python}


def _is_idle_worker(stack: Stack) -> bool:
    last = next((frame for frame in reversed(stack.frames) if frame.is_python), None)
    return last is not None and last.function == "_worker" and last.file.endswith("concurrent/futures/thread.py")


def _waits(stack: Stack, waits: set[Frame]) -> bool:
    return stack.frames[-1] in waits


def area_of(stack: Stack) -> str:
    for frame in reversed(stack.frames):
        for name, files in AREAS:
            if frame.file.startswith(files):
                return name
    return ELSEWHERE


def work_of(stack: Stack) -> Work:
    last = stack.frames[-1]
    if last.is_python:
        return Work.PYTHON
    if _CALLS.fullmatch(last.function):
        return Work.KERNEL
    if any("pthread_" in frame.function for frame in stack.frames[-2:]):
        return Work.LOCK
    native = next((frame for frame in reversed(stack.frames) if not frame.file.startswith("libc.so")), last)
    return Work.NUMPY if native.file.startswith("numpy/") else Work.C if not native.is_python else Work.PYTHON


def function_of(stack: Stack) -> Frame:
    """The innermost Python function outside NumPy: the line that somebody could change."""
    ours = (frame for frame in reversed(stack.frames) if frame.is_python and frame.file.endswith(".py"))
    return next((frame for frame in ours if not frame.file.startswith("numpy/")), stack.frames[-1])


def by_area(found: Iterable[Share]) -> dict[str, dict[Work, float]]:
    """CPU seconds by area and kind of work, the dearest area first."""
    sums: dict[str, dict[Work, float]] = {}
    for share in found:
        works = sums.setdefault(share.area, dict.fromkeys(Work, 0.0))
        works[share.work] += share.seconds
    return dict(sorted(sums.items(), key=lambda item: -sum(item[1].values())))


def by_function(found: Iterable[Share]) -> list[tuple[Frame, float, float]]:
    """Functions with the CPU seconds that they took outside and inside the kernel, the dearest outside first."""
    user: defaultdict[Frame, float] = defaultdict(float)
    kernel: defaultdict[Frame, float] = defaultdict(float)
    for share in found:
        (kernel if share.work is Work.KERNEL else user)[share.function] += share.seconds
    return [(frame, user[frame], kernel[frame]) for frame in sorted({*user, *kernel}, key=lambda frame: -user[frame])]
