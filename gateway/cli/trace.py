"""``holdfast trace``: what passes on a connection, frame by frame: shown, kept for Wireshark, and played again."""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import AsyncGenerator
from contextlib import aclosing
from datetime import UTC, datetime
from pathlib import Path
from typing import IO, Any, Final

import click
import msgspec

from gateway import control, questions, wires
from gateway.cli.asking import connection_of, journal_folder, runs
from gateway.cli.common import WRONG, fail, loaded, run_loop
from gateway.cli.stopping import until_stopped
from gateway.config import model
from gateway.config.drivers import installed
from gateway.connections import Connection
from gateway.links import Status
from gateway.tasks import cancel
from gateway.telemetry import logs
from protocols.clock import SystemClock
from protocols.modbus.config import ModbusRtu, ModbusRtuTcp
from protocols.modbus.trace import RTU_PORT, TCP_PORT, Teller, are_rtu
from protocols.modbus.trace_replay import Recording, recording, serving
from protocols.model import Batch
from protocols.trace import pcapng
from protocols.trace.ring import MAX_FOR_S, Frame

FOREVER_S: Final = 1e9


@click.command()
@click.argument("site", required=False, type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.argument("connection", required=False)
@click.option(
    "--for", "for_s", type=click.FloatRange(0.1, MAX_FOR_S), metavar="S", help="End after S seconds.  [default: 60; a replay: none]"
)
@click.option(
    "--until", type=click.Choice(["trouble"]), help="Wait for a time-out, a broken frame or an exception; give what was around it."
)
@click.option("--out", type=click.Path(dir_okay=False, path_type=Path), help="Write a pcapng file, for Wireshark and for --replay.")
@click.option("--json", "as_json", is_flag=True, help="Print frames as JSON, one a line.")
@click.option("--show", type=click.Path(exists=True, dir_okay=False, path_type=Path), help="Print what a file holds, instead.")
@click.option("--replay", type=click.Path(exists=True, dir_okay=False, path_type=Path), help="Answer as the device in a file did, instead.")
@click.option("--port", type=click.IntRange(0, 65535), default=0, help="Replay: the TCP port on 127.0.0.1.  [default: a free one]")
@click.option("--rtu", is_flag=True, help="Replay: serve RTU frames over TCP instead of Modbus TCP.")
def trace(site: Path | None, connection: str | None, **given: Any) -> None:  # Any: click's parameters, one for each option above
    """Record what passes on CONNECTION of SITE, and print each frame with its meaning.

    The running gateway records its own connection; where none runs, the connection is opened and scanned here. With --until
    trouble the newest frames are kept in memory, and given when trouble comes: exit code 1 says that none came.
    """
    logs.configure("warning", "console")
    for_s: float | None = given["for_s"]
    if given["replay"]:
        run_loop(until_stopped(_serve(_recording(given["replay"]), given["port"], for_s or FOREVER_S, as_rtu=given["rtu"])))
    elif given["show"]:
        _print_file(given["show"], as_json=given["as_json"])
    elif site is None or connection is None:
        fail("name SITE and CONNECTION, or a file with --show or --replay", WRONG)
    else:
        document = loaded(site)
        options = connection_of(document, site, connection)
        question = questions.Trace(connection=connection, seconds=for_s or 60.0, until_trouble=given["until"] is not None)
        sink = _Sink(options, given["out"], as_json=given["as_json"])
        try:
            run_loop(until_stopped(_record(document, site, options, question, sink)))
        except (control.ControlError, wires.CannotLook) as error:
            fail(str(error))
        finally:
            sink.close()
        sys.exit(1 if question.until_trouble and not sink.trouble else 0)


class _Sink:
    """Where frames go: lines on standard output, and a file."""

    def __init__(self, options: Any, out: Path | None, *, as_json: bool) -> None:  # Any: the driver's own Struct
        is_rtu = isinstance(options, ModbusRtu | ModbusRtuTcp)
        self._as_json, self._teller = as_json, Teller(is_rtu=is_rtu)
        self._file: IO[bytes] | None = None
        self._size = 0
        self.trouble = ""
        self.is_full = False
        self._out, self._hint = out, f"tshark -r {out} -d tcp.port=={RTU_PORT},mbrtu" if is_rtu else f"tshark -r {out}"
        if out is not None:
            try:
                self._file = out.open("xb")
            except FileExistsError:
                fail(f"{out} is there already: name a new file, so that no trace is lost", WRONG)
            except OSError as error:
                fail(f"{out} cannot be written ({error.strerror}): name another place", WRONG)
            self._writer = pcapng.Writer(options.name, RTU_PORT if is_rtu else TCP_PORT)
            self._keep(self._writer.head)

    def take(self, line: dict[str, Any]) -> None:  # Any: JSON
        """One line of an answer to ``questions.Trace``."""
        self.trouble = line.get("trouble") or self.trouble
        if "frame" in line:
            self._frame(msgspec.convert(line["frame"], Frame))
        elif "recorded" in line:
            lost = f"; {line['overwritten']} more went by too fast and were overwritten" if line["overwritten"] else ""
            click.echo(f"{line['recorded']} frames{lost}" + (f"; first trouble: {line['trouble']}" if line["trouble"] else ""), err=True)

    def _frame(self, frame: Frame) -> None:
        self.trouble = self.trouble or frame.trouble
        click.echo(_line(frame, self._teller, as_json=self._as_json))
        if self._file is not None:
            self._keep(self._writer.frame(frame))

    def _keep(self, content: bytes) -> None:
        assert self._file is not None
        if self._size + len(content) > pcapng.MAX_FILE:
            self.is_full = True
            return
        self._file.write(content)
        self._size += len(content)

    def close(self) -> None:
        if self._file is not None:
            self._file.close()
            click.echo(f"written to {self._out}; look at it with Wireshark, or: {self._hint}", err=True)


def _line(frame: Frame, teller: Teller, *, as_json: bool) -> str:
    moment = datetime.fromtimestamp(frame.time_ns / 1e9, UTC).strftime("%H:%M:%S.%f")[:-3]
    told = teller.tell(frame)
    if not as_json:
        return f"{moment} {told}"
    return json.dumps({"time_ns": frame.time_ns, "way": frame.way, "hex": frame.content.hex(), "trouble": frame.trouble, "meaning": told})


async def _record(document: model.Site, site: Path, options: Any, question: questions.Trace, sink: _Sink) -> None:  # Any: as above
    folder = journal_folder(document, site)
    through_gateway = await runs(folder)
    click.echo(f"{options.name}: recorded by the {'running gateway' if through_gateway else 'trace itself, for no gateway runs'}", err=True)
    lines = control.ask(folder, question) if through_gateway else _own(options, question)
    async with aclosing(lines):
        async for line in lines:
            sink.take(line)
            if sink.is_full:
                click.echo(f"the file has {pcapng.MAX_FILE // 1024**2} MiB: the trace ends here", err=True)
                return


async def _own(options: Any, question: questions.Trace) -> AsyncGenerator[dict[str, Any], None]:  # Any: as above, and JSON
    """The same lines, of a connection opened here and scanned as the gateway would."""
    driver = installed()[options.__struct_config__.tag]
    connection = Connection(driver, options, tuple(driver.devices(options)), Status("connection", options.name))
    clock = SystemClock()
    lines = wires.trace(connection, question, clock)
    reading = asyncio.create_task(connection.keep(_drop, clock))
    try:
        async with aclosing(lines):
            async for line in lines:
                yield line
    finally:
        await cancel(reading)


def _drop(batch: Batch) -> None:
    """Values are not what a trace is for."""


def _frames(file: Path) -> list[Frame]:
    try:
        if file.stat().st_size > pcapng.MAX_FILE:
            raise pcapng.NoTrace(f"it has more than {pcapng.MAX_FILE // 1024**2} MiB: cut the part that matters with Wireshark's editcap")
        return pcapng.frames(file.read_bytes())
    except OSError as error:
        fail(f"{file} cannot be read ({error.strerror})", WRONG)
    except pcapng.NoTrace as error:
        fail(f"{file}: {error}", WRONG)


def _print_file(file: Path, *, as_json: bool) -> None:
    frames = _frames(file)
    teller = Teller(is_rtu=are_rtu(frames))
    for frame in frames:
        click.echo(_line(frame, teller, as_json=as_json))


def _recording(file: Path) -> Recording:
    found = recording(_frames(file))
    if not found.answers:
        fail(f"{file} holds no Modbus request: record it with holdfast trace --out, or capture the device's own port", WRONG)
    return found


async def _serve(recorded: Recording, port: int, for_s: float, *, as_rtu: bool) -> None:
    try:
        async with serving(recorded, port=port, as_rtu=as_rtu) as at:
            kind = "modbus-rtu-tcp" if as_rtu else "modbus-tcp"
            units = ", ".join(map(str, sorted(recorded.units))) or "none"
            click.echo(f"type: {kind}, host: 127.0.0.1, port: {at} (unit ids {units}; {len(recorded.answers)} different requests)")
            clock = SystemClock()
            await clock.sleep_until(clock.monotonic() + for_s)
    except OSError as error:
        fail(f"port {port} on 127.0.0.1 cannot be had ({error.strerror}): give another with --port")
