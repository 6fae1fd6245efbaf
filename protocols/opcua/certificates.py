"""The folder of certificates: our own, those we trust, and those we refused. Nothing is trusted that nobody accepted.

``own/`` holds our application certificate, ``trusted/`` servers (and authorities) that a person accepted, ``issuers/``
authorities that complete a chain and are trusted for nothing by themselves, ``crl/`` revocation lists, ``rejected/`` what was
refused, for a person to look at and accept. The names of files are fingerprints (SHA-256): nothing that a server sends becomes
part of a path. All functions read and write files; call them outside the event loop.
"""

from __future__ import annotations

import datetime
import os
import socket
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Final

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

MAX_FILE: Final = 64 * 1024
MAX_FILES: Final = 1000
MAX_REJECTED: Final = 50
"""Refused certificates that are kept: a server that invents new ones fills no disk."""
MAX_CHAIN: Final = 6
MIN_BITS: Final = 2048
YEARS: Final = 10
SHELVES: Final = ("trusted", "issuers", "rejected")


class Unusable(Exception):
    """A certificate or key of ours cannot be used. The text says which, why, and what to do."""


class Untrusted(Exception):
    """The server's certificate is not trusted. The text says why."""


@dataclass(frozen=True)
class Identity:
    """A certificate (DER) and its key."""

    certificate: bytes
    key: rsa.RSAPrivateKey


@dataclass(frozen=True)
class Shelved:
    """A certificate in one of the folders."""

    shelf: str
    path: Path
    certificate: x509.Certificate

    @property
    def fingerprint(self) -> str:
        return fingerprint(self.certificate)


def fingerprint(certificate: x509.Certificate) -> str:
    return certificate.fingerprint(hashes.SHA256()).hex()


def subject(certificate: x509.Certificate) -> str:
    """For a person, printable."""
    text = certificate.subject.rfc4514_string()
    return "".join(letter if letter.isprintable() else "?" for letter in text)[:200]


def uris(certificate: x509.Certificate) -> list[str]:
    """The application URIs in it."""
    try:
        names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        return names.get_values_for_type(x509.UniformResourceIdentifier)
    except (x509.ExtensionNotFound, ValueError):
        return []


# ---------------------------------------------------------------------------------------------------- our own


def load_identity(cert_file: str, key_file: str, password: str | None) -> Identity:
    """A certificate and its RSA key from files. Raises Unusable."""
    try:
        raw = _bytes(Path(cert_file))
        certificate = x509.load_pem_x509_certificate(raw) if b"-----BEGIN" in raw else x509.load_der_x509_certificate(raw)
    except (OSError, ValueError) as error:
        raise Unusable(f"cert_file {cert_file}: {_reason(error)}: give a certificate as PEM or DER") from error
    try:
        key = serialization.load_pem_private_key(_bytes(Path(key_file)), password.encode() if password is not None else None)
    except (OSError, ValueError, TypeError, UnsupportedAlgorithm) as error:
        raise Unusable(f"key_file {key_file}: {_reason(error)}: give its key as PEM, and key_password if it has one") from error
    public = certificate.public_key()
    if not isinstance(key, rsa.RSAPrivateKey) or not isinstance(public, rsa.RSAPublicKey):
        raise Unusable(f"{cert_file}: OPC UA's policies need an RSA key, and this is none: make an RSA certificate")
    if key.public_key().public_numbers() != public.public_numbers():
        raise Unusable(f"{key_file} is not the key of {cert_file}: give the pair that belongs together")
    return Identity(certificate.public_bytes(serialization.Encoding.DER), key)


def own_identity(folder: Path, application_uri: str, now_ns: int) -> Identity:
    """Our certificate in ``folder``, made where there is none. Raises Unusable."""
    certificate, key = folder / "own" / "certificate.der", folder / "own" / "key.pem"
    try:
        if not (certificate.exists() and key.exists()):
            _make_identity(certificate, key, application_uri, now_ns)
    except OSError as error:
        advice = "let the service's user write there, or name another security.folder"
        raise Unusable(f"no certificate can be made in {folder}: {_reason(error)}: {advice}") from error
    found = load_identity(str(certificate), str(key), None)
    said = uris(x509.load_der_x509_certificate(found.certificate))
    if application_uri not in said:
        advice = f"set application_uri to it, or remove {certificate} for a new one to be made"
        raise Unusable(f"{certificate} is for {', '.join(said) or 'no application URI'}, not {application_uri}: {advice}")
    return found


def _make_identity(cert_file: Path, key_file: Path, application_uri: str, now_ns: int) -> None:
    key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "Holdfast"), x509.NameAttribute(NameOID.ORGANIZATION_NAME, "Holdfast")])
    now = _moment(now_ns)
    usage = x509.KeyUsage(
        digital_signature=True,
        content_commitment=True,
        key_encipherment=True,
        data_encipherment=True,
        key_agreement=False,
        key_cert_sign=True,  # a self-signed certificate signs itself (OPC 10000-6, 6.2.2)
        crl_sign=False,
        encipher_only=False,
        decipher_only=False,
    )
    names = [x509.UniformResourceIdentifier(application_uri), x509.DNSName(_host())]
    key_id = x509.SubjectKeyIdentifier.from_public_key(key.public_key())
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=365 * YEARS))
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(usage, critical=True)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.CLIENT_AUTH, ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
        .add_extension(x509.SubjectAlternativeName(names), critical=False)
        .add_extension(key_id, critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(key_id), critical=False)
        .sign(key, hashes.SHA256())
    )
    cert_file.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    pem = key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    _put(key_file, pem, 0o600)
    _put(cert_file, certificate.public_bytes(serialization.Encoding.DER), 0o644)


def _host() -> str:
    name = socket.gethostname()
    return name if name.isascii() and 0 < len(name) < 254 else "localhost"


# ---------------------------------------------------------------------------------------------------- whom we trust


def judge(folder: Path, der: bytes, now_ns: int) -> x509.Certificate:
    """The server's certificate, if it is trusted; else it is kept in rejected/. Raises Untrusted."""
    try:
        certificate = x509.load_der_x509_certificate(first_of_chain(der))
        _look(folder, certificate, _moment(now_ns))
    except ValueError as error:
        raise Untrusted(f"the server's certificate cannot be read: {_reason(error)}") from error
    except Untrusted:
        _record(folder, certificate)
        raise
    return certificate


def _look(folder: Path, certificate: x509.Certificate, now: datetime.datetime) -> None:
    mark = fingerprint(certificate)
    trusted, issuers = list(shelf(folder, "trusted")), list(shelf(folder, "issuers"))
    accepted = {one.fingerprint for one in trusted}
    chain = _chain(certificate, [one.certificate for one in (*trusted, *issuers)], accepted)
    if not any(fingerprint(one) in accepted for one in chain):
        raise Untrusted(f"certificate {mark[:16]} of {subject(certificate)} is not trusted")
    for one in chain:
        if not one.not_valid_before_utc <= now <= one.not_valid_after_utc:
            span = f"{one.not_valid_before_utc:%Y-%m-%d} to {one.not_valid_after_utc:%Y-%m-%d}"
            raise Untrusted(f"certificate {fingerprint(one)[:16]} of {subject(one)} is valid from {span}, and today is {now:%Y-%m-%d}")
    for one, issuer in pairwise(chain):
        if any(_revokes(crl, one, issuer) for crl in _revocations(folder)):
            raise Untrusted(f"certificate {fingerprint(one)[:16]} of {subject(one)} has been revoked")
    public = certificate.public_key()
    if not isinstance(public, rsa.RSAPublicKey) or public.key_size < MIN_BITS:
        raise Untrusted(f"certificate {mark[:16]} of {subject(certificate)} has no RSA key of {MIN_BITS} bits or more")


def _chain(certificate: x509.Certificate, authorities: list[x509.Certificate], accepted: set[str]) -> list[x509.Certificate]:
    """``certificate`` and who issued it, up to the first that is accepted."""
    chain = [certificate]
    while fingerprint(chain[-1]) not in accepted and len(chain) < MAX_CHAIN:
        issuer = next((one for one in authorities if _issued(chain[-1], one)), None)
        if issuer is None or issuer in chain:
            break
        chain.append(issuer)
    return chain


def _issued(certificate: x509.Certificate, issuer: x509.Certificate) -> bool:
    try:
        if not issuer.extensions.get_extension_for_class(x509.BasicConstraints).value.ca:
            return False
        certificate.verify_directly_issued_by(issuer)
    except (x509.ExtensionNotFound, InvalidSignature, UnsupportedAlgorithm, ValueError, TypeError):
        return False
    return True


def _revocations(folder: Path) -> Iterator[x509.CertificateRevocationList]:
    for path in _files(folder / "crl"):
        try:
            raw = _bytes(path)
            yield x509.load_pem_x509_crl(raw) if b"-----BEGIN" in raw else x509.load_der_x509_crl(raw)
        except (OSError, ValueError) as error:
            raise Untrusted(f"revocation list {path}: {_reason(error)}: nothing is trusted until it can be read") from error


def _revokes(crl: x509.CertificateRevocationList, certificate: x509.Certificate, issuer: x509.Certificate) -> bool:
    if crl.issuer != certificate.issuer or crl.get_revoked_certificate_by_serial_number(certificate.serial_number) is None:
        return False
    key = issuer.public_key()
    return isinstance(key, rsa.RSAPublicKey) and crl.is_signature_valid(key)


def _record(folder: Path, certificate: x509.Certificate) -> None:
    """Keep what was refused, so that a person can look at it. A folder that cannot be written changes nothing about the refusal."""
    path = folder / "rejected" / f"{fingerprint(certificate)}.der"
    try:
        if path.exists() or len(_files(path.parent)) >= MAX_REJECTED:
            return
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        _put(path, certificate.public_bytes(serialization.Encoding.DER), 0o644)
    except OSError as error:
        raise Untrusted(
            f"certificate {fingerprint(certificate)[:16]} of {subject(certificate)} is not trusted, and cannot be kept in {path.parent} "
            f"({_reason(error)}): let the service's user write there"
        ) from error


# ---------------------------------------------------------------------------------------------------- what a person does


def shelf(folder: Path, name: str) -> Iterator[Shelved]:
    """The certificates of one of SHELVES; files that hold none are left out."""
    for path in _files(folder / name):
        try:
            raw = _bytes(path)
            certificate = x509.load_pem_x509_certificate(raw) if b"-----BEGIN" in raw else x509.load_der_x509_certificate(raw)
        except (OSError, ValueError):
            continue
        yield Shelved(name, path, certificate)


def find(folder: Path, mark: str) -> list[Shelved]:
    """Certificates on any shelf whose fingerprint begins with ``mark``."""
    wanted = mark.lower().replace(":", "")
    return [one for name in SHELVES for one in shelf(folder, name) if wanted and one.fingerprint.startswith(wanted)]


def put(folder: Path, certificate: x509.Certificate, name: str) -> Path:
    """``certificate`` onto the shelf ``name`` and off every other. Raises OSError."""
    mark = fingerprint(certificate)
    path = folder / name / f"{mark}.der"
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    _put(path, certificate.public_bytes(serialization.Encoding.DER), 0o644)
    for other in SHELVES:
        for one in list(shelf(folder, other)):
            if one.fingerprint == mark and one.path != path:
                one.path.unlink()
    return path


def first_of_chain(der: bytes) -> bytes:
    """The first certificate of several in a row, as some servers send them."""
    if len(der) > 4 and der[:2] == b"\x30\x82":
        return der[: 4 + int.from_bytes(der[2:4], "big")]
    return der


def _files(folder: Path) -> list[Path]:
    try:
        return sorted(path for path in folder.iterdir() if path.suffix in (".der", ".pem", ".crt", ".cer", ".crl"))[:MAX_FILES]
    except OSError:
        return []


def _bytes(path: Path) -> bytes:
    with path.open("rb") as file:
        raw = file.read(MAX_FILE + 1)
    if len(raw) > MAX_FILE:
        raise ValueError(f"more than {MAX_FILE} bytes")
    return raw


def _put(path: Path, content: bytes, mode: int) -> None:
    """All of it or nothing, never for a moment with other rights."""
    part = path.with_name(f".{path.name}.part")
    part.unlink(missing_ok=True)
    descriptor = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
    with os.fdopen(descriptor, "wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    part.replace(path)


def _moment(time_ns: int) -> datetime.datetime:
    return datetime.datetime(1970, 1, 1, tzinfo=datetime.UTC) + datetime.timedelta(microseconds=time_ns // 1000)


def _reason(error: Exception) -> str:
    return (error.strerror if isinstance(error, OSError) else None) or str(error)[:200] or type(error).__name__
