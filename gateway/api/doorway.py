"""Connections are accepted here, and not by uvicorn, which takes as many as come and waits for ever for what they do not send.

So many at once, in all and of one address, those whose TLS handshake is not done among them: descriptors are the whole
gateway's, and its journal needs some. A handshake, and the head of each request, have a time and a length.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import ssl
from collections.abc import Callable
from typing import Any, Final

import structlog
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from gateway.config.api import Limits
from gateway.identity.attempts import place
from protocols.clock import Clock

log = structlog.get_logger("holdfast.api")

MOST_HEAD: Final = 64 * 1024
"""Bytes of a request before its body."""
AGAIN_S: Final = 0.5
"""Where the machine has no descriptor left, it is tried again so soon."""
SAID_EVERY_S: Final = 60.0
CLOSE_S: Final = 3.0


class Doorway:
    """Accepts on ``sock`` and gives each connection a protocol of ``make``, and the ``context`` of that moment to shake hands with."""

    def __init__(
        self, sock: socket.socket, context: Callable[[], ssl.SSLContext], make: Callable[[], asyncio.Protocol], limits: Limits, clock: Clock
    ) -> None:
        self._sock = sock
        self._context = context
        self._make = make
        self._limits = limits
        self._clock = clock
        self._open: dict[asyncio.BaseTransport, str] = {}
        self._greeting: dict[asyncio.Task[None], str] = {}
        self._said = -SAID_EVERY_S

    async def keep(self) -> None:
        """Accept until cancelled."""
        loop = asyncio.get_running_loop()
        try:
            while True:
                try:
                    connection, address = await loop.sock_accept(self._sock)
                except OSError as error:
                    self._say("connections_not_accepted", trouble=str(error))
                    await asyncio.sleep(AGAIN_S)
                    continue
                self._welcome(connection, place(address[0]))
        finally:
            for task in list(self._greeting):
                task.cancel()

    def _welcome(self, connection: socket.socket, where: str) -> None:
        here = [*self._greeting.values(), *self._still_open()]
        if len(here) >= self._limits.connections or here.count(where) >= self._limits.connections_per_address:
            connection.close()
            self._say("connections_refused", address=where, open=len(here))
            return
        connection.setblocking(False)
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        task = asyncio.get_running_loop().create_task(self._greet(connection, where))
        self._greeting[task] = where
        task.add_done_callback(lambda done: self._greeting.pop(done, None))

    async def _greet(self, connection: socket.socket, where: str) -> None:
        """A handshake that fails, or takes too long, ends the connection, and concerns nobody else."""
        try:
            transport, _ = await asyncio.get_running_loop().connect_accepted_socket(
                self._make, connection, ssl=self._context(), ssl_handshake_timeout=self._limits.patience_s, ssl_shutdown_timeout=CLOSE_S
            )
        except (OSError, asyncio.CancelledError) as failed:  # ssl's errors are OSErrors
            with contextlib.suppress(OSError):
                connection.close()
            if isinstance(failed, asyncio.CancelledError):
                raise
            return
        self._open[transport] = where

    def _still_open(self) -> list[str]:
        self._open = {transport: where for transport, where in self._open.items() if not transport.is_closing()}
        return list(self._open.values())

    def _say(self, event: str, **more: Any) -> None:
        now = self._clock.monotonic()
        if now - self._said >= SAID_EVERY_S:
            self._said = now
            log.warning(event, **more)


class TimelyHttp(HttpToolsProtocol):
    """uvicorn's protocol, with a time and a length for the head of each request."""

    patience_s = 20.0
    _timer: asyncio.TimerHandle | None = None
    _head: int | None = 0
    """Bytes of the head that is being received; None between heads."""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # uvicorn's own narrowing
        super().connection_made(transport)
        self._begin_head()

    def connection_lost(self, exc: Exception | None) -> None:
        self._end_head()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        before = self._head
        super().data_received(data)
        if self._head is not None:
            self._head += len(data) if before is not None else 0
            if self._head > MOST_HEAD:
                self.transport.abort()

    def on_message_begin(self) -> None:
        super().on_message_begin()
        if self._head is None:
            self._begin_head()

    def on_headers_complete(self) -> None:
        self._end_head()
        super().on_headers_complete()

    def _begin_head(self) -> None:
        self._head = 0
        self._timer = self.loop.call_later(self.patience_s, self.transport.abort)

    def _end_head(self) -> None:
        self._head = None
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
