"""Signing in at the plant's identity provider: OpenID Connect Core 1.0, authorization code with PKCE (RFC 7636).

What is begun is remembered here for some minutes, once, and only for the browser that began it: state and nonce are of no use to
anybody else, nor twice. The provider is asked over https alone, follows no redirect for us, and may say so much and no more. An ID
token is taken only with a signature by a key that the provider publishes; ``none`` and shared keys are no signatures.

Authlib makes the requests and judges the claims; this module fetches, bounded, and decides who may do what.
"""

from __future__ import annotations

import asyncio
import secrets
import ssl
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

import httpx
import msgspec
import structlog
from authlib.common.errors import AuthlibBaseError  # type: ignore[import-untyped]  # Authlib has no types
from authlib.oauth2.auth import ClientAuth  # type: ignore[import-untyped]  # Authlib has no types
from authlib.oauth2.rfc6749.parameters import prepare_grant_uri, prepare_token_request  # type: ignore[import-untyped]  # Authlib has no types
from authlib.oauth2.rfc7636 import create_s256_code_challenge  # type: ignore[import-untyped]  # Authlib has no types
from authlib.oidc.core import CodeIDToken  # type: ignore[import-untyped]  # Authlib has no types
from joserfc import jwt
from joserfc.errors import JoseError
from joserfc.jwk import KeySet

from gateway.config.api import Oidc
from gateway.identity.accounts import BETWEEN
from gateway.identity.principal import Principal, Role
from gateway.identity.tokens import digest_of
from gateway.objections import NotAllowed, TooMany, Unavailable, Unknown
from protocols.clock import Clock
from protocols.secret import SecretMissing

log = structlog.get_logger("holdfast.identity")

ALGORITHMS: Final = ("RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "EdDSA", "Ed25519")
"""Signatures by a key of the provider's own. ``none`` and HMAC are not among them (RFC 8725, 3.1)."""
BEGUN_S: Final = 600.0
MOST_BEGUN: Final = 1000
MOST_BYTES: Final = 256 * 1024
KNOWN_S: Final = 3600.0
FRESH_S: Final = 30.0
"""Keys are fetched anew for a token whose key is not known, this often at most."""
LEEWAY_S: Final = 60
LONGEST_NAME: Final = 128


class _Metadata(msgspec.Struct, frozen=True):
    """What is used of the discovery document (OpenID Connect Discovery 1.0, 3)."""

    issuer: str
    authorization_endpoint: str
    token_endpoint: str
    jwks_uri: str
    userinfo_endpoint: str = ""


class _Tokens(msgspec.Struct, frozen=True):
    id_token: str
    access_token: str = ""


@dataclass(frozen=True, slots=True)
class Begun:
    """A sign-in that was sent to the provider."""

    url: str
    """Where the browser goes."""
    binding: str
    """What the browser keeps, and shows when it comes back."""


@dataclass(frozen=True, slots=True)
class _Pending:
    binding: str
    nonce: str
    verifier: str
    form: str
    until: float


@dataclass(frozen=True, slots=True)
class Proven:
    """Who came back."""

    principal: Principal
    form: str
    detail: str
    """Issuer and subject, for the audit log."""


class Provider:
    """One identity provider, as the site describes it."""

    def __init__(self, options: Oidc, clock: Clock) -> None:
        self.options = options
        self._clock = clock
        self._pending: dict[str, _Pending] = {}
        self._metadata: tuple[float, _Metadata] | None = None
        self._keys: tuple[float, KeySet] | None = None

    async def begin(self, form: str) -> Begun:
        """Raises Unavailable, TooMany."""
        metadata = await self._discovered()
        self._forget_late()
        if len(self._pending) >= MOST_BEGUN:
            raise TooMany("too many are signing in", "try again in some minutes", retry_after_s=60)
        state, nonce, verifier, binding = (secrets.token_urlsafe(32) for _ in range(4))
        url = prepare_grant_uri(
            metadata.authorization_endpoint,
            client_id=self.options.client_id,
            response_type="code",
            redirect_uri=self.options.redirect_uri,
            scope=" ".join(self.options.scopes),
            state=state,
            nonce=nonce,
            code_challenge=create_s256_code_challenge(verifier),
            code_challenge_method="S256",
        )
        until = self._clock.monotonic() + BEGUN_S
        self._pending[digest_of(state)] = _Pending(digest_of(binding), nonce, verifier, form, until)
        return Begun(url, binding)

    async def finish(self, state: str, code: str, binding: str, issuer: str = "") -> Proven:
        """Who came back with ``code``. Raises Unknown (what came back proves nobody), NotAllowed (no role), Unavailable."""
        pending = self._pending.pop(digest_of(state), None)
        if pending is None or pending.until <= self._clock.monotonic():
            raise Unknown("this sign-in was not begun here, or too long ago", "begin again: GET /api/v1/session/oidc")
        if not secrets.compare_digest(pending.binding, digest_of(binding)):
            raise Unknown("this sign-in was begun by another browser", "begin again: GET /api/v1/session/oidc")
        if issuer and issuer != self.options.issuer:  # RFC 9207
            raise Unknown("another identity provider answered", "begin again: GET /api/v1/session/oidc")
        tokens = await self._exchanged(code, pending.verifier)
        claims = await self._judged(tokens, pending.nonce)
        if self.options.role_claim not in claims and tokens.access_token:
            claims = {**await self._userinfo(tokens.access_token, claims["sub"]), **claims}
        return Proven(principal_of(claims, self.options), pending.form, f"oidc {self.options.issuer} {claims['sub']}"[:500])

    def _forget_late(self) -> None:
        now = self._clock.monotonic()
        self._pending = {state: pending for state, pending in self._pending.items() if pending.until > now}

    async def _discovered(self) -> _Metadata:
        now = self._clock.monotonic()
        if self._metadata is None or now - self._metadata[0] > KNOWN_S:
            body = await self._fetch("GET", self.options.issuer.rstrip("/") + "/.well-known/openid-configuration")
            metadata = _decoded(body, _Metadata, "discovery document")
            if metadata.issuer != self.options.issuer:
                raise Unavailable(
                    f"the identity provider calls itself {metadata.issuer[:200]!r}", "set issuer of oidc to what it calls itself"
                )
            self._metadata = (now, metadata)
        return self._metadata[1]

    async def _exchanged(self, code: str, verifier: str) -> _Tokens:
        metadata = await self._discovered()
        options = self.options
        body = prepare_token_request("authorization_code", "", options.redirect_uri, code=code, code_verifier=verifier)
        headers = {"Content-Type": "application/x-www-form-urlencoded", "Accept": "application/json"}
        method = "none" if options.client_secret is None else "client_secret_basic"
        try:
            secret = "" if options.client_secret is None else await asyncio.to_thread(options.client_secret.read)
        except SecretMissing as missing:
            raise Unavailable(f"the secret of the gateway at the identity provider: {missing}") from missing
        url, headers, body = ClientAuth(options.client_id, secret, method).prepare("POST", metadata.token_endpoint, headers, body)
        told: _Tokens = _decoded(await self._fetch("POST", url, headers, body), _Tokens, "answer with tokens")
        return told

    async def _judged(self, tokens: _Tokens, nonce: str) -> dict[str, Any]:  # Any: JSON, as below
        """The claims of the ID token (OpenID Connect Core 1.0, 3.1.3.7). Raises Unknown."""
        options = self.options
        expected = {"iss": {"essential": True, "value": options.issuer}, "aud": {"essential": True, "value": options.client_id}}
        params = {"nonce": nonce, "client_id": options.client_id, "access_token": tokens.access_token}
        try:
            token = await self._verified(tokens.id_token)
            claims = CodeIDToken(token.claims, token.header, expected, params)
            claims.validate(now=self._clock.time_ns() // 10**9, leeway=LEEWAY_S)
        except (JoseError, AuthlibBaseError, ValueError, TypeError, KeyError) as error:  # all that a token made by others brings about
            log.warning("oidc_token_refused", reason=f"{type(error).__name__}: {error}"[:300])
            raise Unknown("what the identity provider sent proves nobody", "see the log; begin again: GET /api/v1/session/oidc") from error
        return dict(token.claims)

    async def _verified(self, id_token: str) -> jwt.Token:
        """Raises JoseError, ValueError."""
        keys = await self._published(KNOWN_S)
        try:
            return jwt.decode(id_token, keys, algorithms=ALGORITHMS)
        except (JoseError, ValueError):
            fresh = await self._published(FRESH_S)  # the provider may have changed its keys
            if fresh is keys:
                raise
            return jwt.decode(id_token, fresh, algorithms=ALGORITHMS)

    async def _published(self, age_s: float) -> KeySet:
        """Raises JoseError, ValueError, Unavailable."""
        now = self._clock.monotonic()
        if self._keys is None or now - self._keys[0] > age_s:
            body = await self._fetch("GET", (await self._discovered()).jwks_uri)
            self._keys = (now, KeySet.import_key_set(_decoded(body, dict, "set of keys")))
        return self._keys[1]

    async def _userinfo(self, access_token: str, sub: str) -> dict[str, Any]:
        """More claims of the same subject (5.3); none where the provider tells none. Raises Unknown, Unavailable."""
        url = (await self._discovered()).userinfo_endpoint
        if not url:
            return {}
        told: dict[str, Any] = _decoded(await self._fetch("GET", url, {"Authorization": f"Bearer {access_token}"}), dict, "userinfo")
        if told.get("sub") != sub:
            raise Unknown("the identity provider told of somebody else", "begin again: GET /api/v1/session/oidc")
        return told

    async def _fetch(self, method: str, url: str, headers: Mapping[str, str] | None = None, body: str = "") -> bytes:
        """Raises Unavailable where the provider does not answer with 200 in time, or with too much; Unknown where it refuses."""
        if not url.startswith("https://"):
            raise Unavailable(f"the identity provider names {url[:200]!r}, which is not https", "mend the provider")
        try:
            async with asyncio.timeout(self.options.timeout_s), await self._client() as client:
                answer = await client.send(client.build_request(method, url, headers=headers, content=body or None), stream=True)
                content = await _bounded(answer)
        except (httpx.HTTPError, httpx.InvalidURL, OSError, TimeoutError) as error:
            reason = str(error) or type(error).__name__
            raise Unavailable(
                f"the identity provider does not answer ({reason[:300]})", "sign in with a password, or look at oidc in the site"
            ) from error
        if answer.status_code in (400, 401, 403):
            log.warning("oidc_refused", status=answer.status_code, said=content[:300].decode("utf-8", "replace"))
            raise Unknown("the identity provider refused", "see the log; begin again: GET /api/v1/session/oidc")
        if answer.status_code != 200:
            raise Unavailable(f"the identity provider answered {answer.status_code}", "try again; look at oidc in the site")
        return content

    async def _client(self) -> httpx.AsyncClient:
        context = await asyncio.to_thread(ssl.create_default_context, cafile=self.options.ca_file or None)
        return httpx.AsyncClient(verify=context, timeout=self.options.timeout_s, follow_redirects=False, trust_env=False)


def principal_of(claims: Mapping[str, Any], options: Oidc) -> Principal:
    """Who has these claims, with the highest role that they give. Raises NotAllowed where they give none. Pure."""
    held = claims.get(options.role_claim)
    values = {held} if isinstance(held, str) else {each for each in held if isinstance(each, str)} if isinstance(held, list) else set()
    given = [each for each in options.roles if each.value in values]
    called = claims.get(options.name_claim)
    name = called if isinstance(called, str) and _is_name(called) else str(claims["sub"])
    if not given:
        raise NotAllowed(
            f"the identity provider gives {name[:LONGEST_NAME]!r} no role here", "ask for a group that oidc.roles of the site names"
        )
    best = max(given, key=lambda each: (Role(each.role).rank, not each.tenant))
    return Principal(name=f"oidc{BETWEEN}{name[:LONGEST_NAME]}", kind="user", role=Role(best.role), tenant=best.tenant)


def _is_name(text: str) -> bool:
    return 0 < len(text) <= LONGEST_NAME and text.isprintable() and BETWEEN not in text


async def _bounded(answer: httpx.Response) -> bytes:
    content = b""
    async for part in answer.aiter_bytes():
        content += part
        if len(content) > MOST_BYTES:
            raise httpx.DecodingError(f"it says more than {MOST_BYTES} bytes")
    return content


def _decoded(body: bytes, form: Any, what: str) -> Any:  # Any: the Struct that is asked for
    try:
        return msgspec.json.decode(body, type=form)
    except (msgspec.MsgspecError, ValueError, RecursionError) as error:
        raise Unavailable(f"the identity provider's {what} cannot be read ({str(error)[:200]})", "look at oidc in the site") from error
