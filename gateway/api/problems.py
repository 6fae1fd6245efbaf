"""Every error as problem details (RFC 9457). The one place where the API turns exceptions into answers."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from http import HTTPStatus
from typing import Any, Final

import msgspec
import structlog
from litestar import Request, Response
from litestar.exceptions import HTTPException, SerializationException, ValidationException

from gateway import objections
from gateway.objections import Objection
from holdfast.shapes.common import Fault, ProblemDetails

log = structlog.get_logger("holdfast.api")

MEDIA_TYPE: Final = "application/problem+json"
STATUS: Final[dict[type[Objection], int]] = {
    objections.Unfit: 400,
    objections.Unknown: 401,
    objections.NotAllowed: 403,
    objections.NotThere: 404,
    objections.Conflict: 409,
    objections.Outdated: 412,
    objections.TooLarge: 413,
    objections.WrongMediaType: 415,
    objections.KeyReused: 422,
    objections.TooMany: 429,
    objections.Unavailable: 503,
}
RETRY_AFTER_S: Final = 5

_Request = Request[Any, Any, Any]  # Any: Litestar's own


def of_objection(request: _Request, error: Objection) -> Response[ProblemDetails]:
    faults = [_fault(each) for each in error.problems] if isinstance(error, objections.Unfit) else []
    headers: dict[str, str] = {}
    if isinstance(error, objections.TooMany):
        headers["Retry-After"] = str(max(1, math.ceil(error.retry_after_s)))
    elif isinstance(error, objections.Unavailable):
        headers["Retry-After"] = str(RETRY_AFTER_S)
    elif isinstance(error, objections.Unknown):
        headers["WWW-Authenticate"] = 'Bearer realm="holdfast"'
    return _answer(request, STATUS[type(error)], error.code, error.detail, error.advice, faults, headers)


def of_http(request: _Request, error: HTTPException) -> Response[ProblemDetails]:
    """What Litestar itself refuses: a path that is not there, a body that does not fit."""
    if isinstance(error, ValidationException):
        faults = [_said(each) for each in error.extra or [] if isinstance(each, dict)]
        return _answer(request, 400, "invalid", "what was sent does not fit", "problems says where; see /api/v1/openapi.json", faults)
    status = error.status_code
    code = re.sub(r"[^a-z]+", "-", HTTPStatus(status).phrase.lower())
    detail = error.detail if status < 500 else "the gateway failed at this"
    headers = {key: value for key, value in (error.headers or {}).items() if key.lower() in ("allow", "retry-after")}
    return _answer(request, status, code, detail, "", [], headers)


def of_serialization(request: _Request, error: SerializationException) -> Response[ProblemDetails]:
    return _answer(request, 400, "invalid", f"what was sent cannot be read: {error.detail}", "send JSON as /api/v1/openapi.json says", [])


def of_bug(request: _Request, error: Exception) -> Response[ProblemDetails]:
    """Ours: said in the log with everything, outside with nothing."""
    log.error("request_failed", method=request.method, path=request.url.path, exc_info=error)
    return _answer(request, 500, "internal", "the gateway failed at this", "its log says more; nothing else is touched by it", [])


def details(status: int, code: str, detail: str, advice: str, path: str, faults: Sequence[Fault] = ()) -> ProblemDetails:
    """What every refusal says, whichever way it is sent."""
    return ProblemDetails(
        type=f"urn:holdfast:problem:{code}",
        title=HTTPStatus(status).phrase,
        status=status,
        detail=detail,
        instance=path,
        advice=advice,
        problems=list(faults),
    )


def _fault(problem: Any) -> Fault:  # Any: a Problem, which may have a line
    line = getattr(problem, "line", 0)
    return Fault(path=problem.path, message=problem.message, advice=problem.advice, severity=problem.severity, line=line)


def _said(extra: dict[str, Any]) -> Fault:  # Any: Litestar's own
    return Fault(path=str(extra.get("key") or extra.get("source") or ""), message=str(extra.get("message", "")))


def _answer(
    request: _Request, status: int, code: str, detail: str, advice: str, faults: list[Fault], headers: dict[str, str] | None = None
) -> Response[ProblemDetails]:
    told = details(status, code, detail, advice, request.url.path, faults)
    request.state.refusal = detail
    return Response(told, status_code=status, media_type=MEDIA_TYPE, headers=headers or {})


HANDLERS: Final[dict[int | type[Exception], Any]] = {  # Any: each takes its own exception
    Objection: of_objection,
    HTTPException: of_http,
    SerializationException: of_serialization,
    msgspec.ValidationError: of_serialization,
    Exception: of_bug,
}
