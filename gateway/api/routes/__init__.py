"""The operations of the API: one module a resource. Each takes what it is handed, asks a service, and gives a shape."""

from __future__ import annotations

from typing import Final

from litestar.handlers.http_handlers import HTTPRouteHandler
from litestar.handlers.websocket_handlers import WebsocketRouteHandler

from gateway.api.routes import (
    audit,
    certificates,
    commands,
    connections,
    devices,
    diagnostics,
    faces,
    gateway,
    graphql,
    health,
    history,
    journal,
    live,
    openapi,
    registry,
    repairs,
    revisions,
    session,
    shadow,
    templates,
    tokens,
    uplinks,
    users,
    values,
)

AT_ROOT: Final[tuple[HTTPRouteHandler, ...]] = (*health.OPERATIONS, *diagnostics.AT_ROOT)
V1: Final[tuple[HTTPRouteHandler, ...]] = (
    *gateway.OPERATIONS,
    *connections.OPERATIONS,
    *devices.OPERATIONS,
    *values.OPERATIONS,
    *uplinks.OPERATIONS,
    *faces.OPERATIONS,
    *history.OPERATIONS,
    *journal.OPERATIONS,
    *commands.OPERATIONS,
    *live.OPERATIONS,
    *graphql.OPERATIONS,
    *shadow.OPERATIONS,
    *repairs.OPERATIONS,
    *diagnostics.OPERATIONS,
    *revisions.OPERATIONS,
    *templates.OPERATIONS,
    *audit.OPERATIONS,
    *certificates.OPERATIONS,
    *registry.OPERATIONS,
    *session.OPERATIONS,
    *users.OPERATIONS,
    *tokens.OPERATIONS,
    *openapi.OPERATIONS,
)
"""Everything under /api/v1."""
SOCKETS: Final[tuple[WebsocketRouteHandler, ...]] = live.SOCKETS
"""The same, over WebSocket."""
