"""The driver contract for the example: what an author outside the tree writes, as a whole."""

from __future__ import annotations

import asyncio
import math
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, Final

import msgspec
import pytest

from protocols.contract import Driver
from protocols.model import Kind
from tests.contract.driver_suite import GHOST, LEVEL, ONE, SETPOINT, STUCK, TWO, Ability, DriverSuite, Rig, Value
from tests.plugin.example.holdfast_scpi.config import Scpi, ScpiDevice, ScpiTag
from tests.plugin.example.holdfast_scpi.driver import SCPI
from tests.plugin.instrument import MISDEEDS
from tests.plugin.rig import SimulatedInstrument

VALUES: Final[dict[str, tuple[Kind, str, Value]]] = {
    # name: kind, as the instrument says it, value
    "bool": (Kind.BOOL, "1", True),
    "int8/least": (Kind.INT8, "-128", -128),
    "int64/least": (Kind.INT64, str(-(2**63)), -(2**63)),
    "int64/most": (Kind.INT64, f"+{2**63 - 1}", 2**63 - 1),
    "uint64/most": (Kind.UINT64, str(2**64 - 1), 2**64 - 1),
    "float32/exact": (Kind.FLOAT32, "+1.5E+00", 1.5),
    "float64/tenth": (Kind.FLOAT64, "0.1", 0.1),
    "float64/least": (Kind.FLOAT64, "5e-324", 5e-324),
    "float64/zero": (Kind.FLOAT64, "-0.0", -0.0),
    "float64/none": (Kind.FLOAT64, "9.91E+37", math.nan),
    "float64/endless": (Kind.FLOAT64, "-9.9E+37", -math.inf),
    "text": (Kind.STRING, '"a ""b"" c"', 'a "b" c'),
}


EXPECTED: Final = {name: value for name, (_, _, value) in VALUES.items()}


def _query(device: str, name: str) -> str:
    return f"{device}:{name.replace('/', ':')}"


def options(port: int) -> Scpi:
    values = tuple(ScpiTag(name=name, kind=kind, at=f"{_query(ONE, name)}?") for name, (kind, _, _) in VALUES.items())
    settings = (
        ScpiTag(name=SETPOINT, kind=Kind.FLOAT32, at="one:setpoint?", writable=True),
        ScpiTag(name=STUCK, kind=Kind.UINT16, at="one:stuck?", writable=True, write="one:stuck {value}"),
        ScpiTag(name=GHOST, kind=Kind.UINT16, at="one:ghost?"),
    )
    one, two = (ScpiTag(name=LEVEL, kind=Kind.UINT16, at=f"{device}:level?") for device in (ONE, TWO))
    devices = (ScpiDevice(name=ONE, scan_s=0.05, tags=(*values, one, *settings)), ScpiDevice(name=TWO, scan_s=0.05, tags=(two,)))
    return Scpi(name="bench", host="127.0.0.1", port=port, timeout_s=1.0, devices=devices)


BROKEN: Final = (
    ScpiDevice(
        name="one",
        tags=(
            ScpiTag(name="a", kind=Kind.FLOAT64, at="VOLTage"),
            ScpiTag(name="a", kind=Kind.BYTES, at="CURVe?"),
            ScpiTag(name="b", kind=Kind.FLOAT64, at="VOLT?", writable=True, write="VOLT;*RST"),
        ),
    ),
    ScpiDevice(name="one"),
)
FAULTS: Final = frozenset(
    {"devices[1].name", *(f"devices[0].tags[{at}].{key}" for at, key in ((0, "at"), (1, "name"), (1, "kind"), (2, "write")))}
)


class ScpiRig:
    """The simulated instrument with every value."""

    driver: Driver = SCPI
    expected = EXPECTED
    faults = FAULTS

    def __init__(self, instrument: SimulatedInstrument) -> None:
        self.instrument, self.options = instrument, options(instrument.port)
        self.where = f"127.0.0.1:{instrument.port}"
        self.faulty = msgspec.structs.replace(self.options, devices=BROKEN)

    async def furnish(self) -> None:
        for name, (_, answer, _) in VALUES.items():
            await self.instrument.set(_query(ONE, name), answer)
        for name in ("one:level", "two:level", "one:setpoint", "one:stuck"):
            await self.instrument.set(name, "1")
        await self.instrument.ask("stick one:stuck")

    async def change(self, device: str, value: int) -> None:
        await self.instrument.set(f"{device}:level", str(value))

    async def hush(self, device: str, silent: bool) -> None:
        raise AssertionError("the devices of an instrument are its channels: they are silent together")

    async def lose(self) -> None:
        await self.instrument.stop()

    async def restore(self) -> None:
        await self.instrument.start()
        await self.furnish()

    async def seen(self) -> list[str]:
        return await self.instrument.ask("seen")

    @asynccontextmanager
    async def hostile(self, misdeed: str) -> AsyncIterator[HostileInstrument]:
        await self.instrument.ask(f"mode {misdeed}")
        device = ScpiDevice(name=ONE, scan_s=0.02, tags=(ScpiTag(name=LEVEL, kind=Kind.UINT16, at="one:level?"),))
        peer = HostileInstrument(self.instrument, msgspec.structs.replace(self.options, timeout_s=0.3, devices=(device,)))
        yield peer
        assert peer.healing is not None
        await peer.healing


class HostileInstrument:
    """The same instrument, while it misbehaves."""

    truth = 1

    def __init__(self, instrument: SimulatedInstrument, given: Scpi) -> None:
        self.instrument, self.options = instrument, given
        self.healing: asyncio.Future[Any] | None = None

    def heal(self) -> None:
        self.healing = asyncio.ensure_future(self.instrument.ask("mode well"))


class TestScpi(DriverSuite):
    misdeeds = tuple(MISDEEDS)
    abilities = frozenset(Ability) - {Ability.DEVICES_FALL_SILENT}

    @pytest.fixture
    async def rig(self) -> AsyncIterator[Rig]:
        async with SimulatedInstrument() as instrument:
            rig = ScpiRig(instrument)
            await rig.furnish()
            yield rig
