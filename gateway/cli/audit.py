"""``holdfast audit``: the audit log of a running gateway or a stopped one, and a check of what was exported from it."""

from __future__ import annotations

import json
import sys
from contextlib import aclosing
from pathlib import Path
from typing import Any, BinaryIO

import click

from gateway import config, control
from gateway.audit import questions
from gateway.audit.chain import verify
from gateway.cli.common import FAILED, WRONG, fail, loaded, run_loop


@click.command()
@click.argument("site", required=False, type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option("-n", "--entries", type=click.IntRange(1, 10_000), default=20, show_default=True, help="How many entries from the end.")
@click.option("--verify", "verifies", is_flag=True, help="Check the whole log: was anything changed, removed or put in?")
@click.option("--export", "exports", is_flag=True, help="Print every entry as it is on the disk, for keeping elsewhere.")
@click.option("--file", type=click.File("rb"), help="Check what was exported before, instead of a gateway; - is standard input.")
def audit(site: Path | None, entries: int, verifies: bool, exports: bool, file: BinaryIO | None) -> None:
    """Print what people and machines did on the gateway of SITE: one line of JSON each, the newest last."""
    if file is not None:
        _judge(questions.spoken(verify(file)))
        return
    if site is None:
        fail("say which SITE, or --file of an exported log", WRONG)
    if verifies:
        _ask(site, questions.AuditVerify(), _judge)
    elif exports:
        _ask(site, questions.AuditExport(), lambda line: click.echo(line["line"]))
    else:
        _ask(site, questions.AuditTail(entries=entries), lambda line: click.echo(json.dumps(line, ensure_ascii=False)))


def _judge(verdict: dict[str, Any]) -> None:  # Any: JSON
    click.echo(json.dumps(verdict, ensure_ascii=False))
    if not verdict["holds"]:
        first = verdict["broken"][0]
        fail(f"the chain is broken at line {first['line']}: {first['what']}", FAILED)


def _ask(site: Path, question: questions.OfAudit, show: Any) -> None:  # Any: a function of one line
    document = loaded(site)
    journal = config.resolve(document.journal.path, site.parent)
    state = config.state_folder(document, site.parent)
    try:
        run_loop(_print(journal, state / "audit", question, show))
    except (control.ControlError, OSError) as error:
        if isinstance(error, BrokenPipeError):  # the reader of our output has seen enough
            sys.stderr.close()
            return
        fail(str(error))


async def _print(journal: Path, folder: Path, question: questions.OfAudit, show: Any) -> None:  # Any: as above
    try:
        async with aclosing(control.ask(journal, question)) as answers:
            async for line in answers:
                show(line)
    except control.NotRunning:
        async with aclosing(questions.answer_stopped(folder, question)) as answers:
            async for line in answers:
                show(line)
