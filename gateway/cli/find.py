"""``holdfast find-number``: which registers hold the number that a device's display shows."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Final

import click
import msgspec

from gateway.cli.asking import asker_of, modbus_of, own_line
from gateway.cli.common import FAILED, WRONG, fail, run_loop
from gateway.cli.stopping import until_stopped
from gateway.telemetry import logs
from protocols.clock import SystemClock
from protocols.contract import DriverError
from protocols.modbus.address import Impossible, Table, parse
from protocols.modbus.config import AnyConnection, ModbusRtu, ModbusRtuTcp, ModbusTcp
from protocols.modbus.find import ADDRESSES, TABLES, Match, NotANumber, Shown, Window, narrow, places, search, shown, tag_line, wider
from protocols.modbus.line import Missed
from protocols.modbus.question import Asker
from protocols.modbus.scan import Pace, Paced, Spent
from protocols.modbus.window import Survey
from protocols.templates.library import own
from protocols.templates.shape import Row

MAX_KEPT: Final = 16 * 1024**2
AGAIN_REQUESTS: Final = 500
MOST_TEMPLATES: Final = 8


class _Kept(msgspec.Struct, frozen=True):
    """What one run found, for the next to narrow down."""

    target: str
    reading: Shown
    matches: list[Match]


@click.command("find-number")
@click.argument("given", nargs=-1, metavar="[SITE CONNECTION] [SHOWN]")
@click.option("--host", help="Modbus TCP, without a site document: the device's address.")
@click.option("--port", type=click.IntRange(1, 65535), default=502, show_default=True)
@click.option("--rtu", is_flag=True, help="With --host: RTU frames over TCP, as transparent serial servers carry them.")
@click.option("--serial", "serial_port", help="RTU, without a site document: the serial port.")
@click.option("--baud", type=click.IntRange(300, 4_000_000), default=9600, show_default=True)
@click.option("--parity", type=click.Choice(["none", "even", "odd"]), default="none", show_default=True)
@click.option("--stop-bits", type=click.IntRange(1, 2), default=1, show_default=True)
@click.option("--unit-id", "unit_id", type=click.IntRange(1, 255), help="Unit id.  [default: the connection's only device, else 1]")
@click.option("--table", type=click.Choice([str(table) for table in TABLES]), help="Look in one table alone.  [default: both]")
@click.option("--first", type=click.IntRange(0, ADDRESSES - 1), default=0, show_default=True, help="First register.")
@click.option("--last", type=click.IntRange(0, ADDRESSES - 1), default=ADDRESSES - 1, show_default=True, help="Last register.")
@click.option(
    "--for", "for_s", type=click.FloatRange(1, 86_400), default=60.0, show_default=True, metavar="S", help="Read for so long at most."
)
@click.option("--requests", type=click.IntRange(1, 1_000_000), default=5000, show_default=True, help="Ask so often at most.")
@click.option(
    "--pause", "pause_s", type=click.FloatRange(0, 60), default=0.0, show_default=True, metavar="S", help="Pause between requests."
)
@click.option(
    "--timeout", "timeout_s", type=click.FloatRange(0.05, 60), default=1.0, show_default=True, metavar="S", help="Wait for an answer."
)
@click.option(
    "--drift", type=click.FloatRange(0, 20), default=1.0, show_default=True, metavar="%", help="The value may have moved so far meanwhile."
)
@click.option("--keep", type=click.Path(dir_okay=False, path_type=Path), help="File that keeps what was found, for --and.")
@click.option("--and", "later", metavar="SHOWN", help="What the display shows now: narrows down what --keep kept.")
@click.option("--ask/--no-ask", default=None, help="Ask for further readings of the display.  [default: on a terminal]")
@click.option("--name", default="value", show_default=True, help="Name of the tag in the lines to paste.")
@click.option("--show", type=click.IntRange(1, 10_000), default=10, show_default=True, help="How many to print.")
@click.option("--json", "as_json", is_flag=True, help="Print each as a line of JSON.")
def find_number(given: tuple[str, ...], **options: Any) -> None:  # Any: click's parameters, one for each option above
    """Find where a device keeps the number that its display SHOWN shows, such as 230.4 or "1.234 kWh".

    Reads holding and input registers, and lists the addresses, kinds, orders and scales that give the number, the likeliest
    first, as tag lines to paste. A second reading, when the display shows something else, throws out what fits by chance.
    """
    logs.configure("warning", "console")
    place, words = _place(given, options)
    if options["later"] is not None and options["keep"] is None:
        fail("--and narrows down what --keep FILE kept: name the file", WRONG)
    if options["first"] > options["last"]:
        fail("--first lies behind --last", WRONG)
    try:
        reading = shown(options["later"] if options["later"] is not None else words)
    except NotANumber as error:
        fail(str(error), WRONG)
    search_ = _Search(options, place.target, reading)
    try:
        run_loop(until_stopped(search_.run(place)))
    except Spent as error:
        click.echo(str(error), err=True)
    except (DriverError, Missed) as error:
        fail(str(error))
    sys.exit(0 if search_.matches else FAILED)


class _Place(msgspec.Struct, frozen=True):
    """Where the device is."""

    connection: Any  # Any: an AnyConnection; msgspec would look into unions of tagged Structs
    unit_id: int
    site: tuple[Any, Path] | None = None  # Any: the document, where one was named

    @property
    def target(self) -> str:
        options: AnyConnection = self.connection
        where = options.serial_port if isinstance(options, ModbusRtu) else f"{options.host}:{options.port}"
        return f"unit id {self.unit_id} on {where}"

    @asynccontextmanager
    async def asker(self) -> AsyncIterator[Asker]:
        if self.site is not None:
            async with asker_of(*self.site, self.connection) as asker:
                yield asker
        else:
            async with own_line(self.connection) as line:
                yield line


def _place(given: tuple[str, ...], options: dict[str, Any]) -> tuple[_Place, str]:  # Any: as above
    """Where to look, and what the display shows; exits where the arguments do not say."""
    wanted = 0 if options["later"] is not None else 1
    if options["host"] or options["serial_port"]:
        if len(given) != wanted or (options["host"] and options["serial_port"]):
            fail("with --host or --serial, give what the display SHOWN shows alone (and with --and, nothing)", WRONG)
        return _Place(_direct(options), options["unit_id"] or 1), given[0] if given else ""
    if len(given) != 2 + wanted:
        fail("give SITE CONNECTION SHOWN, or --host or --serial and SHOWN", WRONG)
    site = Path(given[0])
    if not site.is_file():
        fail(f"{site}: there is no such document", WRONG)
    document, connection = modbus_of(site, given[1])
    units = sorted({device.unit_id for device in connection.devices})
    unit_id = options["unit_id"] or (units[0] if len(units) == 1 else 0 if units else 1)
    if not unit_id:
        fail(f"{connection.name} has the unit ids {', '.join(map(str, units))}: say which with --unit-id", WRONG)
    return _Place(connection, unit_id, (document, site)), given[2] if wanted else ""


def _direct(options: dict[str, Any]) -> AnyConnection:  # Any: as above
    common = {"name": "direct", "timeout_s": options["timeout_s"], "settle_s": min(0.1, options["timeout_s"])}
    if options["host"]:
        kind = ModbusRtuTcp if options["rtu"] else ModbusTcp
        return kind(host=options["host"], port=options["port"], **common)
    return ModbusRtu(
        serial_port=options["serial_port"], baud_rate=options["baud"], parity=options["parity"], stop_bits=options["stop_bits"], **common
    )


class _Search:
    """One run: read, search, narrow down, print."""

    def __init__(self, options: dict[str, Any], target: str, reading: Shown) -> None:  # Any: as above
        self._options, self._target, self._reading = options, target, reading
        self._drift = options["drift"] / 100
        self.matches: list[Match] = []
        self._window = Window()

    async def run(self, place: _Place) -> None:
        options, clock = self._options, SystemClock()
        async with place.asker() as asker:
            pace = Pace(clock, for_s=options["for_s"], requests=options["requests"], pause_s=options["pause_s"])
            survey = Survey(Paced(asker, pace), place.unit_id, _progress())
            if options["later"] is None:
                await self._first(survey)
            else:
                await self._later(survey, self._kept())
            self._tell()
            while self.matches and self._asks() and (reading := await _typed()) is not None:
                again = Pace(clock, for_s=options["for_s"], requests=AGAIN_REQUESTS, pause_s=options["pause_s"])
                survey.through(Paced(asker, again))
                await self._later(survey, _Kept(self._target, self._reading, self.matches), reading)
                self._tell()

    def _asks(self) -> bool:
        return sys.stdin.isatty() if self._options["ask"] is None else bool(self._options["ask"])

    async def _first(self, survey: Survey) -> None:
        tables = TABLES if self._options["table"] is None else (Table(self._options["table"]),)
        self._window = await survey.read(self._options["first"], self._options["last"], tables)
        if survey.spent:
            click.echo(f"not everything was read: {survey.spent}", err=True)
        click.echo(f"{self._target}: {self._window.count()} registers read", err=True)
        self.matches = await asyncio.to_thread(search, self._window, self._reading, drift=self._drift)
        self._save()

    async def _later(self, survey: Survey, kept: _Kept, reading: Shown | None = None) -> None:
        reading = reading or self._reading
        self._reading = msgspec.structs.replace(reading, unit=reading.unit or kept.reading.unit)
        self._window = await survey.again(places(kept.matches))
        self.matches = await asyncio.to_thread(narrow, kept.matches, self._window, kept.reading, self._reading, drift=self._drift)
        self._save()

    def _save(self) -> None:
        keep: Path | None = self._options["keep"]
        if keep is not None and self.matches:
            keep.write_bytes(msgspec.json.encode(_Kept(self._target, self._reading, self.matches)))

    def _kept(self) -> _Kept:
        keep: Path = self._options["keep"]
        try:
            with keep.open("rb") as file:
                kept = msgspec.json.decode(file.read(MAX_KEPT), type=_Kept)
        except (OSError, ValueError) as error:
            fail(f"{keep} cannot be used ({error}): make it with --keep and what the display shows first", WRONG)
        if kept.target != self._target:
            fail(f"{keep} is about {kept.target}, not {self._target}", WRONG)
        return kept

    def _tell(self) -> None:
        if not self.matches:
            advice = "type another value of the display, or allow more with --drift; totals are often in Wh where the display shows kWh"
            click.echo(f"nothing in {self._target} gives {self._reading.value:.10g}: {advice}", err=True)
            return
        for match in self.matches[: self._options["show"]]:
            click.echo(self._line(match))
        if known := described(self.matches[0], self._reading.unit):
            names = ", ".join(f"{name} ({tag})" for name, tag in known[:MOST_TEMPLATES]) + (", ..." if len(known) > MOST_TEMPLATES else "")
            click.echo(f"the first is described in templates: {names}: see whether one fits with holdfast template try NAME", err=True)
        if (more := len(self.matches) - self._options["show"]) > 0:
            click.echo(f"and {more} less likely ones: give a second reading to narrow them down", err=True)

    def _line(self, match: Match) -> str:
        paste = tag_line(match, self._options["name"], self._reading.unit)
        if self._options["as_json"]:
            fields = {
                "at": match.at,
                "form": match.form,
                "power": match.power,
                "value": match.value,
                "exact": match.exact,
                "cost": match.cost,
            }
            return msgspec.json.encode({**fields, "tag": paste}).decode()
        near = "" if match.exact else " (near)"
        beside = wider(match, self._window)
        note = f"  # or {beside.at}, uint32, if it counts up" if beside else ""
        return f"{paste}{note}  # now {match.value:.10g}{near}"


def described(match: Match, unit: str) -> list[tuple[str, str]]:
    """Templates that have a tag of this kind (and of this unit, where one was typed) at this place, each with the tag's name."""
    return [
        (template.name, tag.name)
        for template in own().find()
        for tag in template.tags
        if _is_there(tag.options, template.device, match) and unit in ("", tag.options.get("unit", ""))
    ]


def _is_there(tag: Row, device: Row, match: Match) -> bool:
    order = tag.get("word_order", device.get("word_order", "big"))
    if tag.get("kind") != match.form.kind or order != match.form.word_order:
        return False
    try:
        place = parse(tag["at"], device.get("address_base", 0))
    except (Impossible, KeyError):  # a template of another protocol
        return False
    return (place.table, place.number, place.bit) == (match.table, match.number, None)


def _progress() -> Any:  # Any: a function that takes a line
    """Shows progress on a terminal; elsewhere it would only fill a log."""
    if not sys.stderr.isatty():
        return lambda text: None
    return lambda text: click.echo(f"\r\x1b[K{text[:100]}\r", err=True, nl=False)


async def _typed() -> Shown | None:
    """A further reading of the display; None at the end of input, or where nothing is typed."""
    while True:
        click.echo("what does the display show now? (Enter ends) ", err=True, nl=False)
        text = (await asyncio.to_thread(sys.stdin.readline)).strip()
        if not text:
            return None
        try:
            return shown(text)
        except NotANumber as error:
            click.echo(str(error), err=True)
