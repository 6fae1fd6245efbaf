"""Shadows: what each device reported last, what is desired of it, and what differs."""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec
from msgspec import Meta

from holdfast.shapes.common import TimeNs, Value

DesiredValue = bool | int | float | Annotated[str, Meta(max_length=4096)] | None
"""A number, a text, true or false, bytes in base64; null desires nothing any more."""
TagName = Annotated[str, Meta(min_length=1, max_length=256)]
Version = Annotated[int, Meta(ge=0, description="Of the shadow: each change of what is desired raises it by one.", examples=[7])]


class Wish(msgspec.Struct, frozen=True, kw_only=True):
    """One desired value and what became of it."""

    value: Annotated[Value, Meta(examples=[21.5])]
    version: Annotated[int, Meta(description="The shadow's version that it came with.", examples=[7])]
    state: Annotated[
        Literal["pending", "in-sync", "diverged", "refused", "mismatch", "expired"],
        Meta(
            description=(
                "pending: waits for the device or its next try. in-sync: the device has it. diverged: the device had it and was given "
                "another value elsewhere, such as at its panel; it is not written again until it is desired anew. refused: the gateway or "
                "the device says no; tried again, rarely. mismatch: the device made another value of it; not tried again. expired: its "
                "lifetime ended first."
            ),
            examples=["pending"],
        ),
    ]
    detail: Annotated[str, Meta(description="Why, where there is a reason.", examples=[""])] = ""
    by: Annotated[str, Meta(description="Who desired it.", examples=["user:anna"])]
    reason: Annotated[str, Meta(description="Why it is desired, where somebody said so.", examples=["night setback"])] = ""
    set_ns: TimeNs
    expires_ns: Annotated[int, Meta(description="UTC until which it is tried; 0 is for ever.", examples=[0])] = 0
    applied_ns: Annotated[int, Meta(description="UTC when the device had it; 0 is never.", examples=[0])] = 0
    tries: Annotated[int, Meta(description="Commands sent for it so far.", examples=[0])] = 0


class ReportedValue(msgspec.Struct, frozen=True, kw_only=True):
    """A value as the device last reported it."""

    value: Annotated[Value, Meta(examples=[20.0])]
    quality: Annotated[int, Meta(description="OPC UA status code.", examples=[0])]
    time_ns: TimeNs


class Shadow(msgspec.Struct, frozen=True, kw_only=True):
    """One device as it was last known and as it is desired, also while it is away."""

    device: Annotated[str, Meta(examples=["meter-1"])]
    version: Version
    present: Annotated[bool, Meta(description="Whether the device answers now.", examples=[True])]
    desired: Annotated[dict[str, Wish], Meta(description="By tag.")]
    reported: Annotated[dict[str, ReportedValue], Meta(description="By tag; each value says how old it is.")]
    delta: Annotated[dict[str, Value], Meta(description="Desired values that the device has not, by tag.", examples=[{"setpoint": 21.5}])]


class ShadowSummary(msgspec.Struct, frozen=True, kw_only=True):
    """One device's shadow in short."""

    device: Annotated[str, Meta(examples=["meter-1"])]
    version: Version
    present: Annotated[bool, Meta(description="Whether the device answers now.", examples=[True])]
    desired: Annotated[int, Meta(description="How many values are desired.", examples=[1])]
    delta: Annotated[int, Meta(description="How many of them the device has not.", examples=[1])]


class ShadowChange(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What is to be desired from now on: merged into what is desired already (RFC 7396)."""

    desired: Annotated[
        dict[TagName, DesiredValue],
        Meta(max_length=1000, description="By tag; null desires nothing any more. What is not named stays.", examples=[{"setpoint": 21.5}]),
    ]
    version: Annotated[int, Meta(ge=0, le=2**53, description="The version that you have read.", examples=[7])] | None = None
    reason: Annotated[
        str, Meta(max_length=500, description="Why; some tags are not written without a reason.", examples=["night setback"])
    ] = ""
    lifetime_s: (
        Annotated[
            float, Meta(gt=0, le=31_536_000, description="Until when to try, in seconds from now; null is for ever.", examples=[3600.0])
        ]
        | None
    ) = None
