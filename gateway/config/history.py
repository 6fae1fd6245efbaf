"""The Struct of history: what is kept beside the journal so that trends are quick, and how much may be asked at once."""

from __future__ import annotations

from typing import Annotated

import msgspec
from msgspec import Meta


class History(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Values read back by tag and time. It works where there is an api section; what it keeps can be made anew from the journal."""

    enabled: Annotated[
        bool, Meta(description="Whether roll-ups and an index of the journal are kept; without them there is no history.")
    ] = True
    path: Annotated[str, Meta(max_length=4096, description="Folder of the roll-ups, relative to the journal's; empty: history.")] = ""
    max_bytes: Annotated[
        int,
        Meta(
            ge=16 * 1024**2,
            le=2**50,
            description="Most bytes that the roll-ups may take on disk, besides the journal's; the oldest make room.",
        ),
    ] = 512 * 1024**2
    concurrent: Annotated[int, Meta(ge=1, le=64, description="Questions that are answered at the same time; others wait for a moment.")] = 4
    most_tags: Annotated[int, Meta(ge=1, le=1000, description="Most tags in one question.")] = 50
    most_points: Annotated[int, Meta(ge=10, le=100_000, description="Most buckets or points in one answer, of all its tags together.")] = (
        20_000
    )
    most_raw: Annotated[
        int, Meta(ge=1000, le=1_000_000, description="Most stored values of a tag that one trend, or buckets below a minute, may read.")
    ] = 20_000
