"""The driver contract for devices that push by CoAP: aiocoap's client pushes, plain and sealed, strangers do their worst beside it."""

from __future__ import annotations

import asyncio
import os
import random
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager
from typing import Any, ClassVar, Final

import cbor2
import msgspec
import pytest

from protocols.coap.config import Oscore
from protocols.coap.message import CONTENT, EMPTY, Block, Message, Option, Type, encode_tcp, encode_udp, ordered
from protocols.coap.plan import place
from protocols.coap.server import SERVER
from protocols.coap.server_config import CoapServer, PushedResource, PushingDevice
from protocols.contract import Driver
from protocols.model import Kind
from protocols.payload import Format, PayloadTag
from protocols.secret import FromFile
from tests.contract.driver_suite import GHOST, LEVEL, ONE, SETPOINT, STUCK, TWO, Ability, DriverSuite, Rig
from tests.contract.test_coap import CBOR, SECRET, TAGS, VALUES
from tests.peers.coap import CoapPushers, free_port, write_context

TRUTH: Final = 42
STRANGER: Final = "127.0.0.2"
TOKEN: Final = "c0ffee"


def single(path: str, name: str, kind: Kind = Kind.INT32, **more: Any) -> PushedResource:  # Any: fields of a tag
    return PushedResource(path=path, tags=(PayloadTag(name=name, kind=kind, **more),))


RESOURCES: Final = (
    PushedResource(path="/all", tags=TAGS),
    single("/level", LEVEL),
    *(single(f"/{name}", name) for name in (SETPOINT, STUCK, GHOST)),
)
BROKEN: Final = CoapServer(
    name="line",
    schemes=("coap", "coaps+tcp", "coap"),
    devices=(
        PushingDevice(
            name="one",
            path="/a",
            oscore=Oscore(sender_id="01", recipient_id="01", master_secret=FromFile(path="/nowhere")),
            resources=(
                PushedResource(path="/x", format=Format.JSON, tags=(PayloadTag(name="a", kind=Kind.INT8, at="$[[", writable=True),)),
                PushedResource(path="/x", tags=(PayloadTag(name="a", kind=Kind.INT8),)),
            ),
        ),
        PushingDevice(name="one", path="/b"),
    ),
)
FAULTS: Final = frozenset(
    {
        "devices[1].name",
        "tls",
        "schemes",
        "state_folder",
        "devices[0].oscore.recipient_id",
        "devices[0].resources[0].tags[0].at",
        "devices[0].resources[0].tags[0].writable",
        "devices[0].resources[1].path",
        "devices[0].resources[1].tags[0].name",
    }
)


class PushRig:
    """Two devices push everything that the suite wants, thirty times a second."""

    driver: Driver = SERVER
    faulty = BROKEN
    faults = FAULTS

    def __init__(self, peer: CoapPushers, options: CoapServer, query: str = "") -> None:
        self.peer, self.options, self.query = peer, options, query
        self.where = f"{options.listen_host}:{options.listen_port}"
        self.expected = {name: value for name, (_, value) in VALUES.items()}
        peer.start()
        peer.ask("forget")
        self.push(ONE, "all", cbor2.dumps(self.expected), CBOR)
        self.push(ONE, "level", b"1")
        self.push(TWO, "level", b"1")

    def push(self, device: str, path: str, content: bytes, content_format: int = 0) -> None:
        self.peer.set(f"coap://{self.where}/{device}/{path}{self.query}", content, content_format)

    async def change(self, device: str, value: int) -> None:
        self.push(device, "level", b"%d" % value)

    async def hush(self, device: str, silent: bool) -> None:
        raise AssertionError("no test of this suite asks for it")

    async def lose(self) -> None:
        self.peer.stop()

    async def restore(self) -> None:
        self.peer.start()

    async def seen(self) -> list[str]:
        return []

    @asynccontextmanager
    async def hostile(self, misdeed: str) -> AsyncIterator[Stranger]:
        self.push(ONE, "level", b"%d" % TRUTH)
        async with Stranger(misdeed, self.options) as stranger:
            yield stranger


class Stranger:
    """Somebody who sends to the server without pause, from another address than the devices."""

    truth = TRUTH

    def __init__(self, misdeed: str, options: CoapServer) -> None:
        self.options, self._misdeed = options, misdeed
        self._port = options.listen_port
        self._task: asyncio.Task[None] | None = None
        self._transports: list[asyncio.BaseTransport] = []

    def heal(self) -> None:
        assert self._task is not None
        self._task.cancel()

    async def __aenter__(self) -> Stranger:
        self._task = asyncio.get_running_loop().create_task(self._work())
        return self

    async def __aexit__(self, *_: object) -> None:
        self.heal()
        assert self._task is not None
        await asyncio.gather(self._task, return_exceptions=True)
        for transport in self._transports:
            assert isinstance(transport, asyncio.Transport | asyncio.DatagramTransport)
            transport.abort()
        await asyncio.sleep(0)

    async def _work(self) -> None:
        if self._misdeed in STREAMS:
            await STREAMS[self._misdeed](self)
            return
        loop = asyncio.get_running_loop()
        transport, _ = await loop.create_datagram_endpoint(
            asyncio.DatagramProtocol, local_addr=(STRANGER, 0), remote_addr=("127.0.0.1", self._port)
        )
        self._transports.append(transport)
        number = 0
        while True:
            for _ in range(20):
                number += 1
                transport.sendto(DATAGRAMS[self._misdeed](number))
            await asyncio.sleep(0.01)

    async def connect(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        reader, writer = await asyncio.open_connection("127.0.0.1", self._port, local_addr=(STRANGER, 0))
        self._transports.append(writer.transport)
        return reader, writer


def _push(number: int, path: str, payload: bytes = b"7", *options: tuple[int, bytes], **changes: Any) -> bytes:  # Any: fields
    fields: dict[str, Any] = {"code": 2, "type": Type.CON, "id": number & 0xFFFF, "token": number.to_bytes(4, "big"), "payload": payload}
    return encode_udp(Message(**{**fields, "options": ordered(*place(path), *options), **changes}))


def _oscore(option: bytes) -> tuple[int, bytes]:
    return int(Option.OSCORE), option


DATAGRAMS: Final[dict[str, Callable[[int], bytes]]] = {
    "rubbish": lambda number: os.urandom(random.randrange(1, 200)),
    "unknown-path": lambda number: _push(number, f"/{number}/level"),
    "no-token": lambda number: _push(number, "/one/level"),
    "wrong-token": lambda number: _push(number, "/one/level", b"7", (int(Option.URI_QUERY), b"token=guess")),
    "gets": lambda number: _push(number, "/.well-known/core", b"", code=1),
    "sealed-rubbish": lambda number: _push(number, "/one/level", os.urandom(40), _oscore(b"\x09\x01\x01")),
    "broken-seal": lambda number: _push(number, "/one/level", os.urandom(40), _oscore(os.urandom(random.randrange(8)))),
    "endless-blocks": lambda number: _push(number, "/one/level", b"7" * 1024, Block(number=number, more=True, exponent=6).option(27)),
    "pings": lambda number: encode_udp(Message(code=EMPTY, type=Type.CON, id=number & 0xFFFF)),
    "responses": lambda number: _push(number, "/", code=CONTENT),
    "huge-options": lambda number: _push(number, "/", b"7", *((60000, bytes(900)) for _ in range(30))),
    "critical-option": lambda number: _push(number, "/one/level", b"7", (9999, b"")),
}


async def _streams(stranger: Stranger, content: bytes) -> None:
    """Connections without end, each with ``content`` and then nothing."""
    while True:
        _, writer = await stranger.connect()
        writer.write(content)
        await asyncio.sleep(0.01)


async def _endless(stranger: Stranger) -> None:
    while True:
        _, writer = await stranger.connect()
        try:
            while True:
                writer.write(encode_tcp(Message(code=0xE1)) + b"\xf0" + b"\x00" * 60000)
                await writer.drain()
        except OSError:
            await asyncio.sleep(0.01)


async def _pings(stranger: Stranger) -> None:
    while True:
        _, writer = await stranger.connect()
        try:
            while not writer.is_closing():
                writer.write(encode_tcp(Message(code=0xE1)) + encode_tcp(Message(code=0xE2)) * 100)
                await writer.drain()
                await asyncio.sleep(0.001)
        except OSError:
            await asyncio.sleep(0.01)


STREAMS: Final[dict[str, Callable[[Stranger], Awaitable[None]]]] = {
    "many-connections": lambda stranger: _streams(stranger, b""),
    "http": lambda stranger: _streams(stranger, b"GET / HTTP/1.1\r\n\r\n"),
    "endless-stream": _endless,
    "pings-stream": _pings,
}


def server(**more: Any) -> CoapServer:  # Any: fields of a device
    devices = (
        PushingDevice(name=ONE, path="/one", resources=RESOURCES, **more),
        PushingDevice(name=TWO, path="/two", resources=(single("/level", LEVEL),), **more),
    )
    return CoapServer(name="line", listen_port=free_port(), schemes=("coap", "coap+tcp"), rate_per_s=1000.0, burst=1000, devices=devices)


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[CoapPushers, CoapServer]]:
    secret = tmp_path_factory.mktemp("token") / "token"
    secret.write_text(TOKEN)
    with CoapPushers() as peer:
        yield peer, server(token=FromFile(path=str(secret)))


@pytest.fixture(scope="module")
def sealed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[CoapPushers, CoapServer]]:
    folder = tmp_path_factory.mktemp("oscore")
    (folder / "secret").write_text(SECRET)
    (folder / "state").mkdir()
    ours, devices, credentials = server(), [], {}
    for number, device in enumerate(ours.devices):
        id_ = f"{number + 1:02x}"
        context = write_context(folder / device.name, sender=id_, recipient="", secret=SECRET)
        credentials[f"coap://127.0.0.1:{ours.listen_port}{device.path}/*"] = {"oscore": {"basedir": str(context)}}
        keys = Oscore(sender_id="", recipient_id=id_, master_secret=FromFile(path=str(folder / "secret")))
        devices.append(msgspec.structs.replace(device, oscore=keys))
    with CoapPushers(credentials) as peer:
        yield peer, msgspec.structs.replace(ours, devices=tuple(devices), state_folder=str(folder / "state"))


class TestCoapPush(DriverSuite):
    abilities: ClassVar[frozenset[Ability]] = frozenset({Ability.NAN})
    misdeeds = (*DATAGRAMS, *STREAMS)

    @pytest.fixture
    async def rig(self, plain: tuple[CoapPushers, CoapServer]) -> Rig:
        return PushRig(plain[0], msgspec.structs.replace(plain[1]), f"?token={TOKEN}")


class TestCoapPushSealed(DriverSuite):
    abilities: ClassVar[frozenset[Ability]] = frozenset({Ability.NAN})
    misdeeds = ("sealed-rubbish", "broken-seal", "no-token", "endless-blocks")

    @pytest.fixture
    async def rig(self, sealed: tuple[CoapPushers, CoapServer]) -> Rig:
        return PushRig(sealed[0], msgspec.structs.replace(sealed[1]))
