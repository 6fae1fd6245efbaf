"""The files of the audit log: appended to, made durable, begun anew when they are long, removed oldest first.

One folder. ``audit-<number of the first entry>.ndjson`` hold the lines; ``head.json`` says which entry was the last that was
removed, so that the chain can be checked from there on. A line is only acknowledged when it is on the disk. What a power cut
left behind of a line that never was is cut off when the folder is opened. Belongs to one thread; reading is for any.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import msgspec

from gateway.audit.chain import LONGEST_LINE, Entry, Head, Verdict, digest_of, entry_of, line_of, verify
from gateway.config.audit import AuditOptions

HEAD: Final = "head.json"
PARTS: Final = 16
"""The bounds are kept in steps of a file, which is this part of them."""
LONGEST_FILE: Final = 4 * 1024 * 1024
"""No file is longer: one is read whole."""
BREATH_LINES: Final = 64
BREATH_S: Final = 0.0003
"""Whoever reads much lets the event loop have the interpreter between so many lines: it scans the field meanwhile."""
DAY_NS: Final = 86_400 * 10**9
MOST_SCANNED: Final = 50_000
"""Entries that one question looks at."""


@dataclass(frozen=True, slots=True)
class Mended:
    """What was cut off the end of the newest file."""

    file: str
    removed: bytes


@dataclass(frozen=True, slots=True)
class Removed:
    """What was removed to keep the bounds."""

    first: int
    last: Head


class Store:
    """Raises OSError where the disk says no; what was acknowledged before stays good."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.head = Head()
        """The last entry that is durable."""
        self._file = -1
        self._name = ""
        self._size = 0
        self._began_ns = 0

    def open(self) -> list[Mended]:
        """Find the end of the chain. May be called again after it has failed."""
        self.folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        self.head, self._name, self._size = removed_head(self.folder), "", 0
        self._finish_removal()
        mended = []
        for path in reversed(files(self.folder)):
            content = path.read_bytes()
            good = _good_end(content)
            if good < len(content):
                mended.append(Mended(path.name, content[good:]))
            if good:
                self._go_on(path, content[:good], is_longer=good < len(content))
                break
            path.rename(path.with_name(f"damaged-{path.name}"))  # empty, mostly: the power went when it was begun
        return mended

    def _go_on(self, path: Path, content: bytes, *, is_longer: bool) -> None:
        if is_longer:
            _cut(path, len(content))
        last = content.rstrip(b"\n").rpartition(b"\n")[2]
        self.head = Head(entry_of(last).number, digest_of(last))
        self._name, self._size, self._began_ns = path.name, len(content), _began_ns(content)

    def _finish_removal(self) -> None:
        """Remove what was to be removed when the power went: files before the one that follows the removed head."""
        listed = files(self.folder)
        if self.head.number + 1 in map(first_of, listed):
            for path in listed:
                if first_of(path) <= self.head.number:
                    path.unlink()

    def append(self, entries: Sequence[Entry], options: AuditOptions) -> Removed | None:
        """Number, chain and write ``entries``; all are durable when it returns, or none is. Says what was removed for it."""
        removed = self._make_room(entries[0].time_ns, options)
        head, lines = self.head, []
        for entry in entries:
            line = line_of(msgspec.structs.replace(entry, number=head.number + 1, previous=head.digest))
            head = Head(head.number + 1, digest_of(line))
            lines.append(line + b"\n")
        content = b"".join(lines)
        try:
            self._open_file(entries[0].time_ns)
            _write(self._file, content)
            os.fsync(self._file)
        except OSError:
            self.close()  # what was written in part is cut off before anything follows it
            raise
        self._size += len(content)
        self.head = head
        return removed

    def close(self) -> None:
        if self._file >= 0:
            file, self._file = self._file, -1
            with contextlib.suppress(OSError):  # what was durable is
                os.close(file)

    def _open_file(self, now_ns: int) -> None:
        if self._file >= 0:
            return
        fresh = not self._name
        if fresh:
            self._name, self._size, self._began_ns = f"audit-{self.head.number + 1:012d}.ndjson", 0, now_ns
        self._file = os.open(self.folder / self._name, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            if os.fstat(self._file).st_size < self._size:  # somebody has taken the file away: the chain goes on in a new one
                self.close()
                self._name = ""
                self._open_file(now_ns)
                return
            os.ftruncate(self._file, self._size)
            os.lseek(self._file, 0, os.SEEK_END)
            if fresh:
                _sync_folder(self.folder)
        except OSError:
            self.close()
            raise

    def _make_room(self, now_ns: int, options: AuditOptions) -> Removed | None:
        """Begin a new file where this one is long or old, and remove what is beyond the bounds then."""
        span_ns = max(DAY_NS, options.max_days * DAY_NS // PARTS)
        if not self._size or (self._size < min(LONGEST_FILE, options.max_bytes // PARTS) and abs(now_ns - self._began_ns) < span_ns):
            return None
        removed = self._remove(now_ns, options)
        self.close()
        self._name, self._size = "", 0
        return removed

    def _remove(self, now_ns: int, options: AuditOptions) -> Removed | None:
        """Remove the oldest files beyond ``max_bytes``, and one at most for its age: a clock that errs may not cost the log."""
        listed = files(self.folder)
        sizes = [path.stat().st_size for path in listed]
        beyond = 0
        while beyond < len(listed) - 1 and sum(sizes[beyond:]) > options.max_bytes * (PARTS - 1) // PARTS:
            beyond += 1
        if not beyond and len(listed) > 1 and now_ns - _began_ns(listed[1].read_bytes()) > options.max_days * DAY_NS:
            beyond = 1
        if not beyond:
            return None
        removed = Removed(first_of(listed[0]), _before(listed[beyond]))
        _replace(self.folder / HEAD, msgspec.json.encode(removed.last))
        for path in listed[:beyond]:
            path.unlink()
        return removed


# ------------------------------------------------------------------------------------------------------ reading


def files(folder: Path) -> list[Path]:
    """The files of the log, oldest first."""
    return sorted(folder.glob("audit-*.ndjson"))


def first_of(path: Path) -> int:
    """The number of the first entry of a file."""
    return int(path.name.removeprefix("audit-").removesuffix(".ndjson"))


def removed_head(folder: Path) -> Head:
    """The last entry that was removed; number 0 where none was."""
    try:
        return msgspec.json.decode((folder / HEAD).read_bytes(), type=Head)
    except (FileNotFoundError, msgspec.MsgspecError):
        return Head()  # then the verification says which entries are missing


def lines(folder: Path, first: int = 1) -> Iterator[bytes]:
    """The lines, oldest first, from the file on that holds entry ``first``. A file that is removed meanwhile is passed over."""
    listed = files(folder)
    begins = max((at for at, path in enumerate(listed) if first_of(path) <= first), default=0)
    for path in listed[begins:]:
        with contextlib.suppress(FileNotFoundError), path.open("rb") as file:
            for at in itertools.count(1):
                line = file.readline(LONGEST_LINE)
                if not line:
                    break
                if at % BREATH_LINES == 0:
                    time.sleep(BREATH_S)
                if line.endswith(b"\n"):
                    yield line
                elif len(line) == LONGEST_LINE:
                    yield line + b"\n"  # no line of ours: the verification says so


def check(folder: Path) -> Verdict:
    """Whether all that is in ``folder`` is one chain. Raises OSError."""
    return verify(lines(folder), removed_head(folder))


def newest(folder: Path, before: int | None, wanted: Callable[[Entry], bool], limit: int) -> tuple[list[tuple[Entry, str]], int | None]:
    """At most ``limit`` entries that are ``wanted``, newest first, with their digests, and where to go on; None at the end.

    A page may be short, for no question looks at more than MOST_SCANNED entries.
    """
    found: list[tuple[Entry, str]] = []
    scanned, at = 0, before or 0
    for path in reversed(files(folder)):
        if before is not None and first_of(path) >= before:
            continue
        for place, line in enumerate(reversed(_whole_lines(path)), start=1):
            if place % BREATH_LINES == 0:
                time.sleep(BREATH_S)
            try:
                entry = entry_of(line)
            except ValueError:
                continue  # the verification says where
            if before is not None and entry.number >= before:
                continue
            scanned, at = scanned + 1, entry.number
            if wanted(entry):
                found.append((entry, digest_of(line)))
            if len(found) == limit or scanned == MOST_SCANNED:
                return found, at if at > 1 else None
    return found, None


def _whole_lines(path: Path) -> list[bytes]:
    try:
        return path.read_bytes().split(b"\n")[:-1]
    except FileNotFoundError:  # removed meanwhile
        return []


def _before(path: Path) -> Head:
    """The entry that the first one of ``path`` follows; its digest is empty where that cannot be read."""
    with path.open("rb") as file:
        line = file.readline(LONGEST_LINE)
    try:
        return Head(first_of(path) - 1, entry_of(line).previous)
    except ValueError:
        return Head(first_of(path) - 1, "")


def _began_ns(content: bytes) -> int:
    try:
        return entry_of(content.partition(b"\n")[0]).time_ns
    except ValueError:
        return 0


def _good_end(content: bytes) -> int:
    """Where the last line ends that is an entry: what follows was being written when the power went."""
    end = content.rfind(b"\n") + 1
    while end:
        begin = content.rfind(b"\n", 0, end - 1) + 1
        try:
            entry_of(content[begin : end - 1])
        except ValueError:
            end = begin
        else:
            return end
    return 0


# ------------------------------------------------------------------------------------------------------ the disk


def _write(file: int, content: bytes) -> None:
    at = 0
    while at < len(content):
        at += os.write(file, content[at:])


def _cut(path: Path, length: int) -> None:
    file = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
    try:
        os.ftruncate(file, length)
        os.fsync(file)
    finally:
        os.close(file)


def _replace(path: Path, content: bytes) -> None:
    draft = path.with_name(f".{path.name}.new")
    file = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
    try:
        _write(file, content)
        os.fsync(file)
    finally:
        os.close(file)
    draft.replace(path)
    _sync_folder(path.parent)


def _sync_folder(folder: Path) -> None:
    file = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(file)
    finally:
        os.close(file)
