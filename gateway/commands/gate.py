"""The one gate through which every command goes to the field, whoever asks: the faces today, whatever comes tomorrow.

A command that is not allowed, not possible or too late is refused here and never sent; one that was carried out under its
id is not carried out again; and every outcome is a record in the events lane. What becomes of a command in between is the
driver's: it writes, reads back and says.
"""

from __future__ import annotations

import asyncio
from collections import Counter, OrderedDict
from collections.abc import Callable
from typing import Final

import structlog

from gateway.commands.outcome import batch_of
from gateway.connections import Connection
from protocols.clock import Clock
from protocols.contract import DriverError
from protocols.model import Batch, Command, Device, Outcome, OutcomeState

log = structlog.get_logger("holdfast.commands")

REMEMBERED: Final = 10_000
"""Commands whose outcome is remembered, so that the same id is not carried out twice."""
MOST_AT_ONCE: Final = 64
"""Commands of one connection that are on their way at the same time; more are refused."""
LONGEST_ID: Final = 256
UNKNOWN: Final = "nobody can say what became of it"

Find = Callable[[str], tuple[Connection, Device] | None]
"""The running connection that has the device of this name, and the device."""


class Gate:
    def __init__(self, find: Find, record: Callable[[Batch], None], clock: Clock) -> None:
        self._find = find
        self._record = record
        self._clock = clock
        self._known: OrderedDict[str, asyncio.Future[Outcome]] = OrderedDict()
        self._on_their_way: Counter[str] = Counter()
        """Commands by connection."""

    async def carry_out(self, command: Command, *, source: str) -> Outcome:
        """Have ``command`` carried out; its outcome, which is recorded. ``source`` says who asked, for people. Never raises.

        The same id again gets the first one's outcome, also while that one is still on its way.
        """
        known = self._known.get(command.id)
        if known is not None:
            return await asyncio.shield(known)
        outcome: asyncio.Future[Outcome] = asyncio.get_running_loop().create_future()
        self._remember(command.id, outcome)
        try:
            found = await self._attempt(command)
        except asyncio.CancelledError:
            found = self._outcome(command, OutcomeState.FAILED, f"the gateway stopped while it was on its way: {UNKNOWN}")
            self._conclude(command, found, source, outcome)
            raise
        self._conclude(command, found, source, outcome)
        return found

    def _conclude(self, command: Command, found: Outcome, source: str, outcome: asyncio.Future[Outcome]) -> None:
        outcome.set_result(found)
        self._record(batch_of(command, found, source))
        said = {"id": command.id[:LONGEST_ID], "source": source, "device": command.device, "tag": command.tag}
        log.info("command", **said, state=found.state.value, detail=found.detail)

    def _remember(self, identity: str, outcome: asyncio.Future[Outcome]) -> None:
        self._known[identity] = outcome
        while len(self._known) > REMEMBERED and next(iter(self._known.values())).done():
            self._known.popitem(last=False)

    async def _attempt(self, command: Command) -> Outcome:
        found = self._find(command.device)
        if found is None:
            return self._outcome(command, OutcomeState.REFUSED, f"no device is called {command.device}")
        connection, device = found
        name, session = connection.status.name, connection.session
        if objection := _objection(command, device):
            return self._outcome(command, OutcomeState.REFUSED, objection)
        if self._clock.time_ns() >= command.deadline_ns:
            return self._outcome(command, OutcomeState.EXPIRED, "the deadline had passed before it could be sent")
        if session is None:
            why = connection.status.trouble or "it is connecting"
            return self._outcome(command, OutcomeState.FAILED, f"connection {name} is down, nothing was sent: {why}")
        if self._on_their_way[name] >= MOST_AT_ONCE:
            return self._outcome(
                command, OutcomeState.REFUSED, f"connection {name} has {MOST_AT_ONCE} commands on their way: ask again later"
            )
        self._on_their_way[name] += 1
        try:
            (outcome,) = await session.write([command])
        except DriverError as error:
            return self._outcome(command, OutcomeState.FAILED, f"the connection was lost: {error}")
        except Exception as error:  # the driver's bug must end neither the gateway nor whoever asked
            log.exception("write_failed", connection=name)
            return self._outcome(command, OutcomeState.FAILED, f"the driver failed ({type(error).__name__}): {UNKNOWN}")
        finally:
            self._on_their_way[name] -= 1
        return outcome

    def _outcome(self, command: Command, state: OutcomeState, detail: str) -> Outcome:
        return Outcome(command=command.id, state=state, time_ns=self._clock.time_ns(), detail=detail)


def _objection(command: Command, device: Device) -> str:
    """Why ``command`` cannot be, whatever the field says; empty if it may go."""
    if not command.id or len(command.id) > LONGEST_ID:
        return f"a command's id has 1 to {LONGEST_ID} characters"
    tag = next((tag for tag in device.tags if tag.name == command.tag), None)
    if tag is None:
        return f"device {command.device} has no tag {command.tag}"
    return "" if tag.writable else f"tag {command.tag} of {command.device} is not writable: set writable in the site document"
