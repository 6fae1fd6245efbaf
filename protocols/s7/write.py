"""Carrying out commands: what is sent, what the controller says, and what a look at the tag shows.

A bit is written as a bit: its neighbours in the byte are not touched. Of a STRING the length and the characters are written, and never
the greatest length that stands before them: it is the controller's, and is looked at first. Every write is read back.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass

from protocols.clock import Clock
from protocols.contract import DriverError
from protocols.model import Command, Kind, Outcome, OutcomeState, Quality
from protocols.s7.address import Area
from protocols.s7.answer import meaning
from protocols.s7.channel import Channel, Expired, is_good
from protocols.s7.config import Tag
from protocols.s7.plan import Item, Plan, Wire, block_of, items_of, most_bytes, requests
from protocols.s7.words import content_of, raw_value
from protocols.steps import Step, tell
from protocols.values import Unwritable, Value, is_same, raw_of, value_of

WRITE_HEADER = 28
"""Bytes of a request to write before its content: header, function, one item, its head of data."""

_Told = tuple[OutcomeState, str, Value | None]


@dataclass(slots=True)
class Writer:
    """Writes for one session, over its channel."""

    plan: Plan
    channel: Channel
    clock: Clock

    async def write(self, commands: Sequence[Command]) -> list[Outcome]:
        return [await self._one(command) for command in commands]

    async def _one(self, command: Command) -> Outcome:
        try:
            state, detail, value = await self._carry_out(command)
        except Unwritable as error:
            state, detail, value = OutcomeState.REFUSED, str(error), None
        except Expired:
            state, detail, value = OutcomeState.EXPIRED, "its deadline passed before it could be sent", None
        except DriverError as error:
            state, detail, value = OutcomeState.FAILED, f"nobody can say whether it was carried out: {error}", None
        return Outcome(command=command.id, state=state, time_ns=self.clock.time_ns(), detail=detail, read_back=value)

    async def _carry_out(self, command: Command) -> _Told:
        tag, wire = self._place(command)
        told = raw_of(command.value, tag)
        content = content_of(told, tag)
        if len(content) > self.channel.pdu - WRITE_HEADER:
            raise Unwritable(f"the controller takes {self.channel.pdu - WRITE_HEADER} bytes at once, and the tag has {len(content)}")
        left_s = (command.deadline_ns - self.clock.time_ns()) / 1e9
        if left_s < 0:
            raise Expired
        deadline = asyncio.get_running_loop().time() + left_s
        first = wire.place.byte
        if tag.kind is Kind.STRING:
            await self._has_room(wire, len(content) - 1)
            first += 1
        item = Item(wire.place.area, wire.place.block, first, len(content))
        code = await self.channel.write(item, content, wire.place.bit, deadline)
        if not is_good(code):
            return OutcomeState.REFUSED, f"the controller says: {meaning(code)[1]}", None
        tell(Step.ACKNOWLEDGED)
        return await self._look(told, tag, wire)

    async def _has_room(self, wire: Wire, length: int) -> None:
        (head,) = await self.channel.read([Item(wire.place.area, wire.place.block, wire.place.byte, 2)])
        if isinstance(head, int):
            raise Unwritable(f"the controller says: {meaning(head)[1]}")
        if head[0] < length:
            raise Unwritable(f"the controller's STRING takes {head[0]} characters, not {length}")

    async def _look(self, told: Value, tag: Tag, wire: Wire) -> _Told:
        """Read the tag back and compare."""
        content = b""
        for request in requests(items_of(block_of([wire]), most_bytes(self.channel.pdu)), self.channel.pdu):
            for part in await self.channel.read(request):
                if isinstance(part, int):
                    return OutcomeState.FAILED, f"acknowledged, and then it could not be read back: {meaning(part)[1]}", None
                content += part
        seen = raw_value(content, tag, wire.place)
        value, quality = value_of(seen, tag)
        if quality is not Quality.GOOD:
            return OutcomeState.FAILED, f"acknowledged, and what was read back is no {tag.kind}", None
        if is_same(told, seen, tag):
            return OutcomeState.VERIFIED, "", value
        return OutcomeState.MISMATCH, "acknowledged, and the tag holds something else: the program of the controller may set it", value

    def _place(self, command: Command) -> tuple[Tag, Wire]:
        """The tag that ``command`` names, if it may be written. Raises Unwritable."""
        for device in self.plan.devices:
            if device.options.name == command.device:
                for tag, wire in zip(device.options.tags, device.wires, strict=True):
                    if tag.name == command.tag:
                        if not tag.writable or wire.place.area is Area.INPUTS:
                            raise Unwritable(f"tag {tag.name} is not writable: set writable in the configuration")
                        return tag, wire
                raise Unwritable(f"device {command.device} has no tag {command.tag}")
        raise Unwritable(f"no device {command.device} on this connection")
