"""Device templates: search them, and look at one. To use one, name it in a site document."""

from __future__ import annotations

import asyncio
from operator import attrgetter
from typing import Annotated, Final

import msgspec
from litestar.params import Parameter

from gateway.api.operation import Given, Reach, get
from gateway.api.paging import Cursor, Limit, page_of
from gateway.api.services import Services
from gateway.identity.principal import Permission
from gateway.objections import NotThere
from holdfast.shapes import templates as shapes
from holdfast.shapes.common import Page
from protocols.templates.shape import Template

Part = Annotated[str, Parameter(max_length=128)]


@get(
    "/templates",
    id="list_templates",
    permission=Permission.SEE_STATUS,
    reach=Reach.GATEWAY,
    tag="templates",
    summary="Search the device templates",
)
async def list_templates(
    services: Given,
    search: Annotated[str, Parameter(max_length=200, description="Words that all occur in name, maker, models, kind or description.")] = "",
    limit: Limit = 100,
    cursor: Cursor = None,
) -> Page[shapes.TemplateSummary]:
    """Templates by name."""
    found = await asyncio.to_thread(lambda: list(services.templates().find(search)))
    return await page_of(found, attrgetter("name"), _summary, limit=limit, cursor=cursor)


@get(
    "/templates/{folder:str}/{product:str}",
    id="get_template",
    permission=Permission.SEE_STATUS,
    reach=Reach.GATEWAY,
    tag="templates",
    summary="One device template, whole",
)
async def get_template(services: Given, folder: Part, product: Part) -> shapes.Template:
    return await asyncio.to_thread(_whole, services, f"{folder}/{product}")


def _whole(services: Services, name: str) -> shapes.Template:
    try:
        one = services.templates()[name]
    except KeyError:
        raise NotThere(f"no template is called {name!r}", "GET /api/v1/templates lists them") from None
    tags = [{"name": tag.name, **({"scan_s": scan_s} if (scan_s := one.groups.get(tag.group)) else {}), **tag.options} for tag in one.tags]
    return shapes.Template(
        name=one.name,
        manufacturer=one.manufacturer,
        models=list(one.models),
        kind=one.kind,
        description=one.description,
        checked=one.checked,
        connection={key: value for key, value in msgspec.to_builtins(one.connection).items() if value not in (None, "")},
        questions=msgspec.to_builtins(one.questions),
        tags=msgspec.to_builtins(tags),
        sources=one.sources,
    )


def _summary(one: Template) -> shapes.TemplateSummary:
    return shapes.TemplateSummary(
        name=one.name,
        manufacturer=one.manufacturer,
        models=list(one.models),
        kind=one.kind,
        description=one.description,
        tags=len(one.tags),
        checked=one.checked,
    )


OPERATIONS: Final = (list_templates, get_template)
