"""Entries of the audit log as lines, each of which names the digest of the line before. Pure.

A line is canonical JSON (UTF-8, sorted keys, no white space) and ends with a line feed; its digest is the SHA-256 of its bytes
without that. So whoever has the lines can check them with ``sha256sum``, years later and without Holdfast: ``previous`` of each
is the digest of the one above. The first line of all names 64 zeros.

A chain shows that something in it was changed, removed or put in. It cannot show that its end was cut off: whoever wants to know
that keeps the newest digest elsewhere (the log of the service says it now and then).
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from typing import Any, Final, Literal

import msgspec

NOTHING: Final = "0" * 64
"""What the first line of all names."""
LONGEST_LINE: Final = 64 * 1024
MOST_BREAKS: Final = 100
_ENCODER: Final = msgspec.json.Encoder(order="sorted")

Outcome = Literal["done", "refused", "failed"]


class Entry(msgspec.Struct, frozen=True, kw_only=True):
    """One thing that somebody did, or tried."""

    number: int = 0
    """From 1, without gaps; 0 before it is written."""
    previous: str = ""
    """The digest of the entry before."""
    time_ns: int
    who: str
    """``user:anna``, ``token:ci``, ``uplink:cloud``; empty where nobody knows."""
    source: str = ""
    """Where it came from: an address, ``console``, the name of an uplink."""
    action: str
    """The operation: ``create_user``, ``command``, ``apply_revision``."""
    on: str = ""
    """What it was done to: a path of the API, or ``device/tag``."""
    outcome: Outcome
    request: str = ""
    """Method and path, where it came through the API."""
    status: int = 0
    """What the API answered; 0 where it did not come through it."""
    detail: str = ""
    before: Any = None  # Any: JSON values, as after
    after: Any = None


class Head(msgspec.Struct, frozen=True):
    """A place in the chain: the number of an entry, and its digest."""

    number: int = 0
    digest: str = NOTHING


class Break(msgspec.Struct, frozen=True, kw_only=True):
    """One place where a chain does not hold."""

    line: int
    """From 1, counted over all that was read."""
    number: int
    """Of the entry there; 0 where it cannot be read."""
    what: str


class Verdict(msgspec.Struct, frozen=True, kw_only=True):
    """What became of checking a chain."""

    entries: int
    first: int
    """Number of the first entry; 0 where there is none."""
    head: Head
    """The last entry: compare its digest with one that was kept elsewhere."""
    broken: tuple[Break, ...] = ()
    """At most MOST_BREAKS."""

    @property
    def holds(self) -> bool:
        return not self.broken


def line_of(entry: Entry) -> bytes:
    """``entry`` as a line, without its line feed."""
    return _ENCODER.encode(entry)


def digest_of(line: bytes) -> str:
    """The digest of a line without its line feed."""
    return hashlib.sha256(line).hexdigest()


def entry_of(line: bytes) -> Entry:
    """The entry in ``line``. Raises ValueError."""
    return msgspec.json.decode(line, type=Entry)


def verify(lines: Iterable[bytes], after: Head | None = None) -> Verdict:
    """Whether ``lines`` (with line feeds or without) are a chain that goes on from ``after``; None takes the first as it is."""
    head, broken, first, entries, at = after, list[Break](), 0, 0, 0
    for at, line in enumerate(lines, start=1):
        bare = line.removesuffix(b"\n")
        try:
            entry = entry_of(bare)
        except ValueError as error:  # also msgspec's and Unicode's
            broken.append(Break(line=at, number=0, what=f"this is no entry: {str(error)[:200]}"))
            head = None if head is None else Head(head.number + 1, "")
            continue
        wrong = _wrong(entry, head)
        if wrong:
            broken.append(Break(line=at, number=entry.number, what=wrong))
        head = Head(entry.number, digest_of(bare))
        first, entries = first or entry.number, entries + 1
    return Verdict(entries=entries, first=first, head=head or Head(), broken=tuple(broken[:MOST_BREAKS]))


def _wrong(entry: Entry, head: Head | None) -> str:
    """What is wrong with ``entry`` as the one that follows ``head``; empty where nothing is."""
    if head is None:
        return "" if entry.number > 1 or entry.previous == NOTHING else "the first entry of all names one before it"
    if entry.number > head.number + 1:
        return f"entries {head.number + 1} to {entry.number - 1} are missing"
    if entry.number <= head.number:
        return f"entry {head.number + 1} should stand here: this one was put in, or stands in the wrong place"
    if not head.digest:
        return ""  # what stands above cannot be read, and that is said there
    return "" if entry.previous == head.digest else "the entry above it is not the one that it followed: one of the two was changed"
