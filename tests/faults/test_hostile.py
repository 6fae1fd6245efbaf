"""One bad device hurts nobody: every misdeed at once beside good devices, and the good ones are scanned in time and lose nothing.

Twenty good devices at 100 ms; then, by reload, a connection for each misdeed of ``tests/peers/hostile.py`` over TCP and RTU
frames, a port where nobody listens, one that black-holes and one that is slow; or hostile peers of the other protocols. Lateness
is measured twice: by the gateway's own metrics of the good connections, and from outside by the time that the field put into each
answer. How long the gateway had to wait for a processor is measured beside it, so that a busy machine fails nothing.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import socket
import time
from collections import defaultdict
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any, Final

import pytest

from tests.faults import figures
from tests.faults.oracle import ROUND
from tests.faults.rig import Plan, Rig, rig
from tests.faults.watch import Punctuality, punctuality, resident
from tests.peers import coap_hostile, http_hostile
from tests.peers.cloud import Absence, Arrival, Told
from tests.peers.fast import STAMP, FastModbus
from tests.peers.hostile import MISDEEDS, TCP_ONLY, Framing, HostilePeer, Talk
from tests.peers.opcua_hostile import HostileOpcUa
from tests.peers.proxy import Proxy
from tests.peers.unit import tcp_frame
from tests.protocols.mqtt import hostile as mqtt_hostile

GOOD: Final = 20
SCAN_S: Final = 0.1
ALONE_S: Final = 5.0
"""How long the good devices are by themselves, to compare with."""
TOGETHER_S: Final = 300.0 if figures.LONG else 15.0
MOST_LATE_S: Final = 0.1
MOST_GROWTH: Final = 20_000_000
MOST_CPU: Final = 0.3
"""Share of one core that all bad devices together may take. (Who floods where values are pushed is read as fast as the loop has time left,
for nobody can tell a flood from a plant that has much to say.)"""
HTTP: Final = ("endless-body", "endless-tiny-chunks", "endless-100-continue", "gzip-bomb", "deep-json", "slow-drip", "never-answer")
COAP: Final = ("flood", "rubbish", "pings", "huge-options", "endless-blocks")
MQTT: Final = ("flood", "huge", "endless", "many-values", "never-suback")
OPC_UA: Final = ("never-answer", "rubbish", "huge-chunk", "endless-chunks", "endless-bytes")
Neighbourhood = Callable[[], AbstractAsyncContextManager[list[dict[str, Any]]]]  # Any: JSON
WINDOW_S: Final = 2.0
MOST_MISSED: Final = 0.01
"""Share of the good ones' scans whose whole period may go by, on a machine that others use too."""
QUIET: Final = 0.03
"""Share of its time that the gateway may wait for a processor that others use. On a busier machine lateness is the machine's, and
five times as much is borne."""
OUTSET_S: Final = 3.0
"""After a reload connections are made and first scans spread: not looked at."""


class Seen:
    """When the field answered each scan of each device, by its own clock."""

    def __init__(self) -> None:
        self.answered: defaultdict[str, dict[int, int]] = defaultdict(dict)

    def __call__(self, thing: Arrival | Absence | Told) -> None:
        if isinstance(thing, Arrival):
            good = {row.tag: row.value for row in thing.rows if row.value is not None}
            scan, stamp = good.get(ROUND), good.get("stamp")
            if isinstance(scan, int) and isinstance(stamp, int):
                self.answered[thing.device][scan] = stamp

    def lateness_s(self, begin_ns: int, end_ns: int) -> list[float]:
        """How late each scan between the two times was answered, ascending: later than the best of its device within WINDOW_S.

        A scan that was skipped shows as well: what follows comes a period later than its number says, until the next window."""
        late: list[float] = []
        for answered in self.answered.values():
            windows: defaultdict[int, list[float]] = defaultdict(list)
            for scan, stamp in answered.items():
                if begin_ns <= stamp < end_ns:
                    windows[int((stamp - begin_ns) / 1e9 / WINDOW_S)].append(stamp - scan * SCAN_S * 1e9)
            late += [(offset - min(offsets)) / 1e9 for offsets in windows.values() for offset in offsets]
        return sorted(late)


def p99(ascending: list[float]) -> float:
    return ascending[int(0.99 * (len(ascending) - 1))]


def waited_s(pid: int) -> float:
    """How long its main thread was ready to run and did not get a processor (schedstat; sched-stats.rst)."""
    return int(Path(f"/proc/{pid}/task/{pid}/schedstat").read_text().split()[1]) / 1e9


def cpu_s(pid: int) -> float:
    """Processor seconds that a process has used (proc(5), stat)."""
    fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


class Flooder(HostilePeer):
    """Answers each request truly, behind as many answers to other requests as a line would just bear by their bytes."""

    def __init__(self, frame_bytes: int) -> None:
        super().__init__("")
        pdu = b"\x83\x02".ljust(frame_bytes - 7, b"\0")
        self._flood = tcp_frame(0xFFFF, 1, pdu) * (60 * 1024 // frame_bytes)

    async def _talk(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        talk = Talk(self, reader, writer)
        with contextlib.suppress(asyncio.IncompleteReadError, OSError):
            while True:
                await talk.send(self._flood + talk.frame(*await talk.answer()))
        writer.close()


@asynccontextmanager
async def bad_neighbours() -> AsyncIterator[list[dict[str, Any]]]:  # Any: JSON
    """A connection of the site document for each of them, all running."""
    async with AsyncExitStack() as stack:
        connections: list[dict[str, Any]] = []  # Any: JSON
        framings: tuple[Framing, ...] = ("tcp", "rtu")
        for framing in framings:
            for misdeed in MISDEEDS:
                if framing == "tcp" or misdeed not in TCP_ONLY:
                    peer = await stack.enter_async_context(HostilePeer(misdeed, framing=framing))
                    connections.append(_connection(f"{framing}-{misdeed}", peer.port, framing))
        for number, size in enumerate((9, 9, 9, 260)):
            flooder = await stack.enter_async_context(Flooder(size))
            connections.append(_connection(f"flood-{number}", flooder.port, "tcp"))
        field = await stack.enter_async_context(FastModbus(ports=2))
        hole = await stack.enter_async_context(Proxy("127.0.0.1", field.ports[0]))
        hole.black_hole()
        slow = await stack.enter_async_context(Proxy("127.0.0.1", field.ports[1]))
        slow.delay_s = 0.4
        with socket.socket() as closed:  # bound, and nobody listens: nobody else can get the port
            closed.bind(("127.0.0.1", 0))
            places = {"black-hole": hole.port, "slow": slow.port, "dead": int(closed.getsockname()[1])}
            yield [*connections, *(_connection(name, port, "tcp") for name, port in places.items())]


@asynccontextmanager
async def bad_peers_of_other_protocols() -> AsyncIterator[list[dict[str, Any]]]:  # Any: JSON
    """Those of OPC UA, MQTT, CoAP and HTTP that take most of whoever believes them; every one that there is in the large run."""
    value: dict[str, Any] = {"name": "level", "kind": "float64", "max_silence_s": 0}  # Any: JSON
    async with AsyncExitStack() as stack:
        connections: list[dict[str, Any]] = []  # Any: JSON
        for misdeed in http_hostile.MISDEEDS if figures.LONG else HTTP:
            http = await stack.enter_async_context(http_hostile.HostileServer(misdeed))
            ask = {"path": "/", "scan_s": SCAN_S, "tags": [{**value, "at": "$.level"}]}
            connections.append(
                {"type": "http", "url": f"http://127.0.0.1:{http.port}", "allow_local": True, "devices": [{"requests": [ask]}]}
            )
        for misdeed in coap_hostile.MISDEEDS if figures.LONG else COAP:
            coap = await stack.enter_async_context(coap_hostile.HostileDevice(misdeed))
            resource = {"path": "/level", "format": "text", "tags": [{**value, "at": ""}]}
            device = {"host": "127.0.0.1", "port": coap.port, "scan_s": SCAN_S, "resources": [resource]}
            connections.append({"type": "coap", "devices": [device]})
        for misdeed in mqtt_hostile.MISDEEDS if figures.LONG else MQTT:
            mqtt = await stack.enter_async_context(mqtt_hostile.HostileBroker(misdeed, 1).serving())
            device = {"topic": "plant/level", "tags": [{**value, "at": "$.level"}]}
            connections.append({"type": "mqtt", "host": "127.0.0.1", "port": mqtt.port, "devices": [device]})
        for misdeed in OPC_UA:
            opcua = await stack.enter_async_context(HostileOpcUa(misdeed, 1))
            device = {"tags": [{**value, "at": "nsu=urn:plant;s=level"}]}
            endpoint = {"endpoint": f"opc.tcp://127.0.0.1:{opcua.port}/", "security": {"policy": "none"}}
            connections.append({"type": "opcua", **endpoint, "devices": [device]})
        for number, connection in enumerate(connections):
            connection["name"] = f"bad-{connection['type']}-{number}"
            connection["devices"][0]["name"] = connection["name"]
        yield connections


def _connection(name: str, port: int, framing: Framing) -> dict[str, Any]:  # Any: JSON
    tags = [{"name": "level", "at": "holding:300", "kind": "uint16", "max_silence_s": 0}]
    return {
        "name": f"bad-{name}",
        "type": "modbus-tcp" if framing == "tcp" else "modbus-rtu-tcp",
        "host": "127.0.0.1",
        "port": port,
        "devices": [{"name": f"bad-{name}", "unit_id": 1, "scan_s": SCAN_S, "tags": tags}],
    }


def good_lines(metrics: str) -> Punctuality:
    """The punctuality of the good connections alone."""
    return punctuality("\n".join(line for line in metrics.splitlines() if 'connection="line-' in line))


@pytest.mark.parametrize(
    ("neighbourhood", "most_cpu"),
    [(bad_neighbours, MOST_CPU), (bad_peers_of_other_protocols, float("inf"))],
    ids=["modbus", "other protocols"],
)
async def test_no_bad_device_delays_a_good_one(
    tmp_path: Path,
    free_port: Any,  # Any: a fixture that gives ports
    neighbourhood: Neighbourhood,
    most_cpu: float,
) -> None:
    """Scans of the good ones are on time, none is lost, memory stays, and what the bad ones take of the processor is small."""
    port, seen = free_port(), Seen()
    neighbours: list[dict[str, Any]] = []  # Any: JSON

    def change(document: dict[str, Any]) -> None:  # Any: JSON
        document["telemetry"] = {"metrics_port": port}
        stamp = {"name": "stamp", "at": f"holding:{STAMP}", "kind": "uint64", "max_silence_s": 0}
        for connection in document["connections"]:
            connection["devices"][0]["tags"] = [*connection["devices"][0]["tags"], stamp]
        document["connections"] += neighbours

    async with neighbourhood() as bad, rig(tmp_path, Plan(devices=GOOD, scan_s=SCAN_S, change=change)) as plant:
        plant.oracle.also.append(seen)
        await plant.arrive(GOOD * 10)
        alone = await _stretch(plant, port, seen, ALONE_S)
        neighbours += bad
        plant.gateway.write(plant.site())
        await asyncio.to_thread(plant.gateway.reload)
        await asyncio.sleep(OUTSET_S)
        together = await _stretch(plant, port, seen, TOGETHER_S)
        verdict = await plant.finish(most_in_flight=0)
    cpu = together["cpu"] - alone["cpu"]
    figures.record(
        "hostile-neighbours" if neighbourhood is bad_neighbours else "hostile-neighbours of other protocols",
        good=GOOD,
        bad=len(bad),
        seconds=TOGETHER_S,
        records=verdict.records,
        cpu_of_bad=round(cpu, 3),
        **{f"alone_{name}": round(number, 4) for name, number in alone.items()},
        **{name: round(number, 4) for name, number in together.items()},
    )
    assert not verdict.lost
    assert together["bad_requests"] > 0, "the bad ones were asked, again and again"
    patience = 1 if together["waited"] < QUIET else 5
    assert together["outside_p99_s"] <= patience * MOST_LATE_S
    assert together["own_p99_s"] <= patience * MOST_LATE_S
    assert together["missed"] <= patience * MOST_MISSED * GOOD * TOGETHER_S / SCAN_S
    assert together["growth"] <= MOST_GROWTH
    assert cpu <= most_cpu


async def _stretch(plant: Rig, port: int, seen: Seen, seconds: float) -> dict[str, float]:
    """What is measured over ``seconds``."""
    pid = plant.gateway.pid
    first = await asyncio.to_thread(plant.gateway.metrics, port)
    memory, cpu, waited, began, began_ns = resident(pid), cpu_s(pid), waited_s(pid), time.monotonic(), time.time_ns()
    await asyncio.sleep(seconds)
    last = await asyncio.to_thread(plant.gateway.metrics, port)
    ended_ns = time.time_ns()
    took_s = time.monotonic() - began
    used, kept_waiting = (cpu_s(pid) - cpu) / took_s, (waited_s(pid) - waited) / took_s
    await plant.arrive(GOOD * 5)
    own = good_lines(last).since(good_lines(first))
    late = seen.lateness_s(began_ns, ended_ns)
    assert len(late) > 0.5 * GOOD * seconds / SCAN_S, f"only {len(late)} scans were seen from outside"
    return {
        "outside_p99_s": p99(late),
        "outside_max_s": late[-1],
        "own_p99_s": own.p99_s(),
        "missed": own.missed,
        "cpu": used,
        "waited": kept_waiting,
        "growth": resident(pid) - memory,
        "bad_requests": _bad_requests(last) - _bad_requests(first),
    }


def _bad_requests(metrics: str) -> float:
    return sum(float(count) for count in re.findall(r'^holdfast_requests_total\{connection="bad-[^"]*"\} (\S+)$', metrics, re.MULTILINE))
