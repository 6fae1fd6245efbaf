"""Two hundred CoAP devices, polled or observed once a second: CPU, memory, how late values are, what is missed.

    python -m tests.bench.coap [DEVICES] [SECONDS]

The devices are sockets of a process of their own that answers with the time at which it does (microseconds), so that a value's age
when its batch is handed on can be told. One line of JSON for each case. The driver runs in uvloop, as in the gateway.
"""

from __future__ import annotations

import asyncio
import json
import os
import statistics
import subprocess
import sys
import time
from typing import Any, Final

import msgspec
import uvloop

from protocols.clock import SystemClock
from protocols.coap.config import Coap
from protocols.coap.driver import CLIENT
from protocols.coap.message import CONTENT, Message, Option, Type, decode_udp, encode_udp, ordered, uint
from protocols.model import ScanStats
from tests.bench.measure import cpu_s, peak_bytes
from tests.peers.leash import start

WARM_S: Final = 5.0
PERIOD_S: Final = 1.0


class Device(asyncio.DatagramProtocol):
    """Answers each GET with the time; tells who observes once a second."""

    def __init__(self) -> None:
        self.transport: asyncio.DatagramTransport | None = None
        self.followers: dict[bytes, Any] = {}  # Any: an address
        self.order = 1

    def connection_made(self, transport: Any) -> None:  # Any: uvloop's
        self.transport = transport

    def datagram_received(self, data: bytes, addr: Any) -> None:  # Any: an address
        request = decode_udp(data)
        if not request.is_request:
            return
        observe = request.uint(Option.OBSERVE)
        if observe == 0:
            self.followers[request.token] = addr
        elif observe == 1:
            self.followers.pop(request.token, None)
        self._say(request.token, addr, Type.ACK, request.id, is_news=observe == 0)

    def tell(self) -> None:
        for token, addr in self.followers.items():
            self._say(token, addr, Type.NON, self.order & 0xFFFF, is_news=True)

    def _say(self, token: bytes, addr: Any, type_: Type, number: int, *, is_news: bool) -> None:  # Any: an address
        assert self.transport is not None
        self.order += 1
        news = ((int(Option.OBSERVE), uint(self.order)),) if is_news else ()
        payload = b"%d" % (time.time_ns() // 1000)
        options = ordered((Option.CONTENT_FORMAT, b""), *news)
        self.transport.sendto(encode_udp(Message(code=CONTENT, type=type_, id=number, token=token, options=options, payload=payload)), addr)


async def serve(count: int) -> None:
    """Devices on ports of their own, which are printed; ends with the process that started it."""
    loop = asyncio.get_running_loop()
    devices = [Device() for _ in range(count)]
    ports = []
    for device in devices:
        transport, _ = await loop.create_datagram_endpoint(lambda device=device: device, local_addr=("127.0.0.1", 0))  # type: ignore[misc] # bound at once
        ports.append(transport.get_extra_info("sockname")[1])
    sys.stdout.write(json.dumps(ports) + "\n")
    sys.stdout.flush()
    begun = loop.time()
    for turn in range(10**9):
        for at, device in enumerate(devices):
            due = begun + turn * PERIOD_S + at * PERIOD_S / count
            await asyncio.sleep(max(0.0, due - loop.time()))
            device.tell()


async def measure(ports: list[int], mode: str, seconds: float) -> dict[str, Any]:  # Any: figures
    resource = {"path": "/t", "mode": mode, "tags": [{"name": "time", "kind": "int64", "max_silence_s": 0}]}
    devices = [
        {
            "name": f"d{at}",
            "host": "127.0.0.1",
            "port": port,
            "scan_s": PERIOD_S,
            "resources": [resource],
        }
        for at, port in enumerate(ports)
    ]
    options = msgspec.convert({"type": "coap", "name": "bench", "devices": devices}, Coap)
    ages: list[float] = []
    bad, stats = 0, ScanStats()

    async def read() -> None:
        nonlocal bad, stats
        async with CLIENT.open(options, clock=SystemClock()) as session:
            stats = session.stats
            async for batch in session.batches():
                bad += int(batch.quality.any())
                ages.append(time.time_ns() / 1e6 - int(batch.value[0]) / 1e3)

    reading = asyncio.ensure_future(read())
    await asyncio.sleep(WARM_S)
    ages.clear()
    missed, cpu, began = stats.missed, cpu_s(os.getpid()), time.monotonic()
    await asyncio.sleep(seconds)
    cpu, elapsed, missed = cpu_s(os.getpid()) - cpu, time.monotonic() - began, stats.missed - missed
    came = sorted(ages)
    reading.cancel()
    await asyncio.gather(reading, return_exceptions=True)
    return {
        "mode": mode,
        "devices": len(ports),
        "values_per_s": round(len(came) / elapsed, 1),
        "cpu_share": round(cpu / elapsed, 4),
        "cpu_us_per_value": round(cpu / max(1, len(came)) * 1e6, 1),
        "age_ms_p50": round(statistics.median(came), 3) if came else None,
        "age_ms_p99": round(came[len(came) * 99 // 100], 3) if came else None,
        "missed_scans": missed,
        "bad_batches": bad,
        "peak_mb": round(peak_bytes(os.getpid()) / 1e6, 1),
    }


def main(count: int, seconds: float) -> None:
    peer = start(sys.executable, "-m", "tests.bench.coap", "serve", str(count), stdout=subprocess.PIPE)
    assert peer.stdout is not None
    try:
        ports = json.loads(peer.stdout.readline())
        for mode in ("poll", "observe"):
            with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
                sys.stdout.write(json.dumps(runner.run(measure(ports, mode, seconds))) + "\n")
    finally:
        peer.kill()
        peer.wait()


if __name__ == "__main__":
    if sys.argv[1:2] == ["serve"]:
        asyncio.run(serve(int(sys.argv[2])))
    else:
        main(int(sys.argv[1]) if len(sys.argv) > 1 else 200, float(sys.argv[2]) if len(sys.argv) > 2 else 20.0)
