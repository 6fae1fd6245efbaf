"""Ask the network whether a configuration is true: can we connect, is every tag there, and is it what its tag says?"""

from __future__ import annotations

from typing import Final

from protocols.contract import ProbeReport
from protocols.model import Quality
from protocols.opcua import server
from protocols.opcua.binary import Malformed, Reading
from protocols.opcua.columns import plain
from protocols.opcua.plan import Item, Plan, Role
from protocols.opcua.requests import read_value
from protocols.opcua.shell import Peer, name_of
from protocols.opcua.structures import Absent, find
from protocols.opcua.write import NAMES
from protocols.values import value_of

MAX_TAGS: Final = 2000
MAX_TOLD: Final = 50


async def probe(plan: Plan, peer: Peer) -> ProbeReport:
    """What the server says to each tag of ``plan``. Raises a DriverError if the connection breaks."""
    known = await server.look(peer, plan.options.max_nodes)
    findings = [f"{peer.where}: connected ({plan.options.security.policy}), {len(known.namespaces)} namespaces"]
    for item in plan.items:
        item.node = item.place.node.on(known.namespaces)
    asked = [item for item in plan.items if item.node is not None][:MAX_TAGS]
    await server.learn_types(peer, known, [item.node for item in asked if item.node is not None and item.place.steps])
    attributes = [read_value(item.node, 13 if item.role is Role.VALUE else 1) for item in asked if item.node is not None]
    values = await server.read(peer, attributes, known.max_read)
    troubles = [
        f"{_named(plan, item)}: the server has no namespace {item.place.node.uri}; it has: {', '.join(known.namespaces[:20])}"
        for item in plan.items
        if item.node is None
    ]
    for item, value in zip(asked, values, strict=True):
        if said := _trouble(item, value, known):
            troubles.append(f"{_named(plan, item)}: {said}")
    if len(plan.items) > MAX_TAGS:
        findings.append(f"only the first {MAX_TAGS} of {len(plan.items)} tags were asked")
    good = len(plan.items) - len(troubles)
    findings.append(f"{good} of {len(plan.items)} tags are there and are what their kind says" if asked else "no tag was asked")
    findings += troubles[:MAX_TOLD]
    if len(troubles) > MAX_TOLD:
        findings.append(f"and {len(troubles) - MAX_TOLD} more")
    return ProbeReport(ok=not troubles, findings=tuple(findings))


def _named(plan: Plan, item: Item) -> str:
    return f"{plan.devices[item.device].name}: tag {item.tag.name} at {item.tag.at}"


def _trouble(item: Item, value: Reading, known: server.Server) -> str:
    if value.status & 0x80000000:
        return f"the server says {name_of(value.status)}: check at (holdfast browse shows what there is)"
    if item.role is not Role.VALUE:
        return ""
    try:
        raw = plain(find(value.value, item.place.steps, known.types), item.tag.kind, known.types)
    except (Absent, Malformed) as error:
        return f"{error}: check at"
    if raw is None or value_of(raw, item.tag)[1] is Quality.GOOD:
        return ""
    builtin = value.builtin & 0x3F
    held = NAMES[builtin] if builtin < len(NAMES) else f"type {builtin}"
    array = ", an array" if value.builtin & 0x80 else ""
    return f"the server holds {held}{array}, which is no {item.tag.kind}: check kind and at"
