"""Which unit ids answer, and how a serial line is set: asked politely, within a budget, and reading only.

One read of one register is enough: any answer proves a device, an exception too, unless a gateway says that nobody is behind
it. Then the device is asked who it is. On a serial line the settings are tried in the order in which they are met in the field,
first with the unit ids that devices leave the factory with; where one device answers, the others of the line are sought with
the same settings, for a line has only one.
"""

from __future__ import annotations

import contextlib
from collections.abc import AsyncGenerator, Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Final, Literal

import msgspec

from protocols.clock import Clock
from protocols.contract import Candidate, DriverError, Misfit
from protocols.modbus.address import Table
from protocols.modbus.config import AnyConnection, ModbusRtu
from protocols.modbus.driver import make_line
from protocols.modbus.frames import EXCEPTIONS, Request, is_exception
from protocols.modbus.line import Missed, NetworkLine
from protocols.modbus.question import Asker, identification, identity, joined, read, reported, server_id
from protocols.modbus.serial_line import SerialLine
from protocols.model import ScanStats

LIKELY_UNITS: Final = (1, 2, 3, 4, 5, 10, 11, 20, 100, 101, 126, 247)
"""Unit ids that devices leave the factory with, or that are set first."""
STRANGE_UNITS: Final = (231, 187, 213)
"""Nobody sets these: what answers to all of them looks at no unit id."""
FEW: Final = 16
SERIAL_TRIES: Final = 2
"""Questions to each unit id of a line. Devices built on libmodbus take the first question to them for the answer of the device that
was asked before, if that stayed silent."""
NOBODY_THERE: Final = (10, 11)
MOST_IDENTITIES: Final = 3
"""Requests for the parts of one device identification."""

Told = Callable[[str], None]
"""Progress, one line for a person."""


class Spent(Exception):
    """The budget is used up. The text says what of it."""


class Pace:
    """How much may still be asked, and how soon the next question may be sent."""

    def __init__(self, clock: Clock, *, for_s: float, requests: int, pause_s: float) -> None:
        self._clock = clock
        self._end = clock.monotonic() + for_s
        self._for_s, self._requests, self._pause_s = for_s, requests, pause_s
        self._next = 0.0
        self.asked = 0

    async def turn(self) -> None:
        """Return when one more question may be asked. Raises Spent."""
        if self.asked >= self._requests:
            raise Spent(f"{self._requests} requests were sent: give more with --requests")
        if self._clock.monotonic() >= self._end:
            raise Spent(f"{self._for_s:g} s are over: give more with --for")
        if self._next > self._clock.monotonic():
            await self._clock.sleep_until(self._next)
        self.asked += 1

    def done(self) -> None:
        """The question has been answered, or will not be: from now on the pause counts."""
        self._next = self._clock.monotonic() + self._pause_s if self._pause_s else 0.0


class Paced:
    """An asker that keeps to a pace."""

    def __init__(self, asker: Asker, pace: Pace) -> None:
        self._asker, self._pace = asker, pace

    async def ask(self, request: Request) -> bytes:
        """Raises Spent as well."""
        await self._pace.turn()
        try:
            return await self._asker.ask(request)
        finally:
            self._pace.done()


class OwnLine:
    """A line of one's own, opened when first asked and opened anew when the peer closed it. ``await close()`` at the end."""

    def __init__(self, options: AnyConnection) -> None:
        self._options = options
        self._line: NetworkLine | SerialLine | None = None

    async def ask(self, request: Request) -> bytes:
        """Raises Missed also where the peer closes the connection instead of answering; a DriverError where it cannot be opened."""
        line = self._line or await self._opened()
        try:
            return await line.ask(request)
        except DriverError as error:
            await self.close()
            raise Missed("closed", str(error)) from error

    async def _opened(self) -> NetworkLine | SerialLine:
        line = self._line = make_line(self._options, ScanStats())
        try:
            await line.open()
        except DriverError:
            await self.close()
            raise
        return line

    async def close(self) -> None:
        line, self._line = self._line, None
        if line is not None:
            await line.close()


@dataclass(frozen=True, slots=True)
class Setting:
    """How a serial line is set."""

    baud_rate: int
    parity: Literal["even", "odd", "none"]
    stop_bits: Literal[1, 2]

    def __str__(self) -> str:
        return f"{self.baud_rate} 8{self.parity[0].upper()}{self.stop_bits}"


SETTINGS: Final = (
    Setting(9600, "none", 1),  # what most meters and sensors are delivered with
    Setting(19200, "even", 1),  # the standard's own default (MODBUS over serial line V1.02, 2.5.1)
    Setting(9600, "even", 1),
    Setting(19200, "none", 1),
    Setting(38400, "none", 1),
    Setting(115200, "none", 1),
    Setting(4800, "none", 1),
    Setting(2400, "none", 1),
    Setting(38400, "even", 1),
    Setting(57600, "none", 1),
    Setting(115200, "even", 1),
    Setting(2400, "even", 1),
    Setting(4800, "even", 1),
    Setting(57600, "even", 1),
    Setting(1200, "none", 1),
    Setting(9600, "odd", 1),
    Setting(19200, "odd", 1),
)
"""In order of likelihood. Two stop bits are not tried: who hears one stop bit hears two as well, and the other way round nearly always."""


def with_setting(options: ModbusRtu, setting: Setting) -> ModbusRtu:
    return msgspec.structs.replace(options, baud_rate=setting.baud_rate, parity=setting.parity, stop_bits=setting.stop_bits)


async def units(
    asker: Asker,
    where: str,
    options: dict[str, Any],
    unit_ids: Sequence[int],
    told: Told,
    *,
    is_network: bool,
    tables: Sequence[Table] = (Table.HOLDING, Table.INPUT),
) -> AsyncGenerator[Candidate, None]:  # Any: JSON
    """Devices among ``unit_ids`` behind one connection, as they answer. ``options`` lead to it and are part of each candidate.

    All are asked for a register of the first of ``tables``; of the next only where nobody answered.

    Raises Spent, or a DriverError where the connection cannot be had.
    """
    if is_network and len(unit_ids) > FEW and await _looks_at_no_unit_id(asker):
        told("every unit id is answered: the device does not look at it, so only the first is told")
        unit_ids = unit_ids[:1]
    found = 0
    for table in tables:
        for unit_id in unit_ids:
            told(f"{where}: unit id {unit_id} ({table} registers)")
            if (said := await _knock(asker, unit_id, table, 1 if is_network else SERIAL_TRIES)) is None:
                continue
            found += 1
            detail = joined([said, await who(asker, unit_id)])
            yield Candidate(where=f"unit id {unit_id} on {where}", detail=detail, options=_device(options, unit_id))
        if found:
            return


async def serial(
    options: ModbusRtu, settings: Iterable[Setting], unit_ids: Sequence[int], pace: Pace, told: Told
) -> AsyncGenerator[Candidate, None]:
    """Devices on a serial line of unknown settings. Raises Spent, or a DriverError where the port cannot be had."""
    likely = [unit_id for unit_id in LIKELY_UNITS if unit_id in unit_ids]
    rest = [unit_id for unit_id in unit_ids if unit_id not in likely]
    settings = tuple(settings)
    for part, others in ((likely, rest), (rest, [])):
        for setting in settings:
            found = 0
            line = OwnLine(with_setting(options, setting))
            try:
                async for candidate in _on_line(line, options.serial_port, setting, (part, others), pace, told):
                    found += 1
                    yield candidate
            except Misfit as error:  # a port that cannot be set so: the others may be right
                told(str(error))
            finally:
                await line.close()
            if found:
                return


async def _on_line(
    line: OwnLine, port: str, setting: Setting, parts: tuple[Sequence[int], Sequence[int]], pace: Pace, told: Told
) -> AsyncGenerator[Candidate, None]:
    """The first part of the unit ids; where one of them answers, the second too."""
    where = f"{port}, {setting}"
    options = {
        "type": "modbus-rtu",
        "serial_port": port,
        "baud_rate": setting.baud_rate,
        "parity": setting.parity,
        "stop_bits": setting.stop_bits,
    }
    asker, found = Paced(line, pace), 0
    for part in parts:
        tables = (Table.HOLDING,) if found else (Table.HOLDING, Table.INPUT)
        async with contextlib.aclosing(units(asker, where, options, part, told, is_network=False, tables=tables)) as candidates:
            async for candidate in candidates:
                found += 1
                yield candidate
        if not found:
            return


def _device(options: dict[str, Any], unit_id: int) -> dict[str, Any]:  # Any: JSON
    return {**options, "devices": [{"name": f"device-{unit_id}", "unit_id": unit_id}]}


async def _looks_at_no_unit_id(asker: Asker) -> bool:
    for unit_id in STRANGE_UNITS:
        if await _knock(asker, unit_id, Table.HOLDING, 1) is None:
            return False
    return True


async def _knock(asker: Asker, unit_id: int, table: Table, tries: int) -> str | None:
    """What a device says to a read of its first register; None where nobody answers."""
    pdu = await _answer(asker, read(unit_id, table, 0), tries)
    if pdu is None or (is_exception(pdu) and pdu[1] in NOBODY_THERE):
        return None
    if is_exception(pdu):
        return f"answers with exception {pdu[1]}, {EXCEPTIONS.get(pdu[1], 'unknown')}"
    return "answers"


async def _answer(asker: Asker, request: Request, tries: int = 1) -> bytes | None:
    """None where nothing usable comes; what was broken is asked again once, what stayed away as often as is told."""
    for asked in range(1, max(2, tries) + 1):
        try:
            return await asker.ask(request)
        except Missed as miss:
            if miss.reason != "broken" and asked >= tries:
                return None
    return None


async def who(asker: Asker, unit_id: int) -> str:
    """What a device says about itself; empty where it says nothing. Raises Spent."""
    names: dict[str, str] = {}
    first = 0
    for _ in range(MOST_IDENTITIES):
        pdu = await _answer(asker, identification(unit_id, first))
        if pdu is None or is_exception(pdu):
            break
        part, more = identity(pdu)
        names |= part
        if more <= first:
            break
        first = more
    if names:
        return joined([f"{name} {text}" for name, text in names.items()])
    pdu = await _answer(asker, server_id(unit_id))
    return "" if pdu is None or is_exception(pdu) or len(pdu) < 3 else f"server id {reported(pdu)}"
