"""``holdfast run``: the appliance as a service, between systemd and its signals.

SIGTERM and SIGINT stop it cleanly; SIGHUP loads the document anew and applies what differs, or, where the document is
wrong, says so and changes nothing. What was applied since by other ways runs at the next start too: see ``gateway.revisions``.
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
from gateway.revisions.revisions import StartAnew
from gateway.telemetry.notify import notify, pat, watchdog_period_s
from protocols.clock import SystemClock

log = structlog.get_logger("holdfast.service")

GC_THRESHOLD: Final = 50_000
"""Allocations between two collections of the youngest generation. The hot path makes no reference cycles, so collecting
every 700 (the default) only walks live objects."""
OPEN_AGAIN_S: Final = 1.0


async def serve(site: model.Site, path: Path, rescued: bytes | None = None) -> None:
    """Run ``site``, which was loaded from ``path``, until a signal says stop. Where the file is wrong, it is what was last
    confirmed, and ``rescued`` its text.

    A journal that cannot be opened (a full disk, one that is not mounted) is tried again until it can: no human is needed.
    """
    signals: asyncio.Queue[signal.Signals] = asyncio.Queue()
    loop = asyncio.get_running_loop()
    for one in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        loop.add_signal_handler(one, signals.put_nowait, one)
    trouble = ""
    while True:
        try:
            if await _lived(site, path, signals, rescued):
                break
            continue
        except StorageError as error:  # only opening the journal raises it
            if not trouble:
                log.error("journal_not_opened", trouble=str(error), advice="it is tried again every second")
            trouble = str(error)
        notify(f"STATUS=waiting for the journal: {trouble}", f"EXTEND_TIMEOUT_USEC={10 * OPEN_AGAIN_S * 1e6:.0f}")
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(OPEN_AGAIN_S):
                if await signals.get() is not signal.SIGHUP:
                    break
            if (mended := await _judged(path)) is not None:
                site, rescued = mended, None
    log.info("stopped")


async def _lived(site: model.Site, path: Path, signals: asyncio.Queue[signal.Signals], rescued: bytes | None) -> bool:
    """Run it until a signal says stop; False where it has to be started anew, because its parts could not be brought back."""
    ended_well = True
    raw = await asyncio.to_thread(path.read_bytes) if rescued is None else rescued
    try:
        async with running(site, base=path.parent, file=path, raw=raw, usable=rescued is None) as appliance:
            await _attend(appliance, path, signals)
    except* StartAnew as group:
        log.error("started_anew", trouble=str(group.exceptions[0]))
        ended_well = False
    return ended_well


async def _attend(appliance: Appliance, path: Path, signals: asyncio.Queue[signal.Signals]) -> None:
    """Follow the signals of a running appliance until one says stop."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(GC_THRESHOLD)
    period = watchdog_period_s()
    watchdog = asyncio.create_task(pat(SystemClock(), period)) if period else None
    gateway = appliance.site.gateway
    notify("READY=1", f"STATUS=running {gateway.group}/{gateway.name}")
    log.info("running", group=gateway.group, gateway=gateway.name, site=str(path), revision=appliance.revisions.number)
    try:
        while (one := await signals.get()) is signal.SIGHUP:
            await _reload(appliance)
        notify("STOPPING=1")
        log.info("stopping", signal=one.name)
    finally:
        if watchdog:
            watchdog.cancel()


async def _reload(appliance: Appliance) -> None:
    notify("RELOADING=1", f"MONOTONIC_USEC={SystemClock().monotonic() * 1e6:.0f}")
    try:
        await appliance.revisions.take_file()
    finally:
        notify("READY=1")


async def _judged(path: Path) -> model.Site | None:
    """The document as it is now; None, and its errors are said, where it is wrong."""
    site, problems = await asyncio.to_thread(config.judge, path)  # a large document takes half a second: scans go on
    if site is None:
        for problem in problems:
            if problem.severity == "error":
                log.error("reload_refused", path=problem.path, problem=problem.message, advice=problem.advice)
    return site
