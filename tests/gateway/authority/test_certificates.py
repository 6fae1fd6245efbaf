"""Certificates and what is revoked: it stays revoked, whatever is lost, and whatever clocks do."""

from __future__ import annotations

import datetime
import itertools
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import dsa, ec, ed25519, rsa
from cryptography.x509.oid import NameOID

from gateway import authority
from gateway.authority import Authority, Certificates
from gateway.authority.request import key_of
from gateway.objections import NotThere, Unfit
from gateway.state import FILE, State
from protocols.clock import ManualClock

Key = ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey | ed25519.Ed25519PrivateKey | dsa.DSAPrivateKey


def request(key: Key | None = None, *, names: int = 1) -> str:
    key = key or ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "forged")])
    others = x509.SubjectAlternativeName([x509.DNSName(f"forged-{number}.example.com") for number in range(names)])
    builder = x509.CertificateSigningRequestBuilder().subject_name(subject).add_extension(others, critical=False)
    signed = builder.sign(key, None if isinstance(key, ed25519.Ed25519PrivateKey) else hashes.SHA256())
    return signed.public_bytes(serialization.Encoding.PEM).decode()


@asynccontextmanager
async def certificates(folder: Path, clock: ManualClock) -> AsyncIterator[Certificates]:
    state = await State.open(folder, [authority.MIGRATIONS], clock)
    try:
        yield Certificates(Authority(folder / "authority", "plant edge", clock), state, clock)
    finally:
        await state.close()


def revoked_in(crl: bytes) -> set[str]:
    return {f"{each.serial_number:x}" for each in x509.load_der_x509_crl(crl)}


async def test_what_is_revoked_stays_so_also_where_the_state_or_the_list_is_lost(tmp_path: Path) -> None:
    """Each makes up for the other."""
    clock = ManualClock()
    async with certificates(tmp_path, clock) as one:
        kept = await one.issue(request(), purpose="device", name="press-7", days=30, made_by="test")
        dead = await one.issue(request(), purpose="device", name="press-7", days=30, made_by="test")
        await one.revoke(dead.serial, "key_compromise")
        with pytest.raises(NotThere):
            await one.revoke("ff")
    (tmp_path / "authority" / "crl.pem").unlink()
    async with certificates(tmp_path, clock) as one:
        assert revoked_in(await one.crl()) == {dead.serial}
        assert (one.get(dead.serial).reason, one.get(kept.serial).revoked_ns) == ("key_compromise", 0)
    (tmp_path / FILE).unlink()
    async with certificates(tmp_path, clock) as one:
        assert revoked_in(await one.crl()) == {dead.serial}
        assert one.find(kept.der) is None, "and nothing is good that is not known"


async def test_each_list_is_newer_than_the_one_before_whatever_the_clock_does(tmp_path: Path) -> None:
    """OpenSSL takes the newer of two, by their time; a list is never from the future."""
    clock = ManualClock()
    hour = 3600 * 10**9
    async with certificates(tmp_path, clock) as one:
        lists = []
        for step in (0, 0, 1, 0, -(10**9), hour, 24 * hour):
            clock.set_time_ns(clock.time_ns() + step)
            made = await one.issue(request(), purpose="device", name="press-7", days=30, made_by="test")
            await one.revoke(made.serial)
            lists.append(x509.load_der_x509_crl(await one.crl()))
            now = datetime.datetime.fromtimestamp(clock.time_ns() // 10**9, tz=datetime.UTC)
            assert lists[-1].last_update_utc <= now
        times = [each.last_update_utc for each in lists]
        assert all(before < after for before, after in itertools.pairwise(times))
        numbers = [each.extensions.get_extension_for_class(x509.CRLNumber).value.crl_number for each in lists]
        assert numbers == sorted(set(numbers))
        clock.set_time_ns(clock.time_ns() + 48 * hour)
        assert x509.load_der_x509_crl(await one.crl()).last_update_utc > times[-1], "a new one every day"


async def test_nothing_of_a_request_is_taken_but_its_key(tmp_path: Path) -> None:
    async with certificates(tmp_path, ManualClock()) as one:
        key = ed25519.Ed25519PrivateKey.generate()
        made = await one.issue(request(key, names=50), purpose="device", name="press 7/ü", days=10_000, made_by="test")
    found = x509.load_pem_x509_certificate(made.pem.encode())
    assert found.public_key() == key.public_key()
    assert found.subject.rfc4514_string() == "CN=press 7/ü"
    names = found.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert [name.value for name in names] == ["urn:holdfast:device:press%207%2F%C3%BC"]
    assert found.extensions.get_extension_for_class(x509.BasicConstraints).value.ca is False
    assert found.not_valid_after_utc - found.not_valid_before_utc < datetime.timedelta(days=3653)


def test_weak_and_strange_keys_are_refused_with_what_to_take_instead() -> None:
    for good in (rsa.generate_private_key(65537, 2048), ec.generate_private_key(ec.SECP384R1())):
        assert key_of(request(good)) == good.public_key()
    for key in (rsa.generate_private_key(65537, 1024), ec.generate_private_key(ec.SECP224R1()), dsa.generate_private_key(1024)):
        with pytest.raises(Unfit, match="take"):
            key_of(request(key))
    for rubbish in ("", "-----BEGIN CERTIFICATE REQUEST-----\n-----END CERTIFICATE REQUEST-----", "\x00", "x" * 20_000):
        with pytest.raises(Unfit, match="openssl"):
            key_of(rubbish)
