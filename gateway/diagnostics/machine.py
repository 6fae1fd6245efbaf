"""The machine that the gateway runs on, in figures: no names of people or hosts, no environment, no command lines. For threads."""

from __future__ import annotations

import os
import platform
import shutil
from collections.abc import Iterable, Iterator
from importlib import metadata
from pathlib import Path
from typing import Any, Final

_MEMORY: Final = ("MemTotal", "MemAvailable", "SwapTotal", "SwapFree")
_PROCESS: Final = ("VmRSS", "VmHWM", "Threads", "voluntary_ctxt_switches", "nonvoluntary_ctxt_switches")


def machine(folders: Iterable[Path]) -> dict[str, Any]:  # Any: JSON
    """What is told of it. ``folders``: whose disks are looked at."""
    name = os.uname()
    return {
        "system": {"name": name.sysname, "release": name.release, "version": name.version, "machine": name.machine},
        "python": platform.python_version(),
        "processors": os.cpu_count(),
        "load": os.getloadavg(),
        "memory": dict(_lines(Path("/proc/meminfo"), _MEMORY)),
        "process": {**dict(_lines(Path("/proc/self/status"), _PROCESS)), "open_files": _open_files()},
        "disks": {str(folder): _disk(folder) for folder in folders},
    }


def versions() -> dict[str, str]:
    """The packages that are installed, with their versions."""
    return {one.name: one.version for one in sorted(metadata.distributions(), key=lambda one: (one.name or "").lower()) if one.name}


def _lines(file: Path, wanted: tuple[str, ...]) -> Iterator[tuple[str, str]]:
    try:
        text = file.read_text()
    except OSError as error:
        yield "trouble", str(error.strerror)
        return
    for line in text.splitlines():
        name, _, value = line.partition(":")
        if name in wanted:
            yield name, value.strip()


def _open_files() -> int | None:
    try:
        return sum(1 for _ in Path("/proc/self/fd").iterdir())
    except OSError:
        return None


def _disk(folder: Path) -> dict[str, Any]:  # Any: JSON
    try:
        usage, nodes = shutil.disk_usage(folder), os.statvfs(folder)
    except OSError as error:
        return {"trouble": str(error.strerror)}
    return {"total": usage.total, "used": usage.used, "free": usage.free, "inodes_free": nodes.f_favail}
