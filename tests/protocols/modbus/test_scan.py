"""Scans find what answers, on real servers and lines, within their budget, and never write or broadcast."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import Any

import pytest
from pymodbus import ModbusDeviceIdentification
from pymodbus.framer import FramerType
from pymodbus.server import ModbusTcpServer
from pymodbus.simulator import DataType, SimData, SimDevice

from protocols.clock import ManualClock, SystemClock
from protocols.contract import Candidate, Unreachable
from protocols.modbus.config import ModbusRtu
from protocols.modbus.frames import EXCEPTIONS, Request, read_request
from protocols.modbus.line import Missed
from protocols.modbus.question import NoQuestion, identity, printable, question, reported
from protocols.modbus.scan import SETTINGS, OwnLine, Pace, Paced, Setting, Spent, serial, units
from tests.peers.libmodbus import LibmodbusServer
from tests.peers.unit import Unit
from tests.peers.wire import Wire
from tests.protocols.modbus.plc import Plc, options

WHERE = {"type": "modbus-tcp", "host": "127.0.0.1"}


def silent(text: str) -> None:
    """Progress that nobody reads."""


def pace(for_s: float = 60.0, requests: int = 10_000, pause_s: float = 0.0) -> Pace:
    return Pace(SystemClock(), for_s=for_s, requests=requests, pause_s=pause_s)


@asynccontextmanager
async def line_to(port: int, kind: str = "modbus-tcp") -> AsyncIterator[OwnLine]:
    line = OwnLine(options(kind, port=port, timeout_s=0.1, settle_s=0.0))
    try:
        yield line
    finally:
        await line.close()


async def found(line: OwnLine, *unit_ids: int, **fields: Any) -> list[Candidate]:  # Any: as pace takes them
    return [each async for each in units(Paced(line, pace(**fields)), "here", WHERE, unit_ids, silent, is_network=True)]


def ids(candidates: list[Candidate]) -> list[int]:
    return [candidate.options["devices"][0]["unit_id"] for candidate in candidates]


@pytest.mark.parametrize(("framing", "kind"), [("tcp", "modbus-tcp"), ("rtu-tcp", "modbus-rtu-tcp")])
async def test_the_unit_ids_that_answer_are_found(framing: Any, kind: str) -> None:
    """libmodbus's server is silent for the others. What is asked are reads of one register, and who it is."""
    async with LibmodbusServer(units=[3, 17], framing=framing) as server, line_to(server.port, kind) as line:
        candidates = await found(line, *range(1, 21))
        assert ids(candidates) == [3, 17]
        assert candidates[0].options == {**WHERE, "devices": [{"name": "device-3", "unit_id": 3}]}
        assert {request.function for request in await server.requests()} <= {3, 4, 17, 43, 0}


async def test_an_exception_proves_a_device() -> None:
    async with LibmodbusServer(units=[3]) as server, line_to(server.port) as line:
        await server.fail(3, 4)
        (candidate,) = await found(line, 2, 3)
        assert candidate.detail.startswith(f"answers with exception 4, {EXCEPTIONS[4]}")


async def test_a_gateway_that_says_that_nobody_is_there_proves_nobody() -> None:
    async with LibmodbusServer(units=[3, 4]) as server, line_to(server.port) as line:
        await server.fail(3, 11)
        assert ids(await found(line, 3, 4)) == [4]


async def test_a_device_that_answers_input_registers_alone_is_found() -> None:
    """Where nobody answers function 3, everybody is asked with function 4."""
    plc = Plc(5)
    answer = plc.answer
    plc.answer = lambda unit_id, pdu: None if pdu[0] != 4 else answer(unit_id, pdu)  # type: ignore[method-assign]  # the device's whim
    async with plc.serve() as port, line_to(port) as line:
        assert ids(await found(line, 4, 5)) == [5]


async def test_a_device_that_looks_at_no_unit_id_is_told_once() -> None:
    plc = Plc(1)
    plc.answer = lambda unit_id, pdu: plc.unit.answer(pdu)  # type: ignore[method-assign]  # whoever is asked, it answers
    async with plc.serve() as port, line_to(port) as line:
        assert ids(await found(line, *range(1, 248))) == [1]


async def test_a_peer_that_closes_for_unknown_unit_ids_is_scanned_on() -> None:
    """Some gateways hang up instead of answering."""
    plc = Plc(1, 4)
    answer = plc.answer

    def hang_up(unit_id: int, pdu: bytes) -> bytes | None:
        if unit_id not in plc.units:
            plc.kick()
        return answer(unit_id, pdu)

    plc.answer = hang_up  # type: ignore[method-assign]  # as above
    async with plc.serve() as port, line_to(port) as line:
        assert ids(await found(line, 1, 2, 3, 4)) == [1, 4]


async def test_nobody_there_is_unreachable() -> None:
    async with line_to(1) as line:
        with pytest.raises(Unreachable):
            await found(line, 1)


async def test_a_budget_of_requests_ends_a_scan_with_what_was_found() -> None:
    async with LibmodbusServer(units=[1, 9]) as server, line_to(server.port) as line:
        scan = units(Paced(line, pace(requests=5)), "here", WHERE, range(1, 20), silent, is_network=False)
        taken = [await anext(scan)]
        with pytest.raises(Spent, match="--requests"):
            await anext(scan)
        assert ids(taken) == [1]
        assert len(await server.requests()) == 5


async def test_a_budget_of_time_ends_a_scan() -> None:
    clock = ManualClock()
    limited = Pace(clock, for_s=1.0, requests=10, pause_s=0.0)
    await limited.turn()
    await clock.advance(1.0)
    with pytest.raises(Spent, match="--for"):
        await limited.turn()


async def test_the_pause_lies_between_two_questions() -> None:
    clock = ManualClock()
    polite = Pace(clock, for_s=60.0, requests=10, pause_s=0.5)
    await polite.turn()
    polite.done()
    second = asyncio.ensure_future(polite.turn())
    await clock.advance(0.4)
    assert not second.done()
    await clock.advance(0.2)
    assert second.done()


# --------------------------------------------------------------------------------------------------------- serial lines


@contextmanager
def line_of(baud: int, *unit_ids: int) -> Iterator[Wire]:
    with Wire({unit_id: Unit(holding={0: 7}) for unit_id in unit_ids}, baud=baud, bits=10) as wire:
        yield wire


def port_of(wire: Wire) -> ModbusRtu:
    return ModbusRtu(name="line", serial_port=wire.path, timeout_s=0.15, settle_s=0.02)


async def test_baud_rate_and_unit_ids_of_a_line_are_found() -> None:
    """A line at 38,400 baud with a device at a usual unit id and one at an unusual one; other rates hear nothing."""
    settings = [setting for setting in SETTINGS if setting.parity == "none" and setting.baud_rate >= 9600]
    with line_of(38400, 2, 33) as wire:
        told: list[str] = []
        candidates = [each async for each in serial(port_of(wire), settings, [1, 2, 33, 34], pace(), told.append)]
    assert ids(candidates) == [2, 33]
    assert candidates[0].options == {
        "type": "modbus-rtu",
        "serial_port": wire.path,
        "baud_rate": 38400,
        "parity": "none",
        "stop_bits": 1,
        "devices": [{"name": "device-2", "unit_id": 2}],
    }
    assert candidates[0].where == f"unit id 2 on {wire.path}, 38400 8N1"
    assert any("9600 8N1" in line for line in told)


async def test_an_unusual_unit_id_alone_on_a_line_is_found_in_the_second_round() -> None:
    with line_of(9600, 33) as wire:
        candidates = [each async for each in serial(port_of(wire), [Setting(9600, "none", 1)], [1, 2, 33], pace(), silent)]
    assert ids(candidates) == [33]


async def test_a_port_that_is_not_there_is_said() -> None:
    with pytest.raises(Unreachable, match="no such serial port"):
        async for _ in serial(ModbusRtu(name="line", serial_port="/dev/nothing"), SETTINGS[:1], [1], pace(), silent):
            pass


# --------------------------------------------------------------------------------------------------- who a device says it is

IDENTITY = {0: "Example Ltd", 1: "EM-3", 2: "V1.07", 4: "Energy meter", 5: "three phase", 6: "hall 4"}


@asynccontextmanager
async def pymodbus(framer: FramerType) -> AsyncIterator[int]:
    """pymodbus's server, which has a device identification; gives its port."""
    registers = SimData(0, count=100, values=17, datatype=DataType.REGISTERS)
    info = ModbusDeviceIdentification(info=IDENTITY)  # type: ignore[no-untyped-call]  # pymodbus's own
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = int(free.getsockname()[1])
    server = ModbusTcpServer(SimDevice(1, simdata=[registers]), identity=info, framer=framer, address=("127.0.0.1", port))
    await server.serve_forever(background=True)
    try:
        yield port
    finally:
        await server.shutdown()  # type: ignore[no-untyped-call]  # as above


@pytest.mark.parametrize(("framer", "kind"), [(FramerType.SOCKET, "modbus-tcp"), (FramerType.RTU, "modbus-rtu-tcp")], ids=["tcp", "rtu"])
async def test_a_device_says_who_it_is(framer: FramerType, kind: str) -> None:
    """Function 43/14 of pymodbus's server, by TCP and by RTU, where no frame length is known beforehand."""
    async with pymodbus(framer) as port, line_to(port, kind) as line:
        (candidate,) = await found(line, 1)
        assert candidate.detail.startswith("answers, vendor Example Ltd, product EM-3, revision V1.07")
        assert "product name Energy meter" in candidate.detail


@pytest.mark.parametrize(
    ("unit_id", "pdu"),
    [
        (1, b""),
        (1, bytes.fromhex("0600010001")),
        (1, bytes.fromhex("1000000001020001")),
        (1, bytes.fromhex("0500010000")),
        (1, bytes.fromhex("160001000100ff")),
        (1, bytes.fromhex("08000100ff")),
        (1, bytes.fromhex("0300000000")),
        (1, bytes.fromhex("030000007e")),
        (1, bytes.fromhex("03ffff0002")),
        (1, bytes.fromhex("2b0d0000")),
        (0, bytes.fromhex("0300000001")),
        (256, bytes.fromhex("0300000001")),
    ],
)
def test_what_does_not_read_one_device_is_no_question(unit_id: int, pdu: bytes) -> None:
    """Writes, diagnostics, broadcasts, impossible sizes: refused before anything is sent, whoever asks."""
    with pytest.raises(NoQuestion):
        question(unit_id, pdu)


def test_reads_are_the_requests_of_the_driver() -> None:
    assert question(7, bytes.fromhex("0400340002")) == read_request(7, bytes.fromhex("0400340002"), 4)
    assert isinstance(question(7, bytes((17,))), Request)


def test_what_a_device_says_of_itself_cannot_steer_a_terminal() -> None:
    pdu = bytes.fromhex("2b0e028200000201") + b"\x04\x1b[2J" + bytes((1, 2)) + b"ok"
    names, more = identity(pdu[:7] + b"\x00\x04\x1b[2J" + b"\x01\x02ok")
    assert (names, more) == ({"vendor": "[2J", "product": "ok"}, 0)
    assert printable(b"\x1b]0;x\x07" + bytes(200)).isprintable()
    assert reported(bytes((17, 3, 1, 255, 7))) == "01 ff 07"


class Forgetful:
    """A line with unit id 11, built on libmodbus: what follows a question that nobody answered it takes for that answer."""

    def __init__(self) -> None:
        self._awaits_another = False

    async def ask(self, request: Request) -> bytes:
        self._awaits_another, loses = not self._awaits_another and request.unit_id != 11, self._awaits_another
        if loses or request.unit_id != 11 or request.function == 4:
            raise Missed("timeout", "no answer")
        return bytes((request.function, 2, 0, 7))


@pytest.mark.parametrize("first", [8, 9])
async def test_a_device_that_loses_the_question_after_a_silent_neighbours_is_found(first: int) -> None:
    """So libmodbus's own RTU server does: each unit id of a line is asked twice."""
    found = [each async for each in units(Forgetful(), "line", WHERE, range(first, 13), silent, is_network=False)]
    assert ids(found) == [11]
