"""What a person with a shell on the gateway asks and changes of commands, without the API: over the control socket."""

from __future__ import annotations

from typing import Annotated

import msgspec
from msgspec import Meta

from gateway.commands.lockout import Scope

Name = Annotated[str, Meta(max_length=128)]


class AskCommand(msgspec.Struct, frozen=True, kw_only=True, tag_field="ask", tag="command"):
    """Write a tag, and say what became of it."""

    device: Annotated[str, Meta(min_length=1, max_length=128)]
    tag: Annotated[str, Meta(min_length=1, max_length=255)]
    value: bool | int | float | Annotated[str, Meta(max_length=65_536)]
    wait_s: Annotated[float, Meta(gt=0, le=3600)] = 10.0
    """Its deadline, and how long is waited for its end."""
    reason: Annotated[str, Meta(max_length=500)] = ""
    who: Annotated[str, Meta(max_length=64)] = ""


class ListLockOuts(msgspec.Struct, frozen=True, kw_only=True, tag_field="ask", tag="lock-out-list"):
    """What nobody writes to now."""


class SetLockOut(msgspec.Struct, frozen=True, kw_only=True, tag_field="ask", tag="lock-out-set"):
    """Let nobody write there from now on."""

    scope: Scope
    name: Name = ""
    why: Annotated[str, Meta(min_length=1, max_length=500)]
    hours: Annotated[float, Meta(ge=0, le=8760)] = 0.0
    """When it ends by itself; 0: when somebody lifts it."""
    who: Annotated[str, Meta(max_length=64)] = ""


class LiftLockOut(msgspec.Struct, frozen=True, kw_only=True, tag_field="ask", tag="lock-out-lift"):
    """Let commands through again."""

    id: Annotated[str, Meta(max_length=160)]
    who: Annotated[str, Meta(max_length=64)] = ""


OfCommands = AskCommand | ListLockOuts | SetLockOut | LiftLockOut
