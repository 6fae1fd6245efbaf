"""What the journal holds and what its readers get: records, and the gaps that will never be filled."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

import msgspec

from protocols.model import Batch


class Lane(StrEnum):
    """A class of records with its own priority. Lanes are stored apart: events outlive telemetry."""

    EVENTS = "events"
    TELEMETRY = "telemetry"


class DropReason(StrEnum):
    """Why a record will never be delivered."""

    FULL = "full"
    """The journal reached its bound; the oldest (or newest) was dropped as configured."""
    AGE = "age"
    STALLED = "stalled"
    """The disk took nothing for so long that the memory bound was reached."""
    UNWRITABLE = "unwritable"
    """The disk refused, again and again."""
    TOO_LARGE = "too-large"


class Record(msgspec.Struct, frozen=True, eq=False):
    """One entry of the journal. ``(epoch, seq)`` is unique over all lanes and for ever."""

    epoch: int
    seq: int
    """Rises by one for each record of a lane, across epochs."""
    lane: Lane
    written_ns: int
    batch: Batch

    @property
    def values(self) -> int:
        return len(self.batch)


@dataclass(frozen=True, slots=True)
class Lost:
    """Records ``first`` to ``last`` (inclusive) of ``epoch`` that can never be delivered."""

    epoch: int
    first: int
    last: int
    reason: str
    """A DropReason, or ``quarantined`` (damaged) or ``missing`` (the file system lost them)."""

    @property
    def records(self) -> int:
        return self.last - self.first + 1
