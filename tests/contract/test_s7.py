"""The driver contract for S7: against the C++ library Snap7 as a controller, and hostile controllers by name."""

from __future__ import annotations

import math
import struct
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Final

import msgspec
import pytest

from protocols.contract import Driver, Refused
from protocols.model import Kind
from protocols.s7.config import S7 as Options
from protocols.s7.config import Device, Tag
from protocols.s7.driver import S7
from tests.contract.driver_suite import GHOST, LEVEL, ONE, SETPOINT, STUCK, TWO, Ability, DriverSuite, Rig, Seen, Value, watch
from tests.peers.s7_hostile import MISDEEDS, TRUTH, HostileController
from tests.peers.snap7 import Snap7Server

VALUES: Final[dict[str, tuple[Kind, str, bytes, Value]]] = {
    # name: kind, at, its bytes, value
    "bool": (Kind.BOOL, "DB1.DBX0.3", b"\x08", True),
    "bool/off": (Kind.BOOL, "DB1.DBX0.4", b"\x08", False),
    "int8/least": (Kind.INT8, "DB1.DBB1", b"\x80", -128),
    "int16/least": (Kind.INT16, "DB1.DBW2", b"\x80\0", -(2**15)),
    "int32/least": (Kind.INT32, "DB1.DBD4", b"\x80\0\0\0", -(2**31)),
    "int64/least": (Kind.INT64, "DB1.DBB8", struct.pack(">q", -(2**63)), -(2**63)),
    "int64/most": (Kind.INT64, "DB1.DBB16", struct.pack(">q", 2**63 - 1), 2**63 - 1),
    "uint8/most": (Kind.UINT8, "DB1.DBB24", b"\xff", 255),
    "uint16/most": (Kind.UINT16, "DB1.DBW26", b"\xff\xff", 65535),
    "uint32/most": (Kind.UINT32, "DB1.DBD28", b"\xff" * 4, 2**32 - 1),
    "uint64/most": (Kind.UINT64, "DB1.DBB32", b"\xff" * 8, 2**64 - 1),
    "float32/exact": (Kind.FLOAT32, "DB1.DBD40", struct.pack(">f", 1.5), 1.5),
    "float64/tenth": (Kind.FLOAT64, "DB1.DBB44", struct.pack(">d", 0.1), 0.1),
    "float64/least": (Kind.FLOAT64, "DB1.DBB52", struct.pack(">d", 5e-324), 5e-324),
    "float64/zero": (Kind.FLOAT64, "DB1.DBB60", struct.pack(">d", -0.0), -0.0),
    "float32/none": (Kind.FLOAT32, "DB1.DBD68", struct.pack(">f", math.nan), math.nan),
    "text": (Kind.STRING, "DB1.DBB100", b"\x14\x05Pump\xe9", "Pumpé"),
    "raw": (Kind.BYTES, "DB1.DBB130", b"\0\xff", b"\0\xff"),
    "long": (Kind.STRING, "DB4.DBB0", b"\xfe\xfe" + b"x" * 254, "x" * 254),
}
LENGTH: Final = {"text": 20, "raw": 2, "long": 254}
EXPECTED: Final = {name: value for name, (_, _, _, value) in VALUES.items()}


def tags() -> tuple[Tag, ...]:
    return (
        *(Tag(name=name, kind=kind, at=at, length=LENGTH.get(name, 0)) for name, (kind, at, _, _) in VALUES.items()),
        Tag(name=GHOST, kind=Kind.UINT16, at="DB1.DBW198"),  # the block ends before it
        Tag(name="no-block", kind=Kind.UINT16, at="DB99.DBW0"),
        Tag(name=LEVEL, kind=Kind.UINT16, at="DB2.DBW0"),
        Tag(name=SETPOINT, kind=Kind.FLOAT32, at="DB2.DBD4", writable=True),
        Tag(name=STUCK, kind=Kind.UINT16, at="DB2.DBW8", writable=True),
    )


def options(port: int) -> Options:
    two = Device(name=TWO, scan_s=0.05, tags=(Tag(name=LEVEL, kind=Kind.UINT16, at="DB3.DBW0"),))
    devices = (Device(name=ONE, scan_s=0.05, max_gap=200, tags=tags()), two)
    return Options(name="plc", host="127.0.0.1", port=port, timeout_s=2.0, devices=devices)


BROKEN: Final = (
    Device(
        name="one",
        tags=(
            Tag(name="a", kind=Kind.FLOAT32, at="DB10,REAL4"),
            Tag(name="a", kind=Kind.FLOAT32, at="DB10.DBW4"),
            Tag(name="b", kind=Kind.STRING, at="DB10.DBB4"),
            Tag(name="c", kind=Kind.BOOL, at="I0.0", writable=True),
            Tag(name="d", kind=Kind.UINT64, at="DB1.DBB65532"),
            Tag(name="e", kind=Kind.UINT16, at="%MW4", length=3),
        ),
    ),
    Device(name="one"),
)
FAULTS: Final = frozenset(
    {"devices[1].name"}
    | {
        f"devices[0].tags[{at}].{key}"
        for at, key in ((0, "at"), (1, "at"), (1, "name"), (2, "length"), (3, "writable"), (4, "at"), (5, "at"), (5, "length"))
    }
)


class S7Rig:
    """Snap7 with the blocks of two machines."""

    driver: Driver = S7
    expected = EXPECTED
    faults = FAULTS

    def __init__(self, server: Snap7Server) -> None:
        self.server, self.options = server, options(server.port)
        self.where = f"127.0.0.1:{server.port}"
        self.faulty = msgspec.structs.replace(self.options, devices=BROKEN)

    async def furnish(self) -> None:
        for number, size in ((1, 199), (2, 10), (3, 2), (4, 256)):
            await self.server.db(number, size)
        for _, at, content, _ in VALUES.values():
            block, _, place = at.partition(".")
            await self.server.set(int(block[2:]), int(place[3:].partition(".")[0]), content)
        await self.server.stick(2, 8, b"\0\1")

    async def change(self, device: str, value: int) -> None:
        await self.server.set(2 if device == ONE else 3, 0, struct.pack(">H", value))

    async def hush(self, device: str, silent: bool) -> None:
        raise AssertionError("the devices of a connection are groups of one controller's tags: they are silent together")

    async def lose(self) -> None:
        await self.server.stop()

    async def restore(self) -> None:
        await self.server.start()
        await self.furnish()

    async def seen(self) -> list[str]:
        return await self.server.seen()

    @asynccontextmanager
    async def hostile(self, misdeed: str) -> AsyncIterator[HostileOptions]:
        async with HostileController(misdeed) as peer:
            yield HostileOptions(self.options, peer.heal, peer.port)


class HostileOptions:
    """Options that lead to a hostile controller."""

    truth = TRUTH

    def __init__(self, like: Options, heal: Callable[[], None], port: int) -> None:
        device = Device(name=ONE, scan_s=0.02, tags=(Tag(name=LEVEL, kind=Kind.UINT16, at="DB2.DBW0"),))
        self.options = msgspec.structs.replace(like, port=port, timeout_s=0.3, connect_timeout_s=1.0, devices=(device,))
        self.heal = heal


class TestS7(DriverSuite):
    misdeeds = tuple(MISDEEDS)
    abilities = frozenset(Ability) - {Ability.DEVICES_FALL_SILENT}

    @pytest.fixture
    async def rig(self) -> AsyncIterator[Rig]:
        async with Snap7Server() as server:
            rig = S7Rig(server)
            await rig.furnish()
            yield rig

    @pytest.mark.parametrize("refusal", ["not-served", "refused-setup"])
    async def test_a_controller_that_serves_nobody_is_refused_with_advice(self, rig: Rig, refusal: str) -> None:
        async with rig.hostile(refusal) as peer:
            with pytest.raises(Refused, match=r"enable PUT/GET access .* optimised access"):
                async with self.session(rig, peer.options) as session:
                    await watch(session, Seen(), lambda: False)
