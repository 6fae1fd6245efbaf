"""The gateway itself: who it is and how it is."""

from __future__ import annotations

from typing import Annotated

import msgspec
from msgspec import Meta

from holdfast.shapes.common import TimeNs


class Gateway(msgspec.Struct, frozen=True, kw_only=True):
    """Who this gateway is, and for how long it has been running."""

    group: Annotated[str, Meta(examples=["plant-7"])]
    name: Annotated[str, Meta(examples=["boiler-house"])]
    version: Annotated[str, Meta(description="Of the gateway's software.", examples=["0.1.0"])]
    time_ns: TimeNs
    uptime_s: Annotated[float, Meta(description="Since the process was started, in seconds.", examples=[86400.5])]


class Health(msgspec.Struct, frozen=True, kw_only=True):
    """Whether the gateway runs, or is ready; no more, for anybody may ask."""

    status: Annotated[str, Meta(examples=["ok"])]
