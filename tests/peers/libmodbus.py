"""A Modbus server on libmodbus, written in C by other people; see ``libmodbus_server.c`` for what it can do."""

from __future__ import annotations

import math
import struct
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

from tests.peers.compiled import compiled
from tests.peers.program import PeerFailed, Program

Table = Literal["coil", "discrete", "input", "holding"]
Framing = Literal["tcp", "rtu-tcp"]
AT_ONCE = 10_000
"""Values in one command line."""


@dataclass(frozen=True, slots=True)
class Request:
    """A request as the server saw it."""

    unit_id: int
    function: int
    address: int
    count: int


class LibmodbusServer(Program):
    """``async with LibmodbusServer(units=[1, 2]) as server``: TCP (or RTU over TCP) on 127.0.0.1 at ``server.port``."""

    def __init__(self, *, units: Iterable[int] = (1,), framing: Framing = "tcp", port: int = 0) -> None:
        super().__init__(compiled("libmodbus_server.c", "libmodbus"), framing, str(port))
        self._framing, self._units = framing, tuple(units)
        self.port = port

    async def start(self) -> None:
        await super().start()
        self.port = int(self.ready[0])
        self._command = (self._command[0], self._framing, str(self.port))  # started again, it is found at the same place
        await self._create_units()

    async def _create_units(self) -> None:
        for unit in self._units:
            await self.ask(f"unit {unit}")

    async def set(self, unit: int, table: Table, address: int, *values: int) -> None:
        for at in range(0, len(values), AT_ONCE):
            words = " ".join(str(int(value)) for value in values[at : at + AT_ONCE])
            await self.ask(f"set {unit} {table} {address + at} {words}")

    async def get(self, unit: int, table: Table, address: int, count: int = 1) -> list[int]:
        return [int(word) for word in await self.ask(f"get {unit} {table} {address} {count}")]

    async def hole(self, unit: int, table: Table, first: int, last: int) -> None:
        """Requests that touch ``first`` to ``last`` are answered "illegal data address"."""
        await self.ask(f"hole {unit} {table} {first} {last}")

    async def keep(self, unit: int, first: int, last: int) -> None:
        """Writes to these holding registers are acknowledged and change nothing."""
        await self.ask(f"keep {unit} {first} {last}")

    async def clamp(self, unit: int, first: int, last: int, most: int) -> None:
        """What is written to these holding registers is cut to ``most``."""
        await self.ask(f"clamp {unit} {first} {last} {most}")

    async def most(self, unit: int, registers: int) -> None:
        """Reads of more registers are answered "illegal data value"; 0 is the protocol's own limit."""
        await self.ask(f"most {unit} {registers}")

    async def fail(self, unit: int, exception: int) -> None:
        """Every request is answered with this exception code; 0 mends it."""
        await self.ask(f"fail {unit} {exception}")

    async def silent(self, unit: int, silent: bool = True) -> None:
        await self.ask(f"silent {unit} {int(silent)}")

    async def requests(self) -> list[Request]:
        """Every request (at most 8,192) since this was last asked."""
        return [Request(*map(int, word.split("/"))) for word in await self.ask("requests")]

    async def connections(self) -> int:
        return int((await self.ask("connections"))[0])

    async def kick(self) -> None:
        """Close every client's connection; the server goes on."""
        await self.ask("kick")


class LibmodbusLine(LibmodbusServer):
    """The same server as RTU on a serial port, such as the far end of a :class:`tests.peers.wire.Wire`."""

    def __init__(self, path: str, baud: int, *, units: Iterable[int] = (1,)) -> None:
        Program.__init__(self, compiled("libmodbus_server.c", "libmodbus"), "rtu", path, str(baud))
        self._units = tuple(units)
        self.port = 0

    async def start(self) -> None:
        await Program.start(self)
        await self._create_units()


def registers(kind: str, value: float) -> list[int]:
    """``value`` as registers, high byte and high word first: ``kind`` is a struct letter (``f d h H i I q Q``)."""
    raw = struct.pack(f">{kind}", value if kind in "fd" or math.isnan(value) else int(value))
    return list(struct.unpack(f">{len(raw) // 2}H", raw))


class Refused(Exception):
    """The server answered with an exception, or not at all; the text is libmodbus' own."""


class LibmodbusClient(Program):
    """``async with LibmodbusClient(port) as client``: a client on libmodbus, to test servers with."""

    def __init__(self, port: int, unit: int = 1) -> None:
        super().__init__(compiled("libmodbus_client.c", "libmodbus"), str(port), str(unit))

    async def read(self, table: Table, address: int, count: int = 1) -> list[int]:
        return [int(word) for word in await self._said(f"read {table} {address} {count}")]

    async def write(self, table: Literal["coil", "holding"], address: int, *values: int) -> None:
        """By function 5 or 6 where it is one value, else 15 or 16."""
        await self._said(f"write {table} {address} {' '.join(map(str, values))}")

    async def talk_to(self, unit: int) -> None:
        await self._said(f"unit {unit}")

    async def again(self) -> None:
        """Connect anew."""
        await self._said("again")

    async def _said(self, command: str) -> list[str]:
        try:
            return await self.ask(command)
        except PeerFailed as error:
            raise Refused(str(error)) from None
