"""``holdfast health``: whether the gateway that runs on SITE is well. What an upgrade waits for before it goes on."""

from __future__ import annotations

import asyncio
import sys
from contextlib import aclosing
from pathlib import Path
from typing import Any, Final

import click
import msgspec

from gateway import control, questions
from gateway.cli.asking import journal_folder
from gateway.cli.common import FAILED, SITE, WRONG, fail, loaded, printable, run_loop
from gateway.config import model
from gateway.config.drivers import installed
from gateway.diagnostics.questions import ListRepairs
from gateway.health import before
from gateway.health.checks import is_well, narrowed, said
from gateway.health.questions import AskHealth
from gateway.journal import Ledger, StorageError
from gateway.journal.format import refuse_newer
from holdfast.shapes.health import Check, HealthReport
from protocols.clock import Clock, SystemClock

ASK_AGAIN_S: Final = 0.5
GRACE_S: Final = 15.0
"""A gateway that has not answered so long after the time is over does not answer at all."""
LARGEST_BASELINE: Final = 16 * 1024 * 1024


class _CannotSay(Exception):
    """The gateway is of before 0.2.0."""


@click.command()
@SITE
@click.option("--wait", "wait_s", type=click.FloatRange(0, 3600), default=10.0, show_default=True, help="How long to ask till all is well.")
@click.option(
    "--baseline",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="What --json printed before: only what is worse fails.",
)
@click.option("--release", default="", help="The release that is to run.")
@click.option("--only", multiple=True, metavar="CHECK", help="Look at this check alone, such as journal. May be given again.")
@click.option("--json", "as_json", is_flag=True, help="Print the report as JSON.")
def health(site: Path, wait_s: float, baseline: Path | None, release: str, only: tuple[str, ...], as_json: bool) -> None:
    """Say whether the gateway that runs on SITE is well: devices up, journal writing, uplinks acknowledged. Exit code 1 where not."""
    document = loaded(site)
    asked = AskHealth(wait_s=wait_s, excused=_excused(baseline) if baseline else (), release=release, only=only)
    report = run_loop(_asked(document, journal_folder(document, site), asked, SystemClock()))
    click.echo(msgspec.json.encode(report).decode() if as_json else "\n".join(map(printable, said(report))))
    sys.exit(0 if report.ok else FAILED)


def _excused(file: Path) -> tuple[str, ...]:
    try:
        if file.stat().st_size > LARGEST_BASELINE:
            fail(f"{file} has more than {LARGEST_BASELINE // 1024**2} MiB: give what holdfast health --json printed", WRONG)
        told = msgspec.json.decode(file.read_bytes(), type=HealthReport)
    except OSError as error:
        fail(f"{file} cannot be read ({error.strerror})", WRONG)
    except msgspec.MsgspecError as error:
        fail(f"{file} is no report of holdfast health --json: {error}", WRONG)
    return tuple(check.name for check in told.checks if not check.ok)


async def _asked(document: model.Site, folder: Path, asked: AskHealth, clock: Clock) -> HealthReport:
    """The last report before the time is over, or the first that is well."""
    end = clock.monotonic() + asked.wait_s
    older: _Older | None = None
    while True:
        left = max(0.0, end - clock.monotonic())
        try:
            if older is None:
                report = await _report(folder, msgspec.structs.replace(asked, wait_s=left))
            else:
                report = _narrowed(await older.report(clock.time_ns()), asked.only)
        except _CannotSay:
            older = _Older(document, folder, asked)
            continue
        except (control.NotRunning, control.ControlError, OSError) as error:  # a TimeoutError is one
            report = _silent(document, await asyncio.to_thread(_why, folder, str(error) or "it does not answer"), clock.time_ns())
        if report.ok or clock.monotonic() >= end:
            return report
        await clock.sleep_until(min(end, clock.monotonic() + ASK_AGAIN_S))


async def _report(folder: Path, asked: AskHealth) -> HealthReport:
    async with asyncio.timeout(asked.wait_s + GRACE_S):
        try:
            return msgspec.convert(await _one(folder, asked), HealthReport)
        except control.ControlError as error:
            if str(error).startswith("not a request"):
                raise _CannotSay from error
            raise


async def _one(folder: Path, question: questions.Request) -> dict[str, Any]:  # Any: JSON
    return (await _all(folder, question))[0]


async def _all(folder: Path, question: questions.Request) -> list[dict[str, Any]]:  # Any: JSON
    async with aclosing(control.ask(folder, question)) as lines:
        return [line async for line in lines]


class _Older:
    """Asks a gateway of before 0.2.0 for what it can say."""

    def __init__(self, document: model.Site, folder: Path, asked: AskHealth) -> None:
        self._folder, self._asked = folder, asked
        self._called = f"{document.gateway.group}/{document.gateway.name}"
        drivers = installed()
        self._devices = {
            one.name: [device.name for device in drivers[one.__struct_config__.tag].devices(one)] for one in document.connections
        }
        self._then: Ledger | None = None

    async def report(self, time_ns: int) -> HealthReport:
        async with asyncio.timeout(GRACE_S):
            faults = await _all(self._folder, ListRepairs())
            now = msgspec.convert(await _one(self._folder, questions.Stat()), Ledger)
        self._then = self._then or now
        asked = self._asked
        return before.report(
            faults,
            self._then,
            now,
            self._devices,
            gateway=self._called,
            time_ns=time_ns,
            excused=frozenset(asked.excused),
            release=asked.release,
        )


def _narrowed(report: HealthReport, only: tuple[str, ...]) -> HealthReport:
    checks = narrowed(report.checks, only)
    return msgspec.structs.replace(report, ok=is_well(checks), checks=checks)


def _silent(document: model.Site, why: str, time_ns: int) -> HealthReport:
    called = f"{document.gateway.group}/{document.gateway.name}"
    check = Check(
        name="running", ok=False, sentence=why, advice="is the service started? systemctl status holdfast; journalctl -u holdfast"
    )
    return HealthReport(ok=False, release="", gateway=called, time_ns=time_ns, uptime_s=0.0, checks=[check])


def _why(folder: Path, trouble: str) -> str:
    """What keeps a gateway from running, where its files say it."""
    try:
        refuse_newer(folder)
    except StorageError as error:
        return f"{trouble}; {error}"
    return trouble
