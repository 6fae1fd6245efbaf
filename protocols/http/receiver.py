"""The webhook's server: sockets, limits on everything that a peer can do slowly or often, and short answers. aiohttp parses.

Who may connect is counted when a connection is accepted, before TLS: a peer that never ends its handshake has a place, and loses
it in time. Headers must be there within ``request_timeout_s`` of the connection, or of the last answer; so must the body be
after them. What is answered tells nothing but a number; what was wrong is told to our own operator.
"""

from __future__ import annotations

import asyncio
import functools
import socket
import ssl
import struct
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Final

from aiohttp import web

from protocols.contract import Misfit, Unreachable
from protocols.http.limits import peer_of

LINGER_S: Final = 2.0
"""How long the rest of a refused body is read over, so that the peer can read the answer."""
CLOSE_S: Final = 1.0
BACKLOG: Final = 128
ACCEPTS: Final = 16
"""Connections that are accepted in one turn of the loop."""
PAUSE_S: Final = 0.1
AT_ONCE: Final = 8 * 1024
"""Bytes (the kernel doubles it) that a peer can have waiting for us."""
LONGEST_LINE: Final = 8190
MOST_HEADERS: Final = 64
_RESET: Final = struct.pack("ii", 1, 0)
AGENT: Final = {"Server": "Holdfast"}

Handle = Callable[[web.BaseRequest], Awaitable[web.StreamResponse]]


class Receiver:
    """``open`` listens, ``close`` ends every connection. ``handle`` answers each request."""

    def __init__(
        self,
        handle: Handle,
        *,
        count: Callable[[str], None],
        failed: Callable[[BaseException], None],
        most: int,
        most_per_peer: int,
        timeout_s: float,
    ) -> None:
        """``count`` is told a word for each connection or request that is turned away, ``failed`` an error of our own."""
        self.count, self.failed = count, failed
        self._most, self._most_per_peer, self._timeout_s = most, most_per_peer, timeout_s
        self._server = web.Server(handle)
        self._peers: Counter[str] = Counter()
        self._listening: socket.socket | None = None
        self._tls: ssl.SSLContext | None = None
        self._handshakes: set[asyncio.Task[None]] = set()
        self._accepted: set[socket.socket] = set()
        """Sockets that no protocol has yet."""

    async def open(self, host: str, port: int, tls: ssl.SSLContext | None) -> None:
        """Raises Misfit where the address is not this machine's, Unreachable where another program has the port."""
        where = f"{host}:{port}"
        try:
            (family, kind, protocol, _, place), *_ = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM)
            self._listening = socket.socket(family, kind, protocol)
            self._listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            self._listening.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, AT_ONCE)  # accepted sockets inherit it
            self._listening.setblocking(False)
            self._listening.bind(place)
            self._listening.listen(BACKLOG)
        except socket.gaierror as error:
            raise Misfit(f"listen_host {host}: the name is not known ({error.strerror}): write an address of this machine") from None
        except PermissionError as error:
            raise Misfit(f"{where}: not allowed to listen there ({error.strerror}): write a port above 1023") from None
        except OSError as error:
            raise Unreachable(
                f"{where}: cannot listen there ({error.strerror}): check listen_host, and that nobody else has the port"
            ) from None
        self._tls = tls
        self._watch()

    async def close(self) -> None:
        if self._listening is not None:
            asyncio.get_running_loop().remove_reader(self._listening)
            self._listening.close()
            self._listening = None
        for task in self._handshakes:
            task.cancel()
        await asyncio.gather(*self._handshakes, return_exceptions=True)
        for accepted in self._accepted:
            accepted.close()
        self._accepted.clear()
        self._server.pre_shutdown()  # who is idle leaves now, who is being answered gets the answer
        await self._server.shutdown(CLOSE_S)

    def _watch(self) -> None:
        if self._listening is not None:
            asyncio.get_running_loop().add_reader(self._listening, self._accept, self._listening)

    def _accept(self, listening: socket.socket) -> None:
        """Somebody knocks: let in who may, a few at a time."""
        loop = asyncio.get_running_loop()
        for _ in range(ACCEPTS):
            try:
                accepted, address = listening.accept()
            except BlockingIOError:
                return
            except OSError:  # no descriptor is left, or the peer was gone before: others may leave meanwhile
                self.count("accept")
                loop.remove_reader(listening)
                loop.call_later(PAUSE_S, self._watch)
                return
            peer = peer_of(str(address[0]))
            if self._peers.total() >= self._most or self._peers[peer] >= self._most_per_peer:
                self.count("too_many_connections")
                accepted.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
                accepted.close()
                continue
            self._accepted.add(accepted)
            task = loop.create_task(self._welcome(accepted, self._seat(peer)))
            self._handshakes.add(task)
            task.add_done_callback(self._handshakes.discard)

    def _seat(self, peer: str) -> Callable[[], None]:
        """Count a connection of ``peer``; what is given takes it back, once."""
        taken = True
        self._peers[peer] += 1

        def leave() -> None:
            nonlocal taken
            if taken:
                taken = False
                self._peers[peer] -= 1
                self._peers += Counter()  # forgets who has none

        return leave

    async def _welcome(self, accepted: socket.socket, leave: Callable[[], None]) -> None:
        """Hand an accepted socket to a protocol, after its TLS handshake."""
        loop = asyncio.get_running_loop()
        make = functools.partial(_Talk, self._server, self, leave, loop=loop, **self._talk_options())
        times = {"ssl_handshake_timeout": self._timeout_s, "ssl_shutdown_timeout": CLOSE_S} if self._tls is not None else {}
        accepted.setblocking(False)
        try:
            await loop.connect_accepted_socket(make, accepted, ssl=self._tls, **times)
            self._accepted.discard(accepted)
        except (OSError, TimeoutError, asyncio.CancelledError) as error:
            leave()
            accepted.close()
            self._accepted.discard(accepted)
            self.count("handshake")
            if isinstance(error, asyncio.CancelledError):
                raise

    def _talk_options(self) -> dict[str, Any]:  # Any: aiohttp's arguments
        return {
            "keepalive_timeout": self._timeout_s,
            "lingering_time": LINGER_S,
            "auto_decompress": False,
            "access_log": None,
            "max_line_size": LONGEST_LINE,
            "max_field_size": LONGEST_LINE,
            "max_headers": MOST_HEADERS,
        }


class _Talk(web.RequestHandler):
    """One connection. aiohttp's, but that it says less, to peers and in logs, and that it is counted."""

    def __init__(
        self, server: web.Server, receiver: Receiver, leave: Callable[[], None], **options: Any
    ) -> None:  # Any: aiohttp's arguments
        super().__init__(server, **options)
        self._receiver, self._seat = receiver, leave

    def connection_lost(self, exc: BaseException | None) -> None:
        super().connection_lost(exc)
        self._seat()

    def handle_error(
        self, request: web.BaseRequest, status: int = 500, exc: BaseException | None = None, message: str | None = None
    ) -> web.StreamResponse:
        if status >= 500 and exc is not None:
            self._receiver.failed(exc)
        else:
            self._receiver.count("malformed")
            while exc is not None:  # its frames hold what was received, until the garbage collector comes by
                exc.__traceback__ = None
                exc = exc.__cause__ or exc.__context__
        return answer(status, closes=True)

    def log_exception(self, *args: Any, **options: Any) -> None:  # Any: logging's
        """What a peer does wrong is counted, and never fills a log."""
        self._receiver.count("broken")


def answer(status: int, *, headers: Mapping[str, str] | None = None, closes: bool = False) -> web.Response:
    """An answer without a word in it."""
    response = web.Response(status=status, headers={**AGENT, **(headers or {})})
    if closes:
        response.force_close()
    return response
