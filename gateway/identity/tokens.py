"""API tokens: who may do what for how long, of which only digests are kept. All of them are held in memory, so that asking costs no disk.

Whatever is changed is durable before it is true here, and true here at once: a token that is revoked opens nothing any more.
A token belongs to the user who made it and ends with them; one of a machine belongs to the gateway.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import secrets
import sqlite3
from typing import Any, Final

import msgspec
from sqlite_utils import Database

from gateway.identity.principal import Permission, Principal, Role
from gateway.objections import Conflict, NotThere, Unavailable
from gateway.state import State
from protocols.clock import Clock

PREFIX: Final = "hft_"
"""What tokens begin with, so that scanners of secrets know them."""
BYTES: Final = 32
MOST: Final = 5000
USED_EVERY_NS: Final = 3600 * 10**9
"""When a token was last used is kept on disk this exactly: flash wears out."""


class Token(msgspec.Struct, frozen=True, kw_only=True):
    """What is known of a token."""

    id: str
    digest: str
    role: Role
    tenant: str
    scopes: frozenset[Permission] | None
    expires_ns: int
    owner: str
    """The user with whom it ends; empty: the gateway's."""
    made_by: str
    made_ns: int

    @property
    def principal(self) -> Principal:
        return Principal(name=self.id, kind="token", role=self.role, tenant=self.tenant, scopes=self.scopes)


class Tokens:
    def __init__(self, state: State, clock: Clock) -> None:
        self._state = state
        self._clock = clock
        self._by_digest: dict[str, tuple[Token, Principal]] = {}
        self._used: dict[str, int] = {}
        self._used_kept: dict[str, int] = {}
        self._writing: set[asyncio.Task[None]] = set()

    async def load(self) -> None:
        rows = await self._state.do(lambda db: list(db.table("token").rows))
        for row in rows:
            self._take(_token(row))
        self._used = {row["id"]: row["used_ns"] for row in rows}
        self._used_kept = dict(self._used)

    def find(self, token: str) -> tuple[Token, Principal] | None:
        """The token, and who it is, if it is good still."""
        found = self._by_digest.get(digest_of(token))
        now = self._clock.time_ns()
        if found is None or found[0].expires_ns <= now:
            return None
        self._note_use(found[0].id, now)
        return found

    def all(self) -> list[Token]:
        """Every token that is kept, by id; those that have ended too."""
        return sorted((token for token, _ in self._by_digest.values()), key=lambda token: token.id)

    def get(self, id: str) -> Token:
        """Raises NotThere."""
        for token, _ in self._by_digest.values():
            if token.id == id:
                return token
        raise no_token(id)

    def used_ns(self, id: str) -> int:
        """When it was last used, UTC nanoseconds; 0: never. Exact to an hour across restarts."""
        return self._used.get(id, 0)

    async def add(
        self, id: str, role: Role, tenant: str, scopes: frozenset[Permission] | None, lifetime_s: float, owner: str, made_by: str
    ) -> tuple[str, Token]:
        """A new token, which is told this once. Raises Conflict where ``id`` is taken or there are too many, Unavailable."""
        if len(self._by_digest) >= MOST:
            await self.remove([token.id for token in self.all() if token.expires_ns <= self._clock.time_ns()])
        if len(self._by_digest) >= MOST:
            raise Conflict(f"there are {MOST} tokens, which is the most", "revoke those that nobody uses")
        secret = PREFIX + secrets.token_urlsafe(BYTES)
        now = self._clock.time_ns()
        token = Token(
            id=id,
            digest=digest_of(secret),
            role=role,
            tenant=tenant,
            scopes=scopes,
            expires_ns=now + round(lifetime_s * 1e9),
            owner=owner,
            made_by=made_by,
            made_ns=now,
        )
        try:
            await self._state.do(lambda db: db.table("token").insert(_row(token)))
        except sqlite3.IntegrityError:
            raise Conflict(f"a token is called {id!r} already", "give it another name, or revoke that one first") from None
        self._take(token)
        return secret, token

    async def remove(self, ids: list[str]) -> None:
        """Revoke them: they open nothing as soon as this returns. Raises Unavailable, and then they open nothing until the next start."""
        gone = set(ids)
        if not gone:
            return
        self._by_digest = {digest: held for digest, held in self._by_digest.items() if held[0].id not in gone}
        await self._state.do(lambda db: _delete(db, ids))

    def _take(self, token: Token) -> None:
        self._by_digest[token.digest] = (token, token.principal)

    def _note_use(self, id: str, now: int) -> None:
        self._used[id] = now
        if now - self._used_kept.get(id, 0) >= USED_EVERY_NS:
            self._used_kept[id] = now
            task = asyncio.get_running_loop().create_task(self._keep_use(id, now))
            self._writing.add(task)
            task.add_done_callback(self._writing.discard)

    async def _keep_use(self, id: str, now: int) -> None:
        with contextlib.suppress(Unavailable):  # only a convenience; the disk's trouble is said where it matters
            await self._state.do(lambda db: db.execute("UPDATE token SET used_ns = ? WHERE id = ?", [now, id]))

    async def close(self) -> None:
        """Wait for what is being written."""
        await asyncio.gather(*self._writing)


def digest_of(secret: str) -> str:
    """Of tokens, which have 256 bits of chance: a plain digest of those cannot be turned around."""
    return hashlib.sha256(secret.encode()).hexdigest()


def no_token(id: str) -> NotThere:
    return NotThere(f"no token is called {id!r}", "GET /api/v1/tokens lists them")


def _delete(db: Database, ids: list[str]) -> None:
    for id in ids:
        db.execute("DELETE FROM token WHERE id = ?", [id])


def _row(token: Token) -> dict[str, Any]:  # Any: the columns of a row
    scopes = None if token.scopes is None else " ".join(sorted(token.scopes))
    return {**msgspec.structs.asdict(token), "role": token.role.value, "scopes": scopes}


def _token(row: dict[str, Any]) -> Token:  # Any: as above
    scopes = None if row["scopes"] is None else frozenset(Permission(each) for each in row["scopes"].split())
    return Token(
        **{name: row[name] for name in Token.__struct_fields__ if name not in ("role", "scopes")}, role=Role(row["role"]), scopes=scopes
    )
