"""What has to be known of a server before its values can be read: its namespaces, its limits, its types. Asked once a session."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Final

from protocols.opcua import answers, requests
from protocols.opcua.answers import Browsed, Fault, Reference
from protocols.opcua.binary import DATAVALUE, EXTENSION, INT32, Extension, Kept, Malformed, Reading
from protocols.opcua.nodes import NodeId
from protocols.opcua.requests import DATA_TYPE, DEFINITION, read_value
from protocols.opcua.shell import Peer, of_fault
from protocols.opcua.structures import ENUM_DEFINITION, MAX_BUILTIN, Structure, Types, builtin_of, definition

NAMESPACES: Final = NodeId(0, 2255)
MAX_READ: Final = NodeId(0, 11705)
MAX_MONITOR: Final = NodeId(0, 11714)
MAX_TYPES: Final = 500
MAX_SUPERTYPES: Final = 20
MAX_REFERENCES: Final = 100_000
"""What one node may lead to."""


@dataclass(slots=True)
class Server:
    """One server, as it is during one session."""

    namespaces: list[str] = field(default_factory=list)
    max_read: int = 1000
    max_monitor: int = 1000
    types: Types = field(default_factory=Types.none)


async def look(peer: Peer, most: int) -> Server:
    """Namespaces and limits. ``most`` is ours: nodes in one request."""
    asked = [read_value(node) for node in (NAMESPACES, MAX_READ, MAX_MONITOR)]
    names, max_read, max_monitor = await _three(peer, asked)
    found = [str(name) for name in names.value] if isinstance(names.value, Kept) else [""]
    return Server(found, _limit(max_read, most), _limit(max_monitor, most))


async def _three(peer: Peer, asked: Sequence[bytes]) -> Sequence[Reading]:
    got = await read(peer, asked, len(asked))
    return got[0], got[1], got[2]


def _limit(value: Reading, most: int) -> int:
    said = value.value
    return min(said, most) if isinstance(said, int) and said > 0 else most


async def read(peer: Peer, asked: Sequence[bytes], at_once: int) -> list[Reading]:
    """The values that ``asked`` names, in order, however many. Raises the contract's errors."""
    got: list[Reading] = []
    for at in range(0, len(asked), at_once):
        part = asked[at : at + at_once]
        try:
            values = await peer.ask(requests.read(part), answers.read)
        except Fault as fault:
            raise of_fault(fault, peer.where, f"reading {len(part)} values") from fault
        if len(values) != len(part):
            raise peer.broken(Malformed(f"{len(values)} values for {len(part)} that were asked for"))
        got += values
    return got


async def references(peer: Peer, request: requests.Request) -> list[Reference]:
    """Everything that a browse gives, to its end. Raises Fault, the contract's errors."""
    first = await peer.ask(request, lambda content: answers.browsed(content, answers.BROWSE))
    result = _only(first)
    found = list(result.references)
    while result.continuation:
        if len(found) >= MAX_REFERENCES or not result.references:
            await peer.ask(requests.browse_next(result.continuation, release=True), lambda content: None)
            break
        more = await peer.ask(requests.browse_next(result.continuation), lambda content: answers.browsed(content, answers.BROWSE_NEXT))
        result = _only(more)
        found += result.references
    return found


def _only(results: list[Browsed]) -> Browsed:
    if not results:
        return Browsed(0x80000000, b"", [])
    if results[0].status & 0x80000000:
        raise Fault(results[0].status)
    return results[0]


async def learn_types(peer: Peer, server: Server, nodes: Iterable[NodeId]) -> None:
    """Learn the types of the values of ``nodes``, and of what is in them, into ``server.types``."""
    asked = [read_value(node, DATA_TYPE) for node in nodes]
    wanted = [value.value for value in await read(peer, asked, server.max_read) if isinstance(value.value, NodeId)]
    seen: set[NodeId] = set()
    while wanted and len(seen) < MAX_TYPES:
        fresh = [each for each in dict.fromkeys(wanted) if each not in seen and not _is_builtin(each, server.types)][:MAX_TYPES]
        seen.update(fresh)
        wanted = await _learn(peer, server, fresh)


def _is_builtin(data_type: NodeId, types: Types) -> bool:
    if data_type.namespace == 0 and isinstance(data_type.identifier, int) and data_type.identifier <= MAX_BUILTIN:
        return data_type.identifier not in (EXTENSION, DATAVALUE)
    return builtin_of(data_type, types) != 0


async def _learn(peer: Peer, server: Server, data_types: list[NodeId]) -> list[NodeId]:
    """The types of the fields of ``data_types``."""
    further: list[NodeId] = []
    described = await read(peer, [read_value(each, DEFINITION) for each in data_types], server.max_read)
    for data_type, value in zip(data_types, described, strict=True):
        structure = _structure(value)
        if structure is not None:
            server.types.add(data_type, structure)
            further += [field.data_type for field in structure.fields]
        elif isinstance(value.value, Extension) and value.value.encoding == ENUM_DEFINITION:
            server.types.builtins[data_type] = INT32
        else:
            server.types.builtins[data_type] = await _ancestor(peer, data_type, server.types)
    return further


def _structure(value: Reading) -> Structure | None:
    if not isinstance(value.value, Extension):
        return None
    try:
        return definition(value.value)
    except Malformed:
        return None


async def _ancestor(peer: Peer, data_type: NodeId, types: Types) -> int:
    """The builtin type that ``data_type`` descends from; 0 where it is none."""
    for _ in range(MAX_SUPERTYPES):
        try:
            up = await references(peer, requests.browse(data_type, references=requests.HAS_SUBTYPE, inverse=True))
        except Fault:
            return 0
        if not up:
            return 0
        data_type = up[0].node
        if builtin := builtin_of(data_type, types):
            return builtin
    return 0
