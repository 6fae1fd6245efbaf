"""What may be asked of the audit log from a shell on the gateway, and what is answered, line by line."""

from __future__ import annotations

import os
from collections.abc import AsyncGenerator
from pathlib import Path
from typing import Annotated, Any

import msgspec

from gateway.audit import store
from gateway.audit.audit import Audit
from gateway.audit.chain import Verdict


class AuditTail(msgspec.Struct, frozen=True, kw_only=True, tag_field="ask", tag="audit-tail"):
    """The newest entries, oldest of them first."""

    entries: Annotated[int, msgspec.Meta(ge=1, le=10_000)] = 20


class AuditVerify(msgspec.Struct, frozen=True, tag_field="ask", tag="audit-verify"):
    """Whether the whole log is one chain."""


class AuditExport(msgspec.Struct, frozen=True, tag_field="ask", tag="audit-export"):
    """Every line as it is on the disk."""


OfAudit = AuditTail | AuditVerify | AuditExport
Lines = AsyncGenerator[dict[str, Any], None]  # Any: JSON


async def answer(audit: Audit, request: OfAudit) -> Lines:
    """The lines that answer ``request``."""
    if isinstance(request, AuditVerify):
        yield spoken(await audit.verify())
    elif isinstance(request, AuditTail):
        found, _ = await audit.page(lambda _: True, None, request.entries)
        for entry, _ in reversed(found):
            yield msgspec.to_builtins(entry)
    else:
        async for portion in audit.export():
            for line in portion.decode(errors="replace").splitlines():
                yield {"line": line}


async def answer_stopped(folder: Path, request: OfAudit) -> Lines:
    """The same from the files of a gateway that is stopped. Raises OSError."""
    if not os.path.isdir(folder):  # noqa: PTH112, ASYNC240 - nothing else runs in this process
        raise FileNotFoundError(f"there is no audit log in {folder}: has this gateway ever run?")
    if isinstance(request, AuditVerify):
        yield spoken(store.check(folder))
    elif isinstance(request, AuditTail):
        found, _ = store.newest(folder, None, lambda _: True, request.entries)
        for entry, _ in reversed(found):
            yield msgspec.to_builtins(entry)
    else:
        for line in store.lines(folder):
            yield {"line": line.decode(errors="replace").removesuffix("\n")}


def spoken(verdict: Verdict) -> dict[str, Any]:  # Any: JSON
    return {"holds": verdict.holds, **msgspec.to_builtins(verdict)}
