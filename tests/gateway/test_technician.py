"""A technician's story: an unknown energy meter on a serial line is found, identified by its display, described and delivered.

Everything is done with the command line, as in ``docs/tutorial/unknown-meter.md``. The meter is libmodbus in C behind a line of
9,600 baud; its registers are laid out as an Eastron SDM630's. The broker is mosquitto.
"""

from __future__ import annotations

import asyncio
import json
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any

import yaml

from protocols.trace import pcapng
from tests.peers.holdfast import Holdfast, until
from tests.peers.leash import start
from tests.peers.meter import Meter
from tests.peers.mosquitto import Mosquitto
from tests.peers.wire import Wire

UNIT = 11
BAUD = 9600
FLOATS = {0: 230.43, 2: 229.8, 4: 231.6, 6: 5.12, 12: 1180.0, 52: 3450.0, 70: 49.98, 72: 1234.5, 342: 1250.25}
"""Input registers of the meter: voltages, a current, powers, frequency, energies."""
MOST_COMMANDS = 14


@asynccontextmanager
async def line_with_a_meter() -> AsyncIterator[tuple[Wire, Meter]]:
    with Wire(baud=BAUD, bits=10, tap=True) as wire:
        async with Meter(wire.tap_path, BAUD, unit=UNIT) as meter:
            for register, value in FLOATS.items():
                await meter.show(register, value)
            yield wire, meter


class Beside:
    """A command that runs while others are typed."""

    def __init__(self, process: subprocess.Popen[bytes], out: Path) -> None:
        self.process, self._out = process, out

    def said(self) -> str:
        return self._out.read_text()


class Terminal:
    """Types commands and counts them."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.typed: list[tuple[str, ...]] = []

    async def __call__(self, *words: str | Path, code: int = 0) -> str:
        """What ``holdfast ...`` prints; it must end with ``code``."""
        done = await asyncio.to_thread(self._run, tuple(map(str, words)))
        assert done.returncode == code, f"{words}\n{done.stdout}\n{done.stderr}"
        return done.stdout

    @contextmanager
    def beside(self, *words: str) -> Iterator[Beside]:
        """A command in a terminal of its own."""
        self.typed.append(words)
        out = self.folder / words[0]
        with out.open("wb") as sink:
            process = start(sys.executable, "-m", "gateway", *words, stdout=sink)
            try:
                yield Beside(process, out)
            finally:
                if process.poll() is None:
                    process.kill()
                process.wait(10)

    def _run(self, words: tuple[str, ...]) -> subprocess.CompletedProcess[str]:
        self.typed.append(words)
        command = [sys.executable, "-m", "gateway", *words]
        return subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)


async def test_an_unknown_meter_is_found_identified_and_delivered(tmp_path: Path) -> None:
    """In less than 15 commands, from the serial port to the consumer's verdict that nothing is missing."""
    holdfast = Terminal(tmp_path)
    with Mosquitto(tmp_path / "broker") as broker:
        async with line_with_a_meter() as (wire, meter):
            # Which meter is on the line, and how is the line set?
            said = await holdfast("scan", "serial", wire.path, "--unit-ids", "1-12")
            assert f"unit id {UNIT} on {wire.path}, {BAUD} 8N1" in said
            (connection,) = yaml.safe_load(said.partition("\n\n")[2])
            # Its display shows 230.4 V, and a moment later 231.0.
            place = ("--serial", wire.path, "--baud", str(BAUD), "--unit-id", str(UNIT), "--last", "249", "--keep", tmp_path / "volts")
            assert "input:0" in await holdfast("find-number", *place, "230.4 V")
            await meter.show(0, 231.02)
            (found,) = (await holdfast("find-number", *place, "--and", "231.0", "--drift", "0")).splitlines()
            assert found.startswith('- {name: value, at: "input:0", kind: float32, unit: V}')
            # A float at input register 0: who makes such meters?
            assert "eastron/sdm630" in await holdfast("template", "list", "eastron sdm630")
            line = ("--serial", wire.path, "--baud", str(BAUD), "--parity", "none", "--stop-bits", "1", "--unit-id", str(UNIT))
            (device,) = _devices(await holdfast("template", "try", "eastron/sdm630", *line, "--as-device", "main-meter"))
            # The document: what the scan printed, and what the trial printed.
            uplink = {"name": "cloud", "type": "sparkplug", "host": "127.0.0.1", "port": broker.port}
            site: dict[str, Any] = {  # Any: JSON
                "holdfast": 1,
                "gateway": {"group": "plant-7", "name": "gw-01"},
                "connections": [{**connection, "name": "meters", "devices": [device]}],
                "uplinks": [uplink],
            }
            gateway = Holdfast(tmp_path / "gateway", site)
            await holdfast("check", gateway.site_file)
            assert f"unit id {UNIT} answers" in await holdfast("probe", gateway.site_file, "meters")
            with holdfast.beside("consume", "plant-7", "gw-01", "--port", str(broker.port), "--from-beginning") as consuming:
                await asyncio.to_thread(until, "the consumer listens", lambda: "SUBSCRIBE" in broker.log())
                holdfast.typed.append(("run", str(gateway.site_file)))
                await asyncio.to_thread(gateway.start)
                try:
                    await _watched(holdfast, gateway, consuming)
                finally:
                    await asyncio.to_thread(gateway.end)
    assert len(holdfast.typed) <= MOST_COMMANDS


async def _watched(holdfast: Terminal, gateway: Holdfast, consuming: Beside) -> None:
    """The gateway runs: its line is looked at, and the consumer has everything."""
    file = gateway.folder / "line.pcapng"
    await holdfast("trace", gateway.site_file, "meters", "--for", "3", "--out", file)
    frames = pcapng.frames(file.read_bytes())
    assert frames
    assert not [frame.trouble for frame in frames if frame.trouble]
    await asyncio.to_thread(until, "the consumer has values and a ledger mark", lambda: '"voltage/l1"' in consuming.said())
    (ledger,) = json.loads("[" + await holdfast("journal", "stat", gateway.site_file) + "]")
    assert ledger["lanes"]["telemetry"]["appended"] > 0
    consuming.process.send_signal(signal.SIGINT)
    assert await asyncio.to_thread(consuming.process.wait, 30) == 0, consuming.said()
    verdict = json.loads(consuming.said().splitlines()[-1])["verdict"]
    assert verdict["received"] > 0
    assert (verdict["missing"], verdict["lost"]) == (0, {})
    assert "main-meter" in consuming.said()


def _devices(printed: str) -> list[dict[str, Any]]:  # Any: JSON
    """The device block that ``template try`` prints."""
    block = yaml.safe_load(printed)
    devices: list[dict[str, Any]] = block if isinstance(block, list) else block.get("devices", [block])
    return devices
