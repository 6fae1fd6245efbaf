"""Who is who: from what a caller shows to a principal. Secrets are kept as digests; what was shown appears nowhere."""

from __future__ import annotations

import hashlib
import secrets
from typing import Any, Final

import msgspec
from sqlite_utils import Database, Migrations

from gateway.identity.principal import Permission, Principal, Role
from gateway.objections import Unknown
from gateway.state import State
from protocols.clock import Clock

MIGRATIONS: Final = Migrations("identity")
TOKEN_PREFIX: Final = "hft_"
"""What tokens begin with, so that scanners of secrets know them."""
TOKEN_BYTES: Final = 32
LONGEST_CREDENTIAL: Final = 4096


@MIGRATIONS()
def _0001_tokens(db: Database) -> None:
    db.table("token").create(
        {"id": str, "digest": str, "role": str, "tenant": str, "scopes": str, "expires_ns": int, "made_by": str, "made_ns": int},
        pk="id",
        not_null={"digest", "role", "tenant", "expires_ns", "made_by", "made_ns"},
    )
    db.table("token").create_index(["digest"], unique=True)


class Shown(msgspec.Struct, frozen=True, kw_only=True):
    """What a caller shows of itself with one request."""

    address: str
    authorization: str = ""
    """The header of this name (RFC 9110, 11.6.2)."""
    session: str = ""
    """The session cookie."""
    certificate: bytes = b""
    """The client's certificate, DER, whose chain and key TLS has proven; empty where it has none."""


class Identity:
    def __init__(self, state: State, clock: Clock) -> None:
        self._state = state
        self._clock = clock

    async def principal(self, shown: Shown) -> Principal | None:
        """Who shows ``shown``; None where nothing is shown. Raises Unknown where it proves nothing (any more)."""
        if not shown.authorization:
            return None
        scheme, _, token = shown.authorization.partition(" ")
        if scheme.lower() != "bearer" or not token or len(token) > LONGEST_CREDENTIAL:
            raise _unknown()
        return await self._of_token(token)

    async def issue_token(
        self, name: str, role: Role, *, tenant: str = "", scopes: frozenset[Permission] | None = None, lifetime_s: float, made_by: str
    ) -> str:
        """A new token, which is told this once. ``name`` is its id, unique."""
        token = TOKEN_PREFIX + secrets.token_urlsafe(TOKEN_BYTES)
        now = self._clock.time_ns()
        row = {
            "id": name,
            "digest": _digest(token),
            "role": role.value,
            "tenant": tenant,
            "scopes": None if scopes is None else " ".join(sorted(scopes)),
            "expires_ns": now + round(lifetime_s * 1e9),
            "made_by": made_by,
            "made_ns": now,
        }
        await self._state.do(lambda db: db.table("token").insert(row))
        return token

    async def _of_token(self, token: str) -> Principal:
        digest = _digest(token)
        found = await self._state.do(lambda db: list(db.table("token").rows_where("digest = ?", [digest], limit=1)))
        if not found or found[0]["expires_ns"] <= self._clock.time_ns():
            raise _unknown()
        return _principal(found[0])


def _principal(row: dict[str, Any]) -> Principal:  # Any: the columns of a row
    scopes = None if row["scopes"] is None else frozenset(Permission(each) for each in row["scopes"].split())
    return Principal(name=row["id"], kind="token", role=Role(row["role"]), tenant=row["tenant"], scopes=scopes)


def _digest(token: str) -> str:
    """Tokens have 256 bits of chance: a plain digest cannot be turned around."""
    return hashlib.sha256(token.encode()).hexdigest()


def _unknown() -> Unknown:
    """The same for whatever is wrong: it helps nobody to guess."""
    return Unknown("these credentials are not valid, or no longer", "sign in again, or ask an administrator for a new token")
