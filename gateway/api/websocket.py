"""A WebSocket as the API serves it: little memory for whoever does not read, and refusals that say why.

uvicorn's protocol with two things changed. Where a client takes nothing, transport and kernel hold MOST_BUFFER each and no megabytes.
And a close frame is written although the transport is full: it is a hundred bytes, and tells the client why it was cut.

A handshake that is refused is answered with problem details (RFC 9457) over HTTP, as every other request. What a browser opens from
the page of somebody else is refused: it would come with the user's cookie (RFC 6455, 10.2).
"""

from __future__ import annotations

import socket
from asyncio.transports import BaseTransport
from typing import Any, Final
from urllib.parse import urlsplit

import msgspec
from litestar.connection import ASGIConnection
from litestar.types import ASGIApp, Receive, Scope, Send
from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol

from gateway.api import operation, problems
from gateway.objections import NotAllowed, Objection, Unknown

MOST_BUFFER: Final = 64 * 1024
MOST_MESSAGE: Final = 64 * 1024
"""Of what a client sends."""
PING_S: Final = 20.0


class WebSocketProtocol(WebSocketsSansIOProtocol):
    def connection_made(self, transport: BaseTransport) -> None:
        super().connection_made(transport)
        self.transport.set_write_buffer_limits(high=MOST_BUFFER)
        self.transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, MOST_BUFFER)

    async def send(self, message: Any) -> None:  # Any: uvicorn's own
        if message["type"] == "websocket.close":
            self.writable.set()
        await super().send(message)


class Refusals:
    """Middleware of a WebSocket's handler: asks the guard before the handshake, and answers over HTTP where it refuses."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            must_be_own_page(scope)
            await operation.guard(ASGIConnection(scope), scope["route_handler"])
        except Objection as objection:
            await refuse(objection, scope, receive, send)
        else:
            await self._app(scope, receive, send)


def must_be_own_page(scope: Scope) -> None:
    """Raises NotAllowed where a browser says that the page of another origin asks."""
    headers = dict(scope["headers"])
    origin, host = headers.get(b"origin", b"").decode("latin-1"), headers.get(b"host", b"").decode("latin-1")
    if origin and urlsplit(origin).netloc.lower() != host.lower():
        raise NotAllowed("a page of another origin may not follow this gateway", "open the page from the gateway, or send no Origin")


async def refuse(objection: Objection, scope: Scope, receive: Receive, send: Send) -> None:
    """Answer a handshake with problem details."""
    status = problems.STATUS[type(objection)]
    told = problems.details(status, objection.code, objection.detail, objection.advice, scope["path"])
    headers = [(b"content-type", problems.MEDIA_TYPE.encode())]
    if isinstance(objection, Unknown):
        headers.append((b"www-authenticate", b'Bearer realm="holdfast"'))
    if status in (429, 503):
        headers.append((b"retry-after", str(problems.RETRY_AFTER_S).encode()))
    await receive()
    start: Any = {"type": "websocket.http.response.start", "status": status, "headers": headers}  # Any: the extension of ASGI
    body: Any = {"type": "websocket.http.response.body", "body": msgspec.json.encode(told), "more_body": False}  # Any: the same
    await send(start)
    await send(body)
