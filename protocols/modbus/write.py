"""Carrying out commands: which function writes a tag, what the device says, and what a look at the tag shows.

Functions 5 and 6 write one coil or register, 15 and 16 several, 22 changes bits of a register without touching the
rest. Where a device refuses a function, the other way is taken and remembered. Every write is read back: acknowledged
is not applied. A command is never sent after its deadline.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

from pymodbus.pdu.bit_message import WriteMultipleCoilsRequest, WriteSingleCoilRequest
from pymodbus.pdu.register_message import (
    MaskWriteRegisterRequest,
    WriteMultipleRegistersRequest,
    WriteSingleRegisterRequest,
)

from protocols.clock import Clock
from protocols.contract import DriverError
from protocols.modbus import config
from protocols.modbus.decode import compile_recipe
from protocols.modbus.encode import mask_of, registers_of, to_bytes
from protocols.modbus.frames import EXCEPTIONS, Request, is_exception, write_request
from protocols.modbus.line import Line, Missed
from protocols.modbus.plan import DevicePlan, Plan
from protocols.modbus.wire import Wire
from protocols.model import Command, Kind, Outcome, OutcomeState, Quality
from protocols.outcomes import Stop, carried_out, place_of, refused, short
from protocols.steps import Step, tell
from protocols.values import Unwritable, Value

ILLEGAL_FUNCTION: Final = 1
MASKED: Final = "read, changed and written back, as the device refuses mask write (22): another's change in between would be lost"


class _Expired(Exception):
    """The deadline passed before the request could be sent."""


@dataclass(slots=True)
class Writer:
    """Writes for one session, over its line."""

    plan: Plan
    line: Line
    clock: Clock
    find: Callable[[DevicePlan, str], None]
    """Told what a person should know about a device."""

    async def write(self, commands: Sequence[Command]) -> list[Outcome]:
        """One outcome for each command, in order. Raises a DriverError only if the connection was gone before the first."""
        if self.line.trouble is not None:
            raise self.line.trouble
        return await carried_out(commands, lambda command: _Attempt(self, command).run(), self.clock, missed=Missed)

    def place(self, command: Command) -> tuple[DevicePlan, int]:
        """Device and slot that ``command`` names. Raises Stop."""
        at, slot = place_of((plan.device for plan in self.plan.devices), command)
        return self.plan.devices[at], slot


class _Attempt:
    """One command on its way."""

    def __init__(self, writer: Writer, command: Command) -> None:
        self._line, self._clock, self._find = writer.line, writer.clock, writer.find
        self._command = command
        self._device, slot = writer.place(command)
        self._tag: config.Tag = self._device.options.tags[slot]
        self._wire: Wire = self._device.wires[slot]
        self._note = ""

    async def run(self) -> tuple[OutcomeState, str, Value | None]:
        tag, wire = self._tag, self._wire
        if not (tag.writable and wire.table.is_writable):
            raise refused(f"tag {tag.name} is not writable: set writable in the configuration")
        try:
            content = to_bytes(self._command.value, tag, wire)
        except Unwritable as error:
            raise refused(f"tag {tag.name}: {error}") from None
        await self._send(content)
        return await self._look(content)

    async def _send(self, content: bytes) -> None:
        mask = mask_of(self._wire)
        if mask is not None:
            await self._change(mask, _masked(content, mask))
        elif self._wire.table.is_bits:
            await self._either(self._coil, bool(content[0]))
        else:
            await self._either(self._registers, registers_of(content if self._wire.raw is not Kind.BOOL else b"\0" + content))

    async def _either(self, build: Callable[[Value | list[int], bool], bytes], value: Value | list[int]) -> None:
        """Write by the function that the device takes: single where it fits, the other when it is unknown there."""
        known, wish = self._device.known, self._device.options.write_with
        multiple = wish == "multiple" or known.no_single or (isinstance(value, list) and len(value) > 1)
        code = await self._put(build(value, multiple))
        if code == ILLEGAL_FUNCTION and wish == "auto" and not (isinstance(value, list) and len(value) > 1):
            code = await self._put(build(value, not multiple))
            known.no_single = code is None and not multiple
            if known.no_single:
                self._find(self._device, "refuses functions 5 and 6: written by 15 and 16 from now on; set write_with: multiple")
        self._judge(code)

    def _coil(self, value: Value | list[int], multiple: bool) -> bytes:
        number, bits = self._wire.number, [bool(value)]
        return _pdu(WriteMultipleCoilsRequest(number, bits) if multiple else WriteSingleCoilRequest(address=number, bits=bits))

    def _registers(self, value: Value | list[int], multiple: bool) -> bytes:
        assert isinstance(value, list)  # what _send gives
        shape = WriteMultipleRegistersRequest if multiple else WriteSingleRegisterRequest
        return _pdu(shape(address=self._wire.number, registers=value))

    async def _change(self, mask: int, bits: int) -> None:
        """Some bits of a register: function 22, or read, change and write where the device lacks it."""
        known = self._device.known
        if not known.no_mask_write:
            code = await self._put(_pdu(MaskWriteRegisterRequest(self._wire.number, and_mask=0xFFFF & ~mask, or_mask=bits)))
            if code != ILLEGAL_FUNCTION:
                self._judge(code)
                return
            known.no_mask_write = True
            self._find(self._device, "refuses mask write (22): bits of registers are read, changed and written back from now on")
        self._note = MASKED
        pdu = await self._read()
        old = int.from_bytes(pdu[2:4], "big")
        await self._either(self._registers, [(old & ~mask & 0xFFFF) | bits])

    async def _put(self, pdu: bytes) -> int | None:
        """Send a write. The exception code, or None where it was acknowledged."""
        request = write_request(self._device.options.unit_id, pdu, self._device.options.request_delay_s)
        answer = await self._ask(request, self._last_moment)
        return answer[1] if is_exception(answer) else None

    async def _ask(self, request: Request, before: Callable[[], None] | None = None) -> bytes:
        try:
            return await self._line.ask(request, urgent=True, before=before or self._in_time)
        except _Expired:
            raise Stop(OutcomeState.EXPIRED, "the deadline had passed before it could be sent") from None

    def _in_time(self) -> None:
        """Asked at the last moment before a request goes out."""
        if self._clock.time_ns() >= self._command.deadline_ns:
            raise _Expired

    def _last_moment(self) -> None:
        self._in_time()
        tell(Step.SENT)

    def _judge(self, code: int | None) -> None:
        if code is not None:
            words = EXCEPTIONS.get(code, "unknown exception")
            raise refused(f"the device refused: exception {code}, {words}")
        tell(Step.ACKNOWLEDGED)

    async def _read(self) -> bytes:
        device = self._device
        pdu = await self._ask(device.request(device.alone(self._wire.slot)))
        if is_exception(pdu):
            words = EXCEPTIONS.get(pdu[1], "unknown exception")
            raise Stop(OutcomeState.FAILED, f"the tag cannot be read: exception {pdu[1]}, {words}")
        return pdu

    async def _look(self, content: bytes) -> tuple[OutcomeState, str, Value | None]:
        """Read back what was written, and compare what lies in the registers, not what it means."""
        device, wire = self._device, self._wire
        block = device.alone(wire.slot)
        try:
            pdu = await self._line.ask(device.request(block), urgent=True)
        except (Missed, DriverError) as error:
            raise Stop(OutcomeState.FAILED, f"acknowledged, but it could not be read back: {error}") from None
        if is_exception(pdu):
            words = EXCEPTIONS.get(pdu[1], "unknown exception")
            raise Stop(OutcomeState.FAILED, f"acknowledged, but it cannot be read back: exception {pdu[1]}, {words}")
        batch = compile_recipe(device.device, device.wires, (block,)).decode(pdu, (0, 0))[0]
        value: Value = batch.value[0] if batch.value.dtype == object else batch.value[0].item()
        if self._is_same(pdu[2:], content):
            return OutcomeState.VERIFIED, self._note, value
        if batch.quality[0] != Quality.GOOD:
            return OutcomeState.MISMATCH, _joined("what was read back makes no sense", self._note), None
        return OutcomeState.MISMATCH, _joined(f"wrote {short(self._command.value)}, read back {short(value)}", self._note), value

    def _is_same(self, seen: bytes, content: bytes) -> bool:
        wire = self._wire
        if wire.table.is_bits:
            return (seen[0] & 1) == content[0]
        mask = mask_of(wire)
        if mask is not None:
            return int.from_bytes(seen, "big") & mask == _masked(content, mask)
        return any(seen) == bool(content[0]) if wire.raw is Kind.BOOL else seen == content


def _masked(content: bytes, mask: int) -> int:
    """The one byte (or truth) of ``content``, moved to the bits of ``mask``."""
    return (content[0] * (mask & -mask)) & mask


def _pdu(message: _Message) -> bytes:
    return bytes((message.function_code,)) + message.encode()


_Message = (
    MaskWriteRegisterRequest
    | WriteMultipleCoilsRequest
    | WriteMultipleRegistersRequest
    | WriteSingleCoilRequest
    | WriteSingleRegisterRequest
)


def _joined(*parts: str) -> str:
    return "; ".join(part for part in parts if part)
