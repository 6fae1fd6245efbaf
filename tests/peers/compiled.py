"""Compiles the peers that are written in C, once for each version of their source.

The programs lie in ``build/peers/`` under a name that holds the hash of source and flags, so that a changed source is
compiled again and an unchanged one never. What is missing on the machine is named with the package that brings it.
"""

from __future__ import annotations

import hashlib
import os
import subprocess
from pathlib import Path
from typing import Final

HERE: Final = Path(__file__).parent
BUILD: Final = HERE.parents[1] / "build" / "peers"
FLAGS: Final = ("-O2", "-Wall", "-Wextra", "-std=gnu11")
PACKAGE_OF: Final = {"gcc": "gcc", "pkg-config": "pkg-config", "libmodbus": "libmodbus-dev"}
"""The Debian package that brings a tool or a library."""


class PeerMissing(Exception):
    """A peer cannot be built here. The text names the package to install."""


def compiled(source: str, *libraries: str, link: tuple[str, ...] = ()) -> Path:
    """The program made from ``tests/peers/<source>`` with the pkg-config ``libraries`` and the ``link`` flags."""
    path = HERE / source
    flags = [*FLAGS, *(flag for library in libraries for flag in _pkg_config(library)), *link]
    key = hashlib.sha256(path.read_bytes() + repr(flags).encode()).hexdigest()[:16]
    program = BUILD / f"{path.stem}-{key}"
    if not program.exists():
        BUILD.mkdir(parents=True, exist_ok=True)
        fresh = program.with_suffix(f".{os.getpid()}")  # renamed into place: two test runs may build at once
        _run("gcc", str(path), "-o", str(fresh), *flags)
        fresh.rename(program)
    return program


def _pkg_config(library: str) -> list[str]:
    try:
        return _run("pkg-config", "--cflags", "--libs", library).split()
    except PeerMissing as error:
        if "pkg-config is missing" in str(error):
            raise
        package = PACKAGE_OF.get(library, library)
        raise PeerMissing(f"the C library {library} is missing: install it with: apt-get install {package}") from None


def _run(*command: str) -> str:
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    except FileNotFoundError:
        raise PeerMissing(f"{command[0]} is missing: install it with: apt-get install {PACKAGE_OF[command[0]]}") from None
    if done.returncode:
        raise PeerMissing(f"{' '.join(command)} failed:\n{done.stderr}")
    return done.stdout
