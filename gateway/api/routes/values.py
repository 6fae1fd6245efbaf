"""The latest value of every tag: one object a value, in pages, by device and tag.

A page looks at devices one after the other and lets the loop go in between, so that a site of 10,000 tags holds nobody up.
"""

from __future__ import annotations

import asyncio
import re
from bisect import bisect_left
from fnmatch import translate
from operator import attrgetter
from typing import Annotated, Final

from litestar.params import Parameter

from gateway.api import shown
from gateway.api.operation import Given, Reach, Seen, get
from gateway.api.paging import Cursor, Limit, after, cursor_of
from gateway.api.routes.devices import DeviceName, TagName, must_see, seen_devices, slot_of
from gateway.api.services import Services
from gateway.identity.principal import Permission
from holdfast.shapes.common import Page
from holdfast.shapes.values import Reading
from protocols import model

Pattern = Annotated[str, Parameter(max_length=256, description="Names, where * stands for any text and ? for any letter.")]
PORTION: Final = 200
"""Tags that are looked at before the loop gets its turn."""
_ALL: Final = "*"


@get(
    "/values",
    id="list_values",
    permission=Permission.SEE_VALUES,
    reach=Reach.DEVICES,
    tag="values",
    summary="The latest values of many devices",
)
async def list_values(
    services: Given, sight: Seen, device: Pattern = _ALL, tag: Pattern = _ALL, limit: Limit = 100, cursor: Cursor = None
) -> Page[Reading]:
    """Values by device and tag. Without patterns, of all."""
    wanted = re.compile(translate(device))
    devices = [one for one in seen_devices(services, sight) if wanted.fullmatch(one.name)]
    return await _page(services, devices, tag, limit, cursor)


@get(
    "/devices/{device:str}/values",
    id="list_device_values",
    permission=Permission.SEE_VALUES,
    reach=Reach.DEVICES,
    tag="values",
    summary="The latest values of one device",
)
async def list_device_values(
    services: Given, sight: Seen, device: DeviceName, tag: Pattern = _ALL, limit: Limit = 100, cursor: Cursor = None
) -> Page[Reading]:
    """Values by tag."""
    return await _page(services, [must_see(services, sight, device)], tag, limit, cursor)


@get(
    "/devices/{device:str}/values/{tag:path}",
    id="get_value",
    permission=Permission.SEE_VALUES,
    reach=Reach.DEVICES,
    tag="values",
    summary="The latest value of one tag",
)
async def get_value(services: Given, sight: Seen, device: DeviceName, tag: TagName) -> Reading:
    one, tag = must_see(services, sight, device), tag.removeprefix("/")
    slot = slot_of(one, tag)
    return next(shown.readings(one, services.latest.batches(one), {slot: tag}))


async def _page(services: Services, devices: list[model.Device], tags: str, limit: int, cursor: str | None) -> Page[Reading]:
    """``devices`` sorted by name. One reading more than asked is looked for: whether there is a next page."""
    begin = after(cursor, tuple[str, str]) if cursor else None
    pattern = None if tags == _ALL else re.compile(translate(tags))
    found: list[Reading] = []
    looked = 0
    for one in devices[bisect_left(devices, begin[0], key=attrgetter("name")) if begin else 0 :]:
        if services.latest.device(one.name) is not one:  # gone since the loop had its turn
            continue
        named = sorted((tag.name, slot) for slot, tag in enumerate(one.tags))
        past = begin[1] if begin and begin[0] == one.name else None
        wanted = {
            slot: name for name, slot in named if (past is None or name > past) and (pattern is None or pattern.fullmatch(name) is not None)
        }
        some = dict(list(wanted.items())[: limit + 1 - len(found)])
        if some:
            for at, reading in enumerate(shown.readings(one, services.latest.batches(one), some), start=1):
                found.append(reading)
                if at % PORTION == 0:
                    await asyncio.sleep(0)
        if len(found) > limit:
            last = found[limit - 1]
            return Page(items=found[:limit], next=cursor_of((last.device, last.tag)))
        looked += len(named)
        if looked >= PORTION:
            looked = 0
            await asyncio.sleep(0)
    return Page(items=found)


OPERATIONS: Final = (list_values, list_device_values, get_value)
