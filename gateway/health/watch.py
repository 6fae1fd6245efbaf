"""Asks the parts of a running gateway how they are, again and again, until all is well or the time of the question is over.

One record is appended for each question (how the clock is, in the events lane: a device that every release knows). That it becomes
durable shows that the journal stores, and that every uplink has it acknowledged shows that what is appended *now* arrives. Without it a
plant whose values stand still could not be told from one whose journal does.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from typing import Any, Final

import msgspec

from gateway.config import model
from gateway.connections import Connection
from gateway.health.checks import judge
from gateway.health.facts import DeviceFacts, Facts, LinkFacts, UplinkFacts
from gateway.health.questions import AskHealth
from gateway.journal import Journal, Lane, Ledger, NotStored
from gateway.latest import Latest
from gateway.links import Status
from gateway.registry import PUSHING
from gateway.state import State
from gateway.tasks import cancel
from gateway.telemetry.clock_state import ClockState, batch_of
from protocols.clock import Clock
from protocols.model import Batch, Device, Quality

Lines = AsyncGenerator[dict[str, Any], None]  # Any: JSON

LOOK_S: Final = 0.25


@dataclass(frozen=True, slots=True)
class Sources:
    """The parts of the gateway that are asked."""

    site: Callable[[], model.Site | None]
    """None until its parts have been started."""
    statuses: Callable[[], Sequence[Status]]
    connection: Callable[[str], Connection | None]
    refusal: Callable[[str], str]
    """Why nothing is taken of a device; empty where it is."""
    revision: Callable[[], tuple[int, bool]]
    """The number of the one that runs, and whether it is on trial."""
    store: Callable[[Batch], Awaitable[tuple[int, int]]]
    """Append an event; its (epoch, seq) when it is durable. Raises NotStored."""
    journal: Journal
    latest: Latest
    state: State
    audit_trouble: Callable[[], str]
    clock: Clock
    clock_state: ClockState
    began: float


@dataclass(slots=True)
class _Question:
    """What was so when the question was put."""

    heads: dict[Lane, int]
    """By lane, the record that an uplink has to have had acknowledged; 0 where there is none."""
    pending: dict[str, int]
    appended: int
    stored: bool = False
    """The question's own record is durable."""
    not_stored: str = ""


async def answer(sources: Sources, asked: AskHealth) -> Lines:
    """The report, in one line."""
    clock = sources.clock
    end = clock.monotonic() + asked.wait_s
    question: _Question | None = None
    probe: asyncio.Task[None] | None = None
    try:
        while True:
            if question is None and sources.site() is not None:
                question = _put(sources)
                probe = asyncio.create_task(_append(sources, question), name="the record of a question about health")
            report = judge(
                _facts(sources, question),
                gateway=_called(sources),
                time_ns=clock.time_ns(),
                excused=frozenset(asked.excused),
                release=asked.release,
                only=asked.only,
            )
            if report.ok or clock.monotonic() >= end:
                yield msgspec.to_builtins(report)
                return
            await clock.sleep_until(min(end, clock.monotonic() + LOOK_S))
    finally:
        if probe is not None:
            await cancel(probe)


def _put(sources: Sources) -> _Question:
    journal, ledger = sources.journal, sources.journal.ledger()
    heads = {Lane.TELEMETRY: journal.head(Lane.TELEMETRY) - 1, Lane.EVENTS: 0}
    pending = {name: sum(lane.pending for lane in lanes.values()) for name, lanes in ledger.readers.items()}
    return _Question(heads, pending, _appended(ledger))


async def _append(sources: Sources, question: _Question) -> None:
    """The question's own record."""
    now = sources.clock_state.now
    try:
        _, question.heads[Lane.EVENTS] = await sources.store(batch_of(now, now, 0.0, sources.clock.time_ns()))
        question.stored = True
    except NotStored as error:
        question.not_stored = str(error)


def _called(sources: Sources) -> str:
    site = sources.site()
    return f"{site.gateway.group}/{site.gateway.name}" if site is not None else ""


def _appended(ledger: Ledger) -> int:
    return sum(lane.appended for lane in ledger.lanes.values())


def _facts(sources: Sources, question: _Question | None) -> Facts:
    ledger, statuses = sources.journal.ledger(), sources.statuses()
    revision, on_trial = sources.revision()
    return Facts(
        release=version("holdfast"),
        uptime_s=sources.clock.monotonic() - sources.began,
        applied=sources.site() is not None,
        revision=revision,
        on_trial=on_trial,
        stored=question is not None and question.stored,
        not_stored=question.not_stored if question is not None else "",
        ledger=ledger,
        state_trouble=sources.state.trouble,
        state_notes=sources.state.notes,
        audit_trouble=sources.audit_trouble(),
        devices=tuple(each for status in statuses if status.kind == "connection" for each in _devices(sources, status)),
        links=tuple(_link(one) for one in statuses if _is_alone(sources, one)),
        uplinks=tuple(_uplink(sources, one, ledger, question) for one in statuses if one.kind == "uplink"),
    )


def _link(status: Status) -> LinkFacts:
    return LinkFacts(kind=status.kind, name=status.name, state=status.state, trouble=status.trouble)


def _is_alone(sources: Sources, status: Status) -> bool:
    """Whether nothing else speaks of it."""
    if status.kind == "connection":
        connection = sources.connection(status.name)
        return connection is not None and not connection.devices
    return status.kind != "uplink"


def _devices(sources: Sources, status: Status) -> list[DeviceFacts]:
    connection = sources.connection(status.name)
    if connection is None:
        return []
    comes = connection.options.__struct_config__.tag in PUSHING
    return [
        DeviceFacts(
            name=device.name,
            connection=status.name,
            state=status.state,
            trouble=status.trouble,
            lost=sources.latest.is_lost(device),
            good=_has_good(sources.latest, device),
            comes=comes,
            refused=sources.refusal(device.name),
        )
        for device in connection.devices
    ]


def _has_good(latest: Latest, device: Device) -> bool:
    return latest.device(device.name) is device and latest.best_quality(device) < Quality.UNCERTAIN


def _uplink(sources: Sources, status: Status, ledger: Ledger, question: _Question | None) -> UplinkFacts:
    pending = sum(lane.pending for lane in ledger.readers.get(status.name, {}).values())
    if question is None:
        return UplinkFacts(name=status.name, state=status.state, trouble=status.trouble, pending=pending)
    reader = sources.journal.reader(status.name)
    waiting = [lane.value for lane, seq in question.heads.items() if seq and _within(seq, reader.pending(lane))]
    return UplinkFacts(
        name=status.name,
        state=status.state,
        trouble=status.trouble,
        waiting=tuple(waiting if question.stored else dict.fromkeys((*waiting, Lane.EVENTS.value))),
        pending=pending,
        pending_then=question.pending.get(status.name, 0),
        appended=_appended(ledger) - question.appended,
    )


def _within(seq: int, spans: Sequence[tuple[int, int]]) -> bool:
    return any(first <= seq <= last for first, last in spans)
