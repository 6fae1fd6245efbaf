"""The account that the bench with peers keeps is right: what came, what it cost, what never arrived."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import struct
import sys
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiomqtt
import pytest

from protocols.sparkplug.sparkplug_b_pb2 import Payload
from tests.bench.loads import Load
from tests.bench.peers import node_red, thingsboard
from tests.bench.peers.outage import missing, outage, twice
from tests.bench.peers.process import Cpu, PeerEnded, family, family_cpu, family_peak_bytes, running
from tests.bench.peers.products import PRODUCTS, Product
from tests.bench.peers.tally import DECODERS, ROUNDS, Tally, ages_s
from tests.bench.peers.trial import cost
from tests.peers.fast import counter, read_request

NOW = 1_700_000_000_250_000_000


def sparkplug(values: Sequence[float]) -> bytes:
    payload = Payload()
    for value in values:
        payload.metrics.add().float_value = value
    return payload.SerializeToString()


SCAN = [counter(pair, 7) for pair in range(3)]
NAMED = {f"v{pair}": value for pair, value in enumerate(SCAN)}
MESSAGES = {
    "holdfast": [("spBv1.0/bench/DDATA/gw/device-4", sparkplug(SCAN))],
    "thingsboard": [("v1/gateway/telemetry", json.dumps({"device-4": [{"ts": 1, "values": NAMED}]}).encode())],
    "node-red": [("nodered/device-4", json.dumps(NAMED).encode())],
    "node-red-topics": [(f"nodered/device-4/{name}", str(value).encode()) for name, value in NAMED.items()],
}


MESSAGES["thingsboard-sqlite"] = MESSAGES["thingsboard"]


@pytest.mark.parametrize("product", PRODUCTS)
def test_each_products_messages_are_counted_alike(product: str) -> None:
    """The same scan in four ways of writing gives the same account."""
    tally = Tally(DECODERS[product][1], tags=3, by_round=True)
    for topic, body in MESSAGES[product]:
        tally.add(topic, body, NOW)
    assert dict(tally.values) == {"device-4": 3}
    assert set(tally.arrivals) == {("device-4", 7, NOW)}
    assert tally.wrong == 0
    assert dict(tally.rounds) == {"device-4": {7: (NOW / 1e9, 3)}}


@pytest.mark.parametrize("value", [0.5, -1.0, counter(3, 0)])
def test_a_value_that_the_field_never_gave_is_noticed(value: float) -> None:
    """Fractions, negative numbers, and values of registers that nobody asked for."""
    tally = Tally(DECODERS["node-red"][1], tags=3)
    tally.add("nodered/device-0", json.dumps({"v0": 0, "v1": value}).encode(), NOW)
    assert tally.wrong == 1


def test_an_age_is_counted_from_the_fields_last_answer_before_the_arrival() -> None:
    """Rounds are told modulo ROUNDS: of those that fit, the newest that was answered by then. What the field does not know has no age."""
    answered = [0] * (3 * ROUNDS)
    answered[7], answered[7 + ROUNDS], answered[7 + 2 * ROUNDS] = NOW - 10**9, NOW - 10**8, NOW + 10**8
    assert ages_s([("a", 7, NOW), ("a", 8, NOW)], {"a": answered}) == [0.1]


def test_what_came_twice_is_counted() -> None:
    """A scan that two requests of one device interleaved in belongs to two rounds: what is missing of one is no excuse for the other."""
    assert twice({"a": {3: (0.0, 10), 4: (0.0, 6), 5: (0.0, 14), 6: (0.0, 20)}}, 10) == 14


def test_what_never_came_is_named() -> None:
    """From the first round that came, or else from the one before the outage, up to the one at its end."""
    came = {"a": {3: (0.0, 1), 4: (0.0, 1), 6: (9.0, 1)}}
    assert missing(came, "a", {"a": 4}, {"a": 7}) == {5, 7}
    assert missing(came, "b", {"b": 4}, {"b": 6}) == {4, 5, 6}


def test_cpu_of_what_has_ended_is_not_forgotten() -> None:
    """Threads that ended and children that were waited for are in the account of a family."""
    assert Cpu(exact=5.0, whole=9.0).since(Cpu(exact=4.5, whole=8.5)) == 0.5
    assert Cpu(exact=4.6, whole=9.0).since(Cpu(exact=4.5, whole=8.0)) == pytest.approx(0.98)


BURN = "import time\ndef burn(s):\n    end = time.process_time() + s\n    while time.process_time() < end: pass\n"
CHILD = BURN + "import subprocess, sys; print(flush=True); input()\n"
CHILD += "subprocess.run([sys.executable, '-c', sys.argv[1] + 'burn(.3)'])\nprint(flush=True); input()"


async def test_a_childs_cpu_counts() -> None:
    """A family that waits for a child which burns 0.3 s has spent them."""
    pipe = asyncio.subprocess.PIPE
    process = await asyncio.create_subprocess_exec(sys.executable, "-c", CHILD, BURN, stdin=pipe, stdout=pipe)
    assert process.stdin is not None
    assert process.stdout is not None
    await process.stdout.readline()
    before = family_cpu(process.pid)
    process.stdin.write(b"\n")
    await process.stdout.readline()
    assert family_cpu(process.pid).since(before) > 0.25
    assert family(process.pid) == [process.pid]
    await process.communicate(b"\n")


async def _watch_until_it_ends(folder: Path) -> None:
    async with asyncio.timeout(10), running((sys.executable, "-c", "print('alas'); raise SystemExit(3)"), folder, {}) as pid:
        while True:
            family_peak_bytes(pid)
            await asyncio.sleep(0.01)


async def test_a_product_that_ends_by_itself_says_so(tmp_path: Path) -> None:
    """Its account in /proc is gone; what is told is that it ended, and its last words."""
    with pytest.raises(PeerEnded, match="ended with 3:\nalas"):
        await _watch_until_it_ends(tmp_path)


def test_node_red_reads_each_register_once() -> None:
    """The blocks of a device follow one another, and none is longer than Modbus allows."""
    load = Load("", 2, 1.0, tags=100)
    nodes = node_red.flow(load, (5020, 5021), 1883, node_red.LEAN)
    reads = [(node["adr"], node["quantity"]) for node in nodes if node["type"] == "modbus-read" and node["server"] == "client-device-1"]
    assert reads == [(0, 124), (124, 76)]
    assert len({node["id"] for node in nodes}) == len(nodes)


def test_thingsboard_reads_each_device_as_one_range() -> None:
    """Two requests a device, not one for each tag; every device has its own connection."""
    slaves = thingsboard.connector(Load("", 2, 0.1, tags=100), (5020, 5021))["master"]["slaves"]
    assert [(slave["port"], slave["pollPeriod"]) for slave in slaves] == [(5020, 100), (5021, 100)]
    assert slaves[0]["timeseries"][0]["address"] == "0-199"


# -------------------------------------------------------------------------------------------------- with real processes

SMALL = Load("small", 2, 0.25, tags=10, seconds=2.0, warm_s=0.5)


async def test_holdfast_is_measured(tmp_path: Path) -> None:
    """Everything that was asked for is counted, at its true rate."""
    result = await cost(PRODUCTS["holdfast"], SMALL, tmp_path)
    assert (result.silent, result.wrong) == (0, 0)
    assert result.values_per_s == pytest.approx(SMALL.values_per_s, rel=0.5)
    assert result.cpu_s_per_million > 0
    assert result.peak_bytes > 10e6
    assert result.p99_s is not None


async def test_an_outage_costs_holdfast_nothing(tmp_path: Path) -> None:
    """What was read while the broker was away arrives."""
    result = await outage(PRODUCTS["holdfast"], SMALL, tmp_path, 2.0)
    assert result.read > 0
    assert result.lost == 0
    assert result.drained_s is not None


@asynccontextmanager
async def forgetful(load: Load, ports: Sequence[int], broker_port: int, folder: Path) -> AsyncIterator[int]:
    """A product that delivers while the broker is there and forgets what it reads while it is not."""
    task = asyncio.ensure_future(_deliver(load, ports, broker_port))
    try:
        yield os.getpid()
    finally:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task


async def _deliver(load: Load, ports: Sequence[int], broker_port: int) -> None:
    while True:
        with contextlib.suppress(aiomqtt.MqttError):
            async with aiomqtt.Client("127.0.0.1", broker_port, timeout=0.5) as client:
                while True:
                    await _scan(load, ports, client)
        await _scan(load, ports, None)


async def _scan(load: Load, ports: Sequence[int], client: Any) -> None:  # Any: an aiomqtt client or None
    await asyncio.sleep(load.scan_s)
    for at, port in enumerate(ports):
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(read_request(1, 1, 3, 0, 2 * load.tags))
        values = struct.unpack(f">{load.tags}f", (await reader.readexactly(9 + 4 * load.tags))[9:])
        writer.close()
        if client is not None:
            await client.publish(f"nodered/device-{at}", json.dumps({f"v{tag}": value for tag, value in enumerate(values)}))


async def test_what_a_product_forgets_is_counted(tmp_path: Path) -> None:
    """The bench sees a loss: what was read in the outage is missing afterwards."""
    product = Product("node-red", forgetful, lambda: "")
    result = await outage(product, SMALL, tmp_path, 2.0, quiet_s=4.0)
    assert result.read > 0
    assert result.lost >= result.read / 2
