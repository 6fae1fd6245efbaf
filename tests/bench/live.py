"""Many followers of the live stream, one of them stalled: how old values are when the others have them, and what it costs.

The gateway is a process of its own, with TLS; the clients (package ``websockets``) are another: ``python -m tests.bench.live PORT ...``
is that process, and prints what it saw as JSON. Ages are those of the stamp device: from the field's answer, the journal's
commit window included, to the client's receipt. The stalled client subscribes and then reads nothing more.
"""

from __future__ import annotations

import asyncio
import json
import re
import socket
import ssl
import sys
import time
from collections.abc import Sequence
from contextlib import AsyncExitStack, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from websockets.asyncio.client import ClientConnection, connect
from websockets.client import ClientProtocol
from websockets.protocol import State
from websockets.uri import parse_uri

from gateway import state
from gateway.app import MIGRATIONS
from gateway.identity.identity import Identity
from gateway.identity.principal import Role
from protocols.clock import SystemClock
from tests.bench.loads import GATEWAY, GROUP, STAMP_DEVICE, Load, connections
from tests.bench.measure import Machine, Spread, cpu_s, peak_bytes, quantile_bound
from tests.bench.repeat import Figures
from tests.bench.whole import LATE, Metrics, gateway, scrape
from tests.peers.fast import FastModbus
from tests.peers.mosquitto import free_port

CLIENTS: Final = 200
OF_ONE: Final = 50
"""Clients of one token: fewer than one may have."""
START_S: Final = 60.0
AT_ONCE: Final = 10
STAMP: Final = re.compile(rb'"device":"%s","tags":\["answered"\],"values":\[(\d+)\]' % STAMP_DEVICE.encode())


# -------------------------------------------------------------------------------------------------- the clients' process


@dataclass
class Seen:
    """What all clients that read saw."""

    recording: bool = False
    ages: list[float] = field(default_factory=list)
    frames: int = 0
    bytes: int = 0
    skipped: int = 0
    gaps: int = 0
    """Records that a client neither got nor was told of."""


async def clients(port: int, authority: str, many: int, seconds: float, tokens: Sequence[str]) -> Seen:
    context, seen = ssl.create_default_context(cafile=authority), Seen()
    ready = [asyncio.Event() for _ in range(many)]
    tasks = []
    for at in range(many):
        token = tokens[at // OF_ONE]
        work = _stalled if at == 0 and many > 1 else _reader
        tasks.append(asyncio.create_task(work(port, context, token, ready[at], seen)))
        if at % AT_ONCE == AT_ONCE - 1:
            await asyncio.wait_for(ready[at].wait(), START_S)
    for each in ready:
        await asyncio.wait_for(each.wait(), START_S)
    print("ready", flush=True)  # noqa: T201 - to the bench
    seen.recording = True
    await asyncio.sleep(seconds)
    seen.recording = False
    for task in tasks:
        task.cancel()
    for result in await asyncio.gather(*tasks, return_exceptions=True):
        if isinstance(result, Exception):
            raise result
    return seen


async def _subscribed(port: int, context: ssl.SSLContext, token: str) -> ClientConnection:
    headers = {"Authorization": f"Bearer {token}"}
    url = f"wss://localhost:{port}/api/v1/live"
    connection = await connect(url, ssl=context, additional_headers=headers, compression=None, max_size=None)
    await connection.send(json.dumps({"type": "subscribe", "streams": ["values", "events"]}))
    return connection


async def _reader(port: int, context: ssl.SSLContext, token: str, ready: asyncio.Event, seen: Seen) -> None:
    connection = await _subscribed(port, context, token)
    ready.set()
    seq = 0
    while True:
        told = await connection.recv(decode=False)
        now = time.time_ns()
        if told.startswith(b'{"type":"skipped"'):
            seen.skipped += json.loads(told)["records"]
            seq = 0
        if told.startswith(b'{"type":"records","lane":"telemetry"'):
            seqs = [int(each) for each in re.findall(rb'"seq":(\d+)', told)]
            seen.gaps += seqs[-1] - seq - len(seqs) if seq else 0
            seq = seqs[-1]
            if seen.recording:
                seen.frames += 1
                seen.bytes += len(told)
                seen.ages += [(now - int(stamp)) / 1e9 for stamp in STAMP.findall(told)]


async def _stalled(port: int, context: ssl.SSLContext, token: str, ready: asyncio.Event, _seen: Seen) -> None:
    """Subscribes, and reads nothing more: its small socket buffer fills, and what it would read stays with the gateway."""
    protocol = ClientProtocol(parse_uri(f"wss://localhost:{port}/api/v1/live"), max_size=None)
    tls = await asyncio.to_thread(_opened, port, context, token, protocol)
    ready.set()
    with tls:
        await asyncio.sleep(3600)


def _opened(port: int, context: ssl.SSLContext, token: str, protocol: ClientProtocol) -> ssl.SSLSocket:
    sock = socket.socket()
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    sock.settimeout(15)
    sock.connect(("127.0.0.1", port))
    tls = context.wrap_socket(sock, server_hostname="localhost")
    request = protocol.connect()
    request.headers["Authorization"] = f"Bearer {token}"
    protocol.send_request(request)
    tls.sendall(b"".join(protocol.data_to_send()))
    while not protocol.events_received():
        protocol.receive_data(tls.recv(1))
    assert protocol.state is State.OPEN, protocol.handshake_exc
    protocol.send_text(json.dumps({"type": "subscribe", "streams": ["values", "events"]}).encode())
    tls.sendall(b"".join(protocol.data_to_send()))
    return tls


# -------------------------------------------------------------------------------------------------- the bench


async def measure(load: Load, many: int, folder: Path) -> Figures:
    async with AsyncExitStack() as stack:
        field_ = await stack.enter_async_context(FastModbus(ports=load.ports))
        port, metrics_port = free_port(), free_port()
        document = folder / "site.yaml"
        document.write_text(json.dumps(_site(load, field_.ports, port, metrics_port, folder)))
        tokens = await _tokens(folder / "state", -(-many // OF_ONE))
        pid = await stack.enter_async_context(gateway(document, folder))
        await _serves(metrics_port, load)
        before_clients = peak_bytes(pid)
        if not many:
            await asyncio.sleep(load.warm_s)
        words = (port, folder / "state" / "authority" / "ca.pem", many, load.seconds, *tokens)
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "tests.bench.live", *map(str, words), stdout=asyncio.subprocess.PIPE, limit=1 << 20
        )
        assert process.stdout is not None
        assert (await asyncio.wait_for(process.stdout.readline(), 2 * START_S)).strip() == b"ready", "the clients did not start"
        machine, before, cpu, at = Machine.now(), await asyncio.to_thread(scrape, metrics_port), cpu_s(pid), time.monotonic()
        await asyncio.sleep(load.seconds)
        after, cpu, elapsed, others = (
            await asyncio.to_thread(scrape, metrics_port),
            cpu_s(pid) - cpu,
            time.monotonic() - at,
            Machine.now().others_since(machine),
        )
        said = await asyncio.wait_for(process.stdout.read(), START_S)
        assert await process.wait() == 0
        seen = Seen(**json.loads(said.splitlines()[-1]))
        return _figures(
            seen,
            before,
            after,
            elapsed,
            cpu,
            peak_bytes(pid),
            before_clients,
            others,
            (folder / "log").read_bytes().count(b'"event":"live_cut"'),
        )


def _figures(
    seen: Seen, before: Metrics, after: Metrics, elapsed: float, cpu: float, peak: int, before_clients: int, others: float, cut: int
) -> Figures:
    names = [name for name in after if name.startswith(f"{LATE}_bucket{{")]
    late = sorted((float(name.split("{")[1][:-1]), after[name] - before.get(name, 0.0)) for name in names)
    values = after["holdfast_link_in_total"] - before["holdfast_link_in_total"]
    spread = Spread.of(seen.ages)
    return {
        "values_per_s": values / elapsed,
        "frames_per_s": seen.frames / elapsed,
        "bytes_per_s": seen.bytes / elapsed,
        "cpu_share": cpu / elapsed,
        "peak_bytes": peak,
        "grown_bytes": peak - before_clients,
        "missed": after.get("holdfast_scans_missed_total", 0.0) - before.get("holdfast_scans_missed_total", 0.0),
        "late_p99_s": quantile_bound(late, 0.99),
        "skipped": seen.skipped,
        "gaps": seen.gaps,
        "cut": float(cut),
        "others_share": others,
        **({f"latency_{name}_s": getattr(spread, name) for name in ("p50", "p99", "most")} if spread else {}),
    }


def _site(load: Load, ports: Sequence[int], port: int, metrics_port: int, folder: Path) -> dict[str, Any]:  # Any: JSON
    return {
        "holdfast": 1,
        "gateway": {"group": GROUP, "name": GATEWAY},
        "journal": {"path": str(folder / "journal")},
        "state_path": str(folder / "state"),
        "telemetry": {"metrics_port": metrics_port},
        "outage_budget_s": 0,
        "api": {"port": port},
        "connections": connections(load, ports),
    }


async def _tokens(folder: Path, many: int) -> list[str]:
    """Put by before the gateway starts."""
    clock = SystemClock()
    kept = await state.State.open(folder, MIGRATIONS, clock)
    identity = Identity(kept, clock)
    tokens = [await identity.issue_token(f"bench-{at}", Role.VIEWER, lifetime_s=3600, made_by="bench") for at in range(many)]
    await identity.close()
    await kept.close()
    return tokens


async def _serves(metrics_port: int, load: Load) -> None:
    """Wait until every device has been read."""
    async with asyncio.timeout(START_S):
        while True:
            with suppress(OSError):
                if (await asyncio.to_thread(scrape, metrics_port)).get("holdfast_link_in_total", 0) >= load.devices * load.tags:
                    return
            await asyncio.sleep(0.1)


if __name__ == "__main__":
    port_, authority_, many_, seconds_ = int(sys.argv[1]), sys.argv[2], int(sys.argv[3]), float(sys.argv[4])
    print(json.dumps(vars(asyncio.run(clients(port_, authority_, many_, seconds_, sys.argv[5:])))))  # noqa: T201 - to the bench
