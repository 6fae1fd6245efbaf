"""The local lock-out: while somebody works on a machine, nobody writes to it. Set and lifted on site alone, kept across restarts.

It is no permission: who may set it may not write past it either, until it is lifted. No uplink can lift it, for none can ask.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Literal

import msgspec

Scope = Literal["gateway", "connection", "device"]


class LockOut(msgspec.Struct, frozen=True, kw_only=True):
    """What is locked out, by whom, and why."""

    scope: Scope
    name: str = ""
    """Of the connection or device; empty for the gateway."""
    who: str
    why: str
    since_ns: int
    until_ns: int = 0
    """UTC; when it ends by itself; 0: when somebody lifts it."""

    @property
    def id(self) -> str:
        return f"{self.scope}:{self.name}" if self.name else self.scope

    def holds(self, now_ns: int) -> bool:
        return not self.until_ns or now_ns < self.until_ns

    def covers(self, connection: str, device: str) -> bool:
        return self.scope == "gateway" or self.name == (connection if self.scope == "connection" else device)

    def __str__(self) -> str:
        what = f"{self.scope} {self.name}" if self.name else "the gateway"
        return f"{what} is locked out by {self.who}: {self.why}"


def covering(lock_outs: Iterable[LockOut], connection: str, device: str, now_ns: int) -> LockOut | None:
    """The lock-out that holds for a device now, if there is one."""
    return next((one for one in lock_outs if one.holds(now_ns) and one.covers(connection, device)), None)
