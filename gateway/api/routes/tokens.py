"""API tokens: one's own, and for administrators of the gateway everybody's. The secret is told once."""

from __future__ import annotations

from operator import attrgetter
from typing import Annotated, Final

from litestar.params import JSONBody, Parameter, QueryParameter

from gateway.api.operation import Asked, Given, Reach, delete, get, note, post
from gateway.api.paging import Cursor, Limit, page
from gateway.api.services import Services
from gateway.identity import tokens
from gateway.identity.principal import Permission, Role
from holdfast.shapes.common import Page
from holdfast.shapes.tokens import IssuedToken, NewToken, Token

TokenId = Annotated[str, Parameter(max_length=200, description="Id of the token.")]
Everybodys = Annotated[bool, QueryParameter(name="all", description="Everybody's; for administrators of the gateway.")]
_OWN: Final = {"permission": Permission.OWN_ACCOUNT, "reach": Reach.OWN, "tag": "tokens"}


@get("/tokens", id="list_tokens", summary="One's own tokens, or everybody's", **_OWN)
async def list_tokens(
    services: Given, request: Asked, everybodys: Everybodys = False, limit: Limit = 100, cursor: Cursor = None
) -> Page[Token]:
    """Tokens by id, without their secrets."""
    some = services.identity.accounts.tokens_of(request.user, everybodys=everybodys)
    return page(some, attrgetter("id"), lambda one: shown(services, one), limit=limit, cursor=cursor)


@post("/tokens", id="create_token", summary="Make a token", problems=(409,), idempotency=False, **_OWN)
async def create_token(services: Given, request: Asked, data: JSONBody[NewToken]) -> IssuedToken:
    """Its secret is in this answer and nowhere else. A token never reaches further than whoever makes it, and ends with them, unless
    an administrator makes it for a machine."""
    scopes = None if data.scopes is None else frozenset(Permission(each) for each in data.scopes)
    note(request, on=f"token:{data.name}", after={"role": data.role, "tenant": data.tenant, "scopes": data.scopes, "days": data.days})
    secret, token = await services.identity.accounts.make_token(
        request.user, data.name, Role(data.role), tenant=data.tenant, scopes=scopes, days=data.days, machine=data.machine
    )
    note(request, on=f"token:{token.id}", after={"role": data.role, "tenant": token.tenant, "scopes": data.scopes, "days": data.days})
    return IssuedToken(secret=secret, token=shown(services, token))


@delete("/tokens/{token:str}", id="revoke_token", summary="Revoke a token: one's own, or an administrator anybody's", **_OWN)
async def revoke_token(services: Given, request: Asked, token: TokenId) -> None:
    """It opens nothing any more once this is answered."""
    note(request, on=f"token:{token}")
    await services.identity.accounts.revoke_token(request.user, token)


OPERATIONS: Final = (list_tokens, create_token, revoke_token)


def shown(services: Services, token: tokens.Token) -> Token:
    return Token(
        id=token.id,
        role=token.role.value,
        tenant=token.tenant,
        scopes=None if token.scopes is None else [each.value for each in sorted(token.scopes)],
        owner=token.owner,
        expires_ns=token.expires_ns,
        made_by=token.made_by,
        made_ns=token.made_ns,
        used_ns=services.identity.tokens.used_ns(token.id),
    )
