"""The API's own description."""

from __future__ import annotations

import asyncio
from typing import Any, Final

import msgspec
from litestar import Response

from gateway.api.document import document
from gateway.api.operation import Asked, Reach, get
from gateway.identity.principal import Permission


@get(
    "/openapi.json",
    id="get_openapi",
    permission=Permission.OWN_ACCOUNT,
    reach=Reach.OWN,
    tag="gateway",
    summary="This description, as OpenAPI 3.1",
)
async def get_openapi(request: Asked) -> Response[dict[str, Any]]:  # Any: JSON
    """The same as ``holdfast openapi`` prints. It is made when it is first asked for, and then kept."""
    kept = request.app.state
    if "openapi" not in kept:
        kept.openapi = await asyncio.to_thread(lambda: msgspec.json.encode(document(request.app)))
    return Response(kept.openapi, media_type="application/json")


OPERATIONS: Final = (get_openapi,)
