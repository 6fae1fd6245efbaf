"""Passwords: which are taken, and how they are kept. Argon2id (RFC 9106), in a thread, few at a time.

19 MiB, two passes, one lane is what OWASP's Password Storage Cheat Sheet (2024) names as the least that is sound: 70 ms here, and
under half a second on a small ARM box. Two are computed at a time, so that logins take 40 MiB at most however many come, and
those that would wait too long are sent away. The rules follow NIST SP 800-63B: length counts, composition does not, nothing expires.
"""

from __future__ import annotations

import asyncio
import importlib
import unicodedata
from typing import Any, Final

from gateway.objections import TooMany, Unfit
from protocols.contract import Problem

SHORTEST: Final = 12
LONGEST: Final = 128
FEWEST_DIFFERENT: Final = 5
MEMORY_KIB: Final = 19 * 1024
PASSES: Final = 2
AT_A_TIME: Final = 2
MOST_WAITING: Final = 16


def must_be_fit(password: str, *names: str) -> None:
    """Raises Unfit for a password that is too short, or could be guessed from ``names`` (the user's, the gateway's)."""
    faults = list(_faults(password, [name.casefold() for name in names if len(name) >= 3]))
    if faults:
        raise Unfit(
            "this password is not taken", "a sentence of a few words is easy to remember", [Problem("password", *each) for each in faults]
        )


def _faults(password: str, names: list[str]) -> list[tuple[str, str]]:
    folded = password.casefold()
    found = []
    if not SHORTEST <= len(password) <= LONGEST:
        found.append((f"it has {len(password)} characters", f"take {SHORTEST} to {LONGEST}"))
    if len(set(folded)) < FEWEST_DIFFERENT:
        found.append(("it repeats the same few characters", f"use at least {FEWEST_DIFFERENT} different ones"))
    if any(name in folded and len(folded) - len(name) < SHORTEST for name in names):
        found.append(("it is little more than a name", "use words that have nothing to do with it"))
    return found


class Passwords:
    """Makes digests and checks them, few at a time. What it gives to keep begins with ``$argon2id$``."""

    def __init__(self) -> None:
        self._turn = asyncio.Semaphore(AT_A_TIME)
        self._asked = 0
        self._nobodys = ""

    async def digest(self, password: str) -> str:
        """What is kept of ``password``. Raises TooMany."""
        return str(await self._in_turn(_digest, password))

    async def fits(self, password: str, kept: str | None) -> bool:
        """Whether ``password`` is the one of ``kept``; with None false, after the same time. Raises TooMany."""
        if not self._nobodys:  # for whoever it is, so that the first stranger takes no longer than a user
            self._nobodys = await self.digest("of nobody at all")
        fits = await self._in_turn(_fits, password, kept or self._nobodys)
        return bool(fits) and kept is not None

    async def _in_turn(self, work: Any, *arguments: str) -> Any:  # Any: a digest, or whether it fits
        if self._asked >= AT_A_TIME + MOST_WAITING:
            raise TooMany("too many sign in at once", "try again in a moment", retry_after_s=2)
        self._asked += 1
        try:
            async with self._turn:
                return await asyncio.to_thread(work, *arguments)
        finally:
            self._asked -= 1


def _hasher() -> Any:  # Any: loaded when first needed, for a gateway without an API never needs it
    return importlib.import_module("argon2").PasswordHasher(time_cost=PASSES, memory_cost=MEMORY_KIB, parallelism=1)


def _plain(password: str) -> str:
    """The same for every keyboard (NIST SP 800-63B, 5.1.1.2)."""
    return unicodedata.normalize("NFKC", password)


def _digest(password: str) -> str:
    return str(_hasher().hash(_plain(password)))


def _fits(password: str, kept: str) -> bool:
    argon2 = importlib.import_module("argon2")
    try:
        return bool(_hasher().verify(kept, _plain(password)))
    except (argon2.exceptions.VerificationError, argon2.exceptions.InvalidHashError):
        return False
