"""A process that stores readings until it dies, and tells on stdout what was confirmed and what its reader was given.

``python writer.py FOLDER FIRST`` stores readings from number FIRST on. Without arguments it waits, with everything imported, and for
each line ``FOLDER FIRST`` on stdin becomes two processes, of which one stores; a campaign of a thousand deaths needs no
thousand starts of Python. Lines: ``pid n``, ``open``, ``stored lane number epoch seq`` once a reading is durable,
``given lane number epoch seq`` once the reader has it, ``gone`` when a storing process has died. Each is one write, so a death leaves
none in halves. The journal's log goes to stderr: a line of it, cut off by death, would hide the word that comes next.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import sys
import traceback
from pathlib import Path

import structlog

from gateway.journal import Journal, Lane, Record, StorageError
from protocols.clock import SystemClock
from tests.faults.journal.plant import number_of, options, reading

WRITERS = 10


async def main(folder: Path, first: int) -> None:
    journal = await Journal.open(options(folder, commit_window_ms=5), clock=SystemClock())
    journal._store._roll_bytes = journal._store.chains[Lane.TELEMETRY].roll_bytes = 400_000
    tell("open")
    numbers = iter(range(first, 10**9))

    async def store(lane: Lane) -> None:
        for number in numbers:
            epoch, seq = await journal.append(reading(number), lane)
            tell(f"stored {lane.value} {number} {epoch} {seq}")

    await asyncio.gather(*(store(Lane.TELEMETRY) for _ in range(WRITERS)), store(Lane.EVENTS), *(deliver(journal, lane) for lane in Lane))


async def deliver(journal: Journal, lane: Lane) -> None:
    """An uplink: takes what is pending, acknowledges most of it, leaves holes."""
    reader = journal.reader("cloud")
    while True:
        for first, last in reader.pending(lane):
            with contextlib.suppress(StorageError):  # the power is gone, and the process not yet
                for each in await reader.read(lane, first, max_records=100, max_bytes=1 << 20, last=last):
                    if isinstance(each, Record):
                        tell(f"given {lane.value} {number_of(each.batch)} {each.epoch} {each.seq}")
                        if each.seq % 100:
                            reader.acknowledge(lane, each.seq, each.seq)
        await reader.wait({lane: reader.head(lane)})


def tell(line: str) -> None:
    os.write(1, line.encode() + b"\n")


def become_many() -> None:
    """One process for each line of stdin."""
    for line in sys.stdin:
        folder, first = line.split()
        child = os.fork()
        if not child:
            start(folder, first)
        os.waitpid(child, 0)
        tell("gone")


def start(folder: str, first: str) -> None:
    tell(f"pid {os.getpid()}")
    try:
        asyncio.run(main(Path(folder), int(first)))
    except BaseException:
        traceback.print_exc()
        raise
    finally:
        os._exit(1)  # it must not go on as its parent


if __name__ == "__main__":
    structlog.configure(logger_factory=structlog.PrintLoggerFactory(sys.stderr))
    if len(sys.argv) == 3:
        start(sys.argv[1], sys.argv[2])
    else:
        become_many()
