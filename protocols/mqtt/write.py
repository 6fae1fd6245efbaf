"""Commands over topics: published at QoS 1 and never retained; where the device tells the value again, that is waited for.

A topic cannot be read back. What the broker took and nobody echoes is *failed*: nobody can say what became of it. With ``verify``
the tag's next values are looked at until one equals what was written, or ``verify_s`` is over.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from protocols.clock import Clock
from protocols.model import SEVERITY_MASK, Batch, Command, Outcome, OutcomeState, Quality
from protocols.mqtt.client import MqttSession, Rejected
from protocols.mqtt.config import Mqtt, Tag
from protocols.mqtt.plan import DevicePlan, Plan, payload_options
from protocols.mqtt.topics import filled, topic_trouble
from protocols.outcomes import UNKNOWN, Result, Stop, carried_out, refused
from protocols.payload import encode
from protocols.payload.edge import command_payload
from protocols.steps import Step, tell
from protocols.values import Unwritable, Value, is_same, raw_of, value_of

UNSEEN: Final = "the broker took it; what the device did nobody can say (set verify if it tells the value again)"


@dataclass(slots=True, eq=False)
class _Look:
    """Somebody waits for a tag to become a value."""

    plan: DevicePlan
    slot: int
    tag: Tag
    wanted: Value
    equal: asyncio.Future[None]
    seen: list[Any] = field(default_factory=list)  # Any: what a column holds
    """The last good value, if one came."""


class Writer:
    """Commands of one session."""

    def __init__(self, options: Mqtt, plan: Plan, mqtt: MqttSession, clock: Clock) -> None:
        self._options = options
        self._plan = plan
        self._mqtt = mqtt
        self._clock = clock
        self._looks: list[_Look] = []

    async def write(self, commands: Sequence[Command]) -> list[Outcome]:
        """One outcome for each command, in order. Raises the error of the loss if it came before the first."""
        if self._mqtt.lost.done():
            await asyncio.shield(self._mqtt.lost)
        return await carried_out(commands, self._carry_out, self._clock)

    def saw(self, batches: Iterable[Batch]) -> None:
        """Look at what came, for those who wait."""
        if not self._looks:
            return
        for batch in batches:
            for look in self._looks:
                if batch.device is look.plan.device:
                    _compare(look, batch)

    async def _carry_out(self, command: Command) -> Result:
        plan, slot, tag = self._place(command)
        try:
            raw = raw_of(command.value, tag)
            topic, payload = self._message(plan, tag, raw)
        except Unwritable as error:
            raise refused(f"tag {tag.name}: {error}") from None
        if self._clock.time_ns() >= command.deadline_ns:
            raise Stop(OutcomeState.EXPIRED, "its deadline had passed before it could be sent")
        if not (plan.options.verify if tag.verify is None else tag.verify):
            await self._publish(topic, payload)
            raise Stop(OutcomeState.FAILED, UNSEEN)
        look = _Look(plan, slot, tag, value_of(raw, tag)[0], asyncio.get_running_loop().create_future())
        self._looks.append(look)
        try:
            await self._publish(topic, payload)
            await self._wait(look, plan.options.verify_s)
        finally:
            self._looks.remove(look)
        return self._judged(look, plan.options.verify_s)

    def _place(self, command: Command) -> tuple[DevicePlan, int, Tag]:
        plan = self._plan.by_name(command.device)
        if plan is None:
            raise refused(f"no device {command.device} on this connection")
        slot = plan.slots.get(command.tag)
        if slot is None:
            raise refused(f"device {command.device} has no tag {command.tag}")
        tag = plan.tags[slot]
        if not tag.writable:
            raise refused(f"tag {tag.name} is not writable: set writable in the configuration")
        return plan, slot, tag

    def _message(self, plan: DevicePlan, tag: Tag, raw: Value) -> tuple[str, bytes]:
        """Topic and payload of a command. Raises Unwritable."""
        if plan.place is not None:
            return plan.place.command_topic, command_payload(raw, tag, self._clock.time_ns())
        topic = filled(tag.command_topic or plan.options.command_topic, plan.device.name, tag.name)
        if trouble := topic_trouble(topic):
            raise Unwritable(f"{topic!r} is no topic: {trouble}")
        return topic, encode(raw, tag, payload_options(plan.options, [tag]))

    async def _publish(self, topic: str, payload: bytes) -> None:
        try:
            async with asyncio.timeout(self._options.timeout_s):
                tell(Step.SENT)
                await (await self._mqtt.publish1(topic, payload))
                tell(Step.ACKNOWLEDGED)
        except Rejected as rejection:
            raise refused(str(rejection)) from None
        except TimeoutError:
            detail = f"the broker did not acknowledge it within {self._options.timeout_s:g} s: {UNKNOWN}"
            raise Stop(OutcomeState.FAILED, detail) from None

    async def _wait(self, look: _Look, seconds: float) -> None:
        """Until the value is seen, the time is over, or the connection is lost (which is raised)."""
        end = asyncio.ensure_future(self._clock.sleep_until(self._clock.monotonic() + seconds))
        try:
            await asyncio.wait({end, look.equal, self._mqtt.lost}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            end.cancel()
            await asyncio.gather(end, return_exceptions=True)
        if not look.equal.done() and self._mqtt.lost.done():
            await asyncio.shield(self._mqtt.lost)

    def _judged(self, look: _Look, seconds: float) -> Result:
        if look.equal.done():
            return OutcomeState.VERIFIED, "", look.wanted
        if look.seen:
            return OutcomeState.MISMATCH, f"the device says {look.seen[0]!r} {seconds:g} s after it was told", look.seen[0]
        return OutcomeState.FAILED, f"the device said nothing within {seconds:g} s: {UNKNOWN}", None


def _compare(look: _Look, batch: Batch) -> None:
    for slot, value, quality in zip(batch.tag.tolist(), batch.value.tolist(), batch.quality.tolist(), strict=True):
        if slot == look.slot and quality & SEVERITY_MASK < Quality.BAD:
            look.seen[:] = [value]
            if is_same(look.wanted, value, look.tag) and not look.equal.done():
                look.equal.set_result(None)
