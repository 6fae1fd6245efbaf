"""Which tag lies in which register of the Modbus face: given in the site document, or made of all tags. Pure.

A map is a Modbus device as a client would configure it (``protocols.modbus.config.Device``), so a map that is printed can be
given to another gateway as it is, and what is wrong with one is found by the same checks.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final

import msgspec

from gateway.config.faces import ModbusFace, Register
from protocols.contract import Problem
from protocols.modbus import config
from protocols.modbus.address import LAST_ADDRESS, Table, width
from protocols.modbus.driver import TCP
from protocols.modbus.wire import Wire, wire_of
from protocols.model import Device, Kind, Tag

TEXT_BYTES: Final = 32
BLOCK: Final = 100
"""A device of a map that is made begins at a multiple of this, so that a tag more at its end moves no other device."""


class Full(Exception):
    """The tags do not fit into the 65,536 addresses of a table."""


@dataclass(frozen=True, slots=True)
class Place:
    """One entry of the map."""

    device: str
    tag: str
    quality: bool
    """It shows the quality of the tag and not its value."""
    options: config.Tag
    wire: Wire


@dataclass(frozen=True, slots=True)
class RegisterMap:
    """The places of each table, by number."""

    tables: dict[Table, tuple[Place, ...]]

    @property
    def places(self) -> Iterator[Place]:
        return (place for table in Table for place in self.tables.get(table, ()))

    def has(self, table: Table, number: int, count: int) -> bool:
        """Whether the span lies between the first and the last address of the table."""
        places = self.tables.get(table)
        return places is not None and places[0].wire.number <= number and number + count <= places[-1].wire.end

    def within(self, table: Table, number: int, count: int) -> list[Place]:
        """The places that lie, in part at least, in ``count`` registers or bits from ``number`` on."""
        places = self.tables.get(table, ())
        first = bisect_right(places, number, key=lambda place: place.wire.end)
        last = bisect_left(places, number + count, key=lambda place: place.wire.number)
        return list(places[first:last])


def register_map(face: ModbusFace, devices: Sequence[Device]) -> RegisterMap:
    """The map of ``face``, for which :func:`problems` found no error. Raises Full where one that is made has no room."""
    registers = face.registers or tuple(made(devices))
    client = _client(face, registers, devices)
    places = [
        Place(register.device, register.tag, register.what == "quality", options, wire_of(slot, options, client))
        for slot, (register, options) in enumerate(zip(registers, client.tags, strict=True))
    ]
    tables: dict[Table, list[Place]] = {}
    for place in sorted(places, key=lambda place: place.wire.number):
        tables.setdefault(place.wire.table, []).append(place)
    return RegisterMap({table: tuple(each) for table, each in tables.items()})


def problems(face: ModbusFace, devices: Sequence[Device]) -> Iterator[Problem]:
    """What is wrong with the registers of ``face``, paths relative to it. ``devices`` are all that are configured."""
    known = {(device.name, tag.name): tag for device in devices for tag in device.tags}
    names = {device.name for device in devices}
    wrong = False
    for at, register in enumerate(face.registers):
        if "." in str(register.at):
            wrong = True
            yield Problem(f"registers[{at}].at", f"{register.at}: a face has no bits of registers", "write a whole register")
        if (register.device, register.tag) not in known:
            wrong = True
            key, what = ("tag", f"device {register.device} has no tag") if register.device in names else ("device", "there is no device")
            yield Problem(f"registers[{at}].{key}", f"{what} {getattr(register, key)!r}", "write a name that stands under connections")
    if wrong:
        return
    try:
        registers = face.registers or tuple(made(devices))
    except Full as error:
        yield Problem("registers", str(error), "give the registers that are needed")
        return
    options = config.ModbusTcp(name="face", host="localhost", devices=(_client(face, registers, devices),))
    for problem in TCP.check(options):
        if problem.path.startswith("devices[0].tags["):
            yield msgspec.structs.replace(problem, path=problem.path.replace("devices[0].tags", "registers", 1))


def made(devices: Iterable[Device]) -> Iterator[Register]:
    """A map of all tags: bools as discrete inputs and coils, the rest as input and holding registers, what is writable in the latter."""
    free = dict.fromkeys(Table, 0)
    for device in devices:
        for table in Table:
            free[table] = -(-free[table] // BLOCK) * BLOCK
        for tag in device.tags:
            table = _table_of(tag)
            length = TEXT_BYTES if tag.kind in (Kind.STRING, Kind.BYTES) else 0
            count = width(tag.kind, table, length)
            if free[table] + count > LAST_ADDRESS + 1:
                raise Full(f"the tags do not fit into one table: {device.name}/{tag.name} would lie at {table}:{free[table]}")
            yield Register(device=device.name, tag=tag.name, at=f"{table}:{free[table]}", length=length)
            free[table] += count


def documentation(face: ModbusFace, devices: Sequence[Device]) -> str:
    """The map as a table for people, Markdown."""
    tags = {(device.name, tag.name): tag for device in devices for tag in device.tags}
    lines = [
        f"# Registers of {face.name}",
        "",
        f"Modbus TCP, port {face.port}, unit id {face.unit_id}, word order {face.word_order}, byte order {face.byte_order}. "
        "Addresses count from 0.",
        "",
        "| table | address | Modicon | registers | kind | device | tag | unit | access |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for place in register_map(face, devices).places:
        wire, tag = place.wire, tags[place.device, place.tag]
        modicon = f"{_LEAD[wire.table]}{wire.number + 1:05d}"
        kind = place.options.kind.value + (f" x {place.options.scale:g}" if place.options.scale != 1 else "")
        access = "read, write" if place.options.writable else "read"
        what = f"{place.tag} (quality)" if place.quality else place.tag
        cells = (
            wire.table,
            str(wire.number),
            modicon,
            str(wire.count),
            kind,
            place.device,
            what,
            "" if place.quality else tag.unit,
            access,
        )
        lines.append("| " + " | ".join(_cell(each) for each in cells) + " |")
    return "\n".join(lines) + "\n"


_LEAD: Final = {Table.COIL: "0", Table.DISCRETE: "1", Table.INPUT: "3", Table.HOLDING: "4"}


def _cell(text: str) -> str:
    return text.replace("|", "\\|")


def _table_of(tag: Tag) -> Table:
    if tag.kind is Kind.BOOL:
        return Table.COIL if tag.writable else Table.DISCRETE
    return Table.HOLDING if tag.writable else Table.INPUT


def _client(face: ModbusFace, registers: Sequence[Register], devices: Sequence[Device]) -> config.Device:
    """The face as a device, seen by a client."""
    tags = {(device.name, tag.name): tag for device in devices for tag in device.tags}
    return config.Device(
        name="face",
        unit_id=face.unit_id,
        word_order=face.word_order,
        byte_order=face.byte_order,
        tags=tuple(_tag(at, register, tags[register.device, register.tag], face) for at, register in enumerate(registers)),
    )


def _tag(at: int, register: Register, tag: Tag, face: ModbusFace) -> config.Tag:
    kind = Kind.UINT16 if register.what == "quality" else register.kind or tag.kind
    is_text = kind in (Kind.STRING, Kind.BYTES)
    given: dict[str, Any] = {  # Any: fields of config.Tag
        "name": f"{at}",
        "at": register.at,
        "kind": kind,
        "scale": register.scale,
        "length": (register.length or TEXT_BYTES) if is_text else register.length,
        "writable": face.writable and tag.writable and register.what == "value" and not _is_read_only(register.at),
    }
    return config.Tag(**given)


def _is_read_only(at: str | int) -> bool:
    """Discrete inputs and input registers cannot be written, which is no mistake of a map."""
    text = str(at)
    return text.startswith(("discrete", "input")) or (text.isdigit() and len(text) >= 5 and text[0] in "13")
