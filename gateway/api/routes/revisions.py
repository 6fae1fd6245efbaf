"""Configuration: what runs, what a document would change, applying it, keeping it, going back."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import Annotated, Any, Final

import msgspec
from litestar import Response
from litestar.openapi.datastructures import ResponseSpec
from litestar.openapi.spec import OpenAPIMediaType, OpenAPIType, Operation, RequestBody, Schema
from litestar.params import JSONBody, Parameter

from gateway import config
from gateway.api.conditional import must_match
from gateway.api.operation import Asked, Given, Reach, get, note, post
from gateway.api.paging import Cursor, Limit, after, cursor_of
from gateway.identity.principal import Permission
from gateway.objections import WrongMediaType
from gateway.revisions.revisions import Who
from holdfast.shapes.common import Page
from holdfast.shapes.revisions import (
    LONGEST_DOCUMENT,
    Applied,
    ApplyDocument,
    Configuration,
    ConfirmRevision,
    Drift,
    Plan,
    Revision,
    RevisionDetail,
    RollBack,
)

MEDIA_TYPES: Final = ("application/yaml", "application/json")
MOST_BYTES: Final = LONGEST_DOCUMENT + 8 * 1024 * 1024
"""Of a body that holds a document as JSON text, whose quotes and line ends are escaped."""
Number = Annotated[int, Parameter(ge=1, le=2**53, description="Number of the revision.")]
_SEE: Final = {"permission": Permission.SEE_CONFIGURATION, "reach": Reach.GATEWAY, "tag": "configuration"}
_CHANGE: Final = {"permission": Permission.CONFIGURE, "reach": Reach.GATEWAY, "tag": "configuration"}


@dataclass
class _TakesDocument(Operation):
    """The OpenAPI of an operation whose body is a document, and no JSON of ours."""

    def __post_init__(self) -> None:
        text = Schema(type=OpenAPIType.STRING, examples=["holdfast: 1\ngateway: {group: plant-7, name: boiler-house}\n"])
        whole = Schema(type=OpenAPIType.OBJECT, examples=[{"holdfast": 1, "gateway": {"group": "plant-7", "name": "boiler-house"}}])
        content = {MEDIA_TYPES[0]: OpenAPIMediaType(schema=text), MEDIA_TYPES[1]: OpenAPIMediaType(schema=whole)}
        self.request_body = RequestBody(description="The site document.", content=content, required=True)


@get("/configuration", id="get_configuration", summary="The document that runs", **_SEE)
async def get_configuration(services: Given) -> Configuration:
    """Its ETag is what If-Match of an apply is compared with."""
    return services.revisions.configuration()


@get("/configuration/schema", id="get_configuration_schema", summary="The JSON Schema of the document", **_SEE)
async def get_configuration_schema() -> dict[str, Any]:  # Any: JSON Schema
    """For forms and editors."""
    return await asyncio.to_thread(config.schema)


@get("/configuration/drift", id="get_drift", summary="How the file on the gateway differs from what runs", **_SEE)
async def get_drift(services: Given) -> Drift:
    """The file is read now. What runs is other than the file where somebody applied another document, or the file was changed and
    not taken."""
    return await services.revisions.drift()


@post(
    "/revisions/plan",
    id="plan_revision",
    summary="What applying a document would change, restart and cost",
    status=200,
    audited=False,
    idempotency=False,
    request_max_body_size=LONGEST_DOCUMENT,
    operation_class=_TakesDocument,
    **_CHANGE,
)
async def plan_revision(services: Given, request: Asked) -> Plan:
    """Nothing is touched. The body is the document itself, up to 16 MiB."""
    said = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if said not in MEDIA_TYPES:
        raise WrongMediaType(f"the body is {said or 'of no type that is told'}", f"send a document as {' or '.join(MEDIA_TYPES)}")
    return await services.revisions.plan(await request.body())


_UNCHANGED: Final = {200: ResponseSpec(Applied, description="This document runs already: nothing was done.", generate_examples=False)}


@post(
    "/revisions",
    id="apply_revision",
    summary="Have a document run",
    problems=(409, 412),
    responses=_UNCHANGED,
    request_max_body_size=MOST_BYTES,
    **_CHANGE,
)
async def apply_revision(services: Given, request: Asked, data: JSONBody[ApplyDocument]) -> Response[Applied]:
    """Answers when everything but the API is swapped; where the API moves, the answer gets out before. With confirm_within_s the
    gateway goes back by itself unless the revision is confirmed in time, also over a crash."""
    must_match(request, services.revisions.configuration())
    raw = data.document.encode() if isinstance(data.document, str) else msgspec.json.encode(data.document)
    note(request, on=f"revision {services.revisions.number}", after={"reason": data.reason, "confirm_within_s": data.confirm_within_s})
    applied = await services.revisions.apply(raw, _who(request), reason=data.reason, confirm_within_s=data.confirm_within_s, base=data.base)
    return _applied(request, services.revisions.number, applied)


@get("/revisions", id="list_revisions", summary="What was applied, newest first", **_SEE)
async def list_revisions(services: Given, limit: Limit = 100, cursor: Cursor = None) -> Page[Revision]:
    found = await services.revisions.history(None if cursor is None else after(cursor, int), limit + 1)
    some = found[:limit]
    return Page(items=some, next=cursor_of(some[-1].number) if len(found) > limit else None)


@get("/revisions/{number:int}", id="get_revision", summary="A revision with its document and what it changed", **_SEE)
async def get_revision(services: Given, number: Number) -> RevisionDetail:
    return await services.revisions.one(number)


@post("/revisions/{number:int}/confirm", id="confirm_revision", summary="Keep a revision that is on trial", status=200, **_CHANGE)
async def confirm_revision(services: Given, request: Asked, number: Number, data: JSONBody[ConfirmRevision]) -> Revision:
    """Twice is fine. 409 where it is over, or was never on trial."""
    note(request, on=f"revision {number}", after={"reason": data.reason})
    return await services.revisions.confirm(number, _who(request), data.reason)


@post(
    "/revisions/{number:int}/rollback",
    id="roll_back_revision",
    summary="Have an earlier document run again",
    problems=(412,),
    responses=_UNCHANGED,
    **_CHANGE,
)
async def roll_back_revision(services: Given, request: Asked, number: Number, data: JSONBody[RollBack]) -> Response[Applied]:
    """The document of revision ``number`` runs, as a new revision. Of a revision on trial: it ends, and what it replaced runs."""
    must_match(request, services.revisions.configuration())
    note(request, on=f"revision {number}", after={"reason": data.reason, "confirm_within_s": data.confirm_within_s})
    applied = await services.revisions.roll_back(
        number, _who(request), reason=data.reason, confirm_within_s=data.confirm_within_s, base=data.base
    )
    return _applied(request, number, applied)


@post(
    "/revisions/rollback",
    id="roll_back",
    summary="Go back to what was confirmed before",
    problems=(404, 412),
    responses=_UNCHANGED,
    **_CHANGE,
)
async def roll_back(services: Given, request: Asked, data: JSONBody[RollBack]) -> Response[Applied]:
    """Ends the trial, if there is one; else runs the document that was confirmed before the one that runs."""
    must_match(request, services.revisions.configuration())
    note(request, on=f"revision {services.revisions.number}", after={"reason": data.reason, "confirm_within_s": data.confirm_within_s})
    applied = await services.revisions.roll_back(
        None, _who(request), reason=data.reason, confirm_within_s=data.confirm_within_s, base=data.base
    )
    return _applied(request, services.revisions.number, applied)


OPERATIONS: Final = (
    get_configuration,
    get_configuration_schema,
    get_drift,
    plan_revision,
    apply_revision,
    list_revisions,
    get_revision,
    confirm_revision,
    roll_back_revision,
    roll_back,
)


def _who(request: Asked) -> Who:
    return Who(request.user.called, "api")


def _applied(request: Asked, before: int, applied: Applied) -> Response[Applied]:
    number = applied.revision.number
    changes = [each.path for each in applied.plan.changes[:20]]
    note(request, on=f"revision {number}", before={"revision": before}, after={"revision": number, "changes": changes})
    return Response(applied, status_code=201 if applied.changed else 200, headers={"Location": f"/api/v1/revisions/{number}"})
