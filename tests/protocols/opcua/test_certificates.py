"""Which certificates are trusted: the one that a person accepted, and those that an accepted authority signed; nothing else."""

from __future__ import annotations

import datetime
from pathlib import Path
from typing import Final

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.x509.oid import NameOID

from protocols.opcua import certificates
from protocols.opcua.certificates import MAX_REJECTED, Untrusted, Unusable

NOW_NS: Final = 1_795_000_000 * 10**9
NOW: Final = datetime.datetime.fromtimestamp(NOW_NS // 10**9, datetime.UTC)
DAY: Final = datetime.timedelta(days=1)


class Issuer:
    """A certificate and its key, and what it signs."""

    def __init__(self, name: str, by: Issuer | None = None, *, ca: bool = False, bits: int = 2048, from_: int = -1, to: int = 9) -> None:
        self.key = rsa.generate_private_key(public_exponent=65537, key_size=bits)
        self.name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        self.by = by or self
        builder = x509.CertificateBuilder().subject_name(self.name).issuer_name(self.by.name).public_key(self.key.public_key())
        builder = builder.serial_number(x509.random_serial_number()).not_valid_before(NOW + from_ * DAY).not_valid_after(NOW + to * DAY)
        builder = builder.add_extension(x509.BasicConstraints(ca=ca, path_length=None), critical=True)
        self.certificate = builder.sign(self.by.key, hashes.SHA256())

    @property
    def der(self) -> bytes:
        return self.certificate.public_bytes(serialization.Encoding.DER)

    def revoke(self, other: Issuer) -> bytes:
        gone = x509.RevokedCertificateBuilder().serial_number(other.certificate.serial_number).revocation_date(NOW - DAY).build()
        builder = x509.CertificateRevocationListBuilder().issuer_name(self.name).last_update(NOW - DAY).next_update(NOW + DAY)
        return builder.add_revoked_certificate(gone).sign(self.key, hashes.SHA256()).public_bytes(serialization.Encoding.DER)


@pytest.fixture(scope="module")
def root() -> Issuer:
    return Issuer("root", ca=True)


@pytest.fixture(scope="module")
def plant(root: Issuer) -> Issuer:
    return Issuer("plant", root, ca=True)


def refusal(folder: Path, der: bytes) -> str:
    with pytest.raises(Untrusted) as caught:
        certificates.judge(folder, der, NOW_NS)
    return str(caught.value)


def test_what_nobody_accepted_is_refused_and_kept_for_a_person_to_see(tmp_path: Path, root: Issuer) -> None:
    assert "not trusted" in refusal(tmp_path, root.der)
    (kept,) = certificates.shelf(tmp_path, "rejected")
    certificates.put(tmp_path, kept.certificate, "trusted")
    assert certificates.judge(tmp_path, root.der, NOW_NS) == root.certificate
    assert list(certificates.shelf(tmp_path, "rejected")) == []


def test_an_accepted_authority_is_enough_over_those_between(tmp_path: Path, root: Issuer, plant: Issuer) -> None:
    server = Issuer("server", plant)
    certificates.put(tmp_path, root.certificate, "trusted")
    assert "not trusted" in refusal(tmp_path, server.der), "who is between is not known"
    certificates.put(tmp_path, plant.certificate, "issuers")
    assert certificates.judge(tmp_path, server.der, NOW_NS) == server.certificate
    certificates.put(tmp_path, root.certificate, "issuers")
    assert "not trusted" in refusal(tmp_path, server.der), "issuers are trusted for nothing by themselves"


def test_who_is_no_authority_vouches_for_nobody(tmp_path: Path, root: Issuer) -> None:
    pretender = Issuer("server", root)
    certificates.put(tmp_path, pretender.certificate, "trusted")
    assert "not trusted" in refusal(tmp_path, Issuer("other", pretender).der)


def test_the_same_name_with_another_key_is_another(tmp_path: Path, root: Issuer) -> None:
    certificates.put(tmp_path, root.certificate, "trusted")
    assert "not trusted" in refusal(tmp_path, Issuer("server", Issuer("root", ca=True)).der)


@pytest.mark.parametrize(("from_", "to"), [(-9, -1), (1, 9)])
def test_what_is_out_of_date_is_refused_though_accepted(tmp_path: Path, from_: int, to: int) -> None:
    old = Issuer("old", from_=from_, to=to)
    certificates.put(tmp_path, old.certificate, "trusted")
    assert "is valid from" in refusal(tmp_path, old.der)


def test_a_short_key_is_refused_though_accepted(tmp_path: Path) -> None:
    weak = Issuer("weak", bits=1024)
    certificates.put(tmp_path, weak.certificate, "trusted")
    assert "2048" in refusal(tmp_path, weak.der)


def test_what_was_revoked_is_refused_and_a_list_that_cannot_be_read_stops_all(tmp_path: Path, root: Issuer) -> None:
    server, other = Issuer("server", root), Issuer("other", root)
    certificates.put(tmp_path, root.certificate, "trusted")
    (tmp_path / "crl").mkdir()
    (tmp_path / "crl" / "root.crl").write_bytes(root.revoke(server))
    assert "revoked" in refusal(tmp_path, server.der)
    assert certificates.judge(tmp_path, other.der, NOW_NS) == other.certificate
    (tmp_path / "crl" / "root.crl").write_bytes(b"nothing")
    assert "revocation list" in refusal(tmp_path, other.der)


def test_rubbish_is_refused_and_the_rejected_are_bounded(tmp_path: Path, root: Issuer) -> None:
    assert "cannot be read" in refusal(tmp_path, b"\x30\x82\xff\xff rubbish")
    shelf = tmp_path / "rejected"
    shelf.mkdir()
    for at in range(MAX_REJECTED):
        (shelf / f"{at}.der").write_bytes(b"x")
    refusal(tmp_path, root.der)
    assert len(list(shelf.iterdir())) == MAX_REJECTED


def test_a_key_of_another_certificate_is_told(tmp_path: Path, root: Issuer, plant: Issuer) -> None:
    (tmp_path / "c.der").write_bytes(root.der)
    pem = plant.key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    (tmp_path / "k.pem").write_bytes(pem)
    with pytest.raises(Unusable, match="not the key of"):
        certificates.load_identity(str(tmp_path / "c.der"), str(tmp_path / "k.pem"), None)
