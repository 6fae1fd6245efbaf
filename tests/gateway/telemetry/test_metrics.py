"""What Prometheus sees, asked over HTTP of a server that runs beside a real journal."""

from __future__ import annotations

import asyncio
import urllib.request
from pathlib import Path

from prometheus_client.parser import text_string_to_metric_families

from gateway.config.model import JournalOptions
from gateway.counters import Counters
from gateway.journal import Journal
from gateway.links import State, Status
from gateway.telemetry import metrics
from protocols.clock import ManualClock, SystemClock
from protocols.model import LATENESS_BUCKETS_S, ScanStats
from tests.builders import batch, floats
from tests.peers.mosquitto import free_port


def scrape(port: int) -> dict[tuple[str, tuple[str, ...]], float]:
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=10) as answer:
        text = answer.read().decode()
    families = text_string_to_metric_families(text)
    # labels come in the order of their names
    return {(one.name, tuple(one.labels.values())): one.value for family in families for one in family.samples}


async def test_links_scans_and_the_ledger_are_told(tmp_path: Path) -> None:
    link = Status("connection", "boiler-house", State.UP, sessions=2, counters=Counters(taken=7, given=5))
    link.counters.errors["Unreachable"] = 3
    stats = ScanStats(scans=3, missed=1, requests=6, late_s=[2, 0, 1] + [0] * (len(LATENESS_BUCKETS_S) - 2), errors={"timeout": 4})
    journal = await Journal.open(JournalOptions(), clock=SystemClock(), base=tmp_path)
    journal.reader("cloud")
    await journal.append(batch(floats(2), [1.0, 2.0]))
    port = free_port()
    async with metrics.serving(
        "127.0.0.1", port, lambda: metrics.snapshot([link], {"boiler-house": stats}, journal.ledger()), clock=SystemClock()
    ):
        seen = await asyncio.to_thread(scrape, port)
    await journal.close()
    line, late = ("connection", "boiler-house"), "holdfast_scan_lateness_seconds"
    assert seen["holdfast_link_up", line] == 1
    assert seen["holdfast_link_in_total", line] == 7
    assert seen["holdfast_link_out_total", line] == 5
    assert seen["holdfast_link_errors_total", (*line, "Unreachable")] == 3
    assert seen["holdfast_scans_missed_total", ("boiler-house",)] == 1
    assert seen[f"{late}_bucket", ("boiler-house", "0.002")] == 2
    assert seen[f"{late}_bucket", ("boiler-house", "+Inf")] == 3
    assert seen["holdfast_request_errors_total", ("boiler-house", "timeout")] == 4
    assert seen["holdfast_journal_appended_total", ("telemetry",)] == 1
    assert seen["holdfast_journal_values_total", ("telemetry",)] == 2
    assert seen["holdfast_uplink_pending", ("telemetry", "cloud")] == 1


async def test_port_zero_serves_nothing() -> None:
    def never() -> metrics.Snapshot:
        raise AssertionError("nobody asked")

    async with metrics.serving("127.0.0.1", 0, never, clock=SystemClock()):
        pass


async def test_a_port_that_is_taken_stops_nothing_and_is_served_once_it_is_free(tmp_path: Path) -> None:
    clock = ManualClock()
    journal = await Journal.open(JournalOptions(), clock=SystemClock(), base=tmp_path)
    taken = await asyncio.start_server(lambda reader, writer: None, "127.0.0.1", 0)
    port = taken.sockets[0].getsockname()[1]
    async with metrics.serving("127.0.0.1", port, lambda: metrics.snapshot([], {}, journal.ledger()), clock=clock):
        await clock.advance(metrics.TRY_AGAIN_S)
        taken.close()
        await taken.wait_closed()
        await clock.advance(metrics.TRY_AGAIN_S)
        assert await asyncio.to_thread(scrape, port)
    await journal.close()
