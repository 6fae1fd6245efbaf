"""What history costs a gateway that reads, and what those who ask for it cost the scans.

    python -m tests.bench.history_beside [--devices 100] [--tags 100] [--seconds 20] [--journal DIR] [--callers 4] [--only cost,asked]

``cost``: the gateway's process with and without history, at 1 s and as fast as it goes, API on, no uplink. ``asked``: a plant at
1 s, alone and then with callers who ask without pause over HTTPS (a day's line and buckets, raw pages, an export): how late scans start
and how long answers take. With ``--journal`` the gateway goes on with that journal, such as ``tests.bench.history --keep`` leaves.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import random
import shutil
import ssl
import subprocess
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import httpx

from tests.bench.history import say, size
from tests.bench.loads import FULL_SPEED_S, Load, site
from tests.bench.measure import ROOT, Machine, Spread, cpu_s, peak_bytes, workplace
from tests.bench.whole import LATE, Metrics, gateway, scrape
from tests.peers.fast import FastModbus
from tests.peers.mosquitto import free_port

Figures = dict[str, float]
DAY_NS: Final = 86_400_000_000_000
KINDS: Final = ("line of a day", "buckets of a day", "10 tags, buckets of a day", "raw page", "export of ten minutes")


@dataclass(frozen=True)
class Rig:
    folder: Path
    pid: int
    metrics_port: int
    api_port: int


@asynccontextmanager
async def running(load: Load, folder: Path, *, enabled: bool, journal: Path | None = None) -> AsyncIterator[Rig]:
    """A gateway that reads ``load``, with its API."""
    metrics_port, api_port = free_port(), free_port()
    async with FastModbus(ports=load.ports) as field:
        document = site(load, field.ports, 1, metrics_port, folder) | {"uplinks": [], "api": {"port": api_port}}
        document["history"] = {"enabled": enabled, "max_bytes": 8 * 2**30}
        document["journal"] = {"path": str(journal or folder / "journal"), "max_bytes": 64 * 2**30}
        path = folder / "site.json"
        path.write_text(json.dumps(document))
        async with gateway(path, folder) as pid:
            async with asyncio.timeout(120):
                while (await _metrics(metrics_port)).get("holdfast_link_in_total", 0) < load.devices * load.tags:  # noqa: ASYNC110 - it tells nobody
                    await asyncio.sleep(0.2)
            yield Rig(path, pid, metrics_port, api_port)


async def _metrics(port: int) -> Metrics:
    try:
        return await asyncio.to_thread(scrape, port)
    except OSError:
        return {}


async def cost(load: Load, folder: Path, seconds: float, *, enabled: bool) -> Figures:
    """CPU of the gateway for a million values, and what it writes."""
    async with running(load, folder, enabled=enabled) as rig:
        await asyncio.sleep(5)
        machine, cpu, before, began = Machine.now(), cpu_s(rig.pid), await _metrics(rig.metrics_port), time.monotonic()
        await asyncio.sleep(seconds)
        cpu, after = cpu_s(rig.pid) - cpu, await _metrics(rig.metrics_port)
        values = after["holdfast_link_in_total"] - before["holdfast_link_in_total"]
        return {
            "values/s": values / (time.monotonic() - began),
            "CPU s per million": cpu / values * 1e6,
            "peak MB": peak_bytes(rig.pid) / 1e6,
            "others": Machine.now().others_since(machine),
        }


async def asked(load: Load, folder: Path, seconds: float, journal: Path | None, callers: int) -> Figures:
    """How late scans start without anybody who asks, and beside callers; how long answers take."""
    async with running(load, folder, enabled=True, journal=journal) as rig:
        token = await _output(
            sys.executable, "-m", "gateway", "token", "issue", str(rig.folder), f"bench-{time.time_ns()}", "--role", "viewer"
        )
        state = (journal or folder / "journal") / "state"
        await asyncio.sleep(5)
        figures = {f"alone, {name}": value for name, value in (await _lateness(rig, seconds)).items()}
        words = (str(rig.api_port), token.strip(), str(state / "authority" / "ca.pem"), str(seconds), str(callers))
        client = asyncio.create_task(
            _output(sys.executable, "-m", "tests.bench.history_beside", "--ask", *words, str(load.devices), str(load.tags))
        )
        beside = await _lateness(rig, seconds)
        figures |= {f"beside, {name}": value for name, value in beside.items()}
        answers: Figures = json.loads(await client)
        return figures | answers | {"peak MB": peak_bytes(rig.pid) / 1e6}


async def _lateness(rig: Rig, seconds: float) -> Figures:
    machine, cpu, before = Machine.now(), cpu_s(rig.pid), await _metrics(rig.metrics_port)
    await asyncio.sleep(seconds)
    cpu, after = cpu_s(rig.pid) - cpu, await _metrics(rig.metrics_port)
    grown = {name: value - before.get(name, 0.0) for name, value in after.items()}
    late = sorted((float(name.split("{")[1][:-1]), count) for name, count in grown.items() if name.startswith(f"{LATE}_bucket{{"))
    scans = grown[f"{LATE}_count"]
    bounds = {share: next(bound for bound, count in late if count >= share * scans) for share in (0.5, 0.99, 0.999, 1.0)}
    return {
        "scans": scans,
        **{f"late p{100 * share:g} s": bound for share, bound in bounds.items()},
        "later than 50 ms": scans - next(count for bound, count in late if bound == 0.05),
        "missed": grown.get("holdfast_scans_missed_total", 0.0),
        "of a core": cpu / seconds,
        "others": Machine.now().others_since(machine),
    }


async def _output(*command: str) -> str:
    process = await asyncio.create_subprocess_exec(*command, stdout=subprocess.PIPE, cwd=ROOT)
    said, _ = await process.communicate()
    if process.returncode:
        raise RuntimeError(f"{command[2]} failed with {process.returncode}")
    return said.decode()


# ------------------------------------------------------------------------------------------------------------- who asks


async def ask(port: int, token: str, ca: str, seconds: float, callers: int, devices: int, tags: int) -> Figures:
    """Ask without pause from ``callers`` connections; how long each kind of question took."""
    took: dict[str, list[float]] = {kind: [] for kind in KINDS}
    sizes: list[int] = []
    context = ssl.create_default_context(cafile=ca)
    end = time.monotonic() + seconds
    headers = {"Authorization": f"Bearer {token}"}

    async def call(number: int) -> None:
        dice = random.Random(number)
        async with httpx.AsyncClient(base_url=f"https://localhost:{port}", verify=context, headers=headers, timeout=60) as client:
            while time.monotonic() < end:
                kind = dice.choice(KINDS)
                device = f"/api/v1/devices/device-{dice.randrange(devices)}/history"
                path, params = _question(kind, device, [f"value/{dice.randrange(tags)}" for _ in range(10)])
                began = time.perf_counter()
                answer = await client.get(path, params=params)
                took[kind].append(time.perf_counter() - began)
                sizes.append(len(answer.content))
                if answer.status_code != 200:
                    raise RuntimeError(f"{answer.status_code}: {answer.text[:200]}")

    await asyncio.gather(*(call(number) for number in range(callers)))
    figures: Figures = {"answers": float(len(sizes)), "MB": sum(sizes) / 1e6}
    for kind, times in took.items():
        if (spread := Spread.of(times)) is not None:
            figures |= {f"{kind}, p50 s": spread.p50, f"{kind}, p99 s": spread.p99}
    return figures


def _question(kind: str, device: str, tags: list[str]) -> tuple[str, dict[str, Any]]:  # Any: what httpx takes
    now = time.time_ns()
    day = {"from": str(now - DAY_NS), "to": str(now)}
    questions: dict[str, tuple[str, dict[str, Any]]] = {  # Any: as above
        "line of a day": (f"{device}/line", {"tag": tags[0], "points": 300, **day}),
        "buckets of a day": (f"{device}/buckets", {"tag": tags[0], "bucket_s": 60, **day}),
        "10 tags, buckets of a day": (f"{device}/buckets", {"tag": tags, "bucket_s": 300, **day}),
        "raw page": (device, {"tag": tags[0], **day}),
        "export of ten minutes": (f"{device}/export", {"tag": tags[0], "from": str(now - 600_000_000_000), "to": str(now)}),
    }
    return questions[kind]


async def measure(told: argparse.Namespace, folder: Path) -> None:
    paced = Load("paced", told.devices, 1.0, tags=told.tags)
    if "cost" in told.only:
        for load in (paced, Load("full", told.devices, FULL_SPEED_S, tags=told.tags)):
            for enabled in (False, True):
                place = folder / f"{load.name}-{enabled}"
                place.mkdir()
                figures = await cost(load, place, told.seconds, enabled=enabled)
                say({f"{load.name}, history {'on' if enabled else 'off'}: {name}": value for name, value in figures.items()})
                history = place / "journal" / "history"
                say({"history bytes": size(history) if history.exists() else 0})
                shutil.rmtree(place)
    if "asked" in told.only:
        place = folder / "asked"
        place.mkdir()
        say(await asked(paced, place, told.seconds, told.journal, told.callers))


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m tests.bench.history_beside", description="What history costs, and those who ask for it."
    )
    parser.add_argument("--devices", type=int, default=100)
    parser.add_argument("--tags", type=int, default=100)
    parser.add_argument("--seconds", type=float, default=20.0)
    parser.add_argument("--journal", type=Path)
    parser.add_argument("--callers", type=int, default=4)
    parser.add_argument("--only", default="cost,asked")
    parser.add_argument("--ask", nargs=7, metavar="WORD", help=argparse.SUPPRESS)
    told = parser.parse_args()
    if told.ask:
        port, token, ca, seconds, callers, devices, tags = told.ask
        say(asyncio.run(ask(int(port), token, ca, float(seconds), int(callers), int(devices), int(tags))))
        return
    folder = workplace(ROOT / "build" / "bench", "history-beside-")
    try:
        asyncio.run(measure(told, folder))
    finally:
        shutil.rmtree(folder)


if __name__ == "__main__":
    main()
