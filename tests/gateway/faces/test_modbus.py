"""SCADA on libmodbus reads and writes the gateway's tags: the real gateway between two programs that others wrote."""

from __future__ import annotations

import asyncio
import json
import math
import struct
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.peers.holdfast import Holdfast, until
from tests.peers.libmodbus import LibmodbusClient, LibmodbusServer, Refused, registers
from tests.peers.mosquitto import free_port

TAGS = [
    {"name": "pressure", "at": "holding:0", "kind": "float32", "unit": "bar"},
    {"name": "setpoint", "at": "holding:10", "kind": "float32", "writable": True, "minimum": 0, "maximum": 100},
    {"name": "stuck", "at": "holding:20", "kind": "uint16", "writable": True},
    {"name": "running", "at": "coil:0", "kind": "bool", "writable": True},
    {"name": "counter", "at": "input:0", "kind": "uint64"},
    {"name": "ghost", "at": "holding:900", "kind": "float32"},
    {"name": "label", "at": "holding:30", "kind": "string", "length": 8},
]
REGISTERS = [
    {"device": "boiler", "tag": "pressure", "at": "input:0"},
    {"device": "boiler", "tag": "pressure", "at": "input:2", "what": "quality"},
    {"device": "boiler", "tag": "ghost", "at": "input:3"},
    {"device": "boiler", "tag": "ghost", "at": "input:5", "what": "quality"},
    {"device": "boiler", "tag": "pressure", "at": "input:10", "kind": "int16", "scale": 0.1},
    {"device": "boiler", "tag": "counter", "at": "input:20"},
    {"device": "boiler", "tag": "label", "at": "input:30", "length": 8},
    {"device": "boiler", "tag": "setpoint", "at": "holding:0"},
    {"device": "boiler", "tag": "stuck", "at": "holding:2"},
    {"device": "boiler", "tag": "running", "at": "coil:0"},
]


@dataclass
class Plant:
    """A field device, the gateway with its face, and a client."""

    field: LibmodbusServer
    gateway: Holdfast
    client: LibmodbusClient

    def outcomes(self) -> list[dict[str, Any]]:  # Any: JSON
        """Recorded outcomes of commands, oldest first."""
        lines = self.gateway.ask("tail", "-n", "100", "--lane", "events")
        return [dict(zip(line["tags"], line["values"], strict=True)) for line in lines]

    async def until_read(self, table: Any, address: int, *wanted: int) -> None:
        """Wait until the face shows these registers."""
        async with asyncio.timeout(20):
            while await self.client.read(table, address, len(wanted)) != list(wanted):  # noqa: ASYNC110 - another process's state
                await asyncio.sleep(0.05)


@pytest.fixture
async def plant(tmp_path: Path, request: pytest.FixtureRequest) -> AsyncIterator[Plant]:
    port = free_port()
    face = {"name": "scada", "type": "modbus-server", "port": port, "writable": True, "registers": REGISTERS}
    face |= getattr(request, "param", {})
    async with AsyncExitStack() as stack:
        field = await stack.enter_async_context(LibmodbusServer())
        await field.set(1, "holding", 0, *registers("f", 2.5))
        await field.set(1, "holding", 30, *struct.unpack(">4H", b"boiler-1"))
        await field.set(1, "input", 0, *registers("Q", 2**64 - 2))
        await field.hole(1, "holding", 900, 901)
        await field.keep(1, 20, 20)
        site = {
            "holdfast": 1,
            "gateway": {"group": "plant", "name": "gw"},
            "journal": {"path": "./journal", "commit_window_ms": 10},
            "connections": [
                {
                    "name": "line",
                    "type": "modbus-tcp",
                    "host": "127.0.0.1",
                    "port": field.port,
                    "devices": [{"name": "boiler", "scan_s": 0.1, "tags": TAGS}],
                }
            ],
            "faces": [face],
            "outage_budget_s": 60,
        }
        gateway = stack.enter_context(Holdfast(tmp_path, site))
        await asyncio.to_thread(until, "the face listens", lambda: gateway.events("face_listens") > 0)
        client = await stack.enter_async_context(LibmodbusClient(port))
        yield Plant(field, gateway, client)


def float_of(words: list[int]) -> float:
    value: float = struct.unpack(">f", struct.pack(">2H", *words))[0]
    return value


async def test_values_qualities_and_what_has_none_are_read_as_the_map_says(plant: Plant) -> None:
    client = plant.client
    await plant.until_read("input", 2, 0)
    assert await client.read("input", 0, 2) == registers("f", 2.5)
    assert await client.read("input", 10) == [25]
    assert await client.read("input", 20, 4) == registers("Q", 2**64 - 2)
    assert struct.pack(">4H", *await client.read("input", 30, 4)) == b"boiler-1"
    whole = await client.read("input", 0, 34)
    assert math.isnan(float_of(whole[3:5])), "there is no such register in the field"
    assert whole[5] == 2
    assert whole[6:10] == [0] * 4, "a hole in the map is zeros"
    await plant.field.set(1, "holding", 0, *registers("f", -7.25))
    await plant.until_read("input", 0, *registers("f", -7.25))


async def test_a_field_that_falls_silent_is_seen_as_bad(plant: Plant) -> None:
    await plant.until_read("input", 2, 0)
    await plant.field.stop()
    await plant.until_read("input", 2, 2)
    assert math.isnan(float_of(await plant.client.read("input", 0, 2)))
    await plant.field.start()
    await plant.field.set(1, "holding", 0, *registers("f", 3.0))
    await plant.until_read("input", 0, *registers("f", 3.0))


async def test_a_write_that_is_answered_well_is_in_the_field_and_recorded(plant: Plant) -> None:
    await plant.until_read("input", 2, 0)
    await plant.client.write("holding", 0, *registers("f", 21.5))
    assert await plant.field.get(1, "holding", 10, 2) == registers("f", 21.5)
    await plant.client.write("coil", 0, 1)
    assert await plant.field.get(1, "coil", 0) == [1]
    await asyncio.to_thread(until, "both outcomes are recorded", lambda: len(plant.outcomes()) == 2)
    found = plant.outcomes()
    assert [(each["device"], each["tag"], each["value"], each["state"]) for each in found] == [
        ("boiler", "setpoint", "21.5", "verified"),
        ("boiler", "running", "true", "verified"),
    ]
    assert all(each["source"] == "face scada, 127.0.0.1" for each in found)


@pytest.mark.parametrize(
    ("address", "words", "why"),
    [
        (0, registers("f", 101.0), "Illegal data value"),  # above the tag's maximum
        (0, registers("f", math.nan), "Illegal data value"),
        (2, [7], "Slave device or server failure"),  # the field acknowledges and does nothing: a mismatch
        (0, [1], "Illegal data address"),  # half a float
        (1, [1], "Illegal data address"),
        (0, [1, 2, 3, 4], "Illegal data address"),  # beyond what can be written
        (50, [1], "Illegal data address"),
    ],
)
async def test_a_write_that_did_not_happen_is_an_exception(plant: Plant, address: int, words: list[int], why: str) -> None:
    await plant.until_read("input", 2, 0)
    before = await plant.field.get(1, "holding", 10, 2)
    with pytest.raises(Refused, match=why):
        await plant.client.write("holding", address, *words)
    assert await plant.field.get(1, "holding", 10, 2) == before


async def test_what_is_not_in_the_map_does_not_exist(plant: Plant) -> None:
    for table, address, count in [("input", 0, 100), ("input", 40, 1), ("discrete", 0, 1), ("coil", 1, 1), ("holding", 3, 1)]:
        with pytest.raises(Refused, match="Illegal data address"):
            await plant.client.read(table, address, count)  # type: ignore[arg-type]  # a table
    await plant.client.talk_to(9)
    with pytest.raises(Refused, match="Target device failed to respond"):
        await plant.client.read("input", 0)


@pytest.mark.parametrize("plant", [{"writable": False}], indirect=True)
async def test_nothing_can_be_written_unless_the_face_is_writable(plant: Plant) -> None:
    await plant.until_read("input", 2, 0)
    with pytest.raises(Refused, match="Illegal data address"):
        await plant.client.write("holding", 0, *registers("f", 21.5))
    with pytest.raises(Refused, match="Illegal data address"):
        await plant.client.write("coil", 0, 1)
    assert await plant.field.get(1, "holding", 10, 2) == [0, 0]


@pytest.mark.parametrize("plant", [{"when_bad": "last"}], indirect=True)
async def test_the_last_good_value_is_shown_where_that_is_wanted(plant: Plant) -> None:
    await plant.until_read("input", 0, *registers("f", 2.5))
    await plant.field.stop()
    await plant.until_read("input", 2, 2)
    assert await plant.client.read("input", 0, 2) == registers("f", 2.5)
    assert math.isnan(float_of(await plant.client.read("input", 3, 2))), "there never was a good one"


@pytest.mark.parametrize("plant", [{"when_bad": "exception"}], indirect=True)
async def test_a_bad_value_is_an_exception_where_that_is_wanted(plant: Plant) -> None:
    await plant.until_read("input", 2, 0)
    with pytest.raises(Refused, match="Slave device or server failure"):
        await plant.client.read("input", 3, 2)
    assert await plant.client.read("input", 0, 2) == registers("f", 2.5), "its neighbour is not concerned"


@pytest.mark.parametrize("plant", [{"registers": []}], indirect=True)
async def test_a_map_that_is_made_is_printed_as_it_is_served(plant: Plant) -> None:
    table = await asyncio.to_thread(plant.gateway.command, "register-map", str(plant.gateway.site_file), "scada")
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in table.splitlines() if line.startswith("|")][2:]
    places = {row[6]: (row[0], int(row[1]), int(row[3])) for row in rows}
    assert places["pressure"] == ("input", 0, 2)
    assert places["setpoint"][0] == "holding"
    assert places["running"] == ("coil", 0, 1)
    table_of, address, _ = places["pressure"]
    await plant.until_read(table_of, address, *registers("f", 2.5))
    pinned = await asyncio.to_thread(plant.gateway.command, "register-map", str(plant.gateway.site_file), "scada", "--pin")
    assert "tag: pressure" in pinned


async def test_a_face_that_is_changed_serves_anew_and_one_that_is_removed_is_closed(plant: Plant) -> None:
    await plant.until_read("input", 2, 0)
    site = json.loads(plant.gateway.site_file.read_text())
    face = site["faces"][0]
    plant.gateway.write({**site, "faces": [{**face, "registers": [{"device": "boiler", "tag": "pressure", "at": "holding:5"}]}]})
    await asyncio.to_thread(plant.gateway.reload)
    await asyncio.to_thread(until, "the face listens anew", lambda: plant.gateway.events("face_listens") == 2)
    await plant.client.again()
    assert await plant.client.read("holding", 5, 2) == registers("f", 2.5)
    plant.gateway.write({**site, "faces": []})
    await asyncio.to_thread(plant.gateway.reload)
    with pytest.raises(Refused, match=r"refused|reset|closed"):
        await plant.client.again()
