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
from typing import Any, Literal, Protocol, runtime_checkable

import msgspec

from protocols.clock import Clock
from protocols.model import Batch, Command, Device, Kind, Outcome, ScanStats


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


class Offer(msgspec.Struct, frozen=True, kw_only=True):
    """One value that a peer says it has: what a browse finds, and a person picks from."""

    path: str
    """Names from the peer's root down to the value, joined by ``/``."""
    at: str
    """Where it lies, as the driver's ``at`` is written."""
    kind: Kind | None = None
    """None where the peer's type is none of ours: it cannot be a tag."""
    unit: str = ""
    writable: bool = False
    value: str = ""
    """What it held when it was found, for a person."""
    description: str = ""


class Candidate(msgspec.Struct, frozen=True, kw_only=True):
    """One thing that a scan found to answer, and the options with which it would be a connection or a device."""

    where: str
    """For a person: ``unit id 7 on /dev/ttyUSB0, 9600 8E1``."""
    detail: str = ""
    """What it says about itself."""
    options: dict[str, Any] = {}  # Any: JSON
    """Keys of the driver's options that lead to it."""


class Browser(Protocol):
    """A driver whose peer can be asked what it has. Optional: ``holdfast browse`` asks whether a driver has it."""

    def browse(self, options: Any, *, start: str, limit: int) -> AsyncIterator[Offer]:  # Any: an instance of the driver's options
        """At most ``limit`` values at or below ``start`` (as ``at`` is written; empty is the root), in the peer's order.

        Raises Unreachable, Refused or Misfit; what was given until then stays good, and a further browse may begin there.
        """
        ...


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

        Never raises for a single command; raises Unreachable when the connection is gone. How far each has got may be told
        meanwhile: see ``protocols/steps.py``.
        """
        ...


@runtime_checkable
class Proven(Protocol):
    """A session that may wait for hours until a device speaks. Optional: without it a connection is up at its first batch.

    Where opening it has proven that the peer serves us (a broker that took the subscriptions, a port that listens), ``proven``
    is true from the start.
    """

    @property
    def proven(self) -> bool: ...


@runtime_checkable
class Loaded(Protocol):
    """A session that knows how much of its line's time its plan takes. Optional."""

    @property
    def load(self) -> float | None:
        """The share, 1 is all of it; None where only the network could tell."""
        ...


class Load(msgspec.Struct, frozen=True, kw_only=True):
    """What scanning a connection takes of it."""

    requests_s: float
    """Requests a second."""
    share: float | None
    """Share of the connection's time; above 1 it cannot keep up. None where only the network could tell."""


@runtime_checkable
class Budgeted(Protocol):
    """A driver that can say beforehand what a connection will be asked for. Optional: a plan of a change shows it."""

    def load(self, options: Any) -> Load:  # Any: an instance of the driver's options, which passed ``check`` without error
        """Pure."""
        ...


class Admission(Protocol):
    """Whose values are taken now, and who a device that comes to us is: what a session asks whoever keeps the devices."""

    def refusal(self, device: str) -> str:
        """Why nothing of ``device`` is taken now; empty where it is. It costs nothing, and may change at any moment."""
        ...

    def proves(self, device: str, token: str, certificate: bytes) -> bool:
        """Whether ``token``, or ``certificate`` (DER, whose key TLS has proven), was given to ``device`` and is good now."""
        ...


@runtime_checkable
class Admitting(Protocol):
    """A session that asks an :class:`Admission`: it neither scans nor hears a device that is refused, and tells the device so where its
    protocol can. Optional: what comes of such a device is dropped behind every session. Set before its first batch."""

    admission: Admission | None


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
