"""One command and how far it has got: what people see of it, what is kept of it, and what is recorded at its end."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from enum import StrEnum
from typing import Any, Final

import msgspec

from gateway.commands.origin import Origin
from protocols.model import Command, Outcome, OutcomeState

Value = bool | int | float | str | bytes


class Stage(StrEnum):
    """How far a command has got. The last five are ends."""

    ACCEPTED = "accepted"
    """Taken: it may be carried out as far as anybody can say without the field."""
    QUEUED = "queued"
    """It waits: for its turn, or for its connection."""
    SENT = "sent"
    """The request went out: from here on the field may have changed."""
    ACKNOWLEDGED = "acknowledged"
    """The device said that it took it."""
    VERIFIED = "verified"
    MISMATCH = "mismatch"
    REFUSED = "refused"
    EXPIRED = "expired"
    FAILED = "failed"


ENDS: Final = frozenset({Stage.VERIFIED, Stage.MISMATCH, Stage.REFUSED, Stage.EXPIRED, Stage.FAILED})


class Kept(msgspec.Struct, frozen=True, kw_only=True):
    """A course as it survives a restart."""

    id: str
    device: str
    tag: str
    value: Any  # Any: a value; msgspec reads no union of text and bytes
    deadline_ns: int
    origin: Origin
    reason: str
    stage: Stage
    times: dict[str, int]
    detail: str
    read_back: Any = None  # Any: a value
    by_device: bool = False
    attempts: int = 0
    handed: bool = False
    """It may have been sent."""


class Course:
    """One command from the moment it was asked for. Only the gate changes it."""

    __slots__ = (
        "attempts",
        "by_device",
        "command",
        "detail",
        "ended",
        "handed",
        "number",
        "origin",
        "read_back",
        "reason",
        "stage",
        "times",
        "told",
        "waits",
    )

    def __init__(self, command: Command, origin: Origin, number: int, *, reason: str = "", waits: bool = False) -> None:
        self.command = command
        self.origin = origin
        self.number = number
        """Rises with every command of this life of the gateway."""
        self.reason = reason
        self.waits = waits
        """It waits for a connection that is down, and may be tried again; else it fails at once."""
        self.stage = Stage.ACCEPTED
        self.times: dict[str, int] = {}
        self.detail = ""
        self.read_back: Value | None = None
        self.by_device = False
        self.attempts = 0
        self.handed = False
        """A driver has been given it: after a restart nobody can say whether it was sent."""
        self.ended = asyncio.Event()
        self.told: list[Callable[[Course], None]] = []
        """Called once, at the end."""

    def is_over(self) -> bool:
        """It has come to one of its ends; a method, for it changes while somebody waits."""
        return self.stage in ENDS

    def enter(self, stage: Stage, time_ns: int) -> None:
        self.stage = stage
        self.times[stage] = time_ns

    @property
    def outcome(self) -> Outcome:
        """What became of it; it is over."""
        return Outcome(
            command=self.command.id,
            state=OutcomeState(self.stage.value),
            time_ns=self.times[self.stage],
            detail=self.detail,
            read_back=self.read_back,
            by_device=self.by_device,
        )

    @property
    def kept(self) -> Kept:
        command = self.command
        return Kept(
            id=command.id,
            device=command.device,
            tag=command.tag,
            value=command.value,
            deadline_ns=command.deadline_ns,
            origin=self.origin,
            reason=self.reason,
            stage=self.stage,
            times=dict(self.times),
            detail=self.detail,
            read_back=self.read_back,
            by_device=self.by_device,
            attempts=self.attempts,
            handed=self.handed,
        )


def course_of(kept: Kept, number: int) -> Course:
    """The course that was kept."""
    command = Command(id=kept.id, device=kept.device, tag=kept.tag, value=kept.value, deadline_ns=kept.deadline_ns)
    course = Course(command, kept.origin, number, reason=kept.reason)
    course.stage, course.times, course.detail = kept.stage, dict(kept.times), kept.detail
    course.read_back, course.by_device, course.attempts, course.handed = kept.read_back, kept.by_device, kept.attempts, kept.handed
    if course.is_over():
        course.ended.set()
    return course


def is_same(one: Command, other: Command) -> bool:
    """Whether two commands with one id wish the same: else the id was used again. NaN is NaN."""
    if one.device != other.device or one.tag != other.tag or type(one.value) is not type(other.value):
        return False
    return one.value == other.value or (one.value != one.value and other.value != other.value)
