"""What can still be read of a damaged segment, from its raw bytes, and writing it anew.

SQLite's own checks notice few flipped bits, and one flipped bit in a WAL makes it ignore everything after it. So a
segment that looks wrong is searched for frames, in the file and in its WAL: whatever proves itself by its CRC is
intact, wherever it lies. The intact frames go into a new file which replaces the old one in steps that a power cut
may interrupt anywhere: written and synced under another name, named ``.rescued`` (from then on it counts), the old
WAL removed, renamed.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

import apsw

from gateway.journal import codec
from gateway.journal.codec import HEAD, LANES, MAGIC, MAX_BODY, PART_BITS, FrameKind, Unreadable
from gateway.journal.record import Lane
from gateway.journal.segment import PAGE, SCHEMA, Row, StorageError, side_files, sync_folder, translated

RESCUED = ".rescued"
TMP = ".tmp"


@dataclass(slots=True)
class Finds:
    """What a search of raw bytes found."""

    rows: dict[int, bytes] = field(default_factory=dict)
    """Intact frames of records by row id."""
    entries: list[bytes] = field(default_factory=list)
    """Intact frames of everything else."""
    damaged: dict[int, int] = field(default_factory=dict)
    """Where damaged frames begin, with the seq that they claim."""


def search(data: bytes, lane: Lane, epoch: int, finds: Finds) -> None:
    """Add every intact frame of ``lane`` and ``epoch`` in ``data`` to ``finds``. Believes no length unchecked. Pure."""
    at = data.find(MAGIC)
    while at >= 0:
        step = len(MAGIC)
        try:
            head, body = codec.open_frame(data, at)
        except Unreadable:
            claimed = claim(data, at, lane, epoch)
            if claimed is not None:
                finds.damaged[at] = claimed
        else:
            step = HEAD.size + len(body)
            if (head.lane, head.epoch) == (lane, epoch):
                intact = data[at : at + step]
                if head.kind == FrameKind.RECORD:
                    finds.rows[head.seq << PART_BITS | head.part] = intact
                else:
                    finds.entries.append(intact)
        at = data.find(MAGIC, at + step)


def claim(data: bytes, at: int, lane: Lane, epoch: int) -> int | None:
    """The seq that a damaged record frame at ``at`` claims, if its header is at all like one of this segment's."""
    if len(data) < at + HEAD.size:
        return None
    _, _, length, _, kind, lane_number, _, its_epoch, seq, *_ = HEAD.unpack_from(data, at)
    looks_right = (kind == FrameKind.RECORD) + (LANES[lane_number % 2] == lane) + (its_epoch == epoch) + (length <= HEAD.size + MAX_BODY)
    return int(seq) if looks_right >= 3 and kind == FrameKind.RECORD else None


def whole(rows: dict[int, bytes]) -> dict[int, bytes]:
    """``rows`` without the parts of records of which a part is absent."""
    parts: dict[int, list[int]] = {}
    for row in rows:
        parts.setdefault(row >> PART_BITS, []).append(row)
    kept: dict[int, bytes] = {}
    for ids in parts.values():
        ids.sort()
        with contextlib.suppress(Unreadable):
            codec.join([rows[row] for row in ids])
            kept.update((row, rows[row]) for row in ids)
    return kept


def look(path: Path, lane: Lane, epoch: int) -> tuple[Finds, bytes]:
    """Search the file and its WAL. Returns the finds and the raw bytes. A place that cannot be read counts as zeros."""
    finds = Finds()
    raw = b"".join(read_raw(each) for each in (path, side_files(path)[0]))
    search(raw, lane, epoch, finds)
    return finds, raw


def read_raw(path: Path) -> bytes:
    """All bytes of a file; pages that the disk cannot read come back as zeros, an absent file as nothing."""
    try:
        return path.read_bytes()
    except FileNotFoundError:
        return b""
    except OSError:
        return _read_pages(path)


def _read_pages(path: Path) -> bytes:
    pages: list[bytes] = []
    with path.open("rb", buffering=0) as file:
        size = os.fstat(file.fileno()).st_size
        for at in range(0, size, PAGE):
            try:
                pages.append(os.pread(file.fileno(), PAGE, at))
            except OSError:
                pages.append(bytes(min(PAGE, size - at)))
    return b"".join(pages)


def rewrite(path: Path, rows: Iterable[Row], entries: Iterable[bytes]) -> None:
    """Replace the segment at ``path`` by one that holds just these. Raises StorageError, and then nothing has changed."""
    tmp, rescued = path.with_name(path.name + TMP), path.with_name(path.name + RESCUED)
    try:
        with translated(path):
            tmp.unlink(missing_ok=True)
            _write(tmp, rows, entries)
            tmp.rename(rescued)
            sync_folder(path.parent)
    except StorageError:
        with contextlib.suppress(OSError):
            tmp.unlink(missing_ok=True)
        raise
    finish(path)


def _write(tmp: Path, rows: Iterable[Row], entries: Iterable[bytes]) -> None:
    connection = apsw.Connection(str(tmp))
    try:
        for pragma in (f"page_size={PAGE}", "journal_mode=OFF", "synchronous=FULL", "fullfsync=1", "locking_mode=EXCLUSIVE"):
            connection.execute(f"PRAGMA {pragma}").fetchall()
        connection.execute("BEGIN")
        connection.execute(SCHEMA)
        connection.executemany("INSERT INTO record VALUES(?,?)", rows)
        connection.executemany("INSERT INTO entry VALUES(?,?)", enumerate(entries))
        connection.execute("COMMIT")
    finally:
        connection.close(True)


def finish(path: Path) -> None:
    """Put a ``.rescued`` file in the place of the one it was made from. May be repeated. Raises StorageError."""
    rescued = path.with_name(path.name + RESCUED)
    with translated(path):
        if rescued.exists():
            for side in side_files(path):
                side.unlink(missing_ok=True)
            sync_folder(path.parent)
            rescued.rename(path)
        sync_folder(path.parent)
