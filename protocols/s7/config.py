"""The Structs that ARE the configuration of an S7 connection: types, defaults, limits, units and descriptions.

A connection is one controller; a device is a group of its tags under one name, such as a machine that it runs. What cannot be said
by types and limits is checked in ``check.py``. Nothing here touches the network.
"""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec
from msgspec import Meta

from protocols.options import Host, Name, TagOptions


class Tag(TagOptions, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """One value of a controller."""

    at: Annotated[
        str,
        Meta(
            min_length=2,
            max_length=24,
            description="Where it lies, as Step 7 writes it: DB10.DBX4.3, DB10.DBW2, DB10.DBD4, M7.0, IW4, QB8.",
            examples=["DB10.DBD4"],
        ),
    ]
    length: Annotated[int, Meta(ge=0, le=254, description="Characters of a STRING as it is declared, or the number of bytes.")] = 0
    scan_s: Annotated[
        Annotated[float, Meta(ge=0.01, le=86400)] | None, Meta(description="Period, in seconds; empty takes the device's.")
    ] = None


class Device(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A group of tags of the controller."""

    name: Annotated[Name, Meta(description="Name of the device, unique in the site.")]
    scan_s: Annotated[float, Meta(ge=0.01, le=86400, description="Period of its tags, in seconds.")] = 1.0
    max_gap: Annotated[int, Meta(ge=0, le=200, description="Most unused bytes that are read over to save an item of a request.")] = 16
    tags: Annotated[tuple[Tag, ...], Meta(max_length=65536, description="Its values.")] = ()


class S7(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True, weakref=True, tag_field="type", tag="s7"):
    """Siemens S7 controllers (S7-300, 400, 1200, 1500)."""

    name: Annotated[Name, Meta(description="Name of the connection, unique in the site.")]
    host: Annotated[Host, Meta(description="Host name or IP address.")]
    port: Annotated[int, Meta(ge=1, le=65535, description="TCP port.")] = 102
    rack: Annotated[int, Meta(ge=0, le=7, description="Rack of the CPU.")] = 0
    slot: Annotated[int, Meta(ge=0, le=31, description="Slot of the CPU: 1 for S7-1200 and 1500, 2 for S7-300, as configured for 400.")] = 1
    as_a: Annotated[
        Literal["pg", "op", "basic"], Meta(description="Which of the controller's connections to take: programming, panel, or other.")
    ] = "op"
    connect_timeout_s: Annotated[float, Meta(ge=0.1, le=60, description="Longest wait for the connection, in seconds.")] = 5.0
    timeout_s: Annotated[float, Meta(ge=0.05, le=60, description="Longest wait for an answer, in seconds.")] = 3.0
    devices: Annotated[tuple[Device, ...], Meta(max_length=1000, description="Groups of its tags.")] = ()
