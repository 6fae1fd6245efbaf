"""Uplinks and faces: who the gateway delivers to, and how PLCs and SCADA see it."""

from __future__ import annotations

from typing import Annotated

import msgspec
from msgspec import Meta

from holdfast.shapes.common import TimeNs
from holdfast.shapes.connections import Counts, State, Trouble
from holdfast.shapes.journal import UplinkAccount


class Uplink(msgspec.Struct, frozen=True, kw_only=True):
    """A reader of the journal that delivers to somebody, as it is now."""

    name: Annotated[str, Meta(examples=["cloud"])]
    type: Annotated[str, Meta(examples=["sparkplug"])]
    state: State
    since_ns: TimeNs
    trouble: Trouble
    sessions: Annotated[int, Meta(description="How often the peer has been reached.", examples=[1])]
    counters: Counts
    lanes: Annotated[list[UplinkAccount], Meta(description="Its account, one of each lane.")]


class Face(msgspec.Struct, frozen=True, kw_only=True):
    """How PLCs, SCADA or people see the gateway's tags, as it is now."""

    name: Annotated[str, Meta(examples=["plc"])]
    type: Annotated[str, Meta(examples=["modbus"])]
    state: State
    since_ns: TimeNs
    trouble: Trouble
    sessions: Annotated[int, Meta(description="How often it has begun to serve.", examples=[1])]
    counters: Counts
