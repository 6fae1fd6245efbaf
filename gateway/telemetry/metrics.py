"""Prometheus metrics, served on a port of their own while nothing else is served yet.

Nothing is counted here. At each scrape a snapshot of plain numbers is taken inside the gateway's loop and rendered in
the server's thread, so a slow scraper costs the loop microseconds.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from typing import Final

from prometheus_client import CollectorRegistry, start_http_server
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.registry import Collector

from gateway.journal import LaneLedger, Ledger, ReaderLane
from gateway.links import State, Status
from protocols.model import LATENESS_BUCKETS_S, ScanStats

SNAPSHOT_TIMEOUT_S: Final = 5.0


@dataclass(frozen=True)
class Snapshot:
    """Everything that is told, at one moment."""

    links: tuple[Status, ...]
    scans: dict[str, ScanStats]
    """By connection."""
    ledger: Ledger


def snapshot(links: Iterable[Status], scans: dict[str, ScanStats], ledger: Ledger) -> Snapshot:
    """A copy that the loop will not change any more."""
    return Snapshot(tuple(_copied(link) for link in links), dict(scans), ledger)


def _copied(link: Status) -> Status:
    counters = replace(link.counters, errors=link.counters.errors.copy(), dropped=link.counters.dropped.copy())
    return replace(link, counters=counters)


def render(shot: Snapshot) -> Iterable[Metric]:
    """The metric families of one snapshot."""
    yield from _links(shot.links)
    yield from _scans(shot.scans)
    yield from _ledger(shot.ledger)


def _links(links: tuple[Status, ...]) -> Iterable[Metric]:
    who, why = ("kind", "name"), ("kind", "name", "reason")
    up = GaugeMetricFamily("holdfast_link_up", "1 while the peer answers", labels=who)
    sessions = CounterMetricFamily("holdfast_link_sessions", "Times the peer was reached", labels=who)
    taken = CounterMetricFamily("holdfast_link_in", "Values (connection) or records (uplink) that came in", labels=who)
    given = CounterMetricFamily("holdfast_link_out", "Values journalled (connection), records acknowledged (uplink)", labels=who)
    errors = CounterMetricFamily("holdfast_link_errors", "Errors by reason", labels=why)
    dropped = CounterMetricFamily("holdfast_link_dropped", "Dropped by reason", labels=why)
    oldest = GaugeMetricFamily("holdfast_link_oldest_seconds", "UTC of the oldest thing that waits; 0 if nothing does", labels=who)
    for link in links:
        name = (link.kind, link.name)
        up.add_metric(name, float(link.state is State.UP))
        sessions.add_metric(name, link.sessions)
        taken.add_metric(name, link.counters.taken)
        given.add_metric(name, link.counters.given)
        oldest.add_metric(name, link.counters.oldest_ns / 1e9)
        for reason, count in link.counters.errors.items():
            errors.add_metric((*name, reason), count)
        for reason, count in link.counters.dropped.items():
            dropped.add_metric((*name, reason), count)
    return up, sessions, taken, given, errors, dropped, oldest


def _scans(scans: dict[str, ScanStats]) -> Iterable[Metric]:
    by, why = ("connection",), ("connection", "reason")
    missed = CounterMetricFamily("holdfast_scans_missed", "Scans that were skipped because their whole period went by", labels=by)
    requests = CounterMetricFamily("holdfast_requests", "Requests sent to devices", labels=by)
    errors = CounterMetricFamily("holdfast_request_errors", "Requests that failed, by reason", labels=why)
    late = HistogramMetricFamily("holdfast_scan_lateness_seconds", "How late scans start", labels=by)
    for name, stats in scans.items():
        missed.add_metric((name,), stats.missed)
        requests.add_metric((name,), stats.requests)
        for reason, count in stats.errors.items():
            errors.add_metric((name, reason), count)
        late.add_metric((name,), _cumulated(stats.late_s), stats.late_sum_s)
    return missed, requests, errors, late


def _cumulated(counts: list[int]) -> list[tuple[str, float]]:
    total = 0
    buckets: list[tuple[str, float]] = []
    for bound, count in zip([*map(str, LATENESS_BUCKETS_S), "+Inf"], counts, strict=True):
        total += count
        buckets.append((bound, total))
    return buckets


def _ledger(ledger: Ledger) -> Iterable[Metric]:
    yield GaugeMetricFamily("holdfast_journal_bytes", "Bytes that the journal takes on disk", value=ledger.bytes)
    yield GaugeMetricFamily("holdfast_journal_max_bytes", "Bytes that the journal may take on disk", value=ledger.max_bytes)
    yield GaugeMetricFamily("holdfast_journal_free_bytes", "Free bytes of the journal's file system", value=ledger.free_bytes)
    yield GaugeMetricFamily("holdfast_journal_trouble", "1 while nothing can be stored", value=float(bool(ledger.trouble)))
    yield from _lanes(ledger.lanes)
    yield from _readers(ledger.readers)


def _lanes(lanes: Mapping[str, LaneLedger]) -> Iterable[Metric]:
    by, why = ("lane",), ("lane", "reason")
    appended = CounterMetricFamily("holdfast_journal_appended", "Records appended", labels=by)
    values = CounterMetricFamily("holdfast_journal_values", "Values in appended records", labels=by)
    unwritten = GaugeMetricFamily("holdfast_journal_unwritten", "Records that are not durable yet", labels=by)
    kept = GaugeMetricFamily("holdfast_journal_kept", "Records on disk", labels=by)
    dropped = CounterMetricFamily("holdfast_journal_dropped", "Records dropped before every uplink had them, by reason", labels=why)
    damaged = CounterMetricFamily("holdfast_journal_quarantined", "Records found damaged and set aside", labels=by)
    for lane, ledger in lanes.items():
        appended.add_metric((lane,), ledger.appended)
        values.add_metric((lane,), ledger.values)
        unwritten.add_metric((lane,), ledger.unwritten)
        kept.add_metric((lane,), ledger.kept)
        damaged.add_metric((lane,), ledger.quarantined)
        for reason, count in ledger.dropped.items():
            dropped.add_metric((lane, reason), count)
    return appended, values, unwritten, kept, dropped, damaged


def _readers(readers: Mapping[str, Mapping[str, ReaderLane]]) -> Iterable[Metric]:
    by, why = ("uplink", "lane"), ("uplink", "lane", "reason")
    appended = CounterMetricFamily("holdfast_uplink_appended", "Records that concern this uplink", labels=by)
    acknowledged = CounterMetricFamily("holdfast_uplink_acknowledged", "Records whose delivery was confirmed", labels=by)
    pending = GaugeMetricFamily("holdfast_uplink_pending", "Records that wait for confirmation", labels=by)
    dropped = CounterMetricFamily("holdfast_uplink_dropped", "Records that this uplink will never get, by reason", labels=why)
    damaged = CounterMetricFamily("holdfast_uplink_quarantined", "Damaged records that this uplink will never get", labels=by)
    oldest = GaugeMetricFamily("holdfast_uplink_oldest_pending_seconds", "UTC of the oldest pending record; 0 if none is", labels=by)
    for name, lanes in readers.items():
        for lane, account in lanes.items():
            who = (name, lane)
            appended.add_metric(who, account.appended)
            acknowledged.add_metric(who, account.acknowledged)
            pending.add_metric(who, account.pending)
            damaged.add_metric(who, account.quarantined)
            oldest.add_metric(who, account.oldest_pending_ns / 1e9)
            for reason, count in account.dropped.items():
                dropped.add_metric((*who, reason), count)
    return appended, acknowledged, pending, dropped, damaged, oldest


class _Snapshots(Collector):
    def __init__(self, take: Callable[[], Snapshot], loop: asyncio.AbstractEventLoop) -> None:
        self._take = take
        self._loop = loop

    def collect(self) -> Iterable[Metric]:
        async def take() -> Snapshot:
            return self._take()

        return render(asyncio.run_coroutine_threadsafe(take(), self._loop).result(SNAPSHOT_TIMEOUT_S))


@asynccontextmanager
async def serving(host: str, port: int, take: Callable[[], Snapshot]) -> AsyncIterator[None]:
    """Serve ``GET /metrics`` until left; ``port`` 0 serves nothing. Raises OSError when the port is taken."""
    if port == 0:
        yield
        return
    registry = CollectorRegistry(auto_describe=False)
    server, thread = start_http_server(port, host, registry)
    registry.register(_Snapshots(take, asyncio.get_running_loop()))
    try:
        yield
    finally:
        await asyncio.to_thread(server.shutdown)
        server.server_close()
        await asyncio.to_thread(thread.join)
