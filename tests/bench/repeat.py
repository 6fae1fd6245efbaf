"""Repetitions and what can be said of them. A case is run several times, and never twice in a row: a noisy minute of the
machine then spoils one repetition of several cases, not all of one."""

from __future__ import annotations

import os
import shutil
import statistics
from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

import msgspec

NOISY: Final = 0.1
"""A repetition during which others took more of the machine than this is marked."""
OTHERS: Final = "others_share"

Figures = dict[str, float]
"""Plain numbers by name: seconds, bytes, values, shares of one."""


@dataclass(frozen=True)
class Case:
    """One thing that is measured: ``run`` gets a folder of its own."""

    bench: str
    name: str
    run: Callable[[Path], Awaitable[Figures]]


class Run(msgspec.Struct, frozen=True, kw_only=True):
    """One repetition of a case."""

    bench: str
    case: str
    repetition: int
    began: str
    """UTC."""
    load_average: float
    """Of the minute before."""
    figures: Figures

    @property
    def is_noisy(self) -> bool:
        return self.figures.get(OTHERS, 0.0) > NOISY


class Figure(msgspec.Struct, frozen=True):
    """One figure over all repetitions."""

    median: float
    least: float
    most: float

    @classmethod
    def of(cls, values: Sequence[float]) -> Figure:
        return cls(statistics.median(values), min(values), max(values))


Summary = dict[str, dict[str, dict[str, Figure]]]
"""By bench, case and figure."""


async def repeat(cases: Sequence[Case], times: int, folder: Path, tell: Callable[[Run], None]) -> None:
    """Run every case ``times`` times, in turn; each run is told as it ends. What it leaves on the disk is removed, but for small files."""
    for repetition in range(1, times + 1):
        for at, case in enumerate(cases):
            place = folder / f"{repetition}-{at}-{case.bench}"
            place.mkdir(parents=True)
            began, load = datetime.now(UTC), os.getloadavg()[0]
            figures = await case.run(place)
            shutil.rmtree(place / "journal", ignore_errors=True)
            when = began.strftime("%Y-%m-%d %H:%M:%S")
            tell(Run(bench=case.bench, case=case.name, repetition=repetition, began=when, load_average=load, figures=figures))


def summed_up(runs: Iterable[Run]) -> Summary:
    """Median, least and most of every figure. A figure that some repetition lacks (nothing came, say) is made of the others."""
    found: dict[str, dict[str, dict[str, list[float]]]] = {}
    for run in runs:
        for name, value in run.figures.items():
            found.setdefault(run.bench, {}).setdefault(run.case, {}).setdefault(name, []).append(value)
    return {
        bench: {case: {name: Figure.of(values) for name, values in figures.items()} for case, figures in cases.items()}
        for bench, cases in found.items()
    }


def fit(points: Sequence[tuple[float, float]]) -> tuple[float, float, float]:
    """The straight line through ``points`` by least squares: its start, its slope, and the worst relative distance from it."""
    xs, ys = zip(*points, strict=True)
    mean_x, mean_y = sum(xs) / len(xs), sum(ys) / len(ys)
    slope = sum((x - mean_x) * (y - mean_y) for x, y in points) / sum((x - mean_x) ** 2 for x in xs)
    start = mean_y - slope * mean_x
    return start, slope, max(abs(y - start - slope * x) / y for x, y in points)
