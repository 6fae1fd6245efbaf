"""What may be asked about revisions from a shell on the gateway, over the control socket."""

from __future__ import annotations

from typing import Annotated, Final

import msgspec
from msgspec import Meta

LONGEST: Final = 16 * 1024 * 1024
Document = Annotated[bytes, Meta(max_length=LONGEST)]
Author = Annotated[str, Meta(max_length=200)]
Reason = Annotated[str, Meta(max_length=1000)]
Number = Annotated[int, Meta(ge=1, le=2**53)]
Within = Annotated[float, Meta(ge=1, le=86_400)]


class PlanIt(msgspec.Struct, frozen=True, kw_only=True, tag_field="ask", tag="plan"):
    """What would this document change?"""

    document: Document


class ApplyIt(msgspec.Struct, frozen=True, kw_only=True, tag_field="ask", tag="apply"):
    """Have this document run."""

    document: Document
    author: Author
    reason: Reason = ""
    confirm_within_s: Within | None = None
    base: int | None = None


class ConfirmIt(msgspec.Struct, frozen=True, kw_only=True, tag_field="ask", tag="confirm"):
    """The revision on trial stays."""

    author: Author
    number: Number | None = None
    reason: Reason = ""


class RollBackTo(msgspec.Struct, frozen=True, kw_only=True, tag_field="ask", tag="rollback"):
    """Have an earlier document run; None: the one that was confirmed before."""

    author: Author
    number: Number | None = None
    reason: Reason = ""
    confirm_within_s: Within | None = None


class History(msgspec.Struct, frozen=True, kw_only=True, tag_field="ask", tag="history"):
    """The newest revisions, a line each; with ``number``, that one with all that is kept of it."""

    limit: Annotated[int, Meta(ge=1, le=1000)] = 20
    number: Number | None = None


class Differ(msgspec.Struct, frozen=True, kw_only=True, tag_field="ask", tag="diff"):
    """Between two revisions; without them, from the file to what runs."""

    older: Number | None = None
    newer: Number | None = None


OfRevisions = PlanIt | ApplyIt | ConfirmIt | RollBackTo | History | Differ
