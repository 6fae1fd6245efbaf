"""Has the state fit this release before it is opened: migrated in a copy, or, where a newer release has left it, put aside and kept.

A release only ever writes to a file that every release can read which may have to: the one before starts on the same folder after
a rollback. So a migration that this release brings is carried out in a copy that then takes the file's place in one rename, and the
file as it was is kept. A migration that this release does *not* know was brought by a newer one: it is additive, and the file is used
as it is, unless its name ends with ``__breaks``. Then the newer file is put aside, never written to, and the newest kept copy that
this release knows takes its place; what stands in the newer file alone is said, at every start, as long as it lies there. Nothing is
merged.

Each step is durable before the next, so that a power cut at any point leaves a file that both releases open. What is kept is bounded
in number and bytes, oldest first. Raises sqlite3.Error and OSError; nothing is lost by either.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import re
import shutil
import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Final, Literal

import msgspec
import structlog
from sqlite_utils import Database, Migrations

from gateway.journal.segment import sync, sync_folder

log = structlog.get_logger("holdfast.state")

KEPT: Final = "kept"
ABOUT: Final = "about.json"
BREAKS: Final = "__breaks"
"""End of the name of a migration after which older releases cannot go on with the file."""
MOST_KEPT: Final = 6
"""Copies of before a migration."""
MOST_ASIDE: Final = 3
"""Files of newer releases."""
MOST_BYTES: Final = 512 * 1024 * 1024
"""Of each of the two."""
SPARE_BYTES: Final = 16 * 1024 * 1024
"""Free space that a copy leaves."""
MOST_TOLD: Final = 20
_NAME: Final = re.compile(r"^(\d{6})-(before|newer)$")
_APPLIED: Final = "SELECT migration_set, name FROM _sqlite_migrations"

Kind = Literal["before", "newer"]


class About(msgspec.Struct, frozen=True, kw_only=True):
    """What stands beside a kept file."""

    kind: Kind
    """``before`` a migration, or left behind by a ``newer`` release."""
    release: str
    """The one that kept it."""
    made_ns: int
    migrations: tuple[str, ...]
    """Those that the file has: ``set/name``."""
    unseen: dict[str, int] = {}
    """Of a newer file: how many more rows it has than what took its place, by table."""


@dataclass(frozen=True, slots=True)
class Kept:
    """A kept file."""

    number: int
    folder: Path
    about: About

    @property
    def bytes(self) -> int:
        return sum(path.stat().st_size for path in self.folder.iterdir())


@dataclass(frozen=True, slots=True)
class Place:
    """Where the state lies, and who asks."""

    folder: Path
    file: str
    release: str
    now_ns: int
    lock: Path | None = None
    """Held by a gateway that runs: while it is, nothing may take the place of its file."""

    @property
    def path(self) -> Path:
        return self.folder / self.file

    @property
    def draft(self) -> Path:
        return self.folder / f"{self.file}.draft"


def fit(place: Place, migrations: Sequence[Migrations]) -> tuple[str, ...]:
    """Have the file fit this release, and say what of it is not seen. A file that is not there yet needs nothing."""
    known = {f"{each.name}/{one.name}" for each in migrations for one in each._migrations}  # the library has no other way to ask
    place.draft.unlink(missing_ok=True)
    for left in (place.folder / KEPT).glob(".*"):
        shutil.rmtree(left)
    if place.path.exists():
        present = applied(place.path)
        if breaking(present, known):
            with _alone(place):
                _go_back(place, present, known)
            present = applied(place.path) if place.path.exists() else frozenset()
        if present - known:
            log.info("state_of_a_newer_release", more=sorted(present - known), advice="what it added is kept, and not seen")
        if present and known - present:
            with _alone(place):
                _migrate(place, present, migrations)
    return tuple(_note(each) for each in listed(place.folder) if each.about.kind == "newer")


def applied(path: Path) -> frozenset[str]:
    """The migrations that a file has: ``set/name``."""
    with closing(sqlite3.connect(path)) as db:
        if db.execute("SELECT 1 FROM sqlite_master WHERE name = '_sqlite_migrations'").fetchone() is None:
            return frozenset()
        return frozenset(f"{of}/{name}" for of, name in db.execute(_APPLIED))


def breaking(present: frozenset[str], known: set[str]) -> list[str]:
    """Migrations of a newer release after which this one cannot go on. A set that nobody here knows is a part of its own, with tables
    of its own, and breaks nothing."""
    sets = {each.partition("/")[0] for each in known}
    return sorted(each for each in present - known if each.endswith(BREAKS) and each.partition("/")[0] in sets)


def listed(folder: Path) -> list[Kept]:
    """What is kept, oldest first. What cannot be read is nobody's."""
    found = []
    for path in sorted((folder / KEPT).glob("*")):
        match = _NAME.match(path.name)
        if match is not None:
            with contextlib.suppress(OSError, msgspec.MsgspecError):
                found.append(Kept(int(match[1]), path, msgspec.json.decode((path / ABOUT).read_bytes(), type=About)))
    return found


# ------------------------------------------------------------------------------------------------------ forward


def _migrate(place: Place, present: frozenset[str], migrations: Sequence[Migrations]) -> None:
    """Keep the file as it is, migrate a copy of it, and have the copy take its place."""
    _room(place)
    about = About(kind="before", release=place.release, made_ns=place.now_ns, migrations=tuple(sorted(present)))
    kept = _keep(place, about)
    copy(place.path, place.draft)
    with closing(sqlite3.connect(place.draft)) as connection:
        database = Database(connection, execute_plugins=False)
        connection.execute("PRAGMA foreign_keys=ON")
        for each in migrations:
            each.apply(database)
    _take_place(place)
    log.info("state_migrated", release=place.release, kept=str(kept), migrations=sorted(applied(place.path) - present))
    _bound(place.folder)


# ------------------------------------------------------------------------------------------------------ back


def _go_back(place: Place, present: frozenset[str], known: set[str]) -> None:
    """Put the newer release's file aside, and take the newest kept one that this release knows; with none, the state begins anew."""
    usable = [
        each for each in listed(place.folder) if each.about.kind == "before" and not breaking(frozenset(each.about.migrations), known)
    ]
    source = usable[-1] if usable else None
    _room(place)
    if source is not None:
        copy(source.folder / place.file, place.draft)
    unseen = _unseen(place.path, place.draft if source is not None else None)
    about = About(kind="newer", release=place.release, made_ns=place.now_ns, migrations=tuple(sorted(present)), unseen=unseen)
    aside = _keep(place, about)
    if source is not None:
        _take_place(place)
    else:
        place.path.unlink()
        sync_folder(place.folder)
    log.error(
        "state_put_aside",
        put_aside=str(aside),
        taken=str(source.folder) if source is not None else "",
        unseen=unseen,
        advice="a newer release wrote it, and this one cannot read it; it is kept as it is, and nothing of it is lost",
    )
    _bound(place.folder)


def _unseen(newer: Path, older: Path | None) -> dict[str, int]:
    """How many more rows ``newer`` has, by table."""
    counted, before = _rows(newer), _rows(older) if older is not None else {}
    more = {table: count - before.get(table, 0) for table, count in counted.items()}
    return dict(sorted((table, count) for table, count in more.items() if count > 0)[:MOST_TOLD])


def _rows(path: Path) -> dict[str, int]:
    with closing(sqlite3.connect(path)) as db:
        names = [name for (name,) in db.execute("SELECT name FROM sqlite_master WHERE type = 'table' AND name NOT LIKE '\\_%' ESCAPE '\\'")]
        return {name: int(db.execute(f'SELECT count(*) FROM "{name.replace(chr(34), chr(34) * 2)}"').fetchone()[0]) for name in names}


def _note(kept: Kept) -> str:
    day = datetime.fromtimestamp(kept.about.made_ns / 1e9, UTC)
    more = ", ".join(f"{count} in {table}" for table, count in kept.about.unseen.items()) or "none counted"
    return (
        f"what a newer release wrote before {day:%Y-%m-%d %H:%M} UTC is put aside in {kept.folder} and not seen: rows it has more: {more}"
    )


# ------------------------------------------------------------------------------------------------------ the disk


@contextmanager
def _alone(place: Place) -> Iterator[None]:
    """Nobody else runs on this folder while the file is exchanged."""
    if place.lock is None or not place.lock.exists():
        yield
        return
    descriptor = os.open(place.lock, os.O_RDWR | os.O_CLOEXEC)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise BlockingIOError(errno.EAGAIN, "another gateway runs on it, and the state has to be migrated", str(place.path)) from error
        yield
    finally:
        os.close(descriptor)


def _room(place: Place) -> None:
    space = os.statvfs(place.folder)
    need = 2 * place.path.stat().st_size + SPARE_BYTES
    if space.f_bavail * space.f_frsize < need:
        raise OSError(errno.ENOSPC, f"{need // 1024**2} MiB have to be free to migrate it in a copy", str(place.path))


def copy(source: Path, target: Path) -> None:
    """A consistent copy, durable."""
    target.unlink(missing_ok=True)
    with closing(sqlite3.connect(source)) as old, closing(sqlite3.connect(target)) as new:
        target.chmod(0o600)
        old.backup(new)
    sync(target)


def _keep(place: Place, about: About) -> Path:
    """Keep the file as it is under the next number. One that a power cut left without its successor is kept once."""
    folder = place.folder / KEPT
    folder.mkdir(exist_ok=True, mode=0o700)
    everything = listed(place.folder)
    for each in everything[-1:]:
        if (each.about.kind, each.about.migrations) == (about.kind, about.migrations) and _is_same(each.folder / place.file, place.path):
            return each.folder
    number = max((each.number for each in everything), default=0) + 1
    final = folder / f"{number:06d}-{about.kind}"
    draft = folder / f".{final.name}"
    draft.mkdir(mode=0o700)
    copy(place.path, draft / place.file)
    (draft / ABOUT).write_bytes(msgspec.json.format(msgspec.json.encode(about), indent=2) + b"\n")
    sync(draft / ABOUT)
    sync_folder(draft)
    draft.rename(final)
    sync_folder(folder)
    sync_folder(place.folder)
    return final


def _is_same(one: Path, other: Path) -> bool:
    """Whether two files hold the same: copies of one file by SQLite differ in nothing but the counters of its header."""
    with closing(sqlite3.connect(one)) as first, closing(sqlite3.connect(other)) as second:
        return all(a == b for a, b in zip(first.iterdump(), second.iterdump(), strict=False)) and _rows(one) == _rows(other)


def _take_place(place: Place) -> None:
    """The draft becomes the file, in one step. A journal of the old file would be played back into the new one: there may be none."""
    sync(place.draft)
    journal = place.folder / f"{place.file}-journal"
    if journal.exists() and journal.stat().st_size:
        raise OSError(errno.EBUSY, "somebody else writes to it", str(place.path))
    journal.unlink(missing_ok=True)
    place.draft.replace(place.path)
    sync_folder(place.folder)


def _bound(folder: Path) -> None:
    """Remove the oldest beyond the bounds; of each kind the newest stays whatever the bounds say."""
    kinds: tuple[tuple[Kind, int], ...] = (("before", MOST_KEPT), ("newer", MOST_ASIDE))
    for kind, most in kinds:
        mine = [each for each in listed(folder) if each.about.kind == kind]
        while len(mine) > 1 and (len(mine) > most or sum(each.bytes for each in mine) > MOST_BYTES):
            gone = mine.pop(0)
            shutil.rmtree(gone.folder)
            log.warning("kept_state_removed", kept=str(gone.folder), advice="only so many are kept: holdfast backup keeps one elsewhere")
