"""THE pipeline. A driver's batch goes through here, and this page is all of it.

    driver -> link -> pipeline: latest -> report by exception -> journal -> (each uplink reads by its own cursor)

No stage calls another, none edits a batch, none waits: the journal gathers what it is offered and makes it durable
behind the loop's back. An uplink is no stage: it reads the journal at its own pace, so an outage is only a growing
distance between two numbers.
"""

from __future__ import annotations

from collections.abc import Callable

from gateway.counters import Counters
from gateway.journal import Journal
from gateway.latest import Latest
from gateway.report import ReportByException
from protocols.model import Batch

Take = Callable[[Batch], None]


def pipeline(latest: Latest, report: ReportByException, journal: Journal, counters: Counters) -> Take:
    """A function that takes a batch all the way into the journal. ``counters`` counts values of the connection."""

    def take(batch: Batch) -> None:
        counters.taken += len(batch)
        latest.update(batch)
        news = report.sift(batch)
        if news is not None:
            journal.offer(news)
            counters.given += len(news)

    return take
