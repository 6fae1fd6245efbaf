"""The process dies at a random instant: by SIGKILL, and by a power cut that takes unsynced data with it."""

from __future__ import annotations

import contextlib
import fcntl
import os
import random
import shutil
import struct
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.faults.journal.crash import Confirmed, judge, run_and_kill
from tests.faults.journal.plant import LONG

KILLS = 1000 if LONG else 12
CUTS = 1000 if LONG else 12
PULL_THE_PLUG = 0x8004587D
"""EXT4_IOC_SHUTDOWN; with flag 2 nothing is flushed, not even the log of the file system."""
NO_FLUSH = struct.pack("I", 2)


async def test_a_killed_process_loses_nothing_confirmed(dice: random.Random, tmp_path: Path) -> None:
    confirmed = Confirmed()
    for kill in range(KILLS):
        await run_and_kill(tmp_path / "journal", confirmed, dice.randrange(20, 400), dice.random() * 0.05)
        if kill % 5 == 4 or kill == KILLS - 1:  # in between, the next writer must cope alone
            await judge(tmp_path / "journal", confirmed)


async def test_a_power_cut_loses_nothing_confirmed(dice: random.Random, tmp_path: Path) -> None:
    """A loop-mounted ext4 is shut down without flushing, unmounted, mounted again."""
    confirmed = Confirmed()
    with disk(tmp_path, 192) as power:
        for _ in range(CUTS):
            await run_and_kill(power.mount / "journal", confirmed, dice.randrange(20, 400), dice.random() * 0.05, power.cut)
            power.restore()
            await judge(power.mount / "journal", confirmed)


class Disk:
    """An ext4 file system in a file."""

    def __init__(self, image: Path, mount: Path) -> None:
        self.image = image
        self.mount = mount

    def cut(self) -> None:
        descriptor = os.open(self.mount, os.O_RDONLY)
        try:
            fcntl.ioctl(descriptor, PULL_THE_PLUG, NO_FLUSH)
        finally:
            os.close(descriptor)

    def restore(self) -> None:
        run("umount", self.mount)
        run("mount", "-o", "loop", self.image, self.mount)


@contextlib.contextmanager
def disk(folder: Path, megabytes: int) -> Iterator[Disk]:
    """Skips, with the reason, where this machine cannot mount."""
    image, mount = folder / "disk.img", folder / "mnt"
    if os.geteuid() or not shutil.which("mkfs.ext4"):
        pytest.skip("a power cut needs root, mkfs.ext4 and loop devices")
    mount.mkdir()
    with image.open("wb") as file:
        file.truncate(megabytes * 1024**2)
    run("mkfs.ext4", "-q", "-F", image)
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
