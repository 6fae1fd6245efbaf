"""Who asks, and what they may do: roles, permissions, and the one table that joins them. Pure.

Roles are steps: each may do what the one before may. The table is the documentation of who may do what, and the API refuses
every operation that names no permission.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Final, Literal

import msgspec


class Role(StrEnum):
    """From the least to the most."""

    VIEWER = "viewer"
    OPERATOR = "operator"
    TECHNICIAN = "technician"
    ENGINEER = "engineer"
    ADMINISTRATOR = "administrator"

    @property
    def rank(self) -> int:
        return _RANKS[self]


_RANKS: Final = {role: rank for rank, role in enumerate(Role)}


class Permission(StrEnum):
    """What an operation needs. Tokens are scoped to a set of these."""

    SEE_STATUS = "see-status"
    SEE_VALUES = "see-values"
    SEE_COMMANDS = "see-commands"
    OWN_ACCOUNT = "own-account"
    COMMAND = "command"
    LOCK_OUT = "lock-out"
    DIAGNOSE = "diagnose"
    COMMISSION = "commission"
    REPAIR = "repair"
    SEE_CONFIGURATION = "see-configuration"
    CONFIGURE = "configure"
    MANAGE_CERTIFICATES = "manage-certificates"
    SUPPORT = "support"
    SEE_AUDIT = "see-audit"
    MANAGE_USERS = "manage-users"


LEAST_ROLE: Final[dict[Permission, Role]] = {
    Permission.SEE_STATUS: Role.VIEWER,
    Permission.SEE_VALUES: Role.VIEWER,
    Permission.SEE_COMMANDS: Role.VIEWER,
    Permission.OWN_ACCOUNT: Role.VIEWER,
    Permission.COMMAND: Role.OPERATOR,
    Permission.LOCK_OUT: Role.TECHNICIAN,
    Permission.DIAGNOSE: Role.TECHNICIAN,
    Permission.COMMISSION: Role.TECHNICIAN,
    Permission.REPAIR: Role.TECHNICIAN,
    Permission.SEE_CONFIGURATION: Role.ENGINEER,
    Permission.CONFIGURE: Role.ENGINEER,
    Permission.MANAGE_CERTIFICATES: Role.ENGINEER,
    Permission.SUPPORT: Role.ENGINEER,
    Permission.SEE_AUDIT: Role.ADMINISTRATOR,
    Permission.MANAGE_USERS: Role.ADMINISTRATOR,
}
"""The permission table: the least role that has each permission."""

MEANING: Final[dict[Permission, str]] = {
    Permission.SEE_STATUS: "how the gateway, its connections, devices, uplinks and its ledger are",
    Permission.SEE_VALUES: "values, history, shadows and the live stream",
    Permission.SEE_COMMANDS: "commands and what became of them",
    Permission.OWN_ACCOUNT: "one's own password, sessions and tokens",
    Permission.COMMAND: "write tags and shadows, within the limits of each tag",
    Permission.LOCK_OUT: "set and lift the local lock-out for maintenance",
    Permission.DIAGNOSE: "trace lines, scan for devices, find numbers",
    Permission.COMMISSION: "register, provision, activate, suspend devices",
    Permission.REPAIR: "press the fix of a known fault",
    Permission.SEE_CONFIGURATION: "the site document and its revisions",
    Permission.CONFIGURE: "plan, apply, confirm and roll back; decommission devices",
    Permission.MANAGE_CERTIFICATES: "issue, renew and revoke certificates",
    Permission.SUPPORT: "make a support bundle",
    Permission.SEE_AUDIT: "read and export the audit log",
    Permission.MANAGE_USERS: "users, roles, and everybody's sessions and tokens",
}


class Principal(msgspec.Struct, frozen=True, kw_only=True):
    """Somebody or something that asks."""

    name: str
    """Unique together with ``kind``: a user's name, a token's id, a certificate's subject."""
    kind: Literal["user", "token", "certificate", "local"]
    """``local``: a shell on the gateway itself, of root or the service's own user."""
    role: Role
    tenant: str = ""
    """The tenant whose devices are all that it may know of; empty: the whole gateway."""
    scopes: frozenset[Permission] | None = None
    """What a token was narrowed to; None: all that its role may."""

    @property
    def called(self) -> str:
        """Who it is, in audit entries and commands: ``user:anna``."""
        return f"{self.kind}:{self.name}"

    def may(self, permission: Permission) -> bool:
        within = self.scopes is None or permission in self.scopes
        return within and self.role.rank >= LEAST_ROLE[permission].rank
