"""An ext4 file system in a file, on a loop device: one that a test may fill, and whose power it may cut."""

from __future__ import annotations

import contextlib
import fcntl
import itertools
import os
import shutil
import struct
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import pytest

PULL_THE_PLUG: Final = 0x8004587D
"""EXT4_IOC_SHUTDOWN; with flag 2 nothing is flushed, not even the log of the file system."""
NO_FLUSH: Final = struct.pack("I", 2)


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
