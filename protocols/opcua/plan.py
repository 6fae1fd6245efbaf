"""What a connection's configuration comes to: every tag as one item, with all that reading it needs. Computed once. Pure."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum
from typing import Final

from protocols import model
from protocols.model import COLUMN_OF, Column, Kind
from protocols.opcua import config
from protocols.opcua.binary import BOOLEAN, BYTE, DOUBLE, FLOAT, INT16, INT32, INT64, SBYTE, UINT16, UINT32, UINT64
from protocols.opcua.nodes import NodeId, Place, parse

DIRECT: Final[dict[Kind, int]] = {
    Kind.BOOL: BOOLEAN,
    Kind.INT8: SBYTE,
    Kind.UINT8: BYTE,
    Kind.INT16: INT16,
    Kind.UINT16: UINT16,
    Kind.INT32: INT32,
    Kind.UINT32: UINT32,
    Kind.INT64: INT64,
    Kind.UINT64: UINT64,
    Kind.FLOAT32: FLOAT,
    Kind.FLOAT64: DOUBLE,
}
"""The builtin type whose values are a kind's as they are; nothing has to be judged."""
NEVER: Final = -1


class Role(Enum):
    VALUE = "value"
    EVENT = "event"
    METHOD = "method"


@dataclass(slots=True)
class Item:
    """One tag."""

    device: int
    slot: int
    tag: config.Tag
    place: Place
    role: Role
    is_polled: bool
    column: Column
    direct: int
    """The builtin type that needs no judging; NEVER for a tag that is scaled, a part of a value, or text."""
    publishing_s: float
    sampling_s: float
    queue_size: int
    node: NodeId | None = None
    """The node on the server as it is now; None where it has no such namespace."""


@dataclass(slots=True)
class Plan:
    options: config.OpcUa
    devices: tuple[model.Device, ...]
    items: list[Item]
    """All tags of all devices. An item's place here is its client handle."""
    groups: dict[float, list[int]] = field(default_factory=dict)
    """Items by publishing interval: one subscription each."""
    polled: dict[int, list[int]] = field(default_factory=dict)
    """Items by device."""


def make_plan(options: config.OpcUa) -> Plan:
    """The plan of options that passed ``check``."""
    devices = tuple(
        model.Device(options.name, each.name, tuple(tag.tag(each.scan_s if is_polled(each, options) else 0.0) for tag in each.tags))
        for each in options.devices
    )
    plan = Plan(options, devices, [])
    for at, device in enumerate(options.devices):
        for slot, tag in enumerate(device.tags):
            _place(plan, make_item(at, slot, tag, device, options))
    return plan


def _place(plan: Plan, item: Item) -> None:
    handle = len(plan.items)
    plan.items.append(item)
    if item.role is Role.METHOD:
        return
    if item.is_polled:
        plan.polled.setdefault(item.device, []).append(handle)
    else:
        plan.groups.setdefault(item.publishing_s, []).append(handle)


def is_polled(device: config.Device, options: config.OpcUa) -> bool:
    return (device.mode or options.mode) == "poll"


def make_item(at: int, slot: int, tag: config.Tag, device: config.Device, options: config.OpcUa) -> Item:
    place = parse(tag.at)
    role = Role.EVENT if tag.event is not None else Role.METHOD if place.method else Role.VALUE
    publishing_s = _first(device.publishing_s, options.publishing_s)
    plain = role is Role.VALUE and not place.steps and not tag.is_scaled
    return Item(
        device=at,
        slot=slot,
        tag=tag,
        place=place,
        role=role,
        is_polled=is_polled(device, options) and role is Role.VALUE,  # events only ever come by themselves
        column=COLUMN_OF[tag.kind_after_scaling],
        direct=DIRECT.get(tag.kind, NEVER) if plain else NEVER,
        publishing_s=publishing_s,
        sampling_s=_first(tag.sampling_s, device.sampling_s, options.sampling_s, publishing_s),
        queue_size=int(_first(tag.queue_size, device.queue_size, options.queue_size)),
    )


def _first(*values: float | None) -> float:
    return next(value for value in values if value is not None)
