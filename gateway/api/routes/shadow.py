"""Shadows: the last known and the desired state of each device."""

from __future__ import annotations

import asyncio
from typing import Final

import msgspec
from litestar.params import JSONBody

from gateway.api.conditional import must_match
from gateway.api.operation import Asked, Given, Reach, Seen, get, note, patch
from gateway.api.paging import Cursor, Limit, page_of
from gateway.api.routes.devices import DeviceName, must_see, seen_devices
from gateway.identity.principal import Permission
from gateway.shadow import Standing
from holdfast.shapes import shadow as shapes
from holdfast.shapes.common import Page
from holdfast.shapes.shadow import Shadow, ShadowChange, ShadowSummary


@get(
    "/shadows",
    id="list_shadows",
    permission=Permission.SEE_VALUES,
    reach=Reach.DEVICES,
    tag="shadows",
    summary="The shadow of each device, in short",
)
async def list_shadows(services: Given, sight: Seen, limit: Limit = 100, cursor: Cursor = None) -> Page[ShadowSummary]:
    """Shadows by device."""

    def show(device: str) -> ShadowSummary:
        found = services.latest.device(device)
        return (
            _in_short(services.shadows.standing(found))
            if found
            else ShadowSummary(device=device, version=0, present=False, desired=0, delta=0)
        )

    names = [one.name for one in seen_devices(services, sight)]
    return await page_of(names, str, show, limit=limit, cursor=cursor)


@get(
    "/devices/{device:str}/shadow",
    id="get_shadow",
    permission=Permission.SEE_VALUES,
    reach=Reach.DEVICES,
    tag="shadows",
    summary="What a device reported last and what is desired of it",
    problems=(404,),
)
async def get_shadow(services: Given, sight: Seen, device: DeviceName) -> Shadow:
    return await asyncio.to_thread(_shown, services.shadows.standing(must_see(services, sight, device)))


@patch(
    "/devices/{device:str}/shadow",
    id="change_shadow",
    permission=Permission.COMMAND,
    reach=Reach.DEVICES,
    tag="shadows",
    summary="Desire other values of a device",
    problems=(404, 409, 412),
)
async def change_shadow(request: Asked, services: Given, sight: Seen, device: DeviceName, data: JSONBody[ShadowChange]) -> Shadow:
    """Each tag that is named is desired anew: written once, when the device answers and reports another value."""
    one = must_see(services, sight, device)
    before = services.shadows.standing(one)
    if "if-match" in request.headers:
        must_match(request, await asyncio.to_thread(_shown, before))
    await services.shadows.change(one, data.desired, by=request.user, version=data.version, lifetime_s=data.lifetime_s, reason=data.reason)
    had = {tag: before.desired[tag].value if tag in before.desired else None for tag in data.desired}
    note(request, on=device, before=had, after=data.desired, detail=data.reason)
    return await asyncio.to_thread(_shown, services.shadows.standing(one))


def _in_short(one: Standing) -> ShadowSummary:
    return ShadowSummary(device=one.device.name, version=one.version, present=one.present, desired=len(one.desired), delta=len(one.delta))


def _shown(one: Standing) -> Shadow:
    """For threads: 10,000 tags take a tenth of a second."""
    return Shadow(
        device=one.device.name,
        version=one.version,
        present=one.present,
        desired={tag: _wish(each) for tag, each in one.desired.items()},
        reported={tag: shapes.ReportedValue(**each._asdict()) for tag, each in one.reported.items()},
        delta=dict(one.delta),
    )


def _wish(one: msgspec.Struct) -> shapes.Wish:
    return msgspec.convert(one, shapes.Wish, from_attributes=True)


OPERATIONS: Final = (list_shadows, get_shadow, change_shadow)
