"""The MQTT shell of the reference consumer: subscribes, prints, acknowledges, asks for births; decides nothing else.

It takes one gateway's Sparkplug messages, its ledger marks and, if told to, its plain messages, and writes NDJSON: one line
for each data message that brought something new (``{"device": ..., "epoch": ..., "seqs": [...], "readings": [...]}``) and one
for each finding that a person should see (``{"finding": ...}``). A mark is acknowledged only after its lines are written.

The connection is kept by ``links.keep``, as every other is. The account survives reconnects.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import IO, Annotated, Any, Final, Literal

import msgspec
from msgspec import Meta

from gateway import links, readable
from gateway.config.model import Broker, Gateway, Host, MqttUplink, Name, Port
from gateway.consume.account import Account, Verdict
from gateway.consume.decode import Arrived, Delivery, Finding, RebirthNeeded, SparkplugDecoder, decode_plain
from gateway.tasks import cancel
from gateway.uplink.mark import Stamp, ack_topic, acknowledge, decode_mark, encode
from gateway.uplink.shapes import topic_of
from protocols.clock import Clock, SystemClock
from protocols.contract import Refused
from protocols.model import Kind
from protocols.mqtt.client import Message, MqttSession, Rejected, Will, connect
from protocols.secret import Secret
from protocols.sparkplug.metric import node_metric
from protocols.sparkplug.session import REBIRTH
from protocols.sparkplug.template import assemble
from protocols.sparkplug.topics import Verb, parse, state_topic, topic
from protocols.tls import Tls

REBIRTH_EVERY_S: Final = 5.0


class ConsumeOptions(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Which gateway to listen to, where, and how."""

    group: Name
    gateway: Name
    host: Host = "127.0.0.1"
    port: Port = 1883
    tls: Tls | None = None
    username: str = ""
    password: Secret | None = None
    protocol: Literal["3.1.1", "5"] = "5"
    client_id: Annotated[str, Meta(description="MQTT client id; empty makes holdfast-consume-<group>-<gateway>.")] = ""
    ledger_topic: Annotated[str, Meta(description="Topic of the ledger marks, as the uplink has it.")] = "holdfast/{group}/{gateway}/ledger"
    plain_topic: Annotated[str, Meta(description="Topic of a plain uplink (shape columns or tags), as it has it; empty for none.")] = ""
    sparkplug: Annotated[bool, Meta(description="Listen to Sparkplug messages and ledger marks.")] = True
    acknowledge: Annotated[bool, Meta(description="Confirm good ledger marks, for an uplink with acknowledge: consumer.")] = False
    rebirth: Annotated[bool, Meta(description="Ask for births where data cannot be decoded.")] = True
    host_id: Annotated[
        str, Meta(max_length=256, pattern=r"^[^/+#]*$", description="Say STATE as this primary host, so that the gateway waits for us.")
    ] = ""
    from_beginning: Annotated[bool, Meta(description="Expect everything from the gateway's first record on.")] = False


class Consumer:
    """One consumer. ``session`` is what ``links.keep`` runs; ``verdict`` may be asked at any time."""

    def __init__(self, options: ConsumeOptions, out: IO[str] | None, *, clock: Clock, ended: asyncio.Event | None = None) -> None:
        """``ended`` is set when nobody reads ``out`` any more."""
        names = Gateway(group=options.group, name=options.gateway)
        self._options = options
        self._out = out
        self._clock = clock
        self._ended = ended or asyncio.Event()
        self._reached = False
        self._account = Account(from_beginning=options.from_beginning)
        self._sparkplug = SparkplugDecoder()
        self._ledger_topic = topic_of(options.ledger_topic, names, "", "")
        self._plain_filter = topic_of(options.plain_topic, names, "{any}", "{any}").replace("{any}", "+")
        self._asked_at = float("-inf")
        self.malformed = 0
        """Messages that could not be read."""
        self.rebirths = 0
        """How often a rebirth was asked for."""

    def verdict(self) -> Verdict:
        verdict = self._account.verdict()
        verdict.malformed, verdict.rebirths = self.malformed, self.rebirths
        verdict.unsure = verdict.unsure or self._why_unsure(verdict)
        return verdict

    def _why_unsure(self, verdict: Verdict) -> str:
        if not self._reached:
            return "the broker was never reached: check host, port and credentials"
        if not verdict.received and not verdict.marks:
            return "nothing came: check group, gateway and topics, and that the gateway runs"
        if self._sparkplug.unread:
            return f"{self._sparkplug.unread} messages came before any birth that explains them: allow rebirths"
        return ""

    async def session(self, up: Callable[[], None]) -> None:
        """Connect, subscribe, call ``up``, take messages until trouble."""
        options = self._options
        client_id = options.client_id or f"holdfast-consume-{options.group}-{options.gateway}"
        since_ms = self._clock.time_ns() // 1_000_000
        will = Will(state_topic(options.host_id), _state(False, since_ms), 1, True) if options.host_id else None
        async with connect(_uplink(options), Broker(host=options.host, port=options.port), client_id=client_id, will=will) as mqtt:
            self._account.interrupted()
            try:
                for topic_filter, qos in self._subscriptions():
                    await mqtt.subscribe(topic_filter, qos)
                up()
                self._reached = True
                if options.host_id:  # only now: who is told that we are online may send at once
                    await (await mqtt.publish1(state_topic(options.host_id), _state(True, since_ms), retain=True))
            except Rejected as error:
                raise Refused(str(error)) from error
            async for message in mqtt.messages():
                await self._take(mqtt, message)

    def _subscriptions(self) -> list[tuple[str, int]]:
        filters = []
        if self._options.sparkplug:
            filters += [(self._ledger_topic, 1), (f"spBv1.0/{self._options.group}/+/{self._options.gateway}/#", 0)]
        if self._plain_filter:
            filters.append((self._plain_filter, 1))
        return filters

    async def _take(self, mqtt: MqttSession, message: Message) -> None:
        if mqtt.overflowed:
            self._account.doubt("this consumer was too slow: messages were thrown away; run it on a faster machine")
        try:
            if message.topic == self._ledger_topic:
                await self._take_mark(mqtt, message.payload)
            else:
                self._take_findings(mqtt, message.payload, self._findings(message))
        except ValueError as error:
            self.malformed += 1
            self._say({"finding": "malformed", "topic": message.topic, "why": str(error)})

    def _findings(self, message: Message) -> list[Finding]:
        place = parse(message.topic)
        if place is not None:
            return self._sparkplug.message(place, message.payload)
        return [decode_plain(message.payload)]

    def _take_findings(self, mqtt: MqttSession, payload: bytes, findings: list[Finding]) -> None:
        for finding in findings:
            match finding:
                case Arrived(stamp, values):
                    self._account.arrived(stamp, payload, values)
                case Delivery(device, stamp, historical, readings, lost):
                    self._account.lose(stamp.lane, stamp.epoch, lost)
                    if self._account.deliver(device, stamp, len(readings), historical=historical):
                        self._say(_line(finding))
                case RebirthNeeded(device):
                    self._ask_for_rebirth(mqtt, device)

    async def _take_mark(self, mqtt: MqttSession, payload: bytes) -> None:
        checked = self._account.mark(decode_mark(payload))
        if not checked.good:
            mark = checked.mark
            self._say(
                {"finding": "window", "lane": mark.lane, "epoch": mark.epoch, "first": mark.first, "last": mark.last, "why": checked.why}
            )
        elif self._options.acknowledge:
            self._write("")
            answer = await mqtt.publish1(ack_topic(self._ledger_topic), encode(acknowledge(checked.mark)))
            answer.add_done_callback(self._note_answer)

    def _note_answer(self, answer: asyncio.Future[None]) -> None:
        if not answer.cancelled() and isinstance(error := answer.exception(), Rejected):
            self._say({"finding": "acknowledgement rejected", "why": str(error)})

    def _ask_for_rebirth(self, mqtt: MqttSession, device: str) -> None:
        """At most once in REBIRTH_EVERY_S: a gateway with a thousand devices needs a moment for its births."""
        now = self._clock.monotonic()
        if not self._options.rebirth or now - self._asked_at < REBIRTH_EVERY_S:
            return
        self._asked_at = now
        self.rebirths += 1
        self._say({"finding": "rebirth", "device": device})
        time_ns = self._clock.time_ns()
        command = assemble([node_metric(REBIRTH, Kind.BOOL, True, time_ns)], seq=None, time_ns=time_ns)
        mqtt.publish0(topic(self._options.group, Verb.NCMD, self._options.gateway), command)

    def _say(self, line: dict[str, Any]) -> None:  # Any: what JSON holds
        if self._out is not None:
            self._write(_encoder.encode(line).decode() + "\n")

    def _write(self, text: str) -> None:
        """Write ``text``; flush if there is none."""
        if self._out is None:
            return
        try:
            if text:
                self._out.write(text)
            else:
                self._out.flush()
        except BrokenPipeError:  # the reader of our lines has seen enough
            self._out = None
            self._ended.set()


async def consume(
    options: ConsumeOptions, out: IO[str] | None, *, clock: Clock | None = None, stop: asyncio.Event | None = None
) -> Verdict:
    """Listen until ``stop`` is set or nobody reads ``out`` any more; lines go to ``out``. Returns the verdict."""
    clock, stop = clock or SystemClock(), stop or asyncio.Event()
    consumer = Consumer(options, out, clock=clock, ended=stop)
    link = asyncio.create_task(links.keep(consumer.session, links.Status("consumer", options.gateway), clock=clock))
    try:
        await stop.wait()
    finally:
        await cancel(link)
    return consumer.verdict()


_encoder = msgspec.json.Encoder()


def _line(delivery: Delivery) -> dict[str, Any]:  # Any: what JSON holds
    stamp: Stamp = delivery.stamp
    line: dict[str, Any] = {"device": delivery.device, "lane": stamp.lane, "epoch": stamp.epoch, "seqs": stamp.seqs}
    if delivery.historical:
        line["historical"] = True
    line["readings"] = [  # a list: one message may hold several scans, and then a tag several times
        {"tag": reading.tag, "value": readable.value(reading.value), "quality": reading.quality, "time_ms": reading.time_ms}
        for reading in delivery.readings
    ]
    return line


def _state(online: bool, since_ms: int) -> bytes:
    """A host's birth, or its death as will; both carry the time of the birth (Sparkplug 3.0, 4.1.10)."""
    return _encoder.encode({"online": online, "timestamp": since_ms})


def _uplink(options: ConsumeOptions) -> MqttUplink:
    """The same connection settings in the form that the MQTT session takes."""
    return MqttUplink(
        name="consume",
        host=options.host,
        port=options.port,
        tls=options.tls,
        username=options.username,
        password=options.password,
        protocol=options.protocol,
    )
