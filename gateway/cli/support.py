"""``holdfast support``: a support bundle, of the gateway that runs or of one that does not."""

from __future__ import annotations

import base64
import os
from contextlib import aclosing
from pathlib import Path

import click
import msgspec

from gateway import config, control
from gateway.cli.asking import journal_folder
from gateway.cli.common import SITE, WRONG, fail, run_loop, show
from gateway.config import model
from gateway.diagnostics.bundle import offline
from gateway.diagnostics.questions import MakeBundle
from protocols.clock import SystemClock
from protocols.contract import Problem


@click.command()
@SITE
@click.argument("out", type=click.Path(dir_okay=False, path_type=Path))
def support(site: Path, out: Path) -> None:
    """Write a support bundle of SITE's gateway to OUT (tar.gz): settings, states, counters, the last log lines; no secret, no reading.

    It works where no gateway runs, too: then it holds the document, what is wrong with it, and the machine.
    """
    document, problems = config.judge(site)
    if document is None:
        show(problems)
        fail(f"{site} cannot be read: mend it first, or send the lines above", WRONG)
    folder = journal_folder(document, site)
    try:
        packed = run_loop(_asked(folder))
    except control.NotRunning:
        click.echo("no gateway runs: the bundle holds the document and the machine alone", err=True)
        packed = _offline(document, problems, folder)
    except control.ControlError as error:
        fail(f"the gateway cannot make a bundle: {error}")
    _write(out, packed)
    click.echo(f"{out}: {len(packed)} bytes")


async def _asked(folder: Path) -> bytes:
    """Raises NotRunning, ControlError."""
    async with aclosing(control.ask(folder, MakeBundle())) as lines:
        return b"".join([base64.b64decode(line["part"]) async for line in lines])


def _offline(document: model.Site, problems: list[Problem], folder: Path) -> bytes:
    there = next((each for each in (folder, *folder.parents) if each.exists()), Path("/"))
    return offline(document, msgspec.to_builtins(problems), [there], SystemClock().time_ns())


def _write(out: Path, packed: bytes) -> None:
    try:
        descriptor = os.open(out, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        with os.fdopen(descriptor, "wb") as file:
            file.write(packed)
    except OSError as error:
        fail(f"{out}: {error.strerror}: name another place")
