"""Connections: how each way to the field is."""

from __future__ import annotations

from typing import Annotated, Final

from litestar.params import Parameter

from gateway.api import shown
from gateway.api.operation import Given, Reach, Seen, get
from gateway.api.paging import Cursor, Limit, page_of
from gateway.api.services import Services
from gateway.connections import Connection
from gateway.identity.principal import Permission
from gateway.identity.sight import Sight
from gateway.objections import NotThere
from holdfast.shapes import connections as shapes
from holdfast.shapes.common import Page

ConnectionName = Annotated[str, Parameter(max_length=128, description="Name of the connection.")]


@get(
    "/connections",
    id="list_connections",
    permission=Permission.SEE_STATUS,
    reach=Reach.DEVICES,
    tag="connections",
    summary="How each way to the field is",
)
async def list_connections(services: Given, sight: Seen, limit: Limit = 100, cursor: Cursor = None) -> Page[shapes.Connection]:
    """Connections by name. A tenant sees those that lead to a device of its own, and counts of these alone."""
    names = sorted(options.name for options in services.site().connections)
    seen = [one for name in names if (one := services.connection(name)) is not None and is_seen(one, sight)]
    return await page_of(seen, lambda one: one.status.name, lambda one: shown.connection(one, sight), limit=limit, cursor=cursor)


@get(
    "/connections/{connection:str}",
    id="get_connection",
    permission=Permission.SEE_STATUS,
    reach=Reach.DEVICES,
    tag="connections",
    summary="How one way to the field is",
)
async def get_connection(services: Given, sight: Seen, connection: ConnectionName) -> shapes.Connection:
    return shown.connection(must_see(services, sight, connection), sight)


@get(
    "/connections/{connection:str}/options",
    id="get_connection_options",
    permission=Permission.SEE_CONFIGURATION,
    reach=Reach.GATEWAY,
    tag="connections",
    summary="What a connection is configured to do, without any secret",
)
async def get_connection_options(services: Given, sight: Seen, connection: ConnectionName) -> shapes.ConnectionOptions:
    return shapes.ConnectionOptions(name=connection, options=shown.options(must_see(services, sight, connection).options))


def is_seen(one: Connection, sight: Sight) -> bool:
    return sight.whole or any(sight.sees(device.name) for device in one.devices)


def must_see(services: Services, sight: Sight, name: str) -> Connection:
    """Raises NotThere, as for a connection that does not exist, where no device behind it is seen."""
    one = services.connection(name)
    if one is None or not is_seen(one, sight):
        raise NotThere(f"no connection is called {name!r}", "GET /api/v1/connections lists them")
    return one


OPERATIONS: Final = (list_connections, get_connection, get_connection_options)
