"""API tokens: for programs, scoped and expiring. The secret is told once, when the token is made."""

from __future__ import annotations

from typing import Annotated

import msgspec
from msgspec import Meta

from holdfast.shapes.common import TimeNs
from holdfast.shapes.users import PermissionName, RoleName, TenantName

Scopes = (
    Annotated[
        list[PermissionName],
        Meta(max_length=32, description="Permissions to which it is narrowed; null: all that its role has.", examples=[["see-values"]]),
    ]
    | None
)


class Token(msgspec.Struct, frozen=True, kw_only=True):
    """What is known of a token. Its secret is kept nowhere."""

    id: Annotated[str, Meta(description="Names it, in the audit log too; opens nothing.", examples=["anna~scada"])]
    role: RoleName
    tenant: TenantName = ""
    scopes: Scopes = None
    owner: Annotated[str, Meta(description="User with whom it ends; empty: it belongs to the gateway.", examples=["anna"])] = ""
    expires_ns: TimeNs
    made_by: Annotated[str, Meta(examples=["user:anna"])]
    made_ns: TimeNs
    used_ns: Annotated[int, Meta(description="When it was last used: UTC, nanoseconds since 1970, to the hour; 0: never.")] = 0


class NewToken(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A token to be made, within what whoever makes it may do."""

    name: Annotated[
        str,
        Meta(
            pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}(?!\n)$",
            max_length=64,
            description="Letters, digits, . _ and -; unique among one's own.",
            examples=["scada"],
        ),
    ]
    role: RoleName
    tenant: TenantName = ""
    scopes: Scopes = None
    days: Annotated[int, Meta(ge=1, le=3650, description="How long it is good; the site says what is the most.", examples=[90])] = 90
    machine: Annotated[
        bool, Meta(description="It belongs to the gateway and outlives whoever made it; administrators make such.", examples=[False])
    ] = False


class IssuedToken(msgspec.Struct, frozen=True, kw_only=True):
    """A token that was made, and its secret, this once."""

    secret: Annotated[str, Meta(description="Send it as Authorization: Bearer SECRET.", examples=["hft_..."])]
    token: Token
