"""The audit log: who did what, from where, what it was before and after, and what became of it."""

from __future__ import annotations

from gateway.audit.audit import Audit
from gateway.audit.chain import Entry

__all__ = ["Audit", "Entry"]
