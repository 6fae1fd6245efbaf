"""The cheap Modbus TCP server of the benches, and the values that it must give; see ``fast_modbus.c``."""

from __future__ import annotations

import struct
from typing import Final, Literal

from tests.peers.compiled import compiled
from tests.peers.program import Program

STAMP: Final = 65000
"""Four registers from here on are the time of the answer: UTC nanoseconds as one uint64."""
ROUND: Final = 65004
"""Four registers from here on are the number of the round, as one uint64: 1 for the first scan, and no number twice."""


class FastModbus(Program):
    """``async with FastModbus(ports=500) as field``: serves ``field.ports``, every unit id on each."""

    def __init__(self, *, ports: int = 1, first_port: int = 0, shape: Literal["counter", "wave"] = "counter") -> None:
        super().__init__(compiled("fast_modbus.c", link=("-lm",)), str(ports), str(first_port), shape)
        self.ports: tuple[int, ...] = ()

    async def start(self) -> None:
        await super().start()
        self.ports = tuple(map(int, self.ready))

    async def requests(self) -> int:
        """Requests answered since the start."""
        return int((await self.ask("stats"))[0])

    async def connections(self) -> int:
        return int((await self.ask("stats"))[1])

    async def rounds(self) -> list[int]:
        """The last round of unit 1 on each port: how many scans were begun there."""
        return [int(word) for word in await self.ask("rounds")]

    async def answered(self, port: int) -> list[int]:
        """When the rounds of unit 1 on the port of this index were answered, UTC nanoseconds: round ``r`` at ``r % len``, 0 for none."""
        return [int(word) for word in await self.ask(f"answered {port}")]


def counter(pair: int, scan: int) -> float:
    """The float32 at registers ``2 * pair`` and ``2 * pair + 1`` in round ``scan`` of the shape ``counter``."""
    return float(pair % 16000 * 1000 + scan % 1000)


def round_of(pair: int, value: float) -> int:
    """The round (modulo 1000) that ``value`` was read in; raises ValueError if no round gives it at ``pair``."""
    scan = int(value) - pair % 16000 * 1000
    if value != counter(pair, scan) or not 0 <= scan < 1000:
        raise ValueError(f"{value} is no value of register pair {pair}")
    return scan


def read_request(transaction: int, unit: int, function: int, address: int, count: int) -> bytes:
    """A Modbus TCP read request (MODBUS Messaging on TCP/IP 1.0b, 3.1.3)."""
    return struct.pack(">HHHBBHH", transaction, 0, 6, unit, function, address, count)
