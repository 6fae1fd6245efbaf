"""``holdfast token`` and ``holdfast user``: who may enter, for whoever has a shell on the gateway and no other way in.

They ask the running gateway over its control socket, which root and the service's own user alone may open. Passwords are asked
for, or read from standard input; they are never arguments, for those can be seen in the list of processes.
"""

from __future__ import annotations

import json
import sys
from contextlib import aclosing
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import click
import msgspec

from gateway import control
from gateway.cli.asking import journal_folder
from gateway.cli.common import SITE, WRONG, fail, loaded, run_loop
from gateway.identity import questions
from gateway.identity.principal import Permission, Role

ROLE = click.Choice([role.value for role in Role])
SCOPE = click.Choice([each.value for each in Permission])
TENANT = click.option("--tenant", default="", help="Bind it to this tenant of the site: it sees that tenant's devices alone.")


@click.group()
def token() -> None:
    """API tokens: issue, list, revoke. Works on the gateway itself, beside one that runs."""


@token.command("issue")
@SITE
@click.argument("name")
@click.option("--role", type=ROLE, required=True)
@TENANT
@click.option("--scope", "scopes", type=SCOPE, multiple=True, help="Narrow it to this permission; may be given more than once.")
@click.option("--days", type=click.FloatRange(0, 3650, min_open=True), default=90, show_default=True, help="How long it is good.")
def issue_token(site: Path, name: str, role: str, tenant: str, scopes: tuple[str, ...], days: float) -> None:
    """Make a token called NAME and print it, this once."""
    asked = {"ask": "token-issue", "name": name, "role": role, "tenant": tenant, "scopes": list(scopes) or None, "days": days}
    (told,) = _ask(site, asked)
    click.echo(f"{told['id']}: {told['role']}, good until {_day(told['expires_ns'])}; it is not shown again", err=True)
    click.echo(told["token"])


@token.command("list")
@SITE
def list_tokens(site: Path) -> None:
    """Print every token, without its secret: one line of JSON each."""
    _print(_ask(site, {"ask": "token-list"}))


@token.command("revoke")
@SITE
@click.argument("name")
def revoke_token(site: Path, name: str) -> None:
    """Let the token NAME open nothing any more."""
    _ask(site, {"ask": "token-revoke", "id": name})
    click.echo(f"{name}: revoked", err=True)


@click.group()
def user() -> None:
    """Users: claim, add, list, change, remove, password, unlock. Works on the gateway itself, beside one that runs."""


@user.command()
@SITE
def claim(site: Path) -> None:
    """Print a new claim code, with which the first administrator is made."""
    (told,) = _ask(site, {"ask": "user-claim"})
    click.echo("good for an hour, once: POST /api/v1/claim", err=True)
    click.echo(told["code"])


@user.command()
@SITE
@click.argument("name")
@click.option("--role", type=ROLE, required=True)
@TENANT
def add(site: Path, name: str, role: str, tenant: str) -> None:
    """Add the user NAME. The password is asked for, or is the first line of standard input."""
    _ask(site, {"ask": "user-add", "name": name, "role": role, "tenant": tenant, "password": _password()})
    click.echo(f"{name}: added as {role}", err=True)


@user.command("list")
@SITE
def list_users(site: Path) -> None:
    """Print every user: one line of JSON each."""
    _print(_ask(site, {"ask": "user-list"}))


@user.command()
@SITE
@click.argument("name")
@click.option("--role", type=ROLE, default=None)
@click.option("--tenant", default=None, help="Bind the user to this tenant; empty: to none.")
@click.option("--disable/--enable", "disabled", default=None, help="Shut the user out, or let them in again.")
def change(site: Path, name: str, role: str | None, tenant: str | None, disabled: bool | None) -> None:
    """Give the user NAME another role or tenant, shut them out or let them in. Their sessions end."""
    _ask(site, {"ask": "user-change", "name": name, "role": role, "tenant": tenant, "disabled": disabled})
    click.echo(f"{name}: changed", err=True)


@user.command()
@SITE
@click.argument("name")
def remove(site: Path, name: str) -> None:
    """Remove the user NAME, with sessions and tokens."""
    (told,) = _ask(site, {"ask": "user-remove", "name": name})
    click.echo(f"{name}: removed, with {told['tokens_revoked']} tokens", err=True)


@user.command()
@SITE
@click.argument("name")
def password(site: Path, name: str) -> None:
    """Set the password of the user NAME, and unlock them. It is asked for, or is the first line of standard input."""
    _ask(site, {"ask": "user-password", "name": name, "password": _password()})
    click.echo(f"{name}: the password is set", err=True)


@user.command()
@SITE
@click.argument("name")
def unlock(site: Path, name: str) -> None:
    """Let the user NAME, who tried too often, try again."""
    _ask(site, {"ask": "user-unlock", "name": name})
    click.echo(f"{name}: unlocked", err=True)


def _password() -> str:
    if sys.stdin.isatty():
        return str(click.prompt("Password", hide_input=True, confirmation_prompt=True, err=True))
    return sys.stdin.readline(2048).removesuffix("\n")


def _ask(site: Path, asked: dict[str, Any]) -> list[dict[str, Any]]:  # Any: JSON
    """The lines of the answer; says what is wrong and exits where there is none."""
    folder = journal_folder(loaded(site), site)
    try:
        question = msgspec.convert(asked, type=questions.OfIdentity)
        return run_loop(_lines(control.ask(folder, question)))
    except msgspec.ValidationError as error:
        fail(f"{error}: names of users have small letters, digits, . _ and -", WRONG)
    except (control.NotRunning, control.ControlError) as error:
        fail(str(error))


async def _lines(answers: Any) -> list[dict[str, Any]]:  # Any: an async generator of JSON
    async with aclosing(answers) as lines:
        return [line async for line in lines]


def _print(lines: list[dict[str, Any]]) -> None:  # Any: JSON
    for line in lines:
        click.echo(json.dumps(line, ensure_ascii=False))


def _day(time_ns: int) -> str:
    return datetime.fromtimestamp(time_ns / 1e9, tz=UTC).strftime("%Y-%m-%d %H:%M UTC")
