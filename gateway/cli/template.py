"""``holdfast template``: what devices are described, what a template says, and whether it fits a live device.

The results of ``try`` go to standard output; with ``--as-device`` that is the block to paste into a site document, and what
was read goes to standard error.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any, Final

import click
import msgspec

from gateway.cli.common import FAILED, WRONG, fail, run_loop, show
from gateway.config.drivers import installed
from protocols.clock import SystemClock
from protocols.contract import DriverError
from protocols.modbus.driver import make_line
from protocols.modbus.frames import EXCEPTIONS, is_exception, read_request
from protocols.modbus.line import Missed
from protocols.model import ScanStats
from protocols.templates.device import answer_of, make
from protocols.templates.library import Library, Unusable, own, sources
from protocols.templates.shape import Row, Template
from protocols.templates.sunspec import Found, SunSpecError, walk
from protocols.templates.trial import Reading, Recognition, attempt

FOLDER: Final = click.option(
    "--folder",
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    help="Your own templates; those beside a site document are in its folder templates.",
)
CONNECTION: Final = "try"
NAME: Final = "device"


@click.group()
def template() -> None:
    """Device templates: products described as data."""


@template.command("list")
@click.argument("word", default="")
@FOLDER
def list_(word: str, folder: Path | None) -> None:
    """List templates; with WORD those in whose name, maker, models or kind it occurs.

    WORD may also be what a device says of itself ("Schneider METSEPM5110 v2"): then the templates of that model.
    """
    library = _library(folder)
    try:
        found = [*library.find(word)] or library.suggested(word)
    except Unusable as error:
        fail(str(error), WRONG)
    if not found:
        fail(f"no template has {word!r} in it: holdfast template list shows all", FAILED)
    width = max(len(one.name) for one in found)
    for one in found:
        maker = f"{one.manufacturer} {', '.join(one.models)}"
        click.echo(f"{one.name:{width}}  {one.kind:12}  {f'{len(one.tags)} tags' if one.tags else 'walked':8}  {maker}")


@template.command("show")
@click.argument("name")
@FOLDER
def show_(name: str, folder: Path | None) -> None:
    """Print what template NAME says: how to connect, questions, tags, sources. YAML."""
    one = _find(name, folder)
    known = sources()
    facts = {
        key: " ".join(filter(None, (known[key].title, known[key].url, where))) if key in known else where
        for key, where in one.sources.items()
    }
    licences = {key: known[key].licence for key in one.sources if key in known}
    said: Row = {
        "name": one.name, "manufacturer": one.manufacturer, "models": [*one.models], "kind": one.kind, "version": one.version,
        "description": one.description, "connection": _short(one.connection), "device": one.device,
        "questions": {key: _short(question) for key, question in one.questions.items()},
        "tags": [_tag(one, tag) for tag in one.tags], "walk": one.walk,
        "identify": [_short(mark) for mark in one.identify], "sources": facts, "licences": licences, "checked": one.checked,
    }  # fmt: skip
    click.echo(_yaml({key: value for key, value in said.items() if value not in ("", [], {})}), nl=False)


@template.command("try")
@click.argument("name")
@FOLDER
@click.option("--host", help="Host of the device, for Modbus TCP.")
@click.option("--port", type=click.IntRange(1, 65535), help="TCP port.  [default: the template's, or 502]")
@click.option("--rtu-over-tcp", is_flag=True, help="The host is a transparent serial server: RTU frames over TCP.")
@click.option("--serial", help="Serial port of the line, for Modbus RTU.")
@click.option("--baud", type=click.IntRange(300, 4_000_000), help="Bits per second.  [default: the template's, or 19200]")
@click.option("--parity", type=click.Choice(["even", "odd", "none"]), help="Parity.  [default: the template's, or even]")
@click.option("--stop-bits", type=click.Choice(["1", "2"]), help="Stop bits.  [default: the template's, or 1]")
@click.option("--unit-id", type=click.IntRange(0, 255), help="Unit id.  [default: the template's, or 1]")
@click.option("--answer", "answers", multiple=True, metavar="KEY=VALUE", help="Answer to one of the template's questions; several times.")
@click.option(
    "--timeout",
    "timeout_s",
    type=click.FloatRange(0.05, 60),
    default=1.0,
    show_default=True,
    help="Longest wait for an answer, in seconds.",
)
@click.option("--within", "within_s", type=click.FloatRange(1, 600), default=60.0, show_default=True, help="Give up after so many seconds.")
@click.option("--as-device", metavar="NAME", help="Print the device block for a site document, called NAME.")
def try_(name: str, folder: Path | None, **given: Any) -> None:  # Any: click's parameters, one for each option above
    """Read every tag of template NAME once from a live device, and say what fits and what does not answer."""
    one = _find(name, folder)
    connection = _connection(one, given)
    device = _device(one, given)
    to_error = bool(given["as_device"])
    try:
        good = run_loop(_try(one, connection, device, given["within_s"], to_error))
    except (DriverError, SunSpecError) as error:
        fail(str(error))
    except msgspec.ValidationError as error:
        fail(f"{name}: the driver refuses what the template says: {error}", WRONG)
    if given["as_device"]:
        click.echo(_block(one, device, given["as_device"]), nl=False)
    sys.exit(0 if good else FAILED)


def _library(folder: Path | None) -> Library:
    return Library([folder]) if folder else own()


def _find(name: str, folder: Path | None) -> Template:
    library = _library(folder)
    try:
        found = _known_template(library, name)
        near = [] if found else [each for each in library.names() if name.rpartition("/")[2] in each]
    except Unusable as error:
        fail(str(error), WRONG)
    return found or fail(
        f"there is no template {name!r}; {f'did you mean {near[0]}?' if near else 'holdfast template list shows all'}", WRONG
    )


def _known_template(library: Library, name: str) -> Template | None:
    try:
        return library[name]
    except KeyError:
        return None


def _connection(one: Template, given: Row) -> Row:
    """The connection that the options describe, with the template's hints where they say nothing."""
    hints = one.connection
    if bool(given["host"]) == bool(given["serial"]):
        usual = " or ".join(hints.protocols)
        fail(f"say where the device is: --host HOST for Modbus TCP, --serial PORT for RTU ({one.name} speaks {usual})", WRONG)
    row: Row = {"name": CONNECTION, "timeout_s": given["timeout_s"]}
    if given["host"]:
        row |= {"type": "modbus-rtu-tcp" if given["rtu_over_tcp"] else "modbus-tcp", "host": given["host"]}
        return row | _known(port=given["port"] or hints.port)
    stop_bits = int(given["stop_bits"]) if given["stop_bits"] else hints.stop_bits
    row |= {"type": "modbus-rtu", "serial_port": given["serial"]}
    return row | _known(baud_rate=given["baud"] or hints.baud_rate, parity=given["parity"] or hints.parity, stop_bits=stop_bits)


def _known(**values: Any) -> Row:  # Any: plain values
    return {key: value for key, value in values.items() if value is not None}


def _device(one: Template, given: Row) -> Row:
    """The device as a site would have it: name, template, answers."""
    row: Row = {"name": given["as_device"] or NAME, "template": one.name} | _known(unit_id=given["unit_id"])
    answers: Row = {}
    for text in given["answers"]:
        key, equals, answer = text.partition("=")
        if not equals:
            fail(f"--answer {text}: write KEY=VALUE", WRONG)
        answers[key] = answer_of(answer, one.questions[key]) if key in one.questions else answer
    if answers:
        row["answers"] = answers
    _, problems = make(one, row)
    if problems:
        show(problems)
        sys.exit(WRONG)
    return row


async def _try(one: Template, connection: Row, device: Row, within_s: float, to_error: bool) -> bool:
    """Whether everything fits and answers. Fills in ``device`` what a walk found."""
    driver, clock = installed()[connection["type"]], SystemClock()
    made, _ = make(one, device)
    if one.walk:
        found = await _walk(one, connection, made)
        _say_walk(found, to_error)
        made = {**made, "tags": found.tags}
        device |= {"tags": found.tags}
    if not made["tags"]:
        click.echo("no tags to read", err=to_error)
        return False
    marks, readings = await attempt(one, connection, made, driver, clock=clock, within_s=within_s)
    for mark in marks:
        _say_mark(mark, to_error)
    return _say_readings(readings, to_error)


async def _walk(one: Template, connection: Row, made: Row) -> Found:
    """Carry out a walk over one connection to the device. Raises a DriverError or SunSpecError."""
    options = msgspec.convert({**connection, "devices": []}, installed()[connection["type"]].options)
    line = make_line(options, ScanStats())  # type: ignore[arg-type]  # one of the Modbus options, by its type
    unit_id = made.get("unit_id", 1)
    steps = walk(one.walk_models)
    try:
        await line.open()
        address, count = next(steps)
        while True:
            pdu = await line.ask(read_request(unit_id, b"\x03" + address.to_bytes(2, "big") + count.to_bytes(2, "big"), 2 * count))
            if is_exception(pdu) and pdu[1] in (10, 11):
                raise SunSpecError(f"unit id {unit_id}: {EXCEPTIONS[pdu[1]]}: check the device's power and unit id")
            words = None if is_exception(pdu) else [int.from_bytes(pdu[at : at + 2], "big") for at in range(2, len(pdu), 2)]
            address, count = steps.send(words)
    except StopIteration as end:
        found: Found = end.value
        return found
    except Missed as miss:
        raise SunSpecError(f"unit id {unit_id}: {miss}: check unit_id, wiring, and on serial lines baud rate and parity") from miss
    finally:
        await line.close()


def _say_walk(found: Found, to_error: bool) -> None:
    for model_id, address, length in found.models:
        click.echo(f"model {model_id} at {address}, {length} registers", err=to_error)
    if found.left_out:
        click.echo(f"not implemented by this device: {', '.join(found.left_out)}", err=to_error)


def _say_mark(recognition: Recognition, to_error: bool) -> None:
    value = recognition.reading.quality.name if recognition.reading.quality.is_bad else _value(recognition.reading)
    click.echo(f"{'fits' if recognition.fits else 'DOES NOT FIT'}: {recognition.mark.means}: {value}", err=to_error)


def _say_readings(readings: list[Reading], to_error: bool) -> bool:
    width = max(len(reading.tag) for reading in readings)
    for reading in readings:
        value = "-" if reading.quality.is_bad else _value(reading)
        quality = "good" if not reading.quality else reading.quality.name.lower().replace("_", " ")
        click.echo(f"{reading.tag:{width}}  {value:>14} {reading.unit:6} {quality}", err=to_error)
    silent = [reading.tag for reading in readings if reading.quality.is_bad]
    count = len(readings)
    click.echo(f"{count - len(silent)} of {count} tags are good" + (f"; not: {', '.join(silent)}" if silent else ""), err=to_error)
    return not silent


def _value(reading: Reading) -> str:
    value = reading.value
    if isinstance(value, bytes):
        return value.hex()
    return f"{value:.7g}" if isinstance(value, float) else ascii(value)[1:-1] if isinstance(value, str) else str(value).lower()


def _block(one: Template, device: Row, name: str) -> str:
    """The block of a site document. A walked device is written out: the site touches no network when it is read."""
    if not one.walk:
        return _yaml([{"name": name, **{key: value for key, value in device.items() if key != "name"}}])
    row = {key: value for key, value in device.items() if key not in ("name", "template", "answers")}
    made, _ = make(one, device)
    return _yaml([{"name": name, **{key: value for key, value in made.items() if key not in ("name", "tags")}, **row}])


def _tag(one: Template, tag: Any) -> Row:  # Any: a TemplateTag, as builtins
    row: Row = {"name": tag.name, **tag.options}
    if one.groups[tag.group]:
        row["scan_s"] = one.groups[tag.group]
    return row | {key: value for key, value in (("when", tag.when), ("times", tag.times), ("shift", tag.shift)) if value}


def _short(struct: msgspec.Struct) -> Row:
    """What differs from the defaults."""
    plain = {field.name: getattr(struct, field.name) for field in msgspec.structs.fields(struct)}
    return {key: value for key, value in plain.items() if value not in (None, "", (), {}, [])}


def _yaml(value: Any) -> str:  # Any: JSON
    return msgspec.yaml.encode(value).decode()
