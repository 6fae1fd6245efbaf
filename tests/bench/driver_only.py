"""The Modbus driver alone under a load, as a process of its own: what of the gateway's cost is the driver's.

    python -m tests.bench.driver_only SITE SECONDS WARM_S

opens every connection of a site document, takes their batches and drops them; prints one line of JSON. It is also the
process to look into with a profiler.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
import time
from pathlib import Path

import msgspec
import uvloop

from protocols.clock import SystemClock
from protocols.modbus.config import ModbusTcp
from protocols.modbus.driver import TCP
from protocols.model import ScanStats
from tests.bench.measure import cpu_s, peak_bytes


class Count:
    values = 0
    bad = 0


async def _read(options: ModbusTcp, count: Count, stats: list[ScanStats]) -> None:
    async with TCP.open(options, clock=SystemClock()) as session:
        stats.append(session.stats)
        async for batch in session.batches():
            count.values += len(batch)
            count.bad += int(batch.quality.any())


async def run(lines: list[ModbusTcp], seconds: float, warm_s: float) -> None:
    count, stats = Count(), list[ScanStats]()
    reading = [asyncio.ensure_future(_read(options, count, stats)) for options in lines]
    await asyncio.sleep(warm_s)
    values, cpu, began = count.values, cpu_s(os.getpid()), time.monotonic()
    await asyncio.sleep(seconds)
    values, cpu, elapsed = count.values - values, cpu_s(os.getpid()) - cpu, time.monotonic() - began
    told = {
        "values_per_s": values / elapsed,
        "cpu_s_per_million": cpu / values * 1e6,
        "cpu_share": cpu / elapsed,
        "peak_bytes": peak_bytes(os.getpid()),
        "missed": sum(each.missed for each in stats),
        "bad_batches": count.bad,
    }
    sys.stdout.write(json.dumps(told) + "\n")
    for task in reading:
        task.cancel()
    await asyncio.gather(*reading, return_exceptions=True)


def main() -> None:
    document, seconds, warm_s = sys.argv[1:]
    lines = [msgspec.convert(line, ModbusTcp) for line in json.loads(Path(document).read_text())["connections"]]
    uvloop.run(run(lines, float(seconds), float(warm_s)))


if __name__ == "__main__":
    main()
