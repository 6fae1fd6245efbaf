"""The driver contract for OPC UA, against node-opcua: subscribed and polled in the clear, and subscribed with sign and encrypt."""

from __future__ import annotations

import math
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Final

import msgspec
import pytest
from cryptography import x509

from protocols.contract import Driver
from protocols.model import Kind
from protocols.opcua import certificates
from protocols.opcua.config import Device, Event, OpcUa, Security, Tag
from protocols.opcua.driver import OPCUA
from tests.contract.driver_suite import GHOST, LEVEL, ONE, SETPOINT, STUCK, TWO, Ability, DriverSuite, Rig, Value
from tests.peers.opcua import URI, OpcUaServer
from tests.peers.opcua_hostile import MISDEEDS, HostileOpcUa
from tests.peers.proxy import Proxy

VALUES: Final[dict[str, tuple[Kind, Value]]] = {
    "int8/least": (Kind.INT8, -128),
    "uint8/most": (Kind.UINT8, 255),
    "int16/least": (Kind.INT16, -(2**15)),
    "uint16/most": (Kind.UINT16, 2**16 - 1),
    "int32/least": (Kind.INT32, -(2**31)),
    "uint32/most": (Kind.UINT32, 2**32 - 1),
    "int64/least": (Kind.INT64, -(2**63)),
    "int64/most": (Kind.INT64, 2**63 - 1),
    "int64/odd": (Kind.INT64, 2**53 + 1),
    "uint64/most": (Kind.UINT64, 2**64 - 1),
    "uint64/odd": (Kind.UINT64, 2**63 + 1),
    "float32/exact": (Kind.FLOAT32, 1.5),
    "float32/nan": (Kind.FLOAT32, math.nan),
    "float32/inf": (Kind.FLOAT32, math.inf),
    "float32/zero": (Kind.FLOAT32, -0.0),
    "float64/tenth": (Kind.FLOAT64, 0.1),
    "float64/inf": (Kind.FLOAT64, -math.inf),
    "float64/nan": (Kind.FLOAT64, math.nan),
    "float64/least": (Kind.FLOAT64, 5e-324),
    "text": (Kind.STRING, "Pumpé"),
    "raw": (Kind.BYTES, b"\x00\x01\xff\x00"),
    "truth": (Kind.BOOL, True),
}
EVERY_S: Final = 0.02
TRUTH: Final = 4242


def at(device: str, name: str) -> str:
    return f"nsu={URI};s={device}/{name}"


def _devices() -> tuple[Device, ...]:
    tags = [Tag(name=name, at=at(ONE, name), kind=kind) for name, (kind, _) in VALUES.items()]
    tags += [
        Tag(name=SETPOINT, at=at(ONE, SETPOINT), kind=Kind.FLOAT32, writable=True),
        Tag(name=STUCK, at=at(ONE, STUCK), kind=Kind.UINT16, writable=True),
        Tag(name=LEVEL, at=at(ONE, LEVEL), kind=Kind.UINT16),
        Tag(name=GHOST, at=at(ONE, GHOST), kind=Kind.UINT16),
    ]
    return (
        Device(name=ONE, scan_s=EVERY_S, tags=tuple(tags)),
        Device(name=TWO, scan_s=EVERY_S, tags=(Tag(name=LEVEL, at=at(TWO, LEVEL), kind=Kind.UINT16),)),
    )


BROKEN: Final = (
    Device(
        name="one",
        tags=(
            Tag(name="a", at="s=", kind=Kind.FLOAT64),
            Tag(name="b", at=at(ONE, "a") + " > start()", kind=Kind.BOOL),  # a method that may not be called
            Tag(name="c", at="i=2253", kind=Kind.FLOAT64, event=Event()),
            Tag(name="d", at="ns=99999;i=1", kind=Kind.UINT16),
        ),
    ),
    Device(name="one", tags=()),
)
FAULTS: Final = frozenset(
    {"devices[0].tags[0].at", "devices[0].tags[1].writable", "devices[0].tags[2].kind", "devices[0].tags[3].at", "devices[1].name"}
)


class OpcUaRig:
    """node-opcua with everything that the suite wants, behind a proxy that can lose it."""

    driver: Driver = OPCUA
    faults = FAULTS

    def __init__(self, server: OpcUaServer, proxy: Proxy, **more: Any) -> None:  # Any: fields of the options
        self._server, self._proxy = server, proxy
        self.expected: dict[str, Value] = {name: value for name, (_, value) in VALUES.items()}
        self.where = f"127.0.0.1:{proxy.port}"
        self.options = OpcUa(
            name="line",
            endpoint=f"opc.tcp://127.0.0.1:{proxy.port}/plant",
            publishing_s=EVERY_S,
            timeout_s=2.0,
            keepalive_s=1.0,
            devices=_devices(),
            **{"security": Security(policy="none"), **more},
        )
        self.faulty = msgspec.structs.replace(self.options, devices=BROKEN)

    async def change(self, device: str, value: int) -> None:
        await self._server.level(device, value)

    async def hush(self, device: str, silent: bool) -> None:
        await self._server.silent(device, silent)

    async def lose(self) -> None:
        await self._proxy.refuse()

    async def restore(self) -> None:
        await self._proxy.heal()

    async def seen(self) -> list[str]:
        return await self._server.requests()

    @asynccontextmanager
    async def hostile(self, misdeed: str) -> AsyncIterator[Spoiled]:
        await self._server.level(ONE, TRUTH)
        async with HostileOpcUa(misdeed, self._server.port) as peer:
            yield Spoiled(self.options, peer)


class Spoiled:
    """Options that lead through a hostile proxy."""

    truth = TRUTH

    def __init__(self, like: OpcUa, peer: HostileOpcUa) -> None:
        tags = (Tag(name=LEVEL, at=at(ONE, LEVEL), kind=Kind.UINT16), Tag(name="text", at=at(ONE, "text"), kind=Kind.STRING))
        devices = (Device(name=ONE, mode="poll", scan_s=EVERY_S, tags=tags), Device(name="other", tags=tags))
        self.options = msgspec.structs.replace(
            like, endpoint=f"opc.tcp://127.0.0.1:{peer.port}/plant", devices=devices, timeout_s=0.5, keepalive_s=0.5
        )
        self.heal = peer.heal


@pytest.fixture(scope="module")
def server() -> Iterator[OpcUaServer]:
    peer = OpcUaServer(secure=True, namespaces=["http://example.com/other"])
    peer.launch()
    yield peer
    peer.close()


NOT_HERE: Final = {Ability.QUEUES, Ability.DEVICES_FALL_SILENT}
"""Requests do not wait for each other; a device is a group of nodes, and each node says for itself that nobody answers behind it."""


class TestSubscribed(DriverSuite):
    misdeeds = MISDEEDS
    abilities = frozenset(Ability) - NOT_HERE - {Ability.SCANS}

    @pytest.fixture
    async def rig(self, server: OpcUaServer) -> AsyncIterator[Rig]:
        async with Proxy("127.0.0.1", server.port) as proxy:
            await server.requests()
            yield OpcUaRig(server, proxy)


class TestPolled(DriverSuite):
    abilities = frozenset(Ability) - NOT_HERE
    misdeeds = ("close-at-once", "silent-later")

    @pytest.fixture
    async def rig(self, server: OpcUaServer) -> AsyncIterator[Rig]:
        async with Proxy("127.0.0.1", server.port) as proxy:
            await server.requests()
            yield OpcUaRig(server, proxy, mode="poll")


class TestSigned(DriverSuite):
    """The strongest policy, sign and encrypt, with the server's certificate accepted first."""

    misdeeds = ("rubbish", "huge-chunk", "spoiled")
    abilities = frozenset(Ability) - NOT_HERE - {Ability.SCANS}

    @pytest.fixture
    async def rig(self, server: OpcUaServer, tmp_path: Path) -> AsyncIterator[Rig]:
        trust(tmp_path, server)
        async with Proxy("127.0.0.1", server.port) as proxy:
            await server.requests()
            yield OpcUaRig(server, proxy, security=Security(policy="Aes256_Sha256_RsaPss", folder=str(tmp_path)))


def trust(folder: Path, server: OpcUaServer) -> None:
    certificates.put(folder, x509.load_der_x509_certificate(server.certificate), "trusted")
