"""Whether a gateway is well, as whoever upgrades it asks: a verdict, and each thing that was looked at."""

from __future__ import annotations

from typing import Annotated

import msgspec
from msgspec import Meta

from holdfast.shapes.common import TimeNs


class Check(msgspec.Struct, frozen=True, kw_only=True):
    """One thing that was looked at."""

    name: Annotated[
        str,
        Meta(
            description="What it is: running, site, release, journal, ledger, state, audit, api, or device:, connection:, uplink:, "
            "face: and its name.",
            examples=["uplink:cloud"],
        ),
    ]
    ok: Annotated[bool, Meta(description="Whether it is as it should be.")]
    sentence: Annotated[str, Meta(description="What was seen.", examples=["everything up to the question is acknowledged"])]
    advice: Annotated[str, Meta(description="What to do next; empty where it is well.")] = ""
    excused: Annotated[bool, Meta(description="It was not well before either, as the baseline says: it spoils no verdict.")] = False


class HealthReport(msgspec.Struct, frozen=True, kw_only=True):
    """The verdict, and what it follows from."""

    ok: Annotated[bool, Meta(description="Everything is well that was not excused.")]
    release: Annotated[str, Meta(description="Of the running process; empty where it cannot say.", examples=["0.2.0"])]
    gateway: Annotated[str, Meta(description="Group and name.", examples=["plant-7/boiler-house"])]
    time_ns: TimeNs
    uptime_s: Annotated[float, Meta(description="Since the process was started, in seconds; 0 where it cannot say.")]
    checks: list[Check]
