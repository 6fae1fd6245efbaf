"""What a process costs, read from the kernel, and on what machine: every bench says both.

CPU is the time that the process's threads were on a core (``/proc/PID/task/*/schedstat``, nanoseconds; user and kernel
time together), so that a load of a few percent can be measured in seconds. Memory is the most that was ever resident.
"""

from __future__ import annotations

import datetime
import os
import platform
import subprocess
import time
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from tempfile import mkdtemp
from typing import Final

from tests.bench.stacks import ThreadCpu

ROOT: Final = Path(__file__).parents[2]
TICKS: Final = os.sysconf("SC_CLK_TCK")
PACKAGES: Final = ("pymodbus", "aiomqtt", "paho-mqtt", "apsw", "numpy", "uvloop", "msgspec")


def cpu_s(pid: int) -> float:
    """CPU seconds of all threads that live in ``pid``."""
    tasks = Path(f"/proc/{pid}/task")
    return sum(int((task / "schedstat").read_text().split()[0]) for task in tasks.iterdir()) / 1e9


def thread_cpu(pid: int) -> dict[int, ThreadCpu]:
    """The account of each thread that lives in ``pid``, by its number; how it is split into user and kernel time is by the tick."""
    found: dict[int, ThreadCpu] = {}
    for task in Path(f"/proc/{pid}/task").iterdir():
        name, _, fields = (task / "stat").read_text().partition(" (")[2].rpartition(") ")
        user, kernel = (int(ticks) / TICKS for ticks in fields.split()[11:13])
        found[int(task.name)] = ThreadCpu(name, user, kernel)
    return found


def peak_bytes(pid: int) -> int:
    """Most memory that ``pid`` ever had resident (VmHWM)."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) * 1024
    raise ValueError(f"process {pid} has no VmHWM")


def machine() -> dict[str, str]:
    """The machine, the date and the versions that a figure belongs to."""
    model = [line.split(":")[1].strip() for line in Path("/proc/cpuinfo").read_text().splitlines() if line.startswith("model name")]
    memory = int(Path("/proc/meminfo").read_text().split()[1]) * 1024
    return {
        "date": datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%d %H:%M UTC"),
        "commit": _output("git", "-C", str(ROOT), "describe", "--always", "--dirty"),
        "cpu": f"{os.cpu_count()} x {model[0] if model else platform.machine()}",
        "memory": f"{memory / 2**30:.1f} GiB",
        "system": f"{platform.system()} {platform.release()}",
        "load": " ".join(f"{load:.1f}" for load in os.getloadavg()),
        "python": platform.python_version(),
        **{package: version(package) for package in PACKAGES},
    }


@dataclass(frozen=True)
class Machine:
    """How busy the whole machine has been since it started, and how much of that was this bench; CPU seconds."""

    at: float
    busy_s: float
    """Of all cores together; what the hypervisor took counts as busy."""
    own_s: float
    """Of this process, its children and theirs, as far as they live."""

    @classmethod
    def now(cls) -> Machine:
        user, nice, system, _, _, interrupts, soft, steal = map(int, Path("/proc/stat").read_text().split(maxsplit=9)[1:9])
        busy = (user + nice + system + interrupts + soft + steal) / TICKS
        return cls(time.monotonic(), busy, sum(cpu_s(pid) for pid in _family(os.getpid())))

    def others_since(self, before: Machine) -> float:
        """Share of the machine's cores that neither idled nor worked for this bench since ``before``."""
        taken = self.busy_s - before.busy_s - (self.own_s - before.own_s)
        return max(0.0, taken / (self.at - before.at) / (os.cpu_count() or 1))


def _family(pid: int) -> list[int]:
    """``pid`` and all its living descendants."""
    children = [int(child) for task in Path(f"/proc/{pid}/task").iterdir() for child in (task / "children").read_text().split()]
    return [pid, *(descendant for child in children for descendant in _family(child))]


def _output(*command: str) -> str:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    return done.stdout.strip() if done.returncode == 0 else "unknown"


def workplace(under: Path, prefix: str) -> Path:
    """A new folder for one run, so that two at the same time do not remove each other's journals."""
    under.mkdir(parents=True, exist_ok=True)
    return Path(mkdtemp(prefix=prefix, dir=under))


@dataclass(frozen=True)
class Spread:
    """A few quantiles of a distribution, in seconds."""

    p50: float
    p99: float
    most: float

    @classmethod
    def of(cls, values: Sequence[float]) -> Spread | None:
        """None where there are no values."""
        if not values:
            return None
        ordered = sorted(values)
        return cls(ordered[len(ordered) // 2], ordered[min(len(ordered) - 1, len(ordered) * 99 // 100)], ordered[-1])


def quantile_bound(counts: Sequence[tuple[float, float]], share: float) -> float:
    """The least bucket bound below which ``share`` of a cumulative histogram (bound, count up to it) lies; 0 for an empty one."""
    total = counts[-1][1] if counts else 0.0
    return next((bound for bound, count in counts if total and count >= share * total), 0.0)
