"""The gateway as a Modbus TCP server: registers show the latest values, and what a client writes is a command.

A write is answered when its outcome is known: well only where the value was read back from the field (:class:`OutcomeState`
VERIFIED), else by an exception. So what SCADA sees as done is done.
"""

from __future__ import annotations

import asyncio
import struct
import uuid
from collections.abc import Sequence
from importlib.metadata import version
from typing import Any, Final

import structlog

from gateway.commands import Gate
from gateway.config.faces import ModbusFace, networks
from gateway.config.register_map import Full, Place, RegisterMap, register_map
from gateway.counters import Counters
from gateway.latest import Latest
from gateway.links import Status, Up
from protocols.clock import Clock
from protocols.contract import Misfit, Unreachable
from protocols.modbus.address import Table
from protocols.modbus.decode import compile_recipe
from protocols.modbus.encode import placed, to_bytes
from protocols.modbus.server import DEVICE_FAILURE, ILLEGAL_ADDRESS, ILLEGAL_VALUE, NO_RESPONSE, Exceptional, Limits, serving
from protocols.modbus.wire import Block, Wire
from protocols.model import SEVERITY_MASK, Command, Device, Kind, Outcome, OutcomeState, Quality
from protocols.values import RANGE, Unwritable, Value

log = structlog.get_logger("holdfast.face")

Reading = tuple[Value, int]
"""Value and quality."""
_IDENTITY: Final = {0: b"Holdfast", 1: b"Holdfast gateway", 2: version("holdfast").encode()}
"""Vendor, product code, revision (V1.1b3, 6.21)."""
SAID_AT_MOST: Final = 100
"""Refused clients that are named in the log; more are counted alone."""


class ModbusServer:
    """One Modbus face while it is configured. :meth:`session` is what a link keeps."""

    def __init__(self, face: ModbusFace, latest: Latest, gate: Gate, status: Status, clock: Clock) -> None:
        self._face = face
        self._latest = latest
        self._gate = gate
        self._status = status
        self._clock = clock
        self._said: set[tuple[str, str]] = set()

    async def session(self, up: Up) -> None:
        """Serve until cancelled. Raises Unreachable where the address cannot be used, Misfit where the tags have no room."""
        face = self._face
        try:
            tables = register_map(face, self._latest.devices())
        except Full as error:
            raise Misfit(f"face {face.name}: {error}: give the registers that are needed") from None
        limits = Limits(networks=networks(face.clients), clients=face.max_clients, idle_s=face.idle_close_s)
        bank = Registers(face, tables, self._latest, self._gate, self._clock, self._status.counters)
        server = serving(
            face.host, face.port, face.unit_id, bank, limits=limits, clock=self._clock, refused=self._refused, identity=_IDENTITY
        )
        try:
            async with server as port:
                log.info("face_listens", face=face.name, host=face.host, port=port)
                up()
                await asyncio.get_running_loop().create_future()
        except OSError as error:
            raise Unreachable(f"{face.host}:{face.port}: {error.strerror or error}: free the port, or write another one") from error

    def _refused(self, client: str, why: str) -> None:
        self._status.counters.errors[why] += 1
        if (client, why) not in self._said and len(self._said) < SAID_AT_MOST:
            self._said.add((client, why))
            log.warning("client_refused", face=self._face.name, client=client, reason=why)


class Registers:
    """The four tables, as they are at the moment of each request."""

    def __init__(self, face: ModbusFace, tables: RegisterMap, latest: Latest, gate: Gate, clock: Clock, counters: Counters) -> None:
        self._face = face
        self._counters = counters
        self._tables = tables
        self._latest = latest
        self._gate = gate
        self._clock = clock
        self._last_good: dict[tuple[str, str], Value] = {}

    # ---- reading

    def read_bits(self, table: Table, number: int, count: int) -> Sequence[bool]:
        bits = [False] * count
        for place, (value, quality) in self._readings(table, number, count):
            shown = self._shown(place, value, quality)
            bits[place.wire.number - number] = bool(shown) if shown is not None else False
        return bits

    def read_registers(self, table: Table, number: int, count: int) -> bytes:
        content = bytearray(2 * count)
        for place, (value, quality) in self._readings(table, number, count):
            wire = place.wire
            raw = self._encoded(place, self._shown(place, value, quality))
            if wire.raw is Kind.BOOL or len(wire.order) == 1:
                raw = b"\0" + raw
            first = 2 * (wire.number - number)
            begin, end = max(first, 0), min(first + len(raw), 2 * count)
            content[begin:end] = raw[begin - first : end - first]
        return bytes(content)

    def _readings(self, table: Table, number: int, count: int) -> list[tuple[Place, Reading]]:
        """Each place in the span with what it shows now. Raises Exceptional where the span leaves the table."""
        if not self._tables.has(table, number, count):
            raise Exceptional(ILLEGAL_ADDRESS)
        places = self._tables.within(table, number, count)
        self._counters.taken += 1
        self._counters.given += len(places)
        standing = {name: self._standing(name) for name in {place.device for place in places}}
        unknown: Reading = (0, Quality.BAD_CONFIGURATION_ERROR)
        return [(place, standing[place.device].get(place.tag, unknown)) for place in places]

    def _standing(self, name: str) -> dict[str, Reading]:
        """The last values of a device by tag."""
        device = self._latest.device(name)
        found: dict[str, Reading] = {}
        for batch in self._latest.batches(device) if device is not None else ():
            for slot, value, quality in zip(batch.tag.tolist(), batch.value.tolist(), batch.quality.tolist(), strict=True):
                found[batch.device.tags[slot].name] = (value, quality)
        return found

    def _shown(self, place: Place, value: Value, quality: int) -> Value | None:
        """What is shown for a reading; None where there is no value to show."""
        if place.quality:
            return quality >> 30 if quality >> 30 < 3 else 2
        key = (place.device, place.tag)
        if quality & SEVERITY_MASK < Quality.BAD:
            self._last_good[key] = value
            return value
        if self._face.when_bad == "exception":
            raise Exceptional(DEVICE_FAILURE)
        return self._last_good.get(key) if self._face.when_bad == "last" else None

    def _encoded(self, place: Place, value: Value | None) -> bytes:
        """Bytes of the registers; where the registers cannot hold the value, those of no value."""
        wire = place.wire
        if value is not None:
            try:
                return to_bytes(_fitting(value, wire), place.options, wire)
            except Unwritable:
                pass  # NaN, infinity, beyond the kind's range: there is no value that these registers could show
        return _no_value(wire)

    # ---- writing

    async def write_bits(self, number: int, bits: Sequence[bool], client: str) -> None:
        places = self._written(Table.COIL, number, len(bits))
        await self._command([(place, bits[place.wire.number - number]) for place in places], client)

    async def write_registers(self, number: int, content: bytes, client: str) -> None:
        places = self._written(Table.HOLDING, number, len(content) // 2)
        await self._command([(place, _decoded(place, number, content)) for place in places], client)

    def _written(self, table: Table, number: int, count: int) -> list[Place]:
        """The places that the span covers, each whole. Raises Exceptional."""
        places = self._tables.within(table, number, count)
        covered = sum(place.wire.count for place in places)
        whole = all(place.wire.number >= number and place.wire.end <= number + count for place in places)
        if not places or not whole or covered != count or not all(place.options.writable for place in places):
            raise Exceptional(ILLEGAL_ADDRESS)
        return places

    async def _command(self, wishes: Sequence[tuple[Place, Value]], client: str) -> None:
        """Carry out each wish. Raises Exceptional for the first that was not verified."""
        deadline_ns = self._clock.time_ns() + int(self._face.command_timeout_s * 1e9)
        source = f"face {self._face.name}, {client}"
        for place, value in wishes:
            command = Command(id=str(uuid.uuid4()), device=place.device, tag=place.tag, value=value, deadline_ns=deadline_ns)
            try:
                async with asyncio.timeout(self._face.command_timeout_s + 1):
                    outcome = await self._gate.carry_out(command, source=source)
            except TimeoutError:
                raise Exceptional(NO_RESPONSE) from None
            if outcome.state is not OutcomeState.VERIFIED:
                raise Exceptional(_code_of(outcome))


def _code_of(outcome: Outcome) -> int:
    if outcome.by_device:
        return ILLEGAL_VALUE
    return {OutcomeState.REFUSED: ILLEGAL_VALUE, OutcomeState.EXPIRED: NO_RESPONSE, OutcomeState.FAILED: NO_RESPONSE}.get(
        outcome.state, DEVICE_FAILURE
    )


def _fitting(value: Value, wire: Wire) -> Value:
    """A value of another kind than the registers have, as that kind: truths as numbers, floats rounded for whole registers."""
    if wire.raw in RANGE and isinstance(value, bool):
        return int(value)
    if wire.raw in RANGE and isinstance(value, float) and not wire.is_scaled and value == value and abs(value) < 2.0**63:
        return round(value)
    if wire.raw is Kind.STRING and isinstance(value, str):
        return value.encode()[: len(wire.order)].decode(errors="ignore")
    return value[: len(wire.order)] if wire.raw is Kind.BYTES and isinstance(value, bytes) else value


def _no_value(wire: Wire) -> bytes:
    """NaN, or the end of the kind's range that SunSpec calls not implemented; zeros for text and bits."""
    if wire.raw in (Kind.STRING, Kind.BYTES):
        return bytes(2 * wire.count)
    if wire.raw is Kind.BOOL:
        return b"\0"
    if wire.raw is Kind.FLOAT32 or wire.raw is Kind.FLOAT64:
        return placed(struct.pack("<f" if wire.raw is Kind.FLOAT32 else "<d", float("nan")), wire)
    low, high = RANGE[wire.raw]
    return placed((low if low else high).to_bytes(len(wire.order), "little", signed=low < 0), wire)


def _decoded(place: Place, number: int, content: bytes) -> Value:
    """The value that ``content``, written from register ``number`` on, has at ``place``."""
    wire = place.wire
    tag = place.options.tag()
    device = Device("", "face", (tag,))
    alone = _at_slot_zero(wire)
    block = Block(wire.table, wire.number, wire.count, (0,))
    begin = 2 * (wire.number - number)
    raw = bytes((3, 2 * wire.count)) + content[begin : begin + 2 * wire.count]
    batch = compile_recipe(device, (alone,), (block,)).decode(raw, (0, 0))[0]
    if batch.quality[0] != Quality.GOOD:
        raise Exceptional(ILLEGAL_VALUE)
    value: Any = batch.value[0]  # Any: what the column holds
    found: Value = value if batch.value.dtype == object else value.item()
    return found


def _at_slot_zero(wire: Wire) -> Wire:
    return Wire(0, wire.table, wire.number, wire.count, wire.bit, wire.raw, wire.order, wire.bcd, wire.scale, wire.offset, wire.charset)
