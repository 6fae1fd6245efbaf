"""Signing in and out, one's own account, and how the first administrator is made."""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec
from msgspec import Meta

from holdfast.shapes.common import TimeNs
from holdfast.shapes.users import Password, PermissionName, RoleName, TenantName, UserName

Form = Annotated[
    Literal["bearer", "cookie"],
    Meta(
        description="bearer: the answer holds a token, for programs. cookie: it sets a cookie that no script can read, for browsers.",
        examples=["bearer"],
    ),
]


class SignIn(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Who signs in."""

    name: UserName
    password: Password
    form: Form = "bearer"


class Claim(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The first administrator, with the code that the gateway said in its log."""

    code: Annotated[str, Meta(min_length=1, max_length=64, examples=["7Q2M-0ZKD-W3XA-9T5B"])]
    name: UserName
    password: Password
    form: Form = "bearer"


class Session(msgspec.Struct, frozen=True, kw_only=True):
    """Somebody who has signed in and is known for a while."""

    id: Annotated[str, Meta(description="Names it; opens nothing.", examples=["9f86d081884c7d65"])]
    user: Annotated[str, Meta(examples=["anna"])]
    via: Annotated[Literal["password", "oidc", "claim"], Meta(description="How they signed in.", examples=["password"])]
    address: Annotated[str, Meta(description="From where.", examples=["192.0.2.7"])]
    began_ns: TimeNs
    left_s: Annotated[float, Meta(description="It ends after so many seconds if nobody uses it.", examples=[1800.0])]


class SignedIn(msgspec.Struct, frozen=True, kw_only=True):
    """A session has begun."""

    token: Annotated[
        str | None, Meta(description="Send it as Authorization: Bearer TOKEN; null where a cookie was set.", examples=["hfs_..."])
    ] = None
    session: Session


class Account(msgspec.Struct, frozen=True, kw_only=True):
    """Who asks, and what they may do."""

    name: Annotated[str, Meta(examples=["anna"])]
    kind: Annotated[
        Literal["user", "token", "certificate", "local"], Meta(description="What they showed of themselves.", examples=["user"])
    ]
    role: RoleName
    tenant: TenantName = ""
    permissions: list[PermissionName]
    session: Annotated[Session | None, Meta(description="The session of this request; null without one.")] = None


class PasswordChange(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One's own password. Every other session of the user ends."""

    old: Password
    new: Password
