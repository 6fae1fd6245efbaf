"""Roll-ups and the index of the journal on disk: one SQLite file, all of it derived, bounded, and thrown away when it is damaged.

What has been folded is saved together with how far the journal was read, in one transaction: after a kill or a power cut
the records after that are read once more, and none counts twice. A rollback journal instead of a WAL, because what is
appended to the file is then written once. All of it runs on the history's thread. Only what this module names ever stands in
its SQL; everything else is a parameter.
"""

from __future__ import annotations

import sqlite3
import zlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
import structlog

from gateway.history.fresh import Fresh, Place, Where
from gateway.history.sums import CHUNK, WINDOW_MINUTES, Spoilt, Sums, merge, nothing, pack, unpack, whole
from gateway.journal import Lost, codec
from protocols.model import Device

log = structlog.get_logger("holdfast.history")

FILE: Final = "history.db"
PAGE: Final = 16384
SPARE: Final = 8
"""This fraction of the bound is kept free, so that room is made seldom."""
MOST_LOSSES: Final = 10_000
_VERSION: Final = 1
_NEWEST: Final = 1000
"""No release will ever write a higher one: that is damage."""
_SCHEMA: Final = """
CREATE TABLE IF NOT EXISTS cursor(lane TEXT PRIMARY KEY, epoch INTEGER NOT NULL, next INTEGER NOT NULL);
CREATE TABLE IF NOT EXISTS source(id INTEGER PRIMARY KEY, definition TEXT NOT NULL UNIQUE, device TEXT NOT NULL, body BLOB NOT NULL);
CREATE TABLE IF NOT EXISTS stretch(
    source INTEGER NOT NULL, chunk INTEGER NOT NULL, window INTEGER NOT NULL, whole BLOB NOT NULL, minutes BLOB NOT NULL);
CREATE UNIQUE INDEX IF NOT EXISTS stretch_of ON stretch(source, chunk, window);
CREATE INDEX IF NOT EXISTS stretch_in ON stretch(window);
CREATE TABLE IF NOT EXISTS place(source INTEGER NOT NULL, window INTEGER NOT NULL, body BLOB NOT NULL);
CREATE UNIQUE INDEX IF NOT EXISTS place_of ON place(source, window);
CREATE INDEX IF NOT EXISTS place_in ON place(window);
CREATE TABLE IF NOT EXISTS loss(
    first INTEGER PRIMARY KEY, last INTEGER NOT NULL, epoch INTEGER NOT NULL, reason TEXT NOT NULL,
    from_ns INTEGER NOT NULL, to_ns INTEGER NOT NULL);
CREATE INDEX IF NOT EXISTS loss_in ON loss(to_ns);
"""


@dataclass(frozen=True, slots=True)
class Cursor:
    """How far the journal has been read: ``next`` comes next, and the record before it was of ``epoch`` (0: there was none)."""

    epoch: int = 0
    next: int = 1


@dataclass(frozen=True, slots=True)
class Source:
    """A device as it was configured when its values were stored."""

    id: int
    device: Device
    slots: dict[str, int]
    """By name of the tag."""


@dataclass(frozen=True, slots=True)
class Loss:
    """Records that nobody will ever read, and when they were written, about."""

    lost: Lost
    from_ns: int
    to_ns: int


class Store:
    """The open file. Raises sqlite3.Error and Spoilt; :func:`is_damage` tells what a new file mends."""

    def __init__(self, folder: Path, max_bytes: int) -> None:
        self._path = folder / FILE
        self._max_bytes = max_bytes
        self._db: sqlite3.Connection | None = None
        self._ids: dict[Device, int] = {}
        self.sources: dict[str, list[Source]] = {}
        """By name of the device, newest last."""
        self.written_bytes = 0
        """Of roll-ups and index since the file was opened."""

    def open(self) -> None:
        """Open the file, making it if need be; one that is damaged is thrown away."""
        self._path.parent.mkdir(parents=True, exist_ok=True)
        try:
            self._open()
        except (sqlite3.DatabaseError, Spoilt) as error:
            if not is_damage(error):
                raise
            self.begin_anew(str(error))

    def begin_anew(self, trouble: str) -> None:
        """Throw away what is there: it is read from the journal again."""
        log.warning("history_thrown_away", path=str(self._path), trouble=trouble, advice="it is made anew from the journal")
        self.close()
        for path in (self._path, self._path.with_name(f"{FILE}-journal")):
            path.unlink(missing_ok=True)
        self._open()

    def close(self) -> None:
        if self._db is not None:
            self._db.close()
        self._db = None
        self._ids, self.sources = {}, {}

    @property
    def size(self) -> int:
        """What the file takes, without what is free in it."""
        (pages,), (free,) = self._one("PRAGMA page_count"), self._one("PRAGMA freelist_count")
        return int(pages - free) * PAGE

    def cursor(self, lane: str) -> Cursor:
        row = self._connection.execute("SELECT epoch, next FROM cursor WHERE lane = ?", (lane,)).fetchone()
        return Cursor(*row) if row else Cursor()

    def source(self, device: Device) -> int:
        """The number under which values of ``device`` are kept: of equal content, the same."""
        number = self._ids.get(device)
        if number is None:
            definition = codec.define(device)
            number = self._known(f"{definition.id:016x}", device, definition.body)
            if len(self._ids) > 10_000:
                self._ids.clear()
            self._ids[device] = number
        return number

    def forget_places(self) -> None:
        """The journal is another one: nothing is where it was."""
        with self._connection as db:
            db.execute("DELETE FROM place")
            db.execute("DELETE FROM cursor")

    # saving

    def save(self, fresh: Fresh, lane: str, cursor: Cursor, losses: Iterable[Loss]) -> None:
        """Merge what is fresh into what is kept, and note how far the journal was read: all of it, or nothing."""
        db = self._connection
        self._make_room(fresh.bytes // 3)
        with db:
            db.execute("BEGIN IMMEDIATE")
            for place, sums in fresh.stretches.items():
                self._save_stretch(db, place, sums)
            for (source, window), where in fresh.places.items():
                self._save_places(db, source, window, where)
            for each in losses:
                lost = each.lost
                row = (lost.first, lost.last, lost.epoch, lost.reason, each.from_ns, each.to_ns)
                db.execute("INSERT OR REPLACE INTO loss VALUES(?,?,?,?,?,?)", row)
            db.execute("DELETE FROM loss WHERE first <= (SELECT first FROM loss ORDER BY first DESC LIMIT 1 OFFSET ?)", (MOST_LOSSES,))
            db.execute("INSERT OR REPLACE INTO cursor VALUES(?,?,?)", (lane, cursor.epoch, cursor.next))

    def _save_stretch(self, db: sqlite3.Connection, place: Place, sums: Sums) -> None:
        source, window, chunk = place
        row = db.execute("SELECT minutes FROM stretch WHERE source=? AND chunk=? AND window=?", (source, chunk, window)).fetchone()
        if row is not None:
            sums = merge(_all_minutes(row[0], sums.count.shape[1]), sums)
        minutes, all_of_it = pack(sums), pack(whole(sums))
        self.written_bytes += len(minutes) + len(all_of_it)
        if row is None:
            db.execute("INSERT INTO stretch VALUES(?,?,?,?,?)", (source, chunk, window, all_of_it, minutes))
        else:
            said = (all_of_it, minutes, source, chunk, window)
            db.execute("UPDATE stretch SET whole=?, minutes=? WHERE source=? AND chunk=? AND window=?", said)

    def _save_places(self, db: sqlite3.Connection, source: int, window: int, where: list[Where]) -> None:
        row = db.execute("SELECT body FROM place WHERE source=? AND window=?", (source, window)).fetchone()
        body = _packed_places([*([_unpacked_places(row[0])] if row else []), *where])
        self.written_bytes += len(body)
        db.execute("INSERT OR REPLACE INTO place VALUES(?,?,?)", (source, window, body))

    def _make_room(self, need: int) -> None:
        """Remove the oldest windows until ``need`` bytes more fit below the bound."""
        spare = self._max_bytes // SPARE
        while self.size + need > self._max_bytes - PAGE and (row := self._one("SELECT min(window) FROM stretch"))[0] is not None:
            goal = self._max_bytes - need - spare
            self._remove(int(row[0]))
            while self.size > goal and (row := self._one("SELECT min(window) FROM stretch"))[0] is not None:
                self._remove(int(row[0]))

    def _remove(self, window: int) -> None:
        with self._connection as db:
            db.execute("DELETE FROM stretch WHERE window <= ?", (window,))
            db.execute("DELETE FROM place WHERE window <= ?", (window,))

    # reading

    def stretches(self, source: int, slot: int, first: int, last: int, *, whole: bool) -> Iterator[tuple[int, int, Sums]]:
        """What is kept of one tag from window ``first`` to ``last``: window, first row and Sums (rows)."""
        column = "whole" if whole else "minutes"
        rows = self._connection.execute(
            f"SELECT window, {column} FROM stretch WHERE source=? AND chunk=? AND window BETWEEN ? AND ? ORDER BY window",
            (source, slot // CHUNK, first, last),
        )
        for window, body in rows:
            yield window, *unpack(body, slot % CHUNK)

    def places(self, source: int, window: int) -> Where:
        row = self._connection.execute("SELECT body FROM place WHERE source=? AND window=?", (source, window)).fetchone()
        return _unpacked_places(row[0]) if row else _NOWHERE

    def windows(self, sources: Sequence[int], first: int, last: int) -> list[int]:
        """Windows in which records of ``sources`` are known."""
        found = set[int]()
        for source in sources:
            rows = self._connection.execute("SELECT window FROM place WHERE source=? AND window BETWEEN ? AND ?", (source, first, last))
            found.update(window for (window,) in rows)
        return sorted(found)

    def losses(self, from_ns: int, to_ns: int, most: int) -> list[Loss]:
        rows = self._connection.execute(
            "SELECT epoch, first, last, reason, from_ns, to_ns FROM loss WHERE to_ns >= ? AND from_ns <= ? ORDER BY first LIMIT ?",
            (from_ns, to_ns, most),
        )
        return [Loss(Lost(epoch, first, last, reason), its_from, its_to) for epoch, first, last, reason, its_from, its_to in rows]

    # inside

    @property
    def _connection(self) -> sqlite3.Connection:
        if self._db is None:
            raise sqlite3.OperationalError("the file of the roll-ups is not open")
        return self._db

    def _one(self, sql: str) -> tuple[int, ...]:
        row: tuple[int, ...] = self._connection.execute(sql).fetchone()
        return row

    def _open(self) -> None:
        db = sqlite3.connect(self._path, isolation_level=None, cached_statements=64)
        self._db = db
        for pragma in (f"page_size={PAGE}", "journal_mode=DELETE", "synchronous=NORMAL", "cache_size=-2048", "temp_store=MEMORY"):
            db.execute(f"PRAGMA {pragma}").fetchall()
        db.execute(f"PRAGMA max_page_count={self._max_bytes // PAGE}").fetchall()
        (version,) = self._one("PRAGMA user_version")
        if _VERSION < version <= _NEWEST:
            self._put_aside(version)
            return
        if version not in (0, _VERSION):
            raise Spoilt(f"its version is {version}, this program writes {_VERSION}")
        db.executescript(_SCHEMA)
        db.execute(f"PRAGMA user_version={_VERSION}")
        self._path.chmod(0o640)
        for number, definition, body in db.execute("SELECT id, definition, body FROM source ORDER BY id"):
            self._note(number, _device(definition, body))

    def _put_aside(self, version: int) -> None:
        """Begin anew: a newer release wrote it, and finds it again under its own name, one a version. The journal is read once more."""
        self.close()
        aside = self._path.with_name(f"{FILE}.version-{version}")
        self._path.replace(aside)
        log.warning("history_put_aside", put_aside=str(aside), advice="roll-ups begin anew; put it back when the newer release is back")
        self._open()

    def _known(self, definition: str, device: Device, body: bytes) -> int:
        db = self._connection
        row = db.execute("SELECT id FROM source WHERE definition = ?", (definition,)).fetchone()
        if row is None:
            with db:
                row = (db.execute("INSERT INTO source VALUES(NULL,?,?,?)", (definition, device.name, body)).lastrowid,)
            self._note(int(row[0] or 0), device)
        return int(row[0] or 0)

    def _note(self, number: int, device: Device) -> None:
        self.sources.setdefault(device.name, []).append(Source(number, device, {tag.name: slot for slot, tag in enumerate(device.tags)}))


def is_damage(error: Exception) -> bool:
    """Whether ``error`` says that the file is not what was written; a disk that is full, or fails, is something else."""
    said = str(error)
    return isinstance(error, Spoilt) or any(words in said for words in ("malformed", "not a database", "disk image"))


_NOWHERE: Final[Where] = (np.zeros(0, dtype=np.int64), np.zeros(0, dtype=np.uint8))


def _device(definition: str, body: bytes) -> Device:
    try:
        return codec.undefine(int(definition, 16), body).device
    except (codec.Unreadable, ValueError) as error:
        raise Spoilt(str(error)) from error


def _all_minutes(body: bytes, tags: int) -> Sums:
    """What :func:`pack` was given, with the rows that it left out."""
    first, some = unpack(body)
    if some.count.shape[1] != tags or first + some.count.shape[0] > WINDOW_MINUTES:
        raise Spoilt("a roll-up has another shape than its device")
    full = nothing((WINDOW_MINUTES, tags))
    full.put(slice(first, first + some.count.shape[0]), some)
    return full


def _packed_places(parts: list[Where]) -> bytes:
    seqs, minutes = np.concatenate([seqs for seqs, _ in parts]), np.concatenate([minutes for _, minutes in parts])
    order = np.lexsort((minutes, seqs))
    return zlib.compress(np.diff(seqs[order], prepend=0).astype("<i8").tobytes() + minutes[order].tobytes(), 1)


def _unpacked_places(body: bytes) -> Where:
    try:
        content = zlib.decompress(body)
        count = len(content) // 9
        deltas = np.frombuffer(content, dtype="<i8", count=count)
        return np.cumsum(deltas), np.frombuffer(content, dtype=np.uint8, count=count, offset=8 * count)
    except (zlib.error, ValueError) as error:
        raise Spoilt(f"an index is damaged: {error}") from error
