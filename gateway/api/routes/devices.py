"""Devices and their tags. A tag's latest value is in ``values``; to write one is a command."""

from __future__ import annotations

from operator import attrgetter
from typing import Annotated, Final

from litestar.params import Parameter

from gateway.api import shown
from gateway.api.operation import Given, Reach, Seen, get
from gateway.api.paging import Cursor, Limit, page_of
from gateway.api.services import Services
from gateway.identity.principal import Permission
from gateway.identity.sight import Sight, no_device
from gateway.objections import NotThere
from holdfast.shapes.common import Page
from holdfast.shapes.devices import Device, Tag
from protocols import model

DeviceName = Annotated[str, Parameter(max_length=128, description="Name of the device.")]
TagName = Annotated[str, Parameter(max_length=512, description="Name of the tag; it may have / in it.")]
"""As a path of its own, hence with a / before it."""
OfConnection = Annotated[str | None, Parameter(max_length=128, description="Those of this connection alone.")]


@get("/devices", id="list_devices", permission=Permission.SEE_STATUS, reach=Reach.DEVICES, tag="devices", summary="How each device is")
async def list_devices(
    services: Given, sight: Seen, connection: OfConnection = None, limit: Limit = 100, cursor: Cursor = None
) -> Page[Device]:
    """Devices by name."""
    some = [one for one in seen_devices(services, sight) if connection is None or one.connection == connection]
    return await page_of(some, attrgetter("name"), lambda one: _shown(services, one), limit=limit, cursor=cursor)


@get(
    "/devices/{device:str}",
    id="get_device",
    permission=Permission.SEE_STATUS,
    reach=Reach.DEVICES,
    tag="devices",
    summary="How one device is",
)
async def get_device(services: Given, sight: Seen, device: DeviceName) -> Device:
    return _shown(services, must_see(services, sight, device))


@get(
    "/devices/{device:str}/tags",
    id="list_tags",
    permission=Permission.SEE_STATUS,
    reach=Reach.DEVICES,
    tag="devices",
    summary="What values a device has",
)
async def list_tags(services: Given, sight: Seen, device: DeviceName, limit: Limit = 100, cursor: Cursor = None) -> Page[Tag]:
    """Tags by name."""
    one = must_see(services, sight, device)
    tags = sorted(one.tags, key=attrgetter("name"))
    return await page_of(tags, attrgetter("name"), lambda tag: shown.tag(one, tag), limit=limit, cursor=cursor)


@get(
    "/devices/{device:str}/tags/{tag:path}",
    id="get_tag",
    permission=Permission.SEE_STATUS,
    reach=Reach.DEVICES,
    tag="devices",
    summary="What one value of a device is",
)
async def get_tag(services: Given, sight: Seen, device: DeviceName, tag: TagName) -> Tag:
    one = must_see(services, sight, device)
    return shown.tag(one, one.tags[slot_of(one, tag.removeprefix("/"))])


def seen_devices(services: Services, sight: Sight) -> list[model.Device]:
    """The devices of the field that ``sight`` sees, by name."""
    return sorted((one for one in services.latest.devices() if one.connection and sight.sees(one.name)), key=attrgetter("name"))


def must_see(services: Services, sight: Sight, name: str) -> model.Device:
    """Raises NotThere for what does not exist, and for what is not seen."""
    sight.must_see(name)
    one = services.latest.device(name)
    if one is None or not one.connection:  # the gateway's own have none
        raise no_device(name)
    return one


def slot_of(device: model.Device, tag: str) -> int:
    """Raises NotThere."""
    for slot, one in enumerate(device.tags):
        if one.name == tag:
            return slot
    raise NotThere(f"device {device.name!r} has no tag {tag!r}", "GET /api/v1/devices/{device}/tags lists them")


def _shown(services: Services, one: model.Device) -> Device:
    if services.latest.device(one.name) is not one:  # gone since the page was begun
        return shown.device(one, [], state="stopped", lost=True)
    connection = services.connection(one.connection)
    state = connection.status.state.value if connection else "stopped"
    return shown.device(one, services.latest.batches(one), state=state, lost=services.latest.is_lost(one))


OPERATIONS: Final = (list_devices, get_device, list_tags, get_tag)
