"""What may be asked about the gateway's health over the control socket."""

from __future__ import annotations

from typing import Annotated

import msgspec
from msgspec import Meta


class AskHealth(msgspec.Struct, frozen=True, kw_only=True, tag_field="ask", tag="health"):
    """Whether the gateway is well, as soon as it is, or when ``wait_s`` are over."""

    wait_s: Annotated[float, Meta(ge=0, le=3600)] = 10.0
    excused: Annotated[tuple[Annotated[str, Meta(max_length=512)], ...], Meta(max_length=50_000)] = ()
    """Names of checks that need not be well, because they were not before."""
    release: Annotated[str, Meta(max_length=64)] = ""
    """The release that is to run; empty is any."""
    only: Annotated[tuple[Annotated[str, Meta(max_length=512)], ...], Meta(max_length=1000)] = ()
    """Names of the only checks that count; empty is all."""


OfHealth = AskHealth
