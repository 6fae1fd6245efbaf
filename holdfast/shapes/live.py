"""The live stream: what is asked of it and what it says, one JSON object a message, told apart by ``type``.

Over WebSocket each message is one text frame; over SSE ``event`` is its type, ``data`` the message, ``id`` where the stream is.
A record has its values in columns: ``tags[i]`` has ``values[i]``. ``time_ns`` is one number where all values have the same time,
else one for each; ``quality`` is there only where some value is not good. Delivery is at least once: the same record
carries the same epoch and seq.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

import msgspec
from msgspec import UNSET, Meta, UnsetType

from holdfast.shapes.common import TimeNs, Value

Stream = Literal["values", "events", "ledger", "log"]
LaneName = Literal["telemetry", "events"]
LeastQuality = Literal["good", "uncertain", "bad"]
KindName = Literal[
    "bool", "int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64", "float32", "float64", "string", "bytes"
]
Glob = Annotated[str, Meta(min_length=1, max_length=256, description="A name; * stands for any text, ? for any letter.")]
MOST_SEQ = 2**63 - 1


class Position(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A place in a lane of the journal: the last record that was received."""

    epoch: Annotated[int, Meta(ge=0, le=MOST_SEQ, examples=[3])]
    seq: Annotated[int, Meta(ge=0, le=MOST_SEQ, description="0: everything that the journal still has.", examples=[1200])]


class Resume(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """Where each lane was left: the stream goes on behind it."""

    telemetry: Position | None = None
    events: Position | None = None


class Subscribe(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, tag_field="type", tag="subscribe"):
    """What is to be told. A further one takes the place of the one before. All filters must hold; an empty one holds always."""

    streams: Annotated[tuple[Stream, ...], Meta(min_length=1, max_length=4, examples=[["values", "events"]])] = ("values",)
    devices: Annotated[tuple[Glob, ...], Meta(max_length=100, description="Devices to follow.", examples=[["meter-*"]])] = ()
    tags: Annotated[tuple[Glob, ...], Meta(max_length=200, description="Tags to follow.", examples=[["voltage", "power/*"]])] = ()
    kinds: Annotated[tuple[KindName, ...], Meta(max_length=13, description="Kinds of value to follow.", examples=[["float32"]])] = ()
    least_quality: Annotated[LeastQuality, Meta(description="Values of a worse quality are left out; bad leaves out none.")] = "bad"
    every_ms: Annotated[
        int, Meta(ge=0, le=3_600_000, description="At most one value of a tag in so many milliseconds, the newest; 0: every value.")
    ] = 0
    snapshot: Annotated[bool, Meta(description="Begin with the latest values (where resume does not say where to go on).")] = True
    resume: Annotated[Resume | None, Meta(description="Go on behind these places. With every_ms: what was between is counted.")] = None


class Entry(msgspec.Struct, frozen=True, kw_only=True):
    """Values of one device."""

    device: str
    tags: list[str]
    values: list[Value]
    time_ns: int | list[int]
    quality: list[int] | UnsetType = UNSET
    device_lost: bool = False
    """True: from here on the device does not answer."""


class Told(Entry, frozen=True, kw_only=True):
    """A record of the journal."""

    epoch: int
    seq: int
    lane: LaneName


class Subscribed(msgspec.Struct, frozen=True, kw_only=True, tag_field="type", tag="subscribed"):
    """The subscription holds; ``at`` says where the journal is."""

    streams: list[Stream]
    at: dict[LaneName, Position]


class Latest(msgspec.Struct, frozen=True, kw_only=True, tag_field="type", tag="latest"):
    """The latest values: at the beginning, after something was left out, or every ``every_ms``."""

    entries: list[Entry]
    replaced: int = 0
    """So many values were overtaken by newer ones and are not told."""


class Records(msgspec.Struct, frozen=True, kw_only=True, tag_field="type", tag="records"):
    """Records of a lane, in its order."""

    lane: LaneName
    records: list[Told]


class LostRecords(msgspec.Struct, frozen=True, kw_only=True, tag_field="type", tag="lost"):
    """Records that nobody will ever get, and why."""

    lane: LaneName
    epoch: int
    first: int
    last: int
    records: int
    reason: str


class Skipped(msgspec.Struct, frozen=True, kw_only=True, tag_field="type", tag="skipped"):
    """Records that this stream leaves out: the latest values follow. They are in the journal still: history has them, and resume."""

    lane: LaneName
    first: Position
    last: Position
    records: int
    reason: Literal["slow-client", "busy-gateway", "conflated", "unknown-position"]


class Live(msgspec.Struct, frozen=True, kw_only=True, tag_field="type", tag="live"):
    """The lane is told as it grows from here on."""

    lane: LaneName
    at: Position


class LedgerTold(msgspec.Struct, frozen=True, kw_only=True, tag_field="type", tag="ledger"):
    """The account of every record, when it has changed, at most once a second."""

    ledger: dict[str, Any]


class LogLines(msgspec.Struct, frozen=True, kw_only=True, tag_field="type", tag="log"):
    """Events of the gateway's log."""

    lines: list[dict[str, Any]]
    skipped: int = 0


class Heartbeat(msgspec.Struct, frozen=True, kw_only=True, tag_field="type", tag="heartbeat"):
    """Nothing was to be told for a while. ``at`` is where to resume."""

    time_ns: TimeNs
    at: dict[LaneName, Position]


class Ended(msgspec.Struct, frozen=True, kw_only=True, tag_field="type", tag="ended"):
    """The stream ends, and why: over SSE the last event, over WebSocket the close frame says it."""

    code: int
    reason: str


Message = Subscribed | Latest | Records | LostRecords | Skipped | Live | LedgerTold | LogLines | Heartbeat | Ended
"""Everything that the stream says."""
