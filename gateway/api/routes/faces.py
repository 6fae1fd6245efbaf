"""Faces: how PLCs and SCADA see the gateway's tags."""

from __future__ import annotations

from operator import attrgetter
from typing import Annotated, Final

from litestar.params import Parameter

from gateway import links
from gateway.api import shown
from gateway.api.operation import Given, Reach, get
from gateway.api.paging import Cursor, Limit, page_of
from gateway.api.services import Services
from gateway.identity.principal import Permission
from gateway.objections import NotThere
from holdfast.shapes.common import Page
from holdfast.shapes.uplinks import Face


@get("/faces", id="list_faces", permission=Permission.SEE_STATUS, reach=Reach.GATEWAY, tag="faces", summary="How each face is")
async def list_faces(services: Given, limit: Limit = 100, cursor: Cursor = None) -> Page[Face]:
    """Faces by name."""
    statuses = sorted((one for one in services.statuses() if one.kind == "face"), key=attrgetter("name"))
    return await page_of(statuses, attrgetter("name"), lambda one: _shown(services, one), limit=limit, cursor=cursor)


@get("/faces/{face:str}", id="get_face", permission=Permission.SEE_STATUS, reach=Reach.GATEWAY, tag="faces", summary="How one face is")
async def get_face(services: Given, face: Annotated[str, Parameter(max_length=128, description="Name of the face.")]) -> Face:
    for one in services.statuses():
        if one.kind == "face" and one.name == face:
            return _shown(services, one)
    raise NotThere(f"no face is called {face!r}", "GET /api/v1/faces lists them")


def _shown(services: Services, status: links.Status) -> Face:
    kind = next((one.__struct_config__.tag for one in services.site().faces if one.name == status.name), "")
    return Face(**shown.link(status), type=str(kind))


OPERATIONS: Final = (list_faces, get_face)
