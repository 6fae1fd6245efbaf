"""What may be asked of a connection that is in use, and the answers, line by line: its frames, or one question to a device.

The gateway holds the serial line, or the one connection that a PLC takes: whoever wants to look at it looks through the
gateway. One trace of a connection at a time; its ring is bounded, and it ends with whoever asked for it.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import aclosing

import msgspec

from gateway import questions
from gateway.connections import Connection
from protocols.clock import Clock
from protocols.contract import Session
from protocols.trace.ring import Recorder, Ring
from protocols.trace.wire import Askable, Recordable

Find = Callable[[str], Connection | None]
"""A running connection by its name."""


class CannotLook(Exception):
    """The question cannot be put to this connection. The text says why, and what to do."""


def nothing_runs(_: str) -> Connection | None:
    """What can be found where no connection runs."""
    return None


async def answer(find: Find, request: questions.OfConnection, clock: Clock) -> questions.Lines:
    """The lines that answer ``request``. Raises CannotLook."""
    connection = find(request.connection)
    if connection is None:
        raise CannotLook(f"the gateway runs no connection called {request.connection!r}: has the document changed since it was started?")
    if isinstance(request, questions.Read):
        yield await _read(connection, request)
        return
    async with aclosing(trace(connection, request, clock)) as lines:
        async for line in lines:
            yield line


async def _read(connection: Connection, request: questions.Read) -> dict[str, object]:
    session = connection.session
    if session is None:
        raise CannotLook(f"{connection.status.name} is not connected now: {connection.status.trouble or 'it is connecting'}")
    if not isinstance(session, Askable):
        raise CannotLook(f"{connection.status.name}: a connection of type {connection.driver.name} takes no such questions")
    answered: dict[str, object] = msgspec.to_builtins(await session.ask(request.unit_id, request.request))
    return answered


async def trace(connection: Connection, request: questions.Trace, clock: Clock) -> questions.Lines:
    """``{"frame": ...}`` for each frame, ``{"waiting": ...}`` each second without one, and a line with the sums. Raises CannotLook."""
    name = connection.status.name
    if connection.watcher is not None:
        raise CannotLook(f"somebody traces {name} already: wait until that ends")
    if connection.session is not None and not isinstance(connection.session, Recordable):
        raise CannotLook(f"{name}: a connection of type {connection.driver.name} cannot be traced")
    recorder = Recorder(Ring())

    def watch(session: Session) -> None:
        if isinstance(session, Recordable):
            session.record(recorder.take)

    connection.watcher = watch
    if connection.session is not None:
        watch(connection.session)
    try:
        count = 0
        read = recorder.frames_around_trouble if request.until_trouble else recorder.frames
        async with aclosing(read(clock, request.seconds)) as frames:
            async for frame in frames:
                count += frame is not None
                yield {"frame": msgspec.to_builtins(frame)} if frame else {"waiting": name, "trouble": recorder.trouble}
        yield {"recorded": count, "overwritten": recorder.ring.overwritten, "trouble": recorder.trouble}
    finally:
        connection.watcher = None
        if isinstance(connection.session, Recordable):
            connection.session.record(None)
