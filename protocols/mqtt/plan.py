"""What a session of one connection does, computed once: its devices, which message is whose, and what to subscribe to. Pure.

Families are unfolded here: each name of the list is a device of its own. Where {device} is a level of its own in a family's
topic, one subscription with + stands for all; what arrives there for a name that is not in the list is nobody's.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Final

import msgspec

from protocols import model
from protocols.mqtt import config
from protocols.mqtt.config import DEVICE, Described, Mqtt
from protocols.mqtt.topics import Table, filled
from protocols.payload import Decoder, Format, PayloadOptions
from protocols.payload.edge import Edge, Place, place_of
from protocols.payload.paths import Find, compile_path

FAMILY_BY_NAME: Final = 8
"""Families of so few devices are subscribed to by name: nothing of others arrives."""


@dataclass(slots=True, eq=False)
class DevicePlan:
    """One device."""

    device: model.Device
    options: Described
    tags: tuple[config.Tag, ...]
    slots: dict[str, int]
    """By tag name."""
    place: Place | None = None
    """Where it is in Sparkplug."""


@dataclass(frozen=True, slots=True, eq=False)
class Values:
    """Messages of one topic that carry tags of a device."""

    plan: DevicePlan
    decoder: Decoder


@dataclass(frozen=True, slots=True, eq=False)
class Status:
    """Messages of one topic that say whether a device lives."""

    plan: DevicePlan
    find: Find | None
    """None where the whole payload says it."""


Route = Values | Status


@dataclass(slots=True, eq=False)
class Plan:
    devices: tuple[DevicePlan, ...]
    table: Table[Route]
    filters: dict[str, int]
    """What to subscribe to, with the quality of service."""
    edges: dict[tuple[str, str], Edge] = field(default_factory=dict)
    """Sparkplug nodes by group and name."""
    places: dict[tuple[str, str, str], DevicePlan] = field(default_factory=dict)
    """Devices by their Sparkplug names."""
    longest_payload: int = 0
    was_open: bool = False
    """A session was opened before: the broker should have kept what was published since."""

    def by_name(self, name: str) -> DevicePlan | None:
        return next((each for each in self.devices if each.device.name == name), None)


def described(options: Mqtt) -> Iterator[tuple[str, Described]]:
    """Name and description of every device, families unfolded."""
    for device in options.devices:
        yield device.name, device
    for family in options.families:
        for name in family.names:
            yield name, family


def make_plan(options: Mqtt) -> Plan:
    """``options`` passed the check without error."""
    devices: list[DevicePlan] = []
    wants: list[tuple[str, Route]] = []
    filters: dict[str, int] = {}
    edges: dict[tuple[str, str], dict[str, Decoder]] = {}
    plan = Plan((), Table(()), filters)
    for name, one in described(options):
        device = _device_plan(options.name, name, one)
        devices.append(device)
        plan.longest_payload = max(plan.longest_payload, one.max_bytes)
        if device.place is not None:
            decoder = Decoder(device.device, device.tags, one)
            edges.setdefault((device.place.group, device.place.node), {})[device.place.device] = decoder
            plan.places[device.place.group, device.place.node, device.place.device] = device
        else:
            wants.extend(_wanted(device, name))
        if one.status_topic:
            wants.append((filled(one.status_topic, name), Status(device, compile_path(one.status_at) if one.status_at else None)))
    for text, qos in _subscriptions(options):
        filters[text] = max(qos, filters.get(text, 0))
    for (group, node), decoders in edges.items():
        edge = plan.edges[group, node] = Edge(group, node, decoders)
        filters.update(dict.fromkeys(edge.filters, 1))
    plan.devices = tuple(devices)
    plan.table = Table(wants)
    return plan


def _device_plan(connection: str, name: str, one: Described) -> DevicePlan:
    tags = tuple(tag.tag() for tag in one.tags)
    return DevicePlan(
        device=model.Device(connection=connection, name=name, tags=tags),
        options=one,
        tags=one.tags,
        slots={tag.name: slot for slot, tag in enumerate(tags)},
        place=place_of(filled(one.topic, name)) if one.format is Format.SPARKPLUG else None,
    )


def _wanted(device: DevicePlan, name: str) -> Iterator[tuple[str, Route]]:
    """Each topic of a device, with the decoder for the tags that it carries."""
    slots: dict[str, list[int]] = {}
    for slot, tag in enumerate(device.tags):
        slots.setdefault(tag.topic or device.options.topic, []).append(slot)
    for text, carried in slots.items():
        payload = payload_options(device.options, [device.tags[slot] for slot in carried])
        yield filled(text, name), Values(device, Decoder(device.device, device.tags, payload, slots=carried))


def payload_options(one: Described, tags: Sequence[config.Tag]) -> PayloadOptions:
    """How the payloads of one topic are read: as the device's, but for a format of their own."""
    own = next((tag.format for tag in tags if tag.format), None)
    return msgspec.structs.replace(one, format=own, time_at="", records_at="") if own and own != one.format else one


def _subscriptions(options: Mqtt) -> Iterator[tuple[str, int]]:
    for one in (*options.devices, *options.families):
        names = (one.name,) if isinstance(one, config.Device) else one.names if isinstance(one, config.Family) else ()
        texts = {text: None for tag in one.tags if (text := tag.topic or one.topic)} if one.format is not Format.SPARKPLUG else {}
        if one.status_topic:
            texts[one.status_topic] = None
        for text in texts:
            levels = text.split("/")
            if len(names) > FAMILY_BY_NAME and DEVICE in levels and all(DEVICE not in level or level == DEVICE for level in levels):
                yield text.replace(DEVICE, "+"), one.qos
            else:
                yield from ((filled(text, name), one.qos) for name in names)
