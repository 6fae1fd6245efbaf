"""Commands while the gateway scans: from the request to the value read back, over HTTP and as DCMD.

The gateway runs as a process of its own under the usual load; beside it a device on libmodbus, with 100 tags that are scanned as often
as the others, is written to. Times are those of whoever asks: the whole HTTPS request with ``wait_s``, or from the publish to the
outcome on the response topic. Every command has to end as verified, else the run fails.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
import ssl
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Final

import aiomqtt
import httpx

from protocols.model import Kind
from protocols.sparkplug import metric
from protocols.sparkplug.template import assemble
from tests.bench import whole
from tests.bench.broker import broker
from tests.bench.loads import GATEWAY, GROUP, USUAL, Load, site
from tests.bench.measure import Machine, Spread
from tests.bench.repeat import Figures
from tests.peers.fast import FastModbus
from tests.peers.libmodbus import LibmodbusServer
from tests.peers.mosquitto import free_port

COUNT: Final = 500
PAUSE_S: Final = 0.02
OUTCOMES: Final = f"holdfast/{GROUP}/{GATEWAY}/commands/outcomes"
DCMD: Final = f"spBv1.0/{GROUP}/DCMD/{GATEWAY}/written"
DEADLINE_S: Final = 60.0


async def measure(load: Load, count: int, folder: Path) -> Figures:
    """The spread of ``count`` commands each way, in seconds, and what was scanned meanwhile."""
    async with _rig(load, folder) as (api, broker_port, metrics_port):
        await asyncio.sleep(load.warm_s)
        began, before = time.monotonic(), await asyncio.to_thread(whole.scrape, metrics_port)
        machine = Machine.now()
        over_http = await _timed(count, api)
        async with _asking(broker_port) as ask:
            as_dcmd = await _timed(count, ask)
        elapsed, after = time.monotonic() - began, await asyncio.to_thread(whole.scrape, metrics_port)
        others = Machine.now().others_since(machine)
    values = after["holdfast_link_in_total"] - before["holdfast_link_in_total"]
    return {
        **{f"http_{name}_s": value for name, value in _spread(over_http).items()},
        **{f"dcmd_{name}_s": value for name, value in _spread(as_dcmd).items()},
        "values_per_s": values / elapsed,
        "others_share": others,
    }


def _spread(seconds: list[float]) -> dict[str, float]:
    spread = Spread.of(seconds)
    assert spread is not None, "there were commands"
    return {"p50": spread.p50, "p99": spread.p99, "most": spread.most}


async def _timed(count: int, ask: Callable[[int], Awaitable[None]]) -> list[float]:
    """How long each of ``count`` commands took, one after the other."""
    times: list[float] = []
    for number in range(count):
        began = time.perf_counter()
        await ask(number % 1000)
        times.append(time.perf_counter() - began)
        await asyncio.sleep(PAUSE_S)
    return times


@asynccontextmanager
async def _rig(load: Load, folder: Path) -> AsyncIterator[tuple[Callable[[int], Awaitable[None]], int, int]]:
    """How a command is asked for over HTTP, the broker's port, and that of the metrics; once everything is read."""
    metrics_port, api_port = free_port(), free_port()
    async with FastModbus(ports=load.ports) as field, LibmodbusServer(units=[1]) as written, broker(folder) as broker_port:
        told = site(load, field.ports, broker_port, metrics_port, folder)
        told["connections"].append(_written(written.port, load))
        told["uplinks"][0]["commands"] = True
        told |= {"api": {"port": api_port}, "commands": {"clock": "set"}}
        document = folder / "site.yaml"
        document.write_text(json.dumps(told))
        async with whole.gateway(document, folder):
            await _reads(metrics_port, load)
            token = await _token(document)
            authority = next((folder / "journal").rglob("authority/ca.pem"))
            async with _api(api_port, token, authority) as api:
                yield api, broker_port, metrics_port


def _written(port: int, load: Load) -> dict[str, Any]:  # Any: JSON
    tags: list[dict[str, Any]] = [{"name": f"value/{at}", "at": f"holding:{2 * at}", "kind": "float32"} for at in range(load.tags)]
    tags.append({"name": "setpoint", "at": "holding:1000", "kind": "uint16", "writable": True})
    device = {"name": "written", "unit_id": 1, "scan_s": load.scan_s, "tags": tags}
    return {"name": "written-line", "type": "modbus-tcp", "host": "127.0.0.1", "port": port, "devices": [device]}


async def _reads(metrics_port: int, load: Load) -> None:
    async with asyncio.timeout(DEADLINE_S):
        while True:
            with contextlib.suppress(OSError):
                metrics = await asyncio.to_thread(whole.scrape, metrics_port)
                if metrics.get("holdfast_link_in_total", 0) >= 2 * load.devices * load.tags:
                    return
            await asyncio.sleep(0.1)


async def _token(document: Path) -> str:
    words = ("-m", "gateway", "token", "issue", str(document), "bench", "--role", "operator")
    process = await asyncio.create_subprocess_exec(sys.executable, *words, stdout=asyncio.subprocess.PIPE)
    said, _ = await process.communicate()
    found = next((word for word in said.decode().split() if word.startswith("hft_")), None)
    if found is None:
        raise RuntimeError(f"no token was issued: {said.decode()!r}")
    return found


@asynccontextmanager
async def _api(port: int, token: str, authority: Path) -> AsyncIterator[Callable[[int], Awaitable[None]]]:
    context = ssl.create_default_context(cafile=str(authority))
    headers = {"Authorization": f"Bearer {token}"}
    async with httpx.AsyncClient(base_url=f"https://localhost:{port}", verify=context, headers=headers, timeout=20) as client:

        async def ask(value: int) -> None:
            body = {"device": "written", "tag": "setpoint", "value": value}
            answer = await client.post("/api/v1/commands", params={"wait_s": 10}, json=body)
            if answer.status_code != 200 or answer.json()["stage"] != "verified":
                raise RuntimeError(f"not verified: {answer.text}")

        await _serves(client)
        yield ask


async def _serves(client: httpx.AsyncClient) -> None:
    """The API is there: it starts beside the scans."""
    async with asyncio.timeout(DEADLINE_S):
        while True:
            with contextlib.suppress(httpx.TransportError):
                if (await client.get("/healthz")).status_code == 200:
                    return
            await asyncio.sleep(0.1)


@asynccontextmanager
async def _asking(port: int) -> AsyncIterator[Callable[[int], Awaitable[None]]]:
    at_once = ((socket.IPPROTO_TCP, socket.TCP_NODELAY, 1),)  # else Nagle holds a DCMD until the broker has acknowledged our PUBACK
    async with aiomqtt.Client("127.0.0.1", port, identifier="bench-host", socket_options=at_once) as mqtt:
        await mqtt.subscribe(OUTCOMES, qos=1)
        messages = mqtt.messages

        async def ask(value: int) -> None:
            now_ns = time.time_ns()
            payload = assemble([metric.node_metric("setpoint", Kind.UINT16, value, now_ns)], seq=None, time_ns=now_ns)
            await mqtt.publish(DCMD, payload, qos=0)
            told = json.loads(bytes((await anext(messages)).payload))
            if told["stage"] != "verified" or told["read_back"] != value:
                raise RuntimeError(f"not verified: {told}")

        yield ask


async def run(count: int, folder: Path) -> Figures:
    """One repetition, for ``python -m tests.bench --only commands``."""
    return await measure(USUAL, count, folder)
