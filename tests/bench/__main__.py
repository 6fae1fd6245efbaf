"""``make bench``: what the gateway costs, beside the least that Python can do, on this machine, now.

Every figure is the gateway process alone (or the bare loop's, or the driver's); field and broker run beside it and are not
counted. Prints tables with machine, date and versions, and writes everything as JSON to ``build/bench/``. Nothing here
passes or fails: the figures that were promised stand beside those that came out.

    python -m tests.bench [--quick] [--only paced,full,linear,bare,driver,rtu,unplugged] [--json FILE]
"""

from __future__ import annotations

import argparse
import asyncio
import json
import shutil
import sys
from collections.abc import Awaitable, Callable
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Final

from tests.bench import rtu_line, whole
from tests.bench.broker import broker
from tests.bench.loads import FULL_SPEED_S, Load, site
from tests.bench.measure import ROOT, machine
from tests.peers.fast import FastModbus

OUT: Final = ROOT / "build" / "bench"
PACED: Final = (
    Load("100 devices, 1 s", 100, 1.0),
    Load("100 unit ids, one connection, 1 s", 100, 1.0, "unit-ids", seconds=15),
)
FULL: Final = (
    Load("100 devices, 100 ms", 100, 0.1, seconds=10),
    Load("100 devices, full speed", 100, FULL_SPEED_S, seconds=12),
    Load("100 unit ids, one connection, full speed", 100, FULL_SPEED_S, "unit-ids", seconds=8),
)
LINEAR: Final = (
    Load("10 devices, 1 s", 10, 1.0, seconds=15),
    Load("500 devices, 1 s", 500, 1.0, seconds=15),
)
BARE: Final = (
    Load("100 devices, 1 s", 100, 1.0, seconds=10, warm_s=2),
    Load("100 devices, 100 ms", 100, 0.1, seconds=6, warm_s=2),
    Load("100 devices, full speed", 100, 0.0, seconds=6, warm_s=2),
)
DRIVER: Final = (
    Load("100 devices, 1 s", 100, 1.0, seconds=8, warm_s=2),
    Load("100 devices, full speed", 100, FULL_SPEED_S, seconds=6, warm_s=2),
)
LINES: Final = (("3 units x 50 float32", 3, 50, 12.0), ("10 units x 5 float32", 10, 5, 8.0))
WANTED: Final = {
    "100 devices, 1 s": "at most 6 CPU s/M values, 100 MB, lateness p99 < 20 ms",
    "100 devices, full speed": "at most 3 CPU s/M values, at least 300,000 values/s",
    "rtu": "at least 95 % of what is possible",
}
"""What the project promises of a load."""


@dataclass
class Session:
    """One run of the benches: what is measured, and all that came out."""

    quick: bool
    folder: Path
    results: dict[str, Any] = field(default_factory=dict)  # Any: JSON

    def place(self, name: str) -> Path:
        """A fresh folder."""
        (self.folder / name).mkdir()
        return self.folder / name

    def sized(self, load: Load) -> Load:
        return replace(load, seconds=min(load.seconds, 5.0), warm_s=min(load.warm_s, 2.0)) if self.quick else load


def say(line: str = "") -> None:
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


# -------------------------------------------------------------------------------------------------- the whole gateway

HEAD: Final = (
    f"{'load':42} {'values/s':>10} {'CPU s/M':>8} {'core':>6} {'peak':>7} {'missed':>15} "
    f"{'late p50/p99':>14} {'to broker p50/p99':>18} {'delivered':>9}"
)


async def _whole(session: Session, key: str, loads: tuple[Load, ...]) -> None:
    say(HEAD)
    for at, load in enumerate(loads):
        folder = session.place(f"{key}-{at}")
        result = await whole.measure(session.sized(load), folder)
        shutil.rmtree(folder / "journal", ignore_errors=True)
        session.results.setdefault("gateway", {})[load.name] = asdict(result)
        say(_row(result))
        if load.name in WANTED:
            say(f"{'':4}promised: {WANTED[load.name]}")


def _row(result: whole.Result) -> str:
    missed = f"{result.missed} of {result.scans + result.missed}"
    late = f"{result.late_p50_s * 1e3:g}/{result.late_p99_s * 1e3:g} ms"
    spread = result.latency
    latency = f"{spread.p50 * 1e3:.0f}/{spread.p99 * 1e3:.0f} ms" if spread else "none came"
    trouble = f"  DROPPED {result.dropped}" if result.dropped else ""
    return (
        f"{result.load.name:42} {result.values_per_s:>10,.0f} {result.cpu_s_per_million:>8.2f} {result.cpu_share:>6.1%} "
        f"{result.peak_bytes / 1e6:>4.0f} MB {missed:>15} {late:>14} {latency:>18} {result.delivered:>9.1%}{trouble}"
    )


async def paced(session: Session) -> None:
    """The gateway at 10,000 values/s: a connection for each device, and one for all."""
    await _whole(session, "paced", PACED[:1] if session.quick else PACED)


async def full(session: Session) -> None:
    """The gateway as fast as it goes. Where more is asked for than it can do, missed scans are the measure of speed."""
    await _whole(session, "full", FULL[1:2] if session.quick else FULL)


async def linear(session: Session) -> None:
    """The same device 10 and 500 times: what a further device costs should not depend on how many there are."""
    await _whole(session, "linear", LINEAR)
    done = [session.results["gateway"][load.name] for load in (*LINEAR, PACED[0]) if load.name in session.results["gateway"]]
    fixed, each, off = _fit([(result["load"]["devices"], result["cpu_share"]) for result in done])
    session.results["linear"] = {"fixed_share": fixed, "share_per_device": each, "worst_residual": off}
    say(f"{'':4}core = {fixed:.2%} + {each:.4%} x devices; the worst point lies {off:.0%} off that line")


def _fit(points: list[tuple[float, float]]) -> tuple[float, float, float]:
    """The straight line through ``points`` by least squares: its start, its slope, and the worst relative distance from it."""
    xs, ys = zip(*points, strict=True)
    mean_x, mean_y = sum(xs) / len(xs), sum(ys) / len(ys)
    slope = sum((x - mean_x) * (y - mean_y) for x, y in points) / sum((x - mean_x) ** 2 for x in xs)
    start = mean_y - slope * mean_x
    return start, slope, max(abs(y - start - slope * x) / y for x, y in points)


# -------------------------------------------------------------------------------------------------- beside it


async def bare(session: Session) -> None:
    """A bare Python loop: no journal, JSON, nothing checked. The gateway is measured by how near it comes."""
    say(f"{'load':42} {'values/s':>10} {'CPU s/M':>8} {'core':>6} {'peak':>7} {'gateway / bare':>15}")
    for load in map(session.sized, BARE if not session.quick else (BARE[0], BARE[2])):
        async with FastModbus(ports=load.ports) as fast, broker(session.folder) as port:
            words = (load.devices, load.tags, load.scan_s, load.seconds, load.warm_s, port, *fast.ports)
            _tell(session, "bare", load.name, await _program("tests.bench.bare_loop", *words))


async def driver(session: Session) -> None:
    """The Modbus driver alone: what of the gateway's cost is the driver's."""
    say(f"{'load':42} {'values/s':>10} {'CPU s/M':>8} {'core':>6} {'peak':>7} {'gateway / this':>15}")
    for load in map(session.sized, DRIVER):
        async with FastModbus(ports=load.ports) as fast:
            document = session.folder / "driver.json"
            document.write_text(json.dumps(site(load, fast.ports, 1, 0, session.folder)))
            _tell(session, "driver", load.name, await _program("tests.bench.driver_only", document, load.seconds, load.warm_s))


def _tell(session: Session, key: str, name: str, told: dict[str, Any]) -> None:  # Any: JSON
    session.results.setdefault(key, {})[name] = told
    gateway = session.results.get("gateway", {}).get(name)
    ratio = f"{gateway['cpu_s_per_million'] / told['cpu_s_per_million']:.2f}" if gateway else "-"
    say(
        f"{name:42} {told['values_per_s']:>10,.0f} {told['cpu_s_per_million']:>8.2f} {told['cpu_share']:>6.1%} "
        f"{told['peak_bytes'] / 1e6:>4.0f} MB {ratio:>15}"
    )


async def _program(module: str, *words: object) -> dict[str, Any]:  # Any: JSON
    """What a program of ours prints last, as JSON."""
    process = await asyncio.create_subprocess_exec(sys.executable, "-m", module, *map(str, words), stdout=asyncio.subprocess.PIPE)
    said, _ = await process.communicate()
    if process.returncode:
        raise RuntimeError(f"{module} failed with {process.returncode}")
    told: dict[str, Any] = json.loads(said.splitlines()[-1])  # Any: JSON
    return told


async def rtu(session: Session) -> None:
    """A serial line of 9,600 baud: share of what is physically possible."""
    say(f"{'line':42} {'used':>10} {'busy':>8} {'requests/s':>11} {'values/s':>9} {'early':>6} {'collisions':>11}")
    for name, units, floats, seconds in LINES[:1] if session.quick else LINES:
        result = await rtu_line.measure(name, units, floats, min(seconds, 6.0) if session.quick else seconds)
        session.results.setdefault("rtu", {})[name] = asdict(result)
        say(
            f"{name:42} {result.used:>10.1%} {result.busy:>8.1%} {result.requests_per_s:>11.1f} {result.values_per_s:>9.0f} "
            f"{result.early:>6} {result.collisions:>11}"
        )
    say(f"{'':4}promised: {WANTED['rtu']}")


async def unplugged(session: Session) -> None:
    """One of 20 devices on a line is unplugged: how much slower are the other 19? Two minutes, so only when asked for."""
    warm_s, seconds = (
        (5.0, 10.0) if session.quick else (80.0, 64.0)
    )  # retries come 2, 4, 8 ... 60 s apart: one of the rare ones is measured
    alone = await rtu_line.measure("19 units", 19, 5, min(seconds, 20.0))
    beside = await rtu_line.measure("19 units and one that is gone", 19, 5, seconds, unplugged=1, warm_s=warm_s)
    session.results["unplugged"] = {"alone": asdict(alone), "beside": asdict(beside)}
    say(f"{alone.values_per_s:.1f} values/s without it, {beside.values_per_s:.1f} beside it: the cycle grows by")
    say(f"{alone.values_per_s / beside.values_per_s - 1:.1%} (promised: less than 5 % once it is set aside)")


BENCHES: Final[dict[str, Callable[[Session], Awaitable[None]]]] = {
    "paced": paced,
    "full": full,
    "linear": linear,
    "bare": bare,
    "driver": driver,
    "rtu": rtu,
    "unplugged": unplugged,
}
USUAL: Final = ("paced", "full", "linear", "bare", "driver", "rtu")
QUICK: Final = ("paced", "full", "bare", "rtu")


async def run(session: Session, names: list[str]) -> None:
    session.results["machine"] = machine()
    for what, value in session.results["machine"].items():
        say(f"{what:12} {value}")
    for name in names:
        say(f"\n{name}: {(BENCHES[name].__doc__ or '').splitlines()[0]}")
        await BENCHES[name](session)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.bench", description="Speed, measured: the gateway process alone.")
    parser.add_argument("--quick", action="store_true", help="less than a minute, rough figures")
    parser.add_argument("--only", default="", help=f"some of {','.join(BENCHES)}")
    parser.add_argument("--json", type=Path, default=OUT / "latest.json", help="where the figures go")
    given = parser.parse_args()
    names = given.only.split(",") if given.only else list(QUICK if given.quick else USUAL)
    unknown = set(names) - set(BENCHES)
    if unknown:
        parser.error(f"no bench called {', '.join(sorted(unknown))}; there are {', '.join(BENCHES)}")
    session = Session(given.quick, OUT / "run")
    shutil.rmtree(session.folder, ignore_errors=True)
    session.folder.mkdir(parents=True)
    try:
        asyncio.run(run(session, names))
    finally:
        given.json.write_text(json.dumps(session.results, indent=2) + "\n")
        say(f"\nwritten to {given.json}")


if __name__ == "__main__":
    main()
