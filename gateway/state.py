"""What the gateway knows besides readings: who may enter, which revisions there were, which devices it has. One SQLite file.

It is apart from the journal, whose files no other SQLite may touch (see decision 0002), and asks for durability, not speed:
rollback journal, ``synchronous=FULL``. One thread owns the connection; the event loop hands it functions. Each part brings
its own tables as migrations; a file that lacks some is migrated in a copy before it is opened, so that the release before still
starts, and what a newer release left is used or put aside (``gateway.releases.kept``).

Nothing here may keep the gateway from reading and delivering. A file that is damaged is put aside, with its name in the log,
and a new one begun; where none can be written, what is kept lives in memory until the next start, and ``trouble`` says so.
"""

from __future__ import annotations

import asyncio
import contextlib
import sqlite3
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from importlib.metadata import version
from pathlib import Path
from typing import Final, TypeVar

import structlog
from sqlite_utils import Database, Migrations

from gateway.objections import Unavailable
from gateway.releases.kept import Place, fit
from protocols.clock import Clock

log = structlog.get_logger("holdfast.state")

T = TypeVar("T")

FILE: Final = "state.db"
_CANNOT_BE_READ: Final = ("file is not a database", "malformed", "disk image")


class State:
    """One open file. ``do`` belongs to the event loop; what it is handed runs on the file's own thread."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.trouble = ""
        """Why what is kept does not survive a restart; empty if it does."""
        self.notes: tuple[str, ...] = ()
        """What a newer release wrote and this one does not see, in words."""
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="state")
        self._database: Database | None = None

    @classmethod
    async def open(cls, folder: Path, migrations: Sequence[Migrations], clock: Clock, *, lock: Path | None = None) -> State:
        """The state in ``folder``, which is made if need be. Raises nothing that has to do with disks: see ``trouble``.

        ``lock`` is the journal's: whoever holds it uses the state too, and no migration may take the file from under it."""
        state = cls(folder)
        await asyncio.get_running_loop().run_in_executor(state._thread, state._open, migrations, clock, lock)
        return state

    async def do(self, work: Callable[[Database], T]) -> T:
        """What ``work`` returns; all that it writes is durable then, or nothing is. Raises Unavailable where the disk says no."""
        return await asyncio.get_running_loop().run_in_executor(self._thread, self._do, work)

    async def close(self) -> None:
        await asyncio.get_running_loop().run_in_executor(self._thread, self._close)
        self._thread.shutdown()

    def _do(self, work: Callable[[Database], T]) -> T:
        assert self._database is not None
        try:
            with self._database.atomic():
                return work(self._database)
        except sqlite3.IntegrityError:
            raise
        except sqlite3.DatabaseError as error:
            raise Unavailable(
                f"the gateway's state in {self.folder / FILE} cannot be used ({error})", "look at the disk; readings go on"
            ) from error

    def _open(self, migrations: Sequence[Migrations], clock: Clock, lock: Path | None) -> None:
        try:
            self.folder.mkdir(parents=True, exist_ok=True, mode=0o700)
            self.notes = fit(Place(self.folder, FILE, version("holdfast"), clock.time_ns(), lock), migrations)
            self._database = _opened(str(self.folder / FILE), migrations)
            (self.folder / FILE).chmod(0o600)
        except sqlite3.DatabaseError as error:
            if not any(words in str(error) for words in _CANNOT_BE_READ):
                self._in_memory(error, migrations)
                return
            aside = self.folder / f"{FILE}.damaged-{clock.time_ns()}"
            log.error("state_damaged", put_aside=str(aside), trouble=str(error), advice="users, tokens and revisions begin anew")
            try:
                (self.folder / FILE).rename(aside)
                self._database = _opened(str(self.folder / FILE), migrations)
            except (OSError, sqlite3.DatabaseError) as worse:
                self._in_memory(worse, migrations)
        except OSError as error:
            self._in_memory(error, migrations)

    def _in_memory(self, error: Exception, migrations: Sequence[Migrations]) -> None:
        self.trouble = f"{self.folder / FILE}: {error}"
        log.error("state_not_kept", trouble=self.trouble, advice="make room, or let the service write there, then restart it")
        self._database = _opened(":memory:", migrations)

    def _close(self) -> None:
        if self._database is not None:
            self._database.conn.close()


def _opened(name: str, migrations: Sequence[Migrations]) -> Database:
    connection = sqlite3.connect(name)
    try:
        database = Database(connection, execute_plugins=False)
        connection.execute("PRAGMA journal_mode=TRUNCATE")  # as safe as DELETE, and the folder need not be synchronised each time
        connection.execute("PRAGMA synchronous=FULL")
        connection.execute("PRAGMA foreign_keys=ON")
        for each in migrations:
            each.apply(database)
    except BaseException:
        with contextlib.suppress(sqlite3.Error):  # the error that matters is on its way
            connection.close()
        raise
    return database
