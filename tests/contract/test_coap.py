"""The driver contract for the CoAP client: UDP, OSCORE, TCP and TLS, against two devices on aiocoap's server."""

from __future__ import annotations

import math
import ssl
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from typing import Any, Final

import cbor2
import msgspec
import pytest

from protocols.coap.config import Coap, Device, Oscore, Resource
from protocols.coap.driver import CLIENT
from protocols.contract import Driver
from protocols.model import Kind
from protocols.payload import Format, PayloadTag
from protocols.secret import FromFile
from protocols.tls import Tls
from tests.contract.driver_suite import GHOST, LEVEL, ONE, SETPOINT, STUCK, TWO, DriverSuite, Rig, Value
from tests.peers.certificates import make_pki
from tests.peers.coap import CoapDevices, free_port, write_context
from tests.peers.coap_hostile import MEDDLING, MISDEEDS, STREAM_MISDEEDS, TRUTH, HostileDevice, HostileStream, Meddler

SCAN_S: Final = 0.05
CBOR: Final = 60
SECRET: Final = "0102030405060708090a0b0c0d0e0f10"
VALUES: Final[dict[str, tuple[Kind, Value]]] = {
    "int8/least": (Kind.INT8, -128),
    "int16/least": (Kind.INT16, -(2**15)),
    "int32/least": (Kind.INT32, -(2**31)),
    "int64/least": (Kind.INT64, -(2**63)),
    "int64/most": (Kind.INT64, 2**63 - 1),
    "int64/odd": (Kind.INT64, 2**53 + 1),
    "uint8/most": (Kind.UINT8, 255),
    "uint64/most": (Kind.UINT64, 2**64 - 1),
    "float32/exact": (Kind.FLOAT32, 1.5),
    "float32/nan": (Kind.FLOAT32, math.nan),
    "float64/tenth": (Kind.FLOAT64, 0.1),
    "float64/inf": (Kind.FLOAT64, -math.inf),
    "float64/zero": (Kind.FLOAT64, -0.0),
    "float64/least": (Kind.FLOAT64, 5e-324),
    "truth": (Kind.BOOL, True),
    "text": (Kind.STRING, "Pumpé"),
    "raw": (Kind.BYTES, b"\x00\x01\xff\x00"),
}
TAGS: Final = tuple(PayloadTag(name=name, kind=kind, at=f"$['{name}']") for name, (kind, _) in VALUES.items())
BROKEN: Final = (
    Device(
        name="one",
        host="192.0.2.1",
        oscore=Oscore(sender_id="01", recipient_id="01", master_secret=FromFile(path="/nowhere")),
        resources=(
            Resource(path="/a", format=Format.JSON, tags=(PayloadTag(name="a", kind=Kind.INT8, at="$[["),)),
            Resource(path="/b", format=Format.CSV, accept=Format.CSV, tags=(PayloadTag(name="a", kind=Kind.INT8, at="#0", writable=True),)),
        ),
    ),
    Device(name="one", host="192.0.2.2"),
)
FAULTS: Final = frozenset(
    {
        "devices[1].name",
        "devices[0].oscore.recipient_id",
        "state_folder",
        "devices[0].resources[0].tags[0].at",
        "devices[0].resources[1].tags[0].name",
        "devices[0].resources[1].tags[0].writable",
        "devices[0].resources[1].accept",
    }
)


def single(path: str, name: str, kind: Kind, **more: Any) -> Resource:  # Any: fields of a resource or a tag
    fields = {key: more.pop(key) for key in ("mode", "scan_s") if key in more}
    return Resource(path=path, max_bytes=4096, **{"mode": "poll", **fields}, tags=(PayloadTag(name=name, kind=kind, **more),))


def resources(mode: str = "poll") -> tuple[Resource, ...]:
    return (
        Resource(path="/all", mode=mode, tags=TAGS),  # type: ignore[arg-type] # one of its words
        single("/level", LEVEL, Kind.INT32, mode=mode),
        single("/setpoint", SETPOINT, Kind.FLOAT32, writable=True, mode=mode),
        single("/stuck", STUCK, Kind.INT16, writable=True, mode=mode),
        single("/ghost", GHOST, Kind.INT16, mode=mode),
    )


class CoapRig:
    """Two devices with everything that the suite wants."""

    driver: Driver = CLIENT
    faults = FAULTS

    def __init__(self, peer: CoapDevices, options: Coap) -> None:
        self.peer, self.options = peer, options
        self.expected = {name: value for name, (_, value) in VALUES.items()}
        self.where = options.devices[0].where
        self.faulty = Coap(name="line", devices=BROKEN)

    async def furnish(self) -> None:
        self.peer.start()
        content = cbor2.dumps({name: value for name, (_, value) in VALUES.items()})
        self.peer.set(ONE, "/all", content, CBOR)
        for path in ("/level", "/setpoint", "/stuck"):
            self.peer.set(ONE, path, b"1")
        self.peer.ask(f"keep {ONE} /stuck")
        self.peer.set(TWO, "/level", b"1")
        for device in (ONE, TWO):
            self.peer.silent(device, False)
        self.peer.requests(ONE)

    async def change(self, device: str, value: int) -> None:
        self.peer.set(device, "/level", b"%d" % value)

    async def hush(self, device: str, silent: bool) -> None:
        self.peer.silent(device, silent)

    async def lose(self) -> None:
        self.peer.stop()

    async def restore(self) -> None:
        await self.furnish()

    async def seen(self) -> list[str]:
        return self.peer.requests(ONE)

    @asynccontextmanager
    async def hostile(self, misdeed: str) -> AsyncIterator[HostileCoap]:
        async with HostileDevice(misdeed) as peer:
            yield HostileCoap(self.options, peer.port, peer.heal, mode="observe" if misdeed == "flood" else "poll")


class HostileCoap:
    """Options that lead to a hostile device in place of device one."""

    truth = TRUTH

    def __init__(self, like: Coap, port: int, heal: Callable[[], None], mode: str = "poll") -> None:
        self.heal = heal
        asked = (single("/level", LEVEL, Kind.INT32, mode=mode), single("/other", "other", Kind.STRING, mode=mode))
        device = msgspec.structs.replace(like.devices[0], port=port, scan_s=0.02, resources=asked)
        self.options = msgspec.structs.replace(like, timeout_s=0.1, ack_timeout_s=0.05, retransmits=1, devices=(device,))


class TlsRig(CoapRig):
    tls: ssl.SSLContext

    @asynccontextmanager
    async def hostile(self, misdeed: str) -> AsyncIterator[HostileCoap]:
        async with HostileStream(misdeed, self.tls) as peer:
            yield HostileCoap(self.options, peer.port, peer.heal)


class OscoreRig(CoapRig):
    @asynccontextmanager
    async def hostile(self, misdeed: str) -> AsyncIterator[HostileCoap]:
        self.peer.set(ONE, "/level", b"%d" % TRUTH)
        self.peer.set(ONE, "/other", b"-")
        port = self.options.devices[0].port
        assert port is not None
        async with Meddler(misdeed, port) as peer:
            yield HostileCoap(self.options, peer.port, peer.heal)


Peers = dict[str, dict[str, Any]]  # Any: JSON


def options(**more: Any) -> tuple[Peers, Coap]:  # Any: fields of a device
    """Two devices: how the peer is told, and ours."""
    ports = {ONE: free_port(), TWO: free_port()}
    scheme = more.get("scheme", "coap")
    devices = (
        Device(name=ONE, host="127.0.0.1", port=ports[ONE], scan_s=SCAN_S, resources=resources(), **more),
        Device(name=TWO, host="127.0.0.1", port=ports[TWO], scan_s=SCAN_S, resources=(single("/level", LEVEL, Kind.INT32),), **more),
    )
    ours = Coap(name="line", timeout_s=0.5, ack_timeout_s=0.15, retransmits=2, retry_max_s=1.0, devices=devices)
    return {name: {"port": port, "scheme": scheme} for name, port in ports.items()}, ours


def again(ours: Coap) -> Coap:
    """Options of its own for each test: what was planned for another's is not shared."""
    return msgspec.structs.replace(ours)


@pytest.fixture(scope="module")
def plain() -> Iterator[tuple[CoapDevices, Coap]]:
    theirs, ours = options()
    with CoapDevices(theirs) as peer:
        yield peer, ours


@pytest.fixture(scope="module")
def tls(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[CoapDevices, Coap, ssl.SSLContext]]:
    pki = make_pki(tmp_path_factory.mktemp("pki"))
    theirs, ours = options(scheme="coaps+tcp")
    for each in theirs.values():
        each |= {"ca_file": str(pki.ca_file), "cert_file": str(pki.server.cert_file), "key_file": str(pki.server.key_file)}
    tls = Tls(ca_file=str(pki.ca_file), cert_file=str(pki.client.cert_file), key_file=str(pki.client.key_file))
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH, cafile=pki.ca_file)
    context.verify_mode = ssl.CERT_REQUIRED
    context.load_cert_chain(pki.server.cert_file, pki.server.key_file)
    with CoapDevices(theirs) as peer:
        yield peer, msgspec.structs.replace(ours, tls=tls), context


@pytest.fixture(scope="module")
def sealed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[CoapDevices, Coap]]:
    folder = tmp_path_factory.mktemp("oscore")
    theirs, ours = options()
    (folder / "secret").write_text(SECRET)
    (folder / "state").mkdir()
    devices = []
    for number, device in enumerate(ours.devices):
        id_ = f"{number + 1:02x}"
        theirs[device.name]["oscore"] = str(write_context(folder / device.name, sender=id_, recipient="", secret=SECRET))
        keys = Oscore(sender_id="", recipient_id=id_, master_secret=FromFile(path=str(folder / "secret")))
        devices.append(msgspec.structs.replace(device, oscore=keys))
    with CoapDevices(theirs) as peer:
        yield peer, msgspec.structs.replace(ours, devices=tuple(devices), state_folder=str(folder / "state"))


class TestCoap(DriverSuite):
    misdeeds = tuple(MISDEEDS)

    @pytest.fixture
    async def rig(self, plain: tuple[CoapDevices, Coap]) -> Rig:
        rig = CoapRig(plain[0], again(plain[1]))
        await rig.furnish()
        return rig


class TestCoapTls(DriverSuite):
    """TLS, and with it everything that TCP has."""

    misdeeds = tuple(STREAM_MISDEEDS)

    @pytest.fixture
    async def rig(self, tls: tuple[CoapDevices, Coap, ssl.SSLContext]) -> Rig:
        rig = TlsRig(tls[0], again(tls[1]))
        rig.tls = tls[2]
        await rig.furnish()
        return rig


class TestCoapOscore(DriverSuite):
    misdeeds = MEDDLING

    @pytest.fixture
    async def rig(self, sealed: tuple[CoapDevices, Coap]) -> Rig:
        rig = OscoreRig(sealed[0], again(sealed[1]))
        await rig.furnish()
        return rig
