"""The benches count what they say they count. How fast anything is, is asserted nowhere."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import msgspec
import pytest

from gateway.config.model import JournalOptions
from gateway.journal import Journal, Lane, Record
from protocols.clock import SystemClock
from tests.bench.__main__ import Report
from tests.bench.cases import BENCHES, flat
from tests.bench.drain import drain_deep, write
from tests.bench.loads import Load
from tests.bench.measure import Machine
from tests.bench.repeat import Case, Figure, Figures, Run, fit, repeat, summed_up
from tests.bench.stacks import ThreadCpu, Work, by_area, by_function, parse, shares
from tests.bench.tables import COLUMNS, line, remarks, table
from tests.bench.whole import measure

TINY = Load("2 x 10, 100 ms", 2, 0.1, tags=10, seconds=1.0, warm_s=0.2)
BURNT_S = 0.2
BURN = f"import sys, time\nwhile time.process_time() < {BURNT_S}: pass\nprint(flush=True); sys.stdin.read()"
"""A program that takes so much CPU, says so, and stays."""
FOLDED = """\
thread (7): MainThread;run (gateway/cli.py:9);Template.encode (protocols/sparkplug/template.py:88);_all (numpy/_core/_methods.py:70) 30
thread (7): MainThread;run (gateway/cli.py:9);NetworkLine._send (protocols/modbus/line.py:406);write (libc.so.6) 50
thread (7): MainThread;run (gateway/cli.py:9);ReportByException.sift (gateway/report.py:48);take (numpy/x.so);0x7f01 (libc.so.6) 10
thread (8): journal_0;_worker (concurrent/futures/thread.py:83);0x7fa0 (libc.so.6);0x7fb0 (libc.so.6) 900
thread (8): journal_0;_worker (concurrent/futures/thread.py:83);Segment.commit (gateway/journal/segment.py:5);pwrite64 (libc.so.6) 3
thread (8): journal_0;_worker (concurrent/futures/thread.py:83);Segment.commit (gateway/journal/segment.py:5);0x7fb0 (libc.so.6) 70
"""


def run_of(case: str, repetition: int, **figures: float) -> Run:
    return Run(bench="paced", case=case, repetition=repetition, began="", load_average=0.0, figures=figures)


def test_a_summary_has_the_median_and_the_spread_of_each_figure() -> None:
    """A figure that one repetition lacks is made of the others."""
    runs = [run_of("a", 1, cost=3.0, p99=0.5), run_of("a", 2, cost=1.0), run_of("a", 3, cost=9.0, p99=0.7), run_of("b", 1, cost=4.0)]
    found = summed_up(runs)["paced"]
    assert found["a"]["cost"] == Figure(3.0, 1.0, 9.0)
    assert found["a"]["p99"] == Figure(0.6, 0.5, 0.7)
    assert found["b"] == {"cost": Figure(4.0, 4.0, 4.0)}


def test_the_line_through_points_is_the_one_of_least_squares() -> None:
    start, slope, off = fit([(10, 12.0), (100, 102.0), (500, 502.0)])
    assert [start, slope, off] == pytest.approx([2.0, 1.0, 0.0])
    assert fit([(0, 1.0), (1, 2.0), (2, 1.0)])[2] == pytest.approx(1 / 3)


async def test_repetitions_come_in_turn_and_in_folders_of_their_own(tmp_path: Path) -> None:
    places: list[Path] = []

    async def one(folder: Path) -> Figures:
        (folder / "journal").mkdir()
        places.append(folder)
        return {"others_share": 0.2}

    runs: list[Run] = []
    await repeat([Case("paced", "a", one), Case("paced", "b", one)], 2, tmp_path, runs.append)
    assert [(run.case, run.repetition) for run in runs] == [("a", 1), ("b", 1), ("a", 2), ("b", 2)]
    assert len(set(places)) == 4
    assert not any((place / "journal").exists() for place in places)
    assert all(run.is_noisy for run in runs)


def test_cpu_time_goes_to_the_area_that_asked_for_it_as_far_as_the_kernel_has_counted_any() -> None:
    """What NumPy does for the encoder is the encoder's; a thread that waits takes nothing; the sums are the kernel's."""
    found = shares(parse(FOLDED), {7: ThreadCpu("python", 8.0, 1.0), 8: ThreadCpu("journal", 0.0, 0.25)})
    areas = by_area(found)
    assert {area: sum(works.values()) for area, works in areas.items()} == {
        "Sparkplug: encode": 6.0,
        "report by exception, latest": 2.0,
        "Modbus: ask, frame, match": 1.0,
        "journal: SQLite": 0.25,
    }
    assert areas["report by exception, latest"][Work.NUMPY] == 2.0
    assert areas["journal: SQLite"][Work.KERNEL] == 0.25
    assert [frame.function for frame, _, _ in by_function(found)][:2] == ["Template.encode", "ReportByException.sift"]
    with pytest.raises(ValueError, match="not a stack"):
        parse("what py-spy never writes 3")


def test_what_others_took_is_what_was_busy_without_the_bench_and_its_children() -> None:
    """A child counts as long as it lives."""
    cores = os.cpu_count() or 1
    assert Machine(0.0, 100.0, 40.0).others_since(Machine(-10.0, 90.0, 35.0)) == pytest.approx(5.0 / 10.0 / cores)
    before = Machine.now()
    with subprocess.Popen([sys.executable, "-c", BURN], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as child:
        assert child.stdout is not None
        child.stdout.readline()
        assert Machine.now().own_s - before.own_s >= BURNT_S


def test_every_bench_has_cases_and_columns() -> None:
    for bench in BENCHES:
        for quick in (True, False):
            cases = bench.cases(quick)
            assert cases
            assert len({case.name for case in cases}) == len(cases)
            assert all(case.bench == bench.name for case in cases)
    assert {bench.name for bench in BENCHES} == set(COLUMNS)


async def test_a_second_of_a_small_load_gives_every_figure_and_the_file_gives_them_back(tmp_path: Path) -> None:
    """The real gateway, field and broker: as many values as were asked for, none dropped, each stamp's age above nothing."""
    result = await measure(TINY, tmp_path)
    figures = flat(msgspec.to_builtins(result))
    assert {column.figure for column in COLUMNS["paced"]} <= set(figures)
    assert result.dropped == 0
    assert 0 < result.values_per_s <= 1.5 * (TINY.values_per_s + 10)
    assert result.latency is not None
    assert 0 < result.latency.p50 <= result.latency.p99
    run = run_of(TINY.name, 1, **figures)
    report = Report(machine={}, quick=True, runs=[run], summary=summed_up([run]))
    assert msgspec.json.decode(msgspec.json.encode(report), type=Report) == report
    assert table("paced", report.summary["paced"])[1].startswith(TINY.name)
    assert TINY.name in line(run, 1)
    assert remarks(report.summary) == []


async def test_a_backlog_is_as_deep_as_it_is_said_to_be_and_is_delivered(tmp_path: Path) -> None:
    """Each record written beforehand, and those of before the broker came, go out as history."""
    load = Load("2 x 10, 1 s", 2, 1.0, tags=10)
    drained = await drain_deep(load, tmp_path, hours=0.05)
    assert 360 <= drained.backlog_records < 360 + 60 * 12
    assert drained.backlog_values >= 3600
    assert drained.dropped == 0
    assert 0 <= drained.connected_s <= drained.delivered_s
    assert drained.latency is not None


async def test_a_journal_that_is_written_beforehand_ends_now(tmp_path: Path) -> None:
    """Its stamps are a scan apart and the last one is of a moment ago, so that it is history and not the future."""
    load = Load("2 x 10, 60 s", 2, 60.0, tags=10)
    await write(load, tmp_path / "journal", hours=1.0)
    clock = SystemClock()
    journal = await Journal.open(JournalOptions(path=str(tmp_path / "journal")), clock=clock)
    try:
        entries = await journal.read(Lane.TELEMETRY, 1)
    finally:
        await journal.close()
    stamps = [entry.written_ns for entry in entries if isinstance(entry, Record)]
    assert len(stamps) == 120
    assert stamps[-1] - stamps[0] == pytest.approx(59 * 60e9, rel=1e-3)
    assert 0 < clock.time_ns() - stamps[-1] < 600e9
