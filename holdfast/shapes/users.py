"""Users: people with a password who are known to the gateway itself, and what roles and permissions there are."""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec
from msgspec import UNSET, Meta, UnsetType

from holdfast.shapes.common import TimeNs

RoleName = Annotated[
    Literal["viewer", "operator", "technician", "engineer", "administrator"],
    Meta(description="Each may do what the one before may: see docs/reference/permissions.md.", examples=["operator"]),
]
PermissionName = Annotated[
    Literal[
        "see-status",
        "see-values",
        "see-commands",
        "own-account",
        "command",
        "lock-out",
        "diagnose",
        "commission",
        "repair",
        "see-configuration",
        "configure",
        "manage-certificates",
        "support",
        "see-audit",
        "manage-users",
    ],
    Meta(description="What an operation needs.", examples=["see-values"]),
]
UserName = Annotated[
    str,
    Meta(
        pattern=r"^[a-z0-9][a-z0-9._-]{0,63}(?!\n)$",
        max_length=64,
        description="Small letters, digits, . _ and -, beginning with a letter or digit.",
        examples=["anna"],
    ),
]
Password = Annotated[
    str, Meta(min_length=1, max_length=1024, description="12 to 128 characters.", examples=["correct horse battery staple"])
]
TenantName = Annotated[
    str, Meta(max_length=128, description="Tenant of the site to which it is bound; empty: the whole gateway.", examples=[""])
]


class User(msgspec.Struct, frozen=True, kw_only=True):
    """Somebody who may sign in with a password."""

    name: Annotated[str, Meta(examples=["anna"])]
    role: RoleName
    tenant: TenantName = ""
    disabled: Annotated[bool, Meta(description="Whether the user is shut out.")] = False
    locked: Annotated[bool, Meta(description="Whether somebody tried too often to sign in as this user, and has to wait.")] = False
    made_by: Annotated[str, Meta(examples=["user:otto"])]
    made_ns: TimeNs
    password_ns: Annotated[int, Meta(description="When the password was last set: UTC, nanoseconds since 1970.")]


class NewUser(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A user to be added."""

    name: UserName
    role: RoleName
    password: Password
    tenant: TenantName = ""


class UserChange(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What to change of a user; what is left out stays as it is. Sessions of the user end."""

    role: RoleName | UnsetType = UNSET
    tenant: TenantName | UnsetType = UNSET
    disabled: Annotated[bool, Meta(examples=[True])] | UnsetType = UNSET


class NewPassword(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A password for a user. Their sessions end."""

    password: Password
