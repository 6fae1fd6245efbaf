"""What servers answer, from bytes to small tuples: one function for each service that we use (OPC 10000-4, 5). Pure.

Answers that set up a session (endpoints, CreateSession) are read by asyncua; they are few and kept small. All that a server
may send later is read here.
"""

from __future__ import annotations

from typing import Any, Final, NamedTuple

from protocols.opcua.binary import DOUBLE, EXTENSION, INT32, UINT32, Changes, Extension, Malformed, Reader, Reading, changes
from protocols.opcua.nodes import NodeId

READ, WRITE, CALL, BROWSE, BROWSE_NEXT = 634, 676, 715, 530, 536
MONITOR, SUBSCRIBE, UNSUBSCRIBE, PUBLISH, REPUBLISH = 754, 790, 850, 829, 835
FAULT: Final = 397
CHANGES, EVENTS, STATUS = 811, 916, 820
"""Ids of the binary encodings (OPC 10000-6, NodeIds)."""


class Fault(Exception):
    """The server understood and refused the whole request, with this status."""

    def __init__(self, status: int) -> None:
        super().__init__(f"status {status:#010x}")
        self.status = status


def opened(content: bytes, expected: int) -> Reader:
    """A reader behind the header of an answer. Raises Fault, Malformed."""
    reader = Reader(content)
    encoding = reader.node_id()
    reader.take(12)  # time, handle
    status = reader.uint32()
    reader.diagnostic()
    for _ in range(reader.count()):
        reader.bytes_()
    reader.extension()
    if status & 0x80000000 or encoding == NodeId(0, FAULT):
        raise Fault(status)
    if encoding != NodeId(0, expected):
        raise Malformed(f"an answer of type {encoding}, not i={expected}")
    return reader


def read(content: bytes) -> list[Reading]:
    reader = opened(content, READ)
    return [reader.data_value() for _ in range(reader.count())]


def statuses(content: bytes, expected: int) -> list[int]:
    """Write, DeleteSubscriptions: a status for each."""
    reader = opened(content, expected)
    return [reader.uint32() for _ in range(reader.count())]


class Called(NamedTuple):
    status: int
    arguments: tuple[int, ...]
    """A status for each argument; empty where none is wrong."""
    outputs: tuple[Any, ...]


def call(content: bytes) -> Called:
    """The result of one method."""
    reader = opened(content, CALL)
    if reader.count() < 1:
        raise Malformed("no result for the method")
    status = reader.uint32()
    arguments = tuple(reader.uint32() for _ in range(reader.count()))
    for _ in range(reader.count()):
        reader.diagnostic()
    return Called(status, arguments, tuple(reader.variant()[1] for _ in range(reader.count())))


class Subscribed(NamedTuple):
    id: int
    publishing_s: float
    lifetime: int
    keepalive: int


def subscribed(content: bytes) -> Subscribed:
    reader = opened(content, SUBSCRIBE)
    return Subscribed(reader.uint32(), reader.number(DOUBLE) / 1000, reader.uint32(), reader.uint32())


class Monitored(NamedTuple):
    status: int
    sampling_s: float
    queue_size: int


def monitored(content: bytes) -> list[Monitored]:
    reader = opened(content, MONITOR)
    found = []
    for _ in range(reader.count()):
        status = reader.uint32()
        reader.uint32()  # the server's id of the item
        found.append(Monitored(status, reader.number(DOUBLE) / 1000, reader.uint32()))
        reader.extension()
    return found


class Reference(NamedTuple):
    type: NodeId
    node: NodeId
    name: str
    node_class: int


class Browsed(NamedTuple):
    status: int
    continuation: bytes
    references: list[Reference]


def browsed(content: bytes, expected: int) -> list[Browsed]:
    """Browse and BrowseNext."""
    reader = opened(content, expected)
    found = []
    for _ in range(reader.count()):
        status, continuation = reader.uint32(), reader.bytes_() or b""
        found.append(Browsed(status, continuation, [_reference(reader) for _ in range(reader.count())]))
    return found


def _reference(reader: Reader) -> Reference:
    kind = reader.node_id()
    reader.byte()  # forward: we ask for no other
    node = reader.node_id()
    reader.take(2)
    name = reader.string() or ""
    reader.localized()
    node_class = reader.number(INT32)
    reader.node_id()  # the type of the node
    return Reference(kind, node, name, node_class)


class Event(NamedTuple):
    handle: int
    fields: list[Any]


class Message(NamedTuple):
    """One notification message (7.26). ``sequence`` of an empty one is that of the next."""

    subscription: int
    sequence: int
    available: tuple[int, ...]
    """Sequence numbers that the server still keeps, for Republish."""
    changes: list[Changes]
    events: list[Event]
    ended: int | None = None
    """The status with which the server ended the subscription."""

    @property
    def is_empty(self) -> bool:
        return not self.changes and not self.events and self.ended is None


def published(content: bytes) -> Message:
    reader = opened(content, PUBLISH)
    subscription = reader.uint32()
    count = reader.count()
    available = tuple(reader.uint32() for _ in range(count))
    reader.byte()  # whether more follows: it comes by itself
    return _message(reader, subscription, available)


def republished(content: bytes, subscription: int) -> Message:
    return _message(opened(content, REPUBLISH), subscription, ())


def _message(reader: Reader, subscription: int, available: tuple[int, ...]) -> Message:
    sequence = reader.number(UINT32)
    reader.take(8)
    told: list[Changes] = []
    events: list[Event] = []
    ended: int | None = None
    for _ in range(reader.count()):
        part = reader.scalar(EXTENSION)
        assert isinstance(part, Extension)  # what scalar(EXTENSION) makes
        inner = Reader(part.body)
        if part.encoding == NodeId(0, CHANGES):
            told.append(changes(inner))
        elif part.encoding == NodeId(0, EVENTS):
            events.extend(_event(inner) for _ in range(inner.count()))
        elif part.encoding == NodeId(0, STATUS):
            ended = inner.uint32()
    return Message(subscription, sequence, available, told, events, ended)


def _event(reader: Reader) -> Event:
    handle = reader.uint32()
    return Event(handle, [reader.variant()[1] for _ in range(reader.count())])
