"""The Sparkplug uplink: the journal's records as DDATA, births and deaths around them, ledger marks behind them.

One call of :meth:`Sparkplug.session` is one MQTT connection: CONNECT with the NDEATH as will, subscribe, wait for the
primary host if there is one, NBIRTH, a DBIRTH for each device that answers, then portions of the journal as they come. A
portion becomes one *window*: a DDATA for each device in it, with a stamp that names its records, and the mark at QoS 1
whose confirmation moves the cursor. What is not confirmed when the connection ends is history on the next one.

What hosts see of a device follows from the records themselves: one that says "lost" is followed by a DDEATH, the next one
by a DBIRTH. Records of a configuration that no host knows (of before a change, or of a device that is gone) get a birth
that covers them first; a device that is not configured, or lost, and quiet for a while is then declared dead.

Everything that is said goes through one lock, in one order; whatever ends the session (a cancelled task, a host that goes
away, a refusal) is followed by an NDEATH and a DISCONNECT as long as the connection stands.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from contextlib import suppress
from importlib.metadata import version
from pathlib import Path
from typing import Any, Final, Protocol

import numpy as np
import structlog
from numpy.typing import NDArray

from gateway.config.model import Broker, Gateway, SparkplugUplink
from gateway.journal.record import Lane, Record
from gateway.links import Status
from gateway.tasks import first_to_end
from gateway.telemetry.clock_state import ClockState
from gateway.uplink.bdseq import BdSeq
from gateway.uplink.commands import Inbox, id_of
from gateway.uplink.confirm import Confirmations
from gateway.uplink.feed import Feed, Portion, Reader
from gateway.uplink.identity import client_id
from gateway.uplink.mark import MAX_STAMPED, Mark, Stamp, Tally, ack_topic, decode_ack, encode, encode_stamp, lost_spans
from protocols.clock import Clock
from protocols.contract import DriverError, Misfit, Refused, Unreachable
from protocols.model import Batch, Command, Device, Kind, Quality, Tag
from protocols.mqtt.client import Message, MqttSession, Rejected, Will, connect
from protocols.sparkplug.commands import wishes
from protocols.sparkplug.host import PrimaryHost, Word
from protocols.sparkplug.payload import COMMAND_LIMITS, Malformed, decode
from protocols.sparkplug.session import REBIRTH, EdgeNode, Publish, Throttle
from protocols.sparkplug.template import Template
from protocols.sparkplug.topics import BadName, Verb, command_filters, parse

log = structlog.get_logger("holdfast.sparkplug")

PORTION_RECORDS: Final = 500
PORTION_BYTES: Final = 256 * 1024
MESSAGE_BYTES: Final = 64 * 1024
"""A DDATA is closed when it has grown to this; one record that is larger is cut into parts."""
OVERHEAD_BYTES: Final = 1024
"""Room for topic, head and stamp in a packet."""
REBIRTH_EVERY_S: Final = 5.0
HOST_PATIENCE_S: Final = 30.0
"""How long a broker may leave it open whether the primary host is there, where there is another broker to try."""
TIDY_EVERY_S: Final = 5.0
QUIET_S: Final = 10.0
"""A device that should not be alive is declared dead when it has said nothing for so long."""
SUPERSEDED_S: Final = 60.0
"""For so long after a birth, records that are not newer than it are history: the journal's longest commit window."""
GOODBYE_S: Final = 2.0
NODE_EVERY_S: Final = 30.0
"""How often the node's own metrics are told, if they have changed."""

NODE_TAGS: Final = (
    Tag(name="Holdfast/Version", kind=Kind.STRING),
    Tag(name="Holdfast/Pending", kind=Kind.INT64),
    Tag(name="Holdfast/Delivered", kind=Kind.INT64),
    Tag(name="Holdfast/Dropped", kind=Kind.INT64),
    Tag(name="Clock/Synchronised", kind=Kind.BOOL),
    Tag(name="Clock/Error us", kind=Kind.INT64, unit="us"),
)
"""What the edge node tells of itself: records of this uplink that wait, were confirmed, can never be delivered; how its clock is.

``Clock/Synchronised`` is null where the kernel cannot say, ``Clock/Error us`` (the most it can be off) while it is not synchronised."""


class LatestValues(Protocol):
    """What births are made of (``gateway.latest``)."""

    def devices(self) -> Sequence[Device]: ...
    def batches(self, device: Device) -> Sequence[Batch]: ...
    def is_lost(self, device: Device) -> bool: ...


class Sparkplug:
    """One Sparkplug uplink. ``bdseq_file`` keeps bdSeq over restarts; without it, counting starts from the clock."""

    def __init__(
        self,
        options: SparkplugUplink,
        gateway: Gateway,
        reader: Reader,
        latest: LatestValues,
        *,
        clock: Clock,
        status: Status,
        clock_state: ClockState | None = None,
        bdseq_file: Path | None = None,
        inbox: Inbox | None = None,
    ) -> None:
        self.options = options
        self.inbox = inbox
        """Where commands to devices go; None: they are all refused."""
        self.gateway = gateway
        self.latest = latest
        self.clock = clock
        self.clock_state = clock_state or ClockState(clock)
        self.status = status
        self.node = EdgeNode(gateway.group, gateway.name, NODE_TAGS)
        self.host = PrimaryHost(options.primary_host) if options.primary_host else None
        self.brokers = (Broker(host=options.host, port=options.port), *options.fallback)
        self.feed = Feed(reader, clock=clock, backfill_share=options.backfill_share, max_records=PORTION_RECORDS, max_bytes=PORTION_BYTES)
        self.ledger_topic = options.ledger_topic.replace("{group}", gateway.group).replace("{gateway}", gateway.name)
        self.rebirths = Throttle(REBIRTH_EVERY_S)
        self._client_id = client_id(options, gateway)
        self._bdseq = BdSeq(bdseq_file, clock)
        self._window = clock.time_ns() // 1_000_000
        self._at = 0

    def next_window(self) -> int:
        """Numbers of windows start from the clock, so that they hardly repeat after a restart."""
        self._window += 1
        return self._window

    async def session(self, up: Callable[[], None]) -> None:
        """Connect to the broker whose turn it is and deliver until trouble; after trouble it is the next one's turn.

        Raises Unreachable, Refused, Misfit or SecretMissing.
        """
        broker = self.brokers[self._at]
        will = self.node.connect(self._bdseq.next())
        if self.host is not None:
            self.host.connected(f"{broker.host}:{broker.port}")
        try:
            async with connect(self.options, broker, client_id=self._client_id, will=Will(will.topic, will.payload, 1, False)) as mqtt:
                await _Connection(self, mqtt, broker).run(up)
        except BadName as error:
            raise Misfit(f"uplink {self.options.name}: {error}") from error
        except (DriverError, Rejected) as error:
            self._at = (self._at + 1) % len(self.brokers)
            if isinstance(error, Rejected):
                raise Refused(str(error)) from error
            raise


class _Connection:
    """One connection from CONNACK to its end."""

    def __init__(self, uplink: Sparkplug, mqtt: MqttSession, broker: Broker) -> None:
        self._uplink = uplink
        self._mqtt = mqtt
        self._where = f"uplink {uplink.options.name}, broker {broker.host}:{broker.port}"
        self._node = uplink.node
        self._clock = uplink.clock
        self._counters = uplink.status.counters
        by_consumer = uplink.options.acknowledge == "consumer"
        timeout_s = uplink.options.acknowledge_timeout_s if by_consumer else None
        self._confirmations = Confirmations(uplink.feed, self._counters, clock=uplink.clock, timeout_s=timeout_s)
        self._ack_topic = ack_topic(uplink.ledger_topic) if by_consumer else ""
        self._speaking = asyncio.Lock()
        self._host_online = asyncio.Event()
        self._rebirth_asked = asyncio.Event()
        self._born = False
        self._said: set[str] = set()
        self._births_at: dict[str, float] = {}
        self._figures: tuple[int, int, int] = (0, 0, 0)
        self._clock_told = uplink.clock_state.now.rough
        self._heard: dict[str, float] = {}
        """When a device that should not be alive last had something to say; monotonic seconds."""
        limit = min(MESSAGE_BYTES, mqtt.max_packet_bytes or MESSAGE_BYTES)
        self._limit = max(limit - OVERHEAD_BYTES, OVERHEAD_BYTES)

    async def run(self, up: Callable[[], None]) -> None:
        try:
            await first_to_end(self._listen(), self._confirmations.watch(), self._work(up))
        finally:
            if not self._mqtt.lost.done():
                await self._say_goodbye()

    async def _work(self, up: Callable[[], None]) -> None:
        options = self._uplink.options
        for topic_filter in command_filters(self._uplink.gateway.group, self._uplink.gateway.name):
            await self._mqtt.subscribe(topic_filter, 1)
        if self._ack_topic:
            await self._mqtt.subscribe(self._ack_topic, 1)
        if self._uplink.host is not None:
            await self._mqtt.subscribe(self._uplink.host.topic, 1)
            self._uplink.status.trouble = f"waits for primary host {options.primary_host} to be online"
            await first_to_end(self._host_online.wait(), self._lose_patience())
        self._uplink.feed.begin()
        await self._births()
        up()
        inbox = self._uplink.inbox
        told = [inbox.tell(self._mqtt)] if inbox is not None else []
        await first_to_end(self._deliver(), self._obey(), self._tidy(), self._tell_of_itself(), *told)

    async def _lose_patience(self) -> None:
        if len(self._uplink.brokers) == 1:
            await asyncio.get_running_loop().create_future()
        await self._clock.sleep_until(self._clock.monotonic() + HOST_PATIENCE_S)
        raise Unreachable(f"{self._where}: primary host {self._uplink.options.primary_host} is not known there: the next broker is tried")

    async def _say_goodbye(self) -> None:
        """NDEATH before an intended disconnect (tck-id-operational-behavior-edge-node-intentional-disconnect-ndeath)."""
        with suppress(DriverError, Rejected, TimeoutError):
            async with asyncio.timeout(GOODBYE_S):
                death = self._node.ndeath(self._clock.time_ns())
                await (await self._mqtt.publish1(death.topic, death.payload))

    # ---- listening

    async def _listen(self) -> None:
        host = self._uplink.host
        async for message in self._mqtt.messages():
            if host is not None and message.topic == host.topic:
                self._heed(host.take(message.topic, message.payload))
            elif message.topic == self._ack_topic:
                self._take_ack(message)
            else:
                self._take_command(message)

    def _heed(self, word: Word) -> None:
        if word is Word.ONLINE:
            self._host_online.set()
        elif word is Word.OFFLINE and (self._born or len(self._uplink.brokers) > 1):
            raise Unreachable(
                f"{self._where}: primary host {self._uplink.options.primary_host} is offline there: records wait until it is back"
            )
        elif word is Word.OFFLINE:  # the only broker, nothing said yet: stay and wait for the host
            self._host_online.clear()

    def _take_ack(self, message: Message) -> None:
        try:
            believed = self._confirmations.confirmed(decode_ack(message.payload))
        except ValueError:
            believed = False
        if not believed:
            self._refuse("ack-unknown", message.topic)

    def _take_command(self, message: Message) -> None:
        """Rebirth is obeyed; what is for a device is a command; everything else is refused."""
        topic = parse(message.topic)
        if topic is None or topic.verb not in (Verb.NCMD, Verb.DCMD):
            return
        if topic.verb is Verb.DCMD and self._uplink.inbox is not None:
            self._take_wishes(self._uplink.inbox, topic.device, message)
            return
        if message.retain:
            self._refuse("command-retained", message.topic)
            return
        try:
            metrics = decode(message.payload, COMMAND_LIMITS).metrics
        except Malformed as error:
            self._refuse("command-malformed", f"{message.topic}: {error}")
            return
        for metric in metrics:
            if topic.verb is Verb.NCMD and metric.name == REBIRTH and metric.value is True:
                self._uplink.rebirths.ask()
                self._rebirth_asked.set()
            elif topic.verb is Verb.DCMD or metric.name != REBIRTH:
                self._refuse("command-not-writable", f"{message.topic}: {metric.name or metric.alias}")

    def _take_wishes(self, inbox: Inbox, device: str, message: Message) -> None:
        """Each metric of a DCMD is a command of its own; the same bytes again are the same commands."""
        if not inbox.may_take():
            return
        found = self._configured(device)
        tags = {tag.name: tag.kind for tag in found.tags} if found is not None else {}
        try:
            payload = decode(message.payload, COMMAND_LIMITS)
        except Malformed as error:
            inbox.refuse(Command(id=id_of(message, 0), device=device, tag="", value="", deadline_ns=0), "command-malformed", str(error))
            return
        for at, wish in enumerate(wishes(payload, tags, lambda alias: self._node.name_of(device, alias))):
            stamp_ns = None if wish.stamp_ms is None else wish.stamp_ms * 1_000_000
            deadline_ns = 0 if stamp_ns is None else inbox.sent_until(stamp_ns)
            value = "" if wish.value is None else wish.value
            command = Command(id=id_of(message, at), device=device, tag=wish.name, value=value, deadline_ns=deadline_ns)
            reason, why = inbox.objection(retained=message.retain, stamp_ns=stamp_ns)
            if not reason and wish.why and found is not None:
                reason, why = "command-misfit", wish.why
            if reason:
                inbox.refuse(command, reason, why)
            else:
                inbox.take(command)

    def _refuse(self, reason: str, what: str) -> None:
        self._counters.errors[reason] += 1
        if reason not in self._said:
            self._said.add(reason)
            log.warning("command_refused", uplink=self._uplink.options.name, reason=reason, what=what[:300])

    # ---- births and deaths

    def _say(self, message: Publish) -> None:
        self._mqtt.publish0(message.topic, message.payload)

    async def _births(self) -> None:
        """NBIRTH and a DBIRTH for each device that answers. No data goes out meanwhile."""
        async with self._speaking:
            self._born = True
            now_ns = self._clock.time_ns()
            self._figures = self._count()
            self._clock_told = self._uplink.clock_state.now.rough
            self._say(self._node.nbirth([self._own_text(now_ns), self._own_figures(now_ns), *self._own_clock(now_ns)], now_ns))
            for device in self._uplink.latest.devices():
                if not self._uplink.latest.is_lost(device):
                    self._give_birth([device], device)
                    self._node.fit(device)
                await self._mqtt.flushed()
                await asyncio.sleep(0)  # hundreds of births must not hold up the scans

    def _give_birth(self, devices: Sequence[Device], current: Device | None) -> None:
        values = self._uplink.latest.batches(current) if current is not None else ()
        self._say(self._node.dbirth(devices, values, self._clock.time_ns()))
        self._births_at[devices[0].name] = self._clock.monotonic()

    def _configured(self, name: str) -> Device | None:
        return next((device for device in self._uplink.latest.devices() if device.name == name), None)

    def _introduce(self, device: Device) -> Template:
        """The encoder for a Device object that is new on this connection, after a birth if hosts do not know its tags."""
        current, known = self._configured(device.name), self._node.shapes(device.name)
        if current is not None and current.tags == device.tags and (not known or known[0].tags != device.tags):
            self._give_birth([current], current)  # the configuration has changed: what is gone from it is gone from the birth
        template = self._node.fit(device)
        if template is None:
            covered = known if self._node.is_alive(device.name) else []
            wanted = {shape.tags: shape for shape in (*([current] if current is not None else []), *covered, device)}
            self._give_birth(list(wanted.values()), current)
            template = self._node.fit(device)
        assert template is not None, "a birth covers the configurations that it was made of"
        return template

    async def _obey(self) -> None:
        """Serve requests for rebirth, however many come, once in a while."""
        rebirths = self._uplink.rebirths
        while True:
            await self._rebirth_asked.wait()
            self._rebirth_asked.clear()
            due = rebirths.due()
            if due is None:
                continue
            await self._clock.sleep_until(due)
            rebirths.done(self._clock.monotonic())
            log.info("rebirth", uplink=self._uplink.options.name)
            await self._births()

    async def _tidy(self) -> None:
        """DDEATH for devices that are gone or lost and were alive only for the sake of old records."""
        while True:
            await self._clock.sleep_until(self._clock.monotonic() + TIDY_EVERY_S)
            latest = self._uplink.latest
            answering = {device.name for device in latest.devices() if not latest.is_lost(device)}
            now = self._clock.monotonic()
            async with self._speaking:
                for name in self._node.alive():
                    if name not in answering and now - self._heard.setdefault(name, now) >= QUIET_S:
                        self._say(self._node.ddeath(name, self._clock.time_ns()))
            self._heard = {name: at for name, at in self._heard.items() if name not in answering and self._node.is_alive(name)}

    # ---- the node's own metrics

    async def _tell_of_itself(self) -> None:
        while True:
            await self._clock.sleep_until(self._clock.monotonic() + NODE_EVERY_S)
            now_ns = self._clock.time_ns()
            told = self._news(now_ns)
            if told:
                async with self._speaking:
                    self._say(self._node.ndata(told, now_ns))

    def _news(self, now_ns: int) -> list[Batch]:
        """What has changed of the node's own metrics since they were told."""
        figures, self._figures = self._figures, self._count()
        rough, self._clock_told = self._clock_told, self._uplink.clock_state.now.rough
        told = [self._own_figures(now_ns)] if figures != self._figures else []
        return told + (self._own_clock(now_ns) if rough != self._clock_told else [])

    def _count(self) -> tuple[int, int, int]:
        """Records pending, delivered, dropped."""
        pending = sum(self._uplink.feed.waiting(lane) for lane in Lane) + self._confirmations.records
        return pending, self._counters.given, sum(self._counters.dropped.values())

    def _own_figures(self, now_ns: int) -> Batch:
        return _good(self._node.device, [1, 2, 3], np.array(self._figures, dtype=np.int64), now_ns)

    def _own_text(self, now_ns: int) -> Batch:
        return _good(self._node.device, [0], np.array([version("holdfast")], dtype=np.object_), now_ns)

    def _own_clock(self, now_ns: int) -> list[Batch]:
        now = self._uplink.clock_state.now
        synchronised = _one(self._node.device, 4, now.synchronised, np.zeros(1, dtype=np.bool_), now_ns)
        return [synchronised, _one(self._node.device, 5, now.maximum_error_us, np.zeros(1, dtype=np.int64), now_ns)]

    # ---- data

    async def _deliver(self) -> None:
        feed = self._uplink.feed
        while True:
            await self._confirmations.room()
            portion = await feed.next()
            async with self._speaking:
                mark = self._send(portion)
            answer = await self._mqtt.publish1(self._uplink.ledger_topic, encode(mark))
            self._confirmations.sent(portion, mark, answer)
            await self._mqtt.flushed()

    def _send(self, portion: Portion) -> Mark:
        """Everything in ``portion``, by device; returns the mark that is due. In one go: nothing else is said between."""
        gateway, window, tally = self._uplink.gateway, self._uplink.next_window(), Tally()
        by_device: dict[str, list[Record]] = {}
        records = 0
        for entry in portion.entries:
            if isinstance(entry, Record):
                by_device.setdefault(entry.batch.device.name, []).append(entry)
                records += 1
        self._counters.taken += records
        now_ns = self._clock.time_ns()
        for name, found in by_device.items():
            self._send_device(name, found, _Letter(self, portion.lane, portion.epoch, window, tally, name, now_ns), portion.historical)
        return Mark(
            uplink=self._uplink.options.name,
            group=gateway.group,
            gateway=gateway.name,
            window=window,
            lane=portion.lane,
            epoch=portion.epoch,
            first=portion.first,
            last=portion.last,
            previous=portion.previous,
            records=records,
            values=tally.values,
            messages=tally.messages,
            digest=tally.digest,
            lost=lost_spans(portion.entries),
            historical=portion.historical,
            clock=self._uplink.clock_state.now.word.value,
        )

    def _send_device(self, name: str, records: Sequence[Record], letter: _Letter, historical: bool) -> None:
        """One device's records of a portion, oldest first: as few DDATA as they fit in, births and deaths where due."""
        node, lost, upto_ns = self._node, False, self._told_upto(name, letter.now_ns)
        for record in records:
            batch = record.batch
            if lost and not batch.lost:
                letter.post()
                self._say(node.ddeath(name, letter.now_ns))
            lost = batch.lost and not historical
            template = node.template(batch.device)
            if template is None:
                letter.post()  # in the order of the sequence numbers: what was encoded goes out before the birth
                template = self._introduce(batch.device)
                upto_ns = self._told_upto(name, letter.now_ns)
            letter.add(record, template, historical or int(batch.time_ns[-1]) <= upto_ns)
        letter.post()
        if name in self._heard:
            self._heard[name] = self._clock.monotonic()
        if lost:
            self._say(node.ddeath(name, letter.now_ns))

    def _told_upto(self, name: str, now_ns: int) -> int:
        """The newest time that a recent birth has told: older values must not follow it as live ones.

        0 where there is no recent birth, or where its time lies ahead: a clock went back, and what comes now is live.
        """
        upto_ns = self._node.born_upto(name)
        recent = self._clock.monotonic() - self._births_at.get(name, float("-inf")) < SUPERSEDED_S
        return upto_ns if recent and upto_ns <= now_ns else 0


class _Letter:
    """A DDATA in the making: the metrics of one device's records, until it is full."""

    def __init__(self, on: _Connection, lane: Lane, epoch: int, window: int, tally: Tally, name: str, now_ns: int) -> None:
        self._say, self._node, self._limit = on._say, on._node, on._limit
        self._lane, self._epoch, self._window, self._tally = lane, epoch, window, tally
        self._name, self.now_ns = name, now_ns
        self._chunks: list[bytes] = []
        self._seqs: list[int] = []
        self._size = 0
        self._values = 0
        self._newest_ns = 0

    def add(self, record: Record, template: Template, historical: bool) -> None:
        chunk = template.encode(record.batch, historical=historical)
        times = record.batch.time_ns
        goes_back = not historical and int(times[0]) < self._newest_ns  # live values stand in the order of their times
        if self._size + len(chunk) > self._limit or len(self._seqs) >= MAX_STAMPED or goes_back:
            self.post()
        self._newest_ns = int(times[-1])
        if len(chunk) > self._limit and len(record.batch) > 1:
            self._post_parts(record, template, historical, -(-len(chunk) // self._limit))
            return
        self._chunks.append(chunk)
        self._seqs.append(record.seq)
        self._size += len(chunk)
        self._values += len(record.batch)

    def post(self) -> None:
        """Send what has gathered, if anything."""
        if not self._seqs:
            return
        stamp = encode_stamp(Stamp(self._window, self._lane, self._epoch, tuple(self._seqs)))
        self._send(self._chunks, self._values, stamp)
        self._chunks, self._seqs, self._size, self._values = [], [], 0, 0

    def _post_parts(self, record: Record, template: Template, historical: bool, parts: int) -> None:
        batches = _cut(record.batch, parts)
        for part, batch in enumerate(batches):
            stamp = encode_stamp(Stamp(self._window, self._lane, self._epoch, (record.seq,), part, len(batches)))
            self._send([template.encode(batch, historical=historical)], len(batch), stamp)

    def _send(self, chunks: Sequence[bytes], values: int, stamp: bytes) -> None:
        message = self._node.ddata(self._name, chunks, self.now_ns, stamp)
        self._tally.add(message.payload, values)
        self._say(message)


def _good(device: Device, slots: list[int], value: NDArray[Any], time_ns: int) -> Batch:  # Any: see Batch.value
    count = len(slots)
    return Batch(device, np.array(slots, np.uint32), value, np.zeros(count, np.uint32), np.full(count, time_ns, np.int64))


def _one(device: Device, slot: int, value: float | None, column: NDArray[Any], time_ns: int) -> Batch:  # Any: see Batch.value
    """One value, or its absence where nobody knows it."""
    column[0] = value or 0
    quality = Quality.GOOD if value is not None else Quality.BAD_NOT_SUPPORTED
    return Batch(device, np.array([slot], np.uint32), column, np.array([quality], np.uint32), np.array([time_ns], np.int64))


def _cut(batch: Batch, parts: int) -> list[Batch]:
    """``batch`` in at most ``parts`` pieces of nearly the same number of rows."""
    step = -(-len(batch) // parts)
    return [
        Batch(
            device=batch.device,
            tag=batch.tag[at : at + step],
            value=batch.value[at : at + step],
            quality=batch.quality[at : at + step],
            time_ns=batch.time_ns[at : at + step],
            lost=batch.lost,
        )
        for at in range(0, len(batch), step)
    ]
