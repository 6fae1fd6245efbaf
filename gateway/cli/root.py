"""The command line: ``holdfast COMMAND``.

Wiring only: each command turns arguments into a call and the result into text and an exit code. Exit codes: 0 fine, 1 it
did not work, 2 the arguments or the site document are wrong. Results go to standard output, everything else to standard
error, so that every command can be piped.
"""

from __future__ import annotations

import importlib
import json
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import click

from gateway import config
from gateway.cli.common import FAILED, SITE, WRONG, fail, loaded, run_loop, show
from gateway.config.drivers import installed
from gateway.journal import JournalBusy
from gateway.revisions import rescue
from gateway.service import serve
from gateway.telemetry import logs
from protocols.clock import SystemClock


@dataclass(frozen=True, slots=True)
class _Later:
    """A command that is loaded only when it is called, so that nobody else pays for what it needs."""

    module: str
    name: str
    extra: str = ""
    """The optional part of the distribution without which it cannot be loaded."""


LATER: Final = {
    "apply": _Later("gateway.cli.revisions", "apply"),
    "audit": _Later("gateway.cli.audit", "audit"),
    "backup": _Later("gateway.cli.backup", "backup"),
    "browse": _Later("gateway.cli.browse", "browse"),
    "command": _Later("gateway.cli.command", "command"),
    "confirm": _Later("gateway.cli.revisions", "confirm"),
    "consume": _Later("gateway.cli.consume", "consume"),
    "demo": _Later("gateway.demo.demo", "demo", "demo"),
    "diff": _Later("gateway.cli.revisions", "diff"),
    "find-number": _Later("gateway.cli.find", "find_number"),
    "health": _Later("gateway.cli.health", "health"),
    "history": _Later("gateway.cli.revisions", "history"),
    "import": _Later("gateway.cli.browse", "import_"),
    "journal": _Later("gateway.cli.journal", "journal"),
    "lock-out": _Later("gateway.cli.command", "lock_out"),
    "opcua": _Later("gateway.cli.opcua", "opcua"),
    "openapi": _Later("gateway.cli.openapi", "openapi"),
    "plan": _Later("gateway.cli.revisions", "plan"),
    "repairs": _Later("gateway.cli.repairs", "repairs"),
    "register-map": _Later("gateway.cli.faces", "register_map"),
    "restore": _Later("gateway.cli.backup", "restore"),
    "rollback": _Later("gateway.cli.revisions", "rollback"),
    "scan": _Later("gateway.cli.scan", "scan"),
    "support": _Later("gateway.cli.support", "support"),
    "template": _Later("gateway.cli.template", "template"),
    "token": _Later("gateway.cli.access", "token"),
    "trace": _Later("gateway.cli.trace", "trace"),
    "user": _Later("gateway.cli.access", "user"),
}


class _Commands(click.Group):
    def list_commands(self, ctx: click.Context) -> list[str]:
        return sorted([*super().list_commands(ctx), *LATER])

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in LATER:
            return super().get_command(ctx, cmd_name)
        later = LATER[cmd_name]
        try:
            command: click.Command = getattr(importlib.import_module(later.module), later.name)
        except ModuleNotFoundError as error:
            if not later.extra:
                raise
            missing = f"it needs {error.name}: pip install 'holdfast[{later.extra}]'"
            return click.Command(cmd_name, callback=lambda: fail(missing), short_help=f"Not installed: {missing}")
        return command


@click.group(cls=_Commands, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(package_name="holdfast")
def main() -> None:
    """Holdfast: an industrial edge gateway that loses no reading silently."""


@main.command()
@SITE
def run(site: Path) -> None:
    """Run the gateway that SITE describes, until SIGTERM. SIGHUP applies the changed document."""
    document, _ = config.judge(site)
    rescued = run_loop(rescue.confirmed(site, SystemClock())) if document is None else None
    document = rescued.site if rescued is not None else document or loaded(site)
    logs.configure(document.telemetry.log_level, document.telemetry.log_format)
    try:
        run_loop(serve(document, site, rescued.raw if rescued is not None else None))
    except JournalBusy as error:
        fail(str(error))
    except OSError as error:
        fail(f"{error}: check the addresses, ports and folders in {site}")


@main.command()
@SITE
def check(site: Path) -> None:
    """Report everything that is wrong in SITE, with path and advice. Touches no network."""
    document, problems = config.load(site)
    if document is not None:
        problems = config.locate([*problems, *config.check(document), *config.check_files(document, site.parent)], site)
    show(problems)
    if any(problem.severity == "error" for problem in problems):
        sys.exit(WRONG)
    click.echo(f"{site}: no errors" + (f", {len(problems)} warnings" if problems else ""))


@main.command()
def schema() -> None:
    """Print the JSON Schema of the site document."""
    click.echo(json.dumps(config.schema(), indent=2))


@main.command()
def sample() -> None:
    """Print a commented sample of the site document."""
    click.echo(config.sample(), nl=False)


@main.command()
@SITE
@click.argument("connection")
def probe(site: Path, connection: str) -> None:
    """Ask the equipment behind CONNECTION whether SITE describes it rightly. Uses the network."""
    document = loaded(site)
    options = next((one for one in document.connections if one.name == connection), None)
    if options is None:
        names = ", ".join(one.name for one in document.connections) or "none"
        fail(f"no connection is called {connection!r} in {site}; there is: {names}", WRONG)
    report = run_loop(installed()[options.__struct_config__.tag].probe(options))
    for finding in report.findings:
        click.echo(finding)
    sys.exit(0 if report.ok else FAILED)
