"""The sample of the driver's README is right, and read against Snap7 as it stands; so is its table of addresses."""

from __future__ import annotations

import asyncio
import re
import struct
from pathlib import Path

import msgspec
import yaml

import protocols.s7
from protocols.clock import SystemClock
from protocols.s7.address import parse
from protocols.s7.config import S7
from protocols.s7.driver import S7 as DRIVER
from tests.peers.snap7 import Snap7Server

README = (Path(protocols.s7.__file__).parent / "README.md").read_text()

PROCESS_IMAGE_OF_INPUTS = 0
"""Snap7's code of the area (srvAreaPE)."""


def sample() -> S7:
    (block,) = re.findall(r"```yaml\n(.*?)```", README, re.DOTALL)
    (connection,) = yaml.safe_load(block)["connections"]
    return msgspec.convert(connection, S7)


def test_the_sample_is_right() -> None:
    options = sample()
    assert DRIVER.check(options) == []
    assert [len(device.tags) for device in DRIVER.devices(options)] == [6]


async def test_the_sample_reads_a_controller() -> None:
    values: dict[str, object] = {}
    async with Snap7Server() as server:
        await server.db(10, 42)
        await server.set(10, 4, struct.pack(">fB3xIh2xBB20s", 6.5, 0b1000, 4_000_000_000, 215, 20, 4, b"lids"))
        await server.ask(f"area {PROCESS_IMAGE_OF_INPUTS} 8")
        options = msgspec.structs.replace(sample(), host="127.0.0.1", port=server.port)
        async with asyncio.timeout(20), DRIVER.open(options, clock=SystemClock()) as session:
            async for batch in session.batches():
                assert not batch.quality.any()
                values |= {batch.device.tags[slot].name: value for slot, value in zip(batch.tag, batch.value.tolist(), strict=True)}
                if len(values) == 6:
                    break
    assert values == {"oil/pressure": 6.5, "oil/warm": True, "strokes": 4_000_000_000, "setpoint": 21.5, "recipe": "lids", "door": False}


def test_every_address_in_the_table_is_one() -> None:
    table = README.split("## Tags")[1].split("\n\n")[1]
    named = [text for row in table.splitlines()[2:] for text in re.findall(r"`([^`]+)`", row.split("|")[1])]
    assert len(named) == 17
    assert [parse(text) for text in named]
