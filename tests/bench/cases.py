"""What is measured, by name: each bench is a list of cases, and each case gives plain figures."""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, Final

from tests.bench import commands, live, rtu_line, whole
from tests.bench.broker import broker
from tests.bench.drain import drain, drain_deep, drain_narrow
from tests.bench.loads import FULL, LINEAR, PACED, PLANT, SMALL, UNIT_IDS, USUAL, Load, site
from tests.bench.repeat import Case, Figures
from tests.peers.fast import FastModbus

OUTAGE_S: Final = 20.0
PLANT_HOURS: Final = 72.0
BUSY_HOURS: Final = 1.0
NARROW: Final = (12.0, 30.0)
"""What a narrow link carries, in multiples of what the plant says."""
NARROW_HOURS: Final = 0.1
LINES: Final = (("3 units x 50 float32", 3, 50, 12.0), ("10 units x 5 float32", 10, 5, 8.0))
BESIDE: Final = (replace(USUAL, seconds=10.0, warm_s=2.0), replace(FULL, seconds=8.0, warm_s=2.0))
"""Loads of what is measured beside the gateway."""


@dataclass(frozen=True)
class Bench:
    """A named list of cases. ``cases(quick)`` makes them."""

    name: str
    meaning: str
    cases: Callable[[bool], Sequence[Case]]
    usual: bool = False
    """Part of a run that names no bench."""


# -------------------------------------------------------------------------------------------------- the whole gateway


def _whole(bench: str, loads: Sequence[Load], quick: bool) -> list[Case]:
    return [Case(bench, load.name, partial(_run_whole, load.quick() if quick else load)) for load in loads]


async def _run_whole(load: Load, folder: Path) -> Figures:
    return flat(asdict(await whole.measure(load, folder)))


def _drain(quick: bool) -> list[Case]:
    outage_s = 5.0 if quick else OUTAGE_S
    return [Case("drain", f"{USUAL.name}, {outage_s:g} s without", partial(_run_drain, USUAL.quick() if quick else USUAL, outage_s))]


async def _run_drain(load: Load, outage_s: float, folder: Path) -> Figures:
    return flat(asdict(await drain(load, folder, outage_s)))


def _drain_deep(quick: bool) -> list[Case]:
    depths = ((PLANT, PLANT_HOURS), (USUAL, BUSY_HOURS))
    share = 0.05 if quick else 1.0
    return [
        Case("drain-deep", f"{load.name}, {hours * share:g} h", partial(_run_drain_deep, load, hours * share)) for load, hours in depths
    ]


async def _run_drain_deep(load: Load, hours: float, folder: Path) -> Figures:
    return flat(asdict(await drain_deep(load, folder, hours)))


def _drain_narrow(quick: bool) -> list[Case]:
    hours = 0.02 if quick else NARROW_HOURS
    return [
        Case("drain-narrow", f"{SMALL.name}, link {times:g} x live", partial(_run_drain_narrow, SMALL, hours, times)) for times in NARROW
    ]


async def _run_drain_narrow(load: Load, hours: float, times_live: float, folder: Path) -> Figures:
    return flat(asdict(await drain_narrow(load, folder, hours, times_live)))


def flat(result: dict[str, Any]) -> Figures:  # Any: a dataclass as JSON
    """The numbers of a result; those of a part are called ``part_name_s``, and one that is None is absent."""
    figures: Figures = {}
    for name, value in result.items():
        if isinstance(value, int | float):
            figures[name] = value
        elif isinstance(value, dict) and name != "load":
            figures |= {f"{name}_{part}_s": number for part, number in value.items()}
    return figures


def _live(quick: bool) -> list[Case]:
    load = replace(SMALL, seconds=40.0, warm_s=2.0)  # long enough for the stalled one to be cut
    names = {0: "nobody follows", live.CLIENTS: f"{live.CLIENTS} clients, 1 stalled"}
    return [Case("live", name, partial(live.measure, load.quick() if quick else load, many)) for many, name in names.items()]


# -------------------------------------------------------------------------------------------------- beside it


def _bare(quick: bool) -> list[Case]:
    return [Case("bare", load.name, partial(_run_bare, load.quick() if quick else load)) for load in BESIDE]


async def _run_bare(load: Load, folder: Path) -> Figures:
    async with FastModbus(ports=load.ports) as fast, broker(folder) as port:
        scan_s = load.scan_s if load.is_paced else 0.0
        words = (load.devices, load.tags, scan_s, load.seconds, load.warm_s, port, *fast.ports)
        return await _program("tests.bench.bare_loop", *words)


def _driver(quick: bool) -> list[Case]:
    return [Case("driver", load.name, partial(_run_driver, load.quick() if quick else load)) for load in BESIDE]


async def _run_driver(load: Load, folder: Path) -> Figures:
    async with FastModbus(ports=load.ports) as fast:
        document = folder / "driver.json"
        document.write_text(json.dumps(site(load, fast.ports, 1, 0, folder)))
        return await _program("tests.bench.driver_only", document, load.seconds, load.warm_s)


async def _program(module: str, *words: object) -> Figures:
    """What a program of ours prints last, as JSON."""
    process = await asyncio.create_subprocess_exec(sys.executable, "-m", module, *map(str, words), stdout=asyncio.subprocess.PIPE)
    said, _ = await process.communicate()
    if process.returncode:
        raise RuntimeError(f"{module} failed with {process.returncode}")
    told: Figures = json.loads(said.splitlines()[-1])
    return told


def _rtu(quick: bool) -> list[Case]:
    return [
        Case("rtu", name, partial(_run_rtu, name, units, floats, 5.0 if quick else seconds))
        for name, units, floats, seconds in (LINES[:1] if quick else LINES)
    ]


async def _run_rtu(name: str, units: int, floats: int, seconds: float, _folder: Path) -> Figures:
    return flat(asdict(await rtu_line.measure(name, units, floats, seconds)))


def _unplugged(quick: bool) -> list[Case]:
    warm_s, seconds = (5.0, 10.0) if quick else (80.0, 64.0)  # retries come 2, 4, 8 ... 60 s apart: one of the rare ones is measured
    return [Case("unplugged", "1 of 20 units is gone", partial(_run_unplugged, warm_s, seconds))]


async def _run_unplugged(warm_s: float, seconds: float, _folder: Path) -> Figures:
    alone = await rtu_line.measure("19 units", 19, 5, min(seconds, 20.0))
    beside = await rtu_line.measure("19 units and one that is gone", 19, 5, seconds, unplugged=1, warm_s=warm_s)
    return {
        "alone_values_per_s": alone.values_per_s,
        "beside_values_per_s": beside.values_per_s,
        "growth": alone.values_per_s / beside.values_per_s - 1,
    }


def _commands(quick: bool) -> list[Case]:
    return [Case("commands", f"one device of {USUAL.name}", partial(commands.run, 50 if quick else commands.COUNT))]


BENCHES: Final = (
    Bench("paced", "the whole gateway at loads that it keeps up with", lambda quick: _whole("paced", PACED, quick), usual=True),
    Bench("full", "the whole gateway as fast as it goes", lambda quick: _whole("full", (FULL,), quick), usual=True),
    Bench("drain", "the broker was away: history goes out beside live values", _drain, usual=True),
    Bench("drain-deep", "the same after days, and after an hour of a large plant", _drain_deep),
    Bench("drain-narrow", "the same over a link that carries little and queues much", _drain_narrow),
    Bench("live", "the live stream: 200 clients over TLS, one of them stalled", _live),
    Bench("unit-ids", "100 devices behind one connection", lambda quick: _whole("unit-ids", UNIT_IDS, quick)),
    Bench("linear", "the same device 10, 100 and 500 times", lambda quick: _whole("linear", LINEAR, quick)),
    Bench("bare", "the least that Python can do: no journal, JSON, nothing checked", _bare),
    Bench("driver", "the Modbus driver alone", _driver),
    Bench("rtu", "a serial line of 9,600 baud: share of what is physically possible", _rtu),
    Bench("commands", "from a request to the value read back, while 10,000 values/s are scanned", _commands),
    Bench("unplugged", "one of 20 devices on a line is gone: what that costs the others", _unplugged),
)
