"""One connection's wire: one request in flight, writes ahead of reads, and no late answer taken for the next one.

Shell: sends prepared frames, hands what comes to ``frames.py`` and wakes whoever waits. A request costs one future; one
timer for the whole connection is re-armed lazily. What does not fit the request in flight is counted and thrown away.
On RTU, which has no transaction id, any timeout or broken frame makes the line *dirty*: it is reopened or flushed, and
must have been silent for longer than the slowest answer, before it is used again.

Trouble with one request is :class:`Missed`; trouble with the connection is one of the driver contract's three errors.
"""

from __future__ import annotations

import asyncio
import math
import socket
import ssl
from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Final

from protocols.clock import SystemClock
from protocols.contract import DriverError, Misfit, Refused, Unreachable
from protocols.modbus.config import Connection, ModbusRtuTcp, ModbusTls, Network
from protocols.modbus.frames import TCP_HEADER, Request, Taken, Verdict, is_answer, take_rtu, take_tcp
from protocols.model import ScanStats
from protocols.tls import client_context
from protocols.trace.wire import Tap
from protocols.turns import Turns

MAX_FOREIGN_BYTES: Final = 64 * 1024
"""A peer that sends so much that nobody asked for, between two answers, is cut off."""
FOREIGN_FRAME_BYTES: Final = 1024
"""A foreign frame counts as so many bytes at least: it costs its work, however short it is. 64 of them between two answers are
more than late answers ever are, and take well below a millisecond."""
WINDOW: Final = 300
"""No frame of any kind is longer."""
LEAST_QUIET_S: Final = 0.05
NOISY_FACTOR: Final = 20
"""A line that does not fall silent for so many times the silence asked for is given up."""
CLOSE_S: Final = 1.0
"""A connection that does not close in this time is aborted."""
SHOWN_BYTES: Final = 24
TEXT_BYTES: Final = 8
"""An answer that begins with so many printable characters is from another kind of server."""


class Missed(Exception):
    """One request got no usable answer; the connection lives on. ``reason``: timeout, broken or wrong."""

    def __init__(self, reason: str, text: str) -> None:
        super().__init__(text)
        self.reason = reason


class Line(ABC):
    """What all wires have in common. ``ask`` is all that a session needs."""

    def __init__(self, options: Connection, where: str, stats: ScanStats) -> None:
        self.where = where
        self.stats = stats
        self.trouble: DriverError | None = None
        """Why the connection is gone; None while it lives."""
        self.foreign = ""
        """What the last foreign frame was, for a person."""
        self.tap: Tap | None = None
        """Who is told all that passes; None, as nearly always, while nobody records."""
        self._loop = asyncio.get_running_loop()
        self._now = SystemClock().monotonic  # the wire's own time: finer than uvloop's, and no test may stop it
        self._timeout_s = options.timeout_s
        self._settle_s = options.timeout_s if options.settle_s is None else options.settle_s
        self._delay_s = options.request_delay_s
        self._request: Request | None = None
        self._answer: asyncio.Future[bytes] | None = None
        self._deadline = 0.0
        self._timer: asyncio.TimerHandle | None = None
        self._buffer = b""
        self._foreign_bytes = 0
        self._proven = False
        self._quiet_s = 0.0  # silence that must pass before the line may be used; 0 while it is clean
        self._sent_at = self._ended_at = self._heard_at = 0.0
        self._slowest_s = 0.0
        self._turns = Turns()

    async def ask(self, request: Request, *, urgent: bool = False, before: Callable[[], None] | None = None) -> bytes:
        """The PDU that answers ``request``: fitting data, or an exception (first byte >= 0x80).

        Urgent requests go first; each waits at most for the one in flight. ``before`` is called at the last moment and
        stops the request by raising. Raises Missed, or a DriverError when the connection is gone.
        """
        if not self._turns.grab():
            await self._turns.wait(urgent=urgent)
        try:
            return await self._exchange(request, before)
        finally:
            self._turns.give_back()

    async def _exchange(self, request: Request, before: Callable[[], None] | None) -> bytes:
        if self.trouble is not None:
            raise self.trouble
        await self._ready(request)
        if before is not None:
            before()
        answer: asyncio.Future[bytes] = self._loop.create_future()
        self._answer = answer
        self._request = request
        self._sent_at = self._now()
        self._deadline = self._loop.time() + self._patience(request)
        if self._timer is None:
            self._timer = self._loop.call_at(self._deadline, self._look)
        self.stats.requests += 1
        self._send(request)
        try:
            return await answer
        except asyncio.CancelledError:
            self._spoil(self._settle_s)  # its answer will come when another is in flight
            raise
        finally:
            self._request = self._answer = None
            self._ended_at = self._now()

    async def _ready(self, request: Request) -> None:
        """Return when ``request`` may be sent. Fast where there is nothing to wait for."""
        if self._quiet_s:
            await self._mend()
        delay_s = max(self._delay_s, request.delay_s)
        if delay_s and self._ended_at:
            await self._until(self._ended_at + delay_s)

    async def _until(self, moment: float) -> None:
        """Return at ``moment`` or up to a millisecond later, never before it: uvloop's timers count whole milliseconds."""
        while (left_s := moment - self._now()) > 0:
            waiter: asyncio.Future[None] = self._loop.create_future()
            handle = self._loop.call_later(math.ceil(left_s * 1000) / 1000, _wake, waiter)
            try:
                await waiter
            finally:
                handle.cancel()
            if self.trouble is not None:
                raise self.trouble

    def _patience(self, request: Request) -> float:
        """Seconds to wait for the answer to ``request``."""
        return self._timeout_s

    def _look(self) -> None:
        """The timer: has the request in flight waited too long? Armed again only while one is in flight."""
        self._timer = None
        if self._request is None:
            return
        if self._loop.time() < self._deadline:
            self._timer = self._loop.call_at(self._deadline, self._look)
            return
        self._overdue()
        unit_id = self._request.unit_id
        said = f"; what came was {self.foreign}" if self.foreign else ""
        self._miss("timeout", f"{self.where}: unit id {unit_id} did not answer within {self._timeout_s:g} s{said}")

    def _overdue(self) -> None:
        """The request in flight has waited too long."""
        self._spoil(self._settle_s)

    def _miss(self, reason: str, text: str) -> None:
        self._count(reason)
        self._request = None
        if self.tap is not None:
            self.tap.trouble(text)
        if self._answer is not None and not self._answer.done():
            self._answer.set_exception(Missed(reason, text))

    def _count(self, reason: str) -> None:
        self.stats.errors[reason] = self.stats.errors.get(reason, 0) + 1

    def _fail(self, error: DriverError) -> None:
        """The connection is gone: tell whoever waits, and whoever comes."""
        if self.trouble is None:
            self.trouble = error
            if self.tap is not None:
                self.tap.trouble(str(error))
        if self._answer is not None and not self._answer.done():
            self._answer.set_exception(self.trouble)

    def _received(self, data: bytes) -> None:
        """Bytes came. Whatever they are, no more than one frame is kept."""
        self._heard_at = self._now()
        if self._quiet_s:  # until the line is mended, nothing on it is believed
            self._unasked(len(data))
            return
        if self._buffer:
            data, self._buffer = self._buffer + data, b""
        at = 0
        while at < len(data) and self.trouble is None:
            taken = self._take(data[at : at + WINDOW])
            if taken.verdict is Verdict.MORE:
                self._buffer = data[at:]
                return
            at += taken.used
            self._settle(taken, data)

    def _settle(self, taken: Taken, data: bytes) -> None:
        match taken.verdict:
            case Verdict.ANSWER:
                self._answered(taken.pdu)
            case Verdict.FOREIGN:
                self.foreign = f"an answer {taken.why}"
                self._count("foreign")
                self._unasked(max(taken.used, FOREIGN_FRAME_BYTES))
            case Verdict.WRONG:
                self._miss("wrong", f"{self.where}: an answer that does not fit the request: {taken.why}")
            case _:
                self._garbage(taken, data)

    def _answered(self, pdu: bytes) -> None:
        """The request in flight has its answer."""
        self._request = None
        self._foreign_bytes, self._proven, self.foreign = 0, True, ""
        self._slowest_s = max(self._slowest_s, self._heard_at - self._sent_at)
        if self._answer is not None and not self._answer.done():
            self._answer.set_result(pdu)

    def _unasked(self, size: int) -> None:
        self._foreign_bytes += size
        if self._foreign_bytes > MAX_FOREIGN_BYTES:
            self._fail(
                Unreachable(
                    f"{self.where}: sends without end what nobody asked for: check what listens there, and that no other master does"
                )
            )
            self._cut()

    def _shown(self, data: bytes) -> str:
        head = data[:SHOWN_BYTES]
        return repr(head.decode("ascii")) if head.isascii() and head[:4].isalnum() else head.hex(" ")

    @abstractmethod
    def _take(self, data: bytes) -> Taken:
        """Judge the front of ``data``, which is not empty."""

    @abstractmethod
    def _send(self, request: Request) -> None: ...

    @abstractmethod
    def _garbage(self, taken: Taken, data: bytes) -> None:
        """What came is not a frame of this protocol."""

    @abstractmethod
    def _spoil(self, quiet_s: float) -> None:
        """An answer was lost or broken: make sure that what still comes of it is not taken for another's."""

    @abstractmethod
    async def _mend(self) -> None:
        """Make a spoiled line usable. Raises a DriverError if it cannot be."""

    @abstractmethod
    def _cut(self) -> None:
        """Stop listening at once."""

    @abstractmethod
    async def close(self) -> None:
        """Give the wire back. Safe at any moment, and twice."""

    async def rest(self) -> None:  # noqa: B027 - nothing is the right thing where a wire cannot rest
        """Close an idle connection; the next request opens it again. Does nothing while a request is in flight."""

    def _noise(self, taken: Taken, data: bytes) -> None:
        """A broken RTU frame: the line is spoilt for a while, and the request in flight, if any, gets no answer."""
        self.foreign = f"{taken.why} ({self._shown(data)})"
        self._spoil(self._broken_quiet_s())
        if self._request is not None:
            self._miss("broken", f"{self.where}: a broken answer: {self.foreign}")
        else:
            self._count("foreign")
            self._unasked(len(data))

    def _broken_quiet_s(self) -> float:
        """Silence to ask for after a broken frame: its device has begun to answer, so less than after a lost one."""
        return min(self._settle_s, max(LEAST_QUIET_S, 2 * self._slowest_s)) if self._slowest_s else self._settle_s

    async def _silence(self) -> None:
        """Return when nothing has come for the silence that is owed. Raises Unreachable for a line that never falls silent."""
        limit = self._now() + max(1.0, self._quiet_s) * NOISY_FACTOR
        while self._now() < (until := self._heard_at + self._quiet_s):
            if until > limit:
                raise Unreachable(f"{self.where}: the line never falls silent: check for a second master, noise, and the baud rate")
            await self._until(until)


def _wake(waiter: asyncio.Future[None]) -> None:
    if not waiter.done():
        waiter.set_result(None)


class _Wire(asyncio.Protocol):
    """One TCP connection of a line, from the attempt on. What comes of one that was given up, half open say, is nobody's."""

    def __init__(self, line: NetworkLine, gone: asyncio.Future[None]) -> None:
        self._line = line
        self.gone = gone
        """Done when the connection is closed."""

    def connection_lost(self, exc: Exception | None) -> None:
        if not self.gone.done():
            self.gone.set_result(None)
        if self._line.wire is self:
            self._line.connection_lost(exc)

    def eof_received(self) -> bool:
        return False

    def data_received(self, data: bytes) -> None:
        if self._line.wire is self:
            self._line.data_received(data)


class NetworkLine(Line):
    """Modbus TCP, TLS, and RTU over TCP."""

    def __init__(self, options: Network, stats: ScanStats) -> None:
        super().__init__(options, f"{options.host}:{options.port}", stats)
        self._options = options
        self._is_rtu = isinstance(options, ModbusRtuTcp)
        self._transport: asyncio.Transport | None = None
        self.wire: _Wire | None = None
        """The newest connection."""
        self._transaction = 0
        self._number = b""
        """The transaction id as it stands in the frame."""
        self._leaving = False

    async def open(self) -> None:
        """Connect. Raises Unreachable, Refused or Misfit."""
        options = self._options
        context = client_context(options.tls) if isinstance(options, ModbusTls) else None
        name = (options.tls.server_name or options.host) if isinstance(options, ModbusTls) else None
        self._leaving = False
        self._buffer = b""
        wire = self.wire = _Wire(self, self._loop.create_future())
        try:
            async with asyncio.timeout(options.connect_timeout_s):
                transport, _ = await self._loop.create_connection(
                    lambda: wire, options.host, options.port, ssl=context, server_hostname=name
                )
        except asyncio.CancelledError:
            self.wire = None
            raise
        except (OSError, TimeoutError) as error:
            self.wire = None
            raise _connect_error(self.where, error, options) from error
        self._transport = transport
        raw = transport.get_extra_info("socket")
        if raw is not None:
            raw.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        self._ended_at = 0.0
        if options.connect_delay_s:
            await self._until(self._now() + options.connect_delay_s)

    async def rest(self) -> None:
        if self._transport is not None and self._turns.grab():
            try:
                await self._leave()
            finally:
                self._turns.give_back()

    async def close(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self.tap = None  # that we close is no trouble
        self._fail(Unreachable(f"{self.where}: the connection was closed"))
        await self._leave()

    async def _leave(self) -> None:
        """Close and wait until it is closed: a device that takes one connection must see the old one go first."""
        self._leaving = True
        transport, self._transport = self._transport, None
        if transport is None or self.wire is None:
            return
        if isinstance(self._options, ModbusTls):
            transport.abort()  # TLS would wait for the peer to agree
        else:
            transport.close()
        try:
            async with asyncio.timeout(CLOSE_S):
                await asyncio.shield(self.wire.gone)
        except TimeoutError:
            transport.abort()
            await asyncio.shield(self.wire.gone)  # else the old connection's end would be taken for the next one's

    def connection_lost(self, exc: Exception | None) -> None:
        """The wire is closed."""
        if self._leaving:
            return
        self._transport = None
        if isinstance(exc, ssl.SSLError):
            self._fail(Refused(f"{self.where}: the peer refused TLS ({exc.reason}): give cert_file and key_file that it accepts"))
        elif isinstance(self._options, ModbusTls) and not self._proven:  # many peers close instead of saying what they dislike
            hint = "it may not accept the certificate: check tls.cert_file and key_file"
            self._fail(Refused(f"{self.where}: the peer closed the connection after the TLS handshake: {hint}"))
        elif self._proven:
            self._fail(Unreachable(f"{self.where}: the connection was closed by the peer"))
        else:
            hint = "it may allow one connection only, or this address none: see that no other master is connected"
            self._fail(Unreachable(f"{self.where}: the peer closed the connection without an answer: {hint}"))

    def data_received(self, data: bytes) -> None:
        """Bytes came over the wire."""
        if self.tap is not None:
            self.tap.received(data)
        request = self._request
        if request is not None and not self._is_rtu and not self._buffer and is_answer(data, request, self._number):
            self._heard_at = self._now()
            self._answered(data[TCP_HEADER:])
        else:
            self._received(data)

    def _take(self, data: bytes) -> Taken:
        if self._is_rtu:
            return take_rtu(data, self._request)
        return take_tcp(data, self._request, self._transaction)

    async def _ready(self, request: Request) -> None:
        if self._transport is None and not self._quiet_s:
            await self.open()
        await super()._ready(request)

    def _send(self, request: Request) -> None:
        assert self._transport is not None  # _ready has seen to it
        if self._is_rtu:
            if self.tap is not None:
                self.tap.sent(request.rtu)
            self._transport.write(request.rtu)
            return
        self._transaction = self._transaction % 0xFFFF + 1
        self._number = self._transaction.to_bytes(2, "big")
        if self.tap is not None:
            self.tap.sent(self._number + request.tcp)
        self._transport.write(self._number + request.tcp)

    def _garbage(self, taken: Taken, data: bytes) -> None:
        if self._is_rtu:
            if not self._proven and len(data) >= TEXT_BYTES and data.isascii() and data[:TEXT_BYTES].decode().isprintable():
                self._fail(Misfit(f"{self.where}: what came is text ({self._shown(data)}), no Modbus RTU: check host and port"))
                self._cut()
                return
            self._noise(taken, data)
            return
        self._count("broken")
        seen = f"{self.where}: what came is no Modbus TCP ({self._shown(data)})"
        if self._proven:
            self._fail(Unreachable(f"{seen}: the stream is out of step, it will be opened anew"))
        else:
            self._fail(Misfit(f"{seen}: check host and port, and whether it is type modbus-rtu-tcp or modbus-tls"))
        self._cut()

    def _spoil(self, quiet_s: float) -> None:
        if self._is_rtu:  # over TCP the transaction id tells a late answer
            self._quiet_s = max(self._quiet_s, quiet_s, LEAST_QUIET_S)
            self._heard_at = self._now()

    def _overdue(self) -> None:
        if self._buffer and not self._is_rtu:
            self._fail(Unreachable(f"{self.where}: an answer began and did not end ({self._shown(self._buffer)}): it will be opened anew"))
            self._cut()
        super()._overdue()

    async def _mend(self) -> None:
        """Throw the connection away with all that is in it; then wait, as a serial server hands late bytes to the new one."""
        await self._leave()
        await self.open()
        await self._silence()
        self._buffer = b""
        self._quiet_s = 0.0

    def _cut(self) -> None:
        if self._transport is not None:
            self._leaving = True
            self._transport.abort()


def _connect_error(where: str, error: OSError | TimeoutError, options: Network) -> DriverError:
    """Foreign errors of connecting, translated once."""
    if isinstance(error, ssl.SSLCertVerificationError):
        return Misfit(
            f"{where}: the certificate is not trusted ({error.verify_message}): give its authority as tls.ca_file, or server_name"
        )
    if isinstance(error, ssl.SSLError):
        if error.reason in ("WRONG_VERSION_NUMBER", "RECORD_LAYER_FAILURE", "UNEXPECTED_MESSAGE"):
            return Misfit(f"{where}: speaks no TLS ({error.reason}): check the port, or use type modbus-tcp")
        return Refused(f"{where}: TLS failed ({error.reason}): check tls.cert_file, key_file and min_version")
    if isinstance(error, socket.gaierror):
        return Unreachable(f"{where}: the name is not known ({error.strerror}): check host, or the name server")
    if isinstance(error, TimeoutError):
        return Unreachable(f"{where}: no connection within {options.connect_timeout_s:g} s: check cable, address and firewall")
    if isinstance(error, ConnectionRefusedError):
        return Unreachable(f"{where}: nothing listens there: check port, and that the device's Modbus server is on")
    return Unreachable(f"{where}: {error.strerror or error}: check the network")
