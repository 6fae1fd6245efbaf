"""What may be asked about repairs and support from a shell on the gateway, over the control socket."""

from __future__ import annotations

from typing import Annotated

import msgspec
from msgspec import Meta


class ListRepairs(msgspec.Struct, frozen=True, kw_only=True, tag_field="ask", tag="repairs"):
    """Each known fault as it is now."""


class FixRepair(msgspec.Struct, frozen=True, kw_only=True, tag_field="ask", tag="fix-repair"):
    """Press the fix of a fault."""

    id: Annotated[str, Meta(min_length=1, max_length=128)]


class MakeBundle(msgspec.Struct, frozen=True, kw_only=True, tag_field="ask", tag="support-bundle"):
    """A support bundle, in portions: ``{"part": base64}``."""


OfDiagnostics = ListRepairs | FixRepair | MakeBundle
