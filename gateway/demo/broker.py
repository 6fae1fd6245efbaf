"""A local MQTT broker for the demonstration: mosquitto where it is installed, else the one that comes as a Python package.

Either is a process of its own with its own configuration in a folder of its own, on a free port of the loopback
interface; a broker that runs on this machine already is not touched. ``stop`` kills it without a goodbye, which is what
an outage looks like, and ``start`` brings it back on the same port with no memory of what it held.
"""

from __future__ import annotations

import asyncio
import json
import shutil
import socket
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal

from protocols.clock import Clock

START_S: Final = 10.0
"""How long a broker may take to answer."""
CHECK_S: Final = 0.05
HOST: Final = "127.0.0.1"
DIE_WITH_US: Final = ("setpriv", "--pdeathsig", "KILL") if shutil.which("setpriv") else ()
"""Before a command: the kernel ends it when we are ended without a chance to do so."""


class NoBroker(Exception):
    """No broker can be started. The text says why and what to do."""


@dataclass(frozen=True)
class Flavour:
    """A kind of broker: what it is called, what it speaks, and how it is started."""

    name: str
    protocol: Literal["3.1.1", "5"]
    command: tuple[str, ...]
    """Without the configuration file, which follows."""
    configuration: Callable[[int], str]


def _mosquitto_conf(port: int) -> str:
    lines = (
        f"listener {port} {HOST}",
        "allow_anonymous true",
        "persistence false",
        "max_queued_messages 0",  # 0 is no limit: a slow consumer is never cut short
        "max_inflight_messages 0",
        "log_type warning",
        "log_type error",
    )
    return "\n".join(lines) + "\n"


def _amqtt_conf(port: int) -> str:
    return json.dumps(  # JSON is YAML
        {
            "listeners": {"default": {"type": "tcp", "bind": f"{HOST}:{port}"}},
            "plugins": {"amqtt.plugins.authentication.AnonymousAuthPlugin": {"allow_anonymous": True}},
        }
    )


def flavours() -> list[Flavour]:
    """What can be started on this machine, the best first."""
    found = []
    if path := shutil.which("mosquitto") or shutil.which("mosquitto", path="/usr/sbin:/usr/local/sbin"):
        found.append(Flavour("mosquitto", "5", (path, "-c"), _mosquitto_conf))
    beside = Path(sys.executable).parent
    if path := shutil.which("amqtt", path=str(beside)) or shutil.which("amqtt"):
        found.append(Flavour("amqtt", "3.1.1", (path, "-c"), _amqtt_conf))
    return found


def free_port() -> int:
    with socket.socket() as taken:
        taken.bind((HOST, 0))
        port: int = taken.getsockname()[1]
        return port


class Broker:
    """One broker on one port, started and stopped at will. Made by ``running``."""

    def __init__(self, flavour: Flavour, folder: Path, clock: Clock) -> None:
        self.flavour = flavour
        self.host: Final = HOST
        self.port: Final = free_port()
        self._log = folder / "broker.log"
        self._conf = folder / "broker.conf"
        self._conf.write_text(flavour.configuration(self.port))
        self._clock = clock
        self._process: asyncio.subprocess.Process | None = None

    @property
    def up(self) -> bool:
        return self._process is not None and self._process.returncode is None

    async def start(self) -> None:
        """Start it and wait until it takes connections. Raises NoBroker with the end of its log if it does not."""
        with self._log.open("ab") as log:
            self._process = await asyncio.create_subprocess_exec(
                *DIE_WITH_US, *self.flavour.command, str(self._conf), stdout=log, stderr=log, start_new_session=True
            )  # a session of its own, so that Ctrl-C on our terminal does not reach it
        end = self._clock.monotonic() + START_S
        while not await self._answers():
            if not self.up or self._clock.monotonic() > end:
                said = self._log.read_text(errors="replace")[-500:].strip()
                await self.stop()
                raise NoBroker(f"{self.flavour.name} did not start on {self.host}:{self.port}: {said or 'it said nothing'}")
            await self._clock.sleep_until(self._clock.monotonic() + CHECK_S)

    async def stop(self) -> None:
        """Kill it: no goodbye to anybody, nothing written."""
        process, self._process = self._process, None
        if process is not None:
            with suppress(ProcessLookupError):
                process.kill()
            await process.wait()

    async def _answers(self) -> bool:
        try:
            _, writer = await asyncio.open_connection(self.host, self.port)
        except OSError:
            return False
        writer.close()
        with suppress(OSError):
            await writer.wait_closed()
        return True


def choose(name: str) -> Flavour:
    """The flavour called ``name``, or the best one where that is empty. Raises NoBroker where it is not installed."""
    found = flavours()
    for each in found:
        if name in ("", each.name):
            return each
    what = name or "an MQTT broker"
    raise NoBroker(f"{what} is not installed: apt-get install mosquitto, or pip install 'holdfast[demo]' for the embedded one")


@asynccontextmanager
async def running(folder: Path, clock: Clock, flavour: Flavour) -> AsyncIterator[Broker]:
    """A started broker, killed on exit. Raises NoBroker where it does not start."""
    broker = Broker(flavour, folder, clock)
    try:
        await broker.start()
        yield broker
    finally:
        await broker.stop()
