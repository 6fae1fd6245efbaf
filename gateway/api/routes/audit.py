"""The audit log: read, checked and taken away. Nobody writes to it here, whatever the role."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Final, Literal

import msgspec
from litestar.openapi.datastructures import ResponseSpec
from litestar.params import Parameter
from litestar.response import Stream

from gateway.api.operation import Asked, Given, Reach, get
from gateway.api.paging import Cursor, Limit, after, cursor_of
from gateway.audit import Entry
from gateway.identity.principal import Permission
from holdfast.shapes.audit import AuditBreak, AuditEntry, AuditVerdict
from holdfast.shapes.common import Page

NDJSON: Final = "application/x-ndjson"

Wanted = Annotated[str | None, Parameter(max_length=256, description="Only entries that have just this.")]
Moment = Annotated[int | None, Parameter(ge=0, le=2**63 - 1, description="UTC, nanoseconds since 1970.")]
Number = Annotated[int | None, Parameter(ge=1, le=2**53, description="Number of an entry.")]
Outcome = Annotated[Literal["done", "refused", "failed"] | None, Parameter(description="Only entries with this outcome.")]


@get(
    "/audit",
    id="list_audit_entries",
    permission=Permission.SEE_AUDIT,
    reach=Reach.GATEWAY,
    tag="audit",
    summary="What people and machines did, newest first",
)
async def list_audit_entries(
    services: Given,
    who: Wanted = None,
    action: Wanted = None,
    on: Wanted = None,
    outcome: Outcome = None,
    since_ns: Moment = None,
    until_ns: Moment = None,
    limit: Limit = 100,
    cursor: Cursor = None,
) -> Page[AuditEntry]:
    """Entries with just this ``who``, ``action``, ``on`` and ``outcome``, between two moments. A page may be short, or empty, and
    still name a next one: one request looks at 50,000 entries at most."""
    wanted = _wanted({"who": who, "action": action, "on": on, "outcome": outcome}, since_ns or 0, 2**63 if until_ns is None else until_ns)
    found, more = await services.audit.page(wanted, None if cursor is None else after(cursor, int), limit)
    return Page(items=[_shown(*each) for each in found], next=None if more is None else cursor_of(more))


@get(
    "/audit/export",
    id="export_audit",
    permission=Permission.SEE_AUDIT,
    reach=Reach.GATEWAY,
    tag="audit",
    summary="The audit log as it is on the disk",
    responses={200: ResponseSpec(str, media_type=NDJSON, description="One entry a line, oldest first.", generate_examples=False)},
)
async def export_audit(request: Asked, services: Given, first: Number = None, last: Number = None) -> Stream:
    """Entries ``first`` to ``last`` as NDJSON, byte by byte as they are kept: ``previous`` of each line is the SHA-256 of the line
    above, without its line feed. ``holdfast audit --file`` checks it, and so does sha256sum."""
    services.audit.record(
        who=request.user.called,
        source=request.client.host if request.client else "",
        action="export_audit",
        outcome="done",
        request=f"{request.method} {request.url.path}",
        status=200,
    )
    return Stream(
        services.audit.export(first or 1, last), media_type=NDJSON, headers={"Content-Disposition": 'attachment; filename="audit.ndjson"'}
    )


@get(
    "/audit/verification",
    id="verify_audit",
    permission=Permission.SEE_AUDIT,
    reach=Reach.GATEWAY,
    tag="audit",
    summary="Whether the audit log was touched, and how it is",
)
async def verify_audit(services: Given) -> AuditVerdict:
    """Reads the whole log."""
    audit = services.audit
    verdict = await audit.verify()
    return AuditVerdict(
        holds=verdict.holds,
        entries=verdict.entries,
        first=verdict.first,
        last=verdict.head.number,
        digest=verdict.head.digest,
        broken=[AuditBreak(line=each.line, number=each.number, what=each.what) for each in verdict.broken],
        waiting=audit.waiting,
        lost=audit.lost,
        trouble=audit.trouble,
    )


def _wanted(said: dict[str, str | None], since_ns: int, until_ns: int) -> Callable[[Entry], bool]:
    asked = {name: value for name, value in said.items() if value is not None}

    def wanted(entry: Entry) -> bool:
        return since_ns <= entry.time_ns <= until_ns and all(getattr(entry, name) == value for name, value in asked.items())

    return wanted


def _shown(entry: Entry, digest: str) -> AuditEntry:
    return AuditEntry(**msgspec.structs.asdict(entry), digest=digest)


OPERATIONS: Final = (list_audit_entries, export_audit, verify_audit)
