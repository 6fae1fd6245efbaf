"""The broker is away for a while: how much of what was read meanwhile arrives afterwards, how soon, and how much never does.

The products reach the broker through a proxy. In the outage every connection breaks and new ones are refused; broker and
subscriber stay, so that whatever is missing afterwards was lost by the product. At both ends of the outage the devices are
asked for the number of their round, by another table, which does not start a new one.
"""

from __future__ import annotations

import asyncio
import struct
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from tests.bench.loads import Load
from tests.bench.peers.products import Product
from tests.bench.peers.tally import ROUNDS
from tests.bench.peers.trial import around, delivers, told
from tests.peers.fast import read_request
from tests.peers.program import Program
from tests.peers.proxy import Proxy

QUIET_S: Final = 15.0
"""So long without a value from the outage: no more will come."""
PATIENCE_S: Final = 90.0
INPUT_REGISTERS: Final = 4


@dataclass(frozen=True)
class Outage:
    """What became of the values of one outage."""

    product: str
    load: str
    outage_s: float
    due: int
    """Values that the devices should have been asked for during the outage."""
    read: int
    """Values that they were asked for."""
    lost: int
    """Values that were read, up to the end of the outage, and never arrived; those on their way when it began are among them."""
    twice: int
    """Values that arrived more than once."""
    drained_s: float | None
    """From the end of the outage until the last value from before its end arrived; None if none did."""
    first_s: float | None
    """From the end of the outage until anything arrived."""


Came = dict[str, dict[int, tuple[float, int]]]
"""For each device and round: when its first value came (UTC seconds), and how many values of it did."""


async def outage(product: Product, load: Load, folder: Path, outage_s: float, quiet_s: float = QUIET_S) -> Outage:
    """Run ``product`` under ``load`` and take the broker away for ``outage_s``; ``folder`` exists and is its own."""
    if load.scan_s * ROUNDS < outage_s + 2 * PATIENCE_S:
        raise ValueError(f"{load.name}: rounds are counted modulo {ROUNDS}, so this load is too fast to tell them apart")
    async with (
        around(product, load, folder) as (field, port, counted),
        Proxy("127.0.0.1", port) as proxy,
        product.start(load, field.ports, proxy.port, folder),
    ):
        await delivers(counted, load, folder)
        await asyncio.sleep(load.warm_s)
        await counted.ask("rounds")
        await asyncio.sleep(3 * load.scan_s)
        before, began = await rounds(field.ports), time.monotonic()
        await proxy.refuse()
        await asyncio.sleep(outage_s)
        after, elapsed, ended = await rounds(field.ports), time.monotonic() - began, time.time()
        await proxy.heal()
        await _settle(counted, after, ended, quiet_s)
        report = await told(counted)
    came = _came(report)
    lost = sum(len(missing(came, device, before, after)) for device in after)
    late = [at for at in _arrivals(came, after) if at > ended]
    live = [at for found in came.values() for at, _ in found.values() if at > ended]
    return Outage(
        product=product.name,
        load=load.name,
        outage_s=elapsed,
        due=int(elapsed / load.scan_s) * load.devices * load.tags,
        read=sum(after[device] - before[device] for device in after) * load.tags,
        lost=lost * load.tags,
        twice=twice(came, load.tags),
        drained_s=max(late) - ended if late else None,
        first_s=min(live) - ended if live else None,
    )


async def rounds(ports: Sequence[int]) -> dict[str, int]:
    """The number of each device's round, which asking does not change."""
    return {f"device-{at}": await _round(port) for at, port in enumerate(ports)}


async def _round(port: int) -> int:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(read_request(1, 1, INPUT_REGISTERS, 0, 2))
    answer = await asyncio.wait_for(reader.readexactly(13), PATIENCE_S)
    writer.close()
    await writer.wait_closed()
    (value,) = struct.unpack(">f", answer[9:])
    return int(value)


async def _settle(counted: Program, after: dict[str, int], ended: float, quiet_s: float) -> None:
    """Wait until everything up to ``after`` has come, or until nothing of it has come for long."""
    while True:
        came = _came(await told(counted))
        if not any(missing(came, device, after, after) for device in after):
            return
        latest = max((at for found in came.values() for at, _ in found.values()), default=0.0)
        last = max((ended, *_arrivals(came, after)))
        if time.time() > ended + PATIENCE_S or (latest > ended and time.time() > last + quiet_s):
            return
        await asyncio.sleep(1)


def _came(report: dict[str, Any]) -> Came:  # Any: JSON
    return {device: {int(number): (at, count) for number, (at, count) in found.items()} for device, found in report["rounds"].items()}


def missing(came: Came, device: str, before: dict[str, int], after: dict[str, int]) -> set[int]:
    """Rounds of ``device`` that did not come: from the first that did, or else from ``before``, up to ``after``."""
    found = came.get(device, {})
    return set(range(min((before[device], *found)), after[device] + 1)) - set(found)


def twice(came: Came, tags: int) -> int:
    """Values beyond one whole scan for each round."""
    return sum(max(0, count - tags) for found in came.values() for _, count in found.values())


def _arrivals(came: Came, after: dict[str, int]) -> list[float]:
    """When what was read up to ``after`` arrived."""
    return [at for device, found in came.items() for number, (at, _) in found.items() if number <= after[device]]
