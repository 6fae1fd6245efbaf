"""Plain MQTT: a record of the journal becomes one JSON message at QoS 1, and its PUBACK moves the cursor.

What is promised: a record is acknowledged when each of its messages got a PUBACK below 0x80, and then only; acknowledgements
may come in any order. A rejected message ends the session as Refused with the broker's reason, and the record stays in the
journal; a message that is too large for the broker is sent in parts instead. MQTT 3.1.1 knows no reasons: a broker that
refuses a message there looks like one that took it, so prefer MQTT 5.

Shell only: what is sent next is decided in ``feed.py``, how it looks in ``shapes.py``.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Final

import msgspec

from gateway.config.model import Broker, Gateway, PlainMqttUplink
from gateway.journal.record import Lane, Lost, Record
from gateway.links import Status
from gateway.tasks import first_to_end
from gateway.telemetry.clock_state import ClockState
from gateway.uplink.commands import Inbox
from gateway.uplink.feed import Feed, Portion, Reader
from gateway.uplink.identity import client_id
from gateway.uplink.mark import LostSpan
from gateway.uplink.shapes import THINGSBOARD_TOPIC, TooLarge, Writer, topic_of
from protocols.clock import Clock
from protocols.contract import Refused
from protocols.mqtt.client import PACKET_TOO_LARGE, MqttSession, Rejected, connect

MAX_RECORDS: Final = 256
MAX_BYTES: Final = 1024 * 1024
TOPIC_ROOM: Final = 16
"""Bytes of a PUBLISH that are neither topic nor payload, at most."""


class Plain:
    """One plain MQTT uplink. ``session`` is what ``links.keep`` runs again and again."""

    def __init__(
        self,
        options: PlainMqttUplink,
        gateway: Gateway,
        reader: Reader,
        clock: Clock,
        status: Status,
        *,
        clock_state: ClockState | None = None,
        inbox: Inbox | None = None,
    ) -> None:
        self._options = options
        self._inbox = inbox
        self._gateway = gateway
        self._status = status
        self._feed = Feed(reader, clock=clock, backfill_share=options.backfill_share, max_records=MAX_RECORDS, max_bytes=MAX_BYTES)
        state = clock_state or ClockState(clock)
        self._writer = Writer(options.payload, gateway, lambda: state.now.word)
        self._template = _template(options)
        self._topics: dict[tuple[str, str], str] = {}
        self._limit: int | None = None
        """Payload bytes that the broker was found not to take at once; None while it took everything."""
        self._untold: dict[Lane, list[LostSpan]] = {lane: [] for lane in Lane}
        """What was lost and has not yet ridden with a record that arrived."""
        self._waiting = 0

    async def session(self, up: Callable[[], None]) -> None:
        """Connect, call ``up``, deliver until trouble. Raises Unreachable, Refused or Misfit."""
        broker = Broker(host=self._options.host, port=self._options.port)
        async with connect(self._options, broker, client_id=client_id(self._options, self._gateway)) as mqtt:
            up()
            self._feed.begin()
            self._waiting = 0
            self._untold = {lane: [] for lane in Lane}  # the feed hands out again what nobody was told
            await mqtt.while_connected(self._work(mqtt))

    async def _work(self, mqtt: MqttSession) -> None:
        inbox = self._inbox
        if inbox is None or not self._options.commands:
            await self._deliver(mqtt)
            return
        await mqtt.subscribe(inbox.topic, 1)
        await first_to_end(self._deliver(mqtt), self._listen(mqtt, inbox), inbox.tell(mqtt))

    async def _listen(self, mqtt: MqttSession, inbox: Inbox) -> None:
        async for message in mqtt.messages():
            if message.topic == inbox.topic:
                inbox.take_json(message)

    async def _deliver(self, mqtt: MqttSession) -> None:
        while True:
            await self._send(mqtt, await self._feed.next())

    async def _send(self, mqtt: MqttSession, portion: Portion) -> None:
        answer: asyncio.Future[None] | None = None
        for entry in portion.entries:
            if isinstance(entry, Lost):
                self._note_lost(portion.lane, entry)
            else:
                self._status.counters.taken += 1
                answer = await self._send_record(mqtt, entry, historical=portion.historical)
        if answer is None:
            self._feed.passed(portion)
        else:
            answer.add_done_callback(lambda _: self._feed.passed(portion))

    def _note_lost(self, lane: Lane, entry: Lost) -> None:
        """It rides with the lane's next record. (ThingsBoard's API has no place for it; the journal's ledger counts it.)"""
        spans = self._untold[lane]
        if spans and spans[-1].last + 1 == entry.first and spans[-1].reason == entry.reason:
            spans[-1] = LostSpan(spans[-1].first, entry.last, entry.reason)  # where all is refused for long: one span, not one a second
        else:
            spans.append(LostSpan(entry.first, entry.last, entry.reason))

    async def _send_record(self, mqtt: MqttSession, record: Record, *, historical: bool) -> asyncio.Future[None]:
        """The broker's answer to its last message."""
        topic = self._topic(record)
        lost = tuple(self._untold[record.lane])
        try:
            payloads = self._writer.payloads(record, historical=historical, lost=lost, limit=self._room(mqtt, topic))
        except TooLarge as error:
            raise Refused(f"uplink {self._options.name}: {error}: raise the broker's limit; the record stays in the journal") from None
        delivery = _Delivery(self, mqtt, record, lost, len(payloads))
        self._waiting += 1
        for payload in payloads:
            answer = await mqtt.publish1(topic, payload)
            answer.add_done_callback(delivery.answered)
            delivery.largest = max(delivery.largest, len(payload))
        return answer

    def _delivered(self, record: Record, lost: tuple[LostSpan, ...]) -> None:
        self._feed.acknowledge_span(record.lane, record.seq, record.seq)
        self._told(record.lane, lost)
        counters = self._status.counters
        counters.given += 1
        self._waiting -= 1
        counters.oldest_ns = record.written_ns if self._waiting else 0

    def _told(self, lane: Lane, lost: tuple[LostSpan, ...]) -> None:
        """``lost`` has arrived. What has grown meanwhile is still untold at its end."""
        upto = {span.first: span.last for span in lost}
        for first, last in upto.items():
            self._feed.acknowledge_span(lane, first, last)
        left = (LostSpan(upto.get(span.first, span.first - 1) + 1, span.last, span.reason) for span in self._untold[lane])
        self._untold[lane] = [span for span in left if span.first <= span.last]

    def _rejected(self, mqtt: MqttSession, record: Record, rejection: Rejected, size: int) -> None:
        """Nothing is lost: the record is still pending. Too large: it goes again in parts; else a person must act."""
        self._waiting -= 1
        self._status.counters.errors[f"rejected-{rejection.reason:#04x}"] += 1
        if rejection.reason == PACKET_TOO_LARGE and len(record.batch) > 1:
            self._limit = min(self._limit or size, size * 3 // 4)
            self._feed.again(Portion(record.lane, record.epoch, record.seq, record.seq, [record], historical=True))
        else:
            mqtt.abandon(Refused(f"{rejection}; the record stays in the journal"))

    def _topic(self, record: Record) -> str:
        device = record.batch.device
        key = (device.connection, device.name)
        if key not in self._topics:
            self._topics[key] = topic_of(self._template, self._gateway, *key)
        return self._topics[key]

    def _room(self, mqtt: MqttSession, topic: str) -> int | None:
        """Bytes that a payload on ``topic`` may have."""
        announced = None if mqtt.max_packet_bytes is None else mqtt.max_packet_bytes - len(topic.encode()) - TOPIC_ROOM
        return min((limit for limit in (announced, self._limit) if limit is not None), default=None)


class _Delivery:
    """One record on its way: it is delivered when all of its messages are, and rejected once."""

    __slots__ = ("_left", "_lost", "_mqtt", "_plain", "_record", "largest")

    def __init__(self, plain: Plain, mqtt: MqttSession, record: Record, lost: tuple[LostSpan, ...], messages: int) -> None:
        self._plain = plain
        self._mqtt = mqtt
        self._record = record
        self._lost = lost
        self._left = messages
        self.largest = 0

    def answered(self, answer: asyncio.Future[None]) -> None:
        if answer.cancelled() or self._left <= 0:
            return
        error = answer.exception()
        if isinstance(error, Rejected):
            self._left = 0
            self._plain._rejected(self._mqtt, self._record, error, self.largest)
        elif error is None:
            self._left -= 1
            if not self._left:
                self._plain._delivered(self._record, self._lost)


def _template(options: PlainMqttUplink) -> str:
    """ThingsBoard listens on one topic: it is taken unless another one is set."""
    untouched = options.topic == next(field.default for field in msgspec.structs.fields(PlainMqttUplink) if field.name == "topic")
    return THINGSBOARD_TOPIC if options.payload == "thingsboard" and untouched else options.topic
