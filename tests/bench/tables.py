"""Figures as tables: the median of all repetitions, and behind it least and most where there is more than one."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from tests.bench.loads import LINEAR
from tests.bench.repeat import OTHERS, Figure, Figures, Run, Summary, fit

CASE_WIDTH: Final = 32
Show = Callable[[float], str]


@dataclass(frozen=True)
class Column:
    """One figure: what stands above it and how it is written."""

    title: str
    figure: str
    show: Show


def _ms(seconds: float) -> str:
    return f"{seconds * 1e3:.0f}"


def _mb(size: float) -> str:
    return f"{size / 1e6:.0f}"


def _plain(digits: int) -> Show:
    return lambda value: f"{value:,.{digits}f}"


def _percent(digits: int) -> Show:
    return lambda value: f"{value:.{digits}%}"


RATE: Final = Column("values/s", "values_per_s", _plain(0))
COST: Final = Column("CPU s/M", "cpu_s_per_million", _plain(2))
CORE: Final = Column("core", "cpu_share", _percent(1))
PEAK: Final = Column("peak MB", "peak_bytes", _mb)
MISSED: Final = Column("missed", "missed", _plain(0))
DROPPED: Final = Column("dropped", "dropped", _plain(0))
P50: Final = Column("p50 ms", "latency_p50_s", _ms)
P99: Final = Column("p99 ms", "latency_p99_s", _ms)
NOISE: Final = Column("others", OTHERS, _percent(0))
GATEWAY: Final = (
    *(RATE, COST, CORE, PEAK, P50, P99, MISSED),
    Column("late p99 ms", "late_p99_s", _ms),
    Column("delivered", "delivered", _percent(0)),
    *(DROPPED, NOISE),
)
DRAIN: Final = (
    Column("backlog", "backlog_values", _plain(0)),
    Column("back s", "connected_s", _plain(1)),
    Column("all there s", "delivered_s", _plain(1)),
    *(RATE, Column("x live", "live_multiple", _plain(0)), COST, PEAK, P50, P99),
    Column("overtaken", "demoted", _plain(0)),
    *(MISSED, DROPPED, NOISE),
)
COLUMNS: Final[Mapping[str, tuple[Column, ...]]] = {
    **dict.fromkeys(("paced", "full", "unit-ids", "linear"), GATEWAY),
    **dict.fromkeys(("drain", "drain-deep", "drain-narrow"), DRAIN),
    **dict.fromkeys(("bare", "driver"), (RATE, COST, CORE, PEAK)),
    "live": (
        *(RATE, Column("frames/s", "frames_per_s", _plain(0)), CORE, PEAK, P50, P99),
        Column("worst ms", "latency_most_s", _ms),
        *(MISSED, Column("late p99 ms", "late_p99_s", _ms), Column("skipped", "skipped", _plain(0)), Column("gaps", "gaps", _plain(0))),
        *(Column("cut", "cut", _plain(0)), NOISE),
    ),
    "commands": (
        RATE,
        *(Column(f"{way} {name} ms", f"{way}_{name}_s", _ms) for way in ("http", "dcmd") for name in ("p50", "p99", "most")),
        NOISE,
    ),
    "rtu": (
        Column("used", "used", _percent(1)),
        Column("busy", "busy", _percent(1)),
        Column("requests/s", "requests_per_s", _plain(1)),
        RATE,
        Column("early", "early", _plain(0)),
        Column("collisions", "collisions", _plain(0)),
    ),
    "unplugged": (
        Column("alone values/s", "alone_values_per_s", _plain(1)),
        Column("beside values/s", "beside_values_per_s", _plain(1)),
        Column("cycle grows", "growth", _percent(1)),
    ),
}


def table(bench: str, cases: Mapping[str, Mapping[str, Figure]]) -> list[str]:
    """The lines of one bench's table."""
    rows = [[case, *(_cell(figures.get(column.figure), column.show) for column in COLUMNS[bench])] for case, figures in cases.items()]
    return _aligned([[bench, *(column.title for column in COLUMNS[bench])], *rows])


def _cell(figure: Figure | None, show: Show) -> str:
    if figure is None:
        return "-"
    middle, least, most = map(show, (figure.median, figure.least, figure.most))
    return middle if least == most else f"{middle} ({least}..{most})"


def _aligned(rows: Sequence[Sequence[str]]) -> list[str]:
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return [
        "  ".join([row[0].ljust(max(CASE_WIDTH, widths[0])), *(cell.rjust(width) for cell, width in zip(row[1:], widths[1:], strict=True))])
        for row in rows
    ]


def line(run: Run, times: int) -> str:
    """What is said when a repetition ends."""
    shown = "  ".join(f"{column.title} {column.show(run.figures[column.figure])}" for column in _short(run.bench, run.figures))
    noisy = "  NOISY" if run.is_noisy else ""
    return f"{run.repetition}/{times}  {run.bench:12} {run.case:{CASE_WIDTH}} {shown}  load {run.load_average:.1f}{noisy}"


def _short(bench: str, figures: Figures) -> list[Column]:
    return [column for column in COLUMNS[bench] if column.figure in figures and column not in (CORE, MISSED, DROPPED)]


def remarks(summary: Summary) -> list[str]:
    """What follows from several figures together."""
    return [*_linear(summary), *_ratios(summary)]


def _linear(summary: Summary) -> list[str]:
    found = summary.get("linear", {})
    points = [(float(load.devices), found[load.name]["cpu_share"].median) for load in LINEAR if load.name in found]
    if len(points) < len(LINEAR):
        return []
    start, slope, off = fit(points)
    return [f"linear: core = {start:.2%} + {slope:.4%} x devices; the worst point lies {off:.0%} off that line"]


def _ratios(summary: Summary) -> list[str]:
    """How much dearer the gateway is than what was measured beside it under the same load."""
    gateway = {**summary.get("paced", {}), **summary.get("full", {})}
    return [
        f"{case}: a value costs the gateway {gateway[case]['cpu_s_per_million'].median / figures['cpu_s_per_million'].median:.1f} "
        f"times what it costs {bench}"
        for bench in ("bare", "driver")
        for case, figures in summary.get(bench, {}).items()
        if case in gateway
    ]
