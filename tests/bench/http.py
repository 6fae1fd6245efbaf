"""100 HTTP devices once a second, and webhooks as fast as one sender posts: CPU of one core, memory, lateness, of the driver's process.

``python -m tests.bench.http [DEVICES] [SECONDS]``. Server and sender are node, in processes of their own; their share of the work is none
of ours. Devices are connections of their own (as devices with addresses of their own are), or all behind one host.
"""

from __future__ import annotations

import asyncio
import json
import os
import resource
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import uvloop

from protocols.clock import SystemClock
from protocols.http.config import Device, Http, Request, Signed, Tag, Webhook, WebhookDevice, WebhookTag
from protocols.http.driver import HTTP
from protocols.http.webhook import WEBHOOK
from protocols.model import LATENESS_BUCKETS_S, Batch, Kind, ScanStats
from protocols.secret import FromFile
from tests.bench.measure import quantile_bound
from tests.peers.http_sender import HttpSender
from tests.peers.http_server import HttpServer
from tests.peers.mosquitto import free_port

VALUES: Final = 10
WARM_S: Final = 3.0
SENDERS: Final = 8
SECRET: Final = "bench-secret-0123456789abcdef"
Figures = dict[str, Any]  # Any: numbers and words, for JSON


def devices(count: int) -> tuple[Device, ...]:
    tags = tuple(Tag(name=f"v{at}", kind=Kind.FLOAT64, at=f"$.v{at}") for at in range(VALUES))
    return tuple(
        Device(name=f"d{at}", scan_s=1.0, requests=(Request(path="/doc", query={"d": str(at)}, tags=tags),)) for at in range(count)
    )


class Counted:
    """Values that came since the warm-up."""

    def __init__(self) -> None:
        self.values = 0

    async def read(self, options: Http, stats: list[ScanStats]) -> None:
        async with HTTP.open(options, clock=SystemClock()) as session:
            stats.append(session.stats)
            async for batch in session.batches():
                self.take(batch)

    def take(self, batch: Batch) -> None:
        self.values += int((batch.quality == 0).sum())


async def polled(name: str, connections: Sequence[Http], seconds: float) -> Figures:
    """What reading ``connections`` for ``seconds`` costs."""
    counted, stats = Counted(), list[ScanStats]()
    reading = [asyncio.ensure_future(counted.read(each, stats)) for each in connections]
    clock = SystemClock()
    await clock.sleep_until(clock.monotonic() + WARM_S)
    began, cpu, values = clock.monotonic(), _cpu_s(), counted.values
    late_before = _late(stats)
    await clock.sleep_until(began + seconds)
    spent_s, cpu_s, came = clock.monotonic() - began, _cpu_s() - cpu, counted.values - values
    late = [after - before for after, before in zip(_late(stats), late_before, strict=True)]
    for each in reading:
        each.cancel()
    await asyncio.gather(*reading, return_exceptions=True)
    return {"what": name, **_figures(spent_s, cpu_s, came), "late p99 below s": _p99(late), "missed": sum(one.missed for one in stats)}


async def posted(seconds: float) -> Figures:
    """How many messages of 10 values one receiver takes from node, posting over 8 connections."""
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "secret").write_text(SECRET)
        tags = tuple(WebhookTag(name=f"v{at}", kind=Kind.FLOAT64, at=f"$.v{at}") for at in range(VALUES))
        hooks = tuple(WebhookDevice(name=f"d{at}", path=f"/d{at}", rate_per_s=1000, burst=10000, tags=tags) for at in range(SENDERS))
        auth = Signed(
            secret=FromFile(path=f"{folder}/secret"), style="github"
        )  # plain signs whole seconds: the same body would be a repeat
        options = Webhook(name="h", listen_port=free_port(), auth=auth, rate_per_s=10000, burst=10000, devices=hooks)
        counted, clock = Counted(), SystemClock()
        async with WEBHOOK.open(options, clock=clock) as session, HttpSender() as sender:

            async def read() -> None:
                async for batch in session.batches():
                    counted.take(batch)

            reading = asyncio.ensure_future(read())
            await sender.document("doc", _document())
            for at in range(SENDERS):
                await sender.pace(f"http://127.0.0.1:{options.listen_port}/d{at}", "doc", style="github", secret=SECRET, ms=1)
            await clock.sleep_until(clock.monotonic() + WARM_S)
            began, cpu, values = clock.monotonic(), _cpu_s(), counted.values
            await clock.sleep_until(began + seconds)
            found = _figures(clock.monotonic() - began, _cpu_s() - cpu, counted.values - values)
            reading.cancel()
            await asyncio.gather(reading, return_exceptions=True)
    return {
        "what": f"webhook, {SENDERS} senders",
        **found,
        "messages/s": round(found["values/s"] / VALUES),
        "turned away": session.stats.errors,
    }


def _figures(spent_s: float, cpu_s: float, values: int) -> Figures:
    return {
        "values/s": round(values / spent_s),
        "CPU % of a core": round(100 * cpu_s / spent_s, 1),
        "ms of CPU for a message": round(1e3 * cpu_s / max(values / VALUES, 1), 3),
        "resident MB": round(int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 1e6, 1),
    }


def _late(stats: Sequence[ScanStats]) -> list[int]:
    return [sum(column) for column in zip(*(one.late_s for one in stats), strict=True)]


def _p99(late: Sequence[int]) -> float:
    total = sum(late)
    sums = [sum(late[: at + 1]) for at in range(len(late))]
    return quantile_bound([*zip((*LATENESS_BUCKETS_S, float("inf")), (float(one) for one in sums), strict=True)], 0.99) if total else 0.0


def _cpu_s() -> float:
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


def _document() -> str:
    return json.dumps({f"v{at}": at + 0.5 for at in range(VALUES)})


async def measure(count: int, seconds: float) -> None:
    async with HttpServer() as server:
        await server.put("/doc", _document())
        url = f"http://127.0.0.1:{server.port}"
        apart = [Http(name=f"c{at}", url=url, allow_local=True, devices=(device,)) for at, device in enumerate(devices(count))]
        print(json.dumps(await polled(f"{count} devices, a connection each", apart, seconds)))  # noqa: T201 # a program's result
        together = [Http(name="host", url=url, allow_local=True, devices=devices(count))]
        print(json.dumps(await polled(f"{count} devices behind one host", together, seconds)))  # noqa: T201 # a program's result
    print(json.dumps(await posted(seconds)))  # noqa: T201 # a program's result


def main(count: int = 100, seconds: float = 20.0) -> None:
    uvloop.run(measure(count, seconds))


if __name__ == "__main__":
    given = sys.argv[1:]
    main(*(kind(word) for kind, word in zip((int, float), given, strict=False)))
