"""The simulated plant on the wire: register maps of five devices behind three Modbus TCP servers.

A device is a table of signals: where each value sits, how it is encoded, and what it is in the model. The table alone
makes the register image, the writes that reach the model, and the part of the site document that reads it. The maps
are like those of real devices, nuisances included: words swapped, scaled integers, bits in a status word, a 64-bit
counter, a hole in the middle. The servers are pymodbus's, so that what answers is not our own code.
"""

from __future__ import annotations

import asyncio
import math
import struct
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass
from typing import Any, Final, Literal

from pymodbus.server import ModbusTcpServer
from pymodbus.simulator import DataType, SimData, SimDevice

from gateway.demo.physics import Meter, Plant
from protocols.clock import Clock

Value = bool | int | float | str
Table = Literal["coil", "discrete", "holding", "input"]

FORMATS: Final = {
    "int16": ">h",
    "uint16": ">H",
    "int32": ">i",
    "uint32": ">I",
    "int64": ">q",
    "uint64": ">Q",
    "float32": ">f",
    "float64": ">d",
}
TABLES: Final[tuple[Table, ...]] = ("coil", "discrete", "holding", "input")
FUNCTION: Final[dict[Table, int]] = {"coil": 15, "discrete": 2, "holding": 16, "input": 4}
"""The function code under which pymodbus's server keeps each table."""
STEP_S: Final = 0.1


@dataclass(frozen=True)
class Signal:
    """One value of a simulated device."""

    name: str
    at: str
    kind: str
    unit: str
    read: Callable[[Plant], Value]
    deadband: float = 0.0
    scale: float = 1.0
    little: bool = False
    """The low word first."""
    words: int = 0
    """Length of a string in registers."""
    write: Callable[[Plant, Value], None] | None = None

    @property
    def table(self) -> Table:
        return next(table for table in TABLES if self.at.startswith(table + ":"))

    @property
    def address(self) -> int:
        return int(self.at.partition(":")[2].partition(".")[0])

    @property
    def bit(self) -> int | None:
        """Bit of a register, counted from the least significant; None for a whole value."""
        _, dot, bit = self.at.partition(".")
        return int(bit) if dot else None


@dataclass(frozen=True)
class Unit:
    """One simulated device."""

    name: str
    unit_id: int
    scan_s: float
    signals: tuple[Signal, ...]


@dataclass(frozen=True)
class Line:
    """One Modbus TCP server with its devices: a connection of the site."""

    name: str
    units: tuple[Unit, ...]


def _set(part: str, attribute: str, cast: Callable[[Any], Value]) -> Callable[[Plant, Value], None]:  # Any: float() and bool() take it
    return lambda plant, value: setattr(getattr(plant, part), attribute, cast(value))


BOILER: Final = (
    Signal("steam/pressure", "holding:0", "float32", "bar", lambda p: p.boiler.pressure_bar, deadband=0.01),
    Signal("burner/on", "coil:3", "bool", "", lambda p: p.boiler.burning),
    Signal("steam/temperature", "holding:2", "float32", "°C", lambda p: p.boiler.temperature_c, deadband=0.05),
    Signal("steam/flow", "holding:4", "float32", "t/h", lambda p: p.boiler.steam_t_h, deadband=0.02),
    Signal("drum/level", "holding:6", "float32", "%", lambda p: p.boiler.level_percent, deadband=0.05),
    Signal("feedwater/flow", "holding:8", "float32", "t/h", lambda p: p.boiler.feedwater_t_h, deadband=0.02),
    Signal("feedwater/temperature", "holding:10", "float32", "°C", lambda p: p.boiler.feedwater_c.value, deadband=0.05),
    Signal("flue/temperature", "holding:12", "float32", "°C", lambda p: p.boiler.flue.value, deadband=0.1),
    Signal("flue/oxygen", "holding:14", "float32", "%", lambda p: p.boiler.oxygen_percent, deadband=0.02),
    Signal("gas/flow", "holding:16", "float32", "m3/h", lambda p: p.boiler.gas_m3_h, deadband=0.5),
    Signal("efficiency", "holding:18", "uint16", "%", lambda p: p.boiler.efficiency * 100, scale=0.1),
    Signal("burner/modulation", "holding:19", "uint16", "%", lambda p: p.boiler.modulation_percent, scale=0.1),
    Signal("status/running", "holding:20.0", "bool", "", lambda p: p.boiler.burning),
    Signal("status/modulating", "holding:20.1", "bool", "", lambda p: 20 < p.boiler.modulation_percent < 100),
    Signal("status/low-water", "holding:20.8", "bool", "", lambda p: p.boiler.low_water),
    Signal("status/high-pressure", "holding:20.9", "bool", "", lambda p: p.boiler.high_pressure),
    Signal(
        "steam/pressure-setpoint",
        "holding:40",
        "float32",
        "bar",
        lambda p: p.boiler.setpoint_bar,
        write=_set("boiler", "setpoint_bar", float),
    ),
    Signal("feedwater/total", "input:10", "uint32", "m3", lambda p: p.boiler.feedwater_total_m3, scale=0.001, little=True),
    Signal("gas/total", "input:12", "uint32", "m3", lambda p: p.boiler.gas_total_m3, scale=0.01, little=True),
    Signal("burner/starts", "input:14", "uint16", "", lambda p: p.boiler.starts),
    Signal("burner/runtime", "input:15", "uint32", "h", lambda p: p.boiler.runtime_s / 3600, scale=0.01, little=True),
    Signal("model", "input:20", "string", "", lambda _: "FT-6000 sim", words=8),
    Signal("burner/enable", "coil:0", "bool", "", lambda p: p.boiler.enabled, write=_set("boiler", "enabled", bool)),
    Signal("flame", "discrete:0", "bool", "", lambda p: p.boiler.burning),
    Signal("safety/low-water", "discrete:1", "bool", "", lambda p: p.boiler.low_water),
    Signal("safety/high-pressure", "discrete:2", "bool", "", lambda p: p.boiler.high_pressure),
)

TANK: Final = (
    Signal("level", "input:0", "int16", "m", lambda p: p.tank.level_m, scale=0.001),
    Signal("pump/on", "discrete:0", "bool", "", lambda p: p.tank.pump_on),
    Signal("temperature", "input:1", "int16", "°C", lambda p: p.tank.water_c.value, scale=0.1),
    Signal("volume", "input:2", "float32", "m3", lambda p: p.tank.volume_m3, deadband=0.002),
    Signal("inflow", "input:4", "float32", "m3/h", lambda p: p.tank.inflow_m3_h, deadband=0.05),
    Signal("outflow", "input:6", "float32", "m3/h", lambda p: p.tank.outflow_m3_h, deadband=0.05),
    Signal("valve/opening", "input:8", "uint16", "%", lambda p: p.tank.valve.value, scale=0.1),
    Signal("delivered/total", "input:9", "uint32", "m3", lambda p: p.tank.delivered_total_m3, scale=0.001),
    Signal("pump/speed", "input:20", "uint16", "rpm", lambda p: p.tank.speed.value),
    Signal("pump/current", "input:21", "float32", "A", lambda p: p.tank.current_a, deadband=0.05),
    Signal("pump/power", "input:23", "float32", "kW", lambda p: p.tank.electrical_kw, deadband=0.02),
    Signal("pump/starts", "input:25", "uint32", "", lambda p: p.tank.starts),
    Signal("pump/runtime", "input:27", "uint32", "h", lambda p: p.tank.runtime_s / 3600, scale=0.01),
    Signal("level/start", "holding:0", "float32", "m", lambda p: p.tank.start_m, write=_set("tank", "start_m", float)),
    Signal("level/stop", "holding:2", "float32", "m", lambda p: p.tank.stop_m, write=_set("tank", "stop_m", float)),
    Signal("pump/automatic", "coil:0", "bool", "", lambda p: p.tank.automatic, write=_set("tank", "automatic", bool)),
    Signal("pump/hand", "coil:1", "bool", "", lambda p: p.tank.hand_on, write=_set("tank", "hand_on", bool)),
    Signal("level/low", "discrete:1", "bool", "", lambda p: p.tank.low),
    Signal("level/high", "discrete:2", "bool", "", lambda p: p.tank.high),
)


def float_meter(meter: Callable[[Plant], Meter], *, little: bool) -> tuple[Signal, ...]:
    """A meter whose readings are float32 from input register 0 on, in the order of many European meters.

    Registers 24 to 29 do not exist: a block that spans them is answered with "illegal data address".
    """

    def row(name: str, address: int, unit: str, read: Callable[[Meter], float], deadband: float) -> Signal:
        return Signal(name, f"input:{address}", "float32", unit, lambda p: read(meter(p)), deadband=deadband, little=little)

    phases = ((0, "L1"), (1, "L2"), (2, "L3"))
    return (
        row("power/total", 18, "kW", lambda m: m.kw, 0.05),
        *(row(f"voltage/{name}", 2 * i, "V", lambda m, i=i: m.volts[i], 0.1) for i, name in phases),  # type: ignore[misc]  # i is bound now
        *(row(f"current/{name}", 6 + 2 * i, "A", lambda m, i=i: m.amps[i], 0.05) for i, name in phases),  # type: ignore[misc]  # i is bound now
        *(row(f"power/{name}", 12 + 2 * i, "kW", lambda m, i=i: m.phase_kw[i], 0.02) for i, name in phases),  # type: ignore[misc]  # i is bound now
        row("power/reactive", 20, "kvar", lambda m: m.reactive_kvar, 0.05),
        row("power/apparent", 22, "kVA", lambda m: m.apparent_kva, 0.05),
        row("power/factor", 30, "", lambda m: m.power_factor, 0.001),
        row("frequency", 32, "Hz", lambda m: m.grid.frequency.value, 0.002),
        *(row(f"voltage/{name}", 34 + 2 * i, "V", lambda m, i=i: m.line_volts[i], 0.1) for i, name in enumerate(("L12", "L23", "L31"))),  # type: ignore[misc]  # i is bound now
        Signal("energy/import", "input:60", "uint64", "kWh", lambda p: meter(p).import_wh / 1000, scale=0.001, little=little),
        Signal("energy/export", "input:64", "uint64", "kWh", lambda p: meter(p).export_wh / 1000, scale=0.001, little=little),
    )


def integer_meter(meter: Callable[[Plant], Meter]) -> tuple[Signal, ...]:
    """A small meter of the older kind: scaled integers in holding registers."""

    def row(name: str, address: int, kind: str, unit: str, read: Callable[[Meter], float], scale: float) -> Signal:
        return Signal(name, f"holding:{address}", kind, unit, lambda p: read(meter(p)), scale=scale)

    return (
        row("power/total", 9, "int32", "W", lambda m: m.kw * 1000, 1.0),
        *(row(f"voltage/L{i + 1}", i, "uint16", "V", lambda m, i=i: m.volts[i], 0.1) for i in range(3)),  # type: ignore[misc]  # i is bound now
        *(row(f"current/L{i + 1}", 3 + 2 * i, "int32", "A", lambda m, i=i: m.amps[i], 0.001) for i in range(3)),  # type: ignore[misc]  # i is bound now
        row("power/reactive", 11, "int32", "var", lambda m: m.reactive_kvar * 1000, 1.0),
        row("power/factor", 13, "int16", "", lambda m: m.power_factor, 0.001),
        row("frequency", 14, "uint16", "Hz", lambda m: m.grid.frequency.value, 0.01),
        row("energy/import", 15, "uint32", "kWh", lambda m: m.import_wh / 1000, 0.01),
    )


LINES: Final = (
    Line("boiler-house", (Unit("boiler-1", 1, 0.5, BOILER),)),
    Line("water-works", (Unit("tank-1", 1, 0.5, TANK),)),
    Line(
        "meters",
        (
            Unit("meter-main", 1, 1.0, float_meter(lambda p: p.main, little=False)),
            Unit("meter-boiler-house", 2, 1.0, float_meter(lambda p: p.boiler_house, little=True)),
            Unit("meter-water-works", 3, 1.0, integer_meter(lambda p: p.water_works)),
        ),
    ),
)


def registers(signal: Signal, value: Value) -> list[int]:
    """The 16-bit words of ``value`` as the device encodes it; values that do not fit are clipped, as real devices do."""
    if signal.kind == "string":
        raw = str(value).encode("ascii").ljust(2 * signal.words, b"\0")
        return list(struct.unpack(f">{signal.words}H", raw))
    packed = struct.pack(FORMATS[signal.kind], _fit(signal, float(value)))
    words = list(struct.unpack(f">{len(packed) // 2}H", packed))
    return words[::-1] if signal.little else words


def _fit(signal: Signal, value: float) -> float | int:
    if signal.kind.startswith("float"):
        return value
    bits = 8 * struct.calcsize(FORMATS[signal.kind])
    low: int = 0 if signal.kind.startswith("u") else -(1 << (bits - 1))
    high: int = low + (1 << bits) - 1
    return min(max(round(value / signal.scale), low), high)


def decode(signal: Signal, words: Sequence[int]) -> Value:
    """What a master wrote to a writable signal, in its unit."""
    if signal.table == "coil":
        return bool(words[0])
    ordered = words[::-1] if signal.little else words
    (raw,) = struct.unpack(FORMATS[signal.kind], struct.pack(f">{len(ordered)}H", *ordered))
    return float(raw) * signal.scale


def image(unit: Unit, plant: Plant) -> dict[Table, dict[int, int]]:
    """Every address of ``unit`` that exists, with what it holds now."""
    cells: dict[Table, dict[int, int]] = {table: {} for table in TABLES}
    for signal in unit.signals:
        here, value = cells[signal.table], signal.read(plant)
        if signal.bit is not None:
            here[signal.address] = here.get(signal.address, 0) | bool(value) << signal.bit
        elif signal.table in ("coil", "discrete"):
            here[signal.address] = int(bool(value))
        else:
            here.update(enumerate(registers(signal, value), start=signal.address))
    return cells


def runs(cells: dict[int, int]) -> list[tuple[int, list[int]]]:
    """Neighbouring addresses together: ``[(first address, values)]``."""
    found: list[tuple[int, list[int]]] = []
    for address in sorted(cells):
        if found and address == found[-1][0] + len(found[-1][1]):
            found[-1][1].append(cells[address])
        else:
            found.append((address, [cells[address]]))
    return found


def connections(ports: dict[str, int], host: str = "127.0.0.1") -> list[dict[str, Any]]:  # Any: a document, as YAML has it
    """The ``connections`` of a site document that reads the whole plant; ``ports`` by line."""
    return [
        {
            "name": line.name,
            "type": "modbus-tcp",
            "host": host,
            "port": ports[line.name],
            "timeout_s": 1.0,
            "devices": [
                {"name": unit.name, "unit_id": unit.unit_id, "scan_s": unit.scan_s, "tags": [_tag(signal) for signal in unit.signals]}
                for unit in line.units
            ],
        }
        for line in LINES
    ]


def _tag(signal: Signal) -> dict[str, Any]:  # Any: a document, as YAML has it
    said: dict[str, Any] = {"name": signal.name, "at": signal.at, "kind": signal.kind}  # Any: as above
    if signal.unit:
        said["unit"] = signal.unit
    if signal.scale != 1.0:
        said["scale"] = signal.scale
    if signal.little:
        said["word_order"] = "little"
    if signal.words:
        said["length"] = 2 * signal.words
    if signal.deadband:
        said["deadband"] = signal.deadband
    if signal.write:
        said["writable"] = True
    return said


class Served:
    """One line's server, and the way between its registers and the plant."""

    def __init__(self, line: Line, plant: Plant, host: str, port: int) -> None:
        self._line, self._plant = line, plant
        self._server = ModbusTcpServer([_sim_device(unit, plant) for unit in line.units], address=(host, port))

    async def start(self) -> int:
        """Listen; the port that was taken."""
        await self.show()
        await self._server.serve_forever(background=True)
        listening: Any = self._server.transport  # Any: declared as a transport, an asyncio.Server in truth
        return int(listening.sockets[0].getsockname()[1])

    async def stop(self) -> None:
        await self._server.shutdown()  # type: ignore[no-untyped-call]  # the library leaves it bare

    async def take_writes(self) -> None:
        """Hand what masters wrote since the last image to the plant."""
        for unit in self._line.units:
            for signal in unit.signals:
                if signal.write is None:
                    continue
                now = registers(signal, signal.read(self._plant)) if signal.table == "holding" else [int(bool(signal.read(self._plant)))]
                held = await self._server.async_getValues(unit.unit_id, 1 if signal.table == "coil" else 3, signal.address, len(now))
                value = decode(signal, [int(word) for word in held])
                if [int(word) for word in held] != now and math.isfinite(float(value)):
                    signal.write(self._plant, value)

    async def show(self) -> None:
        """Put the plant's present state into the registers."""
        for unit in self._line.units:
            for table, cells in image(unit, self._plant).items():
                for address, values in runs(cells):
                    held: list[int] | list[bool] = [bool(value) for value in values] if table in ("coil", "discrete") else values
                    await self._server.async_setValues(unit.unit_id, FUNCTION[table], address, held)


def _sim_device(unit: Unit, plant: Plant) -> SimDevice:
    cells = image(unit, plant)

    def blocks(table: Table) -> list[SimData]:
        if table in ("coil", "discrete"):
            return [SimData(0, values=[False] * 16, datatype=DataType.BITS)]
        found = [SimData(address, count=len(values), datatype=DataType.REGISTERS) for address, values in runs(cells[table])]
        return found or [SimData(0, datatype=DataType.REGISTERS)]

    return SimDevice(unit.unit_id, simdata=(blocks("coil"), blocks("discrete"), blocks("holding"), blocks("input")))


@asynccontextmanager
async def running(plant: Plant, *, clock: Clock, lines: Iterable[Line] = LINES, host: str = "127.0.0.1") -> AsyncIterator[dict[str, int]]:
    """Serve ``plant`` and let it live; yields the port of each line. Ends the servers and the life on exit."""
    async with AsyncExitStack() as stack:
        served, ports = [], {}
        for line in lines:
            server = Served(line, plant, host, 0)
            ports[line.name] = await server.start()
            stack.push_async_callback(server.stop)
            served.append(server)
        life = asyncio.create_task(_live(plant, served, clock), name="plant")
        try:
            yield ports
        finally:
            life.cancel()
            with suppress(asyncio.CancelledError):
                await life


async def _live(plant: Plant, served: Sequence[Served], clock: Clock) -> None:
    """Step the plant with the clock; what was written is taken before and shown after each step."""
    before = clock.monotonic()
    while True:
        now = clock.monotonic()
        for each in served:
            await each.take_writes()
        plant.step(now - before)
        for each in served:
            await each.show()
        before = now
        await clock.sleep_until(now + STEP_S)
