"""The journal and the ledger: what is recorded, and the account of every record.

The account of an uplink: ``appended == acknowledged + pending + sum(dropped) + quarantined``. That of a lane: ``appended ==
kept + unwritten + retired + sum(dropped) + quarantined``. ``unaccounted`` is the difference, so that anybody can check: it is 0.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta

from holdfast.shapes.common import TimeNs

LaneName = Annotated[Literal["telemetry", "events"], Meta(description="A class of records with its own priority.", examples=["telemetry"])]
Dropped = Annotated[dict[str, int], Meta(description="Records that will never be delivered, by reason.", examples=[{"full": 0}])]
Quarantined = Annotated[int, Meta(description="Records found damaged and set aside.", examples=[0])]
Unaccounted = Annotated[int, Meta(description="What the account does not explain: 0, or something is wrong.", examples=[0])]


class UplinkAccount(msgspec.Struct, frozen=True, kw_only=True):
    """One uplink's account of one lane, in records."""

    uplink: Annotated[str, Meta(examples=["cloud"])]
    lane: LaneName
    appended: Annotated[int, Meta(description="Records that concern it: all since it began.", examples=[5000])]
    acknowledged: Annotated[int, Meta(examples=[4990])]
    pending: Annotated[int, Meta(examples=[10])]
    dropped: Dropped
    quarantined: Quarantined
    unaccounted: Unaccounted
    cursor: Annotated[int, Meta(description="Seq of the oldest record that is pending; the lane's head where none is.", examples=[4991])]
    oldest_pending_ns: Annotated[
        int, Meta(description="UTC at or shortly before the oldest pending record; 0 where none is.", examples=[1_795_000_000_000_000_000])
    ]
    oldest_pending_s: Annotated[float, Meta(description="How old that is, in seconds; 0 where none is.", examples=[1.5])]
    untold: Annotated[int, Meta(description="Records lost for it, which it has not been told of yet.", examples=[0])]


class LaneAccount(msgspec.Struct, frozen=True, kw_only=True):
    """The account of one lane, in records."""

    lane: LaneName
    appended: Annotated[int, Meta(examples=[5000])]
    values: Annotated[int, Meta(description="Values in all records ever appended.", examples=[500_000])]
    kept: Annotated[int, Meta(description="Records on disk.", examples=[4998])]
    unwritten: Annotated[int, Meta(description="Accepted, and not durable yet.", examples=[2])]
    retired: Annotated[int, Meta(description="Removed to make room after every uplink had settled them.", examples=[0])]
    dropped: Dropped
    quarantined: Quarantined
    unaccounted: Unaccounted
    epoch: Annotated[int, Meta(description="The number of the journal's life.", examples=[1_795_000_000])]
    first: Annotated[int, Meta(description="Seq of the oldest record that is kept.", examples=[1])]
    head: Annotated[int, Meta(description="Seq after the last durable record.", examples=[4999])]
    oldest_ns: Annotated[int, Meta(description="UTC of the oldest record; 0 where none is.", examples=[1_795_000_000_000_000_000])]
    bytes: Annotated[int, Meta(examples=[1_048_576])]
    segments: Annotated[int, Meta(examples=[1])]


class Ledger(msgspec.Struct, frozen=True, kw_only=True):
    """The account of every record, at one moment."""

    time_ns: TimeNs
    lanes: list[LaneAccount]
    uplinks: list[UplinkAccount]


class Journal(msgspec.Struct, frozen=True, kw_only=True):
    """The durable record of everything that happened: its bounds, and how full it is."""

    bytes: Annotated[int, Meta(description="What it takes on disk.", examples=[1_048_576])]
    max_bytes: Annotated[int, Meta(examples=[2_147_483_648])]
    free_bytes: Annotated[int, Meta(description="Free space of its file system at the last look.", examples=[10_737_418_240])]
    min_free_bytes: Annotated[int, Meta(description="Free space that it leaves.", examples=[67_108_864])]
    max_age_s: Annotated[float, Meta(examples=[2_592_000.0])]
    when_full: Annotated[str, Meta(examples=["drop-oldest"])]
    trouble: Annotated[str, Meta(description="Why nothing can be stored just now; empty while all is well.", examples=[""])]
    lanes: list[LaneAccount]


class JournalEntry(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One entry: a record with its columns, or a gap (``lost`` says why) that will never be filled."""

    epoch: Annotated[int, Meta(examples=[1_795_000_000])]
    lane: LaneName
    seq: Annotated[int, Meta(description="Of a record.", examples=[4998])] = 0
    device: Annotated[str, Meta(examples=["meter-1"])] = ""
    tags: Annotated[list[str], Meta(examples=[["voltage", "setpoint"]])] = []
    values: Annotated[list[Any], Meta(description="One for each tag; null where its quality is bad.", examples=[[230.5, 7]])] = []
    time_ns: Annotated[
        int | list[int],
        Meta(description="One where all have the same, else one for each tag.", examples=[1_795_000_000_000_000_000]),
    ] = 0
    quality: Annotated[list[int], Meta(description="One for each tag; left out where all are good.", examples=[[0, 0]])] = []
    device_lost: Annotated[bool, Meta(description="From here on the device does not answer.", examples=[False])] = False
    lost: Annotated[str, Meta(description="Of a gap: why.", examples=[""])] = ""
    first: Annotated[int, Meta(description="Of a gap: its first seq.", examples=[0])] = 0
    last: Annotated[int, Meta(description="Of a gap: its last seq.", examples=[0])] = 0
    records: Annotated[int, Meta(description="Of a gap: how many.", examples=[0])] = 0


class Verification(msgspec.Struct, frozen=True, kw_only=True):
    """A check of every stored byte: it runs, or has ended and says what it found."""

    state: Annotated[Literal["never", "running", "ended", "failed"], Meta(examples=["ended"])]
    begun_ns: Annotated[int, Meta(description="UTC; 0 where none was made since the start.", examples=[1_795_000_000_000_000_000])] = 0
    ended_ns: Annotated[int, Meta(examples=[1_795_000_001_000_000_000])] = 0
    detail: Annotated[str, Meta(description="Why it failed.", examples=[""])] = ""
    segments: Annotated[int, Meta(examples=[2])] = 0
    records: Annotated[int, Meta(description="Intact records.", examples=[4998])] = 0
    values: Annotated[int, Meta(examples=[500_000])] = 0
    quarantined: Annotated[int, Meta(description="Records found damaged by this check.", examples=[0])] = 0
    missing: Annotated[int, Meta(examples=[0])] = 0
    repaired: Annotated[list[str], Meta(description="Segments that were damaged and have been written anew.", examples=[[]])] = []
