"""Connections: how each way to the field is, how punctual its scans are, and what it is configured to do."""

from __future__ import annotations

from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta

from holdfast.shapes.common import TimeNs

LinkState = Literal["connecting", "up", "waiting", "stopped"]
State = Annotated[LinkState, Meta(description="up while the peer answers; waiting until it is tried again.", examples=["up"])]
Trouble = Annotated[str, Meta(description="The last error; empty while up.", examples=[""])]
ByReason = Annotated[dict[str, int], Meta(description="Number by reason.", examples=[{"Unreachable": 2}])]


class Counts(msgspec.Struct, frozen=True, kw_only=True):
    """What is counted, since the gateway was started."""

    taken: Annotated[int, Meta(description="What came in: values of a connection, records of an uplink.", examples=[86400])]
    given: Annotated[int, Meta(description="What went out and was confirmed.", examples=[86400])]
    errors: ByReason
    dropped: ByReason
    oldest_ns: Annotated[int, Meta(description="UTC stamp of the oldest thing that waits; 0 where nothing does.", examples=[0])]


class Lateness(msgspec.Struct, frozen=True, kw_only=True):
    """How many scans started up to this late, and later than the step before."""

    up_to_s: Annotated[float | None, Meta(description="In seconds; null is everything later.", examples=[0.005])]
    scans: Annotated[int, Meta(examples=[86390])]


class Punctuality(msgspec.Struct, frozen=True, kw_only=True):
    """How punctual scans are, since the gateway was started."""

    scans: Annotated[int, Meta(examples=[86400])]
    missed: Annotated[int, Meta(description="Scans whose whole period went by before they could start.", examples=[0])]
    late_mean_s: Annotated[float, Meta(description="Mean lateness, in seconds.", examples=[0.0007])]
    lateness: list[Lateness]
    requests: Annotated[int, Meta(description="Requests sent to devices.", examples=[172800])]
    errors: ByReason
    bus_share: Annotated[
        float | None,
        Meta(description="Share of the line's time that the plan takes; null where the protocol has no such figure.", examples=[0.31]),
    ]


class Connection(msgspec.Struct, frozen=True, kw_only=True):
    """One configured way to reach field equipment, as it is now."""

    name: Annotated[str, Meta(examples=["hall"])]
    type: Annotated[str, Meta(description="Protocol, as the site document says it.", examples=["modbus-tcp"])]
    state: State
    since_ns: TimeNs
    trouble: Trouble
    sessions: Annotated[int, Meta(description="How often the peer has been reached.", examples=[1])]
    devices: Annotated[int, Meta(description="Devices behind it that whoever asks sees.", examples=[2])]
    tags: Annotated[int, Meta(description="Their tags.", examples=[4])]
    counters: Counts
    scans: Punctuality


class ConnectionOptions(msgspec.Struct, frozen=True, kw_only=True):
    """What a connection is configured to do, without its devices and without any secret."""

    name: Annotated[str, Meta(examples=["hall"])]
    options: Annotated[
        dict[str, Any],  # Any: the driver's own options
        Meta(
            description="As the site document says them. Where a secret lies is told, what it is never.",
            examples=[{"type": "modbus-tcp", "host": "192.0.2.7", "port": 502}],
        ),
    ]
