"""The claim code: how the first administrator is made where there is none. No default credential, no secret that two gateways share.

80 bits of chance, said once in the log and on the console, good for an hour, a few attempts and one administrator. Its digest
is in memory alone: where it was lost, another start makes another one, as does ``holdfast user claim SITE``.
"""

from __future__ import annotations

import secrets
from typing import Final

import structlog

from gateway.identity.tokens import digest_of
from gateway.objections import NotAllowed
from protocols.clock import Clock

log = structlog.get_logger("holdfast.identity")

LETTERS: Final = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"
"""Crockford's base 32: none looks like another."""
LASTS_S: Final = 3600.0
ATTEMPTS: Final = 10


class Claim:
    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._digest = ""
        self._until = 0.0
        self._attempts = 0
        self._closed = False

    @property
    def open(self) -> bool:
        """Whether a code is good now."""
        return bool(self._digest) and not self._closed and self._clock.monotonic() < self._until and self._attempts > 0

    def make(self) -> str:
        """A new code; any before is good no more."""
        code = "-".join("".join(secrets.choice(LETTERS) for _ in range(4)) for _ in range(4))
        self._digest = digest_of(_plain(code))
        self._until = self._clock.monotonic() + LASTS_S
        self._attempts = ATTEMPTS
        self._closed = False
        return code

    def announce(self) -> None:
        """Make a code and say it, in the log and so on the console."""
        log.warning("claim_code", code=self.make(), good_for_s=LASTS_S, advice="POST /api/v1/claim with it makes the first administrator")

    def check(self, code: str) -> None:
        """Raises NotAllowed where ``code`` is not the one, or none is good now."""
        fits = self.open and secrets.compare_digest(self._digest, digest_of(_plain(code)))
        if not fits:
            self._attempts -= 1
            raise NotAllowed(
                "this claim code is not good, or no longer", "restart the gateway, or run holdfast user claim SITE, for another one"
            )

    def close(self) -> None:
        """It was used, or is not needed."""
        self._closed = True

    def reopen(self) -> None:
        """What it was used for failed: it is good again, for as long as it was."""
        self._closed = False


def _plain(code: str) -> str:
    """As people write it: small letters, other signs between, O for 0, I and L for 1."""
    return "".join(each for each in code.upper().translate(str.maketrans("OIL", "011")) if each in LETTERS)
