"""The way to one device: one exchange in flight, writes ahead of reads, notifications to whoever listens. Shell.

The message layer of RFC 7252 (UDP: repetition, acknowledgement, reset) and of RFC 8323 (TCP, TLS: settings, ping) in as few lines as
one exchange at a time needs (NSTART is 1, RFC 7252, 4.7). What answers nothing is counted and thrown away, and a peer that sends
such things without end is cut off; the next question opens the way again. Trouble with one exchange is :class:`Missed`; a
connection that cannot be made is one of the driver contract's three errors.
"""

from __future__ import annotations

import asyncio
import os
import random
import socket
import ssl
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Final

import msgspec

from protocols.coap.config import PORTS, Coap, Device
from protocols.coap.message import (
    ABORT,
    CSM,
    EMPTY,
    PING,
    PONG,
    RELEASE,
    UNDERSTOOD_IN_RESPONSES,
    Broken,
    Frames,
    Message,
    Type,
    decode_udp,
    encode_tcp,
    encode_udp,
    uint,
)
from protocols.contract import DriverError, Misfit, Refused, Unreachable
from protocols.model import ScanStats
from protocols.turns import Turns

MAX_FOREIGN: Final = 256
"""Messages that nobody asked for, between two that somebody did: more, and the peer is cut off. Late answers are never so many."""
NEWS_PER_S: Final = 200.0
NEWS_AT_ONCE: Final = 400.0
"""Notifications of one device that are taken; more are dropped and counted."""
MAX_DROPPED: Final = 1000
"""So many dropped notifications without a calm between them, and the peer is cut off."""
SEEN: Final = 32
"""Confirmable messages that are remembered, so that a repetition is acknowledged again and not taken for another."""
LARGEST_TCP: Final = 128 * 1024
"""Bytes of one message over TCP; longer bodies come in blocks."""
DEFAULT_TCP: Final = 1152
"""What a peer takes that does not say (RFC 8323, 5.3.1)."""
UDP_BODY: Final = 1024
MAX_UNREAD: Final = 64 * 1024
"""Bytes that wait for a peer which does not read."""
CLOSE_S: Final = 1.0

Listener = Callable[[Message | None], None]
"""Gets each notification, and None when there will be no more because the way was lost."""


class Missed(Exception):
    """One exchange brought no usable answer.

    ``reason``: timeout (the device is not there), slow (it is there, and this resource does not answer), reset, refused, broken, cut,
    gone.
    """

    def __init__(self, reason: str, text: str) -> None:
        super().__init__(text)
        self.reason = reason


@dataclass(slots=True)
class _Exchange:
    """The one request that waits for its answer."""

    request: Message
    answer: asyncio.Future[Message]
    is_there: bool = False
    """The device acknowledged: it is there, whether it answers or not."""
    data: bytes = b""
    wait_s: float = 0.0
    left: int = 0
    timers: list[asyncio.TimerHandle] = field(default_factory=list)

    def stop(self) -> None:
        for timer in self.timers:
            timer.cancel()
        self.timers.clear()


class Wire(ABC):
    """What both ways have in common. ``ask`` and ``listen`` are all that a session needs."""

    largest = UDP_BODY
    """Bytes of payload that one message may carry to the device."""

    def __init__(self, device: Device, options: Coap, stats: ScanStats) -> None:
        self.where = device.where
        self.host, self.port = device.host, device.port or PORTS[device.scheme]
        self._options = options
        self._stats = stats
        self._loop = asyncio.get_running_loop()
        self._exchange: _Exchange | None = None
        self._listeners: dict[bytes, Listener] = {}
        self._turns = Turns()
        self.why = ""
        """Why the way was given up last, for a person."""
        self._foreign = self._dropped = 0
        self._news, self._news_at = NEWS_AT_ONCE, 0.0
        self._count_of_tokens = random.randrange(1 << 16)
        self._closed = False

    def token(self) -> bytes:
        """One that is in no use, and that nobody off the path can guess."""
        self._count_of_tokens = (self._count_of_tokens + 1) & 0xFFFF
        return self._count_of_tokens.to_bytes(2, "big") + os.urandom(4)

    def listen(self, token: bytes, listener: Listener) -> None:
        """Hand what comes with ``token``, and answers nothing that is in flight, to ``listener``."""
        self._listeners[token] = listener

    def forget(self, token: bytes) -> None:
        self._listeners.pop(token, None)

    async def ask(
        self, request: Message, *, confirmable: bool = True, urgent: bool = False, before: Callable[[], None] | None = None
    ) -> Message:
        """The response to ``request``. Urgent requests go first; each waits at most for the one in flight.

        ``before`` is called at the last moment and stops the request by raising. Raises Missed, or a DriverError where the device
        cannot be connected to.
        """
        if not self._turns.grab():
            await self._turns.wait(urgent=urgent)
        try:
            if self._closed:
                raise Missed("gone", f"{self.where}: the connection was closed")
            await self._open()
            if before is not None:
                before()
            return await self._carry(request, confirmable=confirmable)
        finally:
            self._turns.give_back()

    async def _carry(self, request: Message, *, confirmable: bool) -> Message:
        if not request.token:
            request = msgspec.structs.replace(request, token=self.token())
        exchange = _Exchange(request, self._loop.create_future())
        self._exchange = exchange
        self._stats.requests += 1
        try:
            exchange.timers.append(self._loop.call_later(self._options.timeout_s, self._overdue))
            self._begin(exchange, confirmable=confirmable)
            answer = await exchange.answer
        finally:
            exchange.stop()
            self._exchange = None
        if any(number & 1 and number not in UNDERSTOOD_IN_RESPONSES for number, _ in answer.options):
            raise self._missed("broken", "its answer has a critical option that is not understood (RFC 7252, 5.4.1)")
        return answer

    def _overdue(self) -> None:
        exchange = self._exchange
        if exchange is None:
            return
        wait = f"{self._options.timeout_s:g} s"
        if exchange.is_there:
            self._fail("slow", f"the device is there, and this resource did not answer within {wait}")
        else:
            self._fail("timeout", f"no answer within {wait}")
            self._silent()

    def _silent(self) -> None:  # noqa: B027 - nothing is the right thing over UDP
        """The device gave no sign of life."""

    def _missed(self, reason: str, text: str) -> Missed:
        self.count(reason)
        return Missed(reason, f"{self.where}: {text}")

    def count(self, reason: str) -> None:
        self._stats.errors[reason] = self._stats.errors.get(reason, 0) + 1

    def _fail(self, reason: str, text: str) -> None:
        """The request in flight, if any, has no answer."""
        if self._exchange is not None and not self._exchange.answer.done():
            self._exchange.answer.set_exception(self._missed(reason, text))

    def _response(self, message: Message) -> bool:
        """A response came: to the request in flight, or to whoever listens. False where nobody knows it."""
        exchange = self._exchange
        if exchange is not None and message.token == exchange.request.token:
            self._foreign = 0
            if not exchange.answer.done():
                exchange.answer.set_result(message)
            return True
        listener = self._listeners.get(message.token)
        if listener is None:
            return False
        if self._may_tell():
            self._foreign = 0
            listener(message)
        else:
            self._too_much()
        return True

    def _may_tell(self) -> bool:
        now = self._loop.time()
        self._news = min(NEWS_AT_ONCE, self._news + (now - self._news_at) * NEWS_PER_S)
        self._news_at = now
        if self._news == NEWS_AT_ONCE:
            self._dropped = 0
        if self._news < 1.0:
            return False
        self._news -= 1.0
        return True

    def _too_much(self) -> None:
        """A notification came too soon after the others, and is dropped."""
        self._dropped += 1
        self.count("flood")
        if self._dropped > MAX_DROPPED:
            self._cut("cut", f"it sends notifications faster than {NEWS_PER_S:g} a second: {MAX_DROPPED} were dropped")

    def _unasked(self) -> None:
        """Something came that answers nothing."""
        self._foreign += 1
        self.count("foreign")
        if self._foreign > MAX_FOREIGN:
            self._cut("cut", "it sends without end what nobody asked for: check what listens there")

    def _cut(self, reason: str, text: str) -> None:
        """Give the way up as it is; the next request opens it again."""
        self._foreign = self._dropped = 0
        self.why = text
        self._fail(reason, text)
        self._abandon()
        listeners, self._listeners = list(self._listeners.values()), {}
        for listener in listeners:
            listener(None)

    async def close(self) -> None:
        """Give everything back. Safe at any moment, and twice."""
        self._closed = True
        self._cut("gone", "the connection was closed")
        await self._left()

    @abstractmethod
    async def _open(self) -> None:
        """Return when a message can be sent. Raises a DriverError."""

    @abstractmethod
    def _begin(self, exchange: _Exchange, *, confirmable: bool) -> None:
        """Send the request, and see to its repetition."""

    @abstractmethod
    def tell(self, message: Message) -> None:
        """Send a request whose answer nobody waits for, if the way is open."""

    @abstractmethod
    def _abandon(self) -> None:
        """Close at once."""

    @abstractmethod
    async def _left(self) -> None:
        """Return when everything is closed."""


class UdpWire(Wire, asyncio.DatagramProtocol):
    """One socket for one device: the kernel keeps other senders away, and says where nobody listens."""

    def __init__(self, device: Device, options: Coap, stats: ScanStats) -> None:
        super().__init__(device, options, stats)
        self._transport: asyncio.DatagramTransport | None = None
        self._gone: list[asyncio.Future[None]] = []
        self._id = random.randrange(1 << 16)
        self._acknowledged: deque[int] = deque(maxlen=SEEN)

    async def _open(self) -> None:
        if self._transport is not None:
            return
        socket_of = _Datagrams(self, self._loop.create_future())
        try:
            async with asyncio.timeout(self._options.timeout_s):
                transport, _ = await self._loop.create_datagram_endpoint(lambda: socket_of, remote_addr=(self.host, self.port))
        except (OSError, TimeoutError) as error:
            raise connect_error(self.where, error, self._options.timeout_s) from error
        self._transport = transport
        self._gone.append(socket_of.gone)

    def received(self, data: bytes) -> None:
        """A datagram came."""
        try:
            message = decode_udp(data)
        except Broken:
            self.count("broken")
            self._unasked()
            return
        if message.type in (Type.ACK, Type.RST):
            self._reaction(message)
        elif message.is_response and message.type == Type.CON and message.id in self._acknowledged:
            self._reply(Type.ACK, message.id)  # our acknowledgement was lost
        elif message.is_response and self._response(message):
            if message.type == Type.CON:
                self._acknowledged.append(message.id)
                self._reply(Type.ACK, message.id)
        else:  # a response that nobody waits for, a ping, a request: we are no server here
            if message.type == Type.CON:
                self._reply(Type.RST, message.id)
            self._unasked()

    def _reaction(self, message: Message) -> None:
        """An acknowledgement or a reset: of the request in flight, or of nothing."""
        exchange = self._exchange
        if exchange is None or exchange.request.id != message.id:
            self._unasked()
        elif message.type == Type.RST:
            self._fail("reset", "it refused the message (reset): check scheme and port")
        elif message.code == EMPTY:
            exchange.is_there = True
            exchange.left = 0
        elif not (message.is_response and message.token == exchange.request.token and self._response(message)):
            self._unasked()

    def _reply(self, type_: Type, number: int) -> None:
        if self._transport is not None:
            self._transport.sendto(encode_udp(Message(code=EMPTY, type=type_, id=number)))

    def _number(self) -> int:
        self._id = (self._id + 1) & 0xFFFF
        return self._id

    def _begin(self, exchange: _Exchange, *, confirmable: bool) -> None:
        exchange.request = msgspec.structs.replace(exchange.request, type=Type.CON if confirmable else Type.NON, id=self._number())
        exchange.data = encode_udp(exchange.request)
        if confirmable:
            exchange.left = self._options.retransmits
            exchange.wait_s = self._options.ack_timeout_s * random.uniform(1.0, 1.5)  # ACK_RANDOM_FACTOR
        self._send(exchange)

    def _send(self, exchange: _Exchange) -> None:
        if exchange.answer.done() or self._transport is None:
            return
        self._transport.sendto(exchange.data)
        if exchange.wait_s:
            exchange.timers.append(self._loop.call_later(exchange.wait_s, self._again, exchange))
            exchange.wait_s *= 2

    def _again(self, exchange: _Exchange) -> None:
        if exchange.left > 0:
            exchange.left -= 1
            self.count("repeated")
            self._send(exchange)

    def tell(self, message: Message) -> None:
        if self._transport is not None:
            self._transport.sendto(encode_udp(msgspec.structs.replace(message, type=Type.NON, id=self._number())))

    def failed(self, error: OSError) -> None:
        """The kernel says that a datagram did not arrive."""
        if isinstance(error, ConnectionRefusedError):
            self._fail("refused", "nothing listens there: check port, and that the device's CoAP server is on")
        else:
            self._fail("refused", f"{error.strerror or error}: check the network")

    def _abandon(self) -> None:
        if self._transport is not None:
            self._transport.abort()
            self._transport = None

    async def _left(self) -> None:
        gone, self._gone = self._gone, []
        await asyncio.gather(*gone)


class _Datagrams(asyncio.DatagramProtocol):
    """The protocol of one socket: what comes late to an old socket is not taken for the new one's."""

    def __init__(self, wire: UdpWire, gone: asyncio.Future[None]) -> None:
        self._wire: UdpWire | None = wire
        self.gone = gone

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        pass

    def datagram_received(self, data: bytes, addr: object) -> None:
        if self._wire is not None:
            self._wire.received(data)

    def error_received(self, exc: Exception) -> None:
        if self._wire is not None and isinstance(exc, OSError):
            self._wire.failed(exc)

    def connection_lost(self, exc: Exception | None) -> None:
        self._wire = None
        if not self.gone.done():
            self.gone.set_result(None)


class TcpWire(Wire):
    """CoAP over TCP and TLS (RFC 8323)."""

    def __init__(self, device: Device, options: Coap, stats: ScanStats, context: ssl.SSLContext | None) -> None:
        super().__init__(device, options, stats)
        self._context = context
        self._name = (options.tls.server_name or device.host) if context is not None else None
        self._stream: _Stream | None = None
        self._old: set[_Stream] = set()

    async def _open(self) -> None:
        if self._stream is not None:
            return
        stream = _Stream(self)
        try:
            async with asyncio.timeout(self._options.timeout_s):
                await self._loop.create_connection(lambda: stream, self.host, self.port, ssl=self._context, server_hostname=self._name)
        except (OSError, TimeoutError) as error:
            raise connect_error(self.where, error, self._options.timeout_s) from error
        if self._closed:
            stream.end()
            raise Missed("gone", f"{self.where}: the connection was closed")
        self._stream = stream
        self.largest = UDP_BODY
        stream.send(Message(code=CSM, options=((2, uint(LARGEST_TCP)), (4, b""))))

    def received(self, stream: _Stream, messages: list[Message]) -> None:
        for message in messages:
            if stream is not self._stream:
                return
            if message.code >= CSM:
                self._signal(stream, message)
            elif not stream.is_known:
                self._cut("broken", "it does not begin with its settings (CSM): it speaks no CoAP over TCP")
            elif not (message.is_response and self._response(message)) and message.code != EMPTY:
                self._unasked()

    def _signal(self, stream: _Stream, message: Message) -> None:
        match message.code:
            case 0xE1:
                stream.is_known = True
                most = message.uint(2) or DEFAULT_TCP
                self.largest = max(UDP_BODY, min(most - DEFAULT_TCP + UDP_BODY, LARGEST_TCP // 2))
            case 0xE2:
                self._unasked()
                if stream is self._stream:
                    stream.send(Message(code=PONG, token=message.token))
            case 0xE3:
                if self._exchange is not None:
                    self._exchange.is_there = True
            case 0xE4 | 0xE5:
                word = "released" if message.code == RELEASE else "aborted"
                self._cut("cut", f"it {word} the connection: {message.payload[:80].decode('utf-8', 'replace') or 'it did not say why'}")
            case _:
                self._unasked()

    def lost(self, stream: _Stream, text: str) -> None:
        """The stream ended, or broke the rules."""
        if stream is self._stream:
            self._cut("cut", text)

    def _begin(self, exchange: _Exchange, *, confirmable: bool) -> None:
        exchange.timers.append(self._loop.call_later(self._options.timeout_s / 2, self._ping))
        if self._stream is not None:
            self._stream.send(exchange.request)

    def _ping(self) -> None:
        """Half of the patience is gone: is anybody there?"""
        if self._stream is not None:
            self._stream.send(Message(code=PING, token=self.token()))

    def tell(self, message: Message) -> None:
        if self._stream is not None:
            self._stream.send(message)

    def _silent(self) -> None:
        self._cut("cut", "the connection is half open")

    def _abandon(self) -> None:
        if self._stream is not None:
            self._old.add(self._stream)
            self._stream.end()
            self._stream = None

    def is_closed(self, stream: _Stream) -> None:
        self._old.discard(stream)

    async def _left(self) -> None:
        await asyncio.gather(*(stream.gone for stream in tuple(self._old)))


class _Stream(asyncio.Protocol):
    """One TCP connection."""

    def __init__(self, wire: TcpWire) -> None:
        self._wire = wire
        self._frames = Frames(LARGEST_TCP)
        self._transport: asyncio.Transport | None = None
        self.is_known = False
        """Its settings came."""
        self.gone: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def connection_made(self, transport: Any) -> None:  # Any: uvloop's transports share no class with asyncio's
        self._transport = transport
        raw = transport.get_extra_info("socket")
        if raw is not None:
            raw.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
            raw.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def send(self, message: Message) -> None:
        transport = self._transport
        if transport is None or transport.is_closing():
            return
        transport.write(encode_tcp(message))
        if transport.get_write_buffer_size() > MAX_UNREAD and message.code in (PONG, ABORT):
            self._wire.lost(self, "it asks for signs of life and does not read them")

    def data_received(self, data: bytes) -> None:
        try:
            messages = self._frames.feed(data)
        except Broken as error:
            self._wire.count("broken")
            self._wire.lost(self, f"what came is no CoAP over TCP ({error}): check scheme and port")
            return
        self._wire.received(self, messages)

    def connection_lost(self, exc: Exception | None) -> None:
        if isinstance(exc, ssl.SSLError):
            self._wire.lost(self, f"it refused TLS ({exc.reason}): give tls.cert_file and key_file that it accepts")
        else:
            self._wire.lost(self, "the connection was closed by the device")
        self._wire.is_closed(self)
        if not self.gone.done():
            self.gone.set_result(None)

    def end(self) -> None:
        if self._transport is not None:
            self._transport.abort()


def make_wire(device: Device, options: Coap, stats: ScanStats, context: ssl.SSLContext | None) -> Wire:
    if device.scheme == "coap":
        return UdpWire(device, options, stats)
    return TcpWire(device, options, stats, context if device.scheme == "coaps+tcp" else None)


def connect_error(where: str, error: OSError | TimeoutError, patience_s: float) -> DriverError:
    """Foreign errors of connecting, translated once."""
    if isinstance(error, ssl.SSLCertVerificationError):
        return Misfit(
            f"{where}: the certificate is not trusted ({error.verify_message}): give its authority as tls.ca_file, or tls.server_name"
        )
    if isinstance(error, ssl.SSLError):
        if error.reason in ("WRONG_VERSION_NUMBER", "RECORD_LAYER_FAILURE", "UNEXPECTED_MESSAGE"):
            return Misfit(f"{where}: speaks no TLS ({error.reason}): check the port, or write scheme: coap+tcp")
        return Refused(f"{where}: TLS failed ({error.reason}): check tls.cert_file, key_file and min_version")
    if isinstance(error, socket.gaierror):
        return Unreachable(f"{where}: the name is not known ({error.strerror}): check host, or the name server")
    if isinstance(error, TimeoutError):
        return Unreachable(f"{where}: no connection within {patience_s:g} s: check cable, address and firewall")
    if isinstance(error, ConnectionRefusedError):
        return Unreachable(f"{where}: nothing listens there: check port, and that the device's CoAP server is on")
    return Unreachable(f"{where}: {error.strerror or error}: check the network")
