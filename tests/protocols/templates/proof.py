"""What a recorded example holds, put into somebody else's Modbus server, and read through the real driver."""

from __future__ import annotations

import asyncio
import struct
from collections.abc import Iterable, Iterator, Mapping
from contextlib import aclosing
from typing import Any, Final

import msgspec
import numpy as np

from protocols.clock import SystemClock
from protocols.modbus.address import WORDS, parse
from protocols.modbus.config import ModbusTcp
from protocols.modbus.driver import TCP
from protocols.model import Batch, Kind, Quality
from protocols.templates.device import make
from protocols.templates.shape import Recorded, Row, Template
from tests.peers.libmodbus import LibmodbusServer, Table

FORMATS: Final = {
    Kind.INT16: "h", Kind.UINT16: "H", Kind.INT32: "i", Kind.UINT32: "I", Kind.INT64: "q", Kind.UINT64: "Q", Kind.FLOAT32: "f",
}  # fmt: skip
PATIENCE_S: Final = 60.0
UNITS: Final = 247
"""Unit ids of one server."""
Reading = tuple[Any, Quality]  # Any: of the tag's kind


def runs(registers: Mapping[str, str]) -> Iterator[tuple[Table, int, list[int]]]:
    """The recorded registers and bits: table, first address, values."""
    for at, words in registers.items():
        place = parse(at, 0)
        base = 2 if place.table.is_bits else 16
        yield place.table.value, place.number, [int(word, base) for word in words.split()]


async def serve(server: LibmodbusServer, unit: int, recorded: Recorded) -> None:
    for table, address, values in runs(recorded.registers):
        await server.set(unit, table, address, *values)


def device(template: Template, name: str, unit: int) -> Row:
    """The device of the recorded answers, as a site would have it."""
    assert template.recorded is not None
    made, problems = make(template, {"name": name, "unit_id": unit, "answers": dict(template.recorded.answers)})
    assert not problems, (template.name, problems)
    return made


def quick(device: Row) -> Row:
    """``device`` with every tag at one period, so that all are read at once."""
    tags = [{key: value for key, value in tag.items() if key != "scan_s"} for tag in device["tags"]]
    return {**device, "scan_s": 5.0, "tags": tags}


def connection(devices: Iterable[Row], port: int) -> ModbusTcp:
    return msgspec.convert({"type": "modbus-tcp", "name": "proof", "host": "127.0.0.1", "port": port, "devices": [*devices]}, ModbusTcp)


async def read(options: ModbusTcp) -> dict[str, dict[str, Reading]]:
    """What each tag of each device reads, once."""
    found: dict[str, dict[str, Reading]] = {device.name: {} for device in options.devices}
    wanted = sum(len(device.tags) for device in options.devices)
    async with asyncio.timeout(PATIENCE_S), TCP.open(options, clock=SystemClock()) as session:
        all_batches: Any = session.batches()  # Any: the contract says AsyncIterator, and it is a generator, which can be closed
        async with aclosing(all_batches) as batches:
            async for batch in batches:
                _take(batch, found[batch.device.name])
                if sum(map(len, found.values())) == wanted:
                    break
    return found


def _take(batch: Batch, into: dict[str, Reading]) -> None:
    for slot, value, quality in zip(batch.tag, batch.value, batch.quality, strict=True):
        plain = value.item() if isinstance(value, np.generic) else value
        into[batch.device.tags[slot].name] = (plain, Quality(int(quality)))


def without_value(made: Row, nth: int) -> Iterator[tuple[Table, int, list[int]]]:
    """For each tag of ``made`` that has numbers that mean no value, the registers that hold the ``nth`` of them (the last, of fewer)."""
    for tag in made["tags"]:
        if numbers := tag.get("invalid"):
            place, kind = parse(tag["at"], 0), Kind(tag["kind"])
            packed = struct.pack(">" + FORMATS[kind], numbers[min(nth, len(numbers) - 1)])
            words = [int.from_bytes(packed[at : at + 2], "big") for at in range(0, len(packed), 2)]
            assert "byte_order" not in tag
            if (tag.get("word_order") or made.get("word_order")) == "little":
                words.reverse()
            yield place.table.value, place.number, words


def covered(template: Template, made: Row) -> list[str]:
    """Tags of ``made`` whose registers the example does not give: they would read zeros that prove nothing."""
    assert template.recorded is not None
    given = {(table, address + at) for table, address, values in runs(template.recorded.registers) for at in range(len(values))}
    missing = []
    for tag in made["tags"]:
        place = parse(tag["at"], 0)
        kind = Kind(tag["kind"])
        width = 1 if place.table.is_bits else WORDS.get(kind, (tag.get("length", 0) + 1) // 2)
        if any((place.table.value, place.number + at) not in given for at in range(width)):
            missing.append(tag["name"])
    return missing
