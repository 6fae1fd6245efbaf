"""``make profile``: where the gateway's CPU time goes at full speed.

The kernel's account of each thread (user and kernel time) is read while the gateway runs undisturbed; then py-spy samples
its stacks, native ones included, which stops it for a moment each time and makes it slower, but not different. The table
divides the account by the samples (``stacks.py``); the flame graph is sampled after that, for the eye.

    python -m tests.bench.profile [--seconds 20] [--scan-s 0.01] [--devices 100] [--tags 100]
"""

from __future__ import annotations

import argparse
import asyncio
import json
import shutil
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from tests.bench.loads import FULL_SPEED_S, Load
from tests.bench.measure import ROOT, machine, thread_cpu, workplace
from tests.bench.stacks import Frame, Share, ThreadCpu, Work, by_area, by_function, parse, shares
from tests.bench.whole import Moment, Rig, running

OUT: Final = ROOT / "build" / "bench"
RATE: Final = 150
"""Samples a second."""
UNDISTURBED_S: Final = 10.0
FUNCTIONS: Final = 30


async def profile(load: Load, seconds: float, folder: Path) -> None:
    async with running(load, folder) as rig:
        await asyncio.sleep(load.warm_s)
        before, began = thread_cpu(rig.pid), await rig.look()
        await asyncio.sleep(UNDISTURBED_S)
        threads, ended = _grown(before, thread_cpu(rig.pid)), await rig.look()
        await _record(rig, "raw", seconds, OUT / "stacks.txt")
        await _record(rig, "flamegraph", seconds / 2, OUT / "profile.svg")
    found = shares(parse((OUT / "stacks.txt").read_text()), threads)
    values = ended.metrics["holdfast_link_in_total"] - began.metrics["holdfast_link_in_total"]
    _say_whole(threads, began, ended, values)
    _say_areas(found, values)
    _say_functions(found, values)
    _write(found, OUT / "profile.json")
    say(f"\nflame graph: {OUT / 'profile.svg'}\nfigures:     {OUT / 'profile.json'}")


def _grown(before: Mapping[int, ThreadCpu], after: Mapping[int, ThreadCpu]) -> dict[int, ThreadCpu]:
    none = ThreadCpu("", 0.0, 0.0)
    return {
        number: ThreadCpu(cpu.name, cpu.user_s - before.get(number, none).user_s, cpu.kernel_s - before.get(number, none).kernel_s)
        for number, cpu in after.items()
    }


async def _record(rig: Rig, form: str, seconds: float, to: Path) -> None:
    """Raises RuntimeError where py-spy cannot: without root, the kernel may not let one process look into another."""
    program = Path(sys.executable).parent / "py-spy"
    options = ("--native", "--threads", "--rate", str(RATE), "--duration", str(round(seconds)), "--format", form, "--output", str(to))
    pipe = asyncio.subprocess.PIPE
    process = await asyncio.create_subprocess_exec(
        program, "record", *options, "--pid", str(rig.pid), stdout=pipe, stderr=asyncio.subprocess.STDOUT
    )
    said, _ = await process.communicate()
    if process.returncode:
        raise RuntimeError(f"py-spy failed (is kernel.yama.ptrace_scope in the way? run it as root):\n{said.decode(errors='replace')}")


# ------------------------------------------------------------------------------------------------------------- tables


def say(line: str = "") -> None:
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


def _say_whole(threads: Mapping[int, ThreadCpu], began: Moment, ended: Moment, values: float) -> None:
    elapsed = ended.at - began.at
    total = ended.cpu_s - began.cpu_s
    say(f"\n{values / elapsed:,.0f} values/s, {total / values * 1e6:.2f} CPU s per million, {total / elapsed:.1%} of a core")
    say(f"others took {ended.machine.others_since(began.machine):.0%} of the machine")
    for cpu in sorted(threads.values(), key=lambda cpu: -cpu.user_s - cpu.kernel_s):
        if cpu.user_s + cpu.kernel_s > total / 1000:
            say(f"  {cpu.name:20} user {cpu.user_s / elapsed:6.1%}   kernel {cpu.kernel_s / elapsed:6.1%}")


def _say_areas(found: list[Share], values: float) -> None:
    areas = by_area(found)
    whole = sum(share.seconds for share in found)
    say(f"\n{'area':30} {'share':>7} {'us/1000 values':>15}   " + " ".join(f"{work.value:>8}" for work in Work))
    for area, works in areas.items():
        total = sum(works.values())
        kinds = " ".join(f"{works[work] / whole:>8.1%}" for work in Work)
        say(f"{area:30} {total / whole:>7.1%} {total / values * 1e9:>15.0f}   {kinds}")
    sums = [sum(works[work] for works in areas.values()) / whole for work in Work]
    say(f"{'':30} {1:>7.1%} {whole / values * 1e9:>15.0f}   " + " ".join(f"{part:>8.1%}" for part in sums))


def _say_functions(found: list[Share], values: float) -> None:
    whole = sum(share.seconds for share in found)
    say(f"\n{'function (with the C code that it calls)':72} {'user':>7} {'kernel':>7} {'us/1000 values':>15}")
    for frame, user, kernel in by_function(found)[:FUNCTIONS]:
        say(f"{_name(frame):72} {user / whole:>7.1%} {kernel / whole:>7.1%} {(user + kernel) / values * 1e9:>15.0f}")


def _name(frame: Frame) -> str:
    return f"{frame.function}  {frame.file}"[:72]


def _write(found: list[Share], to: Path) -> None:
    whole = sum(share.seconds for share in found)
    figures = {
        "machine": machine(),
        "areas": {area: {work.value: seconds / whole for work, seconds in works.items()} for area, works in by_area(found).items()},
        "functions": [
            {"function": frame.function, "file": frame.file, "user": user / whole, "kernel": kernel / whole}
            for frame, user, kernel in by_function(found)
        ],
    }
    to.write_text(json.dumps(figures, indent=2) + "\n")


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.bench.profile", description="Where the gateway's CPU time goes.")
    parser.add_argument("--seconds", type=float, default=20.0, help="how long stacks are sampled")
    parser.add_argument("--devices", type=int, default=100)
    parser.add_argument("--tags", type=int, default=100)
    parser.add_argument("--scan-s", type=float, default=FULL_SPEED_S, help="period; the default is full speed")
    given = parser.parse_args()
    folder = workplace(OUT, "profile-")
    load = Load(f"{given.devices} x {given.tags}, {given.scan_s:g} s", given.devices, given.scan_s, tags=given.tags)
    asyncio.run(profile(load, given.seconds, folder))
    shutil.rmtree(folder)  # after a failure it stays: the gateway's log lies there


if __name__ == "__main__":
    main()
