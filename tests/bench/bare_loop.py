"""The least that Python can do with the same load: read, decode, publish; no journal, no Sparkplug, no configuration.

uvloop, requests prepared once, NumPy decoding, one JSON object a device and scan, MQTT QoS 0 written to the socket by
hand. It checks nothing and survives nothing: how near the gateway comes to it, with everything on, is the measure.

    python -m tests.bench.bare_loop DEVICES TAGS SCAN_S SECONDS WARM_S BROKER_PORT PORT...

prints one line of JSON. SCAN_S 0 asks again as soon as it has the answer. With as many ports as devices each has a
connection; with one port, unit ids on one connection.
"""

from __future__ import annotations

import asyncio
import json
import os
import struct
import sys
import time
from collections import deque
from functools import partial
from typing import cast

import msgspec
import numpy as np
import uvloop

from tests.bench.measure import cpu_s, peak_bytes

BLOCK = 124
"""Registers of one request: whole float32 pairs."""
GOLDEN = 0.618034
"""Spreads the devices' phases."""


class Count:
    values = 0


class Field(asyncio.Protocol):
    """One connection: asks its devices in turn, one request in flight, publishes what each scan brought."""

    def __init__(self, unit_ids: list[int], first: int, tags: int, scan_s: float, broker: asyncio.WriteTransport, count: Count) -> None:
        self._blocks = [(at, min(BLOCK, 2 * tags - at)) for at in range(0, 2 * tags, BLOCK)]
        self._requests = {
            unit: [struct.pack(">HHHBBHH", at, 0, 6, unit, 3, start, length) for at, (start, length) in enumerate(self._blocks)]
            for unit in unit_ids
        }
        self._topics = {unit: f"bare/device-{first + at}".encode() for at, unit in enumerate(unit_ids)}
        self._first, self._scan_s, self._broker, self._count = first, scan_s, broker, count
        self._due: deque[int] = deque()
        self._buffer, self._answers = b"", list[bytes]()
        self._unit = 0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.WriteTransport, transport)  # uvloop's transports are no subclasses of asyncio's
        loop = asyncio.get_running_loop()
        for at, unit in enumerate(self._requests, self._first):
            moment = loop.time() + at * GOLDEN % 1.0 * self._scan_s
            loop.call_at(moment, self._turn, unit, moment)

    def _turn(self, unit: int, moment: float) -> None:
        loop = asyncio.get_running_loop()
        if not self._unit:
            self._ask(unit)
        elif unit != self._unit and unit not in self._due:
            self._due.append(unit)
        if self._scan_s:
            following = max(moment + self._scan_s, loop.time())
            loop.call_at(following, self._turn, unit, following)

    def _ask(self, unit: int) -> None:
        self._unit = unit
        self._transport.write(self._requests[unit][0])

    def data_received(self, data: bytes) -> None:
        if self._buffer:
            data = self._buffer + data
        if len(data) < 9 or len(data) < 9 + data[8]:
            self._buffer = data
            return
        self._buffer = b""
        self._answers.append(data[9:])
        if len(self._answers) < len(self._blocks):
            self._transport.write(self._requests[self._unit][len(self._answers)])
            return
        values = np.frombuffer(b"".join(self._answers), ">f4")
        body = msgspec.json.encode({"ts": time.time_ns(), "values": values.tolist()})
        self._broker.write(_publish(self._topics[self._unit], body))
        self._count.values += len(values)
        self._answers.clear()
        if not self._scan_s:
            self._due.append(self._unit)
        self._unit = 0
        if self._due:
            self._ask(self._due.popleft())


def _publish(topic: bytes, body: bytes) -> bytes:
    """MQTT 3.1.1 PUBLISH, QoS 0 (clause 3.3)."""
    length = 2 + len(topic) + len(body)
    head = bytearray(b"\x30")
    while length > 127:
        head.append(length & 127 | 128)
        length >>= 7
    return bytes(head) + bytes((length, 0, len(topic))) + topic + body


CONNECT = b"\x10\x10\x00\x04MQTT\x04\x02\x00\x00\x00\x04bare"


def _as_it_is(field: Field) -> Field:
    return field


async def run(devices: int, tags: int, scan_s: float, seconds: float, warm_s: float, broker_port: int, ports: list[int]) -> None:
    loop = asyncio.get_running_loop()
    count = Count()
    broker, _ = await loop.create_connection(asyncio.Protocol, "127.0.0.1", broker_port)
    broker.write(CONNECT)
    each = devices // len(ports)
    for at, port in enumerate(ports):
        field = Field(list(range(1, each + 1)), at * each, tags, scan_s, broker, count)
        await loop.create_connection(partial(_as_it_is, field), "127.0.0.1", port)
    await asyncio.sleep(warm_s)
    values, cpu, began = count.values, cpu_s(os.getpid()), time.monotonic()
    await asyncio.sleep(seconds)
    values, cpu, elapsed = count.values - values, cpu_s(os.getpid()) - cpu, time.monotonic() - began
    told = {
        "values_per_s": values / elapsed,
        "cpu_s_per_million": cpu / max(1, values) * 1e6,
        "cpu_share": cpu / elapsed,
        "peak_bytes": peak_bytes(os.getpid()),
    }
    sys.stdout.write(json.dumps(told) + "\n")


def main() -> None:
    devices, tags, scan_s, seconds, warm_s, broker_port, *ports = sys.argv[1:]
    uvloop.run(run(int(devices), int(tags), float(scan_s), float(seconds), float(warm_s), int(broker_port), [int(port) for port in ports]))


if __name__ == "__main__":
    main()
