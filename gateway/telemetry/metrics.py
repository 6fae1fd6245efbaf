"""Prometheus metrics, served on a port of their own while nothing else is served yet.

Nothing is counted here. At each scrape a snapshot of plain numbers is taken inside the gateway's loop and rendered in
the server's thread, so a slow scraper costs the loop microseconds. What is told stands in tables, one for each
kind of thing that is told of; the reference page is made from them.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from threading import Thread
from typing import Final, Generic, TypeVar
from wsgiref.simple_server import WSGIServer

import structlog
from prometheus_client import CollectorRegistry, generate_latest, start_http_server
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.registry import Collector

from gateway.journal import LaneLedger, Ledger, ReaderLane
from gateway.links import State, Status
from gateway.tasks import cancel
from gateway.telemetry.clock_state import ClockNow, Word
from protocols.clock import Clock
from protocols.model import LATENESS_BUCKETS_S, ScanStats

log = structlog.get_logger("holdfast.metrics")

SNAPSHOT_TIMEOUT_S: Final = 5.0
TRY_AGAIN_S: Final = 5.0
T = TypeVar("T")
_Things = Mapping[tuple[str, ...], T]
"""By the values of their labels."""


@dataclass(frozen=True)
class _Told(Generic[T]):
    """One metric of things of kind T."""

    family: type[CounterMetricFamily] | type[GaugeMetricFamily]
    name: str
    meaning: str
    value: Callable[[T], float | Mapping[str, int]]
    by_reason: bool = False
    """The value is a mapping from reasons to numbers, told with the label ``reason``."""


COUNTER: Final = CounterMetricFamily
GAUGE: Final = GaugeMetricFamily

LINKS: Final[tuple[_Told[Status], ...]] = (
    _Told(GAUGE, "holdfast_link_up", "1 while the peer answers", lambda link: float(link.state is State.UP)),
    _Told(COUNTER, "holdfast_link_sessions", "Times the peer was reached", lambda link: link.sessions),
    _Told(COUNTER, "holdfast_link_in", "Values (connection) or records (uplink) that came in", lambda link: link.counters.taken),
    _Told(COUNTER, "holdfast_link_out", "Values journalled (connection), records acknowledged (uplink)", lambda link: link.counters.given),
    _Told(COUNTER, "holdfast_link_errors", "Errors by reason", lambda link: link.counters.errors, by_reason=True),
    _Told(COUNTER, "holdfast_link_dropped", "Dropped by reason", lambda link: link.counters.dropped, by_reason=True),
    _Told(
        GAUGE,
        "holdfast_link_oldest_seconds",
        "UTC of the oldest thing that waits; 0 if nothing does",
        lambda link: link.counters.oldest_ns / 1e9,
    ),
)
SCANS: Final[tuple[_Told[ScanStats], ...]] = (
    _Told(COUNTER, "holdfast_scans_missed", "Scans that were skipped because their whole period went by", lambda stats: stats.missed),
    _Told(COUNTER, "holdfast_requests", "Requests sent to devices", lambda stats: stats.requests),
    _Told(COUNTER, "holdfast_request_errors", "Requests that failed, by reason", lambda stats: stats.errors, by_reason=True),
)
JOURNAL: Final[tuple[_Told[Ledger], ...]] = (
    _Told(GAUGE, "holdfast_journal_bytes", "Bytes that the journal takes on disk", lambda ledger: ledger.bytes),
    _Told(GAUGE, "holdfast_journal_max_bytes", "Bytes that the journal may take on disk", lambda ledger: ledger.max_bytes),
    _Told(GAUGE, "holdfast_journal_free_bytes", "Free bytes of the journal's file system", lambda ledger: ledger.free_bytes),
    _Told(GAUGE, "holdfast_journal_trouble", "1 while nothing can be stored", lambda ledger: float(bool(ledger.trouble))),
)
LANES: Final[tuple[_Told[LaneLedger], ...]] = (
    _Told(COUNTER, "holdfast_journal_appended", "Records appended", lambda lane: lane.appended),
    _Told(COUNTER, "holdfast_journal_values", "Values in appended records", lambda lane: lane.values),
    _Told(GAUGE, "holdfast_journal_unwritten", "Records that are not durable yet", lambda lane: lane.unwritten),
    _Told(GAUGE, "holdfast_journal_kept", "Records on disk", lambda lane: lane.kept),
    _Told(
        COUNTER,
        "holdfast_journal_dropped",
        "Records dropped before every uplink had them, by reason",
        lambda lane: lane.dropped,
        by_reason=True,
    ),
    _Told(COUNTER, "holdfast_journal_quarantined", "Records found damaged and set aside", lambda lane: lane.quarantined),
)
READERS: Final[tuple[_Told[ReaderLane], ...]] = (
    _Told(COUNTER, "holdfast_uplink_appended", "Records that concern this uplink", lambda reader: reader.appended),
    _Told(COUNTER, "holdfast_uplink_acknowledged", "Records whose delivery was confirmed", lambda reader: reader.acknowledged),
    _Told(GAUGE, "holdfast_uplink_pending", "Records that wait for confirmation", lambda reader: reader.pending),
    _Told(
        COUNTER,
        "holdfast_uplink_dropped",
        "Records that this uplink will never get, by reason",
        lambda reader: reader.dropped,
        by_reason=True,
    ),
    _Told(COUNTER, "holdfast_uplink_quarantined", "Damaged records that this uplink will never get", lambda reader: reader.quarantined),
    _Told(
        GAUGE,
        "holdfast_uplink_oldest_pending_seconds",
        "UTC of the oldest pending record; 0 if none is",
        lambda reader: reader.oldest_pending_ns / 1e9,
    ),
    _Told(GAUGE, "holdfast_uplink_untold", "Records lost for this uplink, which it has not been told of", lambda reader: reader.untold),
)
CLOCK: Final[tuple[_Told[ClockNow], ...]] = (
    _Told(
        GAUGE,
        "holdfast_clock_synchronised",
        "1 while the kernel calls its clock synchronised",
        lambda now: float(now.synchronised or False),
    ),
    _Told(
        GAUGE, "holdfast_clock_known", "1 while the kernel can be asked about its clock", lambda now: float(now.word is not Word.UNKNOWN)
    ),
    _Told(
        GAUGE,
        "holdfast_clock_max_error_seconds",
        "Most that the clock can be off; NaN while it is not synchronised",
        lambda now: math.nan if now.maximum_error_us is None else now.maximum_error_us / 1e6,
    ),
    _Told(COUNTER, "holdfast_clock_steps", "Times the clock was set since the gateway started", lambda now: now.steps),
)


@dataclass(frozen=True, kw_only=True)
class Doings:
    """What the gateway does besides reading and delivering, at one moment."""

    commands: Mapping[str, int]
    """Those that are over, by their end."""
    locked_out: int
    followers: int
    """Clients of the live stream."""
    followers_cut: Mapping[str, int]
    """By close code (RFC 6455, 7.4)."""
    follower_bytes: int
    """What they have not taken yet."""
    audit_waiting: int
    audit_lost: int
    audit_trouble: bool
    state_trouble: bool


DOINGS: Final[tuple[_Told[Doings], ...]] = (
    _Told(COUNTER, "holdfast_commands", "Commands that are over, by their end", lambda doings: doings.commands, by_reason=True),
    _Told(GAUGE, "holdfast_lock_outs", "Local lock-outs that hold: nobody writes there", lambda doings: doings.locked_out),
    _Told(GAUGE, "holdfast_live_clients", "Clients that follow the live stream", lambda doings: doings.followers),
    _Told(GAUGE, "holdfast_live_waiting_bytes", "Bytes that these have not taken yet", lambda doings: doings.follower_bytes),
    _Told(COUNTER, "holdfast_live_cut", "Clients that were cut, by close code", lambda doings: doings.followers_cut, by_reason=True),
    _Told(GAUGE, "holdfast_audit_waiting", "Audit entries that are not durable yet", lambda doings: doings.audit_waiting),
    _Told(COUNTER, "holdfast_audit_lost", "Audit entries that no disk took in time", lambda doings: doings.audit_lost),
    _Told(GAUGE, "holdfast_audit_trouble", "1 while no audit entry can be stored", lambda doings: float(doings.audit_trouble)),
    _Told(GAUGE, "holdfast_state_trouble", "1 while users and revisions are not kept on disk", lambda doings: float(doings.state_trouble)),
)


@dataclass(frozen=True)
class Snapshot:
    """Everything that is told, at one moment."""

    links: tuple[Status, ...]
    scans: dict[str, ScanStats]
    """By connection."""
    ledger: Ledger
    clock: ClockNow | None = None
    doings: Doings | None = None


def snapshot(
    links: Iterable[Status], scans: dict[str, ScanStats], ledger: Ledger, clock: ClockNow | None = None, doings: Doings | None = None
) -> Snapshot:
    """A copy that the loop will not change any more."""
    return Snapshot(tuple(_copied(link) for link in links), dict(scans), ledger, clock, doings)


def _copied(link: Status) -> Status:
    counters = replace(link.counters, errors=link.counters.errors.copy(), dropped=link.counters.dropped.copy())
    return replace(link, counters=counters)


def render(shot: Snapshot) -> Iterator[Metric]:
    """The metric families of one snapshot."""
    readers: _Things[ReaderLane] = {(name, lane): account for name, lanes in shot.ledger.readers.items() for lane, account in lanes.items()}
    scans: _Things[ScanStats] = {(name,): stats for name, stats in shot.scans.items()}
    yield from _families(LINKS, ("kind", "name"), {(link.kind, link.name): link for link in shot.links})
    yield from _families(SCANS, ("connection",), scans)
    yield _lateness(scans)
    yield from _families(JOURNAL, (), {(): shot.ledger})
    yield from _families(LANES, ("lane",), {(lane,): ledger for lane, ledger in shot.ledger.lanes.items()})
    yield from _families(READERS, ("uplink", "lane"), readers)
    yield from _families(CLOCK, (), {(): shot.clock} if shot.clock else {})
    yield from _families(DOINGS, (), {(): shot.doings} if shot.doings else {})


def _families(table: Iterable[_Told[T]], labels: tuple[str, ...], things: _Things[T]) -> Iterator[Metric]:
    for told in table:
        family = told.family(told.name, told.meaning, labels=(*labels, "reason") if told.by_reason else labels)
        for who, thing in things.items():
            value = told.value(thing)
            if isinstance(value, Mapping):
                for reason, count in value.items():
                    family.add_metric((*who, reason), count)
            else:
                family.add_metric(who, value)
        yield family


def _lateness(scans: _Things[ScanStats]) -> Metric:
    family = HistogramMetricFamily("holdfast_scan_lateness_seconds", "How late scans start", labels=("connection",))
    for who, stats in scans.items():
        family.add_metric(who, _cumulated(stats.late_s), stats.late_sum_s)
    return family


def _cumulated(counts: list[int]) -> list[tuple[str, float]]:
    total = 0
    buckets: list[tuple[str, float]] = []
    for bound, count in zip([*map(str, LATENESS_BUCKETS_S), "+Inf"], counts, strict=True):
        total += count
        buckets.append((bound, total))
    return buckets


class _One(Collector):
    def __init__(self, shot: Snapshot) -> None:
        self._shot = shot

    def collect(self) -> Iterable[Metric]:
        return render(self._shot)


def text(shot: Snapshot) -> str:
    """``shot`` in the Prometheus text format. Takes 100 ms for 3,000 series: for threads."""
    registry = CollectorRegistry(auto_describe=False)
    registry.register(_One(shot))
    return generate_latest(registry).decode()


class _Snapshots(Collector):
    def __init__(self, take: Callable[[], Snapshot], loop: asyncio.AbstractEventLoop) -> None:
        self._take = take
        self._loop = loop

    def collect(self) -> Iterable[Metric]:
        async def take() -> Snapshot:
            return self._take()

        return render(asyncio.run_coroutine_threadsafe(take(), self._loop).result(SNAPSHOT_TIMEOUT_S))


@asynccontextmanager
async def serving(host: str, port: int, take: Callable[[], Snapshot], *, clock: Clock) -> AsyncIterator[None]:
    """Serve ``GET /metrics`` until left; ``port`` 0 serves nothing.

    A port that is taken costs no reading: it is said once and tried again every TRY_AGAIN_S.
    """
    if port == 0:
        yield
        return
    registry = CollectorRegistry(auto_describe=False)
    registry.register(_Snapshots(take, asyncio.get_running_loop()))
    server = _Server(host, port, registry)
    trouble = server.start()
    if trouble is not None:
        log.error("metrics_not_served", trouble=str(trouble), host=host, port=port, advice="free the port; it is tried again")
    trying = asyncio.create_task(_start_when_free(server, clock))
    try:
        yield
    finally:
        await cancel(trying)
        await asyncio.to_thread(server.stop)


async def _start_when_free(server: _Server, clock: Clock) -> None:
    while not server.running:
        await clock.sleep_until(clock.monotonic() + TRY_AGAIN_S)
        if server.start() is None:
            log.info("metrics_served")


class _Server:
    """prometheus_client's server in a thread of its own, once its port is free."""

    def __init__(self, host: str, port: int, registry: CollectorRegistry) -> None:
        self._host, self._port, self._registry = host, port, registry
        self._parts: tuple[WSGIServer, Thread] | None = None

    @property
    def running(self) -> bool:
        return self._parts is not None

    def start(self) -> OSError | None:
        """What stands in the way, if anything does."""
        try:
            self._parts = start_http_server(self._port, self._host, self._registry)
        except OSError as error:
            return error
        return None

    def stop(self) -> None:
        if self._parts is not None:
            server, thread = self._parts
            server.shutdown()
            server.server_close()
            thread.join()
