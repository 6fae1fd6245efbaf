"""How ``find-number``, ``scan`` and ``trace`` reach equipment: through the gateway that runs, or over a connection of their own.

A serial line cannot be opened twice, and many a PLC takes one connection. So the gateway that runs on the document's journal is
asked first; only where none runs is the connection opened here.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import aclosing, asynccontextmanager
from pathlib import Path
from typing import Any

import click
import msgspec

from gateway import config, control, questions
from gateway.cli.common import WRONG, fail, loaded
from gateway.config import model
from protocols.contract import Unreachable
from protocols.modbus.config import AnyConnection, ModbusRtu, ModbusRtuTcp, ModbusTcp, ModbusTls
from protocols.modbus.frames import Request
from protocols.modbus.line import Missed
from protocols.modbus.question import Asker
from protocols.modbus.scan import OwnLine
from protocols.trace.wire import Answer


def connection_of(document: model.Site, site: Path, name: str) -> Any:  # Any: the driver's own Struct
    """The options of a connection; says which there are and exits where there is none of this name."""
    options = next((one for one in document.connections if one.name == name), None)
    if options is None:
        names = ", ".join(one.name for one in document.connections) or "none"
        fail(f"no connection is called {name!r} in {site}; there is: {names}", WRONG)
    return options


def modbus_of(site: Path, name: str) -> tuple[model.Site, AnyConnection]:
    """The document and one of its Modbus connections; exits where it is none."""
    document = loaded(site)
    options = connection_of(document, site, name)
    if not isinstance(options, ModbusTcp | ModbusTls | ModbusRtuTcp | ModbusRtu):
        fail(f"{name} is of type {options.__struct_config__.tag}: this works for Modbus alone", WRONG)
    return document, options


def journal_folder(document: model.Site, site: Path) -> Path:
    return config.resolve(document.journal.path, site.parent)


async def runs(folder: Path) -> bool:
    """Whether a gateway runs on the journal in ``folder``."""
    try:
        async with aclosing(control.ask(folder, questions.Stat())) as answers:
            async for _ in answers:
                return True
    except control.NotRunning:
        return False
    except control.ControlError:  # its disk may be sick; it runs
        return True
    return True


class ThroughGateway:
    """Questions to a device, carried by the running gateway over the connection that it holds."""

    def __init__(self, folder: Path, connection: str) -> None:
        self._folder, self._connection = folder, connection

    async def ask(self, request: Request) -> bytes:
        """Raises Missed; Unreachable where the gateway is gone or cannot."""
        question = questions.Read(connection=self._connection, unit_id=request.unit_id, request=request.pdu)
        try:
            async with aclosing(control.ask(self._folder, question)) as answers:
                async for line in answers:
                    answer = msgspec.convert(line, Answer)
                    if answer.content:
                        return answer.content
                    raise Missed(answer.missed, answer.text)
        except (control.NotRunning, control.ControlError) as error:
            raise Unreachable(str(error)) from error
        raise Unreachable("the gateway gave no answer: look at its log")


@asynccontextmanager
async def asker_of(document: model.Site, site: Path, options: AnyConnection) -> AsyncIterator[Asker]:
    """Who carries questions over this connection: the gateway that runs, or a line of one's own."""
    folder = journal_folder(document, site)
    if await runs(folder):
        click.echo(f"the running gateway asks over {options.name}, between its scans", err=True)
        yield ThroughGateway(folder, options.name)
        return
    async with own_line(options) as line:
        yield line


@asynccontextmanager
async def own_line(options: AnyConnection) -> AsyncIterator[OwnLine]:
    line = OwnLine(options)
    try:
        yield line
    finally:
        await line.close()
