"""A certificate authority of the gateway's own, made at first start: no key is shipped, none is shared by two gateways.

ECDSA P-256 throughout. The authority's key never leaves its folder and is readable by the service's user alone; whoever
trusts ``ca.pem`` knows the gateway again. The API's certificate is short-lived and renewed on the way.
"""

from __future__ import annotations

import ipaddress
import os
import socket
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from threading import Lock
from typing import Final
from urllib.parse import quote

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from gateway.authority.request import PublicKey
from protocols.clock import Clock

CA_DAYS: Final = 20 * 365
SERVER_DAYS: Final = 397
RENEW_DAYS: Final = 30
"""The API's certificate is renewed when it has fewer days left."""
BACK_DATED: Final = timedelta(days=1)
"""Clocks of those who check are not always right."""


CRL_DAYS: Final = 30
"""A list of what is revoked is good for so long; a new one is made every day."""
CRL_BACK_DATED: Final = timedelta(hours=1)


@dataclass(frozen=True, slots=True)
class Revoked:
    """A certificate that is good no longer."""

    serial: int
    time: datetime
    reason: x509.ReasonFlags = x509.ReasonFlags.unspecified


class Authority:
    """The authority in one folder, made where there is none when it is first needed. What it does raises OSError where the disk
    says no. Its methods are for threads: they read, write and compute."""

    def __init__(self, folder: Path, name: str, clock: Clock) -> None:
        """``name`` is the gateway's: it stands in the authority's subject."""
        self._folder = folder
        self._name = name
        self._clock = clock
        self._lock = Lock()
        self._held: tuple[ec.EllipticCurvePrivateKey, x509.Certificate] | None = None

    def _own(self) -> tuple[ec.EllipticCurvePrivateKey, x509.Certificate]:
        with self._lock:
            if self._held is None:
                self._held = self._opened()
            return self._held

    def _opened(self) -> tuple[ec.EllipticCurvePrivateKey, x509.Certificate]:
        folder = self._folder
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        if not (folder / "ca.pem").exists():
            key = ec.generate_private_key(ec.SECP256R1())
            _write(folder / "ca.key", _key_pem(key), mode=0o600)
            _write(folder / "ca.pem", _pem(_self_signed(key, self._name, _now(self._clock))))
        return _read_key(folder / "ca.key"), x509.load_pem_x509_certificate((folder / "ca.pem").read_bytes())

    @property
    def certificate_file(self) -> Path:
        """What others trust: the authority's certificate, PEM."""
        self._own()
        return self._folder / "ca.pem"

    def server_files(self, names: Iterable[str]) -> tuple[Path, Path]:
        """The API's certificate chain and key (PEM files), good for this machine and ``names``; renewed where it is due."""
        own_key, own = self._own()
        chain, key_file = self._folder / "server.pem", self._folder / "server.key"
        wanted = _subject_names(["localhost", "127.0.0.1", "::1", socket.gethostname(), *names])
        if not self._is_good(chain, key_file, wanted):
            key = ec.generate_private_key(ec.SECP256R1())
            builder = self._builder(socket.gethostname(), key.public_key(), SERVER_DAYS)
            usage = x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH])
            signed = builder.add_extension(x509.SubjectAlternativeName(wanted), critical=False).add_extension(usage, critical=False)
            _write(key_file, _key_pem(key), mode=0o600)
            _write(chain, _pem(signed.sign(own_key, hashes.SHA256())) + _pem(own))
        return chain, key_file

    def renew_server(self, names: Iterable[str]) -> None:
        """A new certificate and key for the API, whatever is left of the old one."""
        self._own()
        (self._folder / "server.pem").unlink(missing_ok=True)
        self.server_files(names)

    def sign(self, key: PublicKey, name: str, urn: str, days: int) -> x509.Certificate:
        """A certificate with which the holder of ``key`` shows, as a client, that it is ``name``; ``urn`` says it in full."""
        own_key, _ = self._own()
        builder = self._builder(name, key, days)
        full_name = x509.SubjectAlternativeName([x509.UniformResourceIdentifier(quote(urn, safe=":"))])
        builder = builder.add_extension(full_name, critical=False)
        builder = builder.add_extension(_usage(signs_certificates=False), critical=True)
        return builder.add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.CLIENT_AUTH]), critical=False).sign(
            own_key, hashes.SHA256()
        )

    @property
    def own(self) -> x509.Certificate:
        """The authority's own certificate."""
        return self._own()[1]

    @property
    def crl_file(self) -> Path:
        """The list of what is revoked, PEM (RFC 5280, 5); there may be none yet."""
        return self._folder / "crl.pem"

    def crl(self) -> x509.CertificateRevocationList | None:
        """The list as it is on the disk, if it is there, whole, and ours."""
        try:
            found = x509.load_pem_x509_crl(self.crl_file.read_bytes())
        except (FileNotFoundError, ValueError):
            return None
        own_key, _ = self._own()
        return found if found.is_signature_valid(own_key.public_key()) else None

    def write_crl(self, revoked: Iterable[Revoked]) -> x509.CertificateRevocationList:
        """Make the list anew, with ``revoked``. Its time is after that of the one before, by which OpenSSL takes the newer."""
        own_key, own = self._own()
        before, now = self.crl(), _now(self._clock)
        since, number = now - CRL_BACK_DATED, 1
        if before is not None:
            after = before.last_update_utc + timedelta(seconds=1)
            since = max(since, after) if after <= now else since
            number = before.extensions.get_extension_for_class(x509.CRLNumber).value.crl_number + 1
        builder = x509.CertificateRevocationListBuilder().issuer_name(own.subject).last_update(since)
        builder = builder.next_update(now + timedelta(days=CRL_DAYS)).add_extension(x509.CRLNumber(number), critical=False)
        identifier = x509.AuthorityKeyIdentifier.from_issuer_public_key(own_key.public_key())
        builder = builder.add_extension(identifier, critical=False)
        for each in revoked:
            one = x509.RevokedCertificateBuilder().serial_number(each.serial).revocation_date(each.time)
            if each.reason is not x509.ReasonFlags.unspecified:
                one = one.add_extension(x509.CRLReason(each.reason), critical=False)
            builder = builder.add_revoked_certificate(one.build())
        made = builder.sign(own_key, hashes.SHA256())
        _write(self.crl_file, made.public_bytes(serialization.Encoding.PEM))
        return made

    def _is_good(self, chain: Path, key_file: Path, wanted: list[x509.GeneralName]) -> bool:
        if not (chain.exists() and key_file.exists()):
            return False
        found = x509.load_pem_x509_certificate(chain.read_bytes())
        held = found.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        lasts = found.not_valid_after_utc - _now(self._clock) > timedelta(days=RENEW_DAYS)
        return lasts and set(held) == set(wanted) and found.issuer == self._own()[1].subject

    def _builder(self, common_name: str, public_key: PublicKey, days: int) -> x509.CertificateBuilder:
        now = _now(self._clock)
        own_key, own = self._own()
        return (
            x509.CertificateBuilder()
            .subject_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common_name[:64])]))
            .issuer_name(own.subject)
            .public_key(public_key)
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - BACK_DATED)
            .not_valid_after(now + timedelta(days=days))
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(public_key), critical=False)
            .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(own_key.public_key()), critical=False)
        )


def _self_signed(key: ec.EllipticCurvePrivateKey, name: str, now: datetime) -> x509.Certificate:
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, f"Holdfast {name}"[:64])])
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - BACK_DATED)
        .not_valid_after(now + timedelta(days=CA_DAYS))
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(_usage(signs_certificates=True), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .sign(key, hashes.SHA256())
    )


def _usage(*, signs_certificates: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=True,
        key_cert_sign=signs_certificates,
        crl_sign=signs_certificates,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )


def _now(clock: Clock) -> datetime:
    return datetime.fromtimestamp(clock.time_ns() // 10**9, tz=UTC)


def _subject_names(names: Iterable[str]) -> list[x509.GeneralName]:
    return [_general_name(name) for name in dict.fromkeys(names)]


def _general_name(name: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(name))
    except ValueError:
        return x509.DNSName(name)


def _read_key(path: Path) -> ec.EllipticCurvePrivateKey:
    key = serialization.load_pem_private_key(path.read_bytes(), password=None)
    assert isinstance(key, ec.EllipticCurvePrivateKey)
    return key


def _pem(certificate: x509.Certificate) -> bytes:
    return certificate.public_bytes(serialization.Encoding.PEM)


def _key_pem(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())


def _write(path: Path, content: bytes, mode: int = 0o644) -> None:
    """All of ``content`` durably in place of what was there, or nothing changed."""
    draft = path.with_name(f".{path.name}.new")
    with open(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, mode), "wb") as file:  # noqa: PTH123 - the mode from the first byte on
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    draft.replace(path)
