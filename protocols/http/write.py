"""Carrying out commands over HTTP: the tag's own write request, then a look at the tag through the request that reads it.

Accepted is not applied: whatever the status of the write, only what is read back makes it verified. A command is never sent
after its deadline, and sent once: what was sent and not answered is failed, for nobody can say what became of it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final
from urllib.parse import quote

from protocols.clock import Clock
from protocols.contract import DriverError
from protocols.http import config
from protocols.http.client import Answer, Client, Missed
from protocols.http.decoding import Beside
from protocols.http.plan import DevicePlan, Plan, RequestPlan, address
from protocols.model import Command, Outcome, OutcomeState, Quality
from protocols.outcomes import UNKNOWN, Result, Stop, carried_out, compared, refused
from protocols.payload import MEDIA_TYPE_OF, Decoder, Format, PayloadOptions, encode
from protocols.payload.writing import MARK, as_text
from protocols.steps import Step, tell
from protocols.values import Unwritable, Value, raw_of

FORM: Final = "application/x-www-form-urlencoded"
NOT_CARRIED_OUT: Final = frozenset({429, 503})
LONGEST_ANSWER: Final = 64 * 1024


@dataclass(frozen=True, slots=True)
class Told:
    """A write as it goes out."""

    method: str
    path: str
    body: bytes | None
    body_type: str


def told(value: Value, tag: config.Tag, write: config.Write, request: config.Request) -> Told:
    """The request that makes ``tag`` the raw ``value``. Pure. Raises Unwritable."""
    word = (write.true_as if value else write.false_as) if isinstance(value, bool) else as_text(value)
    path = write.path.replace(MARK, quote(word, safe=""))
    if write.form:
        return Told(write.method, path, write.form.replace(MARK, quote(word, safe="")).encode(), FORM)
    if write.method == "GET" or (MARK in write.path and not tag.write_as):
        return Told(write.method, path, None, "")
    format = write.format or (Format.JSON if request.format == "auto" else request.format)
    if format is Format.TEXT and isinstance(value, bool):
        value = word
    body = encode(value, tag, PayloadOptions(format=format))
    return Told(write.method, path, body, MEDIA_TYPE_OF[format])


@dataclass(slots=True)
class Writer:
    """Writes for one session."""

    plan: Plan
    client: Client
    clock: Clock

    async def write(self, commands: Sequence[Command]) -> list[Outcome]:
        """One outcome for each command, in order."""
        return await carried_out(commands, self._carry_out, self.clock, missed=Missed)

    async def _carry_out(self, command: Command) -> Result:
        device, slot = self._place(command)
        tag, request = device.tags[slot], device.reader(slot)
        if not tag.writable or tag.write is None:
            raise refused(f"tag {tag.name} is not writable: set writable and write in the configuration")
        try:
            raw = raw_of(command.value, tag)
            said = told(raw, tag, tag.write, request.options)
        except Unwritable as error:
            raise refused(f"tag {tag.name}: {error}") from None

        def in_time() -> None:
            if self.clock.time_ns() >= command.deadline_ns:
                raise Stop(OutcomeState.EXPIRED, "the deadline had passed before it could be sent")
            tell(Step.SENT)

        await self._send(said, device, request, in_time)
        return await self._look(raw, device, slot, request)

    def _place(self, command: Command) -> tuple[DevicePlan, int]:
        device = next((each for each in self.plan.devices if each.device.name == command.device), None)
        if device is None:
            raise refused(f"no device {command.device} on this connection")
        slot = device.find(command.tag)
        if slot is None:
            raise refused(f"device {command.device} has no tag {command.tag}")
        return device, slot

    async def _send(self, said: Told, device: DevicePlan, request: RequestPlan, in_time: Callable[[], None]) -> None:
        headers = {**device.options.headers, **({"Content-Type": said.body_type} if said.body is not None else {})}
        answer = await self.client.ask(
            said.method,
            address(self.plan.base, said.path),
            headers=headers,
            body=said.body,
            most=LONGEST_ANSWER,
            writes=True,
            before=in_time,
        )
        request.kept = None  # what was read before may not be compared with any more
        _judge(answer)
        tell(Step.ACKNOWLEDGED)

    async def _look(self, raw: Value, device: DevicePlan, slot: int, request: RequestPlan) -> Result:
        """Read the tag, and compare what it is with what it should be."""
        tag = device.tags[slot]
        try:
            answer = await self.client.ask(
                request.options.method,
                request.url,
                headers=request.headers,
                body=request.body,
                most=request.options.max_bytes,
                writes=True,
            )
        except (Missed, DriverError) as error:
            raise Stop(OutcomeState.FAILED, f"acknowledged, but it could not be read back: {error}") from None
        if not 200 <= answer.status < 300:
            raise Stop(OutcomeState.FAILED, f"acknowledged, but it could not be read back: status {answer.status} {answer.reason}")
        alone = Beside(Decoder(device.device, device.tags, request.options, slots=(slot,)))
        batches = await alone.decode(answer.body, self.clock.time_ns(), answer.header("content-type"))
        if not batches:
            raise Stop(OutcomeState.FAILED, "acknowledged, but the answer that should hold it does not")
        seen: Value = batches[-1].value.tolist()[-1]
        quality = Quality(int(batches[-1].quality[-1]))
        if quality.is_bad:
            return OutcomeState.MISMATCH, f"what was read back makes no sense ({quality.name})", None
        return compared(raw, seen, tag)


def _judge(answer: Answer) -> None:
    """Raises Stop where the status says anything but: done, or accepted."""
    status = answer.status
    if 200 <= status < 300:
        return
    text = f"status {status} {answer.reason}"
    if status in NOT_CARRIED_OUT:
        raise refused(f"the device is busy: {text}")
    if status >= 500:
        raise Stop(OutcomeState.FAILED, f"{text}: {UNKNOWN}")
    raise refused(f"the device refused: {text}")
