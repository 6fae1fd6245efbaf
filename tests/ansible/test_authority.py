"""A site's authority: what it signs, what it refuses, and that hosts trust the right ones at every step of a succession."""

from __future__ import annotations

import datetime
import importlib.util
import stat
import subprocess
import sys
from pathlib import Path
from types import ModuleType
from typing import Any, Final

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

ROOT: Final = Path(__file__).parents[2]
UUID: Final = "0a5b2a86-3c8b-4dc1-9b7e-0d8f5f0a1c0a"
NOW: Final = datetime.datetime.now(datetime.UTC).replace(microsecond=0)


def load() -> Any:  # Any: a module that lies outside of every package
    """The module as the controller loads it, apart from Ansible."""
    spec = importlib.util.spec_from_file_location("holdfast_authority", ROOT / "ansible/plugins/module_utils/authority.py")
    assert spec is not None
    assert spec.loader is not None
    module: ModuleType = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


authority = load()
GATEWAY: Final = authority.Subject(UUID)
BROKER: Final = authority.Subject("broker.example.com", ("broker.example.com", "192.0.2.7", "2001:db8::7"), "server")


def site(folder: Path, **more: Any) -> Any:  # Any: as above
    made = authority.Authority(folder / "pki", **more)
    made.create("Plant 7", 7305)
    return made


def request(name: str = UUID, key: Any = None, *, spoilt: bool = False) -> str:  # Any: a key of any kind
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    asked = (
        x509.CertificateSigningRequestBuilder().subject_name(subject).sign(key or ec.generate_private_key(ec.SECP256R1()), hashes.SHA256())
    )
    der = bytearray(asked.public_bytes(serialization.Encoding.DER))
    if spoilt:
        der[-1] ^= 1
    if spoilt:
        return x509.load_der_x509_csr(bytes(der)).public_bytes(serialization.Encoding.PEM).decode()
    return asked.public_bytes(serialization.Encoding.PEM).decode()


def verified(trusted: str, revoked: str, certificate: str, folder: Path) -> bool:
    """What openssl says of it, with the revocation list."""
    for name, text in (("trusted", trusted), ("revoked", revoked), ("leaf", certificate)):
        (folder / name).write_text(text)
    words = ["openssl", "verify", "-crl_check", "-CAfile", "trusted", "-CRLfile", "revoked", "leaf"]
    return subprocess.run(words, cwd=folder, capture_output=True, check=False).returncode == 0


def test_certificate_is_for_the_inventory_s_names_and_openssl_takes_it(tmp_path: Path) -> None:
    pki = site(tmp_path)
    pem = pki.sign(request(BROKER.name), BROKER, 398)
    leaf = x509.load_pem_x509_certificate(pem.encode())
    names = leaf.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert names.get_values_for_type(x509.DNSName) == ["broker.example.com"]
    assert [str(each) for each in names.get_values_for_type(x509.IPAddress)] == ["192.0.2.7", "2001:db8::7"]
    assert list(leaf.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value) == [ExtendedKeyUsageOID.SERVER_AUTH]
    assert (leaf.not_valid_after_utc - NOW).days in (397, 398)
    assert verified(pki.trusted, pki.revocations, pem, tmp_path)


def test_serial_numbers_are_random(tmp_path: Path) -> None:
    pki = site(tmp_path)
    serials = {x509.load_pem_x509_certificate(pki.sign(request(), GATEWAY, 30).encode()).serial_number for _ in range(5)}
    assert len(serials) == 5
    assert min(serials) > 2**100


def test_keys_are_for_the_owner_alone_and_locked_where_a_passphrase_is_given(tmp_path: Path) -> None:
    site(tmp_path, passphrase="correct horse")
    key = tmp_path / "pki/authority.key"
    assert stat.S_IMODE(key.stat().st_mode) == 0o600
    assert stat.S_IMODE(key.parent.stat().st_mode) == 0o700
    assert "ENCRYPTED" in key.read_text()
    with pytest.raises(authority.Refused, match="passphrase"):
        authority.Authority(tmp_path / "pki", passphrase="wrong").sign(request(), GATEWAY, 30)


def test_second_time_changes_nothing(tmp_path: Path) -> None:
    pki = site(tmp_path)
    before = {path: path.read_bytes() for path in (tmp_path / "pki").rglob("*") if path.is_file()}
    assert not pki.create("Plant 7", 7305)
    assert before == {path: path.read_bytes() for path in (tmp_path / "pki").rglob("*") if path.is_file()}


@pytest.mark.parametrize(
    "name", ["", "a b", "-x", "x\ny", "gw/1", "#", "+", "é", "a" * 65, "x\x00", "$SYS"], ids=lambda name: name.encode().hex()[:20]
)
def test_name_that_could_mean_something_to_a_broker_is_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(authority.Refused, match="name"):
        site(tmp_path).sign(request(), authority.Subject(name), 30)


@pytest.mark.parametrize("name", ["not a host", "a..b", "-a.example.com", "x" * 64 + ".example.com", "a\nb", "*.example.com"])
def test_host_name_that_is_none_is_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(authority.Refused, match="neither a host name nor an address"):
        site(tmp_path).sign(request(), authority.Subject(UUID, (name,)), 30)


def test_request_of_somebody_else_is_refused(tmp_path: Path) -> None:
    """In another name, signed by another key, with a weak key, or no request at all."""
    pki = site(tmp_path)
    weak = rsa.generate_private_key(65537, 2048)
    for text, why in (
        (request("another"), "in the name of another"),
        (request(spoilt=True), "not signed by its own key"),
        (request(key=weak), "neither Ed25519 nor of an elliptic curve"),
        ("no request", "no certificate request"),
        ("x" * 70_000, "longer than"),
    ):
        with pytest.raises(authority.Refused, match=why):
            pki.sign(text, GATEWAY, 30)


def test_certificate_is_due_when_it_ends_soon_or_says_something_else(tmp_path: Path) -> None:
    pki = site(tmp_path)
    good = pki.sign(request(BROKER.name), BROKER, 398)
    soon = pki.sign(request(BROKER.name), BROKER, 20)
    other = site(tmp_path / "other").sign(request(BROKER.name), BROKER, 398)
    assert not pki.judge(good, BROKER, renew_within_days=60).due
    for pem, subject, why in (
        ("", BROKER, "there is none"),
        ("rubbish", BROKER, "holds no certificate"),
        (soon, BROKER, "it ends on"),
        (other, BROKER, "another authority"),
        (good, authority.Subject("another", BROKER.names, "server"), "it is for broker.example.com"),
        (good, authority.Subject(BROKER.name, ("192.0.2.7",), "server"), "names differ"),
        (good, authority.Subject(BROKER.name, BROKER.names, "both"), "usage differs"),
    ):
        found = pki.judge(pem, subject, renew_within_days=60)
        assert found.due
        assert why in found.why
    assert pki.judge(good, BROKER, renew_within_days=60, renew=True).due


def test_what_is_revoked_openssl_refuses_and_a_second_time_changes_nothing(tmp_path: Path) -> None:
    pki = site(tmp_path)
    lost, kept = pki.sign(request(), GATEWAY, 30), pki.sign(request("other"), authority.Subject("other"), 30)
    assert verified(pki.trusted, pki.revocations, lost, tmp_path)
    first = pki.revocations
    assert len(pki.revoke([UUID])) == 1
    assert pki.revoke([UUID]) == []
    assert not verified(pki.trusted, pki.revocations, lost, tmp_path)
    assert not verified(pki.trusted, first + pki.revocations, lost, tmp_path), "a newer list counts"
    assert verified(pki.trusted, pki.revocations, kept, tmp_path)
    assert pki.judge(lost, GATEWAY, renew_within_days=1).why == "it is revoked"
    with pytest.raises(authority.Refused, match="no certificate of that name"):
        pki.revoke(["nobody"])


def test_revocation_list_is_good_as_long_as_its_authority(tmp_path: Path) -> None:
    pki = site(tmp_path)
    crl = x509.load_pem_x509_crl(pki.revocations.encode())
    assert crl.next_update_utc == x509.load_pem_x509_certificate(pki.trusted.encode()).not_valid_after_utc


def test_succession_lets_both_be_trusted_until_the_old_one_is_retired(tmp_path: Path) -> None:
    """At each stage every certificate in use is taken by everybody who has the list of trusted ones of this stage, or of the one before."""
    pki = site(tmp_path)
    old = pki.sign(request(), GATEWAY, 30)
    trusted, revoked = [pki.trusted], [pki.revocations]
    for stage in ("prepared", "switched"):
        assert pki.succeed(stage, "Plant 7", 7305)
        assert not pki.succeed(stage, "Plant 7", 7305), "a second time changes nothing"
        trusted.append(pki.trusted)
        revoked.append(pki.revocations)
        assert verified(trusted[-1], revoked[-1], old, tmp_path)
    new = pki.sign(request(), GATEWAY, 30)
    assert pki.judge(old, GATEWAY, renew_within_days=1).why == "another authority issued it"
    assert verified(trusted[1], revoked[1], new, tmp_path), "prepared hosts trust it before it issues anything"
    assert verified(trusted[2], revoked[2], new, tmp_path)
    assert not verified(trusted[0], revoked[0], new, tmp_path)
    pki.revoke([UUID], keep=new)
    assert not verified(pki.trusted, pki.revocations, old, tmp_path), "the authority before still revokes"
    assert pki.succeed("retired", "Plant 7", 7305)
    assert not verified(pki.trusted, pki.revocations, old, tmp_path)
    assert verified(pki.trusted, pki.revocations, new, tmp_path)
    assert pki.trusted.count("BEGIN CERTIFICATE") == 1


def test_succession_that_is_cut_short_goes_on(tmp_path: Path) -> None:
    """Wherever the disk failed, the next play finds the old or the new one whole, and brings it to its end."""
    for fails_at in range(1, 12):
        pki = site(tmp_path / str(fails_at))
        pki.succeed("prepared", "Plant 7", 7305)
        writes, write = iter(range(1, 100)), pki._write

        def failing(*words: Any, fails_at: int = fails_at, writes: Any = writes, write: Any = write, **more: Any) -> None:  # Any: as above
            if next(writes) == fails_at:
                raise OSError(28, "No space left on device", str(words[0]))
            write(*words, **more)

        pki._write = failing
        try:
            pki.succeed("switched", "Plant 7", 7305)
        except authority.Refused as refusal:
            assert "No space left" in str(refusal)  # noqa: PT017  # the last of them fail no more
        again = authority.Authority(pki.folder)
        again.create("Plant 7", 7305)  # as each play does first
        again.succeed("switched", "Plant 7", 7305)
        assert verified(again.trusted, again.revocations, again.sign(request(), GATEWAY, 30), tmp_path)
        assert again.trusted.count("BEGIN CERTIFICATE") == 2
        assert len(again.revoke([UUID])) == 1, "both keys are there to sign lists"
        assert not any((pki.folder / name).exists() for name in ("next.pem", "next.key", ".switching"))


def test_no_stage_is_left_out(tmp_path: Path) -> None:
    with pytest.raises(authority.Refused, match="prepared"):
        site(tmp_path).succeed("switched", "Plant 7", 7305)


def test_nothing_outlives_its_authority(tmp_path: Path) -> None:
    pki = authority.Authority(tmp_path / "pki")
    pki.create("Plant 7", 100)
    leaf = x509.load_pem_x509_certificate(pki.sign(request(), GATEWAY, 398).encode())
    assert leaf.not_valid_after_utc == x509.load_pem_x509_certificate(pki.trusted.encode()).not_valid_after_utc
    later = authority.Authority(tmp_path / "pki", now=NOW + datetime.timedelta(200))
    with pytest.raises(authority.Refused, match="succession"):
        later.sign(request(), GATEWAY, 30)
