"""The MQTT session that uplinks and the driver use: aiomqtt 2.5.1 over paho 2.2.0, with their ways to lose messages closed.

What is promised: a message is acknowledged only by a PUBACK whose reason is below 0x80; everything that waits is woken with
an error when the connection is lost; a silent broker is noticed within the keepalive; the server's Receive Maximum and
Maximum Packet Size are respected; nothing grows without bound, in or out; one client object serves one connection, so
nothing unacknowledged is ever sent later behind our back: who published decides what is sent again.

What is refused: QoS 2, and retrying anything. A flood takes the loop for one chunk at a time.

aiomqtt builds and wires the paho client; its own publish, reconnect and queue are not used (each loses messages in some
way, see tests/protocols/mqtt/test_client.py). Names with an underscore of both packages are used here and only here, so both
are pinned exactly. That is also why this module is long: the session and the client under it are one thing that nobody
else may look into. Everything runs in the event loop's thread; no executor is involved.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import ssl
import struct
from collections import deque
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any, Final, Protocol

import aiomqtt
import paho.mqtt.client as paho
import structlog
from paho.mqtt import MQTTException
from paho.mqtt.enums import MQTTErrorCode
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties
from paho.mqtt.reasoncodes import ReasonCode

from protocols.contract import DriverError, Misfit, Refused, Unreachable
from protocols.mqtt.dial import dial, tls_alert
from protocols.secret import Secret
from protocols.tls import Tls

log = structlog.get_logger("holdfast.mqtt")

OUT_BYTES: Final = 64 * 1024
"""Most bytes that wait in our outgoing buffer before publishers wait (one message more may be on top)."""
INBOX_MESSAGES: Final = 10_000
INBOX_BYTES: Final = 32 * 1024**2
RECEIVE_MAXIMUM: Final = 100
"""Most QoS 1 messages the server may send us unacknowledged; far below INBOX_MESSAGES, so none can overflow."""
PACKET_BYTES: Final = 16 * 1024**2
"""Largest packet that we accept: announced to the server, and enforced against one that does not care."""
CHUNK_BYTES: Final = 4 * 1024
"""Most that is read in one turn of the loop: a flood of the smallest packets takes paho some 10 ms for it."""
HEAD_BYTES: Final = 70_000
"""A PUBLISH may have so many bytes before its payload: topic and properties."""
GOODBYE_S: Final = 2.0
TOPICS_KEPT: Final = 10_000
PACKET_TOO_LARGE: Final = 0x95
UNREADABLE: Final = (ValueError, LookupError, TypeError, AttributeError, AssertionError, ArithmeticError, struct.error, MQTTException)
"""What paho's reading of packets lets through where a length or a property in them is wrong."""
_PUBLISH: Final = 0x30

CONNECT_TROUBLE: Final[dict[int, tuple[type[DriverError], str]]] = {
    0x81: (Misfit, "the broker calls the CONNECT packet malformed: try the other MQTT version (protocol)"),
    0x82: (Misfit, "the broker reports a protocol error: try the other MQTT version (protocol)"),
    0x84: (Misfit, "the broker does not speak this MQTT version: set protocol to the other one"),
    0x85: (Misfit, "the broker does not accept the client id: set client_id to one that it allows"),
    0x86: (Refused, "the broker refuses user name or password: check username and password"),
    0x87: (Refused, "the broker does not authorise this client: check its user name, certificate and the broker's access list"),
    0x88: (Unreachable, "the broker says that it is unavailable: it will be tried again"),
    0x89: (Unreachable, "the broker says that it is busy: it will be tried again"),
    0x8A: (Refused, "the broker has banned this client: ask its operator why"),
    0x8B: (Unreachable, "the broker shuts down: it will be tried again"),
    0x8C: (Refused, "the broker wants another authentication method: only user name, password and certificates are offered"),
    0x8D: (Unreachable, "the broker heard nothing for too long: the link may be too slow; raise keepalive_s"),
    0x8E: (Refused, "another client connected with the same client id: give each gateway and uplink its own client_id"),
    0x90: (Misfit, "the broker does not accept the topic of the will: check the names of group and gateway"),
    0x93: (Misfit, "the broker says that too many messages are unacknowledged: lower in_flight"),
    0x95: (Misfit, "the broker says that a packet is too large: raise its limit (mosquitto: max_packet_size)"),
    0x97: (Refused, "a quota of the broker is used up: raise it or ask its operator"),
    0x98: (Refused, "the broker's operator ended the connection: ask why"),
    0x99: (Misfit, "the broker does not accept the payload's format"),
    0x9A: (Misfit, "the broker does not support retained messages, and the will is one"),
    0x9B: (Misfit, "the broker does not support QoS 1"),
    0x9C: (Refused, "the broker says to use another server: change host"),
    0x9D: (Refused, "the broker has moved: change host"),
    0x9F: (Unreachable, "the broker limits how often clients connect: it will be tried again"),
}
"""What a reason of CONNACK or DISCONNECT means (MQTT 5.0, 2.4). Codes that are not here are Unreachable."""

REJECTIONS: Final[dict[int, tuple[str, str]]] = {
    0x80: ("Unspecified error", "see the broker's log"),
    0x83: ("Implementation specific error", "see the broker's log"),
    0x87: ("Not authorized", "let the broker's access list allow this topic"),
    0x8F: ("Topic filter invalid", "the broker does not accept this topic filter"),
    0x90: ("Topic name invalid", "the broker does not accept this topic: change it"),
    0x91: ("Packet identifier in use", "this is a defect, report it"),
    0x95: ("Packet too large", "raise the broker's limit (mosquitto: message_size_limit)"),
    0x97: ("Quota exceeded", "raise the broker's quota for this client"),
    0x99: ("Payload format invalid", "the broker wants another payload"),
    0x9A: ("Retain not supported", "the broker takes no retained messages"),
    0x9B: ("QoS not supported", "the broker does not take QoS 1"),
    0x9E: ("Shared subscriptions not supported", "subscribe without sharing"),
    0xA1: ("Subscription identifiers not supported", "see the broker's log"),
    0xA2: ("Wildcard subscriptions not supported", "subscribe to each topic by name"),
}
"""Name and advice of a reason in PUBACK or SUBACK (MQTT 5.0, 2.4). Some brokers send reasons that the standard has not there."""


class Rejected(Exception):
    """The broker answered a PUBLISH or SUBSCRIBE with a reason of 0x80 or above, or would: it did not take it."""

    def __init__(self, reason: int, text: str) -> None:
        super().__init__(text)
        self.reason = reason
        """The MQTT 5 reason code; 0x95 where the packet is larger than the server's Maximum Packet Size."""


class Address(Protocol):
    """Where a broker is."""

    @property
    def host(self) -> str: ...
    @property
    def port(self) -> int: ...


class Terms(Protocol):
    """How to talk to a broker: what the options of uplinks and connections have in common."""

    @property
    def name(self) -> str: ...
    @property
    def tls(self) -> Tls | None: ...
    @property
    def username(self) -> str: ...
    @property
    def password(self) -> Secret | None: ...
    @property
    def protocol(self) -> str:
        """``5`` or ``3.1.1``."""
        ...

    @property
    def keepalive_s(self) -> int: ...
    @property
    def timeout_s(self) -> float: ...
    @property
    def in_flight(self) -> int: ...


@dataclass(frozen=True, slots=True)
class Listening:
    """What we take in. The defaults suit who publishes and now and then is told something."""

    expiry_s: int = 3600
    """How long the server keeps a session that is not clean (MQTT 5; a server of 3.1.1 keeps it as long as it likes)."""
    receive_maximum: int = RECEIVE_MAXIMUM
    """Most QoS 1 messages the server may send us unacknowledged (MQTT 5)."""
    inbox_bytes: int = INBOX_BYTES
    longest_payload: int | None = None
    """A PUBLISH with more than these bytes (and HEAD_BYTES) arrives without its payload, its size told: nobody has to build it, and
    the server is not asked to keep it from us silently. None announces PACKET_BYTES and ends a connection that brings more."""


@dataclass(frozen=True, slots=True)
class Message:
    topic: str
    payload: bytes
    qos: int
    retain: bool
    content_type: str = ""
    """The media type that the publisher told (MQTT 5)."""
    left_out: int = 0
    """Bytes of the packet where its payload was too long to be taken in; ``payload`` is then empty."""
    number: int = 0
    """What :meth:`MqttSession.acknowledge` wants to know."""
    response_topic: str = ""
    """Where the publisher waits for an answer (MQTT 5)."""
    correlation: bytes = b""
    """What the answer has to bring along (MQTT 5)."""


@dataclass(frozen=True, slots=True)
class Will:
    """What the broker publishes for us when the connection is lost."""

    topic: str
    payload: bytes
    qos: int = 1
    retain: bool = False


@asynccontextmanager
async def connect(
    options: Terms,
    broker: Address,
    *,
    client_id: str,
    will: Will | None = None,
    clean: bool = True,
    what: str = "uplink",
    listening: Listening = Listening(),
) -> AsyncIterator[MqttSession]:
    """An MQTT connection to ``broker``, which is ``options``' own or one of its fallbacks. Errors call it ``what`` and its name.

    ``clean`` starts a new session and lets the server forget it at the end; else it is kept for ``listening.expiry_s``. Left
    normally, the server gets DISCONNECT and drops the will; left by an exception, the will is published.

    Raises Unreachable, Refused or Misfit (also from within, when the connection is lost); SecretMissing.
    """
    session = MqttSession(options, broker, client_id, will, clean, what, listening)
    try:
        await session._open()
        yield session
    except BaseException:
        await session._close(with_will=True)
        raise
    else:
        await session._close(with_will=False)


class MqttSession:
    """One connection, from CONNACK to its loss. Make it with :func:`connect`.

    Every method that waits, and ``lost``, raises a DriverError when the connection is lost: Unreachable, or Refused or
    Misfit where the server said why in its DISCONNECT.
    """

    def __init__(
        self, options: Terms, broker: Address, client_id: str, will: Will | None, clean: bool, what: str, listening: Listening
    ) -> None:
        loop = asyncio.get_running_loop()
        self.session_present = False
        """The server had kept our session: subscriptions are still there."""
        self.in_flight = options.in_flight
        """Most QoS 1 messages on their way: the smaller of ``in_flight`` and the server's Receive Maximum."""
        self.max_packet_bytes: int | None = None
        """The server's Maximum Packet Size; None where it has none."""
        self.overflowed = 0
        """Incoming messages that found the inbox full. QoS 1 ones among them were not acknowledged."""
        self.lost: asyncio.Future[None] = loop.create_future()
        """Ends, with the error, when the connection is lost. Await it through ``asyncio.shield`` or ``asyncio.wait``."""
        self._loop = loop
        self.where = f"{what} {options.name}, broker {broker.host}:{broker.port}"
        """Begins every error text."""
        self.listening = listening
        self._options = options
        self._broker = broker
        self._v5 = options.protocol == "5"
        self._has_will = will is not None
        self._acks: dict[int, tuple[str, asyncio.Future[None]]] = {}
        self._waiting: set[asyncio.Future[None]] = set()
        self._inbox: deque[Message] = deque()
        self._inbox_bytes = 0
        self._heads: dict[str, bytes] = {}
        self._out_bytes = 0
        self._gathered = bytearray()
        """QoS 0 packets that paho has not got yet."""
        self._last_ack = 0.0
        self._watch: asyncio.Task[None] | None = None
        self._client = _Client(self, options, client_id, will, clean)
        self._paho = self._client._client

    # ---- sending

    def publish0(self, topic: str, payload: bytes, *, retain: bool = False) -> None:
        """Send at QoS 0: into the outgoing buffer, written in the loop's next turn. See :meth:`flushed`.

        Raises the error of the loss; Rejected if the packet is larger than the server takes.
        """
        if self.lost.done():
            raise self._trouble()
        head = self._heads.get(topic) or self._head(topic)
        start = b"".join((bytes((_PUBLISH | retain,)), _varint(len(head) + len(payload)), head))
        size = len(start) + len(payload)
        if self.max_packet_bytes is not None and size > self.max_packet_bytes:
            raise self._too_large(topic, size)
        self._out_bytes += size
        if not self._gathered:
            self._paho._call_socket_register_write()
        self._gathered += start
        self._gathered += payload
        if len(self._gathered) > OUT_BYTES:  # no ping should wait behind more than that
            self._hand_over()

    async def publish1(self, topic: str, payload: bytes, *, retain: bool = False, correlation: bytes = b"") -> asyncio.Future[None]:
        """Send at QoS 1. Waits for a free in-flight slot and room in the outgoing buffer, not for the acknowledgement.

        ``correlation`` is what an answer brings along (MQTT 5; left out where the broker speaks 3.1.1).

        The future ends at the PUBACK: with None, with Rejected, or with the error of the loss.
        Raises the error of the loss; Rejected if the packet is larger than the server takes.
        """
        size = len(topic.encode()) + len(payload) + len(correlation) + 12
        if self.max_packet_bytes is not None and size > self.max_packet_bytes:
            raise self._too_large(topic, size)
        await self._until(lambda: len(self._acks) < self.in_flight and self._has_room())
        if self.lost.done():
            raise self._trouble()
        self._hand_over()
        self._skip_busy_ids()
        sent = self._paho.publish(topic, payload, 1, retain, _correlated(correlation) if correlation and self._v5 else None)
        if sent.rc != paho.MQTT_ERR_SUCCESS:
            raise self._trouble()
        self._out_bytes += size
        return self._expect(sent.mid, f"publish to {topic}")

    async def flushed(self) -> None:
        """Return when the outgoing buffer is below its limit: call it after QoS 0 messages, or memory would grow."""
        if self._out_bytes > OUT_BYTES:
            await self._until(self._has_room)
        if self.lost.done():
            raise self._trouble()

    # ---- the life of the connection

    async def while_connected(self, work: Coroutine[Any, Any, None]) -> None:  # Any: what a coroutine sends to itself
        """Run ``work`` to its end, or until the connection is lost: then it is cancelled and the error of the loss raised."""
        task = self._loop.create_task(work)
        try:
            await asyncio.wait({task, self.lost}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            if not task.done():
                task.cancel()
                await asyncio.wait([task])
        if task.cancelled():
            raise self._trouble()
        task.result()

    def abandon(self, error: DriverError) -> None:
        """Give this connection up: everybody who waits is woken with ``error``, and the server publishes the will."""
        self._lose(error)

    # ---- receiving

    async def subscribe(self, topic_filter: str, qos: int) -> None:
        """Subscribe at QoS 0 or 1. Raises Rejected if the server does not allow it, or the error of the loss."""
        if self.lost.done():
            raise self._trouble()
        self._skip_busy_ids()
        result, number = self._paho.subscribe(topic_filter, min(qos, 1))
        if result != paho.MQTT_ERR_SUCCESS or number is None:
            raise self._trouble()
        answered = self._expect(number, f"subscribe to {topic_filter}")
        try:
            async with asyncio.timeout(self._options.timeout_s):
                await answered
        except TimeoutError:
            self._acks.pop(number, None)
            raise Unreachable(
                f"{self.where}: no answer to SUBSCRIBE within {self._options.timeout_s:g} s: the link may be broken"
            ) from None

    async def messages(self) -> AsyncIterator[Message]:
        """Messages as they come. A QoS 1 message is acknowledged when the next one is asked for.

        Raises the error of the loss, after what had arrived before it.
        """
        while True:
            message = await self.receive()
            yield message
            self.acknowledge(message)

    async def receive(self) -> Message:
        """The next message. Whoever takes it owes the server :meth:`acknowledge`, in this order.

        Raises the error of the loss, after what had arrived before it.
        """
        if not self._inbox:
            await self._until(lambda: bool(self._inbox))
        message = self._inbox.popleft()
        self._inbox_bytes -= len(message.payload)
        return message

    async def arrival(self, ready: Callable[[], bool]) -> None:
        """Return when a message waits, or when ``ready()``; :meth:`nudge` lets it be asked again. Raises the error of the loss."""
        await self._until(lambda: bool(self._inbox) or ready())

    def nudge(self) -> None:
        """Something may have become ready."""
        self._wake()

    @property
    def waiting(self) -> int:
        """How many messages have arrived and were not received yet."""
        return len(self._inbox)

    def acknowledge(self, message: Message) -> None:
        """Tell the server that a QoS 1 message is safe here: it will not send it again. Nothing where it cannot be told any more."""
        if message.qos and not self.lost.done():
            self._paho.ack(message.number, message.qos)

    # ---- the adapter's own

    async def _open(self) -> None:
        """Dial, send CONNECT, wait for CONNACK: all within timeout_s."""
        try:
            async with asyncio.timeout(self._options.timeout_s):
                connected = await dial(self._broker.host, self._broker.port, self._options.tls, self.where)
                self._client.begin(connected)
                await self._client._connected
        except TimeoutError:
            raise Unreachable(
                f"{self.where}: no answer within {self._options.timeout_s:g} s: check host and port, and that it is an MQTT broker"
            ) from None
        self._watch = self._loop.create_task(self._keep_watch())

    async def _close(self, *, with_will: bool) -> None:
        """Say goodbye if there is somebody to say it to, then let go of everything."""
        try:
            if self._paho.is_connected() and not self.lost.done():
                await self._goodbye(with_will=with_will and self._has_will)
        finally:
            self._lose(Unreachable(f"{self.where}: the connection was closed by this gateway"))
            self._client.end()
            if self._watch is not None:
                self._watch.cancel()

    async def _goodbye(self, *, with_will: bool) -> None:
        """Flush and DISCONNECT; with a will to be published: reason 0x04 (MQTT 5.0, 3.14.2.1), or no DISCONNECT at all.

        What is not acknowledged is waited for, for a while: a broker that finds the connection closed when it answers need not read what
        came after, neither the last messages nor the DISCONNECT.
        """
        if with_will and not self._v5:
            return
        end = self._loop.time() + GOODBYE_S
        self._hand_over()
        if not with_will:
            await self._answers(until=end)
        if self.lost.done():
            return
        reason = ReasonCode(PacketTypes.DISCONNECT, "Disconnect with will message") if with_will else None
        self._paho.disconnect(reason)
        await asyncio.wait([self.lost], timeout=max(0.1, end - self._loop.time()))

    async def _answers(self, *, until: float) -> None:
        """Wait until nothing is unacknowledged, the connection is lost, or it is ``until``."""
        with contextlib.suppress(TimeoutError, DriverError):
            async with asyncio.timeout_at(until):
                await self._until(lambda: not self._acks)

    def _connected(self, session_present: bool, properties: Properties | None) -> None:
        self.session_present = session_present
        receive_maximum = int(getattr(properties, "ReceiveMaximum", 65535))
        self.in_flight = max(1, min(self._options.in_flight, receive_maximum))
        limit = getattr(properties, "MaximumPacketSize", None)
        self.max_packet_bytes = None if limit is None else int(limit)

    def _acknowledged(self, number: int, reason: int) -> None:
        what, answer = self._acks.pop(number, ("", None))
        self._last_ack = self._loop.time()
        if answer is not None and not answer.done():
            if reason >= 0x80:
                name, advice = REJECTIONS.get(reason, ("unknown reason", "see the broker's log"))
                answer.set_exception(Rejected(reason, f"{self.where}: {what} was rejected: {name} (0x{reason:02x}): {advice}"))
            else:
                answer.set_result(None)
        self._wake()

    def _arrived(self, message: Message) -> None:
        if len(self._inbox) >= INBOX_MESSAGES or self._inbox_bytes >= self.listening.inbox_bytes:
            self.overflowed += 1
            if self.overflowed == 1:
                log.warning("inbox_full", broker=self.where, messages=len(self._inbox))
            return
        self._inbox.append(message)
        self._inbox_bytes += len(message.payload)
        self._wake()

    def _lose(self, error: DriverError) -> None:
        """The end of this connection: everybody who waits is woken with the error, now and ever after."""
        if self.lost.done():
            return
        self.lost.set_exception(error)
        self.lost.exception()  # looked at: it is no accident if nobody awaits it
        for _, answer in self._acks.values():
            if not answer.done():
                answer.set_exception(self._trouble())
                answer.exception()
        self._acks.clear()
        self._wake()

    def _trouble(self) -> DriverError:
        """The error of the loss, a fresh one for each who is told."""
        error = self.lost.exception() if self.lost.done() else None
        if isinstance(error, DriverError):
            return type(error)(str(error))
        return Unreachable(f"{self.where}: there is no connection")

    def _expect(self, number: int, what: str) -> asyncio.Future[None]:
        answer: asyncio.Future[None] = self._loop.create_future()
        if not self._acks:
            self._last_ack = self._loop.time()  # from here on an answer is due
        self._acks[number] = (what, answer)
        return answer

    def _skip_busy_ids(self) -> None:
        """Let paho's next packet id be one that nothing waits for: it counts round and round, a slow PUBACK may be behind."""
        while self._paho._last_mid % 65535 + 1 in self._acks:
            self._paho._last_mid = self._paho._last_mid % 65535 + 1

    async def _until(self, ready: Callable[[], bool]) -> None:
        """Wait until ``ready()``; it is asked again after everything that happens. Raises the error of the loss."""
        while not ready():
            if self.lost.done():
                raise self._trouble()
            turn: asyncio.Future[None] = self._loop.create_future()
            self._waiting.add(turn)
            try:
                await turn
            finally:
                self._waiting.discard(turn)

    def _wake(self) -> None:
        for turn in self._waiting:
            if not turn.done():
                turn.set_result(None)

    def _hand_over(self) -> None:
        """The QoS 0 packets of this turn become one for paho and the kernel, whom each costs more than its bytes."""
        if self._gathered:
            packets, self._gathered = self._gathered, bytearray()
            self._paho._packet_queue(0, packets, 0, 0, None)  # 0, not PUBLISH: paho then makes no callback of it

    def _has_room(self) -> bool:
        if self._out_bytes > OUT_BYTES:
            self._hand_over()
            self._out_bytes = sum(packet["to_process"] for packet in self._paho._out_packet)
        return self._out_bytes <= OUT_BYTES

    def _written(self) -> None:
        if not self._paho._out_packet:
            self._out_bytes = 0
        if self._waiting and self._has_room():
            self._wake()

    def _head(self, topic: str) -> bytes:
        name = topic.encode()
        if not 0 < len(name) <= 65535 or b"+" in name or b"#" in name:
            raise ValueError(f"{topic!r} is no topic to publish to")
        if len(self._heads) >= TOPICS_KEPT:
            self._heads.clear()
        head = self._heads[topic] = len(name).to_bytes(2, "big") + name + (b"\0" if self._v5 else b"")
        return head

    def _hint(self) -> str:
        """What may be wrong where a broker closes the connection instead of answering."""
        if self._options.tls and not self._options.tls.cert_file:
            return "the broker may want a client certificate (tls.cert_file), or does not speak this version (protocol)"
        return "is it an MQTT broker, does it speak this version (protocol), or does this port want TLS?"

    def _too_large(self, topic: str, size: int) -> Rejected:
        return Rejected(
            PACKET_TOO_LARGE,
            f"{self.where}: a packet of {size} bytes for {topic} is larger than the {self.max_packet_bytes} that the broker takes: "
            "raise its limit (mosquitto: max_packet_size)",
        )

    async def _keep_watch(self) -> None:
        """Ping a broker that is silent for half of the keepalive; give it up when it is silent for all of it.

        paho would need up to two keepalives. An acknowledgement that stays away for longer than both timeout_s and the
        keepalive, with everything written, ends the connection as well: pings alone do not prove that a broker works.
        """
        keepalive_s = self._paho.keepalive or self._options.keepalive_s  # paho puts the Server Keep Alive there
        patience_s = max(self._options.timeout_s, keepalive_s)
        while not self.lost.done():
            silence_s = paho.time_func() - self._paho._last_bytes_received
            if silence_s >= keepalive_s:
                self._client.give_up(f"the broker was silent for {silence_s:.0f} s (keepalive_s is {keepalive_s})")
            elif self._acks and not self._paho._out_packet and self._loop.time() - self._last_ack >= patience_s:
                self._client.give_up(f"the broker acknowledged nothing for {patience_s:.0f} s")
            elif silence_s >= keepalive_s / 2 and not self._paho._ping_t:
                self._client.ping()
            await asyncio.sleep(min(1.0, keepalive_s / 10))


class _Overheard(logging.Handler):
    """Keeps the last thing that paho logged as an error: its callbacks do not say why a connection broke."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.last = ""

    def emit(self, record: logging.LogRecord) -> None:
        self.last = record.getMessage()


class _Client(aiomqtt.Client):
    """aiomqtt's client with other callbacks: they tell the session, and they never leave the loop's thread."""

    def __init__(self, session: MqttSession, options: Terms, client_id: str, will: Will | None, clean: bool) -> None:
        self._session = session
        self._chunk = b""
        self._at = 0
        self._at_end = False
        self._watching = False
        self._overheard = _Overheard()
        logger = logging.Logger("paho", logging.WARNING)  # not in the tree: nothing is printed, all is overheard
        logger.addHandler(self._overheard)
        super().__init__(
            hostname=session._broker.host,
            port=session._broker.port,
            identifier=client_id,
            protocol=aiomqtt.ProtocolVersion.V5 if session._v5 else aiomqtt.ProtocolVersion.V311,
            username=options.username or None,
            password=options.password.read() if options.password else None,
            will=aiomqtt.Will(will.topic, will.payload, will.qos, will.retain) if will else None,
            clean_session=None if session._v5 else clean,
            clean_start=clean if session._v5 else paho.MQTT_CLEAN_START_FIRST_ONLY,
            properties=_connect_properties(clean, session.listening) if session._v5 else None,
            keepalive=options.keepalive_s,
            max_inflight_messages=0,  # the session counts: paho would queue what is above, and send it unasked
            logger=logger,
        )
        self._client.manual_ack_set(True)
        limit = session.listening.longest_payload
        self._longest_publish = None if limit is None else limit + HEAD_BYTES

    def begin(self, connected: Any) -> None:  # Any: a socket or an SSL socket; paho's type is private
        """Give paho its socket and let it send CONNECT."""
        setattr(self._client, "_create_socket", lambda: connected)  # noqa: B010 # mypy forbids the plain assignment to a method
        setattr(self._client, "_sock_recv", self._take)  # noqa: B010 # as above
        setattr(self._client, "_handle_pubackcomp", self._on_puback)  # noqa: B010 # as above
        self._handle_publish = self._client._handle_publish
        setattr(self._client, "_handle_publish", self._on_publish_packet)  # noqa: B010 # as above
        self._client_connect()

    def end(self) -> None:
        self._client._sock_close()
        if not self._connected.done():
            self._connected.cancel()

    def ping(self) -> None:
        """Send PINGREQ ahead of whatever waits: its answer must not depend on how much that is."""
        self._client._send_pingreq()
        waiting = self._client._out_packet
        ping = waiting.pop()
        waiting.insert(1 if waiting and waiting[0]["pos"] else 0, ping)

    def give_up(self, why: str) -> None:
        error = Unreachable(f"{self._session.where}: {why}: it will be tried again")
        if not self._connected.done():
            self._connected.set_exception(error)
        self._session._lose(error)
        self._client._sock_close()

    # ---- callbacks of paho

    def _on_connect(self, client: paho.Client, userdata: Any, flags: paho.ConnectFlags, reason: ReasonCode, properties: Any = None) -> None:
        if self._connected.done():
            return
        if reason.is_failure:
            self._connected.set_exception(self._explain(reason, "refused"))
            return
        self._session._connected(flags.session_present, properties)
        self._connected.set_result(None)

    def _on_disconnect(
        self, client: paho.Client, userdata: Any, flags: paho.DisconnectFlags, reason: ReasonCode, properties: Any = None
    ) -> None:
        where = self._session.where
        if flags.is_disconnect_packet_from_server:
            error = self._explain(reason, "ended")
        else:
            detail = f" ({self._overheard.last})" if self._overheard.last else ""
            error = tls_alert(self._overheard.last, where) or Unreachable(
                f"{where}: the connection was lost{detail}: it will be tried again"
            )
        if not self._connected.done():
            if type(error) is Unreachable:
                error = Unreachable(f"{error}; closed before CONNACK: {self._session._hint()}")
            self._connected.set_exception(error)
        self._session._lose(error)

    def _on_subscribe(self, client: paho.Client, userdata: Any, mid: int, reasons: list[ReasonCode], properties: Any = None) -> None:
        worst = max(reasons, key=lambda reason: reason.value)
        self._session._acknowledged(mid, worst.value)

    def _on_message(self, client: paho.Client, userdata: Any, message: paho.MQTTMessage) -> None:
        try:
            topic = message.topic
        except UnicodeDecodeError:
            topic = message._topic.decode(errors="replace")
        said = message.properties
        content_type = str(getattr(said, "ContentType", "")) if said is not None else ""
        self._session._arrived(
            Message(
                topic,
                bytes(message.payload),
                message.qos,
                message.retain,
                content_type[:200],
                number=message.mid,
                response_topic=str(getattr(said, "ResponseTopic", "")) if said is not None else "",
                correlation=bytes(getattr(said, "CorrelationData", b"")) if said is not None else b"",
            )
        )

    # ---- reading and writing

    def _on_puback(self, name: str) -> MQTTErrorCode:
        """Stands in for paho's own reading of PUBACK, which ends the connection at a reason that it does not know."""
        packet = self._client._in_packet["packet"]
        if len(packet) < 2:
            return paho.MQTT_ERR_PROTOCOL
        number = int.from_bytes(packet[:2], "big")
        if self._client._out_messages.pop(number, None) is not None:
            self._client._inflight_messages -= 1
            self._session._acknowledged(number, packet[2] if len(packet) > 2 else 0)
        return paho.MQTT_ERR_SUCCESS

    def _on_publish_packet(self) -> MQTTErrorCode:
        """Stands in for paho's own reading of PUBLISH where the payload was left out."""
        incoming = self._client._in_packet
        if not self._is_left_out():
            return self._handle_publish()
        packet, qos = bytes(incoming["packet"]), incoming["command"] >> 1 & 3
        length = int.from_bytes(packet[:2], "big")
        number = int.from_bytes(packet[2 + length : 4 + length], "big") if qos else 0
        topic = packet[2 : 2 + length].decode(errors="replace")
        retain = bool(incoming["command"] & 1)
        self._session._arrived(Message(topic, b"", qos, retain, left_out=incoming["remaining_length"], number=number))
        return paho.MQTT_ERR_SUCCESS

    def _is_left_out(self) -> bool:
        """Whether the packet that is being read is a PUBLISH longer than is taken in."""
        incoming = self._client._in_packet
        limit = self._longest_publish
        return limit is not None and incoming["command"] & 0xF0 == _PUBLISH and bool(incoming["remaining_length"] > limit)

    def _on_socket_open(self, client: paho.Client, userdata: Any, sock: Any) -> None:
        self._loop.add_reader(sock.fileno(), self._read)

    def _on_socket_close(self, client: paho.Client, userdata: Any, sock: Any) -> None:
        if sock.fileno() >= 0:
            self._loop.remove_reader(sock.fileno())

    def _on_socket_register_write(self, client: paho.Client, userdata: Any, sock: Any) -> None:
        self._loop.call_soon(self._write)  # all that this turn publishes goes out at its end, without asking epoll

    def _on_socket_unregister_write(self, client: paho.Client, userdata: Any, sock: Any) -> None:
        if self._watching and sock.fileno() >= 0:
            self._loop.remove_writer(sock.fileno())
        self._watching = False

    def _write(self) -> None:
        self._session._hand_over()
        self._client.loop_write()
        if self._client._out_packet and self._client._sock is not None and not self._watching:
            self._watching = True
            self._loop.add_writer(self._client._sock.fileno(), self._write)
        self._session._written()

    def _read(self) -> None:
        """Take a chunk and feed it to paho, which by itself asks the kernel three times for a packet. The rest waits for the
        loop's next turn: the kernel tells again what it holds, and what TLS holds is asked for."""
        if self._client._sock is None:
            return
        try:
            self._chunk, self._at = self._client._sock.recv(CHUNK_BYTES), 0
        except (BlockingIOError, ssl.SSLWantReadError, ssl.SSLWantWriteError):
            return
        except OSError as error:
            self._overheard.last = str(error)
            self._chunk, self._at = b"", 0
        self._at_end = not self._chunk
        self._feed()
        if self._pending():
            self._loop.call_soon(self._read)

    def _feed(self) -> None:
        while (self._at < len(self._chunk) or self._at_end) and self._client._sock is not None:
            try:
                self._client.loop_read()
            except UNREADABLE as error:  # paho would stay at this packet for ever
                self.give_up(f"the broker sent what is no MQTT packet ({type(error).__name__}: {error})")
                return
            if self._client._in_packet["remaining_length"] > PACKET_BYTES and not self._is_left_out():
                self.give_up(f"the broker sends a packet above {PACKET_BYTES} bytes")

    def _pending(self) -> int:
        pending = getattr(self._client._sock, "pending", None)
        return pending() if pending else 0

    def _take(self, size: int) -> bytes:
        """Stands in for paho's own reading from the socket."""
        if self._at < len(self._chunk) and self._is_left_out():
            size = self._leave_out(size)
        if self._at >= len(self._chunk) and not self._at_end:
            raise BlockingIOError
        data = self._chunk[self._at : self._at + size]
        self._at += len(data)
        return data

    def _leave_out(self, size: int) -> int:
        """Pass over the middle of a PUBLISH that is too long. How many bytes paho is to have next: its topic and packet id, one by
        one, and in the end its last byte."""
        incoming = self._client._in_packet
        if not incoming["have_remaining"]:
            return size
        packet = incoming["packet"]
        head = 4 + int.from_bytes(packet[:2], "big") if len(packet) >= 2 else 2
        if len(packet) < head:
            return min(size, head - len(packet))
        passed = min(size - 1, len(self._chunk) - self._at)
        self._at += passed
        incoming["to_process"] -= passed
        self._client._last_bytes_received = paho.time_func()
        return 1

    def _explain(self, reason: ReasonCode, verb: str) -> DriverError:
        kind, text = CONNECT_TROUBLE.get(reason.value, (Unreachable, "see the broker's log"))
        return kind(f"{self._session.where}: {verb} the connection: {reason.getName()} (0x{reason.value:02x}): {text}")


def _connect_properties(clean: bool, listening: Listening) -> Properties:
    properties = Properties(PacketTypes.CONNECT)  # type: ignore[no-untyped-call] # paho annotates it only in part
    properties.SessionExpiryInterval = 0 if clean else listening.expiry_s
    properties.ReceiveMaximum = listening.receive_maximum
    if listening.longest_payload is None:
        properties.MaximumPacketSize = PACKET_BYTES
    return properties


def _correlated(correlation: bytes) -> Properties:
    properties = Properties(PacketTypes.PUBLISH)  # type: ignore[no-untyped-call] # as above
    properties.CorrelationData = correlation
    return properties


def _varint(length: int) -> bytes:
    """Remaining Length (MQTT 5.0, 1.5.5)."""
    if length < 0x80:
        return bytes((length,))
    if length < 0x4000:
        return bytes((length & 0x7F | 0x80, length >> 7))
    encoded = bytearray()
    while True:
        length, low = length >> 7, length & 0x7F
        encoded.append(low | 0x80 if length else low)
        if not length:
            return bytes(encoded)
