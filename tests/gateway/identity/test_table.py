"""The page of permissions says what the table does."""

from __future__ import annotations

from gateway.identity.principal import Permission, Role
from gateway.identity.table import Operation, page


def test_every_role_permission_and_operation_is_shown() -> None:
    shown = page(
        [Operation("get_x", "GET", "/api/v1/x", Permission.COMMAND, "devices"), Operation("health", "GET", "/healthz", None, "public")], ""
    )
    assert all(f"`{permission.value}`" in shown for permission in Permission)
    assert all(role.value in shown for role in Role)
    assert "| `get_x` | `GET /api/v1/x` | `command` (operator) | devices |" in shown
    assert "| `health` | `GET /healthz` | nothing | public |" in shown
