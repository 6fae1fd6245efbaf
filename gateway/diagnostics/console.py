"""Answers to those who have a shell on the gateway: repairs and the support bundle without the API."""

from __future__ import annotations

import base64
from collections.abc import AsyncGenerator
from typing import Any, Final

import msgspec

from gateway.audit import Audit
from gateway.diagnostics import questions
from gateway.diagnostics.bundle import Sources, bundle
from gateway.identity.principal import Principal, Role
from gateway.identity.sight import EVERYTHING
from gateway.objections import Objection
from gateway.repairs import Repairs
from gateway.repairs.shown import shown

Lines = AsyncGenerator[dict[str, Any], None]  # Any: JSON

PART_BYTES: Final = 256 * 1024
SHELL: Final = Principal(name="shell", kind="local", role=Role.ADMINISTRATOR)
"""Root, or the service's own user."""


async def answer(repairs: Repairs, sources: Sources, audit: Audit, request: questions.OfDiagnostics) -> Lines:
    """The lines that answer ``request``. Raises Objection."""
    if isinstance(request, questions.ListRepairs):
        for entry in await repairs.entries(EVERYTHING):
            yield msgspec.to_builtins(shown(entry))
    elif isinstance(request, questions.FixRepair):
        yield await _fixed(repairs, audit, request)
    else:
        packed = await bundle(sources)
        audit.record(who=SHELL.called, source="console", action="make_support_bundle", outcome="done")
        for at in range(0, len(packed), PART_BYTES):
            yield {"part": base64.b64encode(packed[at : at + PART_BYTES]).decode()}


async def _fixed(repairs: Repairs, audit: Audit, request: questions.FixRepair) -> dict[str, Any]:  # Any: JSON
    try:
        entry, done = await repairs.press(request.id, EVERYTHING, SHELL)
    except Objection as objection:
        audit.record(who=SHELL.called, source="console", action="fix_repair", on=request.id, outcome="refused", detail=objection.detail)
        raise
    audit.record(who=SHELL.called, source="console", action="fix_repair", on=entry.fault.kind, outcome="done", detail=done)
    return {"done": done, "undo": entry.fix.undo if entry.fix else ""}
