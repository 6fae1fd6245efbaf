"""The journal and the ledger: what is recorded, and the account of every record."""

from __future__ import annotations

from typing import Annotated, Final, Literal

from litestar.params import Parameter

from gateway.api import operation, shown
from gateway.api.operation import Asked, Given, Reach, get, post
from gateway.api.paging import Cursor, after, cursor_of
from gateway.api.routes.uplinks import accounts
from gateway.identity.principal import Permission
from gateway.journal import Lane, Lost, Record
from holdfast.shapes.common import Page
from holdfast.shapes.journal import Journal, JournalEntry, Ledger, Verification

MOST_RECORDS: Final = 500
MOST_BYTES: Final = 1024 * 1024
"""Stored bytes of one page."""
Records = Annotated[int, Parameter(ge=1, le=MOST_RECORDS, description="Most entries in one page.")]
InLane = Annotated[Literal["telemetry", "events"], Parameter(description="The lane to read.")]
First = Annotated[int | None, Parameter(ge=0, le=2**62, description="Begin at this seq; without it and a cursor: the newest.")]


@get("/journal", id="get_journal", permission=Permission.SEE_STATUS, reach=Reach.GATEWAY, tag="journal", summary="How full the journal is")
async def get_journal(services: Given) -> Journal:
    ledger, options = services.journal.ledger(), services.site().journal
    return Journal(
        bytes=ledger.bytes,
        max_bytes=ledger.max_bytes,
        free_bytes=ledger.free_bytes,
        min_free_bytes=options.min_free_bytes,
        max_age_s=options.max_age_s,
        when_full=options.when_full,
        trouble=ledger.trouble,
        lanes=[shown.lane_account(name, lane) for name, lane in sorted(ledger.lanes.items())],
    )


@get(
    "/ledger", id="get_ledger", permission=Permission.SEE_STATUS, reach=Reach.GATEWAY, tag="journal", summary="The account of every record"
)
async def get_ledger(services: Given) -> Ledger:
    """For each uplink and lane: appended == acknowledged + pending + dropped + quarantined, at this moment."""
    ledger = services.journal.ledger()
    return Ledger(
        time_ns=services.clock.time_ns(),
        lanes=[shown.lane_account(name, lane) for name, lane in sorted(ledger.lanes.items())],
        uplinks=[account for name in sorted(ledger.readers) for account in accounts(services, ledger, name)],
    )


@get(
    "/journal/records",
    id="list_records",
    permission=Permission.SEE_VALUES,
    reach=Reach.GATEWAY,
    tag="journal",
    summary="Records as they stand in the journal",
)
async def list_records(
    services: Given, lane: InLane = "telemetry", first: First = None, limit: Records = 100, cursor: Cursor = None
) -> Page[JournalEntry]:
    """Entries of a lane in their order. Gaps are said. A page may be shorter than ``limit``; at the end of what is durable ``next`` is
    null."""
    of, journal = Lane(lane), services.journal
    head = journal.head(of)
    begin = after(cursor, int) if cursor else max(head - limit, 0) if first is None else first
    entries = await journal.read(of, begin, max_records=limit, max_bytes=MOST_BYTES)
    end = _after(entries[-1]) if entries else head
    return Page(items=[shown.entry(of, one) for one in entries], next=cursor_of(end) if end < head else None)


@post(
    "/journal/verification",
    id="verify_journal",
    permission=Permission.DIAGNOSE,
    reach=Reach.GATEWAY,
    tag="journal",
    summary="Check every stored byte",
    status=202,
    problems=(409,),
)
async def verify_journal(services: Given, request: Asked) -> Verification:
    """Begins to read and check every record; damaged ones are quarantined and counted. One check runs at a time."""
    operation.note(request, on="journal")
    return shown.verification(services.verification.begin())


@get(
    "/journal/verification",
    id="get_verification",
    permission=Permission.SEE_STATUS,
    reach=Reach.GATEWAY,
    tag="journal",
    summary="How far the check is, and what it found",
)
async def get_verification(services: Given) -> Verification:
    return shown.verification(services.verification.last)


def _after(one: Record | Lost) -> int:
    return (one.last if isinstance(one, Lost) else one.seq) + 1


OPERATIONS: Final = (get_journal, get_ledger, list_records, verify_journal, get_verification)
