"""The Struct of the audit log: how much of it is kept."""

from __future__ import annotations

from typing import Annotated

import msgspec
from msgspec import Meta


class AuditOptions(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """How much of the audit log is kept. The oldest goes first, and that it went stays on record."""

    max_bytes: Annotated[
        int, Meta(ge=1024 * 1024, le=16 * 1024**3, description="Most bytes that the audit log takes on the disk; an entry has about 400.")
    ] = 64 * 1024 * 1024
    max_days: Annotated[int, Meta(ge=1, le=36_500, description="Days after which entries are removed.")] = 3650
