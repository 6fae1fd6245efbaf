"""The audit log: what people and machines did, in a chain that shows where it was touched."""

from __future__ import annotations

from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta

from holdfast.shapes.common import TimeNs

Digest = Annotated[
    str, Meta(description="SHA-256, hexadecimal.", examples=["4bf5122f344554c53bde2ebb8cd2b7e3d1600ad631c385a5d7cce23c7785459a"])
]


class AuditEntry(msgspec.Struct, frozen=True, kw_only=True):
    """One thing that somebody did, or tried."""

    number: Annotated[int, Meta(description="From 1, without gaps.", examples=[4711])]
    time_ns: TimeNs
    who: Annotated[str, Meta(description="Kind and name; empty where nobody knows.", examples=["user:anna"])]
    source: Annotated[str, Meta(description="Where it came from: an address, console, the name of an uplink.", examples=["192.0.2.7"])]
    action: Annotated[str, Meta(description="The operation.", examples=["create_user"])]
    on: Annotated[str, Meta(description="What it was done to.", examples=["user/ben"])]
    outcome: Annotated[Literal["done", "refused", "failed"], Meta(examples=["done"])]
    request: Annotated[str, Meta(description="Method and path, where it came through the API.", examples=["POST /api/v1/users"])]
    status: Annotated[int, Meta(description="What the API answered; 0 where it did not come through it.", examples=[201])]
    detail: str
    before: Annotated[Any, Meta(description="What it was before; null where nothing is said.")] = None  # Any: JSON values, as after
    after: Annotated[Any, Meta(description="What it is after.")] = None
    previous: Annotated[Digest, Meta(description="Digest of the entry before; 64 zeros where there is none.")]
    digest: Annotated[Digest, Meta(description="Digest of this entry, as it stands in the export.")]


class AuditBreak(msgspec.Struct, frozen=True, kw_only=True):
    """One place where the chain does not hold."""

    line: Annotated[int, Meta(description="In the export, from 1.")]
    number: Annotated[int, Meta(description="Of the entry there; 0 where it cannot be read.")]
    what: Annotated[str, Meta(examples=["entries 20 to 24 are missing"])]


class AuditVerdict(msgspec.Struct, frozen=True, kw_only=True):
    """What became of checking the whole chain, and how the log is."""

    holds: Annotated[bool, Meta(description="Whether nothing in it was changed, removed or put in.")]
    entries: Annotated[int, Meta(examples=[4711])]
    first: Annotated[int, Meta(description="Number of the first entry that is kept; what was removed before is no break.", examples=[1])]
    last: Annotated[int, Meta(description="Number of the last entry.", examples=[4711])]
    digest: Annotated[Digest, Meta(description="Of the last entry: keep it elsewhere to know later that the end was not cut off.")]
    broken: list[AuditBreak]
    waiting: Annotated[int, Meta(description="Entries that are not on the disk yet.")]
    lost: Annotated[int, Meta(description="Entries that could not be kept since the start; the log says where.")]
    trouble: Annotated[str, Meta(description="Why entries are not written now; empty where they are.")]
