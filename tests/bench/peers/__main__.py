"""``make bench-peers``: Holdfast beside thingsboard-gateway and Node-RED under the same loads, in one run, interleaved.

Every product is measured alike and from outside (``trial.py``); repetitions go A B C A B C, so that a neighbour of this
machine who wakes up disturbs all of them. Prints medians with their spread, and Holdfast's share of each peer's cost.
No figure passes or fails: the shares that were promised stand beside those that came out.

    python -m tests.bench.peers [--quick] [--only holdfast,thingsboard,node-red] [--loads SUBSTRING,...] [--repeat N] [--json FILE]
"""

from __future__ import annotations

import argparse
import asyncio
import json
import shutil
import statistics
import sys
import time
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Final

from tests.bench.loads import FULL_SPEED_S, Load
from tests.bench.measure import ROOT, machine
from tests.bench.peers.outage import Outage, outage
from tests.bench.peers.process import PeerEnded
from tests.bench.peers.products import PRODUCTS, USUAL, Product
from tests.bench.peers.trial import Cost, cost

OUT: Final = ROOT / "build" / "bench"
LOADS: Final = (
    Load("100 x 100, 1 s", 100, 1.0, seconds=12, warm_s=3),
    Load("10 x 100, 1 s", 10, 1.0, seconds=15, warm_s=3),
    Load("10 x 100, 100 ms", 10, 0.1, seconds=8, warm_s=3),
    Load("500 x 30, 1 s", 500, 1.0, tags=30, seconds=12, warm_s=3),
    Load("100 x 100, full speed", 100, FULL_SPEED_S, seconds=8, warm_s=4),
)
OUTAGE: Final = Load("100 x 100, 1 s", 100, 1.0, warm_s=3)
OUTAGE_S: Final = 20.0
QUICK_OUTAGE_S: Final = 8.0
OUTAGE_NAME: Final = "outage"
QUICK: Final = ("100 x 100, 1 s", "100 x 100, full speed", OUTAGE_NAME)
MAIN: Final = "holdfast"
WANTED: Final = {("100 x 100, 1 s", "thingsboard"): 1 / 5, ("100 x 100, 1 s", "node-red"): 1 / 3}
"""The share of a peer's cost for a value that Holdfast promises not to exceed."""


def say(line: str = "") -> None:
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


@dataclass
class Run:
    """What is measured, how often, and all that came out."""

    products: list[Product]
    loads: list[Load]
    repeat: int
    outages: int
    outage_s: float
    folder: Path
    costs: list[Cost] = field(default_factory=list)
    outage_results: list[Outage] = field(default_factory=list)
    failures: list[str] = field(default_factory=list)

    def place(self) -> Path:
        """A fresh folder."""
        shutil.rmtree(self.folder, ignore_errors=True)
        self.folder.mkdir(parents=True)
        return self.folder

    async def everything(self) -> None:
        for load in self.loads:
            say(f"\n{load.name}: {load.devices} devices x {load.tags} float32, {load.seconds:g} s, {self.repeat} times")
            say(HEAD)
            for _ in range(self.repeat):
                for product in self.products:
                    await self.one(product, load)
            self.compare(load)
        if self.outages:
            say(f"\n{OUTAGE_NAME}: {OUTAGE.name}, the broker is away for {self.outage_s:g} s")
            say(OUTAGE_HEAD)
        for _ in range(self.outages):
            for product in self.products:
                await self.one_outage(product)

    async def one(self, product: Product, load: Load) -> None:
        try:
            self.costs.append(await cost(product, load, self.place()))
        except PeerEnded as error:
            self.fail(product, load.name, error)
        else:
            say(_line(self.costs[-1]))

    async def one_outage(self, product: Product) -> None:
        try:
            self.outage_results.append(await outage(product, OUTAGE, self.place(), self.outage_s))
        except PeerEnded as error:
            self.fail(product, OUTAGE_NAME, error)
        else:
            say(_outage_line(self.outage_results[-1]))

    def fail(self, product: Product, load: str, error: PeerEnded) -> None:
        """That a product breaks under a load is a result; the others are still measured."""
        self.failures.append(f"{product.name}, {load}: {error}")
        say(f"{'':2}{product.name:20}{error}")

    def compare(self, load: Load) -> None:
        """Medians, their spread, and Holdfast's share of each peer's."""
        say(COMPARE_HEAD)
        for product in self.products:
            costs = self.of(load, product)
            figures = (
                [each.values_per_s for each in costs],
                [each.cpu_s_per_million for each in costs],
                [each.peak_bytes / 1e6 for each in costs],
                [each.p50_s * 1e3 for each in costs if each.p50_s is not None],
                [each.p99_s * 1e3 for each in costs if each.p99_s is not None],
            )
            columns = "".join(f"{_spread(values):>{WIDE}}" for values in figures)
            say(f"{'':2}{product.name:20}{columns}{_promise(load, product, self.share(load, product)):>{WIDE}}")

    def of(self, load: Load, product: Product) -> list[Cost]:
        return [each for each in self.costs if each.load == load.name and each.product == product.name]

    def share(self, load: Load, product: Product) -> float | None:
        """Holdfast's median cost for a value over ``product``'s."""
        own = [each.cpu_s_per_million for each in self.costs if each.load == load.name and each.product == MAIN]
        other = [each.cpu_s_per_million for each in self.of(load, product)]
        if product.name == MAIN or not own or not other:
            return None
        return statistics.median(own) / statistics.median(other)

    def as_json(self) -> dict[str, Any]:  # Any: JSON
        return {
            "machine": machine(),
            "versions": {product.name: product.version() for product in self.products},
            "costs": [asdict(each) for each in self.costs],
            "failures": self.failures,
            "outages": [asdict(each) for each in self.outage_results],
            "shares": {
                load.name: {each.name: self.share(load, each) for each in self.products if each.name != MAIN} for load in self.loads
            },
        }


HEAD: Final = (
    f"{'':2}{'':20}{'values/s':>10}{'of':>11}{'CPU s/M':>9}{'core':>8}{'peak':>8}{'p50/p99 ms':>18}{'missed scans':>18}{'silent':>8}"
    f"{'messages/s':>12}"
)
WIDE: Final = 24
COMPARED: Final = ("values/s", "CPU s/M values", "peak MB", "p50 ms", "p99 ms", "CPU, holdfast / this")
COMPARE_HEAD: Final = f"{'':2}{'median (spread)':20}" + "".join(f"{name:>{WIDE}}" for name in COMPARED)
OUTAGE_HEAD: Final = f"{'':2}{'':20}{'values due':>12}{'read':>10}{'lost':>10}{'twice':>8}{'first after':>13}{'all after':>11}"


def _line(each: Cost) -> str:
    missed = f"{each.missed} of {each.scans + each.missed}"
    ages = f"{each.p50_s * 1e3:.1f}/{each.p99_s * 1e3:.1f}" if each.p50_s is not None and each.p99_s is not None else "none came"
    trouble = f"  {each.wrong} WRONG VALUES" if each.wrong else ""
    return (
        f"{'':2}{each.product:20}{each.values_per_s:>10,.0f}{each.asked_per_s:>11,.0f}{each.cpu_s_per_million:>9.2f}{each.cpu_share:>8.1%}"
        f"{each.peak_bytes / 1e6:>5.0f} MB{ages:>18}{missed:>18}{each.silent:>8}{each.messages_per_s:>12,.0f}{trouble}"
    )


def _outage_line(each: Outage) -> str:
    first = f"{each.first_s:.1f} s" if each.first_s is not None else "never"
    drained = f"{each.drained_s:.1f} s" if each.drained_s is not None else "nothing"
    return f"{'':2}{each.product:20}{each.due:>12,}{each.read:>10,}{each.lost:>10,}{each.twice:>8,}{first:>13}{drained:>11}"


def _spread(values: Iterable[float]) -> str:
    """Median and, in brackets, least and most."""
    found = sorted(values)
    if not found:
        return "-"
    digits = 0 if found[-1] >= 100 else 2 if found[-1] < 10 else 1
    least, middle, most = (f"{value:,.{digits}f}" for value in (found[0], statistics.median(found), found[-1]))
    return middle if len(found) == 1 else f"{middle} ({least}-{most})"


def _promise(load: Load, product: Product, share: float | None) -> str:
    if share is None:
        return ""
    wanted = WANTED.get((load.name, product.name))
    return f"{share:.2f}" + (f" (promised {wanted:.2f})" if wanted else "")


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.bench.peers", description="Holdfast and its peers, side by side.")
    parser.add_argument("--quick", action="store_true", help="less than three minutes, one run of each, rough figures")
    parser.add_argument("--only", default="", help=f"some of {','.join(PRODUCTS)}")
    parser.add_argument("--loads", default="", help=f"some of: {'; '.join(load.name for load in LOADS)}; {OUTAGE_NAME} (separated by ;)")
    parser.add_argument("--repeat", type=int, default=0, help="how often each product runs under each load")
    parser.add_argument("--json", type=Path, default=OUT / "peers.json", help="where the figures go")
    given = parser.parse_args()
    run = _run(parser, given)
    for what, value in {**machine(), **{product.name: product.version() for product in run.products}}.items():
        say(f"{what:12} {value}")
    began = time.monotonic()
    try:
        asyncio.run(run.everything())
    finally:
        given.json.parent.mkdir(parents=True, exist_ok=True)
        given.json.write_text(json.dumps(run.as_json(), indent=2) + "\n")
        say(f"\n{time.monotonic() - began:.0f} s; written to {given.json}")
    sys.exit(1 if run.failures else 0)


def _run(parser: argparse.ArgumentParser, given: argparse.Namespace) -> Run:
    names = given.only.split(",") if given.only else list(USUAL)
    if unknown := set(names) - set(PRODUCTS):
        parser.error(f"no product called {', '.join(sorted(unknown))}; there are {', '.join(PRODUCTS)}")
    known = [load.name for load in LOADS] + [OUTAGE_NAME]
    wanted = [each.strip() for each in given.loads.split(";")] if given.loads else list(QUICK) if given.quick else known
    if unknown := set(wanted) - set(known):
        parser.error(f"no load called {', '.join(sorted(unknown))}; there are {'; '.join(known)}")
    products = [PRODUCTS[name] for name in names]
    for product in products:
        if told := product.missing():
            parser.error(told)
    loads = [load for load in LOADS if load.name in wanted]
    if given.quick:
        loads = [replace(load, seconds=5.0, warm_s=2.0) for load in loads]
    repeat = given.repeat or (1 if given.quick else 3)
    return Run(
        products, loads, repeat, repeat * (OUTAGE_NAME in wanted), QUICK_OUTAGE_S if given.quick else OUTAGE_S, OUT / "peers" / "run"
    )


if __name__ == "__main__":
    main()
