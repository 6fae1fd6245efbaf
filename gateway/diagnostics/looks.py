"""What jobs do: record a connection, ask which addresses answer, search for the number that a display shows.

Everything goes through the connection that the gateway holds, between its own scans, or, for a network, over connections of its own.
Reads only: nothing here can write to a device.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from contextlib import aclosing
from typing import Any, Final, Literal

import msgspec

from gateway import questions, wires
from gateway.connections import Connection
from gateway.diagnostics.jobs import MOST_FOUND, Job, Work
from gateway.objections import Conflict, Unfit
from protocols.clock import Clock
from protocols.contract import Candidate, DriverError, Unreachable
from protocols.discover import opcua
from protocols.modbus.config import ModbusRtu, ModbusRtuTcp, ModbusTcp, ModbusTls
from protocols.modbus.find import TABLES, NotANumber, Shown, search, shown, tag_line
from protocols.modbus.frames import Request
from protocols.modbus.line import Missed
from protocols.modbus.scan import OwnLine, Pace, Paced, Spent, units
from protocols.modbus.trace import RTU_PORT, TCP_PORT
from protocols.modbus.window import Survey
from protocols.trace import pcapng
from protocols.trace.ring import Frame
from protocols.trace.wire import Askable

MOST_FRAMES: Final = 50_000
MOST_TRACE_BYTES: Final = 8 * 2**20
MOST_MATCHES: Final = 100
HOSTS_AT_ONCE: Final = 8
SETTLE_S: Final = 0.05
DRIFT: Final = 0.01
_Modbus = ModbusTcp | ModbusTls | ModbusRtuTcp | ModbusRtu


def trace(find: wires.Find, connection: str, for_s: float, clock: Clock, *, until_trouble: bool) -> Work:
    """Frames of a connection as a pcapng file. Raises nothing: what cannot be is the job's detail."""

    async def work(job: Job) -> None:
        found = find(connection)
        is_rtu = found is not None and isinstance(found.options, ModbusRtu | ModbusRtuTcp)
        writer = pcapng.Writer(connection, RTU_PORT if is_rtu else TCP_PORT)
        job.content += writer.head
        question = questions.Trace(connection=connection, seconds=for_s, until_trouble=until_trouble)
        async with aclosing(wires.answer(find, question, clock)) as lines:
            async for line in lines:
                _take(job, writer, line)

    return work


def _take(job: Job, writer: pcapng.Writer, line: dict[str, Any]) -> None:  # Any: JSON
    """Raises Spent when there is enough."""
    if "frame" in line:
        if job.frames >= MOST_FRAMES or len(job.content) >= MOST_TRACE_BYTES:
            raise Spent(f"{job.frames} frames, {len(job.content)} bytes: that is the most that is kept")
        job.frames += 1
        job.content += writer.frame(msgspec.convert(line["frame"], Frame))
    elif "recorded" in line:
        job.detail = f"first trouble: {line['trouble']}" if line["trouble"] else "no trouble was seen"
    job.tell(f"{job.frames} frames")


class _Through:
    """Questions to a device over the connection that the gateway holds, between its scans."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    async def ask(self, request: Request) -> bytes:
        """Raises Missed; Unreachable where the connection is down or takes no such questions."""
        session: object = self._connection.session
        name = self._connection.status.name
        if session is None:
            raise Unreachable(f"{name} is not connected now: {self._connection.status.trouble or 'it is connecting'}")
        if not isinstance(session, Askable):
            raise Unreachable(f"{name}: a connection of type {self._connection.driver.name} takes no such questions")
        answer = await session.ask(request.unit_id, request.pdu)
        if answer.content:
            return answer.content
        raise Missed(answer.missed, answer.text)


def must_be_modbus(connection: Connection) -> _Modbus:
    """Its options. Raises Conflict."""
    options: object = connection.options
    if not isinstance(options, ModbusTcp | ModbusTls | ModbusRtuTcp | ModbusRtu):
        raise Conflict(
            f"{connection.status.name} is of type {connection.driver.name}: this works for Modbus alone", "name another connection"
        )
    return options


def scan_units(connection: Connection, unit_ids: Sequence[int], pace: Pace) -> Work:
    """Which unit ids answer on a connection."""
    options = must_be_modbus(connection)
    is_network = not isinstance(options, ModbusRtu)
    where = options.serial_port if isinstance(options, ModbusRtu) else f"{options.host}:{options.port}"

    async def work(job: Job) -> None:
        found = units(Paced(_Through(connection), pace), where, {}, unit_ids, job.tell, is_network=is_network)
        async with aclosing(found):
            async for candidate in found:
                job.find(_shown(candidate))

    return work


def scan_network(
    hosts: Sequence[str],
    protocol: Literal["modbus-tcp", "opcua"],
    port: int,
    unit_ids: Sequence[int],
    clock: Clock,
    *,
    for_s: float,
    timeout_s: float,
) -> Work:
    """Which addresses speak a protocol. What answers in no way is no finding and no failure."""

    async def work(job: Job) -> None:
        end, room, asked = clock.monotonic() + for_s, asyncio.Semaphore(HOSTS_AT_ONCE), 0

        async def look(host: str) -> None:
            nonlocal asked
            async with room:
                if clock.monotonic() >= end:
                    return
                asked += 1
                job.tell(f"{asked} of {len(hosts)} addresses")
                found = (
                    await _opcua(host, port, timeout_s, clock)
                    if protocol == "opcua"
                    else await _modbus(host, port, unit_ids, timeout_s, clock)
                )
                for candidate in found[: MOST_FOUND - len(job.found)]:
                    job.find(_shown(candidate))

        async with asyncio.TaskGroup() as tasks:
            for host in hosts:
                tasks.create_task(look(host))
        if asked < len(hosts):
            raise Spent(f"{for_s:g} s are over: {asked} of {len(hosts)} addresses were asked")

    return work


async def _opcua(host: str, port: int, timeout_s: float, clock: Clock) -> list[Candidate]:
    try:
        return await opcua.endpoints(host, port, timeout_s=timeout_s, time_ns=clock.time_ns())
    except DriverError:  # nobody is there, or something else: that is what a scan is for
        return []


async def _modbus(host: str, port: int, unit_ids: Sequence[int], timeout_s: float, clock: Clock) -> list[Candidate]:
    options = ModbusTcp(name="host", host=host, port=port, timeout_s=timeout_s, connect_timeout_s=max(0.1, timeout_s), settle_s=SETTLE_S)
    line, found = OwnLine(options), []
    pace = Pace(clock, for_s=60.0, requests=100, pause_s=0.02)
    way = {"type": "modbus-tcp", "host": host, "port": port}
    try:
        async with aclosing(units(Paced(line, pace), f"{host}:{port}", way, unit_ids, lambda text: None, is_network=True)) as candidates:
            async for candidate in candidates:
                found.append(candidate)
    except (DriverError, Missed, Spent):  # as above
        return found
    finally:
        await line.close()
    return found


def reading_of(text: str) -> Shown:
    """What a display shows. Raises Unfit."""
    try:
        return shown(text)
    except NotANumber as error:
        raise Unfit(f"shown: {error}", "type what the display shows, such as 230.4 or 1.234 kWh") from None


def find_number(connection: Connection, unit_id: int, reading: Shown, span: tuple[int, int], pace: Pace) -> Work:
    """Which registers hold the number that a device's display shows, the likeliest first."""
    must_be_modbus(connection)

    async def work(job: Job) -> None:
        survey = Survey(Paced(_Through(connection), pace), unit_id, job.tell)
        window = await survey.read(*span, TABLES)
        matches = await asyncio.to_thread(search, window, reading, drift=DRIFT)
        for match in matches[:MOST_MATCHES]:
            line = tag_line(match, "value", reading.unit)
            job.find(
                {"where": match.at, "detail": f"{match.form.kind}, now {match.value:.10g}{'' if match.exact else ' (near)'}", "tag": line}
            )
        read = f"{window.count()} registers read, {len(matches)} places give {reading.value:.10g}"
        job.detail = f"{read}; not everything was read: {survey.spent}" if survey.spent else read

    return work


def _shown(candidate: Candidate) -> dict[str, Any]:  # Any: JSON
    return {"where": candidate.where, "detail": candidate.detail, "options": msgspec.to_builtins(candidate.options)}
