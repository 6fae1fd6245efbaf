"""The latest value of every tag: one object a value."""

from __future__ import annotations

from typing import Annotated

import msgspec
from msgspec import Meta

from holdfast.shapes.common import Value
from holdfast.shapes.devices import DeviceName, TagName


class Reading(msgspec.Struct, frozen=True, kw_only=True):
    """The latest value of one tag."""

    device: DeviceName
    tag: TagName
    value: Annotated[Value, Meta(description="null where the quality is bad.", examples=[230.5])]
    unit: Annotated[str, Meta(examples=["V"])]
    quality: Annotated[int, Meta(description="OPC UA status code; 0 is good.", examples=[0])]
    quality_name: Annotated[str, Meta(description="Its name; in hexadecimal where Holdfast has none.", examples=["good"])]
    time_ns: Annotated[
        int,
        Meta(
            description="UTC, of the source where the device tells it, else of the answer; 0 before the first.",
            examples=[1_795_000_000_000_000_000],
        ),
    ]
