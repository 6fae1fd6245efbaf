"""Certificates that the gateway's authority has issued, to people, programs and devices: which there are, and which are revoked.

What is issued stands in the state; what is revoked stands there and in the authority's list (CRL), and each makes up for the other:
where the state is lost, what was revoked stays so. Revoking takes effect at once: in memory first, whatever the disk says.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any, Final, Literal, TypeVar

import msgspec
import structlog
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding
from sqlite_utils import Database, Migrations

from gateway.authority.authority import Authority, Revoked
from gateway.authority.request import key_of
from gateway.objections import Conflict, NotThere, Unavailable
from gateway.state import State
from protocols.clock import Clock

log = structlog.get_logger("holdfast.authority")

T = TypeVar("T")

MIGRATIONS: Final = Migrations("authority")
MOST: Final = 20_000
"""Certificates that are kept; those that have ended make room."""
MOST_DAYS: Final = 3650
RENEW_CRL_NS: Final = 86_400 * 10**9
Purpose = Literal["principal", "device"]
Reason = Literal["unspecified", "key_compromise", "superseded", "cessation_of_operation", "privilege_withdrawn"]


@MIGRATIONS()
def _0001_certificates(db: Database) -> None:
    columns = {name: str for name in ("serial", "fingerprint", "purpose", "name", "role", "tenant", "made_by", "reason", "pem")}
    times = {name: int for name in ("not_before_ns", "not_after_ns", "made_ns", "revoked_ns")}
    db.table("certificate").create({**columns, **times}, pk="serial", not_null={*columns, *times})
    db.table("certificate").create_index(["purpose", "name"])


class Certificate(msgspec.Struct, frozen=True, kw_only=True):
    """One that was issued."""

    serial: str
    """Hexadecimal, lower case."""
    fingerprint: str
    """SHA-256 of its DER, hexadecimal."""
    purpose: Purpose
    name: str
    """Of the principal or of the device."""
    role: str
    tenant: str
    not_before_ns: int
    not_after_ns: int
    made_by: str
    made_ns: int
    revoked_ns: int = 0
    """0: it was not."""
    reason: str = ""
    pem: str

    @property
    def der(self) -> bytes:
        return x509.load_pem_x509_certificate(self.pem.encode()).public_bytes(Encoding.DER)

    def is_good(self, now_ns: int) -> bool:
        return not self.revoked_ns and self.not_before_ns <= now_ns < self.not_after_ns


class Certificates:
    """Belongs to the event loop. Raises Unavailable where the disk says no."""

    def __init__(self, authority: Authority, state: State, clock: Clock) -> None:
        self._authority = authority
        self._state = state
        self._clock = clock
        self._opening = asyncio.Lock()
        self._writing = asyncio.Lock()
        self._held: dict[str, Certificate] = {}
        self._by_fingerprint: dict[str, str] = {}
        self._elsewhere: dict[int, Revoked] = {}
        """Revoked by the list on the disk, and not known otherwise."""
        self._is_open = False
        self._crl = b""
        self._crl_ns = 0
        self.changed = asyncio.Event()
        """Set when the list of what is revoked, or the API's own certificate, is another one."""

    async def open(self) -> None:
        """Read what is kept, once."""
        async with self._opening:
            if self._is_open:
                return
            rows = await self._state.do(lambda db: list(db.table("certificate").rows))
            for row in rows:
                self._hold(msgspec.convert(row, Certificate))
            listed = await self._in_thread(self._authority.crl)
            for each in listed or ():
                self._meet(each)
            self._is_open = True
            await self._publish()

    async def issue(
        self, csr: str, *, purpose: Purpose, name: str, days: int, made_by: str, role: str = "", tenant: str = ""
    ) -> Certificate:
        """A certificate for the key in ``csr`` (PEM), and for ``name``, whatever the request says. Raises Unfit, Conflict."""
        await self.open()
        await self._make_room()
        key = key_of(csr)
        urn = f"urn:holdfast:{purpose}:{name}"
        signed = await self._in_thread(self._authority.sign, key, name, urn, min(days, MOST_DAYS))
        der = signed.public_bytes(Encoding.DER)
        made = Certificate(
            serial=f"{signed.serial_number:x}",
            fingerprint=fingerprint_of(der),
            purpose=purpose,
            name=name,
            role=role,
            tenant=tenant,
            not_before_ns=ns_of(signed.not_valid_before_utc),
            not_after_ns=ns_of(signed.not_valid_after_utc),
            made_by=made_by,
            made_ns=self._clock.time_ns(),
            pem=signed.public_bytes(Encoding.PEM).decode(),
        )
        await self._keep(made)
        self._hold(made)
        log.info("certificate_issued", serial=made.serial, purpose=purpose, name=name)
        return made

    async def revoke(self, serial: str, reason: Reason = "unspecified") -> Certificate:
        """It is good no longer, for ever. Twice is fine. Raises NotThere."""
        await self.open()
        found = self.get(serial)
        if not found.revoked_ns:
            found = msgspec.structs.replace(found, revoked_ns=self._clock.time_ns(), reason=reason)
            self._hold(found)
            log.info("certificate_revoked", serial=serial, purpose=found.purpose, name=found.name, reason=reason)
            try:
                await self._keep(found)
            finally:
                await self._publish()
        return found

    async def revoke_all(self, purpose: Purpose, name: str, reason: Reason) -> list[Certificate]:
        """All that ``name`` has; those that were good are given."""
        await self.open()
        good = [each for each in self.of(purpose, name) if not each.revoked_ns]
        for each in good:
            self._hold(msgspec.structs.replace(each, revoked_ns=self._clock.time_ns(), reason=reason))
        try:
            for each in good:
                await self._keep(self._held[each.serial])
        finally:
            if good:
                await self._publish()
        return good

    def get(self, serial: str) -> Certificate:
        """Raises NotThere."""
        found = self._held.get(serial)
        if found is None:
            raise NotThere(f"no certificate has the serial {serial!r}", "GET /api/v1/certificates lists them")
        return found

    def find(self, der: bytes) -> Certificate | None:
        """The one that we have issued with just these bytes, good or not."""
        serial = self._by_fingerprint.get(fingerprint_of(der))
        return self._held[serial] if serial else None

    def of(self, purpose: Purpose, name: str) -> list[Certificate]:
        """All of one principal or device, the newest last."""
        return sorted((each for each in self._held.values() if (each.purpose, each.name) == (purpose, name)), key=lambda each: each.made_ns)

    def all(self) -> list[Certificate]:
        """By serial."""
        return sorted(self._held.values(), key=lambda each: each.serial)

    async def crl(self) -> bytes:
        """The list of what is revoked, DER."""
        await self.open()
        if abs(self._clock.time_ns() - self._crl_ns) > RENEW_CRL_NS:
            await self._publish()
        return self._crl

    async def refresh(self) -> None:
        """What is to be done now and then: a new list before the old one ends."""
        await self.crl()

    def _hold(self, certificate: Certificate) -> None:
        self._held[certificate.serial] = certificate
        self._by_fingerprint[certificate.fingerprint] = certificate.serial

    def _meet(self, each: x509.RevokedCertificate) -> None:
        """What the list on the disk says of a certificate."""
        known = self._held.get(f"{each.serial_number:x}")
        if known is None:
            self._elsewhere[each.serial_number] = Revoked(each.serial_number, each.revocation_date_utc)
        elif not known.revoked_ns:
            self._hold(msgspec.structs.replace(known, revoked_ns=ns_of(each.revocation_date_utc), reason="unspecified"))

    async def _make_room(self) -> None:
        if len(self._held) < MOST:
            return
        ended = [each for each in self._held.values() if each.not_after_ns < self._clock.time_ns()]
        await self._state.do(lambda db: [db.table("certificate").delete(each.serial) for each in ended])
        for each in ended:
            del self._held[each.serial], self._by_fingerprint[each.fingerprint]
        if not ended:
            raise Conflict(f"{MOST} certificates are kept, and no more", "use fewer, longer-lived ones")

    async def _keep(self, certificate: Certificate) -> None:
        row = msgspec.structs.asdict(certificate)
        await self._state.do(lambda db: db.table("certificate").upsert(row, pk="serial"))

    async def _publish(self) -> None:
        """Write the list anew, and tell whoever checks by it."""
        async with self._writing:
            now_ns = self._clock.time_ns()
            revoked = [*self._elsewhere.values(), *(_revoked(each) for each in self._held.values() if each.revoked_ns)]
            made = await self._in_thread(self._authority.write_crl, revoked)
            self._crl, self._crl_ns = made.public_bytes(Encoding.DER), now_ns
            self.changed.set()

    async def _in_thread(self, work: Callable[..., T], *arguments: Any) -> T:  # Any: each work has its own
        try:
            return await asyncio.to_thread(work, *arguments)
        except OSError as error:
            raise Unavailable(f"the authority's files cannot be used ({error})", "look at the disk; readings go on") from error


def _revoked(certificate: Certificate) -> Revoked:
    reason = x509.ReasonFlags[certificate.reason] if certificate.reason else x509.ReasonFlags.unspecified
    return Revoked(int(certificate.serial, 16), datetime.fromtimestamp(certificate.revoked_ns // 10**9, tz=UTC), reason)


def fingerprint_of(der: bytes) -> str:
    """What a certificate is known by: SHA-256 of its DER, hex."""
    return hashlib.sha256(der).hexdigest()


def ns_of(moment: datetime) -> int:
    """A moment in a certificate, which has whole seconds, as nanoseconds UTC."""
    return round(moment.timestamp()) * 10**9
