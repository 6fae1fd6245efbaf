"""``holdfast consume``: receive what a gateway delivers, as a cloud would."""

from __future__ import annotations

import asyncio
import json
import signal
import sys
from typing import IO, Any, Final

import click
import msgspec

from gateway.cli.common import FAILED, run_loop
from gateway.consume import ConsumeOptions, Verdict
from gateway.consume import consume as consume_gateway
from gateway.telemetry import logs
from protocols.secret import FromFile
from protocols.tls import Tls

DEFAULTS: Final = ConsumeOptions(group="g", gateway="g")
"""Only for its defaults: the two names have none."""


@click.command()
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
    verdict = run_loop(_consume(_consume_options(**given), for_s, None if quiet else sys.stdout))
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
