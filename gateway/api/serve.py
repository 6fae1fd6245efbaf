"""The API on its port: uvicorn inside the gateway's own loop, TLS 1.3, kept alive by the same link that keeps everything else.

The socket is bound here, because uvicorn ends the process where a port is taken. The client's certificate, if it shows one
that the gateway's authority (or the site's) has signed, goes with each request.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import ssl
from collections.abc import Callable, Iterator
from typing import Any, Final

import structlog
import uvicorn

from gateway import links
from gateway.api.app import make
from gateway.api.doorway import Doorway, TimelyHttp
from gateway.api.limits import Limited
from gateway.api.services import Services
from gateway.api.trust import Trust
from gateway.api.websocket import MOST_MESSAGE, PING_S, WebSocketProtocol
from gateway.config.api import Api
from gateway.tasks import cancel
from protocols.contract import Refused

log = structlog.get_logger("holdfast.api")

STOP_S: Final = 3
BACKLOG: Final = 128


class _Server(uvicorn.Server):
    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Signals are the service's."""
        yield

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Connections are accepted by the doorway."""
        await self.lifespan.startup()
        self.servers = []
        self.started = True


class _Http(TimelyHttp):
    """Puts the client's certificate (DER), and a way to cut its connection, into the state of every request."""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # uvicorn's own narrowing
        super().connection_made(transport)
        tls = transport.get_extra_info("ssl_object")
        certificate = tls.getpeercert(binary_form=True) if tls else None
        self.app_state = {**self.app_state, "abort": transport.abort}
        if certificate:
            self.app_state["certificate"] = certificate


class ApiServer:
    """The API of one gateway. ``session`` is what a link keeps."""

    def __init__(self, options: Api, services: Services, status: links.Status) -> None:
        self._options = options
        self._services = services
        self._status = status
        self.port = 0
        """The port that it listens on, while it does."""

    async def session(self, up: links.Up) -> None:
        """Serve until cancelled. Raises Refused where the address cannot be listened on, Misfit where the certificate cannot be used."""
        await self._services.certificates.open()
        trust = Trust(self._options, self._services)
        await asyncio.to_thread(trust.take_over)
        limits = self._options.limits
        app = Limited(make(self._services), limits, self._services.clock)
        with _bound(self._options) as sock:
            server = _Server(_config(app, trust.now))
            task = asyncio.create_task(server.serve())
            doorway = Doorway(sock, lambda: trust.now, _protocols(server, limits.patience_s), limits, self._services.clock)
            door = asyncio.create_task(doorway.keep())
            fresh = asyncio.create_task(trust.keep_fresh())
            try:
                while not server.started and not task.done():  # noqa: ASYNC110 - uvicorn tells nobody
                    await asyncio.sleep(0.01)
                if task.done():
                    task.result()
                    raise Refused("the API did not start: see the log")
                self.port = sock.getsockname()[1]
                await self._services.identity.begin()
                log.info("api_serving", host=self._options.host, port=self.port)
                up()
                await asyncio.shield(task)
            finally:
                self.port = 0
                await cancel(door)
                await cancel(fresh)
                self._services.live.end_all("the gateway, or its API, stops")
                server.should_exit = True
                await _ended(task, server)


async def must_be_usable(options: Api, services: Services, *, bind: bool) -> None:
    """Raises Misfit or Refused where an API with ``options`` could not serve; ``bind`` tries its address too."""
    await services.certificates.open()
    await asyncio.to_thread(Trust(options, services).take_over)
    if bind:
        with _bound(options):
            pass


def _protocols(server: _Server, patience_s: float) -> Callable[[], asyncio.Protocol]:
    def make_one() -> asyncio.Protocol:
        one = _Http(config=server.config, server_state=server.server_state, app_state={})
        one.patience_s = patience_s
        return one

    return make_one


async def _ended(task: asyncio.Task[None], server: _Server) -> None:
    try:
        async with asyncio.timeout(2 * STOP_S):
            await asyncio.shield(task)
    except TimeoutError:
        server.force_exit = True
        await cancel(task)


def _config(app: Any, context: ssl.SSLContext) -> uvicorn.Config:  # Any: an ASGI application
    def given(_config: uvicorn.Config, _default: Callable[[], ssl.SSLContext]) -> ssl.SSLContext:
        return context

    return uvicorn.Config(
        app,
        http=_Http,
        ws=WebSocketProtocol,
        ws_max_size=MOST_MESSAGE,
        ws_per_message_deflate=False,  # it would cost each connection its memory, and the loop its time
        ws_ping_interval=PING_S,
        ws_ping_timeout=PING_S,
        loop="none",
        lifespan="off",
        ssl_context_factory=given,
        log_config=None,
        access_log=False,
        server_header=False,
        proxy_headers=False,  # nobody may say that they come from elsewhere
        timeout_graceful_shutdown=STOP_S,
        timeout_keep_alive=20,
        h11_max_incomplete_event_size=64 * 1024,
        backlog=BACKLOG,
    )


@contextlib.contextmanager
def _bound(options: Api) -> Iterator[socket.socket]:
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            options.host, options.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        sock = socket.socket(family, kind, protocol)
    except OSError as error:
        raise Refused(f"the API cannot listen on {options.host}: {error}: check host of api") from error
    with sock:
        try:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            sock.bind(address)
            sock.listen(BACKLOG)
        except OSError as error:
            raise Refused(f"the API cannot listen on {options.host}:{options.port}: {error}: free the port, or set another") from error
        sock.setblocking(False)
        yield sock
