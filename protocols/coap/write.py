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
from protocols.coap.session import CoapSession, Followed, Member
from protocols.coap.wire import Missed
from protocols.contract import DriverError
from protocols.model import SEVERITY_MASK, Batch, Command, Kind, Outcome, OutcomeState, Quality
from protocols.payload import COAP_FORMAT_OF, Format, PayloadTag, encode, format_of_coap
from protocols.values import Unwritable, Value, as_float32, raw_of, value_of


class _Stop(Exception):
    """The command ends here, with this state and detail."""

    def __init__(self, state: OutcomeState, detail: str) -> None:
        super().__init__(detail)
        self.state = state
        self.detail = detail


class _Expired(Exception):
    """The deadline passed before the request could be sent."""


@dataclass(slots=True)
class Writer:
    """Writes for one session."""

    session: CoapSession
    clock: Clock

    async def write(self, commands: Sequence[Command]) -> list[Outcome]:
        """One outcome for each command, in order. Never raises."""
        return [await self._one(command) for command in commands]

    async def _one(self, command: Command) -> Outcome:
        value: Value | None = None
        try:
            state, detail, value = await self._run(command)
        except _Stop as stop:
            state, detail = stop.state, stop.detail
        except (Missed, DriverError) as miss:
            state, detail = OutcomeState.FAILED, f"{miss}: nobody can say whether it was carried out"
        return Outcome(command=command.id, state=state, time_ns=self.clock.time_ns(), detail=detail, read_back=value)

    async def _run(self, command: Command) -> tuple[OutcomeState, str, Value | None]:
        member, slot = self._place(command)
        tag, resource = member.plan.tags[slot], member.plan.resource_of(slot)
        if not tag.writable:
            raise _Stop(OutcomeState.REFUSED, f"tag {tag.name} is not writable: set writable in the configuration")
        followed = next(each for each in member.resources if each.plan is resource)
        form = _form(followed)
        try:
            raw = raw_of(command.value, tag)
            payload = encode(raw, tag, resource.options, format=form)
        except Unwritable as error:
            raise _Stop(OutcomeState.REFUSED, f"tag {tag.name}: {error}") from None

        def in_time() -> None:
            """Asked at the last moment before the request goes out."""
            if self.clock.time_ns() >= command.deadline_ns:
                raise _Expired

        request = write_request(resource.options, payload, COAP_FORMAT_OF.get(form, 0))
        try:
            response = await member.channel.send(request, before=in_time)
        except _Expired:
            raise _Stop(OutcomeState.EXPIRED, "the deadline had passed before it could be sent") from None
        _judge(response)
        return await self._look(member.channel, resource, tag, slot, raw)

    def _place(self, command: Command) -> tuple[Member, int]:
        for member in self.session.members:
            if member.plan.device.name == command.device:
                for slot, tag in enumerate(member.plan.device.tags):
                    if tag.name == command.tag:
                        return member, slot
                raise _Stop(OutcomeState.REFUSED, f"device {command.device} has no tag {command.tag}")
        raise _Stop(OutcomeState.REFUSED, f"no device {command.device} on this connection")

    async def _look(
        self, channel: Channel, resource: ResourcePlan, tag: PayloadTag, slot: int, raw: Value
    ) -> tuple[OutcomeState, str, Value | None]:
        """Ask for the resource, and compare what it holds with what it would hold."""
        try:
            response = await channel.fetch(resource.request, resource.options.max_bytes, urgent=True)
        except (Missed, DriverError) as error:
            raise _Stop(OutcomeState.FAILED, f"acknowledged, but it could not be read back: {error}") from None
        if not response.is_success:
            raise _Stop(OutcomeState.FAILED, f"acknowledged, but it cannot be read back: {said(response.code)}")
        seen = _value_at(self._decoded(resource, response), slot)
        wanted, _ = value_of(raw, tag)
        if seen is None:
            return OutcomeState.MISMATCH, "what was read back makes no sense, or the tag is not in it", None
        if _is_same(wanted, seen, tag):
            return OutcomeState.VERIFIED, "", seen
        return OutcomeState.MISMATCH, f"wrote {_short(wanted)}, read back {_short(seen)}", seen

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
        raise _Stop(OutcomeState.REFUSED, f"the device refused: {detail}")
    raise _Stop(OutcomeState.FAILED, f"the device failed: {detail}: nobody can say whether it was carried out")


def _value_at(batches: list[Batch], slot: int) -> Value | None:
    """The newest good value of a tag."""
    for batch in reversed(batches):
        for at in range(len(batch)):
            if batch.tag[at] == slot and batch.quality[at] & SEVERITY_MASK < Quality.BAD:
                value = batch.value[at]
                found: Value = value if batch.value.dtype == object else value.item()
                return found
    return None


def _is_same(wanted: Value, seen: Value, tag: PayloadTag) -> bool:
    if tag.kind is Kind.FLOAT32 and not tag.is_scaled and isinstance(wanted, int | float) and isinstance(seen, int | float):
        return as_float32(wanted) == as_float32(seen)
    return type(wanted) is type(seen) and wanted == seen


def _short(value: Value) -> str:
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."
