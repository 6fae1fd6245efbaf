"""What a person with a shell on the gateway asks and changes of users and tokens, without the API: over the control socket.

Whoever may open that socket (root, or the service's own user) could read the state's file as well: they are an administrator.
"""

from __future__ import annotations

from typing import Annotated, Final

import msgspec
from msgspec import Meta

from gateway.identity.principal import Permission, Role

USER_NAME: Final = r"^[a-z0-9][a-z0-9._-]{0,63}(?!\n)$"
TOKEN_NAME: Final = r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}(?!\n)$"
Named = Annotated[str, Meta(pattern=USER_NAME)]
Tenant = Annotated[str, Meta(max_length=128)]
Secret = Annotated[str, Meta(max_length=1024)]


class IssueToken(msgspec.Struct, frozen=True, kw_only=True, tag_field="ask", tag="token-issue"):
    """A token that belongs to the gateway."""

    name: Annotated[str, Meta(pattern=TOKEN_NAME)]
    role: Role
    tenant: Tenant = ""
    scopes: frozenset[Permission] | None = None
    days: Annotated[float, Meta(gt=0, le=3650)] = 90


class ListTokens(msgspec.Struct, frozen=True, tag_field="ask", tag="token-list"):
    """Every token, without its secret."""


class RevokeToken(msgspec.Struct, frozen=True, kw_only=True, tag_field="ask", tag="token-revoke"):
    """It opens nothing any more."""

    id: Annotated[str, Meta(max_length=200)]


class ListUsers(msgspec.Struct, frozen=True, tag_field="ask", tag="user-list"):
    """Every user."""


class AddUser(msgspec.Struct, frozen=True, kw_only=True, tag_field="ask", tag="user-add"):
    """A new user."""

    name: Named
    role: Role
    password: Secret
    tenant: Tenant = ""


class ChangeUser(msgspec.Struct, frozen=True, kw_only=True, tag_field="ask", tag="user-change"):
    """Another role or tenant, shut out or let in again; None leaves as it is."""

    name: Named
    role: Role | None = None
    tenant: Tenant | None = None
    disabled: bool | None = None


class RemoveUser(msgspec.Struct, frozen=True, kw_only=True, tag_field="ask", tag="user-remove"):
    """The user, with sessions and tokens."""

    name: Named


class SetPassword(msgspec.Struct, frozen=True, kw_only=True, tag_field="ask", tag="user-password"):
    """A new password; the user may try again at once."""

    name: Named
    password: Secret


class Unlock(msgspec.Struct, frozen=True, kw_only=True, tag_field="ask", tag="user-unlock"):
    """Whoever tried too often may try again."""

    name: Named


class MakeClaim(msgspec.Struct, frozen=True, tag_field="ask", tag="user-claim"):
    """A new claim code, where there is no administrator."""


OfIdentity = IssueToken | ListTokens | RevokeToken | ListUsers | AddUser | ChangeUser | RemoveUser | SetPassword | Unlock | MakeClaim
