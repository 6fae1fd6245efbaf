"""How an operation of the API is declared: its id, what it needs, and how far it reaches. One guard holds all of them.

An operation that says nothing is refused for everybody. ``Reach`` says what a principal of a tenant may use:

- ``GATEWAY``: it is about the gateway as a whole; whoever is bound to a tenant is refused here.
- ``DEVICES``: it is about devices; the handler takes ``sight`` and gives, or touches, only what that sees.
- ``OWN``: it is about whoever asks alone.
- ``PUBLIC``: anybody, unknown or not.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from enum import StrEnum
from typing import Any, Final, Literal

import litestar
from litestar.connection import ASGIConnection, Request
from litestar.di import NamedDependency
from litestar.handlers import BaseRouteHandler
from litestar.handlers.http_handlers import HTTPRouteHandler
from litestar.openapi.datastructures import ResponseSpec

from gateway.api.services import Services
from gateway.identity.principal import Permission, Principal
from gateway.identity.sight import Sight, sight_of
from gateway.objections import NotAllowed, Unknown
from holdfast.shapes.common import ProblemDetails


class Reach(StrEnum):
    GATEWAY = "gateway"
    DEVICES = "devices"
    OWN = "own"
    PUBLIC = "public"


Asked = Request[Principal, Unknown | None, Any]  # Any: Litestar's own state
"""A request: ``user`` is who asks. Only a public operation may find nobody there."""
Given = NamedDependency[Services]
"""What a handler is handed: ``services: Given``."""
Seen = NamedDependency[Sight]
"""What whoever asks sees: ``sight: Seen``."""
_Declare = Callable[[Callable[..., Any]], HTTPRouteHandler]  # Any: each handler has its own arguments

PROBLEMS: Final[dict[int, str]] = {
    400: "What was sent is wrong; problems says each thing that is.",
    401: "Nobody knows who asks.",
    403: "Whoever asks may not do this.",
    404: "There is no such thing, or none that whoever asks may know of.",
    409: "It does not fit the state of things as they are now.",
    412: "It was decided on a state of things that has changed since (If-Match).",
    413: "It is longer than is taken in one go.",
    415: "It is of another media type than is taken here.",
    422: "Its Idempotency-Key was used before, for something else.",
    429: "Too much was asked in too short a time (Retry-After).",
    503: "It cannot be now and may be later (Retry-After).",
}


def operation(
    method: Literal["GET", "POST", "PUT", "PATCH", "DELETE"],
    path: str,
    *,
    id: str,
    permission: Permission | None,
    reach: Reach,
    tag: str,
    status: int = 200,
    problems: Sequence[int] = (),
    responses: Mapping[int, ResponseSpec] | None = None,
    audited: bool = True,
    idempotency: bool = True,
    also_given: Sequence[str] = (),
    **more: Any,  # Any: Litestar's own options
) -> _Declare:
    """Declare a handler. ``id`` is for ever: clients are generated from it. ``problems`` are statuses it may answer, besides those
    that every operation may. ``audited`` False is for writes that change nothing (a question that needs a body). ``idempotency``
    False is for answers that hold a secret, or are long: they are not kept to be given again (see ``idempotency.py``).
    ``also_given`` are further media types of the answer, where the caller chooses."""
    assert (permission is None) == (reach is Reach.PUBLIC), f"{id}: what is public needs no permission, everything else does"
    may_answer = {400, 429, 503, *problems, *((401, 403) if permission is not None else ())}
    may_answer |= {404} if "{" in path else set()
    may_answer |= {413, 415} if method != "GET" else set()
    may_answer |= {409, 422} if method != "GET" and idempotency else set()
    said = {each: ResponseSpec(ProblemDetails, description=PROBLEMS[each], generate_examples=False) for each in sorted(may_answer)}
    return litestar.route(
        path,
        http_method=[method],
        operation_id=id,
        status_code=status,
        tags=[tag],
        responses={**said, **(responses or {})},
        opt={
            "permission": permission,
            "reach": reach,
            "audited": audited and method != "GET",
            "idempotency": idempotency and method != "GET",
            "also_given": tuple(also_given),
        },
        security=None if permission is not None else [{}],
        **more,
    )


def get(path: str, **said: Any) -> _Declare:  # Any: as operation takes them
    """As :func:`operation`."""
    return operation("GET", path, **said)


def post(path: str, **said: Any) -> _Declare:  # Any: as operation takes them
    """As :func:`operation`; 201 unless said otherwise."""
    return operation("POST", path, **{"status": 201, **said})


def put(path: str, **said: Any) -> _Declare:  # Any: as operation takes them
    """As :func:`operation`."""
    return operation("PUT", path, **said)


def patch(path: str, **said: Any) -> _Declare:  # Any: as operation takes them
    """As :func:`operation`."""
    return operation("PATCH", path, **said)


def delete(path: str, **said: Any) -> _Declare:  # Any: as operation takes them
    """As :func:`operation`; 204 unless said otherwise."""
    return operation("DELETE", path, **{"status": 204, **said})


async def guard(connection: ASGIConnection[Any, Any, Any, Any], handler: BaseRouteHandler) -> None:  # Any: Litestar's own
    """The one door: refuses whoever may not. Raises Unknown, NotAllowed."""
    reach, permission = handler.opt.get("reach"), handler.opt.get("permission")
    if reach is Reach.PUBLIC:
        return
    user = connection.scope.get("user")
    if user is None:
        raise connection.scope.get("auth") or Unknown("nobody knows who asks", "send Authorization: Bearer TOKEN, or sign in first")
    if permission is None or reach is None:
        raise NotAllowed("nobody may use this operation: it names no permission")
    if not user.may(permission):
        raise NotAllowed(f"{user.called} ({user.role.value}) may not do this: it needs {permission.value}", "ask an administrator")
    if reach is Reach.GATEWAY and user.tenant:
        raise NotAllowed(f"{user.called} is bound to tenant {user.tenant}: this is about the gateway as a whole", "ask an administrator")


async def sight(request: Asked, services: Given) -> Sight:
    """What whoever asks sees: a dependency of handlers."""
    return sight_of(request.user, services.site().tenants)


def note(
    request: Asked,
    *,
    on: str = "",
    before: Any = None,  # Any: JSON values, as after
    after: Any = None,
    detail: str = "",
    outcome: Literal["done", "refused", "failed"] = "done",
) -> None:
    """What the audit entry of this request says besides who and which operation. No secret may be in it. ``outcome`` is for an answer
    that is good as such, and tells that what was asked did not come about."""
    request.state.audit = {"on": on, "before": before, "after": after, "detail": detail, "outcome": outcome}
