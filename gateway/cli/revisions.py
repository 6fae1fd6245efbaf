"""``holdfast plan | apply | confirm | rollback | history | diff``: the configuration in revisions, of the gateway that runs.

They ask the gateway over its control socket, so they work without the API, and are for those who have a shell on the machine.
SITE is the document; ``--gateway`` names the one that the service was started with, where that is another. Exit codes: 0 fine or
nothing to do, 1 it did not work, 2 the document is wrong; ``plan --exit-code`` and ``diff --exit-code`` give 3 where there is a
difference, for Ansible's check mode.
"""

from __future__ import annotations

import getpass
import json
import os
import sys
from contextlib import aclosing
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final, NoReturn

import click
import msgspec

from gateway import config, control
from gateway.cli.common import FAILED, SITE, WRONG, fail, run_loop, show
from gateway.config import model
from gateway.config.document import parse
from gateway.config.drivers import installed
from gateway.objections import Unfit
from gateway.revisions import plan as plans
from gateway.revisions import questions
from gateway.revisions.document import read
from holdfast.shapes.common import Fault
from holdfast.shapes.revisions import Applied, BusCost, Difference, Drift, Plan, PlannedParts, Revision, RevisionDetail

DIFFERENT: Final = 3
_SHOWN: Final = 40

GATEWAY = click.option(
    "--gateway",
    "running",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="The document that the running gateway was started with; SITE itself where it is left out.",
)
AS_JSON = click.option("--json", "as_json", is_flag=True, help="Print JSON, for machines.")
REASON = click.option("--reason", default="", help="Why: it is kept in the history.")
WITHIN = click.option(
    "--confirm-within",
    "within_s",
    type=click.FloatRange(1, 86_400),
    help="Go back by itself unless `holdfast confirm` comes within so many seconds.",
)
EXIT_CODE = click.option("--exit-code", is_flag=True, help="Exit with 3 where there is a difference.")


@click.command()
@SITE
@GATEWAY
@AS_JSON
@EXIT_CODE
def plan(site: Path, running: Path | None, as_json: bool, exit_code: bool) -> None:
    """Say what applying SITE would change, restart and cost. Changes nothing.

    Where no gateway runs, SITE is compared with nothing.
    """
    try:
        said = _ask_one(running or site, questions.PlanIt(document=_content(site)))
        planned = msgspec.convert(said, Plan)
    except control.NotRunning:
        planned = _offline(site)
    _print(planned, _plan_text(planned), as_json)
    if exit_code and not planned.nothing:
        sys.exit(DIFFERENT)


@click.command()
@SITE
@GATEWAY
@REASON
@WITHIN
@click.option("--base", type=click.IntRange(0), help="Refuse unless this revision runs.")
@AS_JSON
def apply(site: Path, running: Path | None, reason: str, within_s: float | None, base: int | None, as_json: bool) -> None:
    """Have the running gateway take SITE, restarting only what differs."""
    ask = questions.ApplyIt(document=_content(site), author=_author(), reason=reason, confirm_within_s=within_s, base=base)
    applied = msgspec.convert(_must_ask(running or site, ask), Applied)
    _print(applied, _applied_text(applied), as_json)


@click.command()
@SITE
@click.argument("number", type=click.IntRange(1), required=False)
@REASON
@AS_JSON
def confirm(site: Path, number: int | None, reason: str, as_json: bool) -> None:
    """Keep the revision on trial. SITE is the document that the gateway was started with."""
    revision = msgspec.convert(_must_ask(site, questions.ConfirmIt(author=_author(), number=number, reason=reason)), Revision)
    _print(revision, [f"revision {revision.number} is confirmed"], as_json)


@click.command()
@SITE
@click.argument("number", type=click.IntRange(1), required=False)
@REASON
@WITHIN
@AS_JSON
def rollback(site: Path, number: int | None, reason: str, within_s: float | None, as_json: bool) -> None:
    """Have the document of revision NUMBER run again; without it, the one that was confirmed before, or that the trial replaced."""
    ask = questions.RollBackTo(author=_author(), number=number, reason=reason, confirm_within_s=within_s)
    applied = msgspec.convert(_must_ask(site, ask), Applied)
    _print(applied, _applied_text(applied), as_json)


@click.command()
@SITE
@click.argument("number", type=click.IntRange(1), required=False)
@click.option("-n", "--limit", type=click.IntRange(1, 1000), default=20, show_default=True, help="How many, the newest first.")
@click.option("--document", is_flag=True, help="Print the document of revision NUMBER alone.")
@AS_JSON
def history(site: Path, number: int | None, limit: int, document: bool, as_json: bool) -> None:
    """Show what was applied, by whom, when and why; with NUMBER, what that revision changed."""
    if number is None:
        lines = _asked(site, questions.History(limit=limit))
        revisions = [msgspec.convert(one, Revision) for one in lines]
        _print(revisions, [_line(one) for one in revisions], as_json)
        return
    detail = msgspec.convert(_must_ask(site, questions.History(number=number)), RevisionDetail)
    if document:
        click.echo(detail.document, nl=False)
        return
    _print(detail, [_line(detail.revision), *_changes(detail.changes, detail.more_changes), detail.text_diff], as_json)


@click.command()
@SITE
@click.argument("older", type=click.IntRange(1), required=False)
@click.argument("newer", type=click.IntRange(1), required=False)
@AS_JSON
@EXIT_CODE
def diff(site: Path, older: int | None, newer: int | None, as_json: bool, exit_code: bool) -> None:
    """Show how what runs differs from the file that the gateway was started with (drift), or revision OLDER from NEWER."""
    drift = msgspec.convert(_must_ask(site, questions.Differ(older=older, newer=newer)), Drift)
    _print(drift, _drift_text(drift), as_json)
    if drift.state == "unreadable":
        sys.exit(WRONG)
    if exit_code and drift.state == "differs":
        sys.exit(DIFFERENT)


# Asking


def _content(site: Path) -> bytes:
    with site.open("rb") as file:
        return file.read(questions.LONGEST + 1)


def _author() -> str:
    """Who sits at this shell: sudo says who they were before."""
    name = getpass.getuser()
    before = os.environ.get("SUDO_USER", "")
    return f"local:{before} (as {name})" if before and before != name else f"local:{name}"


def _folder(site: Path) -> Path:
    """The journal's folder of a document, also of one that is wrong elsewhere: the running gateway judges it."""
    parsed, problems = parse(_content(site))
    value: Any = parsed.value if parsed is not None else None  # Any: plain values
    if not isinstance(value, dict):
        show([*problems])
        fail(f"{site} is no site document", WRONG)
    journal = value.get("journal")
    path = journal.get("path") if isinstance(journal, dict) else None
    return config.resolve(path if isinstance(path, str) and path else model.JournalOptions().path, site.parent)


def _asked(site: Path, question: questions.OfRevisions) -> list[dict[str, Any]]:  # Any: JSON
    """The lines of the answer; exits where the gateway objects. Raises NotRunning."""
    try:
        lines = run_loop(_lines(_folder(site), question))
    except control.ControlError as error:
        fail(str(error))
    if lines and "objection" in lines[0]:
        _refused(site, lines[0]["objection"])
    return lines


def _ask_one(site: Path, question: questions.OfRevisions) -> dict[str, Any]:  # Any: JSON
    return _asked(site, question)[0]


def _must_ask(site: Path, question: questions.OfRevisions) -> dict[str, Any]:  # Any: JSON
    try:
        return _ask_one(site, question)
    except control.NotRunning as error:
        fail(f"{error}: start it, or name with --gateway the document that it was started with")


async def _lines(folder: Path, question: questions.OfRevisions) -> list[dict[str, Any]]:  # Any: JSON
    async with aclosing(control.ask(folder, question)) as answers:
        return [line async for line in answers]


def _refused(site: Path, objection: dict[str, Any]) -> NoReturn:  # Any: JSON
    for one in objection["problems"]:
        _say(msgspec.convert(one, Fault))
    advice = f": {objection['advice']}" if objection["advice"] else ""
    fail(f"{objection['detail']}{advice}", WRONG if objection["code"] in (Unfit.code, "too-large") else FAILED)


def _offline(site: Path) -> Plan:
    """Compared with nothing."""
    try:
        return plans.plan(None, 0, read(_content(site), site.parent), installed())
    except Unfit as wrong:
        for one in wrong.problems:
            _say(plans.fault(one))
        fail(wrong.detail, WRONG)


# Printing


def _say(one: Fault) -> None:
    line = f"line {one.line}: " if one.line else ""
    click.echo(f"{one.severity}: {line}{one.path or 'document'}: {one.message}", err=True)
    if one.advice:
        click.echo(f"    {one.advice}", err=True)


def _print(thing: Any, text: list[str], as_json: bool) -> None:  # Any: Structs of holdfast.shapes
    if as_json:
        click.echo(json.dumps(msgspec.to_builtins(thing), ensure_ascii=False))
        return
    for line in text:
        if line:
            click.echo(line.rstrip("\n"))


def _applied_text(applied: Applied) -> list[str]:
    revision = applied.revision
    if not applied.changed:
        return [f"nothing to do: revision {revision.number} is this document"]
    said = [*_plan_text(applied.plan), f"revision {revision.number} runs"]
    if revision.trial is not None:
        said.append(f"confirm it within {revision.trial.remaining_s:.0f} s (holdfast confirm SITE), or the gateway goes back")
    return said


def _plan_text(planned: Plan) -> list[str]:
    for one in planned.warnings:
        _say(one)
    if planned.nothing:
        return [f"nothing to do: revision {planned.base} is this document"]
    said = [
        f"compared with revision {planned.base}" if planned.base else "compared with nothing",
        *_parts("connection", planned.connections),
    ]
    said += [*_parts("uplink", planned.uplinks), *_parts("face", planned.faces)]
    said += [f"  {planned.api:9} the API"] if planned.api != "unchanged" else []
    said += [f"  at once   {name}" for name in planned.live] + [f"  at the next start: {name}" for name in planned.after_restart]
    cost = planned.journal
    said += [*map(_bus, planned.bus[:_SHOWN])]
    said.append(
        f"  journal   {_change(cost.values_s_before, cost.values_s, 'values/s')}, {_bytes(cost.bytes_day_before, cost.bytes_day)}, "
    )
    said[-1] += f"full after {_span(cost.holds_s_before)} -> {_span(cost.holds_s)}"
    return [*said, *_changes(planned.changes, planned.more_changes)]


def _parts(what: str, parts: PlannedParts) -> list[str]:
    named = {"added": parts.added, "restarted": parts.changed, "removed": parts.removed}
    said = [f"  {how:9} {what} {name}" for how, names in named.items() for name in names[:_SHOWN]]
    said += [f"  {how:9} {len(names) - _SHOWN} {what}s more" for how, names in named.items() if len(names) > _SHOWN]
    return [*said, f"  untouched {parts.unchanged} {what}s"] if parts.unchanged else said


def _bus(one: BusCost) -> str:
    requests = _change(one.requests_s_before or 0, one.requests_s or 0, "requests/s")
    if one.share is None and one.share_before is None:
        return f"  bus       {one.connection}: {requests}"
    return f"  bus       {one.connection}: {requests}, {_change((one.share_before or 0) * 100, (one.share or 0) * 100, '% of its time')}"


def _change(before: float, after: float, unit: str) -> str:
    return f"{after:,.4g} {unit}" if before == after else f"{before:,.4g} -> {after:,.4g} {unit}"


def _bytes(before: float, after: float) -> str:
    return _change(before / 1e6, after / 1e6, "MB a day")


def _span(seconds: float | None) -> str:
    if seconds is None:
        return "never"
    return f"{seconds / 86_400:,.1f} days" if seconds >= 2 * 86_400 else f"{seconds / 3600:,.1f} h"


def _changes(changes: list[Difference], more: int) -> list[str]:
    said = [_difference(one) for one in changes[:_SHOWN]]
    hidden = max(0, len(changes) - _SHOWN) + more
    return [*said, f"  and {hidden} differences more"] if hidden else said


def _difference(one: Difference) -> str:
    before, after = (json.dumps(each, ensure_ascii=False)[:100] for each in (one.before, one.after))
    what = {"added": f"+ {after}", "removed": f"- {before}", "changed": f"{before} -> {after}"}[one.kind]
    return f"  {one.path}: {what}"


def _line(one: Revision) -> str:
    mark = "*" if one.running else " "
    trial = f", goes in {one.trial.remaining_s:.0f} s" if one.trial else ""
    when = datetime.fromtimestamp(one.made_ns / 1e9, UTC).strftime("%Y-%m-%d %H:%M:%SZ")
    ended = f" [{one.ended}]" if one.ended else ""
    return f"{mark}{one.number:5} {when}  {one.standing}{trial}  {one.author}  {one.changed} changes  {one.reason}{ended}"


def _drift_text(drift: Drift) -> list[str]:
    if drift.state == "no-file":
        return ["this gateway was started without a file"]
    if drift.state == "unreadable":
        return [f"{drift.file} cannot be used: {drift.trouble}"]
    if drift.state in ("none", "same-meaning"):
        return [f"{drift.file or 'the two'}: no difference" + (" but in comments and layout" if drift.state == "same-meaning" else "")]
    return [*_changes(drift.changes, drift.more_changes), drift.text_diff]
