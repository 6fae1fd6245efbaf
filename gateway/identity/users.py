"""Users: people with a password who are known to this gateway itself. All are held in memory; what is changed is durable first."""

from __future__ import annotations

import asyncio
import sqlite3
from typing import Any, Final

import msgspec
from sqlite_utils import Database

from gateway.identity.principal import Principal, Role
from gateway.objections import Conflict, NotThere
from gateway.state import State
from protocols.clock import Clock

MOST: Final = 1000


class User(msgspec.Struct, frozen=True, kw_only=True):
    """What is known of a user."""

    name: str
    digest: str
    """Of the password: see ``passwords``."""
    role: Role
    tenant: str = ""
    disabled: bool = False
    made_by: str
    made_ns: int
    password_ns: int
    """When the password was last set."""

    @property
    def principal(self) -> Principal:
        return Principal(name=self.name, kind="user", role=self.role, tenant=self.tenant)

    @property
    def rules(self) -> bool:
        """Whether this is an administrator of the whole gateway, and may enter."""
        return self.role is Role.ADMINISTRATOR and not self.tenant and not self.disabled


class Users:
    def __init__(self, state: State, clock: Clock) -> None:
        self._state = state
        self._clock = clock
        self._by_name: dict[str, User] = {}
        self._turn = asyncio.Lock()
        """Whether an administrator is left is decided for one change at a time."""

    async def load(self) -> None:
        for row in await self._state.do(lambda db: list(db.table("user").rows)):
            user = _user(row)
            self._by_name[user.name] = user

    def find(self, name: str) -> User | None:
        return self._by_name.get(name)

    def get(self, name: str) -> User:
        """Raises NotThere."""
        user = self._by_name.get(name)
        if user is None:
            raise NotThere(f"no user is called {name!r}", "GET /api/v1/users lists them")
        return user

    def all(self) -> list[User]:
        """By name."""
        return sorted(self._by_name.values(), key=lambda user: user.name)

    def now_ns(self) -> int:
        return self._clock.time_ns()

    @property
    def ruled(self) -> bool:
        """Whether there is an administrator of the whole gateway."""
        return any(user.rules for user in self._by_name.values())

    async def add(self, name: str, digest: str, role: Role, tenant: str, made_by: str) -> User:
        """Raises Conflict where the name is taken or there are too many, Unavailable."""
        if len(self._by_name) >= MOST:
            raise Conflict(f"there are {MOST} users, which is the most", "delete those who are gone")
        now = self._clock.time_ns()
        user = User(name=name, digest=digest, role=role, tenant=tenant, made_by=made_by, made_ns=now, password_ns=now)
        try:
            await self._state.do(lambda db: db.table("user").insert(_row(user)))
        except sqlite3.IntegrityError:
            raise Conflict(f"a user is called {name!r} already", "take another name") from None
        self._by_name[name] = user
        return user

    async def change(self, name: str, **to: Any) -> User:  # Any: the fields of a User
        """Raises NotThere; Conflict where no administrator of the whole gateway would be left; Unavailable."""
        async with self._turn:
            user = msgspec.structs.replace(self.get(name), **to)
            self._must_stay_ruled(name, user)
            await self._state.do(lambda db: db.table("user").upsert(_row(user), pk="name"))
            self._by_name[name] = user
            return user

    async def remove(self, name: str) -> User:
        """As :meth:`change`."""
        async with self._turn:
            self.get(name)
            self._must_stay_ruled(name, None)
            await self._state.do(lambda db: _delete(db, name))
            return self._by_name.pop(name)

    def _must_stay_ruled(self, name: str, then: User | None) -> None:
        others = any(user.rules for user in self._by_name.values() if user.name != name)
        if self._by_name[name].rules and not others and not (then is not None and then.rules):
            raise Conflict(f"{name} is the last administrator of this gateway", "make another one first")


def _delete(db: Database, name: str) -> None:
    db.execute("DELETE FROM user WHERE name = ?", [name])


def _row(user: User) -> dict[str, Any]:  # Any: the columns of a row
    return {**msgspec.structs.asdict(user), "role": user.role.value, "disabled": int(user.disabled)}


def _user(row: dict[str, Any]) -> User:  # Any: as above
    return User(**{**row, "role": Role(row["role"]), "disabled": bool(row["disabled"])})
