"""A whole plant for fault tests: a field in C, a mosquitto, a proxy before it, the gateway as a process, a cloud, the oracle.

``async with rig(tmp_path) as plant`` starts all of it. A test does its harm, then :meth:`Rig.finish` lets everything drain
and has the oracle judge. Ten devices of twelve tags, ten scans a second: 1,200 values and 100 records a second.
"""

from __future__ import annotations

import asyncio
import os
import random
import signal
import threading
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Container, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from math import ceil
from pathlib import Path
from typing import Any, Final

from gateway.control import ask
from gateway.questions import Stat
from tests.faults import figures
from tests.faults.oracle import ROUND as ROUND_TAG
from tests.faults.oracle import TAGS_AT, Oracle, Verdict
from tests.peers.cloud import Cloud
from tests.peers.fast import ROUND, STAMP, FastModbus
from tests.peers.holdfast import Holdfast
from tests.peers.mosquitto import Mosquitto
from tests.peers.proxy import Proxy

GROUP, GATEWAY, UPLINK = "plant", "gw", "cloud"
DEADLINE_S: Final = 30.0


@dataclass(frozen=True)
class Plan:
    """What a rig is made of, and what is changed in its site document."""

    devices: int = 10
    tags: int = 11
    scan_s: float = 0.1
    journal: Path | None = None
    """The journal's folder; None is beside the site document."""
    commit_window_ms: int = 20
    acknowledge: str = "consumer"
    prefix: Sequence[str] = ()
    """Words before the gateway's command: the tool that harms it."""
    environment: dict[str, str] | None = None
    change: Callable[[dict[str, Any]], None] | None = None  # Any: JSON
    """Changes the site document in place."""
    broker: str = ""
    """Further lines of mosquitto's configuration."""
    before: Callable[[Rig], Awaitable[None]] | None = None
    """What happens when everything runs but the gateway."""


class Rig:
    """Everything that runs. Parts are public: a test stops, cuts and freezes them as it likes."""

    def __init__(self, plan: Plan, folder: Path, field: FastModbus, broker: Mosquitto, proxy: Proxy, cloud: Cloud, oracle: Oracle) -> None:
        self.plan, self.field, self.broker, self.proxy, self.cloud, self.oracle = plan, field, broker, proxy, cloud, oracle
        self.lives = 0
        """How many gateway processes there were; a reload that takes connections away counts as the end of one."""
        self.broker_runs = True
        """As :meth:`broker_goes_or_comes` left it."""
        self._began, self._requests = 0.0, 0
        self.journal = plan.journal or folder / "gateway" / "journal"
        self.gateway = Holdfast(folder / "gateway", self.site(), prefix=plan.prefix, environment=plan.environment)

    @property
    def names(self) -> list[str]:
        return [f"device-{at}" for at in range(self.plan.devices)]

    @property
    def records_per_s(self) -> float:
        return self.plan.devices / self.plan.scan_s

    def site(self) -> dict[str, Any]:  # Any: JSON
        """The site document. Scan numbers and values are of one column, so one scan of a device is one record."""
        plan = self.plan
        pairs = range(STAMP // 2 - plan.tags, STAMP // 2)  # beside the number of the scan: one request brings all
        tags = [{"name": f"{TAGS_AT}{pair}", "at": f"holding:{2 * pair}", "kind": "uint32"} for pair in pairs]
        tags.append({"name": ROUND_TAG, "at": f"holding:{ROUND}", "kind": "uint64"})
        document: dict[str, Any] = {  # Any: JSON
            "holdfast": 1,
            "gateway": {"group": GROUP, "name": GATEWAY},
            "journal": {"path": str(self.journal), "commit_window_ms": plan.commit_window_ms},
            "connections": [
                {
                    "name": f"line-{at}",
                    "type": "modbus-tcp",
                    "host": "127.0.0.1",
                    "port": port,
                    "devices": [{"name": name, "unit_id": 1, "scan_s": plan.scan_s, "tags": tags}],
                }
                for at, (name, port) in enumerate(zip(self.names, self.field.ports, strict=True))
            ],
            "uplinks": [
                {
                    "name": UPLINK,
                    "type": "sparkplug",
                    "host": "127.0.0.1",
                    "port": self.proxy.port,
                    "acknowledge": plan.acknowledge,
                    "acknowledge_timeout_s": 2.0,
                    "keepalive_s": 5,
                    "timeout_s": 3.0,
                }
            ],
            "outage_budget_s": 0,
        }
        if plan.change is not None:
            plan.change(document)
        return document

    async def start(self) -> None:
        """The gateway; returns when it says that it runs."""
        self.lives += 1
        await asyncio.to_thread(self.gateway.start)

    async def launch(self) -> None:
        """The gateway's process, and no waiting for what it does."""
        self.lives += 1
        self._requests, self._began = await self.field.requests(), time.monotonic()
        await asyncio.to_thread(self.gateway.launch)

    async def first_scan(self, deadline_s: float = DEADLINE_S) -> float:
        """Wait until the field has answered the process that was launched last; seconds since its launch."""
        end = time.monotonic() + deadline_s
        while await self.field.requests() == self._requests:
            self._lives_still()
            assert time.monotonic() < end, f"no scan within {deadline_s:g} s of the launch; {self.state()}"
            await asyncio.sleep(0.005)
        return time.monotonic() - self._began

    async def first_record(self, deadline_s: float = DEADLINE_S) -> float:
        """After :meth:`first_scan`: wait until something new comes to the cloud; seconds since the launch."""
        end, before = time.monotonic() + deadline_s, self.oracle.records
        while self.oracle.records == before:
            self._lives_still()
            assert time.monotonic() < end, f"nothing new came within {deadline_s:g} s of the launch; {self.state()}"
            await asyncio.sleep(0.005)
        return time.monotonic() - self._began

    def waited_s(self) -> float:
        """How long the gateway's main thread was ready to run and got no processor: the machine's share of any delay (sched-stats.rst)."""
        pid = self.gateway.pid
        return int(Path(f"/proc/{pid}/task/{pid}/schedstat").read_text().split()[1]) / 1e9

    def _lives_still(self) -> None:
        assert self.gateway.alive, f"the gateway ended by itself; {self.state()}"

    async def kill(self) -> None:
        """SIGKILL. It must have lived until then."""
        self._lives_still()
        await asyncio.to_thread(self.gateway.kill)

    async def strike(self, how: signal.Signals, deadline_s: float = DEADLINE_S) -> None:
        """Send the gateway a signal in the very moment when something new comes to the cloud: what it hands over must be stored."""
        struck = threading.Event()

        def hit() -> None:  # in the thread of the cloud
            self.oracle.on_new = None
            os.kill(self.gateway.pid, how)
            struck.set()

        self.oracle.on_new = hit
        await self.until("a record to strike at", struck.is_set, deadline_s)

    async def reload(self, document: dict[str, Any] | None = None) -> None:  # Any: JSON
        """Have the gateway take ``document`` (or the one of the plan again); returns when it has."""
        self.lives += 1
        self.gateway.write(document or self.site())
        await asyncio.to_thread(self.gateway.reload)

    def broker_goes_or_comes(self, chance: random.Random, *, goes: float, comes: float) -> None:
        """Perhaps the broker is killed, so that records wait over whatever comes next, or is started again."""
        if chance.random() < (goes if self.broker_runs else comes):
            self.set_broker(not self.broker_runs)

    def set_broker(self, runs: bool) -> None:
        """Have the broker run, or killed; as it is already is fine."""
        if runs != self.broker_runs:
            self.broker_runs = runs
            (self.broker.start if runs else self.broker.kill)()

    async def ledger(self) -> dict[str, Any]:  # Any: JSON
        """The uplink's telemetry account, asked of the running gateway."""
        account: dict[str, Any] = (await self.stat())["readers"][UPLINK]["telemetry"]  # Any: JSON
        return account

    async def stat(self) -> dict[str, Any]:  # Any: JSON
        """The whole ledger."""
        async for line in ask(self.journal, Stat()):
            return line
        raise AssertionError("the gateway answered nothing")

    async def arrive(self, records: int, deadline_s: float = DEADLINE_S) -> None:
        """Wait until ``records`` more different records have come to the cloud."""
        wanted = self.oracle.records + records
        await self.until(f"{records} more records come", lambda: self.oracle.records >= wanted, deadline_s)

    async def flows(self, deadline_s: float = DEADLINE_S) -> None:
        """Wait until of every device something comes that the field gave after this was called."""
        rounds = dict(zip(self.names, await self.field.rounds(), strict=True))
        await self.until(
            "something new comes of every device",
            lambda: all(max(self.oracle.devices[name].scans, default=0) > last for name, last in rounds.items()),
            deadline_s,
        )

    async def wait_pending(self, records: float, deadline_s: float = DEADLINE_S) -> None:
        """Wait until so many records wait for the uplink."""
        end = time.monotonic() + deadline_s
        while (await self.ledger())["pending"] < records:
            assert time.monotonic() < end, f"not within {deadline_s:g} s: {records:g} records are pending; {await self.ledger()}"
            await asyncio.sleep(0.05)

    async def until(self, what: str, true: Callable[[], bool], deadline_s: float = DEADLINE_S) -> None:
        end = time.monotonic() + deadline_s
        while not true():
            assert time.monotonic() < end, f"not within {deadline_s:g} s: {what}; {self.state()}"
            await asyncio.sleep(0.02)

    def state(self) -> str:
        """A few words for whoever reads a failure."""
        return (
            f"{self.oracle.records} records came, {self.oracle.duplicates} twice, cloud connected {self.cloud.connected} times, "
            f"could not understand {self.cloud.malformed[:3]}, gateway's life {self.lives}, its log ends:\n{self.gateway.end_of_log()}"
        )

    async def drained(self, deadline_s: float = 60.0) -> dict[str, Any]:  # Any: JSON
        """Stop scanning, wait until nothing is pending and every loss was told; the ledger then."""
        document = self.site()
        self.gateway.write({**document, "connections": []})
        await asyncio.to_thread(self.gateway.reload)
        end = time.monotonic() + deadline_s
        while True:
            ledger = await self.ledger()
            if ledger["pending"] == ledger["untold"] == 0:
                return ledger
            assert time.monotonic() < end, f"not drained within {deadline_s:g} s: {ledger}; {self.state()}"
            await asyncio.sleep(0.05)

    async def finish(
        self, *, most_in_flight: int = 0, quarantined: int = 0, deadline_s: float = 60.0, excused: Container[str] = ()
    ) -> Verdict:
        """Drain, stop the gateway properly, and judge. Of ``excused`` devices scans may be absent: the field answered in vain."""
        ledger = await self.drained(deadline_s)
        assert await asyncio.to_thread(self.gateway.stop) == 0, self.state()
        assert not self.cloud.malformed, self.cloud.malformed[:5]
        rounds = zip(self.names, await self.field.rounds(), strict=True)
        answered = {name: last for name, last in rounds if name not in excused}
        return self.oracle.judge(answered, ledger, lives=self.lives, most_in_flight=most_in_flight, quarantined=quarantined)


@asynccontextmanager
async def rig(folder: Path, plan: Plan | None = None) -> AsyncIterator[Rig]:
    """All parts running, the gateway too."""
    plan = plan or Plan()
    oracle = Oracle()
    with Mosquitto(folder / "broker", plan.broker, quiet=True) as broker:
        async with FastModbus(ports=plan.devices) as field, Proxy("127.0.0.1", broker.port) as proxy:
            with Cloud(GROUP, GATEWAY, broker.port, oracle, acknowledge=plan.acknowledge == "consumer") as cloud:
                plant = Rig(plan, folder, field, broker, proxy, cloud, oracle)
                await plant.until("the cloud is connected", lambda: cloud.connected > 0)
                if plan.before is not None:
                    await plan.before(plant)
                try:
                    await plant.start()
                    yield plant
                finally:
                    plant.gateway.end()


def many(ci: int, long: int) -> int:
    """How often a campaign does its harm: HOLDFAST_COUNT where that is set."""
    return int(os.environ.get("HOLDFAST_COUNT", long if figures.LONG else ci))


def spread(name: str, seconds: Sequence[float]) -> dict[str, float]:
    """Median, 99th percentile and greatest of a measured time, for :func:`tests.faults.figures.record`."""
    ranked = sorted(seconds)
    rank = {"p50": ceil(len(ranked) * 0.5), "p99": ceil(len(ranked) * 0.99), "max": len(ranked)}
    return {f"{name}_{which}_s": round(ranked[at - 1], 3) for which, at in rank.items()} if ranked else {}


def dice(test: str) -> random.Random:
    """Chance that can be repeated: the seed is printed, and taken from HOLDFAST_SEED where that is set."""
    seed = int(os.environ.get("HOLDFAST_SEED", random.SystemRandom().randrange(10**6)))
    print(f"{test}: HOLDFAST_SEED={seed}")  # noqa: T201 - who repeats a failure needs it
    return random.Random(seed)
