"""An ext4 file system in a file, on a loop device: one that a test may fill, and whose power it may cut.

A power cut shuts it down without writing anything more, not even its own log. Real power takes process and disk at once. Here the
process is frozen first (:meth:`Disk.cut_under`): a stopped thread runs nothing of its own any more, so whatever a system call answers
from then on (ext4 in shutdown may call an fsync good that it has thrown away) is never heard by anybody.

SIGSTOP does not end a system call that waits for the disk: its thread stays in it, so an fsync is cut off in its middle. A thread that
computes stops at its next instruction. Nobody sleeps between the two, or every fsync would be over by the time of the cut.
"""

from __future__ import annotations

import contextlib
import fcntl
import itertools
import os
import shutil
import signal
import struct
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import pytest

PULL_THE_PLUG: Final = 0x8004587D
"""EXT4_IOC_SHUTDOWN; with flag 2 nothing is flushed, not even the log of the file system."""
NO_FLUSH: Final = struct.pack("I", 2)
STOPPED: Final = frozenset("Tt")
INSIDE: Final = "D"
"""A thread in a system call that waits for the disk: when that is over, it stops before it hears the result."""
PATIENCE_S: Final = 30.0


class Disk:
    """An ext4 file system in a file."""

    def __init__(self, image: Path, mount: Path) -> None:
        self.image = image
        self.mount = mount

    def cut_under(self, pid: int) -> bool:
        """Freeze a process where it stands and cut the power; whether one of its threads was inside a call to the disk.

        It is left frozen, for the caller to kill. What it had said before is all that it has said.
        """
        os.kill(pid, signal.SIGSTOP)
        end = time.monotonic() + PATIENCE_S
        while not (states := _states(pid)) <= STOPPED | {INSIDE}:
            assert time.monotonic() < end, f"threads of process {pid} do not stop within {PATIENCE_S:g} s: {sorted(states)}"
        self.cut()
        return INSIDE in states

    def cut(self) -> None:
        """Cut the power of the disk alone: a process that writes to it lives on, and sees errors."""
        descriptor = os.open(self.mount, os.O_RDONLY)
        try:
            fcntl.ioctl(descriptor, PULL_THE_PLUG, NO_FLUSH)
        finally:
            os.close(descriptor)

    def fill(self) -> Path:
        """Take every free byte, as a foreign program would; the file that holds them is returned."""
        hog = self.mount / "foreign"
        for size in (65536, 512):
            with contextlib.suppress(OSError), hog.open("ab", buffering=0) as file:
                while True:
                    file.write(bytes(size))
        return hog

    def fill_but(self, free: int) -> Path:
        """Take all but ``free`` bytes at once; the file that holds them is returned."""
        hog = self.mount / "ballast"
        space = os.statvfs(self.mount)
        with hog.open("wb") as file:
            os.posix_fallocate(file.fileno(), 0, space.f_bavail * space.f_frsize - free)
        return hog

    def take_names(self) -> Path:
        """Take every inode; the folder that holds them is returned. Space stays."""
        folder = self.mount / "names"
        folder.mkdir(exist_ok=True)
        with contextlib.suppress(OSError):
            for number in itertools.count():
                (folder / f"{number}").touch()
        return folder

    def restore(self) -> None:
        run("umount", self.mount)
        run("mount", "-o", "loop", self.image, self.mount)


def _states(pid: int) -> frozenset[str]:
    """What the threads of a process do, in the letters of proc_pid_stat(5)."""
    states = set()
    for thread in Path(f"/proc/{pid}/task").iterdir():
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):  # it ended a moment ago
            states.add((thread / "stat").read_text().rpartition(") ")[2][0])
    return frozenset(states)


@contextlib.contextmanager
def disk(folder: Path, megabytes: int, *options: str) -> Iterator[Disk]:
    """Skips, with the reason, where this machine cannot mount. ``options`` are those of mkfs.ext4."""
    image, mount = folder / "disk.img", folder / "mnt"
    if os.geteuid() or not shutil.which("mkfs.ext4"):
        pytest.skip("a power cut needs root, mkfs.ext4 and loop devices")
    mount.mkdir()
    with image.open("wb") as file:
        file.truncate(megabytes * 1024**2)
    run("mkfs.ext4", "-q", "-F", *options, image)
    try:
        run("mount", "-o", "loop", image, mount)
    except subprocess.CalledProcessError as error:
        pytest.skip(f"a power cut needs loop mounts: {error.stderr}")
    try:
        yield Disk(image, mount)
    finally:
        run("umount", "-l", mount)


def run(*command: str | Path) -> None:
    subprocess.run([str(word) for word in command], check=True, capture_output=True, text=True, timeout=60)
