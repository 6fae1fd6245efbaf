"""Every test, as three runs of pytest side by side: ``python -m tests``. With arguments there is one run, and they are pytest's.

What attacks a running gateway mostly waits, so two runs of that kind leave room for one that mostly computes. All have answers to
expect in time: none is put before another. The first run's output comes as it is made, the others' follow it whole; what failed
stands at the end once more, and one line for each run.
"""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from queue import SimpleQueue
from typing import Final

from tests.peers.leash import start


@dataclass(frozen=True)
class Part:
    """A part of all tests."""

    name: str
    words: tuple[str, ...]
    """What pytest is told, so that the parts have no test in common and miss none, whatever is added."""


FAULTS: Final = "tests/faults"
DISKS: Final = tuple(f"{FAULTS}/test_{name}.py" for name in ("kill", "power", "disk_full", "failing_disk", "slow_disk"))
"""Half of the faults, by the time that they take; a new one is of the other half."""
PEERS: Final = ("tests/contract", "tests/cases", "tests/bench", "tests/plugin", "tests/gateway/demo", "tests/gateway/faces")
API: Final = ("tests/gateway/api", "tests/holdfast")


def without(places: Sequence[str]) -> tuple[str, ...]:
    return tuple(f"--ignore={place}" for place in places)


PARTS: Final = (
    Part("disks that fail, gateways that die, and drivers with their peers", (*DISKS, *PEERS)),
    Part("every other fault, and the API", (FAULTS, *API, *without(DISKS))),
    Part("everything else", without((FAULTS, *PEERS, *API))),
)
COLOUR: Final = re.compile(r"\x1b\[[0-9;]*m")
FAILED: Final = re.compile(r"(FAILED|ERROR) ")


class Run:
    """A part that runs; its output is kept until somebody asks for it."""

    def __init__(self, part: Part) -> None:
        pytest_words = (sys.executable, "-m", "pytest", f"--color={'yes' if sys.stdout.isatty() else 'no'}", *part.words)
        self.part = part
        self._process = start(*pytest_words, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
        self._said: SimpleQueue[str | None] = SimpleQueue()
        self._listener = threading.Thread(target=self._listen)
        self._listener.start()
        self.failures: list[str] = []
        self.closing = "nothing was said"

    def _listen(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            self._said.put(line.decode(errors="replace"))
        self._said.put(None)

    def output(self) -> Iterator[str]:
        """Each line, as soon as it is there, until the run has ended."""
        while (line := self._said.get()) is not None:
            plain = COLOUR.sub("", line).strip()
            if FAILED.match(plain):
                self.failures.append(plain)
            self.closing = plain.strip("= ") or self.closing
            yield line

    def code(self) -> int:
        """What pytest ended with."""
        return self._process.wait()


def main(arguments: Sequence[str]) -> int:
    if arguments:
        os.execv(sys.executable, (sys.executable, "-m", "pytest", *arguments))
    runs = [Run(part) for part in PARTS]
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # it reaches them as well: they say how far they came, and end
    for run in runs:
        tell(f"##### {run.part.name}: pytest {' '.join(run.part.words)}\n")
        for line in run.output():
            tell(line)
    tell("\n##### all tests\n")
    for run in runs:
        for failure in run.failures:
            tell(f"{failure}\n")
    for run in runs:
        tell(f"{run.part.name}: {run.closing}\n")
    return max(abs(run.code()) for run in runs)


def tell(text: str) -> None:
    sys.stdout.write(text)
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
