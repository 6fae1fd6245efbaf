"""Who is who: from what a caller shows to a principal. Secrets are kept as digests; what was shown appears nowhere.

Users, tokens and certificates are read from the state once, when somebody first asks, and held in memory: a request costs no
disk. Every change goes through here, so what is held is what is true. Signing in is slow on purpose and counted.
"""

from __future__ import annotations

import asyncio
import importlib
from collections.abc import Callable
from typing import TYPE_CHECKING, Final, Literal

import msgspec
import structlog

from gateway.audit import Audit
from gateway.config.model import Site
from gateway.identity import sessions, tokens
from gateway.identity.accounts import Accounts, must_be_new
from gateway.identity.attempts import Attempts
from gateway.identity.certificates import Certificates
from gateway.identity.claim import Claim
from gateway.identity.passwords import Passwords, must_be_fit
from gateway.identity.principal import Permission, Principal, Role
from gateway.identity.sessions import Session, Sessions, Via
from gateway.identity.tables import MIGRATIONS
from gateway.identity.tokens import Tokens
from gateway.identity.users import Users
from gateway.objections import NotAllowed, NotThere, Unavailable, Unknown
from gateway.state import State
from protocols.clock import Clock

if TYPE_CHECKING:
    from gateway.identity.oidc import Provider

__all__ = ["MIGRATIONS", "Identity", "Shown"]

log = structlog.get_logger("holdfast.identity")

LONGEST_CREDENTIAL: Final = 4096


class Shown(msgspec.Struct, frozen=True, kw_only=True):
    """What a caller shows of itself with one request."""

    address: str
    authorization: str = ""
    """The header of this name (RFC 9110, 11.6.2)."""
    session: str = ""
    """The session cookie."""
    certificate: bytes = b""
    """The client's certificate, DER, whose chain and key TLS has proven; empty where it has none."""


class Identity:
    def __init__(self, state: State, clock: Clock, audit: Audit | None = None, site: Callable[[], Site | None] = lambda: None) -> None:
        """``site`` is the one that runs: it says for how long people are let in, and which tenants there are."""
        self._audit = audit or Audit(clock)
        self._clock = clock
        self._provider: Provider | None = None
        self._opening = asyncio.Lock()
        self._opened = False
        self.users = Users(state, clock)
        self.tokens = Tokens(state, clock)
        self.sessions = Sessions(clock)
        self.certificates = Certificates(state, clock)
        self.attempts = Attempts(clock)
        self.claims = Claim(clock)
        self.passwords = Passwords()
        self.accounts = Accounts(self.users, self.tokens, self.sessions, self.attempts, self.claims, self.passwords, site)

    async def open(self) -> None:
        """Read what is kept, once. Raises Unavailable."""
        async with self._opening:
            if not self._opened:
                for each in (self.users, self.tokens, self.certificates):
                    await each.load()
                self._opened = True

    async def begin(self) -> None:
        """The gateway is about to let people in: where none is an administrator, say a claim code."""
        try:
            await self.open()
        except Unavailable as trouble:
            log.error("nobody_enters", trouble=trouble.detail, advice=trouble.advice)
            return
        if not self.users.ruled and not self.claims.open:
            self.claims.announce()

    async def close(self) -> None:
        """Wait for what is being written."""
        await self.tokens.close()

    async def principal(self, shown: Shown) -> Principal | None:
        """Who shows ``shown``; None where nothing is shown. Raises Unknown where it proves nothing (any more)."""
        if not self._opened:
            await self.open()
        if shown.authorization:
            return self._bearer(shown.authorization)
        if shown.session:
            return self._of_session(shown.session)
        if shown.certificate:
            return self.of_certificate(shown.certificate)
        return None

    def session_of(self, shown: Shown) -> Session | None:
        """The session that is shown, if it goes on."""
        secret = shown.authorization.partition(" ")[2] or shown.session
        return self.sessions.find(secret) if secret.startswith(sessions.PREFIX) and len(secret) <= LONGEST_CREDENTIAL else None

    def of_certificate(self, der: bytes) -> Principal:
        """Who has this certificate, whose chain and key are proven. Raises Unknown: it was not granted, is revoked or has expired."""
        found = self.certificates.find(der)
        if found is None:
            raise _unknown()
        return found

    async def issue_token(
        self, name: str, role: Role, *, tenant: str = "", scopes: frozenset[Permission] | None = None, lifetime_s: float, made_by: str
    ) -> str:
        """A new token that belongs to the gateway, which is told this once. ``name`` is its id, unique."""
        await self.open()
        secret, _ = await self.tokens.add(name, role, tenant, scopes, lifetime_s, "", made_by)
        return secret

    async def sign_in(self, name: str, password: str, address: str) -> tuple[str, Session]:
        """A session of the user ``name``, and its secret. Raises Unknown, the same for whatever is wrong; TooMany."""
        await self.open()
        locks = self._attempt(name, address)
        user = self.users.find(name)
        fits = await self.passwords.fits(password, user.digest if user else None)
        now = self.users.find(name)  # it may have changed meanwhile
        if user is None or now is None or now.digest != user.digest or now.disabled or not fits:
            reason = "no such user" if user is None else "disabled" if now is None or now.disabled else "wrong password"
            self._signed_in(f"user:{name}" if user else "", address, "refused", reason)
            if locks:
                self._audit.record(who="", action="lock_out", outcome="done", source=address, on=f"user:{name}" if user else "")
            raise Unknown("this name and password do not fit", "try again, or ask an administrator")
        self.attempts.succeeded(name, address)
        return self.begin_session(now.principal, "password", address)

    def begin_session(self, principal: Principal, via: Via, address: str, detail: str = "") -> tuple[str, Session]:
        """A session of somebody who has proven who they are, and its secret, which is told this once."""
        access = self.accounts.access
        secret, session = self.sessions.begin(principal, via, address, idle_s=access.session_idle_s, longest_s=access.session_longest_s)
        self._signed_in(principal.called, address, "done", detail or via)
        return secret, session

    async def provider(self) -> Provider:
        """The identity provider of the site. Raises NotThere where it names none."""
        options = self.accounts.oidc
        if options is None:
            raise NotThere("no identity provider is configured", "sign in with a name and a password: POST /api/v1/session")
        if self._provider is None or self._provider.options != options:
            made = await asyncio.to_thread(importlib.import_module, "gateway.identity.oidc")  # what others need not pay for
            self._provider = made.Provider(options, self._clock)
        return self._provider

    async def returned(self, state: str, code: str, binding: str, issuer: str, address: str) -> tuple[str, Session, str]:
        """A session of somebody who comes back from the identity provider, its secret, and the form that was asked for.
        Raises Unknown, NotAllowed, Unavailable, NotThere."""
        await self.open()
        try:
            proven = await (await self.provider()).finish(state, code, binding, issuer)
        except (Unknown, NotAllowed) as refusal:
            self._signed_in("", address, "refused", f"oidc: {refusal.detail}")
            raise
        self.accounts.must_be_tenant(proven.principal.tenant)
        secret, session = self.begin_session(proven.principal, "oidc", address, proven.detail)
        return secret, session, proven.form

    def sign_out(self, session: Session) -> None:
        self.sessions.end(session)
        self._audit.record(who=session.principal.called, action="sign_out", outcome="done", source=session.address)

    async def claim(self, code: str, name: str, password: str, address: str) -> tuple[str, Session]:
        """Make the first administrator, and let them in. Raises Conflict, NotAllowed, Unfit, TooMany."""
        await self.open()
        must_be_new(self.users)
        self._attempt("", address)
        try:
            self.claims.check(code)
        except NotAllowed:
            self._audit.record(who="", action="claim", outcome="refused", source=address, detail="wrong code")
            raise
        must_be_fit(password, name, "holdfast")
        digest = await self.passwords.digest(password)
        self.claims.check(code)  # of two who come at once one is first
        self.claims.close()
        try:
            user = await self.users.add(name, digest, Role.ADMINISTRATOR, "", "claim")
        except BaseException:
            self.claims.reopen()
            raise
        self._audit.record(who=user.principal.called, action="claim", outcome="done", source=address)
        return self.begin_session(user.principal, "claim", address)

    def _attempt(self, name: str, address: str) -> bool:
        return self.attempts.take(name, address)

    def _signed_in(self, who: str, address: str, outcome: Literal["done", "refused"], detail: str) -> None:
        self._audit.record(who=who, action="sign_in", outcome=outcome, source=address, detail=detail)

    def _bearer(self, authorization: str) -> Principal:
        scheme, _, secret = authorization.partition(" ")
        if scheme.lower() != "bearer" or not secret or len(secret) > LONGEST_CREDENTIAL:
            raise _unknown()
        return self._of_session(secret) if secret.startswith(sessions.PREFIX) else self._of_token(secret)

    def _of_session(self, secret: str) -> Principal:
        session = self.sessions.find(secret) if len(secret) <= LONGEST_CREDENTIAL else None
        if session is None:
            raise _unknown()
        return session.principal

    def _of_token(self, secret: str) -> Principal:
        found = self.tokens.find(secret) if secret.startswith(tokens.PREFIX) else None
        if found is None:
            raise _unknown()
        token, principal = found
        if token.owner:
            owner = self.users.find(token.owner)
            if owner is None or owner.disabled:
                raise _unknown()
        return principal


def _unknown() -> Unknown:
    """The same for whatever is wrong: it helps nobody to guess."""
    return Unknown("these credentials are not valid, or no longer", "sign in again, or ask an administrator for a new token")
