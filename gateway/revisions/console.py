"""Answers to those who have a shell on the gateway: revisions without the API. Each change is in the audit log."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from typing import Any, Final

import msgspec

from gateway.audit import Audit
from gateway.objections import Objection, Unfit
from gateway.revisions import questions
from gateway.revisions.plan import fault
from gateway.revisions.revisions import Revisions, Who

Lines = AsyncGenerator[dict[str, Any], None]  # Any: JSON

ACTIONS: Final[dict[type, str]] = {
    questions.ApplyIt: "apply_revision",
    questions.ConfirmIt: "confirm_revision",
    questions.RollBackTo: "roll_back_revision",
}
"""The operations of the API that do the same."""


async def answer(revisions: Revisions, audit: Audit, request: questions.OfRevisions) -> Lines:
    """The lines that answer ``request``. An objection is a line too, with what is wrong in the document."""
    try:
        async for line in _answer(revisions, audit, request):
            yield line
    except Objection as objection:
        if type(request) in ACTIONS:
            _record(audit, request, "refused", detail=objection.detail)
        yield {"objection": _told(objection)}


async def _answer(revisions: Revisions, audit: Audit, request: questions.OfRevisions) -> Lines:
    match request:
        case questions.PlanIt():
            yield msgspec.to_builtins(await revisions.plan(request.document))
        case questions.History(number=None):
            for revision in await revisions.history(None, request.limit):
                yield msgspec.to_builtins(revision)
        case questions.History():
            assert request.number is not None
            yield msgspec.to_builtins(await revisions.one(request.number))
        case questions.Differ(older=None, newer=None):
            yield msgspec.to_builtins(await revisions.drift())
        case questions.Differ():
            older, newer = request.older or revisions.number, request.newer or revisions.number
            yield msgspec.to_builtins(await revisions.difference(older, newer))
        case _:
            done = await _changed(revisions, request)
            _record(audit, request, "done", on=f"revision {revisions.number}")
            yield msgspec.to_builtins(done)


async def _changed(revisions: Revisions, request: Any) -> msgspec.Struct:  # Any: one of those that change something
    who = Who(request.author, "console")
    if isinstance(request, questions.ApplyIt):
        within, base = request.confirm_within_s, request.base
        return await revisions.apply(request.document, who, reason=request.reason, confirm_within_s=within, base=base)
    if isinstance(request, questions.ConfirmIt):
        return await revisions.confirm(request.number, who, request.reason)
    return await revisions.roll_back(request.number, who, reason=request.reason, confirm_within_s=request.confirm_within_s)


def _record(audit: Audit, request: Any, outcome: Any, *, on: str = "", detail: str = "") -> None:  # Any: as above; a word of Audit's
    audit.record(
        who=request.author, source="console", action=ACTIONS[type(request)], outcome=outcome, on=on, detail=detail or request.reason
    )


def _told(objection: Objection) -> dict[str, Any]:  # Any: JSON
    problems = objection.problems if isinstance(objection, Unfit) else ()
    faults = [msgspec.to_builtins(fault(each)) for each in problems]
    return {"code": objection.code, "detail": objection.detail, "advice": objection.advice, "problems": faults}
