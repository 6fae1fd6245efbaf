"""A small driver of the tests' own, shaped like the real ones: what the configuration needs to know of any driver."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractAsyncContextManager
from typing import Annotated, Any

import msgspec
import pytest
from msgspec import Meta

from gateway.config.drivers import Drivers
from protocols.clock import Clock
from protocols.contract import ProbeReport, Problem, Session
from protocols.model import Device, Kind, Tag
from protocols.secret import Secret
from protocols.tls import Tls


class Point(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """One value."""

    name: Annotated[str, Meta(min_length=1, max_length=256, description="Name of the tag.", examples=["steam/pressure"])]
    at: Annotated[str, Meta(pattern=r"^(holding|input|coil):[0-9]{1,5}$", description="Where it stands.", examples=["holding:0"])]
    kind: Annotated[Kind, Meta(description="What it is.")]
    unit: Annotated[str, Meta(max_length=32, description="Engineering unit.")] = ""
    word_order: Annotated[str, Meta(description="Order of words.")] = "big"
    scale: Annotated[float, Meta(description="Factor.")] = 1.0
    deadband: Annotated[float, Meta(ge=0, description="Change that is not reported.")] = 0.0
    writable: Annotated[bool, Meta(description="May be written.")] = False


class Box(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """One device."""

    name: Annotated[str, Meta(min_length=1, description="Name of the device.", examples=["boiler-1"])]
    unit_id: Annotated[int, Meta(ge=0, le=255, description="Unit id.")] = 1
    scan_s: Annotated[float, Meta(gt=0, le=86400, description="Period, in seconds.")] = 1.0
    tags: Annotated[tuple[Point, ...], Meta(max_length=10_000, description="Its tags.")] = ()


class TcpOptions(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True, tag_field="type", tag="modbus-tcp"):
    """A device on the network."""

    name: Annotated[str, Meta(min_length=1, description="Name of the connection.")]
    host: Annotated[str, Meta(min_length=1, description="Host name or IP address.", examples=["192.168.10.20"])]
    port: Annotated[int, Meta(ge=1, le=65535, description="TCP port.")] = 502
    timeout_s: Annotated[float, Meta(gt=0, le=60, description="How long to wait for an answer, in seconds.")] = 1.0
    tls: Annotated[Tls | None, Meta(description="TLS.")] = None
    password: Annotated[Secret | None, Meta(description="Where the password lies.")] = None
    devices: Annotated[tuple[Box, ...], Meta(max_length=1000, description="Devices.")] = ()


class RtuOptions(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True, tag_field="type", tag="modbus-rtu"):
    """Devices on a serial line."""

    name: Annotated[str, Meta(min_length=1, description="Name of the connection.")]
    serial_port: Annotated[str, Meta(min_length=1, description="Serial port.", examples=["/dev/ttyS1"])]
    baud_rate: Annotated[int, Meta(ge=300, le=4_000_000, description="Bits a second.")] = 9600
    devices: Annotated[tuple[Box, ...], Meta(max_length=1000, description="Devices.")] = ()


class PointDriver:
    """Speaks to nobody: configuration never opens a connection."""

    def __init__(self, options: type[TcpOptions] | type[RtuOptions]) -> None:
        self.name = str(options.__struct_config__.tag)
        self.options: type[msgspec.Struct] = options

    def check(self, options: Any) -> Sequence[Problem]:  # Any: as the contract says
        return [
            Problem(f"devices[{place}].tags[{at}].at", "there is no register 99999", "registers go to 65535")
            for place, box in enumerate(options.devices)
            for at, point in enumerate(box.tags)
            if point.at.endswith(":99999")
        ]

    def devices(self, options: Any) -> Sequence[Device]:  # Any: as the contract says
        return [
            Device(
                options.name,
                box.name,
                tuple(Tag(name=one.name, kind=one.kind, scan_s=box.scan_s, deadband=one.deadband) for one in box.tags),
            )
            for box in options.devices
        ]

    def open(self, options: Any, *, clock: Clock) -> AbstractAsyncContextManager[Session]:  # Any: as the contract says
        raise AssertionError("configuration opens nothing")

    async def probe(self, options: Any) -> ProbeReport:  # Any: as the contract says
        raise AssertionError("configuration probes nothing")


@pytest.fixture(scope="session")
def drivers() -> Drivers:
    """The tests' own drivers under the names of the real ones."""
    return {"modbus-tcp": PointDriver(TcpOptions), "modbus-rtu": PointDriver(RtuOptions)}
