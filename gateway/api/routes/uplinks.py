"""Uplinks: who the gateway delivers to, how far it has got, and what waits."""

from __future__ import annotations

from operator import attrgetter
from typing import Annotated, Final

from litestar.params import Parameter

from gateway import journal, links
from gateway.api import shown
from gateway.api.operation import Given, Reach, get
from gateway.api.paging import Cursor, Limit, page_of
from gateway.api.services import Services
from gateway.identity.principal import Permission
from gateway.journal import Lane
from gateway.objections import NotThere
from holdfast.shapes.common import Page
from holdfast.shapes.journal import UplinkAccount
from holdfast.shapes.uplinks import Uplink


@get("/uplinks", id="list_uplinks", permission=Permission.SEE_STATUS, reach=Reach.GATEWAY, tag="uplinks", summary="How each uplink is")
async def list_uplinks(services: Given, limit: Limit = 100, cursor: Cursor = None) -> Page[Uplink]:
    """Uplinks by name, each with its account."""
    ledger = services.journal.ledger()
    statuses = sorted((one for one in services.statuses() if one.kind == "uplink"), key=attrgetter("name"))
    return await page_of(statuses, attrgetter("name"), lambda one: _shown(services, ledger, one), limit=limit, cursor=cursor)


@get(
    "/uplinks/{uplink:str}",
    id="get_uplink",
    permission=Permission.SEE_STATUS,
    reach=Reach.GATEWAY,
    tag="uplinks",
    summary="How one uplink is",
)
async def get_uplink(services: Given, uplink: Annotated[str, Parameter(max_length=128, description="Name of the uplink.")]) -> Uplink:
    for one in services.statuses():
        if one.kind == "uplink" and one.name == uplink:
            return _shown(services, services.journal.ledger(), one)
    raise NotThere(f"no uplink is called {uplink!r}", "GET /api/v1/uplinks lists them")


def accounts(services: Services, ledger: journal.Ledger, uplink: str) -> list[UplinkAccount]:
    """The account of ``uplink``, one of each lane."""
    reader = journal.Reader(services.journal, uplink)
    now_ns = services.clock.time_ns()
    found: list[UplinkAccount] = []
    for lane, account in sorted(ledger.readers.get(uplink, {}).items()):
        pending = reader.pending(Lane(lane))
        cursor = pending[0][0] if pending else reader.head(Lane(lane))
        found.append(shown.uplink_account(uplink, lane, account, cursor=cursor, now_ns=now_ns))
    return found


def _shown(services: Services, ledger: journal.Ledger, status: links.Status) -> Uplink:
    kind = next((one.__struct_config__.tag for one in services.site().uplinks if one.name == status.name), "")
    return Uplink(**shown.link(status), type=str(kind), lanes=accounts(services, ledger, status.name))


OPERATIONS: Final = (list_uplinks, get_uplink)
