"""strace as the disk's enemy: it delays or fails chosen system calls of a program, and writes down which.

``Strace(log, "fdatasync", "error=EIO:when=5+20").prefix`` is put before a command. The program keeps its process id (``-D``),
and only the calls that are named cost anything (``--seccomp-bpf``). Counts of ``when=`` are of each thread; the journal has
one. An injected error means that the real call was not made.
"""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import pytest

LINE: Final = re.compile(
    r"^(?P<thread>\d+) +(?P<time>\d+\.\d+) (?P<name>\w+)\((?:(?P<fd>\d+)<(?P<open>[^>]*)>|(?:AT_FDCWD<[^>]*>, )?\"(?P<path>[^\"]*)\")?"
    r".* = (?P<result>-?\d+)(?P<rest>.*?)(?: <(?P<took>\d+\.\d+)>)?$"
)
UNFINISHED: Final = " <unfinished ...>"
RESUMED: Final = re.compile(r"^\d+ +\d+\.\d+ <\.\.\. \w+ resumed>(.*)$")


@dataclass(frozen=True, slots=True)
class Call:
    """One system call that was made."""

    thread: int
    time_s: float
    name: str
    path: str
    result: int
    injected: bool
    """Failed or delayed by us."""
    took_s: float


class Strace:
    """``calls`` are traced and done harm to; ``watched`` are only traced. Skips where strace is missing."""

    def __init__(self, log: Path, calls: str, harm: str, *, watched: str = "") -> None:
        if shutil.which("strace") is None:
            pytest.skip("harm at the system call needs strace")
        self._log = log
        traced = ",".join(filter(None, (calls, watched)))
        how = ("-D", "-f", "--seccomp-bpf", "-ttt", "-T", "-y", "-s", "0", "-o", str(log))
        self.prefix: tuple[str, ...] = ("strace", *how, "-e", f"trace={traced}", "-e", "signal=none", "-e", f"inject={calls}:{harm}")

    def calls(self) -> Iterator[Call]:
        """What the program called, in order."""
        begun: dict[str, str] = {}  # by thread: a call during which another thread made one
        for part in self._log.read_text().splitlines() if self._log.exists() else ():
            thread, _, _ = part.partition(" ")
            if part.endswith(UNFINISHED):
                begun[thread] = part.removesuffix(UNFINISHED)
                continue
            resumed = RESUMED.match(part)
            line = begun.pop(thread, "") + resumed[1] if resumed is not None else part
            found = LINE.match(line)
            if found is not None:
                path = found["open"] or found["path"] or ""
                injected = "(INJECTED)" in found["rest"] or "(DELAYED)" in found["rest"]
                took_s = float(found["took"] or 0)
                yield Call(int(found["thread"]), float(found["time"]), found["name"], path, int(found["result"]), injected, took_s)

    def harmed(self) -> int:
        """How many calls were failed or delayed."""
        return sum(call.injected for call in self.calls())
