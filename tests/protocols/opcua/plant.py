"""Options that lead to the peer of these tests, and what its session brings."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any, Final

from protocols.clock import SystemClock
from protocols.contract import Session
from protocols.model import Command, Kind, Outcome, Quality
from protocols.opcua.config import Device, OpcUa, Security, Tag
from protocols.opcua.driver import OPCUA
from tests.peers.opcua import URI, OpcUaServer

PATIENCE_S: Final = 30.0


def at(name: str) -> str:
    return f"nsu={URI};s=one/{name}"


def tag(name: str, kind: Kind, where: str = "", **more: Any) -> Tag:  # Any: fields of a tag
    return Tag(name=name, at=where or at(name), kind=kind, **more)


def options(server: OpcUaServer, *tags: Tag, **more: Any) -> OpcUa:  # Any: fields of the options
    given: dict[str, Any] = {"security": Security(policy="none"), "publishing_s": 0.05, "timeout_s": 5.0, **more}  # Any: as above
    return OpcUa(name="plant", endpoint=server.endpoint, devices=(Device(name="one", tags=tags),), **given)


class Seen:
    """Everything that came of each tag: value, quality, time."""

    def __init__(self) -> None:
        self.rows: dict[str, list[tuple[Any, Quality, int]]] = {}  # Any: what the columns hold
        self.findings: list[str] = []

    def last(self, name: str) -> Any:  # Any: as above
        """The tag's value; None while it has none that is good."""
        rows = self.rows.get(name)
        return rows[-1][0] if rows and rows[-1][1] == Quality.GOOD else None

    def quality(self, name: str) -> Quality | None:
        rows = self.rows.get(name)
        return rows[-1][1] if rows else None


@asynccontextmanager
async def watching(wanted: OpcUa) -> AsyncIterator[tuple[Session, Seen, Callable[[str, Callable[[], bool]], Any]]]:  # Any: awaits None
    """A session whose batches are taken all the while; ``await until("what", true)`` waits for what they bring."""
    seen, news = Seen(), asyncio.Event()

    async def take(session: Session) -> None:
        async for batch in session.batches():
            rows = zip(batch.tag, batch.value.tolist(), batch.quality.tolist(), batch.time_ns.tolist(), strict=True)
            for slot, value, quality, time_ns in rows:
                seen.rows.setdefault(batch.device.tags[slot].name, []).append((value, Quality(quality), time_ns))
            seen.findings += session.findings
            session.findings.clear()
            news.set()

    async with OPCUA.open(wanted, clock=SystemClock()) as session:
        task = asyncio.ensure_future(take(session))

        async def until(what: str, true: Callable[[], bool]) -> None:
            try:
                async with asyncio.timeout(PATIENCE_S):
                    while not true():
                        if task.done():
                            await task
                        news.clear()
                        await asyncio.wait({task, asyncio.ensure_future(news.wait())}, return_when=asyncio.FIRST_COMPLETED)
            except TimeoutError:
                raise AssertionError(f"not within {PATIENCE_S:g} s: {what}; {seen.rows}") from None

        try:
            yield session, seen, until
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)


async def write(session: Session, name: str, value: bool | int | float | str | bytes) -> Outcome:
    clock = SystemClock()
    (outcome,) = await session.write([Command(id=name, device="one", tag=name, value=value, deadline_ns=clock.time_ns() + 10**11)])
    return outcome
