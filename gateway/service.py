"""``holdfast run``: the appliance as a service, between systemd and its signals.

SIGTERM and SIGINT stop it cleanly; SIGHUP loads the document anew and applies what differs, or, where the document is
wrong, says so and changes nothing.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import signal
from pathlib import Path
from typing import Final

import structlog

from gateway import config
from gateway.app import Appliance, running
from gateway.config import model
from gateway.journal import StorageError
from gateway.telemetry.notify import notify, pat, watchdog_period_s
from protocols.clock import SystemClock

log = structlog.get_logger("holdfast.service")

GC_THRESHOLD: Final = 50_000
"""Allocations between two collections of the youngest generation. The hot path makes no reference cycles, so collecting
every 700 (the default) only walks live objects."""
OPEN_AGAIN_S: Final = 1.0


async def serve(site: model.Site, path: Path) -> None:
    """Run ``site``, which was loaded from ``path``, until a signal says stop.

    A journal that cannot be opened (a full disk, one that is not mounted) is tried again until it can: no human is needed.
    """
    signals: asyncio.Queue[signal.Signals] = asyncio.Queue()
    loop = asyncio.get_running_loop()
    for one in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        loop.add_signal_handler(one, signals.put_nowait, one)
    trouble = ""
    while True:
        try:
            async with running(site, base=path.parent) as appliance:
                await _attend(appliance, site, path, signals)
            break
        except StorageError as error:  # only opening the journal raises it
            if not trouble:
                log.error("journal_not_opened", trouble=str(error), advice="it is tried again every second")
            trouble = str(error)
        notify(f"STATUS=waiting for the journal: {trouble}", f"EXTEND_TIMEOUT_USEC={10 * OPEN_AGAIN_S * 1e6:.0f}")
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(OPEN_AGAIN_S):
                if await signals.get() is not signal.SIGHUP:
                    break
            site = await _judged(path) or site
    log.info("stopped")


async def _attend(appliance: Appliance, site: model.Site, path: Path, signals: asyncio.Queue[signal.Signals]) -> None:
    """Follow the signals of a running appliance until one says stop."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(GC_THRESHOLD)
    period = watchdog_period_s()
    watchdog = asyncio.create_task(pat(SystemClock(), period)) if period else None
    notify("READY=1", f"STATUS=running {site.gateway.group}/{site.gateway.name}")
    log.info("running", group=site.gateway.group, gateway=site.gateway.name, site=str(path))
    while (one := await signals.get()) is signal.SIGHUP:
        site = await _reload(appliance, site, path)
    notify("STOPPING=1")
    log.info("stopping", signal=one.name)
    if watchdog:
        watchdog.cancel()


async def _reload(appliance: Appliance, old: model.Site, path: Path) -> model.Site:
    notify("RELOADING=1", f"MONOTONIC_USEC={SystemClock().monotonic() * 1e6:.0f}")
    try:
        return await _applied(appliance, old, path)
    finally:
        notify("READY=1")


async def _applied(appliance: Appliance, old: model.Site, path: Path) -> model.Site:
    site = await _judged(path)
    if site is None:
        return old
    for part in ("journal", "telemetry"):
        if getattr(site, part) != getattr(old, part):
            log.warning("needs_restart", part=part, advice=f"the new {part} settings are used from the next start on")
    await appliance.apply(site)
    log.info("reloaded", site=str(path))
    return site


async def _judged(path: Path) -> model.Site | None:
    """The document as it is now; None, and its errors are said, where it is wrong."""
    site, problems = await asyncio.to_thread(config.judge, path)  # a large document takes half a second: scans go on
    if site is None:
        for problem in problems:
            if problem.severity == "error":
                log.error("reload_refused", path=problem.path, problem=problem.message, advice=problem.advice)
    return site
