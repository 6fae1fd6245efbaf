"""What a process costs, read from the kernel, and on what machine: every bench says both.

CPU is the time that the process's threads were on a core (``/proc/PID/task/*/schedstat``, nanoseconds; user and kernel
time together), so that a load of a few percent can be measured in seconds. Memory is the most that was ever resident.
"""

from __future__ import annotations

import datetime
import os
import platform
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).parents[2]
PACKAGES: Final = ("pymodbus", "aiomqtt", "paho-mqtt", "apsw", "numpy", "uvloop", "msgspec")


def cpu_s(pid: int) -> float:
    """CPU seconds of all threads that live in ``pid``."""
    tasks = Path(f"/proc/{pid}/task")
    return sum(int((task / "schedstat").read_text().split()[0]) for task in tasks.iterdir()) / 1e9


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


def _output(*command: str) -> str:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    return done.stdout.strip() if done.returncode == 0 else "unknown"


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
