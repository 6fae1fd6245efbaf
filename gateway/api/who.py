"""Who sends a request: middleware that shows the caller's credentials to the identity and puts the principal into the scope.

It refuses nobody: ``operation.guard`` does, for it knows what the operation needs. Why somebody is unknown goes with the
request, so that the refusal says it.
"""

from __future__ import annotations

from http.cookies import CookieError, SimpleCookie
from typing import Final

from litestar.types import ASGIApp, Receive, Scope, Send

from gateway.identity.identity import Identity, Shown
from gateway.objections import Unknown

COOKIE: Final = "holdfast_session"
_LONGEST: Final = 8192


def who(identity: Identity) -> type:
    """The middleware, for ``identity``."""

    class Who:
        def __init__(self, app: ASGIApp) -> None:
            self._app = app

        async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
            scope["user"] = scope["auth"] = None
            try:
                scope["user"] = await identity.principal(shown_by(scope))
            except Unknown as unknown:
                scope["auth"] = unknown
            await self._app(scope, receive, send)

    return Who


def shown_by(scope: Scope) -> Shown:
    """What the caller of ``scope`` shows of itself."""
    headers = {key: value.decode("latin-1") for key, value in scope["headers"] if key in (b"authorization", b"cookie")}
    client = scope.get("client")
    state = scope.get("state") or {}
    return Shown(
        address=client[0] if client else "",
        authorization=headers.get(b"authorization", "")[:_LONGEST],
        session=_cookie(headers.get(b"cookie", "")[:_LONGEST]),
        certificate=state.get("certificate", b""),
    )


def _cookie(header: str) -> str:
    try:
        found = SimpleCookie(header).get(COOKIE)
    except CookieError:
        return ""
    return found.value if found else ""
