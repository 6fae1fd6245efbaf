"""ETags (RFC 9110, 8.8.3): a digest of what is given, so that nobody transfers it twice, or changes what has changed meanwhile.

Every JSON answer of a GET gets one, and 304 where the caller has it already. A write that may be made on an old state of things
asks :func:`must_match` with the same representation that GET gives.
"""

from __future__ import annotations

import hashlib
from typing import Any, Final

import msgspec
from litestar.datastructures import MutableScopeHeaders
from litestar.enums import ScopeType
from litestar.types import ASGIApp, HTTPResponseStartEvent, Message, Receive, Scope, Send

from gateway.api.operation import Asked
from gateway.objections import Outdated

LONGEST: Final = 4 * 1024 * 1024
"""Longer answers have none: a digest of them would hold the loop."""


def etag_of(shown: Any) -> str:  # Any: a Struct of holdfast.shapes
    """The ETag of ``shown`` as GET gives it."""
    return _etag(msgspec.json.encode(shown))


def must_match(request: Asked, shown: Any) -> None:  # Any: as etag_of
    """Raises Outdated where the caller's If-Match names another state than ``shown``. Without If-Match anything matches."""
    wanted = request.headers.get("if-match")
    if wanted is not None and not _matches(wanted, etag_of(shown)):
        raise Outdated("it has changed since you read it", "read it again, then decide again")


def _etag(body: bytes) -> str:
    return f'"{hashlib.sha256(body).hexdigest()[:32]}"'


def _matches(listed: str, etag: str) -> bool:
    return listed.strip() == "*" or etag in [each.strip().removeprefix("W/") for each in listed.split(",")]


def etags(app: ASGIApp) -> ASGIApp:
    """Middleware: ETag on every JSON answer of a GET that comes in one piece; 304 where the caller has it."""

    async def answer(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != ScopeType.HTTP or scope["method"] != "GET":
            await app(scope, receive, send)
            return
        start: HTTPResponseStartEvent | None = None

        async def tagged(message: Message) -> None:
            nonlocal start
            if message["type"] == "http.response.start" and message["status"] == 200 and _is_json(message):
                start = message
            elif message["type"] == "http.response.body" and start is not None:
                begun, start = start, None
                body = message.get("body", b"")
                if not message.get("more_body") and len(body) <= LONGEST:
                    headers = MutableScopeHeaders.from_message(begun)
                    headers["ETag"] = etag = _etag(body)
                    if _matches(_header(scope, b"if-none-match") or '""', etag):
                        begun["status"] = 304
                        headers["Content-Length"] = "0"
                        message = {"type": "http.response.body", "body": b"", "more_body": False}
                await send(begun)
                await send(message)
            else:
                await send(message)

        await app(scope, receive, tagged)

    return answer


def _is_json(message: HTTPResponseStartEvent) -> bool:
    return any(key.lower() == b"content-type" and value.startswith(b"application/json") for key, value in message["headers"])


def _header(scope: Scope, name: bytes) -> str:
    return next((value.decode("latin-1") for key, value in scope["headers"] if key == name), "")
