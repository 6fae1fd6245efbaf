"""The inside of a backup: a tar file (POSIX ustar) of plain files under known names, the list of their digests last.

It can be looked at with tar. What is read is believed in nothing: only regular files, only names from a fixed table (so no path that leaves
its place, no link, no device, no odd mode can be said at all), no name twice, bounded in number and bytes, and nothing counts before the
list at the end has proven every byte.
"""

from __future__ import annotations

import hashlib
import re
import tarfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Final

import msgspec

from gateway.backup.envelope import Sink, Unsealed

BLOCK: Final = 512
PORTION: Final = 256 * 1024
FORMAT: Final = 1
ABOUT: Final = "about.json"
MANIFEST: Final = "manifest.json"
MOST_MEMBERS: Final = 50_000
LARGEST_LIST: Final = 32 * 1024 * 1024
_PART: Final = r"[A-Za-z0-9_-][A-Za-z0-9._-]{0,80}"
NAMES: Final[dict[re.Pattern[str], int]] = {
    re.compile(r"about\.json"): 64 * 1024,
    re.compile(r"site/document"): 16 * 1024 * 1024,
    re.compile(rf"site/templates/({_PART}/){{0,2}}{_PART}\.ya?ml"): 4 * 1024 * 1024,
    re.compile(r"state/state\.db"): 4 * 1024**3,
    re.compile(rf"state/authority/{_PART}"): 1024 * 1024,
    re.compile(r"state/audit/(audit-\d{12}\.ndjson|head\.json)"): 64 * 1024 * 1024,
    re.compile(r"journal/(telemetry|events)/\d{1,20}-\d{1,20}\.seg"): 1024**3,
    re.compile(r"manifest\.json"): LARGEST_LIST,
}
"""What a member may be called, and the most bytes that it may have."""


class About(msgspec.Struct, frozen=True, kw_only=True):
    """The first member: what the backup is of."""

    product: str = "holdfast"
    format: int = FORMAT
    release: str
    group: str
    gateway: str
    made_ns: int
    journal: bool
    """Whether records are in it."""


class Member(msgspec.Struct, frozen=True):
    bytes: int
    sha256: str


@dataclass(slots=True)
class Writer:
    """Writes members one after another; ``close`` adds the list."""

    out: Sink
    listed: dict[str, Member] = field(default_factory=dict)

    def add(self, name: str, size: int, portions: Iterator[bytes]) -> None:
        """``portions`` must have ``size`` bytes together."""
        limit_of(name)
        self.out.write(_head(name, size))
        digest, written = hashlib.sha256(), 0
        for portion in portions:
            self.out.write(portion)
            digest.update(portion)
            written += len(portion)
        if written != size:
            raise OSError(f"{name} changed its length while it was read: try again")
        self.out.write(bytes(-size % BLOCK))
        self.listed[name] = Member(size, digest.hexdigest())

    def add_bytes(self, name: str, content: bytes) -> None:
        self.add(name, len(content), iter((content,)))

    def close(self) -> None:
        self.add_bytes(MANIFEST, msgspec.json.format(msgspec.json.encode(self.listed), indent=1))
        self.out.write(bytes(2 * BLOCK))


class Reader:
    """Reads members in order; ``check`` at the end says whether all were as they were written. Raises Unsealed."""

    def __init__(self, read: Callable[[int], bytes]) -> None:
        self._read = read
        self._seen: dict[str, Member] = {}
        self._list: dict[str, Member] | None = None

    def members(self) -> Iterator[tuple[str, int, Iterator[bytes]]]:
        """Name, bytes and content of each; the content has to be taken before the next member is."""
        while True:
            head = self._exactly(BLOCK)
            if head == bytes(BLOCK):
                return
            if self._list is not None:
                raise Unsealed("something stands behind its list")
            name, size = _parsed(head)
            if name in self._seen or len(self._seen) >= MOST_MEMBERS:
                raise Unsealed(f"{name} is there twice, or there are too many members")
            if name == MANIFEST:
                self._list = self._take_list(size)
            else:
                yield name, size, self._content(name, size)
                if name not in self._seen:
                    raise Unsealed(f"{name} was not read to its end")
            self._exactly(-size % BLOCK)

    def check(self) -> None:
        """Nothing was changed, left out or added."""
        if self._list is None:
            raise Unsealed("its list is absent: it was cut off")
        for name in sorted(self._seen.keys() | self._list.keys()):
            if self._seen.get(name) != self._list.get(name):
                raise Unsealed(f"{name} is not as it was when the backup was made")

    def _content(self, name: str, size: int) -> Iterator[bytes]:
        digest, left = hashlib.sha256(), size
        while left:
            portion = self._exactly(min(left, PORTION))
            digest.update(portion)
            left -= len(portion)
            yield portion
        self._seen[name] = Member(size, digest.hexdigest())

    def _take_list(self, size: int) -> dict[str, Member]:
        try:
            return msgspec.json.decode(self._exactly(size), type=dict[str, Member])
        except msgspec.MsgspecError as error:
            raise Unsealed(f"its list cannot be read: {error}") from None

    def _exactly(self, size: int) -> bytes:
        content = self._read(size) if size else b""
        if len(content) < size:
            raise Unsealed("it was cut off")
        return content


def limit_of(name: str) -> int:
    """The most bytes that a member of this name may have. Raises Unsealed where no member is called so."""
    for pattern, limit in NAMES.items():
        if pattern.fullmatch(name):
            return limit
    raise Unsealed(f"it has a member that no backup has: {name[:120]!r}")


def _head(name: str, size: int) -> bytes:
    told = tarfile.TarInfo(name)
    told.size, told.mode = size, 0o600
    return told.tobuf(tarfile.USTAR_FORMAT)


def _parsed(head: bytes) -> tuple[str, int]:
    """Name and size of a member. The head has to be, byte for byte, one that :func:`_head` makes: nothing else is believed."""
    name = head[:100].rstrip(b"\0").decode("ascii", "replace")
    prefix = head[345:500].rstrip(b"\0").decode("ascii", "replace")
    name = f"{prefix}/{name}" if prefix else name
    limit = limit_of(name)
    try:
        size = int(head[124:135], 8)
    except ValueError:
        raise Unsealed(f"{name}: its length makes no sense") from None
    if not 0 <= size <= limit or _head(name, size) != head:
        raise Unsealed(f"{name} is no plain file of a backup, or is too long")
    return name, size
