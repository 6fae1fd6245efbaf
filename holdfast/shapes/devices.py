"""Devices and their tags: what is configured, and whether it answers."""

from __future__ import annotations

from typing import Annotated

import msgspec
from msgspec import Meta

DeviceName = Annotated[str, Meta(examples=["meter-1"])]
TagName = Annotated[str, Meta(examples=["voltage"])]


class Device(msgspec.Struct, frozen=True, kw_only=True):
    """One addressable thing behind a connection, as it is now."""

    name: DeviceName
    connection: Annotated[str, Meta(examples=["hall"])]
    state: Annotated[str, Meta(description="State of its connection.", examples=["up"])]
    lost: Annotated[bool, Meta(description="True while it does not answer.", examples=[False])]
    last_seen_ns: Annotated[
        int, Meta(description="UTC of its newest value that is not bad; 0 where there is none.", examples=[1_795_000_000_000_000_000])
    ]
    tags: Annotated[int, Meta(description="How many tags it has.", examples=[2])]
    bad: Annotated[int, Meta(description="How many of them have a bad quality now.", examples=[0])]


class Tag(msgspec.Struct, frozen=True, kw_only=True):
    """One value of a device: what it is, not what it holds."""

    device: DeviceName
    name: TagName
    kind: Annotated[str, Meta(description="Of the value after scaling.", examples=["float32"])]
    unit: Annotated[str, Meta(examples=["V"])]
    writable: Annotated[bool, Meta(examples=[False])]
    scan_s: Annotated[float, Meta(description="Period in which a new value is expected; 0: the device decides.", examples=[1.0])]
    deadband: Annotated[float, Meta(description="A change up to this size is not reported.", examples=[0.0])]
    deadband_percent: Annotated[float, Meta(examples=[0.0])]
    max_silence_s: Annotated[float, Meta(description="It is reported at least this often.", examples=[600.0])]
