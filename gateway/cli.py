"""The command line: ``holdfast run | check | schema | sample | probe | journal | consume | demo``.

Wiring only: each command turns arguments into a call and the result into text and an exit code. Exit codes: 0 fine, 1 it
did not work, 2 the arguments or the site document are wrong. Results go to standard output, everything else to standard
error, so that every command can be piped.
"""

from __future__ import annotations

import asyncio
import importlib
import json
import signal
import sys
from collections.abc import Coroutine
from contextlib import aclosing
from pathlib import Path
from typing import IO, Any, Final, NoReturn, TypeVar

import click
import msgspec
import uvloop

from gateway import config, control, questions
from gateway.config import Located, model
from gateway.config.drivers import installed
from gateway.consume import ConsumeOptions, Verdict
from gateway.consume import consume as consume_gateway
from gateway.journal import Journal, JournalBusy, Lane, StorageError
from gateway.service import serve
from gateway.telemetry import logs
from protocols.clock import SystemClock
from protocols.contract import Problem
from protocols.secret import FromFile
from protocols.tls import Tls

T = TypeVar("T")

FAILED: Final = 1
WRONG: Final = 2
DEFAULTS: Final = ConsumeOptions(group="g", gateway="g")
"""Only for its defaults: the two names have none."""

SITE = click.argument("site", type=click.Path(exists=True, dir_okay=False, path_type=Path))


LANE = click.option("--lane", type=click.Choice([lane.value for lane in Lane]), default=Lane.TELEMETRY.value, show_default=True)


LATER: Final = {"demo": ("gateway.demo.demo", "demo")}
"""Commands that are loaded only when they are called: they need the extra ``demo``, and nobody else shall pay for it."""


class _Commands(click.Group):
    def list_commands(self, ctx: click.Context) -> list[str]:
        return sorted([*super().list_commands(ctx), *LATER])

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in LATER:
            return super().get_command(ctx, cmd_name)
        module, name = LATER[cmd_name]
        try:
            command: click.Command = getattr(importlib.import_module(module), name)
        except ModuleNotFoundError as error:
            missing = f"it needs {error.name}: pip install 'holdfast[demo]'"
            return click.Command(cmd_name, callback=lambda: _fail(missing), short_help=f"Not installed: {missing}")
        return command


@click.group(cls=_Commands, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(package_name="holdfast")
def main() -> None:
    """Holdfast: an industrial edge gateway that loses no reading silently."""


@main.command()
@SITE
def run(site: Path) -> None:
    """Run the gateway that SITE describes, until SIGTERM. SIGHUP applies the changed document."""
    document = _loaded(site)
    logs.configure(document.telemetry.log_level, document.telemetry.log_format)
    try:
        _run(serve(document, site))
    except JournalBusy as error:
        _fail(str(error))
    except OSError as error:
        _fail(f"{error}: check the addresses, ports and folders in {site}")


@main.command()
@SITE
def check(site: Path) -> None:
    """Report everything that is wrong in SITE, with path and advice. Touches no network."""
    document, problems = config.load(site)
    if document is not None:
        problems = config.locate([*problems, *config.check(document), *config.check_files(document, site.parent)], site)
    _show(problems)
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
    document = _loaded(site)
    options = next((one for one in document.connections if one.name == connection), None)
    if options is None:
        names = ", ".join(one.name for one in document.connections) or "none"
        _fail(f"no connection is called {connection!r} in {site}; there is: {names}", WRONG)
    report = _run(installed()[options.__struct_config__.tag].probe(options))
    for finding in report.findings:
        click.echo(finding)
    sys.exit(0 if report.ok else FAILED)


@main.group()
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


@main.command()
@click.argument("group")
@click.argument("gateway")
@click.option("--host", default="127.0.0.1", show_default=True, help="The broker.")
@click.option("--port", type=click.IntRange(1, 65535), default=1883, show_default=True)
@click.option("--protocol", type=click.Choice(["3.1.1", "5"]), default="5", show_default=True, help="MQTT version.")
@click.option("--ca-file", type=click.Path(exists=True, dir_okay=False), help="TLS: the authority that signed the broker.")
@click.option("--cert-file", type=click.Path(exists=True, dir_okay=False), help="TLS: this consumer's certificate.")
@click.option("--key-file", type=click.Path(exists=True, dir_okay=False), help="TLS: its key.")
@click.option("--username", default="", help="User name; the password is read from --password-file.")
@click.option("--password-file", type=click.Path(exists=True, dir_okay=False), help="File that holds the password alone.")
@click.option("--ledger-topic", default=DEFAULTS.ledger_topic, show_default=True, help="Topic of the ledger marks.")
@click.option("--plain-topic", default="", help="Also take a plain uplink's messages, on its topic template.")
@click.option("--acknowledge", is_flag=True, help="Confirm what was checked, for an uplink with acknowledge: consumer.")
@click.option("--host-id", default="", help="Be the primary host of this id: a gateway that names it waits until this consumer listens.")
@click.option("--from-beginning", is_flag=True, help="Expect everything from the gateway's first record on.")
@click.option("--for", "for_s", type=click.FloatRange(0), default=0.0, metavar="S", help="End after S seconds; else at Ctrl-C.")
@click.option("--quiet", is_flag=True, help="Print the verdict alone.")
def consume(for_s: float, quiet: bool, **given: Any) -> None:  # Any: click's parameters, one for each option above
    """Receive what GATEWAY of GROUP delivers, check its ledger marks and print NDJSON.

    The last line is the verdict: received, duplicate, missing, lost and by device. Exit code 0 only if nothing is missing.
    """
    logs.configure("warning", "console")
    verdict = _run(_consume(_consume_options(**given), for_s, None if quiet else sys.stdout))
    click.echo(json.dumps({"verdict": msgspec.to_builtins(verdict)}))
    sys.exit(0 if verdict.ok else FAILED)


def _consume_options(
    ca_file: str | None, cert_file: str | None, key_file: str | None, password_file: str | None, **given: Any
) -> ConsumeOptions:  # Any: as above, under the names that ConsumeOptions has
    tls = Tls(ca_file=ca_file or "", cert_file=cert_file or "", key_file=key_file or "") if ca_file or cert_file else None
    return ConsumeOptions(tls=tls, password=FromFile(password_file) if password_file else None, **given)


async def _consume(options: ConsumeOptions, for_s: float, out: IO[str] | None) -> Verdict:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for one in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(one, stop.set)
    if for_s:
        loop.call_later(for_s, stop.set)
    return await consume_gateway(options, out, stop=stop)


def _ask(site: Path, question: questions.Request) -> None:
    """Put ``question`` to the running gateway, or answer it from the journal of a stopped one."""
    options = _loaded(site).journal
    try:
        _run(_print(options, site.parent, question))
    except (control.ControlError, JournalBusy, StorageError) as error:
        _fail(str(error))
    except BrokenPipeError:  # the reader of our output has seen enough
        sys.stderr.close()


async def _print(options: model.JournalOptions, base: Path, question: questions.Request) -> None:
    async with aclosing(_answers(options, base, question)) as answers:
        async for line in answers:
            click.echo(json.dumps(line, ensure_ascii=False))


async def _answers(options: model.JournalOptions, base: Path, question: questions.Request) -> questions.Lines:
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


def _loaded(site: Path) -> model.Site:
    """The document in ``site`` if nothing in it is wrong; otherwise says what is and exits."""
    document, problems = config.judge(site)
    if document is None:
        errors = [problem for problem in problems if problem.severity == "error"]
        _show(errors)
        _fail(f"{site}: {len(errors)} errors; nothing was started", WRONG)
    return document


def _show(problems: list[Problem]) -> None:
    for problem in problems:
        line = f"line {problem.line}: " if isinstance(problem, Located) and problem.line else ""
        click.echo(f"{problem.severity}: {line}{problem.path or 'document'}: {problem.message}", err=True)
        if problem.advice:
            click.echo(f"    {problem.advice}", err=True)


def _fail(text: str, code: int = FAILED) -> NoReturn:
    click.echo(f"holdfast: {text}", err=True)
    sys.exit(code)


def _run(work: Coroutine[Any, Any, T]) -> T:  # Any: what a coroutine is sent and yields is the loop's affair
    return uvloop.run(work)
