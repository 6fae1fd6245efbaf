"""What applying a document would do and cost, compared with what runs. Touches nothing; slow for large documents.

The bus: requests a second and the share of a connection's time, from the plan of the driver that would run. The journal: every
value of every scan, at the size that the journal's format gives it (``config.budget``), which is the most that it can be.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Final

import msgspec

from gateway.config import budget, compare, model
from gateway.config.compare import Parts
from gateway.config.differences import differences, text_difference
from gateway.config.drivers import Drivers
from gateway.revisions.document import Document
from holdfast.shapes.common import Fault
from holdfast.shapes.revisions import BusCost, Difference, JournalCost, Plan, PlannedParts
from protocols.contract import Budgeted, Load, Problem

AFTER_RESTART: Final = ("journal", "telemetry", "state_path")
"""Sections that are used from the next start on."""
DAY_S: Final = 86_400.0
MOST_NAMED: Final = 10_000


def plan(running: Document | None, number: int, wanted: Document, drivers: Drivers) -> Plan:
    """From ``running`` (None: nothing), which is revision ``number``, to ``wanted``."""
    old = running.site if running is not None else nothing_of(wanted.site)
    new = wanted.site
    change = compare(old, new)
    found, more = differences(running.plain if running else {}, wanted.plain)
    sections = [one for one in change.sections if one != "api"]
    return Plan(
        base=number,
        nothing=running is not None and change.nothing and running.raw == wanted.raw,
        connections=_parts(change.connections),
        uplinks=_parts(change.uplinks),
        faces=_parts(change.faces),
        api=_api(old, new),
        live=[one for one in sections if one not in AFTER_RESTART],
        after_restart=[one for one in sections if one in AFTER_RESTART] if running is not None else [],
        bus=[*_bus(old, new, drivers)],
        journal=_journal(old, new, drivers),
        warnings=[*map(fault, wanted.warnings), *_told(running, wanted)],
        changes=found,
        more_changes=more,
        text_diff=_text(running, number, wanted),
    )


def nothing_of(site: model.Site) -> model.Site:
    """What runs before anything does."""
    return msgspec.structs.replace(site, connections=(), uplinks=(), faces=(), api=None)


def fault(problem: Problem) -> Fault:
    line = getattr(problem, "line", 0)
    return Fault(path=problem.path, message=problem.message, advice=problem.advice, severity=problem.severity, line=line)


def difference(running: Document, wanted: Document, names: tuple[str, str]) -> tuple[list[Difference], int, str]:
    """Differences, how many more there are, and the unified diff."""
    found, more = differences(running.plain, wanted.plain)
    return found, more, text_difference(running.raw, wanted.raw, *names)


def _text(running: Document | None, number: int, wanted: Document) -> str:
    return text_difference(running.raw, wanted.raw, f"revision {number}", "this document") if running else ""


def _parts(parts: Parts) -> PlannedParts:
    return PlannedParts(added=[*parts.added], changed=[*parts.changed], removed=[*parts.removed], unchanged=len(parts.unchanged))


def _api(old: model.Site, new: model.Site) -> Any:  # Any: one of the words of Plan.api
    if old.api == new.api:
        return "unchanged"
    return "added" if old.api is None else "removed" if new.api is None else "changed"


def _told(running: Document | None, wanted: Document) -> Iterable[Fault]:
    old, new = (running.site if running else None), wanted.site
    if old is not None and old.api is not None and new.api is None:
        message = "the API goes: afterwards only a shell on the gateway can confirm, or go back"
        yield Fault(path="api", message=message, advice="apply with a time to confirm within", severity="warning")
    if old is not None:
        for name in compare(old, new).uplinks.removed:
            message = (
                f"uplink {name} goes, and with it, once this is confirmed, its place in the journal: what it has not delivered stays unsent"
            )
            yield Fault(path="uplinks", message=message, advice="let it deliver first: holdfast journal stat", severity="warning")


# What it costs


def _bus(old: model.Site, new: model.Site, drivers: Drivers) -> Iterable[BusCost]:
    before = {one.name: one for one in old.connections}
    after = {one.name: one for one in new.connections}
    for name in [*after, *(name for name in before if name not in after)][:MOST_NAMED]:
        if before.get(name) == after.get(name):
            continue
        was, will = (_load(side.get(name), drivers) for side in (before, after))
        if was is not None or will is not None:
            yield BusCost(
                connection=name,
                requests_s_before=was.requests_s if was else None,
                requests_s=will.requests_s if will else None,
                share_before=was.share if was else None,
                share=will.share if will else None,
            )


def _load(options: Any, drivers: Drivers) -> Load | None:  # Any: the driver's own Struct
    if options is None:
        return None
    driver = drivers[options.__struct_config__.tag]
    return driver.load(options) if isinstance(driver, Budgeted) else None


def _journal(old: model.Site, new: model.Site, drivers: Drivers) -> JournalCost:
    was, will = (_rate(side, drivers) for side in (old, new))
    return JournalCost(
        values_s_before=was.values_s,
        values_s=will.values_s,
        bytes_day_before=was.bytes_s * DAY_S,
        bytes_day=will.bytes_s * DAY_S,
        holds_s_before=_holds(old, was),
        holds_s=_holds(new, will),
    )


def _rate(site: model.Site, drivers: Drivers) -> budget.Rate:
    return budget.busy(device for options in site.connections for device in drivers[options.__struct_config__.tag].devices(options))


def _holds(site: model.Site, rate: budget.Rate) -> float | None:
    if not rate.bytes_s:
        return None
    return min(site.journal.max_bytes / rate.bytes_s, site.journal.max_age_s)
