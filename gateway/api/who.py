"""Who sends a request: middleware that shows the caller's credentials to the identity and puts the principal into the scope.

It refuses nobody: ``operation.guard`` does, for it knows what the operation needs. Why somebody is unknown goes with the
request, so that the refusal says it.

A browser sends a cookie along with whatever any page makes it ask, so a cookie alone proves nobody's will. It counts for what
changes something, and for a WebSocket, only where the browser says that the page is ours (Origin), or where the request has a
header that no other page can add without our consent (``X-Holdfast``; Fetch, 3.2.2: we never answer a preflight). The cookie's
SameSite=Strict does not do: a page of another port of this host is of the same site.
"""

from __future__ import annotations

from http.cookies import CookieError, SimpleCookie
from typing import Any, Final

from litestar.enums import ScopeType
from litestar.types import ASGIApp, Receive, Scope, Send

from gateway.api.limits import Rates
from gateway.identity.identity import Identity, Shown
from gateway.objections import NotAllowed, Unknown

COOKIE: Final = "__Host-holdfast_session"
HEADER: Final = b"x-holdfast"
"""A request with this header, whatever it says, was made by no page of another origin."""
SAFE: Final = ("GET", "HEAD", "OPTIONS")
_LONGEST: Final = 8192


def who(identity: Identity, rates: Rates) -> type:
    """The middleware, for ``identity``. ``rates`` says how often somebody may ask, wherever they come from."""

    class Who:
        def __init__(self, app: ASGIApp) -> None:
            self._app = app

        async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
            scope["user"] = scope["auth"] = None
            shown = shown_by(scope)
            try:
                scope["user"] = await identity.principal(shown)
                if shown.session and not shown.authorization and _changes(scope):
                    must_be_same_origin(scope)
            except (Unknown, NotAllowed) as refusal:
                scope["user"], scope["auth"] = None, refusal
            if scope["user"] is not None and scope["type"] != ScopeType.WEBSOCKET:  # live streams have limits of their own
                rates.take(scope["user"].called)
            await self._app(scope, receive, send)

    return Who


def shown_by(scope: Any) -> Shown:  # Any: a Scope of Litestar's, of whichever kind
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


def must_be_same_origin(scope: Any) -> None:  # Any: as above
    """Raises NotAllowed where a page of another origin may have made this request."""
    headers = dict(scope["headers"])
    origin, host = headers.get(b"origin"), headers.get(b"host", b"")
    if origin is None:
        if HEADER in headers or scope["type"] == "websocket":  # a browser's WebSocket always says its origin (RFC 6455, 4.1)
            return
        raise NotAllowed("a request with a cookie that changes something needs the header X-Holdfast", "send X-Holdfast: 1")
    if origin.lower() != b"https://" + host.lower():
        raise NotAllowed("this request was made by a page of another origin", "use the gateway's own pages, or a token")


def _changes(scope: Any) -> bool:  # Any: as above
    return scope["type"] == "websocket" or scope["method"] not in SAFE


def _cookie(header: str) -> str:
    try:
        found = SimpleCookie(header).get(COOKIE)
    except CookieError:
        return ""
    return found.value if found else ""
