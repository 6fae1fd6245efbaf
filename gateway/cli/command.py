"""``holdfast command`` and ``holdfast lock-out``: write a tag, or keep everybody from writing, through the gateway that runs."""

from __future__ import annotations

import getpass
import json
import sys
from contextlib import aclosing
from pathlib import Path
from typing import Any, Final

import click
import msgspec

from gateway import control, questions
from gateway.cli.asking import journal_folder
from gateway.cli.common import FAILED, SITE, WRONG, fail, loaded, run_loop
from gateway.commands.questions import AskCommand, LiftLockOut, ListLockOuts, SetLockOut

_TRUTHS: Final = {"true": True, "false": False}


@click.command()
@SITE
@click.argument("device")
@click.argument("tag")
@click.argument("value")
@click.option("--text", is_flag=True, help="VALUE is text, whatever it looks like.")
@click.option("--wait", "wait_s", type=click.FloatRange(min=0, max=3600, min_open=True), default=10.0, show_default=True, help="Seconds.")
@click.option("--reason", default="", help="Why; it is recorded.")
def command(site: Path, device: str, tag: str, value: str, text: bool, wait_s: float, reason: str) -> None:
    """Write VALUE to TAG of DEVICE through the gateway that runs on SITE, and say what became of it. Exit code 1 unless verified."""
    said = value if text else _value(value)
    (told,) = _asked(site, AskCommand(device=device, tag=tag, value=said, wait_s=wait_s, reason=reason, who=_me()))
    read = "" if told["read_back"] is None else f", read back {json.dumps(told['read_back'])}"
    click.echo(f"{told['stage']}{read}" + (f": {told['detail']}" if told["detail"] else ""))
    sys.exit(0 if told["stage"] == "verified" else FAILED)


@click.group("lock-out")
def lock_out() -> None:
    """Maintenance: keep everybody from writing to a device, a connection, or anything."""


@lock_out.command("set")
@SITE
@click.argument("scope", type=click.Choice(["gateway", "connection", "device"]))
@click.argument("name", default="")
@click.option("--why", required=True, help="What is being done there.")
@click.option("--hours", type=click.FloatRange(min=0, max=8760), default=0.0, help="End it by itself after so long; 0: never.")
def set_(site: Path, scope: Any, name: str, why: str, hours: float) -> None:  # Any: one of the choices
    """Let nobody write to the connection or device NAME, or to anything. What is queued is refused as well."""
    (told,) = _asked(site, SetLockOut(scope=scope, name=name, why=why, hours=hours, who=_me()))
    click.echo(f"{told['id']} is locked out until it is lifted: holdfast lock-out lift {site} {told['id']!r}")


@lock_out.command("lift")
@SITE
@click.argument("identity", metavar="ID")
def lift(site: Path, identity: str) -> None:
    """Let commands through again."""
    (told,) = _asked(site, LiftLockOut(id=identity, who=_me()))
    click.echo(f"{told['id']} is open again; it was locked out by {told['who']}: {told['why']}")


@lock_out.command("list")
@SITE
def list_(site: Path) -> None:
    """Print what is locked out: one line of JSON each."""
    for one in _asked(site, ListLockOuts()):
        click.echo(json.dumps(one))


def _value(word: str) -> bool | int | float | str:
    if word.lower() in _TRUTHS:
        return _TRUTHS[word.lower()]
    for kind in (int, float):
        try:
            return kind(word)
        except ValueError:
            continue
    return word


def _me() -> str:
    try:
        return getpass.getuser()[:64]
    except (OSError, KeyError):  # a user without a name
        return ""


def _asked(site: Path, request: questions.Request) -> list[dict[str, Any]]:  # Any: JSON
    async def lines() -> list[dict[str, Any]]:
        async with aclosing(control.ask(journal_folder(loaded(site), site), request)) as answers:
            return [line async for line in answers]

    try:
        return run_loop(lines())
    except (control.NotRunning, control.ControlError) as error:
        fail(str(error))
    except (msgspec.ValidationError, OverflowError) as error:
        fail(str(error), WRONG)
