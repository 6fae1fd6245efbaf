"""Whether the gateway runs and is ready: for whoever watches it from outside. They tell nothing else."""

from __future__ import annotations

from typing import Final

from litestar import Response

from gateway.api.operation import Given, Reach, get
from holdfast.shapes.gateway import Health


@get("/healthz", id="get_health", permission=None, reach=Reach.PUBLIC, tag="health", summary="Whether the gateway runs")
async def healthz() -> Health:
    return Health(status="ok")


@get("/readyz", id="get_readiness", permission=None, reach=Reach.PUBLIC, tag="health", summary="Whether the gateway is ready")
async def readyz(services: Given) -> Response[Health]:
    """200 once the configured site runs and the journal takes records, else 503."""
    ready = bool(services.statuses()) or not services.site().connections
    return Response(Health(status="ok" if ready else "starting"), status_code=200 if ready else 503)


OPERATIONS: Final = (healthz, readyz)
