"""How far a command has got between "handed to the driver" and its outcome: what a driver tells, where it can.

A driver calls :func:`tell` where it writes; whoever handed it the command listens with :func:`telling`. Where nobody listens,
as in a notebook, it does nothing. It travels with the task and not through every signature, for most of what lies between the
two has no business with it. A session that tells has ``tells = True`` (:class:`Telling`): only then does silence mean that
nothing was sent.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from enum import StrEnum
from typing import Final, Protocol, runtime_checkable


class Step(StrEnum):
    SENT = "sent"
    """The request is about to go out: from here on, the field may have changed."""
    ACKNOWLEDGED = "acknowledged"
    """The device (or the broker before it) said that it took the command."""


@runtime_checkable
class Telling(Protocol):
    """A session whose ``write`` tells both steps of each command that gets so far. Optional."""

    @property
    def tells(self) -> bool: ...


_LISTENER: Final[ContextVar[Callable[[Step], None] | None]] = ContextVar("holdfast_steps", default=None)


def tell(step: Step) -> None:
    """Say that the command which this task writes has got to ``step``. More than once is as good as once."""
    listener = _LISTENER.get()
    if listener is not None:
        listener(step)


@contextmanager
def telling(listener: Callable[[Step], None]) -> Iterator[None]:
    """``listener`` is told the steps of the one command that is written inside."""
    token = _LISTENER.set(listener)
    try:
        yield
    finally:
        _LISTENER.reset(token)
