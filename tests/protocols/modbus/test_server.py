"""The server's limits, from outside: who may connect, how fast, how slowly, and what is no Modbus. What it serves well is
tested with libmodbus (tests/gateway/faces)."""

from __future__ import annotations

import asyncio
import ipaddress
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any

import pytest

from protocols.clock import SystemClock
from protocols.modbus import server
from protocols.modbus.address import Table
from protocols.modbus.server import Limits, serving

LOOPBACK = (ipaddress.ip_network("127.0.0.1/32"),)
READ = bytes.fromhex("000100000006010300000001")
IDENTITY = {0: b"maker", 1: b"thing", 2: b"1.0"}
GOOD = bytes.fromhex("0001000000050103020007")


class Sevens:
    """Every register is 7; writes are remembered."""

    def __init__(self) -> None:
        self.written: list[tuple[int, Any]] = []

    def read_bits(self, table: Table, number: int, count: int) -> Sequence[bool]:
        return [True] * count

    def read_registers(self, table: Table, number: int, count: int) -> bytes:
        return b"\0\7" * count

    async def write_bits(self, number: int, bits: Sequence[bool], client: str) -> None:
        self.written.append((number, list(bits)))

    async def write_registers(self, number: int, content: bytes, client: str) -> None:
        self.written.append((number, content))


class Served:
    """A server, what it refused, and connections to it."""

    def __init__(self) -> None:
        self.bank = Sevens()
        self.refused: list[str] = []
        self.port = 0

    def _refused(self, client: str, why: str) -> None:
        if not why.startswith("exception"):
            self.refused.append(why)

    @asynccontextmanager
    async def running(self, **limits: Any) -> AsyncIterator[Served]:
        wanted = Limits(**{"networks": LOOPBACK, **limits})
        async with serving(
            "127.0.0.1", 0, 1, self.bank, limits=wanted, clock=SystemClock(), refused=self._refused, identity=IDENTITY
        ) as self.port:
            yield self

    @asynccontextmanager
    async def client(self) -> AsyncIterator[Client]:
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
        try:
            yield Client(reader, writer)
        finally:
            writer.close()


class Client:
    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader, self.writer = reader, writer

    async def ask(self, pdu: str, *, unit: int = 1) -> str:
        """The PDU that answers ``pdu``, both in hex."""
        raw = bytes.fromhex(pdu)
        self.writer.write(b"\0\1\0\0" + (len(raw) + 1).to_bytes(2, "big") + bytes((unit,)) + raw)
        async with asyncio.timeout(10):
            head = await self.reader.readexactly(7)
            assert head[6] == unit
            return (await self.reader.readexactly(int.from_bytes(head[4:6], "big") - 1)).hex()

    async def closed(self) -> bool:
        """Whether the server ends the connection, now or soon."""
        async with asyncio.timeout(10):
            try:
                return await self.reader.read(1) == b""
            except ConnectionError:
                return True


async def test_what_a_request_may_be() -> None:
    async with Served().running() as one, one.client() as client:
        for asked, answered in {
            "0300000001": "03020007",
            "0100000009": "0102ff01",
            "03000a007d": "03fa" + "0007" * 125,
            "030000007e": "8303",  # more than 125
            "0300000000": "8303",
            "0100007d1": "8103",
            "03ffff0002": "8302",  # beyond the last address
            "03": "8303",
            "0600050009": "0600050009",
            "060005": "8603",
            "0500010000": "0500010000",
            "0500011234": "8503",
            "1000010002040001ffff": "1000010002",
            "1000010002030001ff": "9003",
            "10000100000": "9003",
            "10ffff000204000100ff": "9002",
            "0f0003000a02ff03": "0f0003000a",
            "0f0003000a01ff": "8f03",
            "0700": "8701",
            "7f": "ff01",
            "2b0e0100": "2b0e0101000003" + "0005" + b"maker".hex() + "0105" + b"thing".hex() + "0203" + b"1.0".hex(),
            "2b0e0400": "ab01",
        }.items():
            assert await client.ask(asked if len(asked) % 2 == 0 else asked + "0") == answered, asked
    assert one.bank.written == [(5, b"\0\t"), (1, [False]), (1, b"\0\1\xff\xff"), (3, [True] * 10)]


async def test_other_unit_ids_do_not_respond() -> None:
    async with Served().running() as one, one.client() as client:
        assert await client.ask("0300000001", unit=9) == "830b"
        assert await client.ask("0300000001", unit=255) == "03020007"


async def test_requests_that_come_at_once_are_answered_one_after_the_other() -> None:
    async with Served().running() as one, one.client() as client:
        client.writer.write(READ * 20)
        async with asyncio.timeout(10):
            assert await client.reader.readexactly(20 * len(GOOD)) == GOOD * 20


async def test_who_is_not_among_the_clients_is_cut_off_before_a_word() -> None:
    async with Served().running(networks=(ipaddress.ip_network("192.0.2.0/24"),)) as one, one.client() as client:
        client.writer.write(READ)
        assert await client.closed()
    assert one.refused == ["not among the clients"]


async def test_more_clients_than_allowed_are_cut_off_and_a_place_becomes_free_again() -> None:
    async with Served().running(clients=2) as one:
        async with one.client() as first, one.client() as second:
            assert await first.ask("0300000001") == await second.ask("0300000001")
            async with one.client() as third:
                assert await third.closed()
            assert one.refused == ["too many clients"]
        async with asyncio.timeout(10):
            while True:
                async with one.client() as fourth:
                    fourth.writer.write(READ)
                    if not await fourth.closed():
                        break


@pytest.mark.parametrize("said", [b"GET / HTTP/1.1\r\n\r\n", b"\0\1\0\0\0\1\1", b"\0\1\0\0\xff\xff\1\3", b"\0\1\0\7\0\6\1\3\0\0\0\1"])
async def test_what_is_no_modbus_is_cut_off(said: bytes) -> None:
    async with Served().running() as one, one.client() as client:
        client.writer.write(said)
        assert await client.closed()
    assert one.refused == ["no Modbus TCP"]


@pytest.mark.parametrize("begun", [b"", READ[:3], READ[:-1]])
async def test_who_dawdles_is_cut_off(begun: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server, "FRAME_S", 0.2)
    async with Served().running(idle_s=0.3) as one, one.client() as client:
        client.writer.write(begun)
        assert await client.closed()
    assert one.refused == ["silent for too long"]


async def test_a_flood_is_slowed_down_and_delays_nobody_else() -> None:
    """Some 16,000 requests at once; meanwhile another client is answered, and the flood gets what the limit allows."""
    async with Served().running(requests_per_s=200.0) as one, one.client() as flood, one.client() as other:
        flood.writer.write(READ * 16_000)
        loop = asyncio.get_running_loop()
        began, answered = loop.time(), 0
        while loop.time() - began < 1.5:
            assert await other.ask("0300000001") == "03020007"
            answered += 1
            await asyncio.sleep(0.02)
        taken = len(await flood.reader.read(1 << 20)) // len(GOOD)
        assert answered >= 10
        assert taken <= 200 * (loop.time() - began + 1) + 200


async def test_it_stops_although_clients_stay() -> None:
    one = Served()
    async with one.running():
        reader, writer = await asyncio.open_connection("127.0.0.1", one.port)
        writer.write(READ)
        assert await reader.readexactly(len(GOOD)) == GOOD
    async with asyncio.timeout(10):
        assert await reader.read(1) == b""
    writer.close()
