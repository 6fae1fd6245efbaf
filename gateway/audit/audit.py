"""What people and machines did, in the order in which they did it."""

from __future__ import annotations

from collections import deque
from typing import Any, Final, Literal

import msgspec
import structlog

from protocols.clock import Clock

log = structlog.get_logger("holdfast.audit")

REMEMBERED: Final = 1000


class Entry(msgspec.Struct, frozen=True, kw_only=True):
    """One thing that somebody did, or tried."""

    time_ns: int
    who: str
    """``user:anna``, ``token:ci``, ``uplink:cloud``; empty where nobody knows."""
    source: str = ""
    """Where it came from: an address, ``console``, the name of an uplink."""
    action: str
    """The operation: ``create_user``, ``command``, ``apply_revision``."""
    on: str = ""
    """What it was done to: a path of the API, or ``device/tag``."""
    outcome: Literal["done", "refused", "failed"]
    detail: str = ""
    before: Any = None  # Any: JSON values, as after
    after: Any = None


class Audit:
    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._entries: deque[Entry] = deque(maxlen=REMEMBERED)

    def record(
        self,
        *,
        who: str,
        action: str,
        outcome: Literal["done", "refused", "failed"],
        source: str = "",
        on: str = "",
        detail: str = "",
        before: Any = None,  # Any: JSON values, as after
        after: Any = None,
    ) -> None:
        """Take an entry. Never waits and never raises: control goes on where the log cannot be written."""
        entry = Entry(
            time_ns=self._clock.time_ns(),
            who=who,
            source=source,
            action=action,
            on=on,
            outcome=outcome,
            detail=detail,
            before=before,
            after=after,
        )
        self._entries.append(entry)
        log.info("audit", who=who, source=source, action=action, on=on, outcome=outcome, detail=detail)
