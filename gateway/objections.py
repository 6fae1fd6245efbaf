"""Why something that was asked for cannot be: an answer, not a bug. Whoever faces people or machines says it in their way.

Each objection says what, where and what to do next. Services raise them; the API turns them into problem details (RFC 9457),
the command line into a line and an exit code.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

from protocols.contract import Problem


class Objection(Exception):
    """``detail`` says what cannot be and where, ``advice`` what to do next. ``code`` names the kind, for machines, for ever."""

    code: ClassVar[str]

    def __init__(self, detail: str, advice: str = "") -> None:
        super().__init__(f"{detail}: {advice}" if advice else detail)
        self.detail = detail
        self.advice = advice


class NotThere(Objection):
    """There is no such thing, or none that whoever asks may know of: the two look alike."""

    code = "not-found"


class Unknown(Objection):
    """Nobody knows who asks."""

    code = "unauthorised"


class NotAllowed(Objection):
    """Whoever asks may not do this."""

    code = "forbidden"


class Conflict(Objection):
    """It does not fit the state of things as they are now."""

    code = "conflict"


class Outdated(Objection):
    """It was decided on a state of things that has changed since."""

    code = "precondition-failed"


class Unfit(Objection):
    """What was sent is wrong; ``problems`` says each thing that is, with its path."""

    code = "invalid"

    def __init__(self, detail: str, advice: str = "", problems: Sequence[Problem] = ()) -> None:
        super().__init__(detail, advice)
        self.problems = tuple(problems)


class TooLarge(Objection):
    """It is longer, or would give more, than is taken in one go."""

    code = "too-large"


class TooMany(Objection):
    """Too much was asked in too short a time; ``retry_after_s`` says when to ask again."""

    code = "too-many-requests"

    def __init__(self, detail: str, advice: str = "", retry_after_s: float = 1.0) -> None:
        super().__init__(detail, advice)
        self.retry_after_s = retry_after_s


class Unavailable(Objection):
    """It cannot be now and may be later: a disk that is full, a device that does not answer."""

    code = "unavailable"


class WrongMediaType(Objection):
    """What was sent is of another media type than is taken here."""

    code = "unsupported-media-type"


class KeyReused(Objection):
    """An idempotency key was used before, for something else."""

    code = "idempotency-key-reused"
