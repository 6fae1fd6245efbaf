"""Against Snap7's server: what a write leaves alone, what comes later, and what a small PDU makes of a long value."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from collections.abc import AsyncIterator
from typing import Any

import pytest

from protocols.clock import SystemClock
from protocols.model import Command, Kind, Outcome, OutcomeState, Quality
from protocols.s7.config import S7 as Options
from protocols.s7.config import Device, Tag
from protocols.s7.driver import S7
from tests.peers.s7_hostile import TRUTH, HostileController
from tests.peers.snap7 import Snap7Server

PATIENCE_S = 20.0


@pytest.fixture
async def server() -> AsyncIterator[Snap7Server]:
    async with Snap7Server() as server:
        await server.db(1, 100)
        yield server


def options(port: int, *tags: Tag) -> Options:
    return Options(name="plc", host="127.0.0.1", port=port, timeout_s=2.0, devices=(Device(name="d", scan_s=0.05, tags=tags),))


async def write(port: int, tag: Tag, value: Any) -> Outcome:  # Any: what a command carries
    clock = SystemClock()
    async with S7.open(options(port, tag), clock=clock) as session:
        command = Command(id="1", device="d", tag=tag.name, value=value, deadline_ns=clock.time_ns() + 10**10)
        (outcome,) = await session.write([command])
    return outcome


async def test_a_bit_is_written_without_its_neighbours(server: Snap7Server) -> None:
    tag = Tag(name="t", kind=Kind.BOOL, at="DB1.DBX0.3", writable=True)
    for before, value, after in ((0b0101_0101, True, 0b0101_1101), (0b1111_1111, False, 0b1111_0111)):
        await server.set(1, 0, bytes([before]))
        assert (await write(server.port, tag, value)).state is OutcomeState.VERIFIED
        assert await server.get(1, 0, 1) == bytes([after])


async def test_a_string_keeps_the_room_that_the_controller_gave_it(server: Snap7Server) -> None:
    await server.set(1, 10, b"\x05\x02hi\0\0\0z")
    tag = Tag(name="t", kind=Kind.STRING, at="DB1.DBB10", length=20, writable=True)
    outcome = await write(server.port, tag, "good")
    assert (outcome.state, outcome.read_back) == (OutcomeState.VERIFIED, "good")
    assert await server.get(1, 10, 8) == b"\x05\x04good\0z"
    refused = await write(server.port, tag, "longer")
    assert refused.state is OutcomeState.REFUSED
    assert "5 characters" in refused.detail
    assert await server.get(1, 10, 8) == b"\x05\x04good\0z"


async def test_a_block_that_is_loaded_later_comes_by_itself(server: Snap7Server) -> None:
    tag = Tag(name="t", kind=Kind.UINT16, at="DB50.DBW0")
    qualities: list[int] = []
    async with asyncio.timeout(PATIENCE_S), S7.open(options(server.port, tag), clock=SystemClock()) as session:
        async for batch in session.batches():
            qualities.append(int(batch.quality[0]))
            if qualities[-1] == Quality.GOOD:
                break
            if len(qualities) == 3:
                await server.db(50, 2)
    assert set(qualities[:-1]) == {Quality.BAD_NODE_ID_UNKNOWN}


async def test_a_value_that_no_answer_holds_is_read_in_parts() -> None:
    tag = Tag(name="t", kind=Kind.BYTES, at="DB1.DBB0", length=254)
    async with HostileController("") as peer, asyncio.timeout(PATIENCE_S), S7.open(options(peer.port, tag), clock=SystemClock()) as session:
        async for batch in session.batches():
            assert batch.value.tolist() == [TRUTH.to_bytes(2, "big") * 127]
            break
        assert session.stats.requests == 2


def test_without_its_library_the_driver_names_the_extra() -> None:
    script = "import sys; sys.modules['snap7'] = None; from gateway.config.drivers import own; own()['s7']"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60, check=False)
    assert done.stderr.strip().splitlines()[-1].startswith("gateway.config.drivers.Broken: driver s7")
    assert "pip install 'holdfast[s7]'" in done.stderr
