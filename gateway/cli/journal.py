"""``holdfast journal``: questions to the journal, of a running gateway or a stopped one."""

from __future__ import annotations

import json
import sys
from contextlib import aclosing
from pathlib import Path

import click

from gateway import config, control, questions
from gateway.cli.common import SITE, fail, loaded, run_loop
from gateway.config import model
from gateway.journal import Journal, JournalBusy, Lane, StorageError
from protocols.clock import SystemClock

LANE = click.option("--lane", type=click.Choice([lane.value for lane in Lane]), default=Lane.TELEMETRY.value, show_default=True)


@click.group()
def journal() -> None:
    """Look into the journal, of a running gateway or of one that is stopped."""


@journal.command()
@SITE
def stat(site: Path) -> None:
    """Print the ledger: what was appended, acknowledged, is pending, dropped or quarantined."""
    _ask(site, questions.Stat())


@journal.command()
@SITE
@LANE
@click.option("-n", "--records", type=click.IntRange(0, 100_000), default=10, show_default=True, help="How many records from the end.")
@click.option("-f", "--follow", is_flag=True, help="Go on as records come (only of a running gateway).")
def tail(site: Path, lane: str, records: int, follow: bool) -> None:
    """Print the newest records, one line of JSON each."""
    _ask(site, questions.Tail(lane=Lane(lane), records=records, follow=follow))


@journal.command()
@SITE
def verify(site: Path) -> None:
    """Read every record and check it; damaged ones are quarantined and counted."""
    _ask(site, questions.Verify())


@journal.command()
@SITE
@LANE
@click.option("--first", type=click.IntRange(0), default=0, help="First sequence number.")
@click.option("--last", type=click.IntRange(0), default=None, help="Last sequence number; none goes to the end.")
def export(site: Path, lane: str, first: int, last: int | None) -> None:
    """Print records, and the gaps between them, one line of JSON each."""
    _ask(site, questions.Export(lane=Lane(lane), first=first, last=last))


def _ask(site: Path, question: questions.OfJournal) -> None:
    """Put ``question`` to the running gateway, or answer it from the journal of a stopped one."""
    options = loaded(site).journal
    try:
        run_loop(_print(options, site.parent, question))
    except (control.ControlError, JournalBusy, StorageError) as error:
        fail(str(error))
    except BrokenPipeError:  # the reader of our output has seen enough
        sys.stderr.close()


async def _print(options: model.JournalOptions, base: Path, question: questions.OfJournal) -> None:
    async with aclosing(_answers(options, base, question)) as answers:
        async for line in answers:
            click.echo(json.dumps(line, ensure_ascii=False))


async def _answers(options: model.JournalOptions, base: Path, question: questions.OfJournal) -> questions.Lines:
    folder = config.resolve(options.path, base)
    try:
        async with aclosing(control.ask(folder, question)) as answers:
            async for line in answers:
                yield line
        return
    except control.NotRunning:
        if not folder.is_dir():
            raise control.ControlError(f"there is no journal in {folder}: has this gateway ever run?") from None
    stopped = await Journal.open(options, clock=SystemClock(), base=base)
    try:
        async with aclosing(questions.answer(stopped, question)) as answers:
            async for line in answers:
                yield line
    finally:
        await stopped.close()
