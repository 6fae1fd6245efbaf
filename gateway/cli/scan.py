"""``holdfast scan``: what answers, on a line, behind an address, on a network, and how it would be written in a site document."""

from __future__ import annotations

import asyncio
import ipaddress
import json
import sys
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import aclosing
from pathlib import Path
from typing import Any, Final

import click
import msgspec
import yaml

from gateway.cli.asking import asker_of, modbus_of, own_line
from gateway.cli.common import FAILED, WRONG, fail, run_loop
from gateway.cli.stopping import until_stopped
from gateway.telemetry import logs
from protocols.clock import SystemClock
from protocols.contract import Candidate, DriverError
from protocols.discover import coap, mdns, opcua
from protocols.modbus.config import ModbusRtu, ModbusRtuTcp, ModbusTcp
from protocols.modbus.line import Missed
from protocols.modbus.scan import LIKELY_UNITS, SETTINGS, Pace, Paced, Setting, Spent, Told, serial, units
from protocols.templates.library import own

Found = AsyncGenerator[Candidate, None]

MOST_HOSTS: Final = 1024
"""Addresses of one network scan: a plant's networks are smaller, and larger ones are somebody else's."""
HOSTS_AT_ONCE: Final = 8
MOST_TEMPLATES: Final = 3
SETTLE_S: Final = 0.05
"""Silence after a unit id that did not answer: there is nothing to wait out where nobody lives."""

FOR = click.option(
    "--for", "for_s", type=click.FloatRange(0.1, 86_400), default=300.0, show_default=True, metavar="S", help="End after S seconds."
)
REQUESTS = click.option("--requests", type=click.IntRange(1, 1_000_000), default=2000, show_default=True, help="Ask so often at most.")
PAUSE = click.option(
    "--pause", "pause_s", type=click.FloatRange(0, 60), default=0.02, show_default=True, metavar="S", help="Pause between requests."
)
UNITS = click.option("--unit-ids", "units", default="1-247", show_default=True, help="Unit ids, such as 1-10,20.")
JSON = click.option("--json", "as_json", is_flag=True, help="Print each as a line of JSON.")


def _timeout(default: float) -> Callable[[Any], Any]:  # Any: click's decorators
    return click.option(
        "--timeout",
        "timeout_s",
        type=click.FloatRange(0.02, 60),
        default=default,
        show_default=True,
        metavar="S",
        help="Wait for an answer.",
    )


@click.group()
def scan() -> None:
    """Find what answers: Modbus unit ids and serial settings, OPC UA, CoAP, mDNS. Reads only.

    Results come as they are found, and at the end as connections to paste. Ctrl-C ends a scan and keeps what it found.
    """
    logs.configure("warning", "console")


@scan.command()
@click.argument("host", metavar="HOST[:PORT]")
@click.option("--port", type=click.IntRange(1, 65535), default=502, show_default=True)
@click.option("--rtu", is_flag=True, help="RTU frames over TCP, as transparent serial servers carry them.")
@UNITS
@FOR
@REQUESTS
@PAUSE
@_timeout(0.5)
@JSON
def tcp(host: str, port: int, rtu: bool, units: str, as_json: bool, timeout_s: float, **pace: Any) -> None:  # Any: click's
    """Which unit ids answer at HOST by Modbus TCP."""
    host, port = _host_and_port(host, port)
    kind = ModbusRtuTcp if rtu else ModbusTcp
    options = kind(name=_name(f"modbus-{host}"), host=host, port=port, timeout_s=timeout_s, settle_s=SETTLE_S)
    _run(Report(as_json=as_json), _tcp(options, _unit_ids(units), _pace(**pace), _progress()))


@scan.command("serial")
@click.argument("port", metavar="PORT")
@click.option(
    "--baud", multiple=True, type=click.IntRange(300, 4_000_000), help="Baud rates to try; may be given again.  [default: the usual]"
)
@click.option("--parity", multiple=True, type=click.Choice(["none", "even", "odd"]), help="Parities to try; may be given again.")
@UNITS
@FOR
@REQUESTS
@PAUSE
@_timeout(0.2)
@JSON
def serial_line(
    port: str, baud: tuple[int, ...], parity: tuple[str, ...], units: str, as_json: bool, timeout_s: float, **pace: Any
) -> None:  # Any: click's
    """How the serial line at PORT is set, and which unit ids answer on it. The likeliest settings are tried first."""
    settings = [
        setting for setting in _settings(baud) if (not baud or setting.baud_rate in baud) and (not parity or setting.parity in parity)
    ]
    options = ModbusRtu(name="line", serial_port=port, timeout_s=timeout_s, settle_s=SETTLE_S)
    _run(Report(as_json=as_json), serial(options, settings, _unit_ids(units), _pace(**pace), _progress()))


@scan.command()
@click.argument("site", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.argument("connection")
@UNITS
@FOR
@REQUESTS
@PAUSE
@JSON
def connection(site: Path, connection: str, units: str, as_json: bool, **pace: Any) -> None:  # Any: click's
    """Which unit ids answer on CONNECTION of SITE. A running gateway asks between its own scans.

    Each unit id that does not answer costs the connection its timeout_s, for the devices that are read there too.
    """
    document, options = modbus_of(site, connection)

    async def find() -> Found:
        async with asker_of(document, site, options) as asker:
            where = options.serial_port if isinstance(options, ModbusRtu) else f"{options.host}:{options.port}"
            paced = Paced(asker, _pace(**pace))
            async with aclosing(_units(paced, where, _unit_ids(units), not isinstance(options, ModbusRtu))) as candidates:
                async for candidate in candidates:
                    yield candidate

    _run(Report(as_json=as_json), find())


@scan.command()
@click.argument("network", metavar="CIDR")
@click.option("--port", type=click.IntRange(1, 65535), default=502, show_default=True)
@click.option(
    "--unit-ids", "units", default=",".join(map(str, LIKELY_UNITS[:3])), show_default=True, help="Unit ids to ask at each address."
)
@click.option("--hosts", type=click.IntRange(1, MOST_HOSTS), default=256, show_default=True, help="Refuse a network of more addresses.")
@click.option("--rate", type=click.FloatRange(0.1, 200), default=20.0, show_default=True, help="Addresses a second at most.")
@FOR
@_timeout(0.5)
@JSON
def network(network: str, port: int, units: str, hosts: int, rate: float, for_s: float, timeout_s: float, as_json: bool) -> None:
    """Which addresses of the network CIDR, such as 192.0.2.0/28, speak Modbus TCP. Ask whoever runs that network first."""
    try:
        addresses = ipaddress.ip_network(network, strict=False)
    except ValueError as error:
        fail(f"{error}: write a network as 192.0.2.0/28", WRONG)
    if addresses.num_addresses > hosts:
        fail(f"{addresses} has {addresses.num_addresses} addresses, more than --hosts {hosts}: scan a part of it", WRONG)
    wanted = [str(address) for address in (addresses.hosts() if addresses.num_addresses > 2 else addresses)]
    _run(Report(as_json=as_json), _network(wanted, port, _unit_ids(units), rate, for_s, timeout_s))


@scan.command("opcua")
@click.argument("hosts", nargs=-1, required=True, metavar="HOST[:PORT]...")
@_timeout(5.0)
@JSON
def opc_ua(hosts: tuple[str, ...], timeout_s: float, as_json: bool) -> None:
    """Which endpoints the OPC UA servers at HOST offer, and with which security."""

    async def ask(host: str, port: int) -> list[Candidate]:
        return await opcua.endpoints(host, port, timeout_s=timeout_s, time_ns=SystemClock().time_ns())

    _run(Report(as_json=as_json), _each(hosts, opcua.PORT, ask))


@scan.command("coap")
@click.argument("hosts", nargs=-1, required=True, metavar="HOST[:PORT]...")
@_timeout(5.0)
@JSON
def coap_hosts(hosts: tuple[str, ...], timeout_s: float, as_json: bool) -> None:
    """Which resources the CoAP hosts at HOST list in /.well-known/core."""

    async def ask(host: str, port: int) -> list[Candidate]:
        return await coap.resources(host, port, timeout_s=timeout_s)

    _run(Report(as_json=as_json), _each(hosts, coap.PORT, ask))


@scan.command("mdns")
@click.option("--for", "for_s", type=click.FloatRange(0.5, 3600), default=5.0, show_default=True, metavar="S", help="Listen for S seconds.")
@click.option("--interface", "interfaces", multiple=True, help="Our address on a network to listen on; may be given again.  [default: all]")
@JSON
def announced(for_s: float, interfaces: tuple[str, ...], as_json: bool) -> None:
    """What announces itself on the local network: OPC UA, Modbus, CoAP, MQTT, HTTP."""
    _run(Report(as_json=as_json), mdns.announced(SystemClock(), for_s, interfaces))


# --------------------------------------------------------------------------------------------------------------- reporting


class Report:
    """What was found: each at once, and at the end as connections to paste."""

    def __init__(self, *, as_json: bool) -> None:
        self._as_json = as_json
        self.found: list[Candidate] = []

    def take(self, candidate: Candidate) -> None:
        self.found.append(candidate)
        names = [template.name for template in own().suggested(candidate.detail, MOST_TEMPLATES)] if candidate.detail else []
        if self._as_json:
            click.echo(json.dumps({**msgspec.to_builtins(candidate), "templates": names}, ensure_ascii=False))
        else:
            click.echo(candidate.where + (f": {candidate.detail}" if candidate.detail else ""))
            click.echo("".join(f"    described in the template {name}\n" for name in names), nl=False)

    def end(self) -> None:
        blocks = connections([candidate.options for candidate in self.found if candidate.options])
        if blocks and not self._as_json:
            click.echo("\n# paste what fits under connections: of the site document, and name it as you like")
            click.echo(yaml.safe_dump(blocks, sort_keys=False, allow_unicode=True, width=200).rstrip())


def connections(options: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:  # Any: JSON
    """The options of candidates as connections: one for each way, with all devices that were found behind it."""
    ways: dict[str, dict[str, Any]] = {}
    for each in options:
        way = {key: value for key, value in each.items() if key != "devices"}
        block = ways.setdefault(json.dumps(way, sort_keys=True), {"name": _called(each), **way} if way else {})
        block.setdefault("devices", []).extend(each.get("devices", []))
    for block in ways.values():
        block["devices"] = _merged(block["devices"])
        if not block["devices"]:
            del block["devices"]
    return list(ways.values())


def _merged(devices: list[dict[str, Any]]) -> list[dict[str, Any]]:  # Any: JSON
    """Devices of the same name are one, with the resources of all."""
    merged: dict[str, dict[str, Any]] = {}
    for device in devices:
        known = merged.setdefault(device["name"], {**device, **({"resources": []} if "resources" in device else {})})
        known.get("resources", []).extend(device.get("resources", []))
    return list(merged.values())


def _called(options: dict[str, Any]) -> str:  # Any: JSON
    where = str(options.get("host") or options.get("serial_port") or options.get("endpoint") or "local")
    return _name(f"{options['type']}-{where.removeprefix('opc.tcp://').removeprefix('/dev/')}")


def _name(text: str) -> str:
    """``text`` as a name of a connection may be written."""
    return "".join(character if character.isascii() and (character.isalnum() or character in "_.-") else "-" for character in text)[:64]


def _run(report: Report, found: Found) -> None:
    """Report candidates as they come, whatever ends the scan."""
    trouble = ""

    async def work() -> None:
        async with aclosing(found):
            async for candidate in found:
                report.take(candidate)

    try:
        run_loop(until_stopped(work()))
    except Spent as error:
        click.echo(f"the scan ended before everything was asked: {error}", err=True)
    except (DriverError, Missed) as error:
        trouble = str(error)
    report.end()
    if trouble:
        fail(trouble)
    if not report.found:
        click.echo("nothing answered", err=True)
    sys.exit(0 if report.found else FAILED)


def _progress() -> Told:
    """Shows progress on a terminal; elsewhere it would only fill a log."""
    if not sys.stderr.isatty():
        return lambda text: None
    return lambda text: click.echo(f"\r\x1b[K{text[:100]}\r", err=True, nl=False)


# ----------------------------------------------------------------------------------------------------------------- asking


def _pace(for_s: float, requests: int, pause_s: float) -> Pace:
    return Pace(SystemClock(), for_s=for_s, requests=requests, pause_s=pause_s)


def _unit_ids(text: str) -> list[int]:
    """``1-10,20`` as a list, each once, in the order given; exits where it is something else."""
    found: dict[int, None] = {}
    try:
        for part in text.split(","):
            first, _, last = part.strip().partition("-")
            found |= dict.fromkeys(range(int(first), int(last or first) + 1))
    except ValueError:
        fail(f"{text!r} are no unit ids: write them as 1-10,20", WRONG)
    if not found or min(found) < 1 or max(found) > 255:
        fail(f"{text!r}: unit ids run from 1 to 255; 0 would speak to all devices at once", WRONG)
    return list(found)


def _settings(baud: tuple[int, ...]) -> list[Setting]:
    """The usual settings, and those of baud rates that are not usual."""
    usual = {setting.baud_rate for setting in SETTINGS}
    return [*SETTINGS, *(Setting(rate, parity, 1) for rate in baud if rate not in usual for parity in ("none", "even", "odd"))]


async def _tcp(options: ModbusTcp | ModbusRtuTcp, unit_ids: list[int], pace: Pace, told: Told) -> Found:
    async with own_line(options) as line:
        way = {"type": options.__struct_config__.tag, "host": options.host, "port": options.port}
        found = units(Paced(line, pace), f"{options.host}:{options.port}", way, unit_ids, told, is_network=True)
        async with aclosing(found):
            async for candidate in found:
                yield candidate


def _units(asker: Paced, where: str, unit_ids: list[int], is_network: bool) -> Found:
    """Without the way, which the document has already."""
    return units(asker, where, {}, unit_ids, _progress(), is_network=is_network)


async def _network(hosts: list[str], port: int, unit_ids: list[int], rate: float, for_s: float, timeout_s: float) -> Found:
    """One address after the other is begun, at ``rate`` a second; a few are waited for at once."""
    clock = SystemClock()
    end = clock.monotonic() + for_s
    results: asyncio.Queue[Candidate] = asyncio.Queue()
    room = asyncio.Semaphore(HOSTS_AT_ONCE)

    async def look(host: str) -> None:
        async with room:
            options = ModbusTcp(
                name="host", host=host, port=port, timeout_s=timeout_s, connect_timeout_s=max(0.1, timeout_s), settle_s=SETTLE_S
            )
            pace = Pace(clock, for_s=max(0.1, end - clock.monotonic()), requests=100, pause_s=0.02)
            try:
                async with aclosing(_tcp(options, unit_ids, pace, lambda text: None)) as found:
                    async for candidate in found:
                        results.put_nowait(candidate)
            except (DriverError, Spent):  # nobody is there, or something else: that is what a scan is for
                return

    async def look_at_all() -> None:
        async with asyncio.TaskGroup() as tasks:
            for host in hosts:
                if clock.monotonic() >= end:
                    return
                tasks.create_task(look(host))
                await clock.sleep_until(clock.monotonic() + 1 / rate)

    looking = asyncio.ensure_future(look_at_all())
    try:
        while not (looking.done() and results.empty()):
            waiting = asyncio.ensure_future(results.get())
            await asyncio.wait((looking, waiting), return_when=asyncio.FIRST_COMPLETED)
            if waiting.done():
                yield waiting.result()
            else:
                waiting.cancel()
        await looking
        if clock.monotonic() >= end:
            raise Spent(f"{for_s:g} s are over: give more with --for")
    finally:
        looking.cancel()
        await asyncio.wait((looking,))


async def _each(hosts: Sequence[str], port: int, ask: Callable[[str, int], Any]) -> Found:  # Any: an awaitable list of candidates
    """Ask one host after the other; what one refuses does not hide the others."""
    for each in hosts:
        host, at = _host_and_port(each, port)
        try:
            for candidate in await ask(host, at):
                yield candidate
        except DriverError as error:
            click.echo(str(error), err=True)


def _host_and_port(text: str, port: int) -> tuple[str, int]:
    """``host``, ``host:4840``, ``[2001:db8::1]:4840``."""
    if text.startswith("["):
        host, _, rest = text[1:].partition("]")
        number = rest.removeprefix(":")
    else:
        host, _, number = text.partition(":") if text.count(":") == 1 else (text, "", "")
    if not host or (number and not (number.isdecimal() and 0 < int(number) < 65536)):
        fail(f"{text!r} is no HOST or HOST:PORT", WRONG)
    return host, int(number) if number else port
