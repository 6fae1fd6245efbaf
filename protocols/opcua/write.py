"""Carrying out commands: writing a value in the type that the server holds, and a look at it afterwards; calling a method.

A write is acknowledged by a status, and acknowledged is not applied: the value is read back and compared. A method is another
matter: its result is the server's word on what it did, there is nothing to read, and so a call that returns well is verified.
A command is never sent after its deadline.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Final

from protocols.clock import Clock
from protocols.contract import DriverError
from protocols.model import Command, Outcome, OutcomeState
from protocols.opcua import answers, requests, server
from protocols.opcua.answers import Fault
from protocols.opcua.binary import (
    BOOLEAN,
    BYTESTRING,
    DATETIME,
    DOUBLE,
    FLOAT,
    STRING,
    TEXT,
    TICKS_1970,
    Extension,
    Kept,
    Malformed,
    Packed,
    Reader,
)
from protocols.opcua.columns import as_json, plain
from protocols.opcua.nodes import NodeId
from protocols.opcua.plan import Item, Plan, Role
from protocols.opcua.requests import DATA_TYPE, METHOD, read_value
from protocols.opcua.shell import Peer, name_of
from protocols.opcua.structures import Absent, builtin_of, find
from protocols.outcomes import Result, Stop, carried_out, refused
from protocols.steps import Step, tell
from protocols.values import Unwritable, Value, is_same, raw_of

ARGUMENT: Final = NodeId(0, 298)
MAX_ARGUMENTS: Final = 64
BAD: Final = 0x80000000
NAMES: Final = (
    *("nothing", "Boolean", "SByte", "Byte", "Int16", "UInt16", "Int32", "UInt32", "Int64", "UInt64", "Float", "Double", "String"),
    *("DateTime", "Guid", "ByteString", "XmlElement", "NodeId", "ExpandedNodeId", "StatusCode", "QualifiedName", "LocalizedText"),
    *("structure", "DataValue", "variant", "DiagnosticInfo"),
)


@dataclass(frozen=True)
class _Method:
    node: NodeId
    arguments: tuple[tuple[str, int], ...]
    """Name and builtin type of each."""


@dataclass(slots=True)
class Writer:
    """Writes for one session."""

    plan: Plan
    peer: Peer
    clock: Clock
    ready: Callable[[], Awaitable[server.Server]]
    _builtins: dict[int, int] = field(default_factory=dict)
    """By item, the type in which the server holds it."""
    _methods: dict[int, _Method] = field(default_factory=dict)

    async def write(self, commands: Sequence[Command]) -> list[Outcome]:
        """One outcome for each command, in order. Raises a DriverError only if the connection was gone before the first."""
        if self.peer.is_lost:
            raise self.peer.trouble
        return await carried_out(commands, self._attempt, self.clock)

    async def _attempt(self, command: Command) -> Result:
        try:
            detail, value = await self._carry_out(command)
        except Fault as fault:
            raise refused(f"the server refused: {name_of(fault.status)}") from None
        return OutcomeState.VERIFIED, detail, value

    async def _carry_out(self, command: Command) -> tuple[str, Value | None]:
        handle = self._find(command)
        item = self.plan.items[handle]
        if not item.tag.writable or item.role is Role.EVENT:
            raise refused(f"tag {item.tag.name} is not writable: set writable in the configuration")
        known = await self.ready()
        if item.node is None:
            raise refused(f"tag {item.tag.name}: the server has no namespace {item.place.node.uri}")
        try:
            raw = raw_of(command.value, item.tag)
            if item.role is Role.METHOD:
                return await self._call(handle, item, item.node, raw, known, command)
            return await self._put(handle, item, item.node, raw, known, command)
        except Unwritable as error:
            raise refused(f"tag {item.tag.name}: {error}") from None

    def _find(self, command: Command) -> int:
        devices = {device.name: at for at, device in enumerate(self.plan.devices)}
        if command.device not in devices:
            raise refused(f"no device {command.device} on this connection")
        for handle, item in enumerate(self.plan.items):
            if item.device == devices[command.device] and item.tag.name == command.tag:
                return handle
        raise refused(f"device {command.device} has no tag {command.tag}")

    def _in_time(self, command: Command) -> None:
        if self.clock.time_ns() >= command.deadline_ns:
            raise Stop(OutcomeState.EXPIRED, "the deadline had passed before it could be sent")

    # ------------------------------------------------------------------------------------------ values

    async def _put(
        self, handle: int, item: Item, node: NodeId, raw: Value, known: server.Server, command: Command
    ) -> tuple[str, Value | None]:
        self._in_time(command)
        builtin = await self._builtin(handle, item, node, known)
        element = next((step for step in item.place.steps if isinstance(step, int)), None)
        content = encoded(builtin, raw, one_of_array=element is not None)
        self._in_time(command)
        request = requests.write(node, content, "" if element is None else str(element))
        tell(Step.SENT)
        statuses = await self.peer.ask(request, lambda content: answers.statuses(content, answers.WRITE))
        status = statuses[0] if statuses else BAD
        if status & BAD:
            raise refused(f"the server refused: {name_of(status)}")
        tell(Step.ACKNOWLEDGED)
        return await self._look(item, node, raw, known)

    async def _builtin(self, handle: int, item: Item, node: NodeId, known: server.Server) -> int:
        """The type in which the server holds it: of its value, or where that is null, of its declaration."""
        if handle not in self._builtins:
            value, data_type = await server.read(self.peer, [read_value(node), read_value(node, DATA_TYPE)], known.max_read)
            builtin = value.builtin & 0x3F
            if bool(value.builtin & 0x80) != bool(item.place.steps) and builtin:
                raise Unwritable("it is an array: at needs > [NUMBER]" if value.builtin & 0x80 else "it is no array, and at has > [NUMBER]")
            if not builtin and isinstance(data_type.value, NodeId):
                builtin = builtin_of(data_type.value, known.types)
            if not builtin:
                raise Unwritable(f"the server does not say what it holds ({name_of(value.status)})")
            self._builtins[handle] = builtin
        return self._builtins[handle]

    async def _look(self, item: Item, node: NodeId, told: Value, known: server.Server) -> tuple[str, Value | None]:
        try:
            (value,) = await server.read(self.peer, [read_value(node)], 1)
        except DriverError as error:
            raise Stop(OutcomeState.FAILED, f"acknowledged, but it could not be read back: {error}") from None
        if value.status & BAD:
            raise Stop(OutcomeState.FAILED, f"acknowledged, but it cannot be read back: {name_of(value.status)}")
        try:
            seen = plain(find(value.value, item.place.steps, known.types), item.tag.kind, known.types)
        except (Absent, Malformed) as error:
            raise Stop(OutcomeState.MISMATCH, f"what was read back makes no sense: {error}") from None
        if is_same(told, seen, item.tag):
            return "", _scaled(seen, item)
        raise Stop(OutcomeState.MISMATCH, f"wrote {_short(told)}, read back {_short(seen)}", _scaled(seen, item))

    # ------------------------------------------------------------------------------------------ methods

    async def _call(
        self, handle: int, item: Item, owner: NodeId, raw: Value, known: server.Server, command: Command
    ) -> tuple[str, Value | None]:
        self._in_time(command)
        method = await self._method(handle, item, owner, known)
        arguments = [requests_variant(builtin, value, name) for (name, builtin), value in _matched(method, raw)]
        self._in_time(command)
        tell(Step.SENT)
        called = await self.peer.ask(requests.call(owner, method.node, arguments), answers.call)
        if called.status & BAD:
            wrong = [
                f"{method.arguments[at][0]}: {name_of(status)}"
                for at, status in enumerate(called.arguments[: len(method.arguments)])
                if status & BAD
            ]
            raise refused(f"the server refused: {name_of(called.status)}" + (f" ({', '.join(wrong)})" if wrong else ""))
        tell(Step.ACKNOWLEDGED)
        outputs = [_short(as_json(one, known.types)) for one in called.outputs[:MAX_ARGUMENTS]]
        return f"the server carried {item.place.method} out" + (f" and returned {', '.join(outputs)}" if outputs else ""), None

    async def _method(self, handle: int, item: Item, owner: NodeId, known: server.Server) -> _Method:
        """The method of the object by its name, and what it takes. Raises Unwritable."""
        if handle not in self._methods:
            found = await server.references(self.peer, requests.browse(owner, references=requests.HAS_COMPONENT, classes=METHOD))
            node = next((one.node for one in found if one.name == item.place.method), None)
            if node is None:
                names = ", ".join(one.name for one in found[:10]) or "none"
                raise Unwritable(f"the object has no method {item.place.method}; it has: {names}")
            self._methods[handle] = _Method(node, await self._arguments(node, known))
        return self._methods[handle]

    async def _arguments(self, method: NodeId, known: server.Server) -> tuple[tuple[str, int], ...]:
        properties = await server.references(self.peer, requests.browse(method, references=requests.HAS_PROPERTY))
        node = next((one.node for one in properties if one.name == "InputArguments"), None)
        if node is None:
            return ()
        (value,) = await server.read(self.peer, [read_value(node)], 1)
        found = value.value if isinstance(value.value, Kept) else []
        try:
            described = [_argument(part) for part in found if isinstance(part, Extension) and part.encoding == ARGUMENT]
        except Malformed as error:
            raise self.peer.broken(error) from error
        return tuple((name, builtin_of(data_type, known.types)) for name, data_type in described[:MAX_ARGUMENTS])


def _argument(part: Extension) -> tuple[str, NodeId]:
    reader = Reader(part.body)
    return reader.string() or "", reader.node_id()


def _matched(method: _Method, raw: Value) -> list[tuple[tuple[str, int], Any]]:  # Any: JSON scalars
    """Each argument with its value: the command's, or, where there are several, the elements of a JSON list."""
    if not method.arguments:
        if raw is False:
            raise Unwritable("the method takes no argument: write true to call it")
        return []
    if len(method.arguments) == 1:
        return [(method.arguments[0], raw)]
    names = ", ".join(name for name, _ in method.arguments)
    try:
        values = json.loads(raw) if isinstance(raw, str) else None
    except (ValueError, RecursionError):
        values = None
    if not isinstance(values, list) or len(values) != len(method.arguments):
        raise Unwritable(f"the method takes {len(method.arguments)} arguments ({names}): write a JSON list, in a tag of kind string")
    return list(zip(method.arguments, values, strict=True))


def requests_variant(builtin: int, value: Any, name: str) -> bytes:  # Any: as above
    """One argument as a variant. Raises Unwritable naming it."""
    try:
        return encoded(builtin, value)
    except Unwritable as error:
        raise Unwritable(f"argument {name}: {error}") from None


def encoded(builtin: int, value: Any, *, one_of_array: bool = False) -> bytes:  # Any: as above
    """``value`` as a variant of type ``builtin``. Raises Unwritable where it is none of its values."""
    name = NAMES[builtin] if builtin < len(NAMES) else str(builtin)
    refusal = f"the server holds {name} there, and {_short(value)} is none"
    try:
        if builtin == BOOLEAN:
            ready: Any = _truth(value, refusal)
        elif builtin in (FLOAT, DOUBLE):
            ready = float(_number(value, refusal))
        elif BOOLEAN < builtin < FLOAT:
            ready = _whole(value, refusal)
        elif builtin == DATETIME:
            ready = _ticks(value, refusal)
        elif builtin in (STRING, BYTESTRING, TEXT):
            ready = _text(builtin, value, refusal)
        else:
            raise Unwritable(f"the server holds a {name} there: it cannot be written")
        if builtin == TEXT:
            return bytes((TEXT, 2)) + requests.string(ready)
        return requests.array_of_one(builtin, ready) if one_of_array else requests.variant(builtin, ready)
    except (struct.error, OverflowError):
        raise Unwritable(refusal) from None


def _truth(value: Any, refusal: str) -> bool:  # Any: as above
    if isinstance(value, bool) or value in (0, 1):
        return bool(value)
    raise Unwritable(refusal)


def _number(value: Any, refusal: str) -> int | float:  # Any: as above
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise Unwritable(refusal)
    return value


def _whole(value: Any, refusal: str) -> int:  # Any: as above
    number = _number(value, refusal)
    if number != number or number in (float("inf"), float("-inf")) or number != int(number):
        raise Unwritable(refusal)
    return int(number)


def _ticks(value: Any, refusal: str) -> int:  # Any: as above
    """A DateTime from ISO text or from nanoseconds since 1970."""
    if isinstance(value, str):
        try:
            moment = datetime.fromisoformat(value)
        except ValueError:
            raise Unwritable(f"{refusal}: write 2026-01-31T12:00:00Z") from None
        moment = moment if moment.tzinfo else moment.replace(tzinfo=UTC)
        since = moment - datetime(1970, 1, 1, tzinfo=UTC)
        return TICKS_1970 + (since.days * 86400 + since.seconds) * 10_000_000 + since.microseconds * 10
    return TICKS_1970 + _whole(value, refusal) // 100


def _text(builtin: int, value: Any, refusal: str) -> str | bytes:  # Any: as above
    if isinstance(value, bytes if builtin == BYTESTRING else str):
        text: str | bytes = value
        return text
    raise Unwritable(refusal)


def _scaled(seen: Any, item: Item) -> Value | None:  # Any: see values.Reading
    if isinstance(seen, Packed | Kept | Extension | dict) or seen is None:
        return None
    if item.tag.is_scaled and isinstance(seen, int | float) and not isinstance(seen, bool):
        return seen * item.tag.scale + item.tag.offset
    value: Value = seen
    return value


def _short(value: Any) -> str:  # Any: as above
    text = value if isinstance(value, str) else repr(value)
    return text if len(text) <= 60 else text[:57] + "..."
