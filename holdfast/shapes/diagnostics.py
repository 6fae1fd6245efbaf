"""Diagnostics: the clock, and jobs that look at a line: traces, scans, the search for a number."""

from __future__ import annotations

from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta

from holdfast.shapes.common import TimeNs

ConnectionName = Annotated[str, Meta(min_length=1, max_length=128, description="Name of a connection that runs.", examples=["hall"])]
UnitIds = Annotated[
    list[Annotated[int, Meta(ge=1, le=255)]], Meta(min_length=1, max_length=255, description="Unit ids to ask.", examples=[[1, 2, 3]])
]
Seconds = Annotated[float, Meta(gt=0, le=600, description="End after so many seconds.", examples=[30.0])]


class ClockStatus(msgspec.Struct, frozen=True, kw_only=True):
    """The gateway's clock, as its kernel says it."""

    state: Annotated[
        Literal["synchronised", "unsynchronised", "wrong", "unknown"],
        Meta(description="wrong: it was never set (before 2023). unknown: the kernel may not be asked.", examples=["synchronised"]),
    ]
    trusted: Annotated[bool, Meta(description="Whether deadlines of commands can be judged by it.", examples=[True])]
    since_ns: TimeNs
    time_ns: TimeNs
    estimated_error_us: Annotated[int | None, Meta(description="Null while it is not synchronised.", examples=[20])]
    maximum_error_us: Annotated[int | None, Meta(description="Most that it can be off; null while it is not synchronised.", examples=[900])]
    leap: Annotated[str, Meta(description="Of a leap second: none, insert, delete, in progress, over, unknown.", examples=["none"])]
    steps: Annotated[int, Meta(description="How often it was set since the gateway started.", examples=[0])]
    last_step_s: Annotated[float, Meta(description="By how much, the last time.", examples=[0.0])]
    detail: str = ""


class TraceWish(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Record what passes on a connection."""

    connection: ConnectionName
    for_s: Seconds = 60.0
    until_trouble: Annotated[bool, Meta(description="Wait for trouble, and keep what was around it.", examples=[False])] = False


class ScanWish(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Ask which addresses answer: the unit ids of a connection, or the addresses of a network."""

    connection: ConnectionName | None = None
    network: (
        Annotated[
            str,
            Meta(
                max_length=32,
                description="A range within a private IPv4 network of the gateway's own, of 1,024 addresses at most.",
                examples=["192.168.1.0/28"],
            ),
        ]
        | None
    ) = None
    protocol: Annotated[Literal["modbus-tcp", "opcua"], Meta(description="Of a network.")] = "modbus-tcp"
    port: Annotated[int, Meta(ge=0, le=65535, description="Of a network; 0 is the protocol's own.")] = 0
    unit_ids: UnitIds | None = None
    for_s: Seconds = 120.0
    requests: Annotated[int, Meta(ge=1, le=20_000, description="Ask so often at most.", examples=[2000])] = 2000


class NumberWish(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Find the registers that hold the number that a device's display shows."""

    connection: ConnectionName
    unit_id: Annotated[int, Meta(ge=1, le=255, examples=[1])]
    shown: Annotated[
        str, Meta(min_length=1, max_length=40, description="What the display shows, with its unit if you like.", examples=["230.4 V"])
    ]
    first: Annotated[int, Meta(ge=0, le=65535, description="First register.")] = 0
    last: Annotated[int, Meta(ge=0, le=65535, description="Last register.")] = 65535
    for_s: Seconds = 120.0
    requests: Annotated[int, Meta(ge=1, le=20_000, description="Ask so often at most.", examples=[5000])] = 5000


class Finding(msgspec.Struct, frozen=True, kw_only=True):
    """One thing that a job found."""

    where: Annotated[str, Meta(examples=["unit id 7 on 192.168.1.5:502"])]
    detail: str = ""
    options: Annotated[dict[str, Any], Meta(description="With which it would be a connection or a device of the site document.")] = {}
    tag: Annotated[str, Meta(description="A line for the tags of the site document.")] = ""


class Job(msgspec.Struct, frozen=True, kw_only=True):
    """Something that takes a while. It is forgotten an hour after its end."""

    id: Annotated[str, Meta(examples=["9f86d081884c7d65"])]
    kind: Literal["trace", "scan", "find-number"]
    about: Annotated[str, Meta(description="The connection or network.", examples=["hall"])]
    by: Annotated[str, Meta(examples=["user:anna"])]
    state: Literal["running", "done", "failed", "cancelled"]
    began_ns: TimeNs
    ended_ns: Annotated[int, Meta(description="UTC; 0 while it runs.", examples=[0])]
    progress: str
    detail: Annotated[str, Meta(description="What there is to say at its end.")]
    frames: Annotated[int, Meta(description="Of a trace.", examples=[0])]
    bytes: Annotated[int, Meta(description="Of a trace's file.", examples=[0])]
    found: list[Finding]
