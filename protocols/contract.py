"""What a driver is, and the three ways in which it fails.

A driver is small on purpose. It opens a connection, brings batches and writes commands. It never retries a lost
connection, logs, or marks values stale: ``gateway/links.py`` does, once, for all drivers. Trouble with one value
or one device is a quality in a batch, never an exception.

Drivers are found through the entry-point group ``holdfast.drivers``: the entry's name is the ``type`` that users
write, its object a :class:`Driver`.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import AbstractAsyncContextManager
from typing import Any, Literal, Protocol

import msgspec

from protocols.clock import Clock
from protocols.model import Batch, Command, Device, Outcome, ScanStats


class DriverError(Exception):
    """One of the three ways in which a connection fails. The text says what happened, where, and what to do next."""


class Unreachable(DriverError):
    """Nobody answers, or the line broke: try again later."""


class Refused(DriverError):
    """The peer understood and said no (credentials, certificate, access list): tell the user, try rarely."""


class Misfit(DriverError):
    """Configuration and peer disagree (wrong protocol, impossible answer): do not retry until something changes."""


class Problem(msgspec.Struct, frozen=True):
    """One thing that is wrong in a configuration. ``path`` is relative to what was checked: ``devices[0].tags[3].at``."""

    path: str
    message: str
    """What is wrong, in one sentence."""
    advice: str = ""
    """What to do about it."""
    severity: Literal["error", "warning"] = "error"


class ProbeReport(msgspec.Struct, frozen=True):
    """What a probe found, one line a finding, for a person."""

    ok: bool
    findings: tuple[str, ...]


class Session(Protocol):
    """One open connection."""

    @property
    def stats(self) -> ScanStats: ...

    @property
    def findings(self) -> list[str]:
        """What a person should know about the equipment (a hole in its register map, a refused function), one sentence
        each, said once by the driver. Whoever reads them clears the list."""
        ...

    def batches(self) -> AsyncIterator[Batch]:
        """Batches as they come, until the connection is lost.

        A polling driver scans on its own drift-free schedule. Raises Unreachable, Refused or Misfit.
        Cancelling the iteration at any moment leaves the connection closable.
        """
        ...

    async def write(self, commands: Sequence[Command]) -> Sequence[Outcome]:
        """Carry out commands, ahead of reads, and read each back: one outcome for each command, in order.

        Never raises for a single command; raises Unreachable when the connection is gone.
        """
        ...


class Driver(Protocol):
    """A protocol. Everything but ``open`` and ``probe`` is pure and touches no network."""

    name: str
    """What users write as ``type:``."""
    options: type[msgspec.Struct]
    """The Struct of one connection of this type: ``name``, where to connect, ``devices`` with their tags.

    It is tagged (``tag_field="type"``, ``tag=name``), frozen, and forbids unknown fields.
    """

    def check(self, options: Any) -> Sequence[Problem]:  # Any: an instance of self.options, known to the driver alone
        """Everything that is wrong with ``options`` beyond what types and limits can say."""
        ...

    def devices(self, options: Any) -> Sequence[Device]:  # Any: as above
        """The devices and tags that a session of ``options`` will report. ``options`` passed ``check`` without error."""
        ...

    def open(self, options: Any, *, clock: Clock) -> AbstractAsyncContextManager[Session]:  # Any: as above
        """Connect. Batches carry the very Device objects that ``devices(options)`` gives where called with the same
        ``options`` object (the driver computes its plan once per options object).

        Raises Unreachable, Refused or Misfit on entry.
        """
        ...

    async def probe(self, options: Any) -> ProbeReport:  # Any: as above
        """Ask the network whether ``options`` is true. A separate act: checking touches nothing."""
        ...
