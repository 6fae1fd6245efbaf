"""What goes wrong between a program and a gateway: an answer that says no, or no answer."""

from __future__ import annotations

from typing import Final

from holdfast.shapes.common import ProblemDetails


class ClientError(Exception):
    """Anything that goes wrong."""


class Unreachable(ClientError):
    """No answer came: the network, the certificate, or the gateway that is away. Whether a write was carried out is unknown."""


class Untrusted(ClientError):
    """Whoever answers cannot prove to be the gateway that was meant. Nothing was sent."""


class Ended(ClientError):
    """The gateway ended a live stream, and will again."""


class Refused(ClientError):
    """The gateway answered, and said no. ``problem`` says why, in whole."""

    def __init__(self, problem: ProblemDetails, retry_after_s: float | None = None) -> None:
        super().__init__(f"{problem.detail}: {problem.advice}" if problem.advice else problem.detail)
        self.problem = problem
        self.retry_after_s = retry_after_s
        """When to ask again, where the gateway says so."""

    @property
    def status(self) -> int:
        return self.problem.status


class Unfit(Refused):
    """What was sent is wrong; ``problem.problems`` names each thing that is."""


class Unknown(Refused):
    """The gateway does not know who asks: no token, or one that is not good any more."""


class NotAllowed(Refused):
    """Whoever asks may not do this."""


class NotThere(Refused):
    """There is no such thing, or none that whoever asks may know of."""


class Conflict(Refused):
    """It does not fit the state of things as they are now."""


class Outdated(Refused):
    """It was decided on a state of things that has changed since (If-Match)."""


class TooMany(Refused):
    """Too much was asked in too short a time."""


class Unavailable(Refused):
    """It cannot be now and may be later."""


BY_STATUS: Final[dict[int, type[Refused]]] = {
    400: Unfit,
    401: Unknown,
    403: NotAllowed,
    404: NotThere,
    409: Conflict,
    412: Outdated,
    413: Unfit,
    415: Unfit,
    422: Conflict,
    429: TooMany,
    503: Unavailable,
}
