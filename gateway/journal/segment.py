"""One file of the journal: a SQLite database that is appended to by one connection and never written again once sealed.

The active segment is in WAL mode with ``synchronous=FULL`` (a commit survives power loss) and exclusive locking (no
shared-memory side file). Sealing moves everything into the one file and leaves WAL mode, so that a sealed segment
stands alone and is read as immutable. What SQLite or the file system says is translated here into three words:
:class:`DiskFull`, :class:`Damaged`, :class:`Broken`. Everything in this module runs on the writer thread.
"""

from __future__ import annotations

import contextlib
import errno
import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Final

import apsw

from gateway.journal import codec
from gateway.journal.codec import PART_BITS, FrameKind, Unreadable
from gateway.journal.record import Lane
from gateway.journal.spans import Facts

PAGE: Final = 8192
STATE_SLOTS: Final = (0, 256)
"""Two states are kept, written in turn: a damaged one leaves the one before."""
FACTS_AT: Final = 1024
DEFINITIONS_AT: Final = 1 << 20
ROW_BYTES: Final = 24
"""What SQLite adds to a row, about."""

SCHEMA: Final = """
CREATE TABLE IF NOT EXISTS record(id INTEGER PRIMARY KEY, frame BLOB NOT NULL);
CREATE TABLE IF NOT EXISTS entry(id INTEGER PRIMARY KEY, frame BLOB NOT NULL);
"""
Row = tuple[int, bytes]


class StorageError(Exception):
    """The disk did not do what was asked. The text names the file and what to do."""


class DiskFull(StorageError):
    """No space: the file is as it was before."""


class Damaged(StorageError):
    """The file's content is not what was written."""


class Broken(StorageError):
    """Reading or writing failed: after a failed write nobody may trust the file."""


@contextlib.contextmanager
def translated(path: Path) -> Iterator[None]:
    """Foreign errors to ours."""
    try:
        yield
    except apsw.FullError as error:
        raise DiskFull(f"{path}: the disk is full: make room on its file system") from error
    except (apsw.CorruptError, apsw.NotADBError, apsw.SQLError, apsw.FormatError) as error:
        raise Damaged(f"{path}: the file is damaged ({error})") from error
    except UnicodeDecodeError as error:
        raise Damaged(f"{path}: the file is damaged (bytes have become text)") from error
    except apsw.Error as error:
        raise Broken(f"{path}: {error}: check the disk and its cabling") from error
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise DiskFull(f"{path}: {error.strerror}: make room on its file system") from error
        raise Broken(f"{path}: {error.strerror}: check the disk and its permissions") from error


class Segment:
    """One segment file, active (``writable``) or sealed."""

    def __init__(self, folder: Path, lane: Lane, facts: Facts) -> None:
        self.lane = lane
        self.facts = facts
        self.path = folder / f"{facts.epoch:010d}-{facts.first:014d}.seg"
        self.writable = False
        self.sealed = True
        self.known: set[int] = set()
        """Definitions that the segment holds."""
        self.fill = 0
        """Bytes of rows, about."""
        self.wal_pages = 0
        self.try_again_at = float("-inf")
        self._connection: apsw.Connection | None = None
        self._states = 0
        self._entries = 0
        self._inode = 0

    # writing

    def open(self) -> None:
        """Open for appending; creates the file if need be."""
        with translated(self.path):
            connection = apsw.Connection(str(self.path))
            self._connection = connection
            for pragma in (
                f"page_size={PAGE}",
                "locking_mode=EXCLUSIVE",
                "journal_mode=WAL",
                "synchronous=FULL",
                "fullfsync=1",
                "checkpoint_fullfsync=1",
                "wal_autocheckpoint=0",
                "cache_size=-1024",
                "temp_store=MEMORY",
                "mmap_size=0",
            ):
                connection.execute(f"PRAGMA {pragma}").fetchall()
            connection.set_wal_hook(self._on_commit)
            connection.config(apsw.SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, 1)
            connection.execute(SCHEMA)
            count = connection.execute("SELECT ifnull(max(id), 0) FROM entry").fetchone()
        self._inode = inode_of(self.path)
        self._entries = max(int(count[0]) + 1 if count else 0, DEFINITIONS_AT)
        self.writable, self.sealed = True, False

    def commit(
        self, rows: Iterable[Row], definitions: Iterable[codec.Definition], state: list[bytes], facts: list[bytes], bytes_: int
    ) -> None:
        """Store all of it in one transaction that survives power loss, or nothing. Raises DiskFull or Broken."""
        connection = self._open_connection()
        fresh = [each for each in definitions if each.id not in self.known]
        with translated(self.path):
            connection.execute("BEGIN IMMEDIATE")
            try:
                if fresh:
                    connection.executemany("INSERT INTO entry VALUES(?,?)", self._definition_rows(fresh))
                connection.executemany("INSERT OR REPLACE INTO record VALUES(?,?)", rows)
                # the first one into both: it may be the only state of the lane
                slots = STATE_SLOTS if not self._states else (STATE_SLOTS[self._states % 2],)
                for slot in slots if state else ():
                    connection.executemany("INSERT OR REPLACE INTO entry VALUES(?,?)", ((slot + n, f) for n, f in enumerate(state)))
                if facts:
                    connection.executemany("INSERT OR REPLACE INTO entry VALUES(?,?)", ((FACTS_AT + n, f) for n, f in enumerate(facts)))
                connection.execute("COMMIT")
            except apsw.Error:
                self._roll_back(connection)
                raise
        self.known.update(each.id for each in fresh)
        self.fill += bytes_ + sum(2 * len(each.body) for each in fresh)
        if state:
            self._states += 1

    def checkpoint(self) -> None:
        """Move what lies in the WAL into the file. Raises DiskFull or Broken."""
        with translated(self.path):
            self._open_connection().wal_checkpoint(mode=apsw.SQLITE_CHECKPOINT_PASSIVE)
        self.wal_pages = 0

    def seal(self) -> None:
        """Everything into the one file, out of WAL mode, closed: from here on the file is only read."""
        with translated(self.path):
            connection = self._open_connection()
            connection.wal_checkpoint(mode=apsw.SQLITE_CHECKPOINT_TRUNCATE)
            mode = connection.execute("PRAGMA journal_mode=DELETE").fetchone()
            if mode is None or mode[0] != "delete":
                raise Broken(f"{self.path}: the file could not be sealed: it will be tried again")
            self._close()
        self.sealed = True
        self.facts.bytes = size_of(self.path)

    def park(self) -> None:
        """Close after a clean stop, ready to be appended to again."""
        with translated(self.path):
            connection = self._open_connection()
            connection.wal_checkpoint(mode=apsw.SQLITE_CHECKPOINT_TRUNCATE)
            self._close()

    def abandon(self) -> None:
        """Let go of the file as it is, without another write to it."""
        if self._connection is not None:
            with contextlib.suppress(apsw.Error):
                self._connection.close(True)
        self._connection = None
        self.writable = False

    # reading

    def rows(self, first: int, last: int, limit: int) -> list[Row]:
        """At most ``limit`` rows (-1: all) of the records ``first`` to ``last``, in order. Raises Damaged or Broken."""
        bounds = (first << PART_BITS, (last + 1 << PART_BITS) - 1, limit)
        with translated(self.path):
            found = self._reading().execute("SELECT id, frame FROM record WHERE id BETWEEN ? AND ? ORDER BY id LIMIT ?", bounds)
            return [(row, frame) for row, frame in found if isinstance(row, int) and isinstance(frame, bytes)]

    def entries(self) -> list[bytes]:
        """Frames of everything that is no record. Raises Damaged or Broken."""
        with translated(self.path):
            found = self._reading().execute("SELECT frame FROM entry ORDER BY id")
            return [frame for (frame,) in found if isinstance(frame, bytes)]  # a flipped bit makes anything of it, a NULL too

    def span(self, first: int, last: int | None) -> tuple[int, int, int]:
        """How many records from ``first`` to ``last`` the file holds, the first and the last of them (0 where none)."""
        upto = (last + 1 << PART_BITS) - 1 if last is not None else (1 << 63) - 1
        with translated(self.path):
            row = (
                self._reading()
                .execute(
                    "SELECT count(*), ifnull(min(id), 0), ifnull(max(id), 0) FROM record WHERE id BETWEEN ? AND ? AND id & ? = 0",
                    (first << PART_BITS, upto, (1 << PART_BITS) - 1),
                )
                .fetchone()
            )
        count, lowest, highest = row if row is not None else (0, 0, 0)
        return count, lowest >> PART_BITS, highest >> PART_BITS

    def length(self) -> int:
        """Bytes that the file alone will have once everything is in it. Raises Broken."""
        with translated(self.path):
            row = self._open_connection().execute("PRAGMA page_count").fetchone()
        return int(row[0]) * PAGE if row else 0

    def expected(self) -> Facts:
        """The facts as they will be when the segment is sealed."""
        try:
            self.facts.bytes = self.length()
        except StorageError:
            self.facts.bytes = 0
        return self.facts

    def close(self) -> None:
        """Close a sealed segment that was opened for reading."""
        if not self.writable:
            self.abandon()

    def size(self) -> int:
        """Bytes on disk now, side files included."""
        if self.sealed and self.facts.bytes:
            return self.facts.bytes
        return sum(size_of(path) for path in (self.path, *side_files(self.path)))

    def is_linked(self) -> bool:
        """Whether the files that are open are still those that their names lead to."""
        return inode_of(self.path) in (self._inode, -1) and (not self.wal_pages or inode_of(side_files(self.path)[0]) != 0)

    # inside

    def _reading(self) -> apsw.Connection:
        if self._connection is None:
            if not self.path.exists():
                raise Damaged(f"{self.path}: the file is gone")
            uri = f"file:{_quoted(self.path)}?immutable=1" if self.sealed else str(self.path)
            flags = apsw.SQLITE_OPEN_READONLY | apsw.SQLITE_OPEN_URI if self.sealed else apsw.SQLITE_OPEN_READWRITE
            self._connection = apsw.Connection(uri, flags=flags)
            self._connection.config(apsw.SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, 1)
            if not self.sealed:
                self._connection.execute("PRAGMA locking_mode=EXCLUSIVE").fetchall()
            self._connection.execute("PRAGMA cache_size=-512")
        return self._connection

    def _open_connection(self) -> apsw.Connection:
        if self._connection is None or not self.writable:
            raise Broken(f"{self.path}: the segment is not open for writing")
        return self._connection

    def _close(self) -> None:
        """Also where closing fails, the connection is gone: who reads next opens the file anew, and nobody writes to it."""
        connection, self._connection, self.writable = self._open_connection(), None, False
        connection.close(True)

    def _on_commit(self, _connection: apsw.Connection, _name: str, pages: int) -> int:
        self.wal_pages = pages
        return apsw.SQLITE_OK

    def _roll_back(self, connection: apsw.Connection) -> None:
        if connection.in_transaction:
            with contextlib.suppress(apsw.Error):
                connection.execute("ROLLBACK")

    def _definition_rows(self, definitions: list[codec.Definition]) -> Iterator[Row]:
        """Each definition twice: a damaged one must not make its device's records unreadable."""
        for each in definitions:
            made = codec.frames(FrameKind.DEFINITION, self.lane, self.facts.epoch, each.id, each.body)
            for frame in made + made:
                yield self._entries, frame
                self._entries += 1


def side_files(path: Path) -> tuple[Path, ...]:
    return tuple(path.with_name(path.name + end) for end in ("-wal", "-shm", "-journal"))


def contents(frames: Iterable[bytes]) -> dict[tuple[int, int], bytes]:
    """Whole entries by kind and number, from frames in any order; damaged and incomplete ones are left out."""
    parts: dict[tuple[int, int], dict[int, bytes]] = {}
    for each in frames:
        try:
            head, _ = codec.open_frame(each)
        except Unreadable:
            continue
        parts.setdefault((head.kind, head.seq), {})[head.part] = each
    whole: dict[tuple[int, int], bytes] = {}
    for key, found in parts.items():
        with contextlib.suppress(Unreadable):
            whole[key] = codec.join([found[part] for part in sorted(found)])[1]
    return whole


def sync_folder(folder: Path) -> None:
    """Make names in ``folder`` durable."""
    sync(folder, os.O_DIRECTORY)


def sync(path: Path, flags: int = 0) -> None:
    """Make what ``path`` holds durable."""
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | flags)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def inode_of(path: Path) -> int:
    """0 where there is no such file, -1 where nobody can say."""
    try:
        return path.stat().st_ino
    except FileNotFoundError:
        return 0
    except OSError:
        return -1


def size_of(path: Path) -> int:
    """0 where there is no such file, or nobody can say."""
    try:
        return path.stat().st_size
    except OSError:
        return 0


def _quoted(path: Path) -> str:
    return str(path.absolute()).replace("%", "%25").replace("?", "%3f").replace("#", "%23")
