"""The sockets of the CoAP server: UDP, TCP and TLS. Hands requests to a handler and sends what it answers. Shell.

No answer carries a payload, so none is much longer than its request (no amplification, RFC 7252, 11.3). Multicast groups are not joined.
"""

from __future__ import annotations

import asyncio
import socket
import ssl
from collections import deque
from collections.abc import Awaitable, Callable
from typing import Any, Final

import msgspec

from protocols.coap.admission import Gate, Repetitions
from protocols.coap.message import (
    CSM,
    EMPTY,
    PING,
    PONG,
    Broken,
    Frames,
    Message,
    Type,
    decode_udp,
    encode_tcp,
    encode_udp,
    uint,
)
from protocols.coap.server_config import CoapServer
from protocols.contract import DriverError, Misfit, Unreachable
from protocols.model import ScanStats

LARGEST_TCP: Final = 128 * 1024
MOST_AT_ONCE: Final = 64
"""Requests that are handled at once; more are not answered, and come again."""
SETTINGS_S: Final = 10.0
"""A connection that has not sent its settings by then is closed."""
IDLE_S: Final = 3600.0
MAX_UNREAD: Final = 64 * 1024
CLOSE_S: Final = 1.0
PER_PEER: Final = 16
"""TCP connections of one address."""

Handle = Callable[[Message, str, object], Awaitable[Message | None]]
"""``await handle(request, address, sender)``: the response (type, id and token are set here), or None for none."""
Say = Callable[[str, str], None]
"""Tell a person once about an address and a thing."""


class Doors:
    """Everything that one server listens on."""

    def __init__(self, options: CoapServer, handle: Handle, say: Say, stats: ScanStats, context: ssl.SSLContext | None) -> None:
        self.options, self.handle, self.say, self.stats, self._context = options, handle, say, stats, context
        self.loop = asyncio.get_running_loop()
        self.gate = Gate(options.rate_per_s, options.burst)
        self.repetitions = Repetitions()
        self.talks: set[Talk] = set()
        self._udp: _Datagrams | None = None
        self._servers: list[asyncio.Server] = []
        self._sockets: list[socket.socket] = []
        self._tasks: set[asyncio.Task[None]] = set()

    async def open(self) -> None:
        """Raises Unreachable, Misfit."""
        options = self.options
        for scheme in options.schemes:
            port = options.tls_port if scheme == "coaps+tcp" else options.listen_port
            try:
                await self._open(scheme, port)
            except (OSError, OverflowError) as error:
                raise _listen_error(f"{options.listen_host}:{port}", scheme, error) from error

    async def _open(self, scheme: str, port: int) -> None:
        """Every socket is ours before anything is waited for, so that who is cancelled leaves none behind."""
        kind = socket.SOCK_DGRAM if scheme == "coap" else socket.SOCK_STREAM
        found = await self.loop.getaddrinfo(self.options.listen_host, port, type=kind, flags=socket.AI_PASSIVE)
        raw = socket.socket(found[0][0], kind)
        self._sockets.append(raw)
        raw.setblocking(False)
        if kind == socket.SOCK_STREAM:
            raw.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        raw.bind(found[0][4])
        if scheme == "coap":
            door = self._udp = _Datagrams(self)
            await self.loop.create_datagram_endpoint(lambda: door, sock=raw)
            return
        context = self._context if scheme == "coaps+tcp" else None
        server = await self.loop.create_server(lambda: Talk(self), sock=raw, ssl=context, start_serving=False)
        self._servers.append(server)
        await server.start_serving()

    async def close(self) -> None:
        """Give everything back. Safe at any moment, and twice."""
        for task in self._tasks:
            task.cancel()
        for server in self._servers:
            server.close()
        gone = [talk.gone for talk in self.talks]
        for talk in tuple(self.talks):
            talk.end()
        if self._udp is not None:
            gone.append(self._udp.gone)
            self._udp.end()
        if waits := [*self._tasks, *gone]:
            await asyncio.wait(waits, timeout=CLOSE_S)
        for raw in self._sockets:
            raw.close()

    def count(self, reason: str) -> None:
        self.stats.errors[reason] = self.stats.errors.get(reason, 0) + 1

    def admits(self, peer: str) -> bool:
        if self.gate.admits(peer, self.loop.time()):
            return True
        self.count("rate_limited")
        self.say(peer, "sends more than rate_per_s and burst allow: what is too much waits (TCP) or gets no answer (UDP)")
        return False

    def work(self, doing: Callable[[], Any]) -> bool:  # Any: a coroutine
        """Run a request's handling beside the sockets; False where there are too many already."""
        if len(self._tasks) >= MOST_AT_ONCE:
            self.count("busy")
            return False
        task: asyncio.Task[None] = self.loop.create_task(doing())
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return True


class _Datagrams(asyncio.DatagramProtocol):
    """UDP."""

    def __init__(self, doors: Doors) -> None:
        self._doors = doors
        self._transport: asyncio.DatagramTransport | None = None
        self._id = 0
        self.gone: asyncio.Future[None] = doors.loop.create_future()

    def connection_made(self, transport: Any) -> None:  # Any: uvloop's transports share no class with asyncio's
        self._transport = transport

    def connection_lost(self, exc: Exception | None) -> None:
        if not self.gone.done():
            self.gone.set_result(None)

    def end(self) -> None:
        if self._transport is not None:
            self._transport.abort()
            self._transport = None

    def datagram_received(self, data: bytes, addr: Any) -> None:  # Any: an address, as asyncio says
        doors = self._doors
        if not doors.admits(addr[0]):
            return
        doors.stats.requests += 1
        try:
            message = decode_udp(data)
        except Broken:
            doors.count("broken")
            return
        if message.is_request and message.type in (Type.CON, Type.NON):
            known, answer = doors.repetitions.seen(addr, data, doors.loop.time())
            if known:
                doors.count("repeated")
                if answer is not None and message.type == Type.CON:
                    self._send(answer, addr)
                return
            doors.work(lambda: self._serve(message, data, addr))
        elif message.type == Type.CON:  # a ping, or a response to nothing
            doors.count("foreign")
            self._send(encode_udp(Message(code=EMPTY, type=Type.RST, id=message.id)), addr)
        else:
            doors.count("foreign")

    async def _serve(self, message: Message, data: bytes, addr: Any) -> None:  # Any: as above
        doors = self._doors
        doors.repetitions.note(addr, data, doors.loop.time())
        response = None
        try:
            response = await doors.handle(message, addr[0], addr)
        finally:
            if response is None:
                doors.repetitions.forget(addr, data)
        if response is None:
            return
        self._id = (self._id + 1) & 0xFFFF
        is_sure = message.type == Type.CON
        answer = encode_udp(
            msgspec.structs.replace(
                response,
                token=message.token,
                type=Type.ACK if is_sure else Type.NON,
                id=message.id if is_sure else self._id,
            )
        )
        if response.is_success:
            doors.repetitions.answered(addr, data, answer)
        else:
            doors.repetitions.forget(addr, data)  # a refusal can be said again, and takes no room
        self._send(answer, addr)

    def _send(self, data: bytes, addr: Any) -> None:  # Any: as above
        if self._transport is not None:
            self._transport.sendto(data, addr)


class Talk(asyncio.Protocol):
    """One TCP connection."""

    def __init__(self, doors: Doors) -> None:
        self._doors = doors
        self._frames = Frames(LARGEST_TCP)
        self._transport: asyncio.Transport | None = None
        self._peer = ""
        self._is_known = False
        self._timer: asyncio.TimerHandle | None = None
        self._queue: deque[Message] = deque()
        self.gone: asyncio.Future[None] = doors.loop.create_future()

    def connection_made(self, transport: Any) -> None:  # Any: as above
        doors = self._doors
        self._transport = transport
        self._peer = str((transport.get_extra_info("peername") or ("?",))[0])
        doors.talks.add(self)
        if len(doors.talks) > doors.options.max_connections or sum(one._peer == self._peer for one in doors.talks) > PER_PEER:
            doors.count("too_many")
            doors.say(self._peer, "opens more connections than max_connections, or 16 of its own: they are closed")
            transport.abort()
            return
        self._patience(SETTINGS_S)
        self._send(Message(code=CSM, options=((2, uint(LARGEST_TCP)),)))

    def connection_lost(self, exc: Exception | None) -> None:
        self._doors.talks.discard(self)
        if self._timer is not None:
            self._timer.cancel()
        if not self.gone.done():
            self.gone.set_result(None)

    def data_received(self, data: bytes) -> None:
        try:
            messages = self._frames.feed(data)
        except Broken:
            self._doors.count("broken")
            self.end()
            return
        self._queue.extend(messages)
        self._drain()

    def _drain(self) -> None:
        """Take what came, as fast as the peer may send; then it is not read for a while: on a stream nothing can be left out."""
        transport = self._transport
        while self._queue and transport is not None and not transport.is_closing():
            if not self._doors.admits(self._peer):
                transport.pause_reading()
                self._doors.loop.call_later(max(0.01, 1 / self._doors.options.rate_per_s), self._drain)
                return
            self._take(self._queue.popleft())
        if transport is not None and not transport.is_closing() and not transport.is_reading():
            transport.resume_reading()

    def _take(self, message: Message) -> None:
        doors = self._doors
        doors.stats.requests += 1
        if message.code == CSM:
            self._is_known = True
            self._patience(IDLE_S)
        elif not self._is_known or (message.code > PING and message.code != PONG):
            self.end()
        elif message.code == PING:
            self._send(Message(code=PONG, token=message.token))
        elif message.is_request:
            self._patience(IDLE_S)
            if not doors.work(lambda: self._serve(message)):
                self.end()

    async def _serve(self, message: Message) -> None:
        response = await self._doors.handle(message, self._peer, self)
        if response is not None:
            self._send(msgspec.structs.replace(response, token=message.token))

    def _send(self, message: Message) -> None:
        transport = self._transport
        if transport is None or transport.is_closing():
            return
        transport.write(encode_tcp(message))
        if transport.get_write_buffer_size() > MAX_UNREAD:
            self.end()

    def _patience(self, seconds: float) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._timer = self._doors.loop.call_later(seconds, self.end)

    def end(self) -> None:
        if self._transport is not None:
            self._transport.abort()


def _listen_error(where: str, scheme: str, error: OSError | OverflowError) -> DriverError:
    text = getattr(error, "strerror", None) or str(error)
    if isinstance(error, PermissionError):
        return Misfit(f"{where} ({scheme}): {text}: ports below 1024 need a right that the service does not have")
    return Unreachable(f"{where} ({scheme}): cannot be listened on ({text}): check listen_host, and that nothing else has the port")
