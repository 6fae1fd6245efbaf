"""Which bytes to read for a group of tags, and how to fit them into few requests. Pure.

Tags that lie close together are one block. As many blocks as the controller's PDU and the protocol's limit of 20 allow go into one
request: a controller takes a request a cycle, so their number counts, not their bytes.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Final

from protocols.model import Device
from protocols.s7 import config
from protocols.s7.address import Address, Area, parse
from protocols.s7.check import size
from protocols.s7.config import S7, Tag
from protocols.values import Composer

MOST_ITEMS: Final = 20
"""Items in one request (multi-variable read)."""
HEADER: Final = 14
"""Bytes of an answer before its items: header and function."""
ITEM_HEADER: Final = 4
REQUEST_ITEM: Final = 12


@dataclass(frozen=True, slots=True)
class Wire:
    """Where a tag's bytes lie."""

    slot: int
    place: Address
    size: int

    @property
    def end(self) -> int:
        return self.place.byte + self.size


@dataclass(frozen=True, slots=True)
class Block:
    """Bytes that are read as one item (or, where they are more than an answer holds, as a few), and the tags in them."""

    area: Area
    number: int
    first: int
    size: int
    wires: tuple[Wire, ...]


@dataclass(frozen=True, slots=True)
class Item:
    """One item of a request."""

    area: Area
    number: int
    first: int
    size: int


@dataclass(eq=False, slots=True)
class Group:
    """Tags of a device that share a period."""

    period_s: float
    wires: list[Wire] = field(default_factory=list)
    barriers: set[tuple[Area, int, int]] = field(default_factory=set)
    """Places where a block must end: what lies before and after is refused together, and not apart."""
    _planned: tuple[tuple[int, int], list[Block]] | None = None

    def blocks(self, *, max_gap: int, most: int) -> list[Block]:
        """What a scan reads; planned anew only where a barrier was learnt or the PDU is another."""
        key = (most, len(self.barriers))
        if self._planned is None or self._planned[0] != key:
            self._planned = (key, blocks(self.wires, self.barriers, max_gap=max_gap, most=most))
        return self._planned[1]


@dataclass(eq=False, slots=True)
class DevicePlan:
    """One device."""

    options: config.Device
    device: Device
    wires: tuple[Wire, ...]
    groups: list[Group]
    composer: Composer


@dataclass(eq=False, slots=True)
class Plan:
    """A connection."""

    where: str
    devices: list[DevicePlan]


def make_plan(options: S7) -> Plan:
    return Plan(f"{options.host}:{options.port}", [_device(options, each) for each in options.devices])


def _device(options: S7, device: config.Device) -> DevicePlan:
    wires = tuple(Wire(slot, parse(tag.at), size(tag)) for slot, tag in enumerate(device.tags))
    groups: dict[float, Group] = {}
    for tag, wire in zip(device.tags, wires, strict=True):
        period = period_of(tag, device)
        groups.setdefault(period, Group(period)).wires.append(wire)
    whole = Device(options.name, device.name, tuple(tag.tag(period_of(tag, device)) for tag in device.tags))
    return DevicePlan(device, whole, wires, list(groups.values()), Composer(whole, device.tags))


def period_of(tag: Tag, device: config.Device) -> float:
    return tag.scan_s or device.scan_s


def blocks(wires: Iterable[Wire], barriers: set[tuple[Area, int, int]], *, max_gap: int, most: int) -> list[Block]:
    """``wires`` in few blocks of at most ``most`` bytes (a tag that is longer is a block of its own)."""
    found: list[list[Wire]] = []
    end = 0
    for wire in sorted(wires, key=lambda one: (one.place.area, one.place.block, one.place.byte, one.size)):
        place = wire.place
        if found:
            first = found[-1][0].place
            together = (first.area, first.block) == (place.area, place.block) and place.byte <= end + max_gap
            fits = max(end, wire.end) - first.byte <= most
            if together and fits and (place.area, place.block, place.byte) not in barriers:
                found[-1].append(wire)
                end = max(end, wire.end)
                continue
        found.append([wire])
        end = wire.end
    return [block_of(each) for each in found]


def block_of(wires: Sequence[Wire]) -> Block:
    first = wires[0].place
    return Block(first.area, first.block, first.byte, max(wire.end for wire in wires) - first.byte, tuple(wires))


def split(block: Block) -> tuple[Block, Block] | None:
    """Two halves of ``block`` that have no byte in common where that can be; None where it is one place."""
    starts = sorted({wire.place.byte for wire in block.wires})
    if len(starts) < 2:
        return None
    border = starts[len(starts) // 2]
    halves = [[wire for wire in block.wires if (wire.place.byte < border) is left] for left in (True, False)]
    return block_of(halves[0]), block_of(halves[1])


def most_bytes(pdu: int) -> int:
    """The longest item that an answer of ``pdu`` bytes holds."""
    return pdu - HEADER - ITEM_HEADER


def items_of(block: Block, most: int) -> list[Item]:
    """The items that bring ``block``."""
    return [Item(block.area, block.number, block.first + at, min(most, block.size - at)) for at in range(0, block.size, most)]


def requests(items: Sequence[Item], pdu: int) -> list[list[Item]]:
    """``items``, in order, in as few requests as their answers and they themselves fit into PDUs of ``pdu`` bytes."""
    found: list[list[Item]] = []
    room = ask = 0
    for item in items:
        needs = ITEM_HEADER + item.size + item.size % 2
        if not found or room < needs or ask < REQUEST_ITEM or len(found[-1]) == MOST_ITEMS:
            found.append([])
            room, ask = pdu - HEADER + 1, pdu - HEADER  # the last item needs no fill byte
        found[-1].append(item)
        room -= needs
        ask -= REQUEST_ITEM
    return found
