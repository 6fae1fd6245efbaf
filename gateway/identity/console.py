"""Answers to those who have a shell on the gateway: users and tokens without the API. Each change is in the audit log."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from typing import Any, Final

import msgspec

from gateway.audit import Audit
from gateway.identity import questions
from gateway.identity.accounts import must_be_new
from gateway.identity.identity import Identity
from gateway.identity.principal import Principal, Role
from gateway.identity.tokens import Token
from gateway.identity.users import User
from gateway.objections import Objection, Unfit

Lines = AsyncGenerator[dict[str, Any], None]  # Any: JSON

SHELL: Final = Principal(name="shell", kind="local", role=Role.ADMINISTRATOR)
"""Root, or the service's own user."""


async def answer(identity: Identity, audit: Audit, request: questions.OfIdentity) -> Lines:
    """The lines that answer ``request``. Raises Objection."""
    await identity.open()
    if isinstance(request, questions.ListTokens):
        for token in identity.tokens.all():
            yield shown_token(token, identity.tokens.used_ns(token.id))
    elif isinstance(request, questions.ListUsers):
        for user in identity.users.all():
            yield {**shown_user(user), "locked": identity.attempts.locked(user.name)}
    else:
        yield await _changed(identity, audit, request)


async def _changed(identity: Identity, audit: Audit, request: Any) -> dict[str, Any]:  # Any: one of those that change something
    action = request.__struct_config__.tag.replace("-", "_")
    on = getattr(request, "name", getattr(request, "id", ""))
    try:
        said: dict[str, Any] = await _TABLE[type(request)](identity, request)  # Any: JSON
    except Objection as objection:
        audit.record(who=SHELL.called, action=action, outcome="refused", source="console", on=on, detail=objection.detail)
        if isinstance(objection, Unfit):
            faults = "; ".join(f"{one.path}: {one.message} ({one.advice})" for one in objection.problems)
            raise Unfit(f"{objection.detail}: {faults}", objection.advice) from objection
        raise
    after = {name: value for name, value in said.items() if name not in ("token", "code")}
    audit.record(who=SHELL.called, action=action, outcome="done", source="console", on=on, after=after)
    return said


async def _issue(identity: Identity, asked: questions.IssueToken) -> dict[str, Any]:  # Any: JSON, as below
    secret, token = await identity.accounts.make_token(
        SHELL, asked.name, asked.role, tenant=asked.tenant, scopes=asked.scopes, days=asked.days, machine=True
    )
    return {"token": secret, **shown_token(token, 0)}


async def _revoke(identity: Identity, asked: questions.RevokeToken) -> dict[str, Any]:
    return shown_token(await identity.accounts.revoke_token(SHELL, asked.id), identity.tokens.used_ns(asked.id))


async def _add(identity: Identity, asked: questions.AddUser) -> dict[str, Any]:
    return shown_user(await identity.accounts.add_user(SHELL, asked.name, asked.password, asked.role, asked.tenant))


async def _change(identity: Identity, asked: questions.ChangeUser) -> dict[str, Any]:
    changed = await identity.accounts.change_user(SHELL, asked.name, role=asked.role, tenant=asked.tenant, disabled=asked.disabled)
    return shown_user(changed)


async def _remove(identity: Identity, asked: questions.RemoveUser) -> dict[str, Any]:
    return {"name": asked.name, "tokens_revoked": await identity.accounts.remove_user(SHELL, asked.name)}


async def _password(identity: Identity, asked: questions.SetPassword) -> dict[str, Any]:
    return shown_user(await identity.accounts.set_password(SHELL, asked.name, asked.password))


async def _unlock(identity: Identity, asked: questions.Unlock) -> dict[str, Any]:
    return shown_user(identity.accounts.unlock(SHELL, asked.name))


async def _claim(identity: Identity, _: questions.MakeClaim) -> dict[str, Any]:
    must_be_new(identity.users)
    return {"code": identity.claims.make()}


_TABLE: Final[dict[type, Any]] = {  # Any: each takes its own question
    questions.IssueToken: _issue,
    questions.RevokeToken: _revoke,
    questions.AddUser: _add,
    questions.ChangeUser: _change,
    questions.RemoveUser: _remove,
    questions.SetPassword: _password,
    questions.Unlock: _unlock,
    questions.MakeClaim: _claim,
}


def shown_token(token: Token, used_ns: int) -> dict[str, Any]:
    """All that is known of a token but its digest."""
    shown: dict[str, Any] = msgspec.to_builtins(token)
    shown.pop("digest")
    return {**shown, "scopes": None if token.scopes is None else sorted(token.scopes), "used_ns": used_ns}


def shown_user(user: User) -> dict[str, Any]:
    """All that is known of a user but the digest of the password."""
    shown: dict[str, Any] = msgspec.to_builtins(user)
    shown.pop("digest")
    return shown
