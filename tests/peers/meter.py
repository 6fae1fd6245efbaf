"""An energy meter on a serial line, on libmodbus in C; see ``meter.c``. Its floats lie as an Eastron SDM630's."""

from __future__ import annotations

from tests.peers.compiled import compiled
from tests.peers.libmodbus import registers
from tests.peers.program import Program


class Meter(Program):
    """``async with Meter(wire.tap_path, 9600, unit=11) as meter``: RTU without parity at the far end of a line."""

    def __init__(self, path: str, baud: int, *, unit: int) -> None:
        super().__init__(compiled("meter.c", "libmodbus"), path, str(baud), str(unit))

    async def show(self, register: int, value: float) -> None:
        """``value`` as a float in the input registers from ``register`` on."""
        await self.ask(f"input {register} {' '.join(map(str, registers('f', value)))}")
