"""How much of a serial line's time the RTU driver uses: a 9,600 baud line that delays bytes like a wire.

The line runs as a process of its own (``tests/peers/wire.py``) and measures itself. *Used* is the least time in which the
traffic seen could have passed (characters, the silence of 3.5 characters after each frame, what the device itself took)
over the time that passed; what is missing to 100 % is what the driver spent between an answer and its next request.
"""

from __future__ import annotations

import json
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from protocols.clock import SystemClock
from protocols.modbus.config import Device, ModbusRtu, Tag
from protocols.modbus.driver import RTU
from protocols.model import Kind
from tests.bench.loads import FULL_SPEED_S
from tests.peers.program import Program

BAUD: Final = 9600
BITS: Final = 11


@dataclass(frozen=True)
class LineResult:
    """Traffic of one line. Shares of the time that passed."""

    name: str
    used: float
    busy: float
    """Share in which a character was on the wire."""
    requests_per_s: float
    values_per_s: float
    early: int
    """Requests that began before 3.5 characters of silence had passed: must be 0."""
    collisions: int


async def measure(name: str, units: int, floats: int, seconds: float, *, unplugged: int = 0, warm_s: float = 1.0) -> LineResult:
    """``units`` devices of ``floats`` float32 each, asked as fast as the line allows, and ``unplugged`` more that are not there."""
    wire = Program(
        Path(sys.executable), "-m", "tests.peers.wire", f"--baud={BAUD}", f"--bits={BITS}", f"--units={units}", f"--registers={2 * floats}"
    )
    async with wire:
        options = ModbusRtu(
            name="line",
            serial_port=wire.ready[0],
            baud_rate=BAUD,
            parity="none",
            stop_bits=2,
            timeout_s=1.0,
            devices=_devices(units + unplugged, floats),
        )
        values = await _read(options, wire, seconds, warm_s)
        report = json.loads((await wire.ask("report"))[0])
    elapsed = report["elapsed_s"]
    return LineResult(
        name=name,
        used=report["utilisation"],
        busy=report["busy_s"] / elapsed,
        requests_per_s=report["requests"] / elapsed,
        values_per_s=values / elapsed,
        early=report["early"],
        collisions=report["collisions"],
    )


def _devices(units: int, floats: int) -> tuple[Device, ...]:
    tags = tuple(Tag(name=f"v{at}", at=f"holding:{2 * at}", kind=Kind.FLOAT32) for at in range(floats))
    return tuple(Device(name=f"unit-{unit}", unit_id=unit, scan_s=FULL_SPEED_S, tags=tags) for unit in range(1, units + 1))


async def _read(options: ModbusRtu, wire: Program, seconds: float, warm_s: float) -> int:
    """Values read in ``seconds``, after ``warm_s`` that are not counted."""
    clock, values = SystemClock(), 0
    begin = clock.monotonic() + warm_s
    counting = False
    async with RTU.open(options, clock=clock) as session:
        async for batch in session.batches():
            now = clock.monotonic()
            if now >= begin + seconds:
                break
            if counting:
                values += len(batch)
            elif now >= begin:
                counting = True
                await wire.ask("forget")
    return values
