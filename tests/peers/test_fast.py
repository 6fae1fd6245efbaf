"""The cheap server of the benches gives the values that it promises, so that a bench can be checked."""

from __future__ import annotations

import asyncio
import math
import struct
import time

import pytest

from tests.peers.fast import STAMP, FastModbus, counter, read_request, round_of


class Client:
    """One connection with one request in flight."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader, self.writer = reader, writer

    async def ask(self, function: int, address: int, count: int, unit: int = 1) -> bytes:
        """The data of the answer; one byte for an exception."""
        self.writer.write(read_request(7, unit, function, address, count))
        head = await self.reader.readexactly(9)
        assert head[:2] == b"\x00\x07"
        return head[8:] if head[7] & 0x80 else await self.reader.readexactly(head[8])


async def client(port: int) -> Client:
    return Client(*await asyncio.open_connection("127.0.0.1", port))


async def test_a_scan_of_several_blocks_sees_one_round_and_the_next_scan_the_next() -> None:
    async with FastModbus(ports=1) as field:
        line = await client(field.ports[0])
        seen = []
        for _ in range(3):
            first, second = await line.ask(3, 0, 125), await line.ask(3, 125, 75)
            values = struct.unpack(">100f", first + second)
            rounds = {round_of(pair, value) for pair, value in enumerate(values)}
            assert len(rounds) == 1
            seen.append(rounds.pop())
        assert seen == [seen[0], seen[0] + 1, seen[0] + 2]
        assert counter(99, seen[-1]) == values[99]
        line.writer.close()


async def test_every_port_and_unit_counts_for_itself() -> None:
    async with FastModbus(ports=3) as field:
        lines = [await client(port) for port in field.ports]
        for _ in range(5):
            await lines[0].ask(3, 0, 2, unit=1)
        fifth = struct.unpack(">f", await lines[0].ask(3, 0, 2, unit=1))[0]
        assert struct.unpack(">f", await lines[0].ask(3, 0, 2, unit=2))[0] == fifth - 5
        assert struct.unpack(">f", await lines[2].ask(3, 0, 2, unit=1))[0] == fifth - 5
        assert await field.connections() == 3
        for line in lines:
            line.writer.close()


async def test_waves_stay_in_their_bounds() -> None:
    async with FastModbus(shape="wave") as field:
        line = await client(field.ports[0])
        values = struct.unpack(">62f", await line.ask(4, 0, 124))
        assert max(map(abs, values)) <= 100
        assert len(set(values)) > 30
        assert values[0] == pytest.approx(100 * math.sin(2 * math.pi * 0 / 1024), abs=1.0)
        line.writer.close()


@pytest.mark.parametrize(("function", "address", "count", "exception"), [(9, 0, 1, 1), (3, 0, 126, 3), (3, 0, 0, 3), (3, 65535, 2, 2)])
async def test_what_cannot_be_read_is_refused(function: int, address: int, count: int, exception: int) -> None:
    async with FastModbus() as field:
        line = await client(field.ports[0])
        assert await line.ask(function, address, count) == bytes([exception])
        line.writer.close()


async def test_the_field_remembers_when_it_answered_a_round() -> None:
    """Of unit 1 and function 3 alone, by port; a second request of the round is its last answer."""
    async with FastModbus(ports=2) as field:
        line = await client(field.ports[1])
        began = time.time_ns()
        await line.ask(3, 0, 2)
        await line.ask(4, 0, 2)
        between = (await field.answered(1))[1]
        await line.ask(3, 0, 2)
        await line.ask(3, 2, 2)
        answered = await field.answered(1)
        assert began < between == answered[1] < answered[2] < time.time_ns()
        assert not any(answered[3:] + await field.answered(0))
        line.writer.close()


async def test_the_stamp_is_the_time_of_the_answer() -> None:
    async with FastModbus() as field:
        line = await client(field.ports[0])
        stamps = [struct.unpack(">Q", await line.ask(4, STAMP, 4))[0] for _ in range(3)]
        assert stamps == sorted(stamps)
        assert stamps[0] > 1_700_000_000_000_000_000
        line.writer.close()
