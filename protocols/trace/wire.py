"""What a driver's wire and session may offer beside the contract, so that a person can look at a connection that is in use.

A serial line cannot be opened twice, and many a PLC takes one connection: whoever wants to see or ask something does it
through the session that is there.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol, runtime_checkable

import msgspec

from protocols.trace.ring import Frame


class Tap(Protocol):
    """What a wire tells while it is recorded. It is called in the middle of everything: it decides nothing and never raises."""

    def sent(self, content: bytes) -> None: ...

    def received(self, content: bytes) -> None:
        """Bytes came: a whole frame, a part of one, or several."""
        ...

    def trouble(self, text: str) -> None: ...


@runtime_checkable
class Recordable(Protocol):
    """A session whose wire can be recorded. Optional, beside the driver contract."""

    def record(self, take: Callable[[Frame], None] | None) -> None:
        """Hand every frame from now on to ``take``; None ends that."""
        ...


class Answer(msgspec.Struct, frozen=True, omit_defaults=True):
    """What came of a question."""

    content: bytes = b""
    """Empty where nothing came."""
    missed: str = ""
    """Why nothing came, in one word; ``refused`` is a question that may not be asked, ``closed`` a connection that is gone."""
    text: str = ""
    """The same in a sentence."""


@runtime_checkable
class Askable(Protocol):
    """A session that carries a person's question to a device, when nothing of its own is due. Optional."""

    async def ask(self, unit_id: int, request: bytes) -> Answer:
        """Only questions that read are carried. Never raises."""
        ...
