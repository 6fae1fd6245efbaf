"""Users and tokens are made, changed and ended: by whom, and within what they have themselves. Nobody gives more than they have.

Whatever changes what a user may ends their sessions at once, and their tokens that reach further than they do now.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

import structlog

from gateway.config.api import Access, Oidc
from gateway.config.model import Site
from gateway.identity.attempts import Attempts
from gateway.identity.claim import Claim
from gateway.identity.passwords import Passwords, must_be_fit
from gateway.identity.principal import Permission, Principal, Role
from gateway.identity.sessions import Session, Sessions
from gateway.identity.tokens import Token, Tokens, no_token
from gateway.identity.users import User, Users
from gateway.objections import Conflict, NotAllowed, NotThere, Unfit
from protocols.contract import Problem

log = structlog.get_logger("holdfast.identity")

BETWEEN: Final = "~"
"""Stands between a user's name and what they call their token; in no name that a person chooses."""
DAY_S: Final = 86400.0


class Accounts:
    def __init__(
        self,
        users: Users,
        tokens: Tokens,
        sessions: Sessions,
        attempts: Attempts,
        claim: Claim,
        passwords: Passwords,
        site: Callable[[], Site | None],
    ) -> None:
        self.users = users
        self.tokens = tokens
        self.sessions = sessions
        self.attempts = attempts
        self.claim = claim
        self.passwords = passwords
        self._site = site

    @property
    def access(self) -> Access:
        site = self._site()
        return site.api.access if site is not None and site.api is not None else Access()

    @property
    def oidc(self) -> Oidc | None:
        site = self._site()
        return site.api.oidc if site is not None and site.api is not None else None

    # Users

    async def add_user(self, by: Principal, name: str, password: str, role: Role, tenant: str = "") -> User:
        """Raises Unfit, NotAllowed, Conflict."""
        self._may_give(by, role, tenant, None)
        self.must_be_tenant(tenant)
        must_be_fit(password, *self._guessable(name))
        user = await self.users.add(name, await self.passwords.digest(password), role, tenant, by.called)
        if user.rules:
            self.claim.close()
        return user

    async def change_user(
        self, by: Principal, name: str, *, role: Role | None = None, tenant: str | None = None, disabled: bool | None = None
    ) -> User:
        """Raises NotThere, NotAllowed, Conflict (the last administrator). None leaves as it is."""
        user = self._governed(by, name)
        role = user.role if role is None else role
        if tenant is None:
            tenant = user.tenant
        else:
            self.must_be_tenant(tenant)
        self._may_give(by, role, tenant, None)
        changed = await self.users.change(name, role=role, tenant=tenant, disabled=user.disabled if disabled is None else disabled)
        self.sessions.end_of(name)
        await self.tokens.remove([token.id for token in self.tokens.all() if token.owner == name and not _within(token, changed)])
        return changed

    async def remove_user(self, by: Principal, name: str) -> int:
        """How many tokens ended with the user. Raises NotThere, NotAllowed, Conflict (the last administrator)."""
        self._governed(by, name)
        ids = [token.id for token in self.tokens.all() if token.owner == name]
        await self.users.remove(name)
        self.sessions.end_of(name)
        await self.tokens.remove(ids)
        return len(ids)

    async def set_password(self, by: Principal, name: str, password: str) -> User:
        """Give a user a new password, and let them try again. Raises NotThere, NotAllowed, Unfit."""
        self._governed(by, name)
        must_be_fit(password, *self._guessable(name))
        user = await self._keep_password(name, password)
        self.sessions.end_of(name)
        self.attempts.unlock(name)
        return user

    async def change_password(self, by: Principal, old: str, new: str, *, session: str, address: str) -> None:
        """One's own; every session but ``session`` ends. Raises NotAllowed where ``old`` is not right, Unfit, TooMany."""
        user = self.users.find(by.name) if by.kind == "user" else None
        if user is None:
            raise NotAllowed(f"{by.called} has no password here", "sign in with one, or change it where the account lives")
        self.attempts.take(by.name, address)
        if not await self.passwords.fits(old, user.digest):
            raise NotAllowed("the old password is not right", "ask an administrator to set another one")
        self.attempts.succeeded(by.name, address)
        must_be_fit(new, *self._guessable(by.name))
        await self._keep_password(by.name, new)
        self.sessions.end_of(by.name, but=session)

    async def _keep_password(self, name: str, password: str) -> User:
        digest = await self.passwords.digest(password)
        return await self.users.change(name, digest=digest, password_ns=self.users.now_ns())

    def unlock(self, by: Principal, name: str) -> User:
        """Raises NotThere, NotAllowed."""
        user = self._governed(by, name)
        self.attempts.unlock(name)
        return user

    # Tokens

    async def make_token(
        self, by: Principal, name: str, role: Role, *, tenant: str, scopes: frozenset[Permission] | None, days: float, machine: bool
    ) -> tuple[str, Token]:
        """A new token, and its secret, which is told this once. Raises NotAllowed, Unfit, Conflict."""
        if by.tenant and not tenant:
            tenant = by.tenant
        self._may_give(by, role, tenant, scopes)
        self.must_be_tenant(tenant)
        if days > self.access.token_longest_days:
            fault = Problem("days", f"{days:g} days is longer than tokens live here", f"ask for at most {self.access.token_longest_days}")
            raise Unfit("this token would live too long", "", [fault])
        owner = "" if machine else self._owner(by)
        if machine:
            _must_manage(by, "make a token that belongs to the gateway")
        id = f"{owner}{BETWEEN}{name}" if owner else name
        return await self.tokens.add(id, role, tenant, scopes, days * DAY_S, owner, by.called)

    def tokens_of(self, by: Principal, *, everybodys: bool = False) -> list[Token]:
        """Raises NotAllowed."""
        if everybodys:
            _must_manage(by, "see everybody's tokens")
            return self.tokens.all()
        return [token for token in self.tokens.all() if _is_own(by, token)]

    async def revoke_token(self, by: Principal, id: str) -> Token:
        """Raises NotThere, also for one that ``by`` may not know of."""
        token = self.tokens.get(id)
        if not _is_own(by, token) and not _manages(by):
            raise no_token(id)
        await self.tokens.remove([id])
        return token

    def _owner(self, by: Principal) -> str:
        if by.kind == "user" and self.users.find(by.name) is not None:
            return by.name
        raise NotAllowed(
            f"{by.called} cannot have tokens of its own: nothing here would end them with it",
            "an administrator can make one that belongs to the gateway (machine)",
        )

    # Sessions

    def sessions_of(self, by: Principal, name: str = "") -> list[Session]:
        """Of ``name``, or one's own. Raises NotAllowed."""
        if name:
            _must_manage(by, "see the sessions of others")
        elif by.kind != "user":
            return []
        return [session for session in self.sessions.all() if session.principal.name == (name or by.name)]

    def end_session(self, by: Principal, id: str) -> Session:
        """Raises NotThere, also for one that ``by`` may not know of."""
        for session in self.sessions.all():
            if session.id == id and (_manages(by) or (by.kind == "user" and session.principal.name == by.name)):
                self.sessions.end(session)
                return session
        raise NotThere(f"there is no session {id!r}", "GET /api/v1/sessions lists them")

    # What one may give

    def _governed(self, by: Principal, name: str) -> User:
        """The user, whom ``by`` may change: nobody changes who may do more. Raises NotThere, NotAllowed."""
        user = self.users.get(name)
        self._may_give(by, user.role, user.tenant, None)
        return user

    def _may_give(self, by: Principal, role: Role, tenant: str, scopes: frozenset[Permission] | None) -> None:
        given = {each for each in Permission if Principal(name="", kind="token", role=role, scopes=scopes).may(each)}
        over = sorted(each for each in given if not by.may(each))
        if over:
            raise NotAllowed(f"{by.called} cannot give what it does not have: {', '.join(over)}", "ask somebody who has it")
        if by.tenant and tenant != by.tenant:
            raise NotAllowed(
                f"{by.called} is bound to tenant {by.tenant} and gives nothing beyond it", "ask an administrator of the gateway"
            )

    def must_be_tenant(self, tenant: str) -> None:
        """Raises Unfit where the site has no such tenant; empty is none."""
        site = self._site()
        names = [each.name for each in site.tenants] if site is not None else []
        if tenant and tenant not in names:
            fault = Problem("tenant", f"no tenant is called {tenant!r}", f"there is: {', '.join(names) or 'none'}")
            raise Unfit("this tenant is not there", "tenants stand in the site document", [fault])

    def _guessable(self, name: str) -> list[str]:
        site = self._site()
        return [name, "holdfast", "password", *((site.gateway.name, site.gateway.group) if site is not None else ())]


def _manages(by: Principal) -> bool:
    return by.may(Permission.MANAGE_USERS) and not by.tenant


def _must_manage(by: Principal, what: str) -> None:
    if not _manages(by):
        raise NotAllowed(f"{by.called} may not {what}", "ask an administrator of the gateway")


def _is_own(by: Principal, token: Token) -> bool:
    return (by.kind == "user" and token.owner == by.name) or (by.kind == "token" and token.id == by.name)


def _within(token: Token, user: User) -> bool:
    return token.role.rank <= user.role.rank and (not user.tenant or token.tenant == user.tenant)


def must_be_new(users: Users) -> None:
    """Raises Conflict where there is an administrator already."""
    if users.ruled:
        raise Conflict("this gateway has an administrator already", "sign in, or ask them")
