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
import struct
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import apsw

from gateway.journal import codec
from gateway.journal.codec import HEAD, MAGIC, MAX_BODY, PART_BITS, FrameKind, Unreadable
from gateway.journal.record import Lane
from gateway.journal.segment import PAGE, SCHEMA, Broken, Row, StorageError, side_files, sync_folder, translated

RESCUED = ".rescued"
TMP = ".tmp"
EPOCH_AT = 16
"""Offset of the epoch in a frame's header."""
FLIPPED_RECORD = tuple(FrameKind.RECORD ^ 1 << bit for bit in range(8) if FrameKind.RECORD ^ 1 << bit not in set(FrameKind))


@dataclass(slots=True)
class Finds:
    """What a search of raw bytes found."""

    rows: dict[int, bytes] = field(default_factory=dict)
    """Intact frames of records by row id."""
    entries: list[bytes] = field(default_factory=list)
    """Intact frames of everything else."""
    damaged: list[tuple[int, bytes]] = field(default_factory=list)
    """Frames of records that do not prove themselves: the seq that each claims, and its bytes."""

    def spoilt(self) -> set[int]:
        """Seqs that damaged frames claim, unless the frame is but a copy of an intact one."""
        checksums = {each[4:8] for each in self.rows.values()}
        return {seq for seq, each in self.damaged if each[4:8] not in checksums and not self._is_copy(seq, each)}

    def _is_copy(self, seq: int, each: bytes) -> bool:
        intact = self.rows.get(seq << PART_BITS)
        return intact is not None and each[8 : len(intact)] == intact[8:]


def search(data: bytes, lane: Lane, epoch: int, finds: Finds) -> None:
    """Add every frame of ``lane`` and ``epoch`` in ``data`` to ``finds``. Believes no length unchecked. Pure."""
    suspects: list[int] = []
    intact_at: set[int] = set()
    at = data.find(MAGIC)
    while at >= 0:
        step = len(MAGIC)
        try:
            head, body = codec.open_frame(data, at)
        except Unreadable:
            suspects.append(at)
        else:
            intact_at.add(at)
            step = HEAD.size + len(body)
            if (head.lane, head.epoch) == (lane, epoch):
                _add(head, data[at : at + step], finds)
        at = data.find(MAGIC, at + step)
    suspects += [at for at in _by_epoch(data, epoch) if at not in intact_at]
    for at in sorted(set(suspects)):
        claimed = claim(data, at, lane, epoch)
        if claimed is not None:
            finds.damaged.append((claimed, data[at : at + HEAD.size + MAX_BODY]))


def _add(head: codec.Head, intact: bytes, finds: Finds) -> None:
    if head.kind == FrameKind.RECORD:
        finds.rows[head.seq << PART_BITS | head.part] = intact
    else:
        finds.entries.append(intact)


def _by_epoch(data: bytes, epoch: int) -> Iterator[int]:
    """Where frames would begin whose magic is damaged: found by the epoch in their header."""
    pattern = struct.pack("<Q", epoch)
    at = data.find(pattern, EPOCH_AT)
    while at >= 0:
        yield at - EPOCH_AT
        at = data.find(pattern, at + 1)


def claim(data: bytes, at: int, lane: Lane, epoch: int) -> int | None:
    """The seq that a damaged record frame at ``at`` claims, if its header is at all like one of this segment's."""
    if at < 0 or len(data) < at + HEAD.size:
        return None
    magic, _, length, version, kind, lane_number, _, its_epoch, seq, *_ = HEAD.unpack_from(data, at)
    signs = (
        magic == MAGIC,
        HEAD.size < length <= HEAD.size + MAX_BODY,
        version == codec.VERSION,
        kind == FrameKind.RECORD,
        lane_number == codec.LANE_NUMBER[lane],
        its_epoch == epoch,
    )
    return int(seq) if sum(signs) >= len(signs) - 1 and kind in (FrameKind.RECORD, *FLIPPED_RECORD) else None


def behind(spoilt: set[int], holes: set[int], first: int, last: int) -> int:
    """The last record that damaged frames prove to have been there after ``last``: one whose own number is damaged counts
    as the next, unless it is the one that is absent before (``holes``)."""
    top = last
    while top + 1 in spoilt:
        top += 1
    strange = sum(not first <= seq <= top for seq in spoilt)
    return top + 1 if strange > len(holes - spoilt) and top == last else top


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


def look(path: Path, lane: Lane, epoch: int, *, patient: bool = False) -> Finds:
    """Search the file and its WAL. A place that cannot be read counts as zeros; ``patient`` as in :func:`read_raw`."""
    finds = Finds()
    for each in (path, side_files(path)[0]):
        search(read_raw(each, patient=patient), lane, epoch, finds)
    return finds


def read_raw(path: Path, *, patient: bool = False) -> bytes:
    """All bytes of a file; pages that the disk cannot read come back as zeros, an absent file as nothing.

    Raises Broken if the file may not be read at all, and, ``patient``, where not one page can be read: a disk that refuses
    everything may be itself again later."""
    try:
        return path.read_bytes()
    except FileNotFoundError:
        return b""
    except PermissionError as error:
        raise Broken(f"{path}: {error.strerror}: let the gateway's user read and write it") from error
    except OSError:
        with translated(path):
            return _read_pages(path, patient)


def _read_pages(path: Path, patient: bool) -> bytes:
    pages: list[bytes] = []
    refused: OSError | None = None
    is_readable = False
    with path.open("rb", buffering=0) as file:
        size = os.fstat(file.fileno()).st_size
        for at in range(0, size, PAGE):
            try:
                pages.append(os.pread(file.fileno(), PAGE, at))
                is_readable = True
            except OSError as error:
                refused = error
                pages.append(bytes(min(PAGE, size - at)))
    if patient and refused is not None and not is_readable:
        raise refused
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
