"""A host application for tests: sees every message that a gateway sends, decodes it, and can speak to the gateway.

It keeps what it learnt from births, as real hosts do, so a test asks for names and values and not for aliases.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Final

from gateway.config.model import Broker, MqttUplink
from gateway.uplink.mark import Ack, Mark, Stamp, Tally, acknowledge, decode_mark, decode_stamp, encode
from protocols.model import Kind
from protocols.mqtt.client import Message, MqttSession, connect
from protocols.sparkplug import metric
from protocols.sparkplug.metric import Value
from protocols.sparkplug.payload import Metric, Payload, decode, value_of
from protocols.sparkplug.session import REBIRTH
from protocols.sparkplug.template import assemble
from protocols.sparkplug.topics import Topic, Verb, parse, topic

DEADLINE_S: Final = 10.0
LEDGER: Final = "holdfast/plant/gw/ledger"


@dataclass(frozen=True, slots=True)
class Seen:
    """One message as it came."""

    message: Message
    topic: Topic | None
    payload: Payload | None
    mark: Mark | None

    @property
    def verb(self) -> str:
        return str(self.topic.verb) if self.topic is not None else "mark" if self.mark is not None else self.message.topic

    @property
    def device(self) -> str:
        return self.topic.device if self.topic is not None else ""

    @property
    def stamp(self) -> Stamp:
        assert self.payload is not None
        return decode_stamp(self.payload.body)

    def metric(self, name: str) -> Metric:
        assert self.payload is not None
        return next(one for one in self.payload.metrics if one.name == name)


@dataclass
class Host:
    mqtt: MqttSession
    seen: list[Seen] = field(default_factory=list)
    names: dict[tuple[str, int], tuple[str, int]] = field(default_factory=dict)
    """Name and datatype by device and alias, of the latest births."""
    acknowledges: Callable[[Mark], Ack | None] = lambda mark: None
    _news: asyncio.Event = field(default_factory=asyncio.Event)

    async def listen(self) -> None:
        async for message in self.mqtt.messages():
            seen = _read(message)
            if seen.payload is not None and seen.verb in ("NBIRTH", "DBIRTH"):
                for one in seen.payload.metrics:
                    if one.alias is not None and one.name is not None and one.datatype is not None:
                        self.names[seen.device, one.alias] = (one.name, one.datatype)
            self.seen.append(seen)
            if seen.mark is not None and (ack := self.acknowledges(seen.mark)) is not None:
                await (await self.mqtt.publish1(f"{LEDGER}/ack", encode(ack)))
            self._news.set()

    async def until(self, ready: Callable[[], object], what: str = "") -> None:
        """Wait until ``ready()``; it is asked again after each message."""
        try:
            async with asyncio.timeout(DEADLINE_S):
                while not ready():
                    self._news.clear()
                    await self._news.wait()
        except TimeoutError:
            raise AssertionError(f"{what or 'nothing of the kind'} came; seen: {[one.verb for one in self.seen]}") from None

    async def expect(self, verb: str, device: str = "", *, count: int = 1) -> Seen:
        """The ``count``-th message of this kind, waiting for it."""
        await self.until(lambda: len(self.all(verb, device)) >= count, f"no {verb} {device}")
        return self.all(verb, device)[count - 1]

    def all(self, verb: str, device: str = "") -> list[Seen]:
        return [one for one in self.seen if one.verb == verb and (not device or one.device == device)]

    def values(self, seen: Seen) -> list[tuple[str, Value | None]]:
        """Names and values of a data message, in its order."""
        assert seen.payload is not None
        told = []
        for one in seen.payload.metrics:
            assert one.alias is not None
            name, datatype = self.names[seen.device, one.alias]
            told.append((name, value_of(one.value, datatype)))
        return told

    async def ask_for_rebirth(self, value: bool = True, *, retain: bool = False) -> None:
        await self.command(Verb.NCMD, REBIRTH, value, retain=retain)

    async def command(self, verb: Verb, name: str, value: bool, *, device: str = "", retain: bool = False) -> None:
        payload = assemble([metric.node_metric(name, Kind.BOOL, value, 0)], seq=None, time_ns=10**18)
        await (await self.mqtt.publish1(topic("plant", verb, "gw", device), payload, retain=retain))

    async def state(self, host: str, online: bool, timestamp: int, *, retain: bool = True) -> None:
        text = f'{{"online": {str(online).lower()}, "timestamp": {timestamp}}}'
        await (await self.mqtt.publish1(f"spBv1.0/STATE/{host}", text.encode(), retain=retain))

    def confirm_what_is_whole(self) -> None:
        """Answer each mark whose figures are those of the messages that came."""
        self.acknowledges = self._check

    def _check(self, mark: Mark) -> Ack | None:
        tally = Tally()
        for one in self.all("DDATA"):
            if one.stamp.window == mark.window:
                tally.add(one.message.payload, len(one.payload.metrics) if one.payload is not None else 0)
        whole = (tally.messages, tally.values, tally.digest) == (mark.messages, mark.values, mark.digest)
        return acknowledge(mark) if whole else None


def _read(message: Message) -> Seen:
    if message.topic == LEDGER:
        return Seen(message, None, None, decode_mark(message.payload))
    parsed = parse(message.topic)
    return Seen(message, parsed, decode(message.payload) if parsed is not None else None, None)


@asynccontextmanager
async def host(port: int, name: str = "host") -> AsyncIterator[Host]:
    """A host application that is connected to the broker at ``port`` of this machine."""
    options = MqttUplink(name=name, host="127.0.0.1", port=port)
    async with connect(options, Broker(host="127.0.0.1", port=port), client_id=f"test-{name}", will=None) as mqtt:
        await mqtt.subscribe("spBv1.0/plant/#", 1)
        await mqtt.subscribe(f"{LEDGER}", 1)
        one = Host(mqtt)
        task = asyncio.create_task(one.listen())
        try:
            yield one
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)


def seqs(seen: list[Seen]) -> Iterator[int]:
    """The Sparkplug sequence numbers of all messages that carry one."""
    return (one.payload.seq for one in seen if one.payload is not None and one.payload.seq is not None)
