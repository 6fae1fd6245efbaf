"""Carrying out commands: a PUT or POST ahead of the reads, then a GET that shows what became of it.

What the device says yes to is looked at before it is believed: a value that was clamped or ignored is a mismatch. A command is never
sent after its deadline, and never a second time: if no answer comes, nobody can say whether it took effect.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from protocols.clock import Clock
from protocols.coap.channel import Channel
from protocols.coap.message import Message, Option, said
from protocols.coap.plan import ResourcePlan, write_request
from protocols.coap.session import CoapSession, Followed
from protocols.coap.wire import Missed
from protocols.contract import DriverError
from protocols.model import SEVERITY_MASK, Batch, Command, Outcome, OutcomeState, Quality
from protocols.outcomes import UNKNOWN, Result, Stop, carried_out, compared, place_of, refused
from protocols.payload import COAP_FORMAT_OF, Format, PayloadTag, encode, format_of_coap
from protocols.steps import Step, tell
from protocols.values import Unwritable, Value, raw_of


class _Expired(Exception):
    """The deadline passed before the request could be sent."""


@dataclass(slots=True)
class Writer:
    """Writes for one session."""

    session: CoapSession
    clock: Clock

    async def write(self, commands: Sequence[Command]) -> list[Outcome]:
        """One outcome for each command, in order. Never raises."""
        return await carried_out(commands, self._run, self.clock, missed=Missed)

    async def _run(self, command: Command) -> Result:
        at, slot = place_of((member.plan.device for member in self.session.members), command)
        member = self.session.members[at]
        tag, resource = member.plan.tags[slot], member.plan.resource_of(slot)
        if not tag.writable:
            raise refused(f"tag {tag.name} is not writable: set writable in the configuration")
        followed = next(each for each in member.resources if each.plan is resource)
        form = _form(followed)
        try:
            raw = raw_of(command.value, tag)
            payload = encode(raw, tag, resource.options, format=form)
        except Unwritable as error:
            raise refused(f"tag {tag.name}: {error}") from None

        def in_time() -> None:
            """Asked at the last moment before the request goes out."""
            if self.clock.time_ns() >= command.deadline_ns:
                raise _Expired
            tell(Step.SENT)

        request = write_request(resource.options, payload, COAP_FORMAT_OF.get(form, 0))
        try:
            response = await member.channel.send(request, before=in_time)
        except _Expired:
            raise Stop(OutcomeState.EXPIRED, "the deadline had passed before it could be sent") from None
        _judge(response)
        tell(Step.ACKNOWLEDGED)
        return await self._look(member.channel, resource, tag, slot, raw)

    async def _look(self, channel: Channel, resource: ResourcePlan, tag: PayloadTag, slot: int, raw: Value) -> Result:
        """Ask for the resource, and compare what it holds with what it would hold."""
        try:
            response = await channel.fetch(resource.request, resource.options.max_bytes, urgent=True)
        except (Missed, DriverError) as error:
            raise Stop(OutcomeState.FAILED, f"acknowledged, but it could not be read back: {error}") from None
        if not response.is_success:
            raise Stop(OutcomeState.FAILED, f"acknowledged, but it cannot be read back: {said(response.code)}")
        seen = _value_at(self._decoded(resource, response), slot)
        if seen is None:
            return OutcomeState.MISMATCH, "what was read back makes no sense, or the tag is not in it", None
        return compared(raw, seen, tag)

    def _decoded(self, resource: ResourcePlan, response: Message) -> list[Batch]:
        number = response.uint(Option.CONTENT_FORMAT, 2)
        form = (Format.TEXT if resource.is_text else Format.JSON) if number is None else format_of_coap(number)
        return resource.read_back.decode(response.payload, self.clock.time_ns(), format=form)


def _form(followed: Followed) -> Format:
    """How a payload is written: as it is configured, else as it came last, else as text or JSON."""
    options = followed.plan.options
    if options.format is not Format.AUTO:
        return options.format
    return followed.format or (Format.TEXT if followed.plan.is_text else Format.JSON)


def _judge(response: Message) -> None:
    if response.is_success:
        return
    text = response.payload[:80].decode("utf-8", "replace")
    detail = f"{said(response.code)}{f' ({text})' if text.isprintable() and text else ''}"
    if response.code >> 5 == 4:
        raise refused(f"the device refused: {detail}")
    raise Stop(OutcomeState.FAILED, f"the device failed: {detail}: {UNKNOWN}")


def _value_at(batches: list[Batch], slot: int) -> Value | None:
    """The newest good value of a tag."""
    for batch in reversed(batches):
        for at in range(len(batch)):
            if batch.tag[at] == slot and batch.quality[at] & SEVERITY_MASK < Quality.BAD:
                value = batch.value[at]
                found: Value = value if batch.value.dtype == object else value.item()
                return found
    return None
