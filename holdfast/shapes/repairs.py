"""Repairs: each known fault as it is now, with what shows it, what it costs and what mends it."""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec
from msgspec import Meta

from holdfast.shapes.common import TimeNs


class RepairFix(msgspec.Struct, frozen=True, kw_only=True):
    """What can be pressed."""

    id: Annotated[str, Meta(examples=["trust-certificate"])]
    label: Annotated[str, Meta(examples=["Trust this certificate"])]
    confirm: Annotated[str, Meta(description="What whoever presses it should read first.")]
    undo: Annotated[str, Meta(description="How it is undone.")]
    needs: Annotated[str, Meta(description="The permission it needs, besides repair.", examples=["manage-certificates"])]


class PutOff(msgspec.Struct, frozen=True, kw_only=True):
    """That a fault is known and waits."""

    by: Annotated[str, Meta(examples=["user:anna"])]
    reason: Annotated[str, Meta(examples=["the meter is being exchanged"])]
    at_ns: TimeNs
    until_ns: Annotated[int, Meta(description="UTC; 0: until the fault is gone.", examples=[0])] = 0


class Repair(msgspec.Struct, frozen=True, kw_only=True):
    """One known fault."""

    id: Annotated[
        str, Meta(description="The same as long as the fault lasts, and when it comes again.", examples=["device-silent-3f2a90bc11de"])
    ]
    kind: Annotated[str, Meta(examples=["device-silent"])]
    about: Literal["connection", "device", "uplink", "face", "api", "gateway"]
    name: Annotated[str, Meta(description="Of what it is about; empty for the gateway.", examples=["meter-1"])]
    severity: Literal["error", "warning", "info"]
    since_ns: Annotated[
        int, Meta(description="UTC since when it has been seen, at the latest since the start.", examples=[1_795_000_000_000_000_000])
    ]
    title: Annotated[str, Meta(examples=["Device meter-1 does not answer"])]
    evidence: Annotated[list[str], Meta(description="What shows it.", examples=[["connection hall is up"]])]
    effect: Annotated[str, Meta(description="What it costs.", examples=["its values are bad, and commands to it fail"])]
    advice: Annotated[str, Meta(description="What to do next.", examples=["is it switched on?"])]
    fix: Annotated[RepairFix | None, Meta(description="Null where only a person can mend it.")] = None
    put_off: Annotated[PutOff | None, Meta(description="Null where it waits for nothing.")] = None


class RepairDone(msgspec.Struct, frozen=True, kw_only=True):
    """What a fix did."""

    done: Annotated[str, Meta(examples=["revision 7 stays"])]
    undo: Annotated[str, Meta(description="How it is undone.")]


class PutOffWish(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """That a fault is to wait, and why."""

    reason: Annotated[str, Meta(min_length=1, max_length=500, examples=["the meter is being exchanged"])]
    for_s: (
        Annotated[float, Meta(gt=0, le=31_536_000, description="In seconds; null: until the fault is gone.", examples=[86400.0])] | None
    ) = None
