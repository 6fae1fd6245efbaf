"""10,000 OPC UA items that change once a second: CPU of one core, and memory, of a process that reads them into batches.

``python -m tests.bench.opcua [ITEMS] [SECONDS] [POLICY]``. The server is node-opcua in a process of its own, as the server's share of
the work is none of ours. The goal is 25 % of a core and 150 MB.
"""

from __future__ import annotations

import json
import os
import resource
import sys
import tempfile
from pathlib import Path
from typing import Final

import uvloop
from cryptography import x509

from protocols.clock import SystemClock
from protocols.model import Kind
from protocols.opcua import certificates
from protocols.opcua.config import Device, OpcUa, Security, Tag
from protocols.opcua.driver import OPCUA
from tests.peers.opcua import URI, OpcUaServer

WARM_S: Final = 5.0
ON_A_DEVICE: Final = 100


def options(server: OpcUaServer, items: int, security: Security) -> OpcUa:
    devices = tuple(
        Device(
            name=f"device-{first // ON_A_DEVICE}",
            tags=tuple(
                Tag(name=f"v{at}", at=f"nsu={URI};s=bulk/{at}", kind=Kind.FLOAT64) for at in range(first, min(first + ON_A_DEVICE, items))
            ),
        )
        for first in range(0, items, ON_A_DEVICE)
    )
    return OpcUa(
        name="bench", endpoint=server.endpoint, security=security, publishing_s=1.0, sampling_s=0.0, timeout_s=60.0, devices=devices
    )


async def measure(wanted: OpcUa, seconds: float) -> dict[str, float]:
    """What reading ``wanted`` for ``seconds`` costs this process."""
    clock = SystemClock()
    total = sum(len(device.tags) for device in wanted.devices)
    came = batches = 0
    began = clock.monotonic()
    async with OPCUA.open(wanted, clock=clock) as session:
        start_s = start_cpu = start_values = 0.0
        first: set[tuple[str, int]] = set()
        async for batch in session.batches():
            came += len(batch)
            batches += 1
            now = clock.monotonic()
            if len(first) < total and not start_s:
                first.update((batch.device.name, slot) for slot in batch.tag.tolist())
                complete = now
                if len(first) < total:
                    continue
            if not start_s and now > complete + WARM_S:
                start_s, start_cpu, start_values = now, _cpu_s(), came
            if start_s and now > start_s + seconds:
                break
        spent_s = now - start_s
        cpu_s = _cpu_s() - start_cpu
        values = came - start_values
    return {
        "items": total,
        "first values after s": round(complete - began, 1),
        "values/s": round(values / spent_s),
        "CPU % of a core": round(100 * cpu_s / spent_s, 1),
        "us of CPU for a value": round(1e6 * cpu_s / max(values, 1), 2),
        "resident MB": round(_resident_mb(), 1),
        "most resident MB": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024, 1),
        "values in a batch": round(values / max(batches, 1), 1),
    }


def _cpu_s() -> float:
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


def _resident_mb() -> float:
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 1e6


def main(items: int = 10_000, seconds: float = 20.0, policy: str = "none") -> None:
    server = OpcUaServer(bulk=items, every=1000, secure=policy != "none")
    server.launch()
    try:
        with tempfile.TemporaryDirectory() as folder:
            security = Security(policy=policy, folder=folder)  # type: ignore[arg-type] # the command line's; a wrong one is told by the driver
            if policy != "none":
                certificates.put(Path(folder), x509.load_der_x509_certificate(server.certificate), "trusted")
            found = uvloop.run(measure(options(server, items, security), seconds))
    finally:
        server.close()
    print(json.dumps({"policy": policy, **found}))  # noqa: T201 # a program's result


if __name__ == "__main__":
    given = sys.argv[1:]
    main(*(kind(word) for kind, word in zip((int, float, str), given, strict=False)))
