"""``holdfast browse`` and ``holdfast import``: from what a server has to the tags of a site, by way of a file that a person edits."""

from __future__ import annotations

import csv
import sys
from collections.abc import AsyncGenerator
from contextlib import aclosing
from pathlib import Path
from typing import IO, Any, Final

import click
import yaml

from gateway import config
from gateway.cli.common import FAILED, SITE, WRONG, fail, loaded, run_loop, show
from gateway.config import importing
from gateway.config.drivers import installed
from protocols.contract import DriverError, Offer
from protocols.secret import SecretMissing

COLUMNS: Final = ("name", "at", "kind", "unit", "writable", "value", "description")


@click.command()
@SITE
@click.argument("connection")
@click.option("--start", default="", help="Where to begin, as at is written; empty is the root.")
@click.option("--after", default="", help="Leave out everything up to this at: goes on where an earlier browse stopped.")
@click.option("--limit", type=click.IntRange(1, 1_000_000), default=10_000, show_default=True, help="Most values.")
@click.option("--format", "form", type=click.Choice(["csv", "yaml"]), default="csv", show_default=True)
def browse(site: Path, connection: str, start: str, after: str, limit: int, form: str) -> None:
    """List what CONNECTION of SITE has, as CSV or YAML that holdfast import reads. Uses the network.

    Values of types that cannot be a tag are left out of YAML and have no kind in CSV.
    """
    document = loaded(site)
    options = next((one for one in document.connections if one.name == connection), None)
    if options is None:
        names = ", ".join(one.name for one in document.connections) or "none"
        fail(f"no connection is called {connection!r} in {site}; there is: {names}", WRONG)
    kind = str(options.__struct_config__.tag)
    walk = getattr(installed()[kind], "browse", None)
    if walk is None:
        fail(f"{connection}: a {kind} device cannot be asked what it has; write its tags by its manual, or take a template", WRONG)
    write = _Csv(sys.stdout) if form == "csv" else _Yaml(sys.stdout)
    sys.exit(run_loop(_browse(walk, options, write, start=start, after=after, limit=limit)))


async def _browse(walk: Any, options: Any, write: _Csv | _Yaml, *, start: str, after: str, limit: int) -> int:  # Any: a driver's own
    told, last = 0, after
    passing = bool(after)
    try:
        offers: AsyncGenerator[Offer, None] = walk(options, start=start, limit=importing.MOST_ROWS)
        async with aclosing(offers):
            async for offer in offers:
                if passing:
                    passing = offer.at != after
                    continue
                if told >= limit:
                    click.echo(f"holdfast: {told} values, and there are more: go on with --after {last!r}", err=True)
                    return 0
                write.row(offer)
                told, last = told + 1, offer.at
    except (DriverError, SecretMissing) as error:
        again = f"; what was listed stays good: go on with --after {last!r}" if told else ""
        click.echo(f"holdfast: {error}{again}", err=True)
        return FAILED
    if passing:
        click.echo(f"holdfast: {after!r} was not met, so nothing was listed: check --after and --start", err=True)
        return WRONG
    return 0


class _Csv:
    def __init__(self, file: IO[str]) -> None:
        self._writer = csv.writer(file, lineterminator="\n")
        self._writer.writerow(COLUMNS)

    def row(self, offer: Offer) -> None:
        cells = [
            importing.tag_name(offer),
            offer.at,
            offer.kind or "",
            offer.unit,
            "true" if offer.writable else "",
            offer.value,
            offer.description,
        ]
        self._writer.writerow([importing.harmless(cell) for cell in cells])


class _Yaml:
    def __init__(self, file: IO[str]) -> None:
        self._file = file
        file.write("tags:\n")

    def row(self, offer: Offer) -> None:
        if offer.kind is None:
            return
        row: dict[str, Any] = {"name": importing.tag_name(offer), "at": offer.at, "kind": str(offer.kind)}  # Any: YAML scalars
        row |= {"unit": offer.unit} if offer.unit else {}
        row |= {"writable": True} if offer.writable else {}
        text = yaml.safe_dump(row, default_flow_style=True, allow_unicode=True, width=10_000, sort_keys=False).strip()
        shown = f"  # {importing.harmless(offer.value)}" if offer.value else ""
        self._file.write(f"  - {text}{shown}\n")


@click.command("import")
@SITE
@click.argument("connection")
@click.argument("device")
@click.argument("file", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option(
    "--mode",
    type=click.Choice(list(importing.MODES)),
    default="create",
    show_default=True,
    help="create: add what is new, keep what is there. overwrite: also replace tags of the same name. delete: also remove tags that "
    "the file does not have. merge-safe: add what is new, fill in what existing tags leave out, change nothing that is written.",
)
@click.option("--write", "do_write", is_flag=True, help="Change SITE; without it only what would change is printed.")
def import_(site: Path, connection: str, device: str, file: Path, mode: str, do_write: bool) -> None:
    """Take the tags in FILE (as holdfast browse writes them) into DEVICE of CONNECTION in SITE.

    A dry run unless --write is given: prints the difference as a patch. Comments and everything else in SITE stay as they are.
    """
    try:
        rows = importing.read_rows(file.read_bytes(), file.name)
        plan = importing.plan(site.read_bytes(), connection, device, rows, importing.MODES[mode])
    except importing.Unfit as error:
        fail(f"{error}", WRONG)
    for line in plan.told:
        click.echo(line, err=True)
    document, problems = config.judge(plan.text.encode())
    errors = [problem for problem in problems if problem.severity == "error"]
    if document is None:
        show(errors)
        fail(f"{site} would have {len(errors)} errors with these tags: nothing was changed", WRONG)
    if do_write:
        importing.put(site, plan.text)
        click.echo(f"{site}: {plan.summary}; send SIGHUP to a running gateway to apply it", err=True)
    else:
        click.echo(plan.patch(str(site)), nl=False)
        click.echo(f"{site}: {plan.summary}; nothing was changed: add --write to do it", err=True)
