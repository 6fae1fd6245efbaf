"""The gateway itself."""

from __future__ import annotations

from importlib.metadata import version
from typing import Final

from gateway.api.operation import Given, Reach, get
from gateway.identity.principal import Permission
from holdfast.shapes.gateway import Gateway

VERSION: Final = version("holdfast")
"""Read once: it lies in a file."""


@get(
    "/gateway", id="get_gateway", permission=Permission.SEE_STATUS, reach=Reach.DEVICES, tag="gateway", summary="Who and how the gateway is"
)
async def get_gateway(services: Given) -> Gateway:
    site = services.site()
    return Gateway(
        group=site.gateway.group,
        name=site.gateway.name,
        version=VERSION,
        time_ns=services.clock.time_ns(),
        uptime_s=services.clock.monotonic() - services.began,
    )


OPERATIONS: Final = (get_gateway,)
