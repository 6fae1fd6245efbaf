"""From commands to outcomes, one by one and in order: what every driver's writer does around its own way of writing."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Sequence
from typing import Final

from protocols.clock import Clock
from protocols.contract import DriverError
from protocols.model import Command, Device, Kind, Outcome, OutcomeState
from protocols.options import TagOptions
from protocols.values import Value, as_float32, value_of

UNKNOWN: Final = "nobody can say whether it was carried out"

Result = tuple[OutcomeState, str, Value | None]
"""State, detail, and what was read back."""


class Stop(Exception):
    """The command ends here, with this state and detail."""

    def __init__(self, state: OutcomeState, detail: str, read_back: Value | None = None) -> None:
        super().__init__(detail)
        self.state = state
        self.detail = detail
        self.read_back = read_back


def refused(detail: str) -> Stop:
    return Stop(OutcomeState.REFUSED, detail)


def place_of(devices: Iterable[Device], command: Command) -> tuple[int, int]:
    """Which of ``devices``, and which slot of it, ``command`` names. Raises Stop."""
    for at, device in enumerate(devices):
        if device.name == command.device:
            for slot, tag in enumerate(device.tags):
                if tag.name == command.tag:
                    return at, slot
            raise refused(f"device {command.device} has no tag {command.tag}")
    raise refused(f"no device {command.device} on this connection")


async def carried_out(
    commands: Sequence[Command], attempt: Callable[[Command], Awaitable[Result]], clock: Clock, *, missed: type[Exception] = DriverError
) -> list[Outcome]:
    """One outcome for each command. ``attempt`` returns, or raises Stop; ``missed`` (or a DriverError) is an answer that did not come:
    then nobody can say what became of the command."""
    return [await _one(command, attempt, clock, missed) for command in commands]


async def _one(command: Command, attempt: Callable[[Command], Awaitable[Result]], clock: Clock, missed: type[Exception]) -> Outcome:
    value: Value | None
    try:
        state, detail, value = await attempt(command)
    except Stop as stop:
        state, detail, value = stop.state, stop.detail, stop.read_back
    except DriverError as error:
        state, detail, value = OutcomeState.FAILED, f"the connection was lost: {error}: {UNKNOWN}", None
    except missed as miss:
        state, detail, value = OutcomeState.FAILED, f"{miss}: {UNKNOWN}", None
    return Outcome(command=command.id, state=state, time_ns=clock.time_ns(), detail=detail, read_back=value)


def compared(raw: Value, seen: Value, tag: TagOptions) -> Result:
    """What a look at the tag shows: ``seen`` (as everybody sees it) against what the raw value that was written is for everybody."""
    wanted = value_of(raw, tag)[0]
    if tag.kind is Kind.FLOAT32 and not tag.is_scaled and isinstance(wanted, int | float) and isinstance(seen, int | float):
        is_same = as_float32(wanted) == as_float32(seen)
    else:
        is_same = type(wanted) is type(seen) and wanted == seen
    if is_same:
        return OutcomeState.VERIFIED, "", seen
    return OutcomeState.MISMATCH, f"wrote {short(wanted)}, read back {short(seen)}", seen


def short(value: Value) -> str:
    """A value for a text."""
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."
