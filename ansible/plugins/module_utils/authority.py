# Copyright the Holdfast contributors
# SPDX-License-Identifier: Apache-2.0
"""A site's certificate authority: a folder on the controller, and what may be asked of it.

Private keys of hosts never come here: a host sends a certificate request, and only its public key is taken from it. Names,
usages and days are the inventory's; what a request says of itself is compared and never believed.

The folder holds one issuing authority (``authority.*``), and during a succession one more that is trusted and does not issue:
``next.*`` before the change, ``previous.*`` after it. ``trusted.pem`` and ``revoked.pem`` are what hosts get: all authorities, and
for each its revocation list. A list is valid as long as its authority: it is pushed by the same road as certificates, and a plant
whose lists run out in a month in which nobody ran a play would stop. Everything is dated a day back, for hosts' clocks are not exact.

Every file is written aside and renamed, under a lock, so that plays which are cut short or run twice leave a whole folder.
Only the standard library and cryptography are used (ansible-core brings it).
"""

from __future__ import annotations

import contextlib
import fcntl
import ipaddress
import json
import os
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Final

try:
    from cryptography import x509
    from cryptography.exceptions import InvalidSignature
    from cryptography.hazmat.primitives import hashes
    from cryptography.hazmat.primitives.asymmetric import ec, ed25519
    from cryptography.hazmat.primitives.serialization import (
        BestAvailableEncryption,
        Encoding,
        NoEncryption,
        PrivateFormat,
        load_pem_private_key,
    )
    from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID
except ImportError as missing:  # the module says so in its own way
    CRYPTOGRAPHY: ImportError | None = missing
else:
    CRYPTOGRAPHY = None

UTC: Final = timezone.utc  # noqa: UP017  # a controller may have an older Python
NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
"""A common name: at most 64 characters (RFC 5280, ub-common-name), and none that means something to a broker's access list."""
_LABEL: Final = r"[A-Za-z0-9](?:[A-Za-z0-9-]{0,61}[A-Za-z0-9])?"
HOST: Final = re.compile(rf"(?=.{{1,253}}$){_LABEL}(?:\.{_LABEL})*")
MOST_NAMES: Final = 64
MOST_PEM: Final = 64 * 1024
MOST_REVOKED: Final = 100_000
LONGEST_DAYS: Final = 36_500
BACK: Final = timedelta(days=1)
USAGES: Final = ("client", "server", "both")
ISSUING, NEXT, PREVIOUS = "authority", "next", "previous"
ROLES: Final = (ISSUING, NEXT, PREVIOUS)
KINDS: Final = ("key", "crl", "pem")
KEEP, TAKE = b"keep", b"take"
"""How far a switch has come: the issuing authority becomes the previous one, or the next one the issuing one."""
STAGES: Final = ("prepared", "switched", "retired")


class Refused(Exception):
    """What is wrong, where, and what to do."""


@dataclass(frozen=True)
class Subject:
    """Whom a certificate is for."""

    name: str
    names: tuple[str, ...] = ()
    """Further names: host names and addresses."""
    usage: str = "client"

    def checked(self) -> Subject:
        if not NAME.fullmatch(self.name):
            raise Refused(
                f"{self.name[:80]!r} cannot be a certificate's name: use 1 to 64 letters, digits, . - and _, a letter or digit first"
            )
        if len(self.names) > MOST_NAMES:
            raise Refused(f"{self.name}: {len(self.names)} names are too many for one certificate: give at most {MOST_NAMES}")
        if self.usage not in USAGES:
            raise Refused(f"{self.name}: the usage {self.usage[:20]!r} is none of {', '.join(USAGES)}")
        for each in self.names:
            general_name(each)
        return self


@dataclass(frozen=True)
class Judgement:
    """Whether a certificate is due, and why."""

    due: bool
    why: str


def general_name(text: str) -> x509.GeneralName:
    """An address or a host name. Raises Refused."""
    with contextlib.suppress(ValueError):
        return x509.IPAddress(ipaddress.ip_address(text))
    if not HOST.fullmatch(text):
        raise Refused(f"{text[:80]!r} is neither a host name nor an address: a certificate cannot name it")
    return x509.DNSName(text.lower())


class Authority:
    """The authority in ``folder``. ``now`` is the time, ``passphrase`` opens its keys ("" where they have none)."""

    def __init__(self, folder: str | Path, *, passphrase: str = "", now: datetime | None = None) -> None:
        self.folder = Path(folder)
        self._passphrase = passphrase.encode()
        self._now = (now or datetime.now(UTC)).replace(microsecond=0)

    # ---- the authority itself

    def exists(self) -> bool:
        return self._file(ISSUING, "pem").exists()

    def create(self, name: str, days: int) -> bool:
        """Make it where there is none, and bring what hosts get up to date. Says whether anything changed."""
        with self._locked():
            made = not self.exists()
            if made:
                self._make_first(name, days)
            return self._publish() or made

    def _make_first(self, name: str, days: int) -> None:
        if self._file(ISSUING, "key").exists():
            raise Refused(f"{self.folder}: there is a key (authority.key) and no authority.pem: bring it back, or move the key away")
        self._make(ISSUING, name, days)

    def succeed(self, stage: str, name: str, days: int) -> bool:
        """Bring a succession to ``stage``: a next authority is trusted; it issues and the old one is trusted; the old one is gone."""
        with self._locked():
            self._must_exist()
            moved = {"prepared": lambda: self._prepare(name, days), "switched": self._switch, "retired": self._retire}[stage]()
            return self._publish() or moved

    def _prepare(self, name: str, days: int) -> bool:
        if self._file(NEXT, "pem").exists() or self._file(PREVIOUS, "pem").exists():
            return False
        self._make(NEXT, name, days)
        return True

    def _switch(self) -> bool:
        """The next one takes the place of the issuing one; a note says how far it has come, so that a play that is cut short goes on."""
        if self._file(PREVIOUS, "pem").exists() and not self._file(NEXT, "pem").exists():
            return False
        if not self._file(NEXT, "pem").exists():
            raise Refused(f"{self.folder}: no next authority was prepared, so hosts do not trust it yet: begin with the stage prepared")
        self._write(self._note, KEEP)
        self._finish_switch()
        return True

    @property
    def _note(self) -> Path:
        return self.folder / ".switching"

    def _finish_switch(self) -> None:
        if self._note.read_bytes() == KEEP:
            self._copy(ISSUING, PREVIOUS)
            self._write(self._note, TAKE)
        self._copy(NEXT, ISSUING)
        for kind in KINDS:
            self._file(NEXT, kind).unlink(missing_ok=True)
        self._note.unlink()

    def _copy(self, role: str, to: str) -> None:
        for kind in KINDS:
            if self._file(role, kind).exists():
                self._write(self._file(to, kind), self._file(role, kind).read_bytes(), mode=0o600 if kind == "key" else 0o644)

    def _retire(self) -> bool:
        there = [self._file(PREVIOUS, kind) for kind in ("pem", "crl", "key")]
        gone = [path for path in there if path.exists()]
        for path in gone:
            path.unlink()
        return bool(gone)

    def foresee(self, stage: str = "") -> bool:
        """Whether :meth:`create`, or :meth:`succeed` to ``stage``, would change anything."""
        previous, following = self._file(PREVIOUS, "pem").exists(), self._file(NEXT, "pem").exists()
        return {
            "": not self.exists(),
            "prepared": not (previous or following),
            "switched": following or not previous,
            "retired": previous,
        }[stage]

    @property
    def trusted(self) -> str:
        """PEM of every authority that hosts shall trust, the issuing one first."""
        return "".join(self._certificate(role).public_bytes(Encoding.PEM).decode() for role in self._present())

    @property
    def revocations(self) -> str:
        """PEM of their revocation lists."""
        return "".join(self._file(role, "crl").read_text() for role in self._present() if self._file(role, "crl").exists())

    # ---- certificates

    def judge(self, current: str, subject: Subject, *, renew_within_days: int, renew: bool = False) -> Judgement:
        """Whether a host whose certificate is ``current`` (PEM, "" for none) needs another."""
        subject.checked()
        if not current.strip():
            return Judgement(True, "there is none")
        certificate = _read_certificate(current)
        if certificate is None:
            return Judgement(True, "the file that is there holds no certificate")
        if not self.exists():
            return Judgement(True, "there is no authority yet")
        for why, holds in self._reasons(certificate, subject, renew_within_days):
            if holds:
                return Judgement(True, why)
        return Judgement(True, "a new one is asked for") if renew else Judgement(False, f"good until {_end(certificate):%Y-%m-%d}")

    def _reasons(self, certificate: x509.Certificate, subject: Subject, renew_within_days: int) -> Iterator[tuple[str, bool]]:
        ends = _end(certificate)
        yield "another authority issued it", not _issued_by(certificate, self._certificate(ISSUING))
        yield f"it is for {_common_name(certificate)}", _common_name(certificate) != subject.name
        yield "its names differ", _names(certificate) != {general_name(each) for each in subject.names}
        yield "its usage differs", _usages(certificate) != set(_extended(subject.usage))
        yield f"it ends on {ends:%Y-%m-%d}", ends - self._now < timedelta(days=renew_within_days)
        yield "it is revoked", any(int(each["serial"], 16) == certificate.serial_number for each in self._revoked())

    def sign(self, request: str, subject: Subject, days: int) -> str:
        """A certificate (PEM) for the public key of ``request``, for ``subject``."""
        subject.checked()
        key = _public_key(request, subject)
        with self._locked():
            self._must_exist()
            certificate = self._leaf(key, subject, days)
            pem = certificate.public_bytes(Encoding.PEM)
            self._write(self.folder / "issued" / f"{certificate.serial_number:040x}.pem", pem)
            return pem.decode()

    def _leaf(self, key: ec.EllipticCurvePublicKey | ed25519.Ed25519PublicKey, subject: Subject, days: int) -> x509.Certificate:
        issuer = self._certificate(ISSUING)
        ends = min(self._now + timedelta(days=_days(days)), _end(issuer))
        if ends <= self._now:
            raise Refused(f"{self.folder}: the authority itself ended on {_end(issuer):%Y-%m-%d}: make a succession to a new one")
        builder = (
            x509.CertificateBuilder()
            .subject_name(_dn(subject.name))
            .issuer_name(issuer.subject)
            .public_key(key)
            .serial_number(x509.random_serial_number())
            .not_valid_before(self._now - BACK)
            .not_valid_after(ends)
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(_key_usage(signs=False), critical=True)
            .add_extension(x509.ExtendedKeyUsage(_extended(subject.usage)), critical=False)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(key), critical=False)
            .add_extension(_authority_identifier(issuer), critical=False)
        )
        if subject.names:
            builder = builder.add_extension(x509.SubjectAlternativeName([general_name(each) for each in subject.names]), critical=False)
        return builder.sign(self._key(ISSUING), hashes.SHA256())

    # ---- revocation

    def revoke(self, wanted: Sequence[str], *, keep: str = "", dry: bool = False) -> list[str]:
        """Revoke every certificate of these names or serial numbers, but not ``keep`` (PEM). Returns the serial numbers that are new."""
        kept = _read_certificate(keep) if keep else None
        with self._locked(dry=dry):
            self._must_exist()
            known = self._revoked()
            already = {each["serial"] for each in known}
            new = [each for each in self._issued_to(wanted) if f"{each.serial_number:x}" not in already and each != kept]
            if len(known) + len(new) > MOST_REVOKED:
                raise Refused(f"{self.folder}: more than {MOST_REVOKED} revoked certificates: make a succession to a new authority")
            if new and not dry:
                self._write(self.folder / "revoked.json", json.dumps([*known, *map(self._entry, new)], indent=1).encode())
                self._publish(anew=True)
            return [f"{each.serial_number:x}" for each in new]

    def _issued_to(self, wanted: Sequence[str]) -> list[x509.Certificate]:
        """Certificates of these names or serials. Raises Refused for one of which nothing was ever issued."""
        issued = [each for path in sorted((self.folder / "issued").glob("*.pem")) if (each := _read_certificate(path.read_text()))]
        found: list[x509.Certificate] = []
        for one in wanted:
            serial = one.lower().replace(":", "").lstrip("0")
            matching = [each for each in issued if _common_name(each) == one or f"{each.serial_number:x}" == serial]
            if not matching:
                raise Refused(f"{one[:80]!r}: no certificate of that name or serial number was issued here: see {self.folder}/issued")
            found += [each for each in matching if each not in found]
        return found

    def _entry(self, certificate: x509.Certificate) -> dict[str, str]:
        return {"serial": f"{certificate.serial_number:x}", "name": _common_name(certificate), "at": self._now.isoformat()}

    def _revoked(self) -> list[dict[str, str]]:
        path = self.folder / "revoked.json"
        if not path.exists():
            return []
        try:
            entries: list[dict[str, str]] = json.loads(path.read_text())
        except ValueError as error:
            raise Refused(f"{path}: {error}: bring it back from a backup; without it revoked certificates would be valid again") from error
        return entries

    # ---- files

    def _publish(self, *, anew: bool = False) -> bool:
        """Sign the lists that are missing (all of them, where ``anew``), and write what hosts get."""
        for role in self._present():
            if anew or not self._file(role, "crl").exists():
                self._write(self._file(role, "crl"), self._list(role).public_bytes(Encoding.PEM))
        changed = self._write_if_other(self.folder / "trusted.pem", self.trusted.encode())
        return self._write_if_other(self.folder / "revoked.pem", self.revocations.encode()) or changed

    def _list(self, role: str) -> x509.CertificateRevocationList:
        """The revocation list of one authority, dated after the one before: of two with one date OpenSSL keeps the older."""
        issuer, path = self._certificate(role), self._file(role, "crl")
        dated = self._now - BACK
        if path.exists():
            dated = max(dated, x509.load_pem_x509_crl(path.read_bytes()).last_update_utc + timedelta(seconds=1))
        builder = (
            x509.CertificateRevocationListBuilder()
            .issuer_name(issuer.subject)
            .last_update(dated)
            .next_update(_end(issuer))
            .add_extension(_authority_identifier(issuer), critical=False)
            .add_extension(x509.CRLNumber(int(dated.timestamp())), critical=False)
        )
        for each in self._revoked():
            one = x509.RevokedCertificateBuilder().serial_number(int(each["serial"], 16))
            builder = builder.add_revoked_certificate(one.revocation_date(datetime.fromisoformat(each["at"])).build())
        return builder.sign(self._key(role), hashes.SHA256())

    def _make(self, role: str, name: str, days: int) -> None:
        """A new self-signed authority. Its name has the day, so that two are told apart."""
        if not 1 <= len(name) <= 50 or not name.isprintable():
            raise Refused(f"{name[:80]!r} cannot be an authority's name: use 1 to 50 printable characters")
        key = ec.generate_private_key(ec.SECP256R1())
        subject = _dn(f"{name} {self._now:%Y-%m-%d}")
        certificate = (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(subject)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(self._now - BACK)
            .not_valid_after(self._now + timedelta(days=_days(days)))
            .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
            .add_extension(_key_usage(signs=True), critical=True)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
            .sign(key, hashes.SHA256())
        )
        locked = BestAvailableEncryption(self._passphrase) if self._passphrase else NoEncryption()
        self._write(self._file(role, "key"), key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, locked), mode=0o600)
        self._file(role, "crl").unlink(missing_ok=True)
        self._write(self._file(role, "pem"), certificate.public_bytes(Encoding.PEM))

    def _must_exist(self) -> None:
        if not self.exists():
            raise Refused(f"{self.folder}: there is no authority yet: it is made with the action authority")

    def _present(self) -> list[str]:
        return [role for role in ROLES if self._file(role, "pem").exists()]

    def _file(self, role: str, kind: str) -> Path:
        return self.folder / f"{role}.{kind}"

    def _certificate(self, role: str) -> x509.Certificate:
        path = self._file(role, "pem")
        certificate = _read_certificate(path.read_text())
        if certificate is None:
            raise Refused(f"{path}: this is no certificate in PEM: bring it back from a backup")
        return certificate

    def _key(self, role: str) -> ec.EllipticCurvePrivateKey:
        path = self._file(role, "key")
        if not path.exists():
            raise Refused(f"{path}: the authority's private key is not here: it is needed to sign, bring it")
        try:
            key = load_pem_private_key(path.read_bytes(), self._passphrase or None)
        except (ValueError, TypeError) as error:
            raise Refused(f"{path}: the key does not open: check the passphrase (pki_passphrase)") from error
        if not isinstance(key, ec.EllipticCurvePrivateKey):
            raise Refused(f"{path}: only keys of an elliptic curve are used by this authority")
        return key

    @contextlib.contextmanager
    def _locked(self, *, dry: bool = False) -> Iterator[None]:
        """One play at a time: hosts are served side by side."""
        if dry:
            yield
            return
        try:
            self.folder.mkdir(parents=True, exist_ok=True, mode=0o700)
            self.folder.chmod(0o700)
            (self.folder / "issued").mkdir(exist_ok=True, mode=0o700)
            self._write_if_other(self.folder / ".gitignore", b"*\n")  # keys have no place in a repository
            with (self.folder / ".lock").open("w") as lock:
                fcntl.flock(lock, fcntl.LOCK_EX)
                if self._note.exists():
                    self._finish_switch()
                yield
        except OSError as error:
            raise Refused(f"{error.filename or self.folder}: {error.strerror}: the authority's folder must be writable") from error

    def _write_if_other(self, path: Path, content: bytes) -> bool:
        if path.exists() and path.read_bytes() == content:
            return False
        self._write(path, content)
        return True

    def _write(self, path: Path, content: bytes, mode: int = 0o644) -> None:
        aside = path.with_name(f".{path.name}.{os.getpid()}")
        number = os.open(aside, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, mode)
        with os.fdopen(number, "wb") as file:
            os.fchmod(number, mode)
            file.write(content)
            file.flush()
            os.fsync(number)
        aside.rename(path)


# ---- what certificates and requests say


def _public_key(request: str, subject: Subject) -> ec.EllipticCurvePublicKey | ed25519.Ed25519PublicKey:
    """The public key of a request, whose owner has proved to have the private one."""
    if len(request) > MOST_PEM:
        raise Refused(f"{subject.name}: the certificate request is longer than {MOST_PEM} bytes")
    try:
        asked = x509.load_pem_x509_csr(request.encode())
        proven = asked.is_signature_valid
    except (ValueError, InvalidSignature) as error:
        raise Refused(f"{subject.name}: this is no certificate request in PEM ({error})") from error
    if not proven:
        raise Refused(f"{subject.name}: the request is not signed by its own key: whoever sent it does not have the private key")
    said = [str(each.value) for each in asked.subject.get_attributes_for_oid(NameOID.COMMON_NAME)]
    if said != [subject.name]:
        raise Refused(f"{subject.name}: the host asks in the name of {', '.join(said)[:80] or 'nobody'}: nothing is signed")
    key = asked.public_key()
    if isinstance(key, ed25519.Ed25519PublicKey):
        return key
    if isinstance(key, ec.EllipticCurvePublicKey) and key.curve.key_size >= 256:
        return key
    raise Refused(f"{subject.name}: its key is neither Ed25519 nor of an elliptic curve of 256 bits or more: make another one")


def _read_certificate(pem: str) -> x509.Certificate | None:
    """The first certificate of ``pem``, which may hold a key too; None where there is none."""
    begin, end = "-----BEGIN CERTIFICATE-----", "-----END CERTIFICATE-----"
    if len(pem) > MOST_PEM or begin not in pem or end not in pem:
        return None
    try:
        return x509.load_pem_x509_certificate((pem[pem.index(begin) :].split(end)[0] + end + "\n").encode())
    except ValueError:
        return None


def public_part(pem: str) -> str:
    """The first certificate of a file that may hold its private key too; "" where there is none."""
    certificate = _read_certificate(pem)
    return certificate.public_bytes(Encoding.PEM).decode() if certificate else ""


def _issued_by(certificate: x509.Certificate, issuer: x509.Certificate) -> bool:
    try:
        certificate.verify_directly_issued_by(issuer)
    except (ValueError, TypeError, InvalidSignature):
        return False
    return True


def _end(certificate: x509.Certificate) -> datetime:
    return certificate.not_valid_after_utc


def _common_name(certificate: x509.Certificate) -> str:
    return next((str(each.value) for each in certificate.subject.get_attributes_for_oid(NameOID.COMMON_NAME)), "")


def _names(certificate: x509.Certificate) -> set[x509.GeneralName]:
    try:
        return set(certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value)
    except x509.ExtensionNotFound:
        return set()


def _usages(certificate: x509.Certificate) -> set[x509.ObjectIdentifier]:
    try:
        return set(certificate.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value)
    except x509.ExtensionNotFound:
        return set()


def _extended(usage: str) -> list[x509.ObjectIdentifier]:
    client, server = ExtendedKeyUsageOID.CLIENT_AUTH, ExtendedKeyUsageOID.SERVER_AUTH
    return {"client": [client], "server": [server], "both": [server, client]}[usage]


def _dn(name: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])


def _days(days: int) -> int:
    if not 1 <= days <= LONGEST_DAYS:
        raise Refused(f"{days} days: a certificate is made for 1 to {LONGEST_DAYS} days")
    return days


def _authority_identifier(issuer: x509.Certificate) -> x509.AuthorityKeyIdentifier:
    own = issuer.extensions.get_extension_for_class(x509.SubjectKeyIdentifier).value
    return x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(own)


def _key_usage(*, signs: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not signs,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=signs,
        crl_sign=signs,
        encipher_only=False,
        decipher_only=False,
    )
