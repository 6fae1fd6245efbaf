"""``holdfast repairs``: what is wrong with the gateway that runs on SITE, and the fixes that can be pressed."""

from __future__ import annotations

import json
import sys
from contextlib import aclosing
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

import click

from gateway import control, questions
from gateway.cli.asking import journal_folder
from gateway.cli.common import FAILED, SITE, fail, loaded, run_loop
from gateway.diagnostics.questions import FixRepair, ListRepairs

_SIGNS: Final = {"error": "!!", "warning": " !", "info": "  "}


@click.command()
@SITE
@click.option("--fix", "fix", metavar="ID", help="Press the fix of this fault.")
@click.option("--yes", is_flag=True, help="Do not ask first.")
@click.option("--json", "as_json", is_flag=True, help="Print each as a line of JSON.")
def repairs(site: Path, fix: str | None, yes: bool, as_json: bool) -> None:
    """Each known fault of the gateway that runs on SITE: evidence, effect, and a fix to press. Exit code 1 while there are errors."""
    folder = journal_folder(loaded(site), site)
    found = run_loop(_asked(folder, ListRepairs()))
    if fix is not None:
        _press(folder, found, fix, yes)
        return
    for one in found:
        click.echo(json.dumps(one) if as_json else _text(one))
    if not found:
        click.echo("nothing is wrong that is known of", err=True)
    sys.exit(FAILED if any(one["severity"] == "error" for one in found) else 0)


def _press(folder: Path, found: list[dict[str, Any]], identity: str, yes: bool) -> None:  # Any: JSON
    one = next((each for each in found if each["id"] == identity), None)
    if one is None:
        fail(f"no fault has the id {identity[:80]!r} now: it may have mended itself")
    if one["fix"] is None:
        fail(f"{one['title']}: there is nothing to press: {one['advice']}")
    if not yes:
        click.confirm(one["fix"]["confirm"], abort=True)
    for line in run_loop(_asked(folder, FixRepair(id=identity))):
        click.echo(f"{line['done']}; to undo it: {line['undo']}")


async def _asked(folder: Path, request: questions.Request) -> list[dict[str, Any]]:  # Any: JSON
    try:
        async with aclosing(control.ask(folder, request)) as lines:
            return [line async for line in lines]
    except (control.NotRunning, control.ControlError) as error:
        fail(str(error))


def _text(one: dict[str, Any]) -> str:  # Any: JSON
    since = datetime.fromtimestamp(one["since_ns"] / 1e9, UTC)
    lines = [f"{_SIGNS[one['severity']]} {one['title']}", f"     id      {one['id']}", f"     since   {since:%Y-%m-%d %H:%M:%S} UTC"]
    lines += [f"     seen    {fact}" for fact in one["evidence"]]
    lines += [f"     effect  {one['effect']}", f"     advice  {one['advice']}"]
    if one["fix"]:
        lines.append(f"     fix     {one['fix']['label']}: --fix {one['id']}")
    if one["put_off"]:
        lines.append(f"     put off by {one['put_off']['by']}: {one['put_off']['reason']}")
    return "".join(letter if letter.isprintable() or letter == "\n" else "?" for letter in "\n".join(lines))
