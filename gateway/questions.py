"""What may be asked of a gateway, and what its journal answers, line by line: the same for a running gateway and a stopped one.

What is asked of a connection is answered in ``wires.py``.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator
from typing import Annotated, Any, Final

import msgspec

from gateway import readable
from gateway.audit.questions import OfAudit
from gateway.commands.questions import OfCommands
from gateway.diagnostics.questions import OfDiagnostics
from gateway.health.questions import OfHealth
from gateway.identity.questions import OfIdentity
from gateway.journal import Journal, Lane, Lost, Record
from gateway.revisions.questions import OfRevisions

PORTION_RECORDS: Final = 500
PORTION_BYTES: Final = 1024 * 1024

Lines = AsyncGenerator[dict[str, Any], None]  # Any: JSON


class Stat(msgspec.Struct, frozen=True, tag_field="ask", tag="stat"):
    """The ledger, in one line."""


class Verify(msgspec.Struct, frozen=True, tag_field="ask", tag="verify"):
    """Read and check every record."""


class Tail(msgspec.Struct, frozen=True, kw_only=True, tag_field="ask", tag="tail"):
    """The newest records; with ``follow``, and all that come until whoever asks goes away."""

    lane: Lane = Lane.TELEMETRY
    records: Annotated[int, msgspec.Meta(ge=0, le=100_000)] = 10
    follow: bool = False


class Export(msgspec.Struct, frozen=True, kw_only=True, tag_field="ask", tag="export"):
    """Records ``first`` to ``last`` (inclusive; None is the newest at the moment of asking), and the gaps between."""

    lane: Lane = Lane.TELEMETRY
    first: Annotated[int, msgspec.Meta(ge=0)] = 0
    last: Annotated[int, msgspec.Meta(ge=0)] | None = None


class Roll(msgspec.Struct, frozen=True, tag_field="ask", tag="roll"):
    """Begin new segments, so that all that is stored until now lies in files that are not written to any more."""


class Trace(msgspec.Struct, frozen=True, kw_only=True, tag_field="ask", tag="trace"):
    """The frames of a connection as they pass; with ``until_trouble``, those around the first trouble."""

    connection: str
    seconds: Annotated[float, msgspec.Meta(gt=0, le=86_400)]
    until_trouble: bool = False


class Read(msgspec.Struct, frozen=True, kw_only=True, tag_field="ask", tag="read"):
    """One question to a device over a connection that is in use. What does not read is refused by the driver."""

    connection: str
    unit_id: Annotated[int, msgspec.Meta(ge=0, le=255)]
    request: Annotated[bytes, msgspec.Meta(max_length=256)]


OfJournal = Stat | Verify | Tail | Export | Roll
OfConnection = Trace | Read
Request = OfJournal | OfConnection | OfCommands | OfIdentity | OfAudit | OfRevisions | OfDiagnostics | OfHealth


async def answer(journal: Journal, request: OfJournal) -> Lines:
    """The lines that answer ``request``."""
    if isinstance(request, Stat):
        yield msgspec.to_builtins(journal.ledger())
    elif isinstance(request, Roll):
        await journal.roll()
        yield {"rolled": True}
    elif isinstance(request, Verify):
        yield msgspec.to_builtins(await journal.verify())
    elif isinstance(request, Export):
        head = journal.head(request.lane)
        end = head if request.last is None else min(request.last + 1, head)
        async for one in _span(journal, request.lane, request.first, end):
            yield one
    else:
        async for one in _tail(journal, request):
            yield one


async def _tail(journal: Journal, request: Tail) -> Lines:
    lane = request.lane
    end = journal.head(lane)
    first = max(0, end - request.records)
    while True:
        async for one in _span(journal, lane, first, end):
            yield one
        if not request.follow:
            return
        await journal.wait({lane: end})
        first, end = end, journal.head(lane)


async def _span(journal: Journal, lane: Lane, first: int, end: int) -> Lines:
    """Entries from ``first`` up to and without ``end``, read portion by portion so that memory stays bounded."""
    while first < end:
        entries = await journal.read(lane, first, max_records=PORTION_RECORDS, max_bytes=PORTION_BYTES, last=end - 1)
        if not entries:
            return
        for one in entries:
            yield readable.entry(one)
        first = _after(entries[-1])


def _after(one: Record | Lost) -> int:
    return (one.last if isinstance(one, Lost) else one.seq) + 1
