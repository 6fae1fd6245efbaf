"""What a connection will ask, computed once: devices, requests that only need a token, decoders, and whose tag lies where. Pure."""

from __future__ import annotations

import weakref
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, Generic, TypeVar

import msgspec

from protocols.coap.config import Coap, Device, Resource
from protocols.coap.message import GET, POST, PUT, Message, Option, Options, ordered, uint
from protocols.model import Device as Subject
from protocols.payload import COAP_FORMAT_OF, Decoder, PayloadTag

WELL_KNOWN: Final = "/.well-known/core"


@dataclass(slots=True, eq=False)
class ResourcePlan:
    options: Resource
    slots: range
    period_s: float
    request: Message
    """A GET, but for its token."""
    decoder: Decoder
    read_back: Decoder
    """For what a command looks at: a decoder serves one at a time."""
    is_text: bool
    """Whether a payload that does not say its format is one text."""


@dataclass(slots=True, eq=False)
class DevicePlan:
    options: Device
    device: Subject
    tags: tuple[PayloadTag, ...]
    resources: tuple[ResourcePlan, ...]

    def resource_of(self, slot: int) -> ResourcePlan:
        return next(each for each in self.resources if slot in each.slots)


@dataclass(slots=True, eq=False)
class Plan:
    devices: tuple[DevicePlan, ...]


def make_plan(options: Coap) -> Plan:
    return Plan(tuple(_device(options, each) for each in options.devices))


def _device(connection: Coap, options: Device) -> DevicePlan:
    tags = tuple(tag for resource in options.resources for tag in resource.tags)
    periods = [resource.scan_s or options.scan_s for resource in options.resources for _ in resource.tags]
    device = Subject(connection.name, options.name, tuple(tag.tag(period) for tag, period in zip(tags, periods, strict=True)))
    resources: list[ResourcePlan] = []
    first = 0
    for resource in options.resources:
        slots = range(first, first + len(resource.tags))
        resources.append(
            ResourcePlan(
                options=resource,
                slots=slots,
                period_s=resource.scan_s or options.scan_s,
                request=Message(code=GET, options=_asked(resource)),
                decoder=Decoder(device, tags, resource, slots=slots),
                read_back=Decoder(device, tags, resource, slots=slots),
                is_text=all(not tag.at for tag in resource.tags),
            )
        )
        first = slots.stop
    return DevicePlan(options, device, tags, tuple(resources))


def _asked(resource: Resource) -> Options:
    accept = () if resource.accept is None else ((int(Option.ACCEPT), uint(COAP_FORMAT_OF[resource.accept])),)
    return ordered(*place(resource.path, resource.query), *accept)


def place(path: str, query: tuple[str, ...] = ()) -> Options:
    """Uri-Path and Uri-Query (RFC 7252, 6.4). ``/`` alone is no path; a slash at the end is an empty part."""
    parts = [] if path == "/" else path.removeprefix("/").split("/")
    return (*((int(Option.URI_PATH), part.encode()) for part in parts), *((int(Option.URI_QUERY), part.encode()) for part in query))


def write_request(resource: Resource, payload: bytes, content_format: int) -> Message:
    """The PUT or POST that carries ``payload``."""
    where = place(resource.write_path or resource.path, resource.query)
    options = ordered(*where, (int(Option.CONTENT_FORMAT), uint(content_format)))
    return Message(code=PUT if resource.write_with == "put" else POST, options=options, payload=payload)


Given = TypeVar("Given", bound=msgspec.Struct)
Made = TypeVar("Made")


class Kept(Generic[Given, Made]):
    """What was made of an options object, for as long as that object lives; equal objects have their own."""

    def __init__(self, make: Callable[[Given], Made]) -> None:
        self._make = make
        self._made: dict[int, tuple[weakref.ref[Given], Made]] = {}

    def of(self, options: Given) -> Made:
        key = id(options)
        if key not in self._made:
            forget = weakref.ref(options, lambda _: self._made.pop(key, None))
            self._made[key] = (forget, self._make(options))
        return self._made[key][1]
