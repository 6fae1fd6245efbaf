"""What a server has: its values below a node, in its own order, each with its type, access, unit and what it holds just now.

Depth first along hierarchical references; a node that can be reached twice is told once. Structures are told by their fields, so
that each can be a tag. How far it goes is bounded: by what the caller wants, by depth, and by the nodes that are remembered.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from itertools import islice
from typing import Any, Final

from protocols.contract import Misfit, Offer
from protocols.model import Kind
from protocols.opcua import requests, server
from protocols.opcua.answers import Fault, Reference
from protocols.opcua.binary import BYTESTRING, DATETIME, STRING, Extension, Kept, Localized, Malformed, Moment, Packed, Reader, Reading
from protocols.opcua.columns import as_json
from protocols.opcua.nodes import Impossible, NodeId, Place, named, parse_node
from protocols.opcua.plan import DIRECT
from protocols.opcua.requests import ACCESS, OBJECT, VARIABLE, read_value
from protocols.opcua.shell import Peer, name_of
from protocols.opcua.structures import Absent, Types, builtin_of, fields

MAX_DEPTH: Final = 40
MAX_NODES: Final = 1_000_000
"""Nodes that are remembered, so that none is told twice; 100 bytes each."""
MAX_FIELDS: Final = 200
"""Offers from one structured value."""
MAX_ELEMENTS: Final = 16
"""Elements of an array that are offered one by one."""
SHOWN: Final = 60
OBJECTS: Final = NodeId(0, 85)
DESCRIPTION: Final = 5
ATTRIBUTES: Final = (requests.VALUE, ACCESS, requests.DATA_TYPE, DESCRIPTION)
UNITS: Final = NodeId(0, 889)
WRITABLE: Final = 0x02
KIND_OF: Final[dict[int, Kind]] = {builtin: kind for kind, builtin in DIRECT.items()} | {
    STRING: Kind.STRING,
    BYTESTRING: Kind.BYTES,
    DATETIME: Kind.STRING,
    14: Kind.STRING,
    16: Kind.STRING,
    17: Kind.STRING,
    18: Kind.STRING,
    19: Kind.UINT32,
    20: Kind.STRING,
    21: Kind.STRING,
}


@dataclass(frozen=True)
class _Found:
    node: NodeId
    path: str
    depth: int


async def browse(peer: Peer, start: str, limit: int, most: int) -> AsyncIterator[Offer]:
    """At most ``limit`` values at or below ``start``, a node id as ``at`` has it; empty begins at the Objects folder. Raises Misfit."""
    known = await server.look(peer, most)
    try:
        node = parse_node(start).on(known.namespaces) if start else OBJECTS
    except Impossible as reason:
        raise Misfit(f"start: {reason}: {reason.advice}") from None
    if node is None:
        raise Misfit(f"{peer.where}: the server has no namespace of {start}; it has: {', '.join(known.namespaces[:20])}")
    walk = _Walk(peer, known)
    told = 0
    async for offer in walk.offers(node, is_start=bool(start)):
        if told >= limit:
            return
        told += 1
        yield offer


class _Walk:
    def __init__(self, peer: Peer, known: server.Server) -> None:
        self._peer, self._known = peer, known
        self._seen: set[NodeId] = set()

    async def offers(self, start: NodeId, *, is_start: bool) -> AsyncIterator[Offer]:
        stack = [_Found(start, "", 0)]
        self._seen.add(start)
        if is_start:
            for offer in await self._values([_Found(start, str(start), 0)], quiet=True):
                yield offer
        while stack:
            at = stack.pop()
            below: list[_Found] = []
            values: list[_Found] = []
            for each in await self._below(at):
                found = _Found(each.node, f"{at.path}/{each.name}" if at.path else each.name, at.depth + 1)
                if each.node_class == VARIABLE:
                    values.append(found)
                below.append(found)
            for part in range(0, len(values), 100):
                for offer in await self._values(values[part : part + 100]):
                    yield offer
            if at.depth < MAX_DEPTH:
                stack.extend(reversed(below))

    async def _below(self, at: _Found) -> list[Reference]:
        try:
            found = await server.references(self._peer, requests.browse(at.node, classes=OBJECT | VARIABLE))
        except Fault:
            return []  # a node that may not be looked into is left out, as others are told
        fresh = []
        for each in found:
            if each.type != requests.HAS_PROPERTY and each.node not in self._seen and len(self._seen) < MAX_NODES:
                self._seen.add(each.node)
                fresh.append(each)
        return fresh

    async def _values(self, found: list[_Found], *, quiet: bool = False) -> list[Offer]:
        asked = [
            read_value(each.node, attribute) for each in found for attribute in (requests.VALUE, ACCESS, requests.DATA_TYPE, DESCRIPTION)
        ]
        got = await server.read(self._peer, asked, self._known.max_read)
        offers: list[Offer] = []
        for at, each in enumerate(found):
            value, access, data_type, description = got[4 * at : 4 * at + 4]
            if quiet and data_type.status & 0x80000000:
                continue  # the start is a folder
            declared = data_type.value if isinstance(data_type.value, NodeId) else None
            if declared is not None and (isinstance(value.value, Extension) or _holds_structures(value.value)):
                await server.learn_types(self._peer, self._known, [each.node])
            unit = await self._unit(each) if isinstance(value.value, int | float) and not isinstance(value.value, bool) else ""
            writable = isinstance(access.value, int) and bool(access.value & WRITABLE)
            said = description.value if isinstance(description.value, Localized) else ""
            offers += self._offers_of(each, value, declared, unit=unit, writable=writable, description=str(said))
        return offers

    async def _unit(self, at: _Found) -> str:
        """The value's EngineeringUnits, where it has them (OPC 10000-8, 5.6.3)."""
        try:
            properties = await server.references(self._peer, requests.browse(at.node, references=requests.HAS_PROPERTY, classes=VARIABLE))
        except Fault:
            return ""
        node = next((one.node for one in properties if one.name == "EngineeringUnits"), None)
        if node is None:
            return ""
        (value,) = await server.read(self._peer, [read_value(node)], 1)
        return _unit_name(value.value)

    def _offers_of(
        self, at: _Found, value: Reading, declared: NodeId | None, *, unit: str, writable: bool, description: str
    ) -> Iterator[Offer]:
        place = Place(named(at.node, self._known.namespaces))
        types = self._known.types
        if isinstance(value.value, Extension | Packed | Kept):
            if value.status & 0x80000000:
                return
            for steps, leaf in _leaves(value.value, types, ()):
                whole = Place(place.node, steps)
                is_element = len(steps) == 1 and isinstance(steps[0], int)
                builtin = value.builtin & 0x3F if is_element else 0
                kind = KIND_OF.get(builtin) or _kind_of(leaf)
                path = "/".join([at.path, *(str(step) for step in steps)])
                yield Offer(
                    path=path,
                    at=str(whole),
                    kind=kind,
                    unit=unit,
                    writable=writable and is_element,
                    value=_shown(leaf),
                    description=description,
                )
            return
        builtin = value.builtin or (builtin_of(declared, types) if declared else 0)
        shown = name_of(value.status) if value.status & 0x80000000 else _shown(value.value)
        yield Offer(
            path=at.path,
            at=str(place),
            kind=KIND_OF.get(builtin & 0x3F),
            unit=unit,
            writable=writable,
            value=shown,
            description=description,
        )


def _unit_name(value: Any) -> str:  # Any: see binary.Reading
    if not isinstance(value, Extension) or value.encoding != UNITS:
        return ""
    try:
        reader = Reader(value.body)
        reader.string()
        reader.take(4)
        return str(reader.localized())[:64]
    except Malformed:
        return ""


def _holds_structures(value: Any) -> bool:  # Any: as above
    return isinstance(value, Kept) and bool(value) and isinstance(value[0], Extension)


def _leaves(value: Any, types: Types, steps: tuple[str | int, ...]) -> Iterator[tuple[tuple[str | int, ...], Any]]:  # Any: as above
    """Every plain value in a structure or an array, with the way to it; at most MAX_FIELDS."""
    yield from islice(_walk(value, types, steps), MAX_FIELDS)


def _walk(value: Any, types: Types, steps: tuple[str | int, ...]) -> Iterator[tuple[tuple[str | int, ...], Any]]:  # Any: as above
    if len(steps) > 12:
        return
    if isinstance(value, Extension):
        try:
            value = fields(value, types)
        except (Absent, Malformed):
            return
    if isinstance(value, dict):
        for name, inner in value.items():
            yield from _walk(inner, types, (*steps, name))
    elif isinstance(value, Packed):
        for at in range(min(value.length, MAX_ELEMENTS)):
            yield (*steps, at), value.element(at)
    elif isinstance(value, Kept):
        for at, inner in enumerate(value[:MAX_ELEMENTS]):
            yield from _walk(inner, types, (*steps, at))
    else:
        yield steps, value


def _kind_of(value: Any) -> Kind | None:  # Any: as above
    if isinstance(value, bool):
        return Kind.BOOL
    if isinstance(value, Moment | str | NodeId):
        return Kind.STRING
    if isinstance(value, int):
        return Kind.INT64 if value < 2**63 else Kind.UINT64
    if isinstance(value, float):
        return Kind.FLOAT64
    return Kind.BYTES if isinstance(value, bytes) else None


def _shown(value: Any) -> str:  # Any: as above
    if value is None:
        return ""
    text = value.hex() if isinstance(value, bytes) else value if isinstance(value, str) else as_json(value, Types.none())
    text = "".join(letter if letter.isprintable() else " " for letter in str(text[: 4 * SHOWN]).strip('"'))
    return text if len(text) <= SHOWN else text[: SHOWN - 3] + "..."
