"""``make bench``: what the gateway costs on this machine, now.

Every figure is the gateway process alone (or the bare loop's, or the driver's); field and broker run beside it and are not
counted. Each case is repeated, in turn with the others; the tables show medians, and the spread over the repetitions.
Nothing here passes or fails. Figures of all repetitions go to a JSON file with machine, date and versions.

    python -m tests.bench [--quick] [--only NAME,NAME] [--repetitions N] [--json FILE]
"""

from __future__ import annotations

import argparse
import asyncio
import shutil
import sys
from pathlib import Path
from typing import Final

import msgspec

from tests.bench.cases import BENCHES
from tests.bench.measure import ROOT, machine, workplace
from tests.bench.repeat import NOISY, Case, Run, Summary, repeat, summed_up
from tests.bench.tables import line, remarks, table

OUT: Final = ROOT / "build" / "bench"
REPETITIONS: Final = 3


class Report(msgspec.Struct, kw_only=True):
    """All that one call measured: the JSON file."""

    machine: dict[str, str]
    quick: bool
    runs: list[Run]
    summary: Summary
    """Median, least and most over the repetitions, by bench, case and figure."""


def say(text: str = "") -> None:
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


async def measure(cases: list[Case], times: int, folder: Path, report: Report) -> None:
    """Run everything; ``report`` grows with each run, so that what was measured is not lost with what fails."""

    def tell(run: Run) -> None:
        say(line(run, times))
        report.runs.append(run)
        report.summary = summed_up(report.runs)

    await repeat(cases, times, folder, tell)


def show(report: Report) -> None:
    for bench, cases in report.summary.items():
        say("\n" + "\n".join(table(bench, cases)))
    for remark in remarks(report.summary):
        say(f"\n{remark}")
    noisy = [f"{run.repetition} of {run.case}" for run in report.runs if run.is_noisy]
    if noisy:
        say(f"\nothers took more than {NOISY:.0%} of the machine, so believe these less: {'; '.join(noisy)}")


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m tests.bench",
        description="Speed, measured: the gateway process alone.",
        epilog="Benches: " + "; ".join(f"{bench.name}{'*' * bench.usual} ({bench.meaning})" for bench in BENCHES) + ". * is usual.",
    )
    parser.add_argument("--quick", action="store_true", help="once, a few seconds each: rough figures in little more than a minute")
    parser.add_argument("--only", default="", metavar="NAME,NAME", help="these benches and no others")
    parser.add_argument("--repetitions", type=int, help=f"how often each case is run ({REPETITIONS}, with --quick 1)")
    parser.add_argument("--json", type=Path, default=OUT / "latest.json", help="where the figures go")
    given = parser.parse_args()
    names = given.only.split(",") if given.only else [bench.name for bench in BENCHES if bench.usual]
    if unknown := set(names) - {bench.name for bench in BENCHES}:
        parser.error(f"no bench called {', '.join(sorted(unknown))}; there are {', '.join(bench.name for bench in BENCHES)}")
    cases = [case for bench in BENCHES if bench.name in names for case in bench.cases(given.quick)]
    folder = workplace(OUT, "run-")
    report = Report(machine=machine(), quick=given.quick, runs=[], summary={})
    for what, value in report.machine.items():
        say(f"{what:12} {value}")
    say()
    try:
        asyncio.run(measure(cases, given.repetitions or (1 if given.quick else REPETITIONS), folder, report))
        shutil.rmtree(folder)  # after a failure it stays: the gateway's logs lie there
    finally:
        show(report)
        given.json.parent.mkdir(parents=True, exist_ok=True)
        given.json.write_bytes(msgspec.json.format(msgspec.json.encode(report), indent=2) + b"\n")
        say(f"\nwritten to {given.json}")


if __name__ == "__main__":
    main()
