"""A product under measurement: a process group of its own, what it costs, and its end.

Costs are those of the process and of everything that it started: threads that have ended and children that were waited for
are in the kernel's account of it, children that live are added.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from tests.bench.measure import peak_bytes

TICK_S: Final = 1 / os.sysconf("SC_CLK_TCK")
PATIENCE_S: Final = 15.0
MOMENT_S: Final = 0.2


class MissingPeer(Exception):
    """A product is not installed. The text says how to install it."""


class PeerEnded(Exception):
    """A product ended although nobody asked it to. The text ends with its log."""


@asynccontextmanager
async def running(command: Sequence[str], folder: Path, environment: Mapping[str, str]) -> AsyncIterator[int]:
    """The process id of ``command``, which runs in ``folder`` in a process group of its own; its log is ``folder/log``."""
    with (folder / "log").open("wb") as log:
        process = await asyncio.create_subprocess_exec(
            *command, cwd=folder, env={**os.environ, **environment}, stdout=log, stderr=log, start_new_session=True
        )
    try:
        yield process.pid
    except (OSError, ValueError):  # perhaps its account in /proc is gone, because it is
        await _must_live(process, folder)
        raise
    else:
        await _must_live(process, folder)
    finally:
        await _end(process)


async def _must_live(process: asyncio.subprocess.Process, folder: Path) -> None:
    with contextlib.suppress(TimeoutError):
        raise PeerEnded(f"the process ended with {await asyncio.wait_for(process.wait(), MOMENT_S)}:\n{tail(folder / 'log')}")


async def _end(process: asyncio.subprocess.Process) -> None:
    """Ask the process to stop, then end what is left of its group."""
    with contextlib.suppress(ProcessLookupError):
        process.send_signal(signal.SIGTERM)
    with contextlib.suppress(TimeoutError):
        await asyncio.wait_for(process.wait(), PATIENCE_S)
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)  # its session's first process: the group has its number
    await process.wait()


def tail(log: Path, lines: int = 20) -> str:
    return "\n".join(log.read_text(errors="replace").splitlines()[-lines:])


def family(pid: int) -> list[int]:
    """``pid`` and everything that descends from it and lives."""
    found = [pid]
    for each in found:
        for task in _tasks(each):
            with contextlib.suppress(FileNotFoundError, ProcessLookupError):
                found += map(int, (task / "children").read_text().split())
    return found


def _tasks(pid: int) -> list[Path]:
    try:
        return list(Path(f"/proc/{pid}/task").iterdir())
    except FileNotFoundError:
        return []


@dataclass(frozen=True)
class Cpu:
    """CPU seconds of a family, told twice, because the kernel tells nothing that is both exact and whole."""

    exact: float
    """Of the threads that live (schedstat, nanoseconds)."""
    whole: float
    """With threads that ended and children that were waited for (proc(5): utime, stime, cutime, cstime), in ticks."""

    def since(self, before: Cpu) -> float:
        """What was spent since ``before``: exact, unless something ended meanwhile and took its account along."""
        return max(self.exact - before.exact, self.whole - before.whole - 2 * TICK_S)


def family_cpu(pid: int) -> Cpu:
    pids = family(pid)
    return Cpu(sum(map(_exact_s, pids)), sum(map(_whole_s, pids)))


def _exact_s(pid: int) -> float:
    spent = 0
    for task in _tasks(pid):
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):  # it ended just now
            spent += int((task / "schedstat").read_text().split()[0])
    return spent / 1e9


def _whole_s(pid: int) -> float:
    try:
        text = Path(f"/proc/{pid}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return 0.0  # a child that ended just now: its parent's account has it
    return sum(map(int, text.rpartition(")")[2].split()[11:15])) * TICK_S


def family_peak_bytes(pid: int) -> int:
    """The sum of the most memory that each living process of the family ever had resident."""
    return sum(map(peak_bytes, family(pid)))
