"""Requests of clients to the Modbus server: whatever comes, there is one answer of a right shape, and no write that was not asked for."""

from __future__ import annotations

import ipaddress
from collections.abc import Sequence
from typing import Final

from protocols.clock import ManualClock
from protocols.modbus.address import Table
from protocols.modbus.frames import MAX_PDU
from protocols.modbus.server import Limits, Server
from tests.fuzz.campaign import run, seed
from tests.fuzz.mutate import Mutator

REQUESTS: Final = [
    bytes.fromhex(each)
    for each in (
        "0100000010",
        "0200130025",
        "03006b0003",
        "0400080001",
        "050000ff00",
        "0600010003",
        "0f0013000a02cd01",
        "100001000204000a0102",
        "2b0e0100",
    )
]


class Bank:
    """Takes everything that a server lets through, and sees that it is what the standard allows."""

    def read_bits(self, table: Table, number: int, count: int) -> Sequence[bool]:
        assert table.is_bits
        assert 1 <= count <= 2000
        assert 0 <= number <= 0x10000 - count
        return [True] * count

    def read_registers(self, table: Table, number: int, count: int) -> bytes:
        assert not table.is_bits
        assert 1 <= count <= 125
        assert 0 <= number <= 0x10000 - count
        return bytes(2 * count)

    async def write_bits(self, number: int, bits: Sequence[bool], client: str) -> None:
        assert 1 <= len(bits) <= 1968
        assert number + len(bits) <= 0x10000

    async def write_registers(self, number: int, content: bytes, client: str) -> None:
        assert 2 <= len(content) <= 246
        assert len(content) % 2 == 0
        assert number + len(content) // 2 <= 0x10000


def test_every_request_has_one_answer_of_a_right_shape() -> None:
    number = seed()
    mutator = Mutator(number, REQUESTS, longest=MAX_PDU)
    limits = Limits(networks=(ipaddress.ip_network("127.0.0.0/8"),))
    server = Server(1, Bank(), limits, ManualClock(), lambda client, why: None, {0: b"maker", 1: b"thing", 2: b"1.0"})

    def judge(pdu: bytes) -> None:
        if not pdu:  # no frame is as short as that
            return
        try:
            server.answer(1, pdu, "192.0.2.1").send(None)
        except StopIteration as done:
            answer: bytes = done.value
        assert 2 <= len(answer) <= MAX_PDU
        assert answer[0] in (pdu[0], pdu[0] | 0x80)
        if answer[0] & 0x80 and not pdu[0] & 0x80:
            assert len(answer) == 2
            assert answer[1] in (1, 2, 3)

    run("modbus server", mutator.make, judge, seed=number)
