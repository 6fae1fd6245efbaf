"""Signing in at an identity provider: a real one, and one that lies."""

from __future__ import annotations

import base64
import hmac
import json
import ssl
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Final

import httpx
import pytest
import pytest_asyncio
from joserfc import jwt
from joserfc.jwk import ECKey

from tests.gateway.api.conftest import TENANT, Running
from tests.gateway.identity.rig import PASSWORD, Ahead, bare
from tests.peers.certificates import Pki, make_pki
from tests.peers.oidc import CLIENT, SECRET, Forger, OidcProvider
from tests.peers.opcua import free_port

pytestmark = pytest.mark.asyncio(loop_scope="module")

USERS = {
    "00001": {"preferred_username": "Anna Arendt", "groups": ["staff", "ot-engineers"]},
    "00002": {"preferred_username": "otto", "groups": ["staff", "builders"]},
    "00003": {"preferred_username": "guest", "groups": ["guests"]},
}
ROLES = [
    {"value": "staff", "role": "viewer", "tenant": TENANT},
    {"value": "ot-engineers", "role": "engineer"},
    {"value": "builders", "role": "technician", "tenant": TENANT},
]
CALLBACK = "/api/v1/session/oidc/callback"


@pytest.fixture(scope="module")
def pki(tmp_path_factory: pytest.TempPathFactory) -> Pki:
    return make_pki(tmp_path_factory.mktemp("pki"))


@asynccontextmanager
async def trusting(folder: Path, issuer: str, port: int, pki: Pki, clock: Ahead | None = None, **more: Any) -> AsyncIterator[Running]:
    """A gateway that lets ``issuer`` say who is who."""
    secret = folder / "client.secret"
    secret.write_text(SECRET)
    oidc = {
        "issuer": issuer,
        "client_id": CLIENT,
        "client_secret": {"from": "file", "path": str(secret)},
        "redirect_uri": f"https://localhost:{port}{CALLBACK}",
        "roles": ROLES,
        "ca_file": str(pki.ca_file),
        "scopes": ["openid", "profile", "groups"],
        **more,
    }
    async with bare(folder, clock, port=port, oidc=oidc) as running:
        yield running


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def one(tmp_path_factory: pytest.TempPathFactory, pki: Pki) -> AsyncIterator[Running]:
    """A gateway beside oidc-provider."""
    port = free_port()
    async with (
        OidcProvider(pki, f"https://localhost:{port}{CALLBACK}", USERS) as provider,
        trusting(tmp_path_factory.mktemp("oidc"), provider.issuer, port, pki) as running,
    ):
        yield running


async def at_the_provider(pki: Pki, location: str, person: str) -> str:
    """Go where the gateway sends a browser, sign in there as ``person``; where the provider sends it back to."""
    context = ssl.create_default_context(cafile=pki.ca_file)
    async with httpx.AsyncClient(verify=context, timeout=20) as browser:
        answer = await browser.get(location + f"&login_hint={person}")
        while CALLBACK not in (where := answer.headers["location"]):
            answer = await browser.get(answer.url.join(where))
    return where


async def sign_in(one: Running, pki: Pki, person: str, form: str = "cookie") -> tuple[httpx.AsyncClient, httpx.Response]:
    browser = one.client()
    sent = await browser.get("/api/v1/session/oidc", params={"form": form})
    assert sent.status_code == 302, sent.text
    back = await at_the_provider(pki, sent.headers["location"], person)
    return browser, await browser.get(back)


async def test_a_person_signs_in_at_the_provider_with_the_role_of_their_groups(one: Running, pki: Pki) -> None:
    browser, answer = await sign_in(one, pki, "00001")
    assert (answer.status_code, answer.json()["token"]) == (200, None)
    account = (await browser.get("/api/v1/session")).json()
    assert (account["name"], account["role"], account["tenant"]) == ("oidc~Anna Arendt", "engineer", "")
    assert account["session"]["via"] == "oidc"
    own = await browser.post("/api/v1/tokens", json={"name": "own", "role": "viewer"}, headers={"X-Holdfast": "1"})
    assert own.status_code == 403  # nothing here would end it when the account ends at the provider


async def test_a_group_of_a_tenant_binds_to_it_and_a_program_gets_a_token(one: Running, pki: Pki) -> None:
    _, answer = await sign_in(one, pki, "00002", "bearer")
    otto = one.client(answer.json()["token"])
    account = (await otto.get("/api/v1/session")).json()
    assert (account["role"], account["tenant"]) == ("technician", TENANT)


async def test_who_has_no_group_of_the_site_is_nobody(one: Running, pki: Pki) -> None:
    browser, answer = await sign_in(one, pki, "00003")
    assert answer.status_code == 403
    assert (await browser.get("/api/v1/session")).status_code == 401


async def test_what_comes_back_counts_once_and_for_the_browser_that_began(one: Running, pki: Pki) -> None:
    browser, other = one.client(), one.client()
    sent = await browser.get("/api/v1/session/oidc")
    cookie = sent.headers["set-cookie"]
    assert {"HttpOnly", "Secure", "SameSite=lax"} <= {part.strip() for part in cookie.split(";")}
    back = await at_the_provider(pki, sent.headers["location"], "00001")
    stolen = await other.get(back)
    assert stolen.status_code == 401
    assert (await browser.get(back)).status_code == 401  # it was used up
    _, answer = await sign_in(one, pki, "00001")
    assert (await browser.get(str(answer.url))).status_code == 401


async def test_a_state_that_nobody_began_and_a_refusal_of_the_provider_are_told(one: Running) -> None:
    for query in ("state=made-up&code=x", "error=access_denied&state=x", ""):
        answer = await one.client().get(f"{CALLBACK}?{query}")
        assert answer.status_code == 401, query
        assert answer.headers["content-type"] == "application/problem+json"


# A provider that lies


KEY = ECKey.generate_key("P-256", {"kid": "one", "use": "sig", "alg": "ES256"})
STRANGER = ECKey.generate_key("P-256", {"kid": "one"})


def signed(forger: Forger, asked: str, key: Any = KEY, alg: str = "ES256", **claims: Any) -> str:
    now = int(time.time())
    base = {"iss": forger.issuer, "aud": CLIENT, "sub": "00001", "nonce": asked, "iat": now, "exp": now + 300, "groups": ["ot-engineers"]}
    return jwt.encode({"alg": alg, "kid": "one"}, {key: value for key, value in {**base, **claims}.items() if value is not None}, key)


def unsigned(forger: Forger, nonce: str) -> str:
    _, payload, _ = signed(forger, nonce).split(".")
    return b64(json.dumps({"alg": "none"}).encode()) + f".{payload}."


def b64(content: bytes) -> str:
    return base64.urlsafe_b64encode(content).decode().rstrip("=")


def shared_key(forger: Forger, nonce: str) -> str:
    """HMAC with the provider's public key as the secret: CVE-2015-9256 and its kin."""
    payload = signed(forger, nonce).split(".")[1]
    content = f"{b64(json.dumps({'alg': 'HS256', 'kid': 'one'}).encode())}.{payload}"
    mac = hmac.digest(KEY.as_pem(private=False), content.encode(), "sha256")
    return f"{content}.{b64(mac)}"


FORGED: Final[dict[str, Callable[[Forger, str], str]]] = {
    "another issuer": lambda f, n: signed(f, n, iss="https://evil.example.com"),
    "another audience": lambda f, n: signed(f, n, aud="somebody-else"),
    "two audiences and another party": lambda f, n: signed(f, n, aud=[CLIENT, "other"], azp="other"),
    "another nonce": lambda f, n: signed(f, "made-up"),
    "no nonce": lambda f, n: signed(f, n, nonce=None),
    "expired": lambda f, n: signed(f, n, iat=int(time.time()) - 900, exp=int(time.time()) - 600),
    "no end": lambda f, n: signed(f, n, exp=None),
    "from the future": lambda f, n: signed(f, n, iat=int(time.time()) + 900, exp=int(time.time()) + 1200),
    "no subject": lambda f, n: signed(f, n, sub=None),
    "another key": lambda f, n: signed(f, n, STRANGER),
    "alg none": unsigned,
    "a shared key": shared_key,
    "rubbish": lambda f, n: "a.b.c",
    "a signature that is cut": lambda f, n: signed(f, n)[:-8],
}


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def forger(pki: Pki) -> AsyncIterator[Forger]:
    async with Forger(pki, {"keys": [KEY.as_dict(private=False)]}) as one:
        yield one


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def lied_to(tmp_path_factory: pytest.TempPathFactory, pki: Pki, forger: Forger) -> AsyncIterator[Running]:
    async with trusting(tmp_path_factory.mktemp("lied-to"), forger.issuer, free_port(), pki, timeout_s=3) as running:
        yield running


async def come_back(lied_to: Running, forger: Forger) -> httpx.Response:
    browser = lied_to.client()
    sent = await browser.get("/api/v1/session/oidc")
    state = forger.sent(sent.headers["location"])
    return await browser.get(CALLBACK, params={"state": state, "code": "x"})


async def test_a_right_token_of_that_provider_is_taken(lied_to: Running, forger: Forger) -> None:
    forger.token = lambda nonce: signed(forger, nonce)
    assert (await come_back(lied_to, forger)).status_code == 200


@pytest.mark.parametrize("how", FORGED)
async def test_a_token_that_is_wrong_is_refused(lied_to: Running, forger: Forger, how: str) -> None:
    forger.token = lambda nonce: FORGED[how](forger, nonce)
    answer = await come_back(lied_to, forger)
    assert answer.status_code == 401, answer.text
    assert "set-cookie" not in answer.headers


@pytest.mark.parametrize(
    ("raw", "status"),
    [
        (b"HTTP/1.1 302 Found\r\nLocation: file:///etc/passwd\r\nContent-Length: 0\r\n\r\n", 503),
        (b"HTTP/1.1 302 Found\r\nLocation: http://127.0.0.1/\r\nContent-Length: 0\r\n\r\n", 503),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 10000000\r\n\r\n" + b"x" * 600_000, 503),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n[]", 503),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n" + b"[" * 100_000, 503),
        (b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n", 401),
        (b"rubbish\r\n\r\n", 503),
    ],
)
async def test_a_provider_that_answers_nonsense_is_told_of_and_nothing_breaks(
    lied_to: Running, forger: Forger, raw: bytes, status: int
) -> None:
    forger.raw["/token"] = raw
    assert (await come_back(lied_to, forger)).status_code == status
    del forger.raw["/token"]
    assert (await lied_to.client().get("/healthz")).status_code == 200


async def test_without_a_provider_there_is_none_and_one_that_is_away_is_told_of(tmp_path: Path, pki: Pki) -> None:
    async with bare(tmp_path / "none") as without:
        assert (await without.client().get("/api/v1/session/oidc")).status_code == 404
    (tmp_path / "away").mkdir()
    async with trusting(tmp_path / "away", f"https://localhost:{free_port()}", free_port(), pki, timeout_s=3) as alone:
        assert (await alone.client().get("/api/v1/session/oidc")).status_code == 503
        assert (await alone.client().post("/api/v1/session", json={"name": "x", "password": PASSWORD})).status_code == 401
