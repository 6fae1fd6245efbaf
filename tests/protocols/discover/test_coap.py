"""A CoAP host's list of resources is read from libcoap's server, block by block where it is long."""

from __future__ import annotations

import asyncio
import shutil

import pytest

from protocols.contract import Candidate, Misfit, Unreachable
from protocols.discover import coap
from tests.peers.coap import SERVER, free_port
from tests.peers.leash import leashed

LONG = ",".join(f'</sensors/{number:03d}>;rt="temperature";title="Room {number}, wall"' for number in range(60))


async def test_the_resources_of_libcoaps_server_are_told() -> None:
    binary = shutil.which(SERVER)
    assert binary, f"{SERVER} is missing: install libcoap3-bin"
    port = free_port()
    process = await asyncio.create_subprocess_exec(*leashed(binary, "-A", "127.0.0.1", "-p", str(port)), stderr=asyncio.subprocess.DEVNULL)
    try:
        found = await _when_it_answers(port)
    finally:
        process.kill()
        await process.wait()
    told = {candidate.where.rpartition(f":{port}")[2]: candidate.detail for candidate in found}
    assert {"/", "/time", "/async"} <= set(told)
    assert told["/time"].startswith("if clock")
    assert found[0].options["devices"][0] | {"resources": []} == {
        "name": "coap-127.0.0.1",
        "host": "127.0.0.1",
        "port": port,
        "resources": [],
    }


async def _when_it_answers(port: int) -> list[Candidate]:
    async with asyncio.timeout(20):
        while True:
            try:
                return await coap.resources("127.0.0.1", port, timeout_s=5.0)
            except Unreachable:
                await asyncio.sleep(0.05)


class Host(asyncio.DatagramProtocol):
    """A host with a long list in blocks of 64 bytes, which acknowledges first and answers later, and loses the first question."""

    def __init__(self, listed: bytes, code: int = 0x45) -> None:
        self._listed, self._code, self._asked = listed, code, 0

    def connection_made(self, transport: asyncio.DatagramTransport) -> None:  # type: ignore[override]  # a datagram's, in truth
        self._transport = transport

    def datagram_received(self, data: bytes, addr: tuple[str, int]) -> None:
        self._asked += 1
        question = coap.decoded(data)
        if self._asked == 1 or question.code == 0:
            return
        block = next((int.from_bytes(value, "big") >> 4 for number, value in question.options if number == 23), 0)
        part = self._listed[block * 64 : block * 64 + 64]
        value = block << 4 | (8 if (block + 1) * 64 < len(self._listed) else 0) | 2
        self._transport.sendto(coap.encoded(coap.Message(2, 0, question.id, b"")), addr)
        size = (value.bit_length() + 7) // 8
        options = ((12, b"\x28"), (23, value.to_bytes(size, "big")))
        self._transport.sendto(coap.encoded(coap.Message(0, self._code, 9, question.token, options, part)), addr)


@pytest.mark.parametrize(("code", "listed"), [(0x45, LONG), (0x84, "")])
async def test_a_long_list_comes_in_blocks_and_a_refusal_is_said(code: int, listed: str) -> None:
    loop = asyncio.get_running_loop()
    transport, _ = await loop.create_datagram_endpoint(lambda: Host(listed.encode(), code), local_addr=("127.0.0.1", 0))
    port = transport.get_extra_info("sockname")[1]
    try:
        if code == 0x45:
            found = await coap.resources("127.0.0.1", port, timeout_s=20.0)
            assert len(found) == 60
            assert found[59].detail == "rt temperature, title Room 59, wall"
        else:
            with pytest.raises(Misfit, match=r"4\.04"):
                await coap.resources("127.0.0.1", port, timeout_s=20.0)
    finally:
        transport.close()


async def test_nobody_there_is_unreachable() -> None:
    with pytest.raises(Unreachable):
        await coap.resources("127.0.0.1", free_port(), timeout_s=0.5)
