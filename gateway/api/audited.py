"""Every write that comes through the API becomes one entry of the audit log: also what was refused, and what failed.

Middleware, the outermost, so that nothing gets past it. It copies no body, no query and no header, for secrets are in those; what
an operation changed, its handler says by ``operation.note``. Refusals are bounded by the log, so that nobody fills a disk with them.
"""

from __future__ import annotations

from typing import Any, Final

from litestar.datastructures import State
from litestar.enums import ScopeType
from litestar.types import ASGIApp, HTTPScope, Message, Receive, Scope, Send

from gateway.api import problems
from gateway.audit import Audit
from gateway.objections import Objection

FAILED: Final = 500
REFUSED: Final = 400


def audited(audit: Audit) -> type:
    """The middleware, for ``audit``."""

    class Audited:
        def __init__(self, app: ASGIApp) -> None:
            self._app = app

        async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
            if scope["type"] != ScopeType.HTTP or not scope["route_handler"].opt.get("audited"):
                await self._app(scope, receive, send)
                return
            status, why = FAILED, "nothing was answered"

            async def watched(message: Message) -> None:
                nonlocal status, why
                if message["type"] == "http.response.start":
                    status, why = message["status"], ""
                await send(message)

            try:
                await self._app(scope, receive, watched)
            except Objection as objection:  # the layers around the operation refuse too: too much was asked, for one
                status, why = problems.STATUS.get(type(objection), REFUSED), objection.detail
                raise
            finally:
                _record(audit, scope, status, why)

    return Audited


def _record(audit: Audit, scope: HTTPScope, status: int, why: str) -> None:
    user, client = scope.get("user"), scope.get("client")
    state = State(scope["state"], deep_copy=False)
    noted: dict[str, Any] = state.get("audit") or {}  # Any: JSON values, as operation.note took them
    told: dict[str, Any] = {  # Any: what the log takes
        "who": user.called if user is not None else "",
        "source": client[0] if client else "",
        "action": getattr(scope["route_handler"], "operation_id", None) or scope["route_handler"].handler_name,
        "on": noted.get("on", ""),
        "detail": noted.get("detail") or state.get("refusal") or why,
        "before": noted.get("before"),
        "after": noted.get("after"),
        "request": f"{scope['method']} {scope['path']}",
        "status": status,
    }
    if REFUSED <= status < FAILED:
        audit.refused(**told)
    else:
        audit.record(outcome="failed" if status >= FAILED else noted.get("outcome", "done"), **told)
