"""The list of repairs, and the fixes that can be pressed."""

from __future__ import annotations

from typing import Annotated, Final

from litestar.params import JSONBody, Parameter

from gateway.api.operation import Asked, Given, Reach, Seen, delete, get, note, post
from gateway.api.paging import Cursor, Limit, page_of
from gateway.identity.principal import Permission
from gateway.repairs import Entry
from gateway.repairs.shown import order, shown
from holdfast.shapes.common import Page
from holdfast.shapes.repairs import PutOffWish, Repair, RepairDone

RepairId = Annotated[str, Parameter(max_length=128, description="Id of the fault.")]


@get(
    "/repairs",
    id="list_repairs",
    permission=Permission.SEE_STATUS,
    reach=Reach.DEVICES,
    tag="repairs",
    summary="Each known fault as it is now",
)
async def list_repairs(services: Given, sight: Seen, limit: Limit = 100, cursor: Cursor = None) -> Page[Repair]:
    """The worst first."""
    return await page_of(await services.repairs.entries(sight), order, shown, limit=limit, cursor=cursor)


@get(
    "/repairs/{repair:str}",
    id="get_repair",
    permission=Permission.SEE_STATUS,
    reach=Reach.DEVICES,
    tag="repairs",
    summary="One known fault",
    problems=(404,),
)
async def get_repair(services: Given, sight: Seen, repair: RepairId) -> Repair:
    return shown(await services.repairs.entry(repair, sight))


@post(
    "/repairs/{repair:str}/fix",
    id="fix_repair",
    permission=Permission.REPAIR,
    reach=Reach.DEVICES,
    tag="repairs",
    summary="Press the fix of a known fault",
    status=200,
    problems=(404, 409),
)
async def fix_repair(request: Asked, services: Given, sight: Seen, repair: RepairId) -> RepairDone:
    """It needs the permission of what it does as well."""
    entry, done = await services.repairs.press(repair, sight, request.user)
    _note(request, entry, done)
    return RepairDone(done=done, undo=entry.fix.undo if entry.fix else "")


@post(
    "/repairs/{repair:str}/put-off",
    id="put_off_repair",
    permission=Permission.REPAIR,
    reach=Reach.DEVICES,
    tag="repairs",
    summary="A known fault waits",
    status=200,
    problems=(404,),
)
async def put_off_repair(request: Asked, services: Given, sight: Seen, repair: RepairId, data: JSONBody[PutOffWish]) -> Repair:
    entry = await services.repairs.put_off(repair, sight, by=request.user.called, reason=data.reason, for_s=data.for_s)
    _note(request, entry, data.reason)
    return shown(entry)


@delete(
    "/repairs/{repair:str}/put-off",
    id="bring_back_repair",
    permission=Permission.REPAIR,
    reach=Reach.DEVICES,
    tag="repairs",
    summary="A known fault waits no longer",
    problems=(404,),
)
async def bring_back_repair(request: Asked, services: Given, sight: Seen, repair: RepairId) -> None:
    await services.repairs.bring_back(repair, sight)
    note(request, on=repair)


def _note(request: Asked, entry: Entry, done: str) -> None:
    note(request, on=f"{entry.fault.kind} {entry.fault.name}".strip(), detail=done)


OPERATIONS: Final = (list_repairs, get_repair, fix_repair, put_off_repair, bring_back_repair)
