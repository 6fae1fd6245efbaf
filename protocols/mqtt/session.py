"""One open connection to a broker: messages become batches, silence and last wills become lost devices, commands go out.

A message is acknowledged only after its batches were taken, and a while later (``hold_s``), so that the broker still has it while
the journal makes it durable. What cannot be read is bad, never dropped in silence; what is nobody's is counted and said.
Long work is done in portions: the loop is given up after every few milliseconds.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Sequence
from typing import Any, Final

from protocols.clock import Clock
from protocols.contract import Admission, Refused
from protocols.model import Batch, Command, Outcome, Quality, ScanStats, silence
from protocols.mqtt.client import Message, MqttSession, Rejected
from protocols.mqtt.config import Mqtt
from protocols.mqtt.held import FEW, Held
from protocols.mqtt.plan import DevicePlan, Plan, Status
from protocols.mqtt.write import Writer
from protocols.payload import documents
from protocols.payload.edge import PREFIX, Edge
from protocols.payload.paths import NOTHING
from protocols.payload.trouble import Undecodable

TICK_S: Final = 0.25
"""How often silence is looked for and held acknowledgements are released."""
HELD_TICK_S: Final = 0.05
PORTION_S: Final = 0.005
WAITS: Final = (
    f"the broker sends few messages before it waits for acknowledgements: only {FEW} are held back now, so a power cut can cost what "
    "came in the journal's last commit window (mosquitto: raise max_inflight_messages to 1000, or write protocol 5)"
)
AT_ONCE: Final = 200
"""Subscriptions that wait for their answer at the same time."""
TOPICS_SAID: Final = 20
"""Topics of nobody that are told by name."""
FORGOTTEN: Final = (
    "the broker has forgotten this session: what devices published while the connection was away is lost (mosquitto: write persistence "
    "true; else raise session_expiry_s, or look for another client with this client_id)"
)
REBIRTH_PAUSE_S: Final = 10.0
"""A node is asked for its births at most so often."""


class Session:
    """See the driver contract. Made by ``driver.Driver.open``, which subscribes before anybody reads."""

    proven = True
    """The broker took the subscriptions."""
    tells = True
    """See :class:`protocols.steps.Telling`."""

    def __init__(self, options: Mqtt, plan: Plan, mqtt: MqttSession, clock: Clock) -> None:
        self.stats = ScanStats()
        self.findings: list[str] = []
        self._options = options
        self._plan = plan
        self._mqtt = mqtt
        self._clock = clock
        self._ready: deque[Batch | Message] = deque()
        self._held = Held(options.hold_s, options.hold_messages)
        self._heard: dict[DevicePlan, float] = {}
        self._lost: set[DevicePlan] = set()
        self._said: set[str] = set()
        self._strangers = 0
        self._overflowed = 0
        self._asked: dict[Edge, float] = {}
        self._writer = Writer(options, plan, mqtt, clock)
        self.admission: Admission | None = None

    # ---- the contract

    async def batches(self) -> AsyncIterator[Batch]:
        """Batches as messages come. Raises the error of the loss."""
        turn_began = self._clock.monotonic()
        while True:
            while self._ready:
                item = self._ready.popleft()
                if isinstance(item, Message):
                    self._hold(item)
                else:
                    yield item
            if not self._mqtt.waiting:
                await self._mqtt.arrival(lambda: bool(self._ready))
                turn_began = self._clock.monotonic()
            elif self._clock.monotonic() - turn_began > PORTION_S:
                await asyncio.sleep(0)
                turn_began = self._clock.monotonic()
            if self._mqtt.waiting:
                message = await self._mqtt.receive()
                self._ready.extend(self._read(message))
                self._ready.append(message)

    async def write(self, commands: Sequence[Command]) -> Sequence[Outcome]:
        return await self._writer.write(commands)

    # ---- for the driver

    async def subscribe(self) -> list[str]:
        """Subscribe to everything in the plan; what the broker refuses is said, and bad. The refused filters.

        Raises Refused where it refuses all of them, or the error of the loss.
        """
        now = self._clock.monotonic()
        self._heard = dict.fromkeys((each for each in self._plan.devices if each.options.silence_s), now)
        filters = list(self._plan.filters.items())
        refused: list[tuple[str, str]] = []
        for begin in range(0, len(filters), AT_ONCE):
            part = filters[begin : begin + AT_ONCE]
            answers = await asyncio.gather(*(self._mqtt.subscribe(*each) for each in part), return_exceptions=True)
            for (text, _), answer in zip(part, answers, strict=True):
                if isinstance(answer, Rejected):
                    refused.append((text, str(answer)))
                elif answer is not None:
                    raise answer
        if refused and len(refused) == len(filters):
            raise Refused(f"{refused[0][1]} (every subscription was rejected)")
        for _, why in refused:
            self._say(f"{why}: its devices will not be heard", "subscription_rejected")
        self._mark_unheard([text for text, _ in refused])
        for edge in self._plan.edges.values():
            edge.begin()
        await self._ask_for_births()
        if self._plan.was_open and not self._mqtt.session_present and self._options.session_expiry_s:
            self._say(FORGOTTEN, "session_forgotten")
        self._plan.was_open = True
        return [text for text, _ in refused]

    async def look_after(self) -> None:
        """Look for silence, release acknowledgements, ask for births: until cancelled, or the connection is lost."""
        while not self._mqtt.lost.done():
            await self._clock.sleep_until(self._clock.monotonic() + (HELD_TICK_S if self._held else TICK_S))
            now = self._clock.monotonic()
            for message in self._held.due(now):
                self._mqtt.acknowledge(message)
            if self._held.most < self._options.hold_messages:
                self._say(WAITS, "broker_waits")
            for plan, heard in self._heard.items():
                if now - heard >= plan.options.silence_s and plan not in self._lost:
                    self._ready.extend(self._lose(plan))
            self._count_overflow()
            if not self._mqtt.lost.done():
                await self._ask_for_births()
            if self._ready:
                self._mqtt.nudge()

    # ---- messages

    def _hold(self, message: Message) -> None:
        """Everything of ``message`` was taken: acknowledge it when it is durable, or when too many wait."""
        if message.qos:
            for due in self._held.take(message, self._clock.monotonic()):
                self._mqtt.acknowledge(due)

    def _read(self, message: Message) -> list[Batch]:
        self.stats.requests += 1
        if message.topic.startswith(PREFIX) and self._plan.edges:
            return self._sparkplug(message)
        routes = self._plan.table.of(message.topic)
        if not routes:
            self._nobodys(message.topic)
            return []
        batches: list[Batch] = []
        now_ns = self._clock.time_ns()
        for route in routes:
            if self._is_refused(route.plan):
                continue
            if isinstance(route, Status):
                batches += self._status(route, message)
                continue
            self._is_heard(route.plan)
            if message.left_out:
                self._trouble(route.plan, message.topic, f"it has {message.left_out} bytes, more than is read", "too_long")
                batches += route.decoder.bad(Quality.BAD_OUT_OF_RANGE, now_ns)
                continue
            batches += route.decoder.decode(message.payload, now_ns, media_type=message.content_type, is_old=message.retain)
            if route.decoder.trouble:
                self._trouble(route.plan, message.topic, route.decoder.trouble, "undecodable")
            for slot in route.decoder.absent:
                self._absent(route.plan, slot, message.topic)
        self._writer.saw(batches)
        return batches

    def _status(self, route: Status, message: Message) -> list[Batch]:
        said: Any = message.payload  # Any: JSON
        try:
            if route.find is None:
                said = message.payload.decode(errors="replace").strip()
            else:
                said = route.find(documents.read_json(message.payload))
        except Undecodable as trouble:
            self._trouble(route.plan, message.topic, str(trouble), "undecodable")
            return []
        if said is not NOTHING and (said if isinstance(said, str) else _word(said)) == route.plan.options.offline:
            return self._lose(route.plan)
        return []

    def _sparkplug(self, message: Message) -> list[Batch]:
        parts = message.topic.split("/", 5)
        edge = self._plan.edges.get((parts[1], parts[3])) if len(parts) > 3 else None
        news = edge.take(message.topic, message.payload, self._clock.time_ns()) if edge is not None else None
        if edge is None or news is None:
            self._nobodys(message.topic)
            return []
        batches = news.batches
        for name in news.dead:
            plan = self._plan.places.get((edge.group, edge.node, name))
            if plan is not None:
                batches = batches + self._lose(plan)
        plan = self._plan.places.get((edge.group, edge.node, news.device))
        if plan is not None and self._is_refused(plan):
            return []
        if plan is not None and not news.dead:
            self._is_heard(plan)
            if news.trouble or message.left_out:
                self._trouble(plan, message.topic, news.trouble or "it is longer than is read", "undecodable")
        self._writer.saw(batches)
        return batches

    async def _ask_for_births(self) -> None:
        now = self._clock.monotonic()
        for edge in self._plan.edges.values():
            if edge.wants_rebirth and now - self._asked.get(edge, -REBIRTH_PAUSE_S) >= REBIRTH_PAUSE_S:
                self._asked[edge] = now
                topic, payload = edge.rebirth(self._clock.time_ns())
                try:
                    self._mqtt.publish0(topic, payload)
                except Rejected as rejection:
                    self._say(f"{rejection}: its births cannot be asked for", "rebirth_rejected")
                await self._mqtt.flushed()

    # ---- who lives, and what is said

    def _is_refused(self, plan: DevicePlan) -> bool:
        """Whether nothing of this device is taken now. Its messages are acknowledged all the same: MQTT knows no way to say no to who
        publishes, and a broker that waits would hold back everybody else's."""
        why = self.admission.refusal(plan.device.name) if self.admission is not None else ""
        if why:
            self._count("refused")
            self._tell_refused(plan.device.name, why)
        return bool(why)

    def _tell_refused(self, device: str, why: str) -> None:
        key = f"{device}\0refused {why}"
        if key not in self._said:
            self._said.add(key)
            self.findings.append(f"device {device}: what it publishes is not taken: {why}")

    def _is_heard(self, plan: DevicePlan) -> None:
        if plan in self._heard:
            self._heard[plan] = self._clock.monotonic()
        self._lost.discard(plan)

    def _lose(self, plan: DevicePlan) -> list[Batch]:
        """What says that a device is gone; nothing where it has been said."""
        if plan in self._lost:
            return []
        self._lost.add(plan)
        return silence(plan.device, Quality.BAD_NO_COMMUNICATION, self._clock.time_ns(), lost=True)

    def _mark_unheard(self, refused: list[str]) -> None:
        """Tags whose subscription was refused cannot be read."""
        now_ns = self._clock.time_ns()
        for text in refused:
            for route in self._plan.table.of(text):
                if not isinstance(route, Status):
                    self._ready.extend(route.decoder.bad(Quality.BAD_NOT_READABLE, now_ns))

    def _nobodys(self, topic: str) -> None:
        """A message for no device: counted; the first topics are told by name."""
        self._count("unknown_topic")
        if len(self._said) > 10 * TOPICS_SAID or topic in self._said:
            return
        self._strangers += 1
        if self._strangers <= TOPICS_SAID:
            self._said.add(topic)
            self.findings.append(
                f"a message on {topic[:200]!r} is of no configured device: add the device, or narrow the topic (an earlier configuration's "
                "subscription ends with session_expiry_s or another client_id)"
            )
        elif self._strangers == TOPICS_SAID + 1:
            self.findings.append(f"messages on more than {TOPICS_SAID} topics are of no configured device: further topics are only counted")

    def _trouble(self, plan: DevicePlan, topic: str, why: str, reason: str) -> None:
        """A payload could not be read: counted, and said once for each device and reason."""
        self._count(reason)
        key = f"{plan.device.name}\0{reason}"
        if key not in self._said:
            self._said.add(key)
            self.findings.append(
                f"device {plan.device.name}: a payload on {topic[:200]!r} cannot be read: {why}: check format, and the device"
            )

    def _absent(self, plan: DevicePlan, slot: int, topic: str) -> None:
        tag = plan.tags[slot]
        key = f"{plan.device.name}\0{slot}"
        if key not in self._said:
            self._said.add(key)
            self._count("absent")
            self.findings.append(
                f"device {plan.device.name}: what it publishes on {topic[:200]!r} lacks {tag.at!r} (tag {tag.name}): correct at, or write "
                "missing: keep if it publishes what changed"
            )

    def _say(self, finding: str, reason: str) -> None:
        if finding not in self._said:
            self._count(reason)
            self._said.add(finding)
            self.findings.append(finding)

    def _count_overflow(self) -> None:
        more = self._mqtt.overflowed - self._overflowed
        if more:
            self._overflowed += more
            self.stats.errors["dropped"] = self.stats.errors.get("dropped", 0) + more
            self._say("messages come faster than they are read, and some were dropped: use qos 1, or let the devices send less", "overflow")

    def _count(self, reason: str) -> None:
        self.stats.errors[reason] = self.stats.errors.get(reason, 0) + 1


def _word(said: object) -> str:
    """How a JSON value that is no text is written in ``offline``."""
    return "true" if said is True else "false" if said is False else str(said)
