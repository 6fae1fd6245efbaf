"""TLS as a client: real handshakes in memory, each with a peer that must be accepted or must be refused."""

from __future__ import annotations

import datetime
import ssl
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from protocols.contract import Misfit
from protocols.secret import FromFile, SecretMissing
from protocols.tls import Tls, client_context

HOST = "broker.example.com"
DAY = datetime.timedelta(days=1)
NOW = datetime.datetime.now(datetime.UTC)
KEY_PASSWORD = "canary-key-77"


class Authority:
    """A certificate authority that lives in a folder."""

    def __init__(self, folder: Path, name: str) -> None:
        self.folder = folder
        self.name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        self.key = ec.generate_private_key(ec.SECP256R1())
        self.file = folder / f"{name}.pem"
        certificate = (
            self._builder(self.name, self.key, NOW - DAY, NOW + DAY)
            .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
            .add_extension(
                x509.KeyUsage(
                    digital_signature=True, content_commitment=False, key_encipherment=False, data_encipherment=False,
                    key_agreement=False, key_cert_sign=True, crl_sign=True, encipher_only=False, decipher_only=False,
                ),
                critical=True,
            )
            .sign(self.key, hashes.SHA256())
        )  # fmt: skip
        self.file.write_bytes(certificate.public_bytes(serialization.Encoding.PEM))

    def issue(
        self, name: str, begins: datetime.datetime = NOW - DAY, ends: datetime.datetime = NOW + DAY, password: str = ""
    ) -> tuple[Path, Path]:
        """Files of a certificate for ``name`` and of its key."""
        key = ec.generate_private_key(ec.SECP256R1())
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        certificate = (
            self._builder(subject, key, begins, ends)
            .add_extension(x509.SubjectAlternativeName([x509.DNSName(name)]), critical=False)
            .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH]), critical=False)
            .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(self.key.public_key()), critical=False)
            .sign(self.key, hashes.SHA256())
        )
        number = len(list(self.folder.iterdir()))
        cert_file, key_file = self.folder / f"cert-{number}.pem", self.folder / f"key-{number}.pem"
        cert_file.write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
        encryption = serialization.BestAvailableEncryption(password.encode()) if password else serialization.NoEncryption()
        key_file.write_bytes(key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, encryption))
        return cert_file, key_file

    def _builder(
        self, subject: x509.Name, key: ec.EllipticCurvePrivateKey, begins: datetime.datetime, ends: datetime.datetime
    ) -> x509.CertificateBuilder:
        return (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(self.name)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(begins)
            .not_valid_after(ends)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        )


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority(tmp_path, "plant-ca")


def server_context(
    files: tuple[Path, Path], highest: ssl.TLSVersion = ssl.TLSVersion.TLSv1_3, client_ca: Path | None = None
) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(*files)
    context.maximum_version = highest
    if client_ca is not None:
        context.load_verify_locations(client_ca)
        context.verify_mode = ssl.CERT_REQUIRED
    return context


def handshake(client: ssl.SSLContext, server: ssl.SSLContext, host: str = HOST) -> ssl.SSLObject:
    """Run a whole handshake without a socket; the client's side. Raises what either side raises."""
    to_server, to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
    sides = [
        client.wrap_bio(to_client, to_server, server_side=False, server_hostname=host),
        server.wrap_bio(to_server, to_client, server_side=True),
    ]
    open_sides = list(sides)
    for _ in range(20):
        for side in list(open_sides):
            try:
                side.do_handshake()
                open_sides.remove(side)
            except ssl.SSLWantReadError:
                continue
        if not open_sides:
            return sides[0]
    raise AssertionError("the handshake does not end")


def test_a_peer_with_a_certificate_of_our_authority_is_accepted_over_tls_1_3(authority: Authority) -> None:
    side = handshake(client_context(Tls(ca_file=str(authority.file))), server_context(authority.issue(HOST)))
    assert side.version() == "TLSv1.3"


def refused(tls: Tls, server: ssl.SSLContext, host: str = HOST) -> str:
    with pytest.raises(ssl.SSLError) as caught:
        handshake(client_context(tls), server, host)
    return str(caught.value)


def test_an_expired_certificate_is_refused(authority: Authority) -> None:
    server = server_context(authority.issue(HOST, NOW - 3 * DAY, NOW - DAY))
    assert "expired" in refused(Tls(ca_file=str(authority.file)), server)


def test_a_certificate_that_is_not_yet_valid_is_refused(authority: Authority) -> None:
    server = server_context(authority.issue(HOST, NOW + DAY, NOW + 3 * DAY))
    assert "not yet valid" in refused(Tls(ca_file=str(authority.file)), server)


def test_a_certificate_of_another_authority_is_refused(authority: Authority, tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()
    server = server_context(Authority(tmp_path / "other", "other-ca").issue(HOST))
    assert "CERTIFICATE_VERIFY_FAILED" in refused(Tls(ca_file=str(authority.file)), server)


def test_a_certificate_for_another_host_is_refused(authority: Authority) -> None:
    assert "Hostname mismatch" in refused(Tls(ca_file=str(authority.file)), server_context(authority.issue("other.example.com")))


def test_without_a_ca_file_only_the_systems_authorities_count(authority: Authority) -> None:
    assert "CERTIFICATE_VERIFY_FAILED" in refused(Tls(), server_context(authority.issue(HOST)))


def test_a_peer_that_speaks_only_tls_1_2_is_refused_unless_asked_for(authority: Authority) -> None:
    server = server_context(authority.issue(HOST), highest=ssl.TLSVersion.TLSv1_2)
    refused(Tls(ca_file=str(authority.file)), server)
    assert handshake(client_context(Tls(ca_file=str(authority.file), min_version="1.2")), server).version() == "TLSv1.2"


def test_the_gateway_shows_its_own_certificate(authority: Authority) -> None:
    cert_file, key_file = authority.issue("gw-01")
    server = server_context(authority.issue(HOST), client_ca=authority.file)
    tls = Tls(ca_file=str(authority.file), cert_file=str(cert_file), key_file=str(key_file))
    assert handshake(client_context(tls), server).version() == "TLSv1.3"


def test_a_key_may_be_locked_with_a_password(authority: Authority, tmp_path: Path) -> None:
    cert_file, key_file = authority.issue("gw-01", password=KEY_PASSWORD)
    password = tmp_path / "password"
    password.write_text(KEY_PASSWORD + "\n")
    tls = Tls(ca_file=str(authority.file), cert_file=str(cert_file), key_file=str(key_file), key_password=FromFile(str(password)))
    server = server_context(authority.issue(HOST), client_ca=authority.file)
    assert handshake(client_context(tls), server).version() == "TLSv1.3"


def test_a_wrong_or_missing_password_is_a_misfit_and_never_a_question(authority: Authority, tmp_path: Path) -> None:
    cert_file, key_file = authority.issue("gw-01", password=KEY_PASSWORD)
    wrong = tmp_path / "password"
    wrong.write_text("wrong-canary")
    for password in (None, FromFile(str(wrong))):
        tls = Tls(cert_file=str(cert_file), key_file=str(key_file), key_password=password)
        with pytest.raises(Misfit) as caught:
            client_context(tls)
        assert str(key_file) in str(caught.value)
        assert "wrong-canary" not in str(caught.value)


def test_a_password_that_is_not_there_is_said(authority: Authority, tmp_path: Path) -> None:
    cert_file, key_file = authority.issue("gw-01", password=KEY_PASSWORD)
    tls = Tls(cert_file=str(cert_file), key_file=str(key_file), key_password=FromFile(str(tmp_path / "none")))
    with pytest.raises(SecretMissing):
        client_context(tls)


def test_a_file_that_cannot_be_used_is_named(authority: Authority, tmp_path: Path) -> None:
    rubbish = tmp_path / "rubbish.pem"
    rubbish.write_text("rubbish")
    cert_file, _ = authority.issue("gw-01")
    _, other_key = authority.issue("gw-02")
    for tls, named in (
        (Tls(ca_file=str(tmp_path / "none.pem")), "none.pem"),
        (Tls(ca_file=str(rubbish)), "rubbish.pem"),
        (Tls(cert_file=str(rubbish)), "rubbish.pem"),
        (Tls(cert_file=str(cert_file), key_file=str(other_key)), other_key.name),
    ):
        with pytest.raises(Misfit) as caught:
            client_context(tls)
        assert named in str(caught.value)


def test_there_is_no_way_to_turn_verification_off() -> None:
    context = client_context(Tls(min_version="1.2"))
    assert context.verify_mode is ssl.CERT_REQUIRED
    assert context.check_hostname
