"""A process that stores readings until it dies, and tells on stdout what was confirmed: ``python writer.py FOLDER FIRST``.

Lines: ``open``, then ``lane number epoch seq`` once a reading is durable, ``delivered lane last`` when its reader has acknowledged.
"""

from __future__ import annotations

import asyncio
import os
import sys
from pathlib import Path

from gateway.journal import Journal, Lane
from protocols.clock import SystemClock
from tests.faults.journal.plant import options, reading

WRITERS = 10


async def main(folder: Path, first: int) -> None:
    journal = await Journal.open(options(folder, commit_window_ms=5), clock=SystemClock())
    journal._store.chains[Lane.TELEMETRY].roll_bytes = 400_000
    reader = journal.reader("cloud")
    tell("open")
    numbers = iter(range(first, 10**9))

    async def store(lane: Lane) -> None:
        for number in numbers:
            epoch, seq = await journal.append(reading(number), lane)
            tell(f"{lane.value} {number} {epoch} {seq}")
            if lane is Lane.TELEMETRY and seq % 50 == 0:
                reader.acknowledge(lane, 1, seq - 25)

    await asyncio.gather(*(store(Lane.TELEMETRY) for _ in range(WRITERS)), store(Lane.EVENTS))


def tell(line: str) -> None:
    os.write(1, line.encode() + b"\n")


if __name__ == "__main__":
    asyncio.run(main(Path(sys.argv[1]), int(sys.argv[2])))
