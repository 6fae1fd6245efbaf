"""Whether the gateway runs and is ready: for whoever watches it from outside. They tell nothing else.

``/healthz`` answers while the gateway's loop turns: whoever restarts what does not answer does right.

``/readyz`` is 200 while the gateway does what it is there for: the site has been applied, the journal stores what is read, and what the
gateway knows besides (users, revisions, shadows) outlives a restart. It says nothing of the field and of uplinks: a meter without power
or a link that is down is what a gateway is made for, and no reason to take it out of service. Why it is not ready stands in the list of
repairs, for whoever may see it; ``holdfast health`` looks at field and uplinks too, for whoever upgrades the gateway.
"""

from __future__ import annotations

from typing import Final

from litestar import Response

from gateway.api.operation import Given, Reach, get
from gateway.api.services import Services
from gateway.health.checks import keeping
from holdfast.shapes.gateway import Health


@get("/healthz", id="get_health", permission=None, reach=Reach.PUBLIC, tag="health", summary="Whether the gateway runs")
async def healthz() -> Health:
    return Health(status="ok")


@get("/readyz", id="get_readiness", permission=None, reach=Reach.PUBLIC, tag="health", summary="Whether the gateway is ready")
async def readyz(services: Given) -> Response[Health]:
    """200 while the site has been applied, the journal stores and the gateway's state is kept; else 503."""
    status = _status(services)
    return Response(Health(status=status), status_code=200 if status == "ok" else 503)


def _status(services: Services) -> str:
    kinds = {one.kind for one in services.statuses()}
    if services.site().connections and "connection" not in kinds:
        return "starting"
    return "not storing" if keeping(services.journal.ledger(), services.state.trouble) else "ok"


OPERATIONS: Final = (healthz, readyz)
