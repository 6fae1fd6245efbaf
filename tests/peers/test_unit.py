"""Our own unit answers as libmodbus does, byte for byte, and the server on libmodbus does what its commands say."""

from __future__ import annotations

import asyncio
import random
import struct
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from tests.peers.libmodbus import LibmodbusServer, Request, registers
from tests.peers.program import PeerFailed
from tests.peers.unit import Unit, crc16, rtu_content, rtu_frame, tcp_frame

SPACE = 64
"""Addresses that the random requests use, so that writes and reads meet."""


class Client:
    """Raw PDUs over Modbus TCP."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader, self._writer, self._transaction = reader, writer, 0

    async def ask(self, pdu: bytes, unit: int = 1) -> bytes:
        self._transaction += 1
        self._writer.write(tcp_frame(self._transaction, unit, pdu))
        async with asyncio.timeout(5):
            transaction, protocol, length, answered = struct.unpack(">HHHB", await self._reader.readexactly(7))
            assert (transaction, protocol, answered) == (self._transaction, 0, unit)
            return await self._reader.readexactly(length - 1)


@asynccontextmanager
async def client(server: LibmodbusServer) -> AsyncIterator[Client]:
    reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
    try:
        yield Client(reader, writer)
    finally:
        writer.close()


@pytest.fixture
async def server() -> AsyncIterator[LibmodbusServer]:
    async with LibmodbusServer(units=[1, 2]) as server:
        yield server


def _request(dice: random.Random) -> bytes:
    """Any request that both know, right or wrong in address and quantity."""
    function = dice.choice((1, 2, 3, 4, 5, 6, 15, 16, 22, 3, 4, 16, 15))
    address = dice.choice((dice.randrange(SPACE), 65535, 65500))
    if function <= 4:
        count = dice.choice((1, 7, 8, 9, 20, 125, 126, 0, 2000, 2001))
        return struct.pack(">BHH", function, address, count)
    if function == 5:
        return struct.pack(">BHH", 5, address, dice.choice((0, 0xFF00)))
    if function == 6:
        return struct.pack(">BHH", 6, address, dice.randrange(65536))
    if function == 22:
        return struct.pack(">BHHH", 22, address, dice.randrange(65536), dice.randrange(65536))
    count = dice.choice((1, 3, 8, 11, 100))
    content = dice.randbytes((count + 7) // 8 if function == 15 else 2 * count)
    return struct.pack(">BHHB", function, address, count, len(content)) + content


async def test_our_unit_and_libmodbus_give_the_same_answers(server: LibmodbusServer) -> None:
    dice, ours = random.Random(7), Unit()
    async with client(server) as theirs:
        for _ in range(2000):
            request = _request(dice)
            assert ours.answer(request) == await theirs.ask(request), request.hex()


async def test_our_unit_refuses_what_is_no_request() -> None:
    assert Unit().answer(b"\x63") == b"\xe3\x01"
    assert Unit().answer(b"\x03\x00") == b"\x83\x03"


async def test_a_hole_refuses_every_block_that_touches_it(server: LibmodbusServer) -> None:
    await server.hole(1, "holding", 10, 12)
    async with client(server) as line:
        for first, count in ((10, 1), (12, 1), (8, 3), (12, 5), (0, 100)):
            assert await line.ask(struct.pack(">BHH", 3, first, count)) == b"\x83\x02"
        for first, count in ((8, 2), (13, 5)):
            assert (await line.ask(struct.pack(">BHH", 3, first, count)))[0] == 3
        assert (await line.ask(struct.pack(">BHH", 4, 10, 1)))[0] == 4, "another table"


async def test_kept_and_clamped_registers_are_acknowledged_and_differ(server: LibmodbusServer) -> None:
    await server.set(1, "holding", 5, 42)
    await server.keep(1, 5, 5)
    await server.clamp(1, 6, 6, 100)
    async with client(server) as line:
        assert (await line.ask(struct.pack(">BHHBHHH", 16, 5, 3, 6, 1, 1000, 1000)))[0] == 16
    assert await server.get(1, "holding", 5, 3) == [42, 100, 1000]


async def test_a_small_maximum_a_broken_unit_and_their_mending(server: LibmodbusServer) -> None:
    await server.most(1, 10)
    async with client(server) as line:
        assert await line.ask(struct.pack(">BHH", 3, 0, 11)) == b"\x83\x03"
        assert (await line.ask(struct.pack(">BHH", 3, 0, 10)))[0] == 3
        await server.fail(1, 4)
        assert await line.ask(struct.pack(">BHH", 3, 0, 10)) == b"\x83\x04"
        await server.fail(1, 0)
        assert (await line.ask(struct.pack(">BHH", 3, 0, 10)))[0] == 3
        assert (await line.ask(struct.pack(">BHH", 3, 0, 11), unit=2))[0] == 3, "another unit is not touched"


async def test_a_silent_unit_hears_and_does_not_answer(server: LibmodbusServer) -> None:
    await server.silent(2)
    async with client(server) as line:
        question = asyncio.ensure_future(line.ask(struct.pack(">BHH", 1, 3, 4), unit=2))
        async with asyncio.timeout(5):
            while not (heard := await server.requests()):
                pass
        assert heard == [Request(unit_id=2, function=1, address=3, count=4)]
        question.cancel()


async def test_kicked_clients_are_hung_up_on_and_may_come_back(server: LibmodbusServer) -> None:
    async with client(server) as line:
        await line.ask(struct.pack(">BHH", 3, 0, 1))
        assert await server.connections() == 1
        await server.kick()
        with pytest.raises((asyncio.IncompleteReadError, ConnectionError)):
            await line.ask(struct.pack(">BHH", 3, 0, 1))
    async with client(server) as line:
        await line.ask(struct.pack(">BHH", 3, 0, 1))


async def test_started_again_it_is_found_at_the_same_port(server: LibmodbusServer) -> None:
    port = server.port
    await server.stop()
    await server.start()
    assert server.port == port


async def test_a_command_that_it_does_not_know_is_said(server: LibmodbusServer) -> None:
    with pytest.raises(PeerFailed, match="no such unit"):
        await server.set(77, "holding", 0, 1)
    with pytest.raises(PeerFailed, match="unknown"):
        await server.ask("dance 1")


def test_registers_hold_a_value_high_word_first() -> None:
    assert registers("f", 1.0) == [0x3F80, 0]
    assert registers("Q", 2**63 + 1) == [0x8000, 0, 0, 1]
    assert registers("h", -2) == [0xFFFE]


def test_the_check_of_an_rtu_frame_is_the_one_of_the_standard() -> None:
    assert crc16(bytes.fromhex("0207")) == 0x1241  # Serial Line 1.02, appendix B: sent low byte first, 41 12
    assert rtu_content(rtu_frame(2, b"\x07")) == (2, b"\x07")
    assert rtu_content(b"\x02\x07\x12\x41") is None
