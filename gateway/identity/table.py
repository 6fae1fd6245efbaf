"""The permission table as a page: drawn from the table that decides, so that it cannot say anything else. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from gateway.identity.principal import LEAST_ROLE, MEANING, Permission, Role

REACHES: Final = {
    "gateway": "the gateway as a whole: whoever is bound to a tenant is refused",
    "devices": "devices: whoever is bound to a tenant sees, and touches, only those of the tenant",
    "own": "whoever asks, alone",
    "public": "anybody",
}


@dataclass(frozen=True, slots=True)
class Operation:
    """An operation of the API and what it needs."""

    id: str
    method: str
    path: str
    permission: Permission | None
    reach: str


def page(operations: Iterable[Operation], made: str) -> str:
    """Markdown."""
    some = sorted(operations, key=lambda each: (_order(each.permission), each.path, each.method))
    return "\n".join([*_roles(made), *_operations(some), ""])


def _roles(made: str) -> list[str]:
    head = ["# Permissions", "", made, "Each role may do what the one before it may, and more. A token, or a certificate, has a role too;"]
    head += ["a token may be narrowed to some permissions (scopes). Nobody gives more than they have.", ""]
    names = [role.value for role in Role]
    head += [f"| permission | is | {' | '.join(names)} |", f"|---|---|{'---|' * len(names)}"]
    for permission, least in LEAST_ROLE.items():
        marks = ["yes" if role.rank >= least.rank else "" for role in Role]
        head.append(f"| `{permission.value}` | {MEANING[permission]} | {' | '.join(marks)} |")
    head += ["", "A tenant binds a user, token or certificate to the devices of a tenant of the site. How far an operation reaches says"]
    head += ["what that means for it:", "", "| reach | it is about |", "|---|---|"]
    return head + [f"| {reach} | {meaning} |" for reach, meaning in REACHES.items()] + [""]


def _operations(some: list[Operation]) -> list[str]:
    head = ["## Operations", "", "| operation | is | needs | reach |", "|---|---|---|---|"]
    return head + [f"| `{each.id}` | `{each.method} {each.path}` | {_needs(each)} | {each.reach} |" for each in some]


def _needs(operation: Operation) -> str:
    if operation.permission is None:
        return "nothing"
    return f"`{operation.permission.value}` ({LEAST_ROLE[operation.permission].value})"


def _order(permission: Permission | None) -> int:
    return -1 if permission is None else list(Permission).index(permission)
