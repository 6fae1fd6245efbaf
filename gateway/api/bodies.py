"""What is sent, before anybody reads it: of the right media type, not too long, not nested without end.

Middleware. Whoever may not use the operation is refused without a byte of the body being read. That a JSON body must say that it
is JSON also keeps a page of somebody else's from sending one in the name of whoever has a session (a form cannot say it).
"""

from __future__ import annotations

import asyncio
import re
from typing import Final

from litestar.connection import ASGIConnection
from litestar.enums import RequestEncodingType, ScopeType
from litestar.handlers import BaseRouteHandler
from litestar.handlers.http_handlers import HTTPRouteHandler
from litestar.types import ASGIApp, Receive, Scope, Send
from litestar.types.asgi_types import ReceiveMessage

from gateway.api import operation
from gateway.objections import Objection, TooLarge, Unfit, WrongMediaType

DEEPEST: Final = 32
"""Levels of JSON."""
_SHORT: Final = 16 * 1024
"""Bytes that are looked at in the loop itself."""
_MARKS: Final = re.compile(rb'"(?:[^"\\]|\\.)*+"|[\[\]{}]')
_OPEN: Final = b"[{"


def bodies(app: ASGIApp) -> ASGIApp:
    """The middleware. Whoever comes after it gets the whole body in one message."""

    async def checked(scope: Scope, receive: Receive, send: Send) -> None:
        handler = scope.get("route_handler")
        if scope["type"] != ScopeType.HTTP or not isinstance(handler, HTTPRouteHandler) or scope["method"] in ("GET", "HEAD", "OPTIONS"):
            await app(scope, receive, send)
        elif await may(scope, handler):
            body = await _whole(scope, receive, handler.resolve_request_max_body_size())
            if body is None:
                return
            await _judge(scope, handler, body)
            await app(scope, _given_again(body, receive), send)
        else:
            await app(scope, receive, send)

    return checked


async def may(scope: Scope, handler: BaseRouteHandler) -> bool:
    """Whether the operation's guard would let the caller in. (It is asked again when the operation is, and says why not.)"""
    try:
        await operation.guard(ASGIConnection(scope), handler)
    except Objection:
        return False
    return True


async def _whole(scope: Scope, receive: Receive, most: int | None) -> bytes | None:
    """The body; None where the caller has gone. Raises TooLarge as soon as that is known."""
    parts: list[bytes] = []
    size = 0
    told = header(scope, b"content-length")
    while True:
        if most is not None and max(size, int(told) if told.isdecimal() else 0) > most:
            raise TooLarge(f"the body is longer than {most} bytes", "send less at once")
        message = await receive()
        if message["type"] != "http.request":
            return None
        parts.append(message.get("body", b""))
        size += len(parts[-1])
        if not message.get("more_body"):
            break
    if most is not None and size > most:
        raise TooLarge(f"the body is longer than {most} bytes", "send less at once")
    return b"".join(parts)


async def _judge(scope: Scope, handler: HTTPRouteHandler, body: bytes) -> None:
    data = handler.parsed_data_field
    if data is None or not body or getattr(data.kwarg_definition, "media_type", RequestEncodingType.JSON) != RequestEncodingType.JSON:
        return
    said = header(scope, b"content-type").partition(";")[0].strip().lower()
    if said != "application/json":
        raise WrongMediaType(
            f"the body is {said or 'of no type that is told'}, and JSON is taken here", "send Content-Type: application/json"
        )
    deep = depth(body) if len(body) <= _SHORT else await asyncio.to_thread(depth, body)
    if deep > DEEPEST:
        raise Unfit(f"the JSON is nested more than {DEEPEST} deep", "nothing that is taken here is")


def depth(body: bytes) -> int:
    """How deep JSON is nested. What is no JSON has some depth too; whoever decodes it says what is wrong."""
    if body.count(b"[") + body.count(b"{") <= DEEPEST:
        return 0
    level = deepest = 0
    for mark in _MARKS.finditer(body):
        sign = mark.group()
        if sign[0] in _OPEN:
            level += 1
            deepest = max(deepest, level)
        elif sign[0] != ord('"'):
            level -= 1
    return deepest


def header(scope: Scope, name: bytes) -> str:
    """The first header of this name (in small letters); empty where there is none."""
    return next((value.decode("latin-1") for key, value in scope["headers"] if key == name), "")


def _given_again(body: bytes, receive: Receive) -> Receive:
    told = False

    async def again() -> ReceiveMessage:
        nonlocal told
        if told:
            return await receive()
        told = True
        return {"type": "http.request", "body": body, "more_body": False}

    return again
