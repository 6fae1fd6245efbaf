"""Certificates from outside, over TLS: who enters with which, who does not, and what changes while the API runs."""

from __future__ import annotations

import asyncio
import datetime
import functools
import shutil
import ssl
import subprocess
from collections.abc import Callable
from pathlib import Path

import httpx
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from gateway.api import trust
from gateway.config.api import Api
from gateway.identity.principal import Permission, Role
from protocols.contract import Misfit
from tests.gateway.api.conftest import TENANT, Running, gateway, site_of, until
from tests.peers.certificates import make_pki
from tests.peers.libmodbus import LibmodbusServer

OPENSSL = shutil.which("openssl")
DAY = datetime.timedelta(days=1)
GRANTS = "/api/v1/certificate-grants"


def request_of(folder: Path, name: str, kind: str = "ec") -> str:
    """A request made by openssl(1), with its key in ``folder/name.key``."""
    assert OPENSSL
    new = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256"] if kind == "ec" else ["-newkey", kind]
    command = [OPENSSL, "req", "-new", *new, "-nodes", "-keyout", str(folder / f"{name}.key"), "-subj", "/CN=administrator/O=forged"]
    made: str = subprocess.run(command, capture_output=True, check=True, timeout=60, text=True).stdout
    return made


async def certificate_of(plant: Running, folder: Path, name: str, caller: httpx.AsyncClient, **more: object) -> dict[str, object]:
    """A certificate of the gateway's authority, written to ``folder``, and what was said of it."""
    csr = await asyncio.to_thread(request_of, folder, name)
    answer = await caller.post("/api/v1/certificates", json={"csr": csr, "name": name, "role": "viewer", **more})
    assert answer.status_code == 201, answer.text
    await asyncio.to_thread((folder / f"{name}.pem").write_text, answer.json()["pem"])
    told: dict[str, object] = answer.json()["certificate"]
    return told


def with_certificate(plant: Running, cert: Path, key: Path) -> httpx.AsyncClient:
    context = ssl.create_default_context(cafile=plant.appliance.authority.certificate_file)
    context.load_cert_chain(cert, key)
    return plant.client(verify=context)


async def refused_in_the_handshake(plant: Running, cert: Path, key: Path) -> bool:
    """Whether TLS itself refuses: with TLS 1.3 the client learns it with its first read."""
    try:
        await with_certificate(plant, cert, key).get("/healthz")
    except (httpx.ConnectError, httpx.ReadError, httpx.RemoteProtocolError, ssl.SSLError):
        return True
    return False


def forged(plant: Running, folder: Path, *, begins: int = -1, ends: int = 1, signed_by_us: bool = True) -> tuple[Path, Path]:
    """A client's certificate that is good for ``begins`` to ``ends`` (days from now), signed with the authority's very key, or its own."""
    authority = plant.appliance.authority
    key = ec.generate_private_key(ec.SECP256R1())
    own = serialization.load_pem_private_key((authority.certificate_file.parent / "ca.key").read_bytes(), None)
    assert isinstance(own, ec.EllipticCurvePrivateKey)
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "anna")])
    now = datetime.datetime.now(datetime.UTC)
    builder = x509.CertificateBuilder().subject_name(name).issuer_name(authority.own.subject if signed_by_us else name)
    builder = builder.public_key(key.public_key()).serial_number(x509.random_serial_number())
    builder = builder.not_valid_before(now + begins * DAY).not_valid_after(now + ends * DAY)
    builder = builder.add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.CLIENT_AUTH]), critical=False)
    cert_file, key_file = folder / "forged.pem", folder / "forged.key"
    cert_file.write_bytes(builder.sign(own if signed_by_us else key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM))
    key_file.write_bytes(key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()))
    return cert_file, key_file


def shown_by(plant: Running) -> str:
    """The fingerprint of the certificate that a new handshake sees."""
    pem = ssl.get_server_certificate(("localhost", plant.port))
    return x509.load_pem_x509_certificate(pem.encode()).fingerprint(hashes.SHA256()).hex()


async def test_whoever_has_a_certificate_enters_with_the_role_it_was_given(plant: Running, tmp_path: Path) -> None:
    """And with no more: the names in the request, here an administrator's, are not taken."""
    engineer = await plant.as_role(Role.ENGINEER)
    told = await certificate_of(plant, tmp_path, "historian", engineer)
    caller = with_certificate(plant, tmp_path / "historian.pem", tmp_path / "historian.key")
    assert (await caller.get("/api/v1/gateway")).status_code == 200
    assert (await caller.get("/api/v1/certificates")).status_code == 403
    subject = x509.load_pem_x509_certificate((tmp_path / "historian.pem").read_bytes()).subject.rfc4514_string()
    assert (told["state"], subject) == ("good", "CN=historian")
    listed = (await engineer.get("/api/v1/certificates", params={"purpose": "principal"})).json()["items"]
    assert [each["serial"] for each in listed] == [told["serial"]]


async def test_a_revoked_certificate_does_not_get_in(plant: Running, tmp_path: Path) -> None:
    """N8: neither over a connection that it has already, nor by a new one; and the list that everybody may read says so."""
    engineer = await plant.as_role(Role.ENGINEER)
    told = await certificate_of(plant, tmp_path, "historian", engineer)
    caller = with_certificate(plant, tmp_path / "historian.pem", tmp_path / "historian.key")
    assert (await caller.get("/api/v1/gateway")).status_code == 200
    answer = await engineer.post(f"/api/v1/certificates/{told['serial']}/revocation", json={"reason": "key_compromise"})
    assert (answer.status_code, answer.json()["state"]) == (200, "revoked")
    assert (await caller.get("/api/v1/gateway")).status_code == 401
    async with asyncio.timeout(20):
        while not await refused_in_the_handshake(plant, tmp_path / "historian.pem", tmp_path / "historian.key"):  # noqa: ASYNC110 - seen from outside
            await asyncio.sleep(0.05)
    listed = x509.load_der_x509_crl((await plant.client().get("/api/v1/authority/crl")).content)
    found = listed.get_revoked_certificate_by_serial_number(int(str(told["serial"]), 16))
    assert found is not None
    assert listed.is_signature_valid(plant.appliance.authority.own.public_key())  # type: ignore[arg-type]  # it is ours: ECDSA


async def test_a_certificate_that_is_not_good_does_not_get_in(plant: Running, tmp_path: Path) -> None:
    """N8: ended, not yet good, self-signed, of another authority: refused in the handshake. One that the authority has signed and that
    nobody was granted opens nothing."""
    for begins, ends, ours in ((-10, -1, True), (1, 10, True), (-1, 1, False)):
        make = functools.partial(forged, plant, tmp_path, begins=begins, ends=ends, signed_by_us=ours)
        cert, key = await asyncio.to_thread(make)
        assert await refused_in_the_handshake(plant, cert, key), (begins, ends, ours)
    pki = await asyncio.to_thread(make_pki, tmp_path / "pki")
    assert await refused_in_the_handshake(plant, pki.client.cert_file, pki.client.key_file)
    cert, key = await asyncio.to_thread(lambda: forged(plant, tmp_path))
    assert (await with_certificate(plant, cert, key).get("/api/v1/gateway")).status_code == 401


async def test_openssl_verifies_what_was_issued_and_what_was_revoked(plant: Running, tmp_path: Path) -> None:
    """A stranger's tool agrees: the chain holds, and with the list it does not."""
    engineer, nobody = await plant.as_role(Role.ENGINEER), plant.client()
    told = await certificate_of(plant, tmp_path, "historian", engineer)
    ca, crl = tmp_path / "ca.pem", tmp_path / "crl.pem"
    ca.write_bytes((await nobody.get("/api/v1/authority/certificate")).content)

    async def verified() -> str:
        crl.write_bytes((await nobody.get("/api/v1/authority/crl", params={"form": "pem"})).content)
        command = [str(OPENSSL), "verify", "-crl_check", "-CAfile", str(ca), "-CRLfile", str(crl), "-purpose", "sslclient"]
        child = await asyncio.create_subprocess_exec(
            *command, str(tmp_path / "historian.pem"), stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT
        )
        return (await child.communicate())[0].decode()

    assert "OK" in await verified()
    await engineer.post(f"/api/v1/certificates/{told['serial']}/revocation", json={})
    assert "certificate revoked" in await verified()


async def test_the_apis_own_certificate_is_renewed_while_it_runs(plant: Running) -> None:
    """New handshakes see the new one, and an open connection is not disturbed."""
    engineer = await plant.as_role(Role.ENGINEER)
    before = (await engineer.get("/api/v1/authority/api-certificate")).json()
    renewed = (await engineer.post("/api/v1/authority/api-certificate/renewal")).json()
    assert renewed["fingerprint"] != before["fingerprint"]

    async with asyncio.timeout(20):
        while await asyncio.to_thread(shown_by, plant) != renewed["fingerprint"]:  # noqa: ASYNC110 - seen from outside
            await asyncio.sleep(0.05)
    assert (await engineer.get("/api/v1/gateway")).status_code == 200
    assert (await plant.client().get("/healthz")).status_code == 200


async def test_no_handshake_fails_while_the_certificate_changes(plant: Running) -> None:
    engineer, context = await plant.as_role(Role.ENGINEER), plant.context
    over = asyncio.Event()

    async def knock() -> int:
        count = 0
        while not over.is_set():
            async with httpx.AsyncClient(base_url=plant.url, verify=context, timeout=20) as nobody:
                assert (await nobody.get("/healthz")).status_code == 200
            count += 1
        return count

    knocking = [asyncio.create_task(knock()) for _ in range(4)]
    for _ in range(10):
        assert (await engineer.post("/api/v1/authority/api-certificate/renewal")).status_code == 200
        await asyncio.sleep(0.05)  # so that handshakes come between
    over.set()
    assert sum(await asyncio.gather(*knocking)) > 10


async def test_one_renews_for_the_same_name_and_the_old_one_stays_good_until_revoked(plant: Running, tmp_path: Path) -> None:
    engineer = await plant.as_role(Role.ENGINEER)
    told = await certificate_of(plant, tmp_path, "historian", engineer)
    csr = await asyncio.to_thread(request_of, tmp_path, "second")
    renewed = await engineer.post(f"/api/v1/certificates/{told['serial']}/renewal", json={"csr": csr})
    assert renewed.status_code == 201
    (tmp_path / "second.pem").write_text(renewed.json()["pem"])
    for name in ("historian", "second"):
        caller = with_certificate(plant, tmp_path / f"{name}.pem", tmp_path / f"{name}.key")
        assert (await caller.get("/api/v1/gateway")).status_code == 200


async def test_nobody_gives_away_more_than_they_have(plant: Running, tmp_path: Path) -> None:
    csr = await asyncio.to_thread(request_of, tmp_path, "x")
    body = {"csr": csr, "name": "x", "role": "administrator"}
    assert (await (await plant.as_role(Role.ENGINEER)).post("/api/v1/certificates", json=body)).status_code == 403
    narrow = await plant.as_role(Role.ADMINISTRATOR, scopes=frozenset({Permission.MANAGE_CERTIFICATES}))
    assert (await narrow.post("/api/v1/certificates", json={**body, "role": "viewer"})).status_code == 403
    tenant = await plant.as_role(Role.ADMINISTRATOR, TENANT)
    assert (await tenant.post("/api/v1/certificates", json={**body, "role": "viewer"})).status_code == 403
    assert (await (await plant.as_role(Role.TECHNICIAN)).get("/api/v1/certificates")).status_code == 403


async def test_a_request_that_is_none_or_weak_is_refused_with_its_reason(plant: Running, tmp_path: Path) -> None:
    engineer = await plant.as_role(Role.ENGINEER)
    good = await asyncio.to_thread(request_of, tmp_path, "x")
    weak = await asyncio.to_thread(request_of, tmp_path, "weak", "rsa:1024")
    lines = good.splitlines()
    lines[3] = lines[3][:10] + ("A" if lines[3][10] != "A" else "B") + lines[3][11:]
    for csr, why in (
        (weak, "1024 bits"),
        ("\n".join(lines), ""),
        ("-----BEGIN", ""),
        ("x" * 16385, ""),
        (good.replace("REQUEST", "X"), ""),
    ):
        answer = await engineer.post("/api/v1/certificates", json={"csr": csr, "name": "x", "role": "viewer"})
        assert answer.status_code == 400
        assert why in answer.json()["detail"]


async def test_one_brings_ones_own_certificate_and_ones_own_clients(
    server: LibmodbusServer, tmp_path: Path, free_port: Callable[[], int], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """cert_file, key_file and client_ca_file; a new pair in the files is taken over, and of one that does not fit nothing is."""
    monkeypatch.setattr(trust, "LOOK_S", 0.05)
    pki, other = await asyncio.to_thread(make_pki, tmp_path / "pki"), await asyncio.to_thread(make_pki, tmp_path / "other")
    site = site_of(server, free_port())
    site["api"] |= {
        "cert_file": str(pki.server.cert_file),
        "key_file": str(pki.server.key_file),
        "client_ca_file": str(pki.ca_file),
    }
    async with gateway(site, tmp_path) as plant:
        context = ssl.create_default_context(cafile=pki.ca_file)
        context.load_cert_chain(pki.client.cert_file, pki.client.key_file)
        caller = plant.client(verify=context)
        assert (await caller.get("/api/v1/gateway")).status_code == 401, "it was not granted"
        engineer = plant.client(await plant.token(Role.ENGINEER), verify=ssl.create_default_context(cafile=pki.ca_file))
        wish = {"certificate": pki.client.cert_file.read_text(), "name": "plant-it"}
        assert (await engineer.post(GRANTS, json={**wish, "role": "administrator"})).status_code == 403, "more than one's own role"
        for wrong in (pki.ca_file.read_text(), wish["certificate"] * 2, "none"):
            assert (await engineer.post(GRANTS, json={**wish, "role": "viewer", "certificate": wrong})).status_code == 400
        granted = (await engineer.post(GRANTS, json={**wish, "role": "viewer"})).json()
        assert (await caller.get("/api/v1/gateway")).status_code == 200
        assert (await caller.get(GRANTS)).status_code == 403
        taken_back = await engineer.post(f"{GRANTS}/{granted['fingerprint']}/revocation")
        assert (granted["state"], taken_back.json()["state"]) == ("good", "revoked")
        assert (await caller.get("/api/v1/gateway")).status_code == 401
        assert (await engineer.post(GRANTS, json={**wish, "role": "viewer"})).status_code == 409, "what was taken back stays so"
        assert [each["name"] for each in (await engineer.get(GRANTS)).json()["items"]] == ["plant-it"]
        before = await asyncio.to_thread(shown_by, plant)
        pki.server.cert_file.write_bytes(other.server.cert_file.read_bytes())  # its key is not there yet
        await until("it was looked at", lambda: "certificate_not_taken_over" in caplog.text)
        assert await asyncio.to_thread(shown_by, plant) == before
        pki.server.key_file.write_bytes(other.server.key_file.read_bytes())
        async with asyncio.timeout(20):
            while await asyncio.to_thread(shown_by, plant) == before:  # noqa: ASYNC110 - seen from outside
                await asyncio.sleep(0.05)


async def test_a_certificate_that_does_not_fit_its_key_is_named(plant: Running, tmp_path: Path) -> None:
    pki, other = await asyncio.to_thread(make_pki, tmp_path / "a"), await asyncio.to_thread(make_pki, tmp_path / "b")
    options = Api(cert_file=str(pki.server.cert_file), key_file=str(other.server.key_file))
    with pytest.raises(Misfit, match=r"server\.pem.*give a PEM certificate and its own key in cert_file and key_file of api"):
        await asyncio.to_thread(trust.Trust(options, plant.appliance._services()).take_over)
