"""Values of the past: as they were stored, in buckets, and as lines for eyes."""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec
from msgspec import Meta

from holdfast.shapes.common import TimeNs, Value

Number = float | str | None
"""NaN is null; infinities are ``"Infinity"`` and ``"-Infinity"``."""
MomentText = Annotated[
    str,
    Meta(
        min_length=1,
        max_length=40,
        description="A moment: nanoseconds since 1970 (digits), or as RFC 3339 says it.",
        examples=["2026-11-21T06:00:00Z"],
    ),
]


class Sample(msgspec.Struct, frozen=True, kw_only=True):
    """One value as it was stored. ``epoch`` and ``seq`` name its record in the journal."""

    time_ns: TimeNs
    value: Annotated[Value, Meta(examples=[21.5])]
    quality: Annotated[int, Meta(description="OPC UA status code; 0 is good.", examples=[0])]
    epoch: int
    seq: int


class Gap(msgspec.Struct, frozen=True, kw_only=True):
    """A stretch of time in which records were lost, or are not kept any more. They may have been of any device."""

    from_ns: TimeNs
    to_ns: TimeNs
    reason: Annotated[str, Meta(description="As the journal's ledger counts it.", examples=["full"])]
    records: Annotated[int, Meta(description="How many records.", examples=[12])]


class Samples(msgspec.Struct, frozen=True, kw_only=True):
    """Stored values of one tag, in order of time and then of seq."""

    device: str
    tag: str
    kind: Annotated[str, Meta(description="What its values are.", examples=["float32"])]
    unit: str
    from_ns: TimeNs
    to_ns: Annotated[int, Meta(description="UTC, nanoseconds since 1970; values of this very moment are not in it.")]
    items: list[Sample]
    gaps: list[Gap]
    catching_up: Annotated[bool, Meta(description="True while older records are still being looked at: newer values are missing here.")]
    next: Annotated[str | None, Meta(description="Cursor of the next part: send it as cursor; null at the end.")] = None


class BucketSeries(msgspec.Struct, frozen=True, kw_only=True):
    """Buckets of one tag, in columns: an entry for each bucket; null where nothing is known."""

    device: str
    tag: str
    kind: Annotated[str, Meta(examples=["float32"])]
    unit: str
    start_ns: list[int]
    count: Annotated[list[int], Meta(description="Stored values that are not bad.")]
    bad: Annotated[list[int], Meta(description="Stored values that are bad, or no number.")]
    good_share: Annotated[list[float | None], Meta(description="Values of good quality among all that were stored, 0 to 1.")]
    min: list[Number]
    max: list[Number]
    avg: Annotated[list[Number], Meta(description="Weighted by time: each value holds until the next, not over gaps and bad values.")]
    mean: Annotated[list[Number], Meta(description="Of the stored values, each counting the same.")]
    first: list[Number]
    last: list[Number]


class Buckets(msgspec.Struct, frozen=True, kw_only=True):
    """Buckets of one length, whose starts are multiples of it since 1970: all that touch the asked time."""

    bucket_s: Annotated[int, Meta(description="Length of a bucket, in seconds.", examples=[60])]
    series: list[BucketSeries]
    gaps: list[Gap]
    catching_up: Annotated[bool, Meta(description="True while older records are still being looked at: newer values are missing here.")]


class LineSeries(msgspec.Struct, frozen=True, kw_only=True):
    """Points of one tag that show its shape (LTTB), in columns."""

    device: str
    tag: str
    kind: Annotated[str, Meta(examples=["float32"])]
    unit: str
    of: Annotated[
        Literal["values", "minutes", "windows"],
        Meta(
            description="What the points were chosen from: all stored values, or first, least, greatest and last of each 1 or 15 minutes."
        ),
    ]
    time_ns: list[int]
    value: list[float]
    breaks: Annotated[list[int], Meta(description="Indices of points to which no line leads from the point before: there is a gap.")]


class Lines(msgspec.Struct, frozen=True, kw_only=True):
    """Lines for eyes."""

    from_ns: TimeNs
    to_ns: TimeNs
    series: list[LineSeries]
    gaps: list[Gap]
    catching_up: Annotated[bool, Meta(description="True while older records are still being looked at: newer values are missing here.")]


class SeriesName(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A tag of a device."""

    device: Annotated[str, Meta(min_length=1, max_length=128, examples=["boiler-1"])]
    tag: Annotated[str, Meta(min_length=1, max_length=256, examples=["steam/pressure"])]


AskedSeries = Annotated[list[SeriesName], Meta(min_length=1, max_length=1000, description="Which tags.")]


class BucketsAsked(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Which buckets are wanted."""

    series: AskedSeries
    begin: Annotated[MomentText | None, msgspec.Meta(description="Begin of the time asked; an hour before end where it is absent.")] = None
    end: Annotated[MomentText | None, msgspec.Meta(description="End of the time asked; now where it is absent.")] = None
    bucket_s: Annotated[int, Meta(ge=1, le=366 * 86_400, description="Length of a bucket, in seconds.", examples=[60])] = 60


class LinesAsked(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Which lines are wanted."""

    series: AskedSeries
    begin: Annotated[MomentText | None, msgspec.Meta(description="Begin of the time asked; an hour before end where it is absent.")] = None
    end: Annotated[MomentText | None, msgspec.Meta(description="End of the time asked; now where it is absent.")] = None
    points: Annotated[int, Meta(ge=2, le=100_000, description="Most points of a tag.", examples=[500])] = 500
