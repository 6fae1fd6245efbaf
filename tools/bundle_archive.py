"""Archives whose bytes depend on their content alone, and the bundle itself: sums, signature, then the rest.

The format is told in ``ansible/plugins/module_utils/bundle.py``, which reads it; here it is written. Nothing asks the clock: every
member of a bundle has the time of the commit, and the same input gives the same bytes. In the archives inside every file has one and
the same time, so that what did not change between two releases has the same digest, and no host takes it twice.
"""

from __future__ import annotations

import hashlib
import io
import os
import shutil
import tarfile
from collections.abc import Mapping
from pathlib import Path
from typing import BinaryIO, Final

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from ansible.plugins.module_utils import bundle

Content = bytes | Path
INSIDE: Final = 315532800
"""The first of January 1980, where the time of zip begins."""


def digest(content: Content) -> str:
    """SHA-256 in hexadecimal."""
    if isinstance(content, bytes):
        return hashlib.sha256(content).hexdigest()
    with content.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def write_tar(target: BinaryIO, members: Mapping[str, Content]) -> None:
    """A plain tar of ``members`` by name (GNU's form, for names of wheels are long): mode 0644, owned by root."""
    with tarfile.open(fileobj=target, mode="w", format=tarfile.GNU_FORMAT) as archive:
        for name in sorted(members):
            content = members[name]
            about = tarfile.TarInfo(name)
            about.size = len(content) if isinstance(content, bytes) else content.stat().st_size
            about.mtime, about.mode = INSIDE, 0o644
            with io.BytesIO(content) if isinstance(content, bytes) else content.open("rb") as file:
                archive.addfile(about, file)


def sums(members: Mapping[str, Content]) -> bytes:
    """SHA256SUMS of every member, sorted by path, as sha256sum reads it."""
    return "".join(f"{digest(members[name])}  {name}\n" for name in sorted(members)).encode()


def write_bundle(path: Path, members: Mapping[str, Content], key: Ed25519PrivateKey, mtime: int) -> bytes:
    """The signed bundle, all there or not at all; returns its SHA256SUMS."""
    listed = sums(members)
    rest = sorted(name for name in members if name != bundle.ABOUT)
    ordered: list[tuple[str, Content]] = [
        (bundle.SUMS, listed),
        (bundle.SIGNATURE, key.sign(listed)),
        (bundle.ABOUT, members[bundle.ABOUT]),
    ]
    ordered += [(name, members[name]) for name in rest]
    path.parent.mkdir(parents=True, exist_ok=True)
    fresh = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        with fresh.open("wb") as file:
            for name, content in ordered:
                _add(file, name, content, mtime)
            file.write(bundle.END)
            file.flush()
            os.fsync(file.fileno())
        fresh.replace(path)
    finally:
        fresh.unlink(missing_ok=True)
    return listed


def _add(file: BinaryIO, name: str, content: Content, mtime: int) -> None:
    size = len(content) if isinstance(content, bytes) else content.stat().st_size
    file.write(bundle.header(name, size, mtime))
    with io.BytesIO(content) if isinstance(content, bytes) else content.open("rb") as source:
        shutil.copyfileobj(source, file, bundle.CHUNK)
    file.write(bytes(-size % bundle.BLOCK))
