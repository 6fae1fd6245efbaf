"""What must survive a restart: which commands were taken, so that none is carried out twice, and who locked what out.

Commands that come together are written together: one transaction each time the file has come back from the one before. Where the
file cannot be written, commands go on, as everything in the gateway does; what is lost by it is said, once, and is the memory of ids
across a restart alone (outcomes lie in the journal).
"""

from __future__ import annotations

import asyncio
from typing import Final

import msgspec
import structlog
from sqlite_utils import Database, Migrations

from gateway.commands.course import Course, Kept
from gateway.commands.lockout import LockOut
from gateway.objections import Unavailable
from gateway.state import State

log = structlog.get_logger("holdfast.commands")

MIGRATIONS: Final = Migrations("commands")
KEPT: Final = 5_000
"""Commands that are remembered across a restart."""


@MIGRATIONS()
def _0001_commands(db: Database) -> None:
    db.table("command").create({"number": int, "id": str, "body": bytes}, pk="number", not_null={"id", "body"})
    db.table("command").create_index(["id"], unique=True)
    db.table("lock_out").create({"id": str, "body": bytes}, pk="id", not_null={"body"})


class Memory:
    def __init__(self, state: State) -> None:
        self._state = state
        self._waiting: dict[str, Kept] = {}
        self._writing: dict[str, Kept] = {}
        self._turn = asyncio.Lock()
        self._said = False
        self.unkept = 0
        """Commands whose ids do not survive a restart, because the file could not be written."""

    async def commands(self) -> list[Kept]:
        """Those that are remembered, oldest first."""
        try:
            bodies = await self._state.do(_bodies)
        except Unavailable as error:
            self._cannot(0, error)
            return []
        return [kept for body in bodies if (kept := _read(body)) is not None]

    async def keep(self, course: Course) -> None:
        """Return when ``course`` as it is now is durable, or cannot be made so. Never raises."""
        kept = course.kept
        if self._writing.get(course.command.id) != kept:
            self._waiting[course.command.id] = kept
        async with self._turn:
            if course.command.id not in self._waiting:
                return  # it went with another's
            self._writing, self._waiting = self._waiting, {}
            batch = self._writing
            try:
                await self._state.do(lambda db: _write(db, batch))
            except Unavailable as error:
                self._cannot(len(batch), error)
            finally:
                self._writing = {}

    async def lock_outs(self) -> list[LockOut]:
        try:
            bodies = await self._state.do(lambda db: [row[0] for row in db.conn.execute("SELECT body FROM lock_out")])
        except Unavailable as error:
            self._cannot(0, error)
            return []
        return [msgspec.json.decode(body, type=LockOut) for body in bodies]

    async def set(self, one: LockOut) -> None:
        """Raises Unavailable."""
        await self._state.do(
            lambda db: db.conn.execute("INSERT OR REPLACE INTO lock_out (id, body) VALUES (?, ?)", (one.id, msgspec.json.encode(one)))
        )

    async def lift(self, identity: str) -> None:
        """Raises Unavailable."""
        await self._state.do(lambda db: db.conn.execute("DELETE FROM lock_out WHERE id = ?", (identity,)))

    def _cannot(self, commands: int, error: Unavailable) -> None:
        self.unkept += commands
        if not self._said:
            self._said = True
            log.error("commands_not_kept", trouble=error.detail, advice="after a restart their ids are not known; commands go on")


def _bodies(db: Database) -> list[bytes]:
    return [row[0] for row in db.conn.execute("SELECT body FROM command ORDER BY number")]


def _read(body: bytes) -> Kept | None:
    try:
        return msgspec.msgpack.decode(body, type=Kept)
    except ValueError:  # of a version that wrote otherwise
        log.warning("command_forgotten", body=body[:200])
        return None


def _write(db: Database, batch: dict[str, Kept]) -> None:
    db.conn.executemany(
        "INSERT INTO command (id, body) VALUES (?, ?) ON CONFLICT (id) DO UPDATE SET body = excluded.body",
        [(identity, msgspec.msgpack.encode(kept)) for identity, kept in batch.items()],
    )
    db.conn.execute("DELETE FROM command WHERE number <= (SELECT max(number) FROM command) - ?", (KEPT,))
