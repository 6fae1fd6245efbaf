"""Commands: what is wished, how far it has got, and who has locked what out."""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec
from msgspec import Meta

from holdfast.shapes.common import TimeNs, Value

CommandId = Annotated[str, Meta(min_length=1, max_length=256, pattern=r"^[ -~]+$", examples=["3f0c5a52-batch-17"])]
Stage = Literal["accepted", "queued", "sent", "acknowledged", "verified", "mismatch", "refused", "expired", "failed"]
Scope = Literal["gateway", "connection", "device"]


class NewCommand(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A wish to write a tag."""

    device: Annotated[str, Meta(min_length=1, max_length=128, examples=["meter-1"])]
    tag: Annotated[str, Meta(min_length=1, max_length=255, examples=["setpoint"])]
    value: Annotated[
        bool | int | float | Annotated[str, Meta(max_length=65_536)],
        Meta(description="Of the tag's kind; bytes as base64.", examples=[21.5]),
    ]
    id: Annotated[
        CommandId | None,
        Meta(
            description="Yours, one for each wish: the same id is carried out once. Who is bound to a tenant finds it under TENANT:ID. "
            "Without it, Idempotency-Key, else the gateway's own."
        ),
    ] = None
    deadline_ns: Annotated[
        Annotated[int, Meta(ge=0, le=2**63 - 1)] | None,
        Meta(description="UTC, nanoseconds; it is not sent after it.", examples=[1_795_000_010_000_000_000]),
    ] = None
    deadline_s: Annotated[
        Annotated[float, Meta(gt=0, le=2_592_000)] | None, Meta(description="The same, from now on, in seconds.", examples=[10.0])
    ] = None
    when_down: Annotated[
        Literal["wait", "fail"], Meta(description="What to do while its connection is down: wait until the deadline, or fail at once.")
    ] = "wait"
    reason: Annotated[str, Meta(max_length=500, description="Why; it is recorded.", examples=["new recipe"])] = ""


class Command(msgspec.Struct, frozen=True, kw_only=True):
    """A command and how far it has got."""

    id: CommandId
    device: str
    tag: str
    value: Annotated[Value, Meta(description="What is wished.")]
    stage: Annotated[
        Stage,
        Meta(
            description="The last five are ends. refused, expired: nothing was sent. verified, mismatch: taken by the device, and read "
            "back. failed: it did not come about; detail says whether nothing was sent, the device said no, or nobody can say."
        ),
    ]
    times_ns: Annotated[
        dict[str, int], Meta(description="When it got to each stage; UTC, nanoseconds.", examples=[{"accepted": 1_795_000_000_000_000_000}])
    ]
    detail: Annotated[str, Meta(description="Why it ended so, for a person.")] = ""
    read_back: Annotated[Value, Meta(description="What was read back; null where nothing was.")] = None
    by_device: Annotated[bool, Meta(description="failed because the device itself said no: nothing has changed.")] = False
    attempts: Annotated[int, Meta(description="How often it was given to the driver.")] = 0
    deadline_ns: TimeNs
    source: Annotated[str, Meta(description="By which way it came, and who asked.", examples=["api, user:anna", "uplink cloud"])]
    reason: str = ""


class NewLockOut(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Let nobody write while somebody works there."""

    scope: Scope
    name: Annotated[str, Meta(max_length=128, description="Of the connection or device; empty for the gateway.", examples=["meter-1"])] = ""
    why: Annotated[str, Meta(min_length=1, max_length=500, examples=["pump 3 is open"])]
    until_ns: Annotated[
        int, Meta(ge=0, le=2**63 - 1, description="UTC, nanoseconds; when it ends by itself. 0: when somebody lifts it.")
    ] = 0


class LockOut(msgspec.Struct, frozen=True, kw_only=True):
    """What nobody writes to now."""

    id: Annotated[str, Meta(examples=["device:meter-1", "gateway"])]
    scope: Scope
    name: str
    who: Annotated[str, Meta(examples=["user:anna"])]
    why: str
    since_ns: TimeNs
    until_ns: Annotated[int, Meta(description="UTC, nanoseconds; 0: until somebody lifts it.")]
