"""The driver contract for Modbus: TCP, RTU over TCP and TLS against libmodbus, RTU on a line that takes its time."""

from __future__ import annotations

import math
import ssl
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Final

import pytest

from protocols.contract import Driver
from protocols.modbus import driver as modbus
from protocols.modbus.config import Device, ModbusRtu, ModbusRtuTcp, ModbusTcp, ModbusTls, Tag
from protocols.model import Kind
from protocols.tls import Tls
from tests.contract.driver_suite import GHOST, LEVEL, ONE, SETPOINT, STUCK, TWO, DriverSuite, Rig, Value
from tests.peers.certificates import Pki, make_pki
from tests.peers.hostile import MISDEEDS, TCP_ONLY, Framing, HostilePeer
from tests.peers.libmodbus import LibmodbusLine, LibmodbusServer, Table, registers
from tests.peers.proxy import Proxy
from tests.peers.unit import Unit
from tests.peers.wire import Faults, Wire

UNIT_OF: Final = {ONE: 1, TWO: 2}
SCAN_S: Final = 0.02
LINE_SCAN_S: Final = 0.1
TIMEOUT_S: Final = 0.15
BAUD: Final = 115200
LEVEL_AT, SETPOINT_AT, STUCK_AT, GHOST_AT = 300, 310, 320, 400
READS: Final = frozenset({1, 2, 3, 4})

WORDS: Final[dict[str, tuple[str, Kind, str, Value]]] = {
    # name: struct letter, kind, table, value
    "int16/least": ("h", Kind.INT16, "holding", -(2**15)),
    "int32/least": ("i", Kind.INT32, "holding", -(2**31)),
    "int64/least": ("q", Kind.INT64, "holding", -(2**63)),
    "int64/most": ("q", Kind.INT64, "input", 2**63 - 1),
    "int64/odd": ("q", Kind.INT64, "input", 2**53 + 1),
    "uint16/most": ("H", Kind.UINT16, "holding", 2**16 - 1),
    "uint32/most": ("I", Kind.UINT32, "holding", 2**32 - 1),
    "uint64/most": ("Q", Kind.UINT64, "holding", 2**64 - 1),
    "uint64/odd": ("Q", Kind.UINT64, "input", 2**63 + 1),
    "float32/exact": ("f", Kind.FLOAT32, "holding", 1.5),
    "float32/nan": ("f", Kind.FLOAT32, "holding", math.nan),
    "float32/inf": ("f", Kind.FLOAT32, "input", math.inf),
    "float32/zero": ("f", Kind.FLOAT32, "input", -0.0),
    "float64/tenth": ("d", Kind.FLOAT64, "holding", 0.1),
    "float64/inf": ("d", Kind.FLOAT64, "input", -math.inf),
    "float64/nan": ("d", Kind.FLOAT64, "input", math.nan),
    "float64/least": ("d", Kind.FLOAT64, "holding", 5e-324),
}
RAW: Final[dict[str, tuple[Kind, str, list[int], int, Value]]] = {
    # name: kind, place, registers or bits, length, value
    "int8/least": (Kind.INT8, "holding:200", [0x0080], 0, -128),
    "uint8/most": (Kind.UINT8, "holding:201", [0x00FF], 0, 255),
    "text": (Kind.STRING, "holding:202", [0x5075, 0x6D70, 0xC3A9, 0x0000], 8, "Pumpé"),
    "raw": (Kind.BYTES, "holding:206", [0x0001, 0xFF00], 4, b"\x00\x01\xff\x00"),
    "coil": (Kind.BOOL, "coil:3", [1], 0, True),
    "discrete": (Kind.BOOL, "discrete:4", [1], 0, True),
}
WRITABLE: Final = (
    Tag(name=SETPOINT, at=f"holding:{SETPOINT_AT}", kind=Kind.FLOAT32, writable=True),
    Tag(name=STUCK, at=f"holding:{STUCK_AT}", kind=Kind.UINT16, writable=True),
    Tag(name=LEVEL, at=f"holding:{LEVEL_AT}", kind=Kind.UINT16),
    Tag(name=GHOST, at=f"holding:{GHOST_AT}", kind=Kind.UINT16),
)


def _places() -> dict[str, tuple[Table, int]]:
    """Where each of WORDS lies: one after the other, with a gap of one register."""
    places: dict[str, tuple[Table, int]] = {}
    free: dict[Table, int] = {"holding": 0, "input": 0}
    for name, (letter, _, table, value) in WORDS.items():
        kind: Table = "input" if table == "input" else "holding"
        places[name] = (kind, free[kind])
        free[kind] += len(registers(letter, float(value) if isinstance(value, float) else int(value))) + 1
    return places


def _tags() -> tuple[Tag, ...]:
    words = [Tag(name=name, at=f"{table}:{at}", kind=WORDS[name][1]) for name, (table, at) in _places().items()]
    raw = [Tag(name=name, at=place, kind=kind, length=length) for name, (kind, place, _, length, _) in RAW.items()]
    return (*words, *raw, *WRITABLE)


def _devices(scan_s: float) -> tuple[Device, ...]:
    two = Device(name=TWO, unit_id=UNIT_OF[TWO], scan_s=scan_s, tags=(Tag(name=LEVEL, at=f"holding:{LEVEL_AT}", kind=Kind.UINT16),))
    return (Device(name=ONE, unit_id=UNIT_OF[ONE], scan_s=scan_s, tags=_tags()), two)


BROKEN: Final = (
    Device(
        name="one",
        unit_id=1,
        tags=(
            Tag(name="a", at="holding:65535", kind=Kind.FLOAT64),  # runs over the end
            Tag(name="b", at="nowhere:1", kind=Kind.UINT16),
            Tag(name="c", at="holding:5", kind=Kind.STRING),  # no length
            Tag(name="d", at="input:5", kind=Kind.UINT16, writable=True),  # cannot be written
        ),
    ),
    Device(name="one", unit_id=2, tags=()),  # the same name again
)
FAULTS: Final = frozenset(
    {"devices[0].tags[0].at", "devices[0].tags[1].at", "devices[0].tags[2].length", "devices[0].tags[3].writable", "devices[1].name"}
)


class ModbusRig:
    """A libmodbus server with everything that the suite wants, behind whatever ``driver`` and ``options`` say."""

    expected: dict[str, Value] = {name: value for name, (_, _, _, value) in WORDS.items()} | {name: row[4] for name, row in RAW.items()}
    faults = FAULTS
    peer_tls: ssl.SSLContext | None = None
    """What hostile peers speak."""

    def __init__(self, server: LibmodbusServer, driver: Driver, options: Any, where: str) -> None:  # Any: a kind of connection
        self.server, self.options, self.where = server, options, where
        self.driver: Driver = driver
        self.faulty = type(options)(**{**_fields(options), "devices": BROKEN})

    async def furnish(self) -> None:
        """Put the values where the tags look for them."""
        server = self.server
        for name, (table, at) in _places().items():
            letter, _, _, value = WORDS[name]
            await server.set(1, table, at, *registers(letter, float(value) if isinstance(value, float) else int(value)))
        for _, place, content, _, _ in RAW.values():
            table_name, at_text = place.split(":")
            tables: dict[str, Table] = {"holding": "holding", "coil": "coil", "discrete": "discrete"}
            await server.set(1, tables[table_name], int(at_text), *content)
        await server.hole(1, "holding", GHOST_AT, GHOST_AT)
        await server.keep(1, STUCK_AT, STUCK_AT)

    async def change(self, device: str, value: int) -> None:
        await self.server.set(UNIT_OF[device], "holding", LEVEL_AT, value)

    async def hush(self, device: str, silent: bool) -> None:
        await self.server.silent(UNIT_OF[device], silent)

    async def lose(self) -> None:
        await self.server.stop()

    async def restore(self) -> None:
        await self.server.start()
        await self.furnish()

    async def seen(self) -> list[str]:
        return ["read" if request.function in READS else "write" for request in await self.server.requests()]

    @property
    def framing(self) -> Framing:
        return "rtu" if isinstance(self.options, ModbusRtuTcp) else "tcp"

    @asynccontextmanager
    async def hostile(self, misdeed: str) -> AsyncIterator[HostileModbus]:
        async with HostilePeer(misdeed, framing=self.framing, unit=_telltale(), pace_s=0.05, tls=self.peer_tls) as peer:
            yield HostileModbus(self.options, peer.heal, port=peer.port)


def _telltale() -> Unit:
    """Each register holds another value, so that an answer to another question shows."""
    return Unit(holding={at: at for at in range(1000)})


class HostileModbus:
    """Options that lead to a hostile peer: device one with LEVEL and, far from it, another register."""

    truth = LEVEL_AT

    def __init__(self, like: Any, heal: Callable[[], None], **place: Any) -> None:  # Any: a kind of connection, some of its fields
        tags = (
            Tag(name=LEVEL, at=f"holding:{LEVEL_AT}", kind=Kind.UINT16),
            Tag(name="other", at="holding:700", kind=Kind.UINT16),
        )
        device = Device(name=ONE, unit_id=1, scan_s=SCAN_S, max_gap=0, tags=tags)
        self.options = type(like)(**{**_fields(like), **place, "devices": (device,)})
        self.heal = heal


def _fields(options: Any) -> dict[str, Any]:  # Any: a kind of connection
    return {name: getattr(options, name) for name in options.__struct_fields__}


class TlsRig(ModbusRig):
    """libmodbus has no TLS: a proxy of ours ends it in front of the server, and goes when the server goes."""

    def __init__(self, server: LibmodbusServer, proxy: Proxy, options: ModbusTls) -> None:
        super().__init__(server, modbus.TLS, options, f"127.0.0.1:{proxy.port}")
        self._proxy = proxy

    async def lose(self) -> None:
        await self._proxy.refuse()

    async def restore(self) -> None:
        await self._proxy.heal()


class LineRig(ModbusRig):
    """libmodbus on the far end of a serial line. Its hostile peers are lines that spoil what passes."""

    @asynccontextmanager
    async def hostile(self, misdeed: str) -> AsyncIterator[HostileModbus]:
        with Wire({1: _telltale()}, baud=BAUD) as wire:
            wire.faults = LINE_FAULTS[misdeed]()

            def heal() -> None:
                wire.faults = Faults()

            yield HostileModbus(self.options, heal, serial_port=wire.path)


LINE_FAULTS: Final[dict[str, Callable[[], Faults]]] = {
    "silent": lambda: Faults(silent={1}),
    "cut": lambda: Faults(deaf=True),
    "lossy": lambda: Faults(lose=0.02),
    "noisy": lambda: Faults(corrupt=0.05),
    "late": lambda: Faults(late_s={1: TIMEOUT_S + 0.05}),
    "echo": lambda: Faults(echo=True),
}


def _network(server: LibmodbusServer) -> dict[str, Any]:  # Any: fields of a network connection
    return {"host": "127.0.0.1", "port": server.port, **_common()}


def _common(scan_s: float = SCAN_S) -> dict[str, Any]:  # Any: fields of any connection
    return {"name": "line", "timeout_s": TIMEOUT_S, "retry_max_s": 3.0, "devices": _devices(scan_s)}


class TestModbusTcp(DriverSuite):
    misdeeds = tuple(MISDEEDS)

    @pytest.fixture
    async def rig(self) -> AsyncIterator[Rig]:
        async with LibmodbusServer(units=UNIT_OF.values()) as server:
            rig = ModbusRig(server, modbus.TCP, ModbusTcp(**_network(server)), f"127.0.0.1:{server.port}")
            await rig.furnish()
            yield rig


class TestModbusRtuOverTcp(DriverSuite):
    misdeeds = tuple(name for name in MISDEEDS if name not in TCP_ONLY)

    @pytest.fixture
    async def rig(self) -> AsyncIterator[Rig]:
        async with LibmodbusServer(units=UNIT_OF.values(), framing="rtu-tcp") as server:
            rig = ModbusRig(server, modbus.RTU_OVER_TCP, ModbusRtuTcp(**_network(server)), f"127.0.0.1:{server.port}")
            await rig.furnish()
            yield rig


class TestModbusTls(DriverSuite):
    misdeeds = ("close-at-once", "never-answer", "endless", "huge-length", "http", "wrong-transaction", "late")

    @pytest.fixture
    async def rig(self, tmp_path: Path) -> AsyncIterator[Rig]:
        pki = make_pki(tmp_path)
        context = _server_context(pki)
        tls = Tls(ca_file=str(pki.ca_file), cert_file=str(pki.client.cert_file), key_file=str(pki.client.key_file))
        async with LibmodbusServer(units=UNIT_OF.values()) as server, Proxy("127.0.0.1", server.port, tls=context) as proxy:
            options = ModbusTls(host="127.0.0.1", port=proxy.port, tls=tls, **_common())
            rig = TlsRig(server, proxy, options)
            rig.peer_tls = context
            await rig.furnish()
            yield rig


class TestModbusRtu(DriverSuite):
    misdeeds = tuple(LINE_FAULTS)

    @pytest.fixture
    async def rig(self) -> AsyncIterator[Rig]:
        with Wire(baud=BAUD, tap=True) as wire:
            async with LibmodbusLine(wire.tap_path, BAUD, units=UNIT_OF.values()) as server:
                options = ModbusRtu(serial_port=wire.path, baud_rate=BAUD, parity="none", stop_bits=2, **_common(LINE_SCAN_S))
                rig = LineRig(server, modbus.RTU, options, wire.path)
                await rig.furnish()
                yield rig


def _server_context(pki: Pki) -> ssl.SSLContext:
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH, cafile=str(pki.ca_file))
    context.verify_mode = ssl.CERT_REQUIRED
    context.load_cert_chain(pki.server.cert_file, pki.server.key_file)
    return context
