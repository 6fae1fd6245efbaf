"""``holdfast backup`` and ``holdfast restore``: everything that the gateway knows in one file, and back."""

from __future__ import annotations

import json
import sqlite3
import sys
from collections.abc import Callable
from contextlib import aclosing
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any, Final

import click

from gateway import config, control, questions
from gateway.backup.archive import About
from gateway.backup.envelope import LEAST_PASSPHRASE, MAGIC, Unsealed, is_sealed
from gateway.backup.make import Source
from gateway.backup.make import backup as make_backup
from gateway.backup.restore import Wish
from gateway.backup.restore import restore as bring_back
from gateway.cli.asking import journal_folder
from gateway.cli.common import SITE, WRONG, fail, loaded, run_loop
from gateway.journal import JournalBusy, StorageError
from gateway.telemetry import logs
from protocols.clock import SystemClock
from protocols.secret import FromCredential, FromEnv, FromFile, Secret, SecretMissing

_OPTIONS: Final = (
    click.option("--passphrase-file", type=click.Path(exists=True, dir_okay=False), help="File that holds the passphrase alone."),
    click.option("--passphrase-env", metavar="NAME", help="Environment variable that holds the passphrase."),
    click.option("--passphrase-credential", metavar="NAME", help="systemd credential that holds the passphrase."),
)


def passphrases(command: Callable[..., None]) -> Callable[..., None]:
    """Add the options that say where the passphrase lies. It is never an argument: those can be seen in the list of processes."""
    for option in reversed(_OPTIONS):
        command = option(command)
    return command


@click.command()
@SITE
@click.argument("out", type=click.Path(dir_okay=False, path_type=Path))
@passphrases
@click.option("--plain", is_flag=True, help="Do not encrypt it, although it holds keys: a tar file, readable by you alone.")
@click.option("--journal", "with_journal", is_flag=True, help="Also the records, all that are stored until now.")
def backup(site: Path, out: Path, plain: bool, with_journal: bool, **where: Any) -> None:  # Any: the options above
    """Write what the gateway of SITE knows to the file OUT: document, templates, users, revisions, keys, audit log.

    The gateway may run. OUT is encrypted with a passphrase and holds keys: keep it like one.
    """
    document = loaded(site)
    phrase = None if plain else _passphrase(where, confirm=True)
    if plain and any(where.values()):
        fail("--plain and a passphrase: give one of the two", WRONG)
    journal = journal_folder(document, site)
    state = config.state_folder(document, site.parent)
    if with_journal:
        run_loop(_rolled(journal))
    now_ns = SystemClock().time_ns()
    who = document.gateway
    about = About(release=version("holdfast"), group=who.group, gateway=who.name, made_ns=now_ns, journal=with_journal)
    try:
        size = make_backup(Source(site, journal, state), about, out, phrase)
    except (OSError, sqlite3.Error, Unsealed) as error:
        fail(f"no backup was made: {error}")
    click.echo(json.dumps({"file": str(out), "bytes": size, "encrypted": phrase is not None, "journal": with_journal}))


@click.command()
@click.argument("site", type=click.Path(dir_okay=False, path_type=Path))
@click.argument("file", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@passphrases
@click.option("--foreign", is_flag=True, help="Also where it is the backup of another gateway.")
@click.option("--keep-site", is_flag=True, help="Leave the document and the templates at SITE as they are.")
def restore(site: Path, file: Path, foreign: bool, keep_site: bool, **where: Any) -> None:  # Any: the options above
    """Bring back what FILE holds, as the gateway of SITE. It must be stopped; what was there is kept beside.

    Nothing is changed where FILE is not whole, not of this gateway, or of a newer release.
    """
    logs.configure("error", "console")
    phrase = _passphrase(where, confirm=False) if any(where.values()) or _looks_sealed(file) else None
    wish = Wish(site=site, file=file, passphrase=phrase, release=version("holdfast"), foreign=foreign, keep_site=keep_site)
    try:
        done = bring_back(wish, SystemClock())
    except (Unsealed, JournalBusy, StorageError, OSError, sqlite3.Error) as error:
        fail(f"nothing was restored: {error}")
    made = datetime.fromtimestamp(done.about.made_ns / 1e9, UTC)
    click.echo(f"restored {done.about.group}/{done.about.gateway} as of {made:%Y-%m-%d %H:%M:%S} UTC; start it now", err=True)
    told = {"made_ns": done.about.made_ns, "release": done.about.release, "journal": done.about.journal, "audit_kept": done.audit_kept}
    click.echo(json.dumps({**told, "replaced": [str(path) for path in done.replaced]}))


async def _rolled(journal: Path) -> None:
    """Have a gateway that runs begin new segments, so that the backup has all until now. One of before 0.2.0 cannot: then its newest
    segment is not in it."""
    try:
        async with aclosing(control.ask(journal, questions.Roll())) as lines:
            async for _ in lines:
                pass
    except control.NotRunning:
        return
    except control.ControlError as error:
        click.echo(f"the records of the newest segment are not in it: {error}", err=True)


def _looks_sealed(file: Path) -> bool:
    with file.open("rb") as content:
        return is_sealed(content.read(len(MAGIC)))


def _passphrase(where: dict[str, Any], *, confirm: bool) -> str:  # Any: texts or None
    sources: list[Secret] = []
    for kind, make in (("file", FromFile), ("env", FromEnv), ("credential", FromCredential)):
        named = where[f"passphrase_{kind}"]
        if named:
            sources.append(make(named))
    if len(sources) > 1:
        fail("name one place of the passphrase", WRONG)
    if not sources:
        if not sys.stdin.isatty():
            fail("name where the passphrase lies: --passphrase-file, --passphrase-env or --passphrase-credential", WRONG)
        return str(click.prompt("Passphrase", hide_input=True, confirmation_prompt=confirm, err=True))
    try:
        phrase = sources[0].read()
    except SecretMissing as error:
        fail(str(error), WRONG)
    if len(phrase) < LEAST_PASSPHRASE:
        fail(f"the passphrase has fewer than {LEAST_PASSPHRASE} characters: take a longer one", WRONG)
    return phrase
