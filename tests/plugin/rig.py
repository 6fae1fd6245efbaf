"""The simulated instrument, started and steered."""

from __future__ import annotations

import sys
from pathlib import Path

from tests.peers.program import Program

PROGRAM = Path(__file__).with_name("instrument.py")


class SimulatedInstrument(Program):
    """``async with SimulatedInstrument() as instrument``: SCPI on 127.0.0.1 at ``instrument.port``."""

    def __init__(self) -> None:
        super().__init__(Path(sys.executable), str(PROGRAM), "0")
        self.port = 0

    async def start(self) -> None:
        await super().start()
        self.port = int(self.ready[0])
        self._command = (*self._command[:-1], str(self.port))  # started again, it is found at the same place

    async def set(self, name: str, answer: str) -> None:
        await self.ask(f"set {name} {answer}")
