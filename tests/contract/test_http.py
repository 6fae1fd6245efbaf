"""The driver contract for HTTP, against node's own server and hostile servers by name. (TLS: tests/protocols/http/test_client.py.)"""

from __future__ import annotations

import base64
import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any, Final

import msgspec
import pytest

from protocols.contract import Driver
from protocols.http.config import Device, Http, Request, Tag, Write
from protocols.http.driver import HTTP
from protocols.model import Kind
from protocols.payload import Format
from tests.contract.driver_suite import GHOST, LEVEL, ONE, SETPOINT, STUCK, TWO, Ability, DriverSuite, Rig, Value
from tests.peers.http_hostile import MISDEEDS, TRUTH, HostileServer
from tests.peers.http_server import HttpServer

SCAN_S: Final = 0.05
VALUES: Final[dict[str, tuple[Kind, str, Value]]] = {
    # name: kind, as JSON has it, value
    "bool": (Kind.BOOL, "true", True),
    "int8/least": (Kind.INT8, "-128", -128),
    "int16/least": (Kind.INT16, "-32768", -(2**15)),
    "int32/least": (Kind.INT32, str(-(2**31)), -(2**31)),
    "int64/least": (Kind.INT64, str(-(2**63)), -(2**63)),
    "int64/most": (Kind.INT64, str(2**63 - 1), 2**63 - 1),
    "int64/odd": (Kind.INT64, str(2**53 + 1), 2**53 + 1),
    "uint8/most": (Kind.UINT8, "255", 255),
    "uint64/most": (Kind.UINT64, str(2**64 - 1), 2**64 - 1),
    "float32/exact": (Kind.FLOAT32, "1.5", 1.5),
    "float64/tenth": (Kind.FLOAT64, "0.1", 0.1),
    "float64/least": (Kind.FLOAT64, "5e-324", 5e-324),
    "float64/zero": (Kind.FLOAT64, "-0.0", -0.0),
    "text": (Kind.STRING, json.dumps("Pumpé\n"), "Pumpé\n"),
    "raw": (Kind.BYTES, json.dumps(base64.b64encode(b"\x00\xff").decode()), b"\x00\xff"),
}

EXPECTED: Final = {name: value for name, (_, _, value) in VALUES.items()}


def _document(level: int) -> str:
    return "{" + ",".join(f'"{name}":{text}' for name, (_, text, _) in VALUES.items()) + f',"{LEVEL}":{level}}}'


def _at(name: str) -> str:
    return f"$['{name}']"


def devices() -> tuple[Device, ...]:
    values = tuple(Tag(name=name, kind=kind, at=_at(name), from_text=kind is Kind.BYTES) for name, (kind, _, _) in VALUES.items())
    level = Tag(name=LEVEL, kind=Kind.UINT16, at=_at(LEVEL))
    ghost = Tag(name=GHOST, kind=Kind.UINT16, at=_at(GHOST))
    settings = (
        Tag(name=SETPOINT, kind=Kind.FLOAT32, at="$.setpoint", writable=True, write=Write(path="/one/settings/setpoint")),
        Tag(
            name=STUCK,
            kind=Kind.UINT16,
            at="$.stuck",
            writable=True,
            write_as='{"value": {value}}',
            write=Write(path="/one/settings/stuck", method="POST"),
        ),
    )
    one = Device(
        name=ONE,
        scan_s=SCAN_S,
        requests=(Request(path="/one", tags=(*values, level, ghost)), Request(path="/one/settings", format=Format.JSON, tags=settings)),
    )
    return (one, Device(name=TWO, scan_s=SCAN_S, requests=(Request(path="/two", tags=(level,)),)))


def options(port: int, **more: Any) -> Http:  # Any: fields of Http
    told = {"allow_local": True, "timeout_s": 0.4, "connect_timeout_s": 2.0, "retry_max_s": 3.0, "devices": devices(), **more}
    return Http(**{"name": "line", "url": f"http://127.0.0.1:{port}", **told})


BROKEN: Final = (
    Device(
        name="one",
        headers={"Host": "else", "bad name": "x"},
        requests=(
            Request(path="/a#b", format=Format.JSON, tags=(Tag(name="a", kind=Kind.FLOAT64, at="$["),)),
            Request(path="/b", body="x", tags=(Tag(name="a", kind=Kind.FLOAT64, at="$.a"),)),  # the name again; a GET with a body
            Request(path="/c", headers={"X": "a\r\nb"}, tags=(Tag(name="c", kind=Kind.FLOAT64, at="$.c", writable=True),)),
        ),
    ),
    Device(name="one"),
)
FAULTS: Final = frozenset(
    {
        "url",
        "devices[1].name",
        "devices[0].headers",
        "devices[0].headers.Host",
        "devices[0].requests[0].path",
        "devices[0].requests[0].tags[0].at",
        "devices[0].requests[1].body",
        "devices[0].requests[1].tags[0].name",
        "devices[0].requests[2].headers.X",
        "devices[0].requests[2].tags[0].write",
    }
)


class HttpRig:
    """node's server with two documents for device one and one for device two."""

    driver: Driver = HTTP
    expected = EXPECTED
    faults = FAULTS

    def __init__(self, server: HttpServer, given: Http) -> None:
        self.server, self.options = server, given
        self.where = f"127.0.0.1:{server.port}"
        self.faulty = msgspec.structs.replace(given, url="http://169.254.169.254/latest", devices=BROKEN)

    async def furnish(self) -> None:
        await self.server.put("/one", _document(1))
        await self.server.put("/two", json.dumps({LEVEL: 1}))
        await self.server.put("/one/settings", json.dumps({"setpoint": 1.0, "stuck": 1}))
        await self.server.stick("/one/settings", "stuck")

    async def change(self, device: str, value: int) -> None:
        await self.server.field(f"/{device}", LEVEL, value)

    async def hush(self, device: str, silent: bool) -> None:
        await (self.server.rule(f"/{device}", kind="silent") if silent else self.server.heal(f"/{device}"))

    async def lose(self) -> None:
        await self.server.stop()

    async def restore(self) -> None:
        await self.server.start()
        await self.furnish()

    async def seen(self) -> list[str]:
        return await self.server.requests()

    @asynccontextmanager
    async def hostile(self, misdeed: str) -> AsyncIterator[HostileHttp]:
        async with HostileServer(misdeed) as peer:
            yield HostileHttp(self.options, peer.heal, peer.port)
            assert not peer.trapped, "nobody follows a redirect to another place"


class HostileHttp:
    """Options that lead to a hostile server: device one with LEVEL, and another request."""

    truth = TRUTH

    def __init__(self, like: Http, heal: Callable[[], None], port: int) -> None:
        level = Request(path="/level", max_bytes=100_000, tags=(Tag(name=LEVEL, kind=Kind.UINT16, at=_at(LEVEL)),))
        other = Request(path="/other", max_bytes=100_000, tags=(Tag(name="other", kind=Kind.UINT16, at="$.other"),))
        device = Device(name=ONE, scan_s=SCAN_S, requests=(level, other))
        self.options = msgspec.structs.replace(like, url=f"http://127.0.0.1:{port}", devices=(device,), redirects=2)
        self.heal = heal


class TestHttp(DriverSuite):
    misdeeds = tuple(MISDEEDS)
    abilities = frozenset(Ability) - {Ability.NAN}

    @pytest.fixture
    async def rig(self, request: pytest.FixtureRequest) -> AsyncIterator[Rig]:
        server = HttpServer()
        rig = HttpRig(server, options(1))
        if "misdeed" in request.fixturenames:  # the hostile server stands in its place
            yield rig
            return
        async with server:
            rig = HttpRig(server, options(server.port))
            await rig.furnish()
            yield rig
