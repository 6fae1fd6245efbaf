"""Sessions: somebody has signed in and is known for a while. They live in memory alone, on the monotonic clock.

So a clock that is set moves no session's end, nothing of them lies on the disk, and a gateway that is started anew knows none.
Secrets are held as digests. One ends when it was idle for too long, when it is too old, on logout, and with whatever changes
what its user may.
"""

from __future__ import annotations

import secrets
from dataclasses import dataclass
from typing import Final, Literal

import msgspec

from gateway.identity.principal import Principal
from gateway.identity.tokens import digest_of
from protocols.clock import Clock

Via = Literal["password", "oidc", "claim"]
"""How somebody signed in."""
PREFIX: Final = "hfs_"
BYTES: Final = 32
MOST: Final = 2000
MOST_A_USER: Final = 20
"""The one that was idle the longest gives way."""


class Session(msgspec.Struct, frozen=True, kw_only=True):
    """Somebody who has signed in."""

    id: str
    """Names it; opens nothing."""
    digest: str
    principal: Principal
    via: Via
    address: str
    began_ns: int
    ends: float
    """Monotonic: when it is too old."""
    idle_s: float


@dataclass(slots=True)
class _Held:
    session: Session
    used: float


class Sessions:
    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._by_digest: dict[str, _Held] = {}

    def begin(self, principal: Principal, via: Via, address: str, *, idle_s: float, longest_s: float) -> tuple[str, Session]:
        """A new one, and its secret, which is told this once."""
        self._forget_ended()
        self._make_room(principal)
        secret = PREFIX + secrets.token_urlsafe(BYTES)
        now = self._clock.monotonic()
        session = Session(
            id=secrets.token_hex(8),
            digest=digest_of(secret),
            principal=principal,
            via=via,
            address=address,
            began_ns=self._clock.time_ns(),
            ends=now + longest_s,
            idle_s=idle_s,
        )
        self._by_digest[session.digest] = _Held(session, now)
        return secret, session

    def find(self, secret: str) -> Session | None:
        """The session of ``secret`` if it goes on; it was used now."""
        held = self._by_digest.get(digest_of(secret))
        if held is None:
            return None
        if self._is_over(held):
            del self._by_digest[held.session.digest]
            return None
        held.used = self._clock.monotonic()
        return held.session

    def all(self) -> list[Session]:
        """Those that go on, the oldest first."""
        self._forget_ended()
        return sorted((held.session for held in self._by_digest.values()), key=lambda one: (one.began_ns, one.id))

    def left_s(self, session: Session) -> float:
        """For how long ``session`` goes on if nobody uses it."""
        held = self._by_digest.get(session.digest)
        return 0.0 if held is None else max(0.0, min(session.ends, held.used + session.idle_s) - self._clock.monotonic())

    def end(self, session: Session) -> None:
        self._by_digest.pop(session.digest, None)

    def end_of(self, name: str, *, but: str = "") -> int:
        """End every session of the user ``name``, but for the one with this id. How many there were."""
        ended = [held.session for held in self._by_digest.values() if held.session.principal.name == name and held.session.id != but]
        for session in ended:
            self.end(session)
        return len(ended)

    def _is_over(self, held: _Held) -> bool:
        return self._clock.monotonic() >= min(held.session.ends, held.used + held.session.idle_s)

    def _forget_ended(self) -> None:
        self._by_digest = {digest: held for digest, held in self._by_digest.items() if not self._is_over(held)}

    def _make_room(self, principal: Principal) -> None:
        own = [held for held in self._by_digest.values() if held.session.principal.name == principal.name]
        for many, most in ((own, MOST_A_USER), (list(self._by_digest.values()), MOST)):
            if len(many) >= most:
                self.end(min(many, key=lambda held: held.used).session)
