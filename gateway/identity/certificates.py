"""Which client certificates are people's or programs': those that were granted, by fingerprint. TLS has proven chain and key before.

A certificate that the gateway's authority has signed and that was not granted here opens nothing: devices have such ones too.
"""

from __future__ import annotations

from typing import Any

import msgspec

from gateway.authority.certificates import fingerprint_of
from gateway.identity.principal import Principal, Role
from gateway.objections import NotThere
from gateway.state import State
from protocols.clock import Clock


class Granted(msgspec.Struct, frozen=True, kw_only=True):
    """A certificate with which somebody may enter."""

    fingerprint: str
    """SHA-256 of its DER, hex."""
    name: str
    role: Role
    tenant: str
    expires_ns: int
    made_by: str
    made_ns: int
    revoked_ns: int = 0
    """When it was revoked; 0: it was not."""


class Certificates:
    def __init__(self, state: State, clock: Clock) -> None:
        self._state = state
        self._clock = clock
        self._granted: dict[str, Granted] = {}

    async def load(self) -> None:
        for row in await self._state.do(lambda db: list(db.table("certificate_principal").rows)):
            granted = Granted(**{**row, "role": Role(row["role"])})
            self._granted[granted.fingerprint] = granted

    def find(self, der: bytes) -> Principal | None:
        """Who enters with it now."""
        granted = self._granted.get(fingerprint_of(der))
        if granted is None or granted.revoked_ns or granted.expires_ns <= self._clock.time_ns():
            return None
        return Principal(name=granted.name, kind="certificate", role=granted.role, tenant=granted.tenant)

    def all(self) -> list[Granted]:
        """By name."""
        return sorted(self._granted.values(), key=lambda each: (each.name, each.fingerprint))

    def get(self, fingerprint: str) -> Granted:
        """Raises NotThere."""
        granted = self._granted.get(fingerprint)
        if granted is None:
            raise NotThere("no certificate with this fingerprint was granted", "GET /api/v1/certificate-grants lists them")
        return granted

    async def grant(self, der: bytes, name: str, role: Role, tenant: str, expires_ns: int, made_by: str) -> Granted:
        """Let whoever has this certificate in as ``name``. The same again changes what it says; one that is revoked stays so."""
        known = self._granted.get(fingerprint_of(der))
        granted = Granted(
            fingerprint=fingerprint_of(der),
            name=name,
            role=role,
            tenant=tenant,
            expires_ns=expires_ns,
            made_by=made_by,
            made_ns=self._clock.time_ns(),
            revoked_ns=known.revoked_ns if known else 0,
        )
        await self._keep(granted)
        return granted

    async def revoke(self, fingerprint: str) -> None:
        """It opens nothing any more, for ever. Twice is fine. Raises NotThere."""
        granted = self.get(fingerprint)
        if not granted.revoked_ns:
            revoked = msgspec.structs.replace(granted, revoked_ns=self._clock.time_ns())
            self._granted[fingerprint] = revoked  # first here: whatever the disk says, it is shut
            await self._keep(revoked)

    async def _keep(self, granted: Granted) -> None:
        row: dict[str, Any] = {**msgspec.structs.asdict(granted), "role": granted.role.value}  # Any: the columns of a row
        await self._state.do(lambda db: db.table("certificate_principal").upsert(row, pk="fingerprint"))
        self._granted[granted.fingerprint] = granted
