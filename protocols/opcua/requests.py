"""What servers are asked, as bytes: one function for each service (OPC 10000-4, 5; encoding OPC 10000-6, 5.2). Pure.

A polled device's request is made once and sent again and again. Headers and security are added where it is sent.
"""

from __future__ import annotations

import struct
import uuid
from collections.abc import Sequence
from typing import Final, NamedTuple

from protocols.opcua import answers
from protocols.opcua.binary import BOOLEAN, BYTESTRING, NUMBERS, STRING, UINT32
from protocols.opcua.nodes import NodeId

VALUE, NODE_CLASS, BROWSE_NAME, EVENT_NOTIFIER, DATA_TYPE, ACCESS, DEFINITION = 13, 2, 3, 12, 14, 18, 23
"""Attribute ids (OPC 10000-6, A.1)."""
NO_TEXT: Final = b"\xff\xff\xff\xff"
NO_STRUCTURE: Final = b"\x00\x00\x00"
HIERARCHICAL: Final = NodeId(0, 33)
HAS_SUBTYPE: Final = NodeId(0, 45)
HAS_PROPERTY: Final = NodeId(0, 46)
HAS_COMPONENT: Final = NodeId(0, 47)
BASE_EVENT: Final = NodeId(0, 2041)
CONDITION: Final = NodeId(0, 2782)
CONDITION_REFRESH: Final = NodeId(0, 3875)
OBJECT, VARIABLE, METHOD = 1, 2, 4
"""Node classes (OPC 10000-3, 8.29), as bits of a mask."""
Scalar = bool | int | float | str | bytes


class Request(NamedTuple):
    """A service: the id of the request's encoding, its body, and the id of the answer's."""

    encoding: int
    body: bytes
    answer: int


def string(text: str | bytes) -> bytes:
    raw = text.encode() if isinstance(text, str) else text
    return struct.pack("<i", len(raw)) + raw


def node_id(node: NodeId) -> bytes:
    namespace, identifier = node
    if isinstance(identifier, int):
        if namespace < 256 and identifier < 65536:
            return struct.pack("<BBH", 1, namespace, identifier)
        return struct.pack("<BHI", 2, namespace, identifier)
    if isinstance(identifier, str):
        return struct.pack("<BH", 3, namespace) + string(identifier)
    if isinstance(identifier, uuid.UUID):
        return struct.pack("<BH", 4, namespace) + identifier.bytes_le
    return struct.pack("<BH", 5, namespace) + string(identifier)


def extension(encoding: int, body: bytes) -> bytes:
    return node_id(NodeId(0, encoding)) + b"\x01" + string(body)


def scalar(builtin: int, value: Scalar) -> bytes:
    """One value. Raises struct.error where the number is none of the type."""
    if builtin in (STRING, BYTESTRING):
        return string(value if isinstance(value, str | bytes) else str(value))
    return NUMBERS[builtin].pack(value)


def variant(builtin: int, value: Scalar) -> bytes:
    return bytes((builtin,)) + scalar(builtin, value)


def array_of_one(builtin: int, value: Scalar) -> bytes:
    return bytes((builtin | 0x80,)) + struct.pack("<i", 1) + scalar(builtin, value)


def _array(parts: Sequence[bytes]) -> bytes:
    return struct.pack("<i", len(parts)) + b"".join(parts)


def read_value(node: NodeId, attribute: int = VALUE) -> bytes:
    return node_id(node) + struct.pack("<I", attribute) + NO_TEXT + b"\x00\x00" + NO_TEXT


def read(values: Sequence[bytes]) -> Request:
    """Values as :func:`read_value` gives them, never older than now, with both times."""
    return Request(631, struct.pack("<di", 0.0, 2) + _array(values), answers.READ)


def write(node: NodeId, content: bytes, index_range: str = "") -> Request:
    """``content`` is a variant. Status and times are left to the server: many refuse to be given them."""
    one = node_id(node) + struct.pack("<I", VALUE) + (string(index_range) if index_range else NO_TEXT) + b"\x01" + content
    return Request(673, _array([one]), answers.WRITE)


def call(owner: NodeId, method: NodeId, arguments: Sequence[bytes]) -> Request:
    """``arguments`` are variants."""
    return Request(712, _array([node_id(owner) + node_id(method) + _array(arguments)]), answers.CALL)


def browse(node: NodeId, *, references: NodeId = HIERARCHICAL, classes: int = 0, most: int = 1000, inverse: bool = False) -> Request:
    """What ``node`` leads to, or (``inverse``) what leads to it. ``classes`` is a mask, 0 for all."""
    no_view = node_id(NodeId(0, 0)) + struct.pack("<qI", 0, 0)
    one = node_id(node) + struct.pack("<i", inverse) + node_id(references) + b"\x01" + struct.pack("<II", classes, 0x3F)
    return Request(527, no_view + struct.pack("<I", most) + _array([one]), answers.BROWSE)


def browse_next(continuation: bytes, *, release: bool = False) -> Request:
    return Request(533, bytes((release,)) + _array([string(continuation)]), answers.BROWSE_NEXT)


def subscribe(publishing_s: float, lifetime: int, keepalive: int, most: int) -> Request:
    body = struct.pack("<dIII?B", publishing_s * 1000, lifetime, keepalive, most, True, 0)
    return Request(787, body, answers.SUBSCRIBE)


def unsubscribe(subscriptions: Sequence[int]) -> Request:
    return Request(847, _array([struct.pack("<I", one) for one in subscriptions]), answers.UNSUBSCRIBE)


def monitor(subscription: int, items: Sequence[bytes]) -> Request:
    """Items as :func:`item` gives them."""
    return Request(751, struct.pack("<Ii", subscription, 2) + _array(items), answers.MONITOR)


def item(value: bytes, handle: int, sampling_s: float, queue_size: int, filter_: bytes, *, oldest: bool) -> bytes:
    """A monitored item that reports. ``value`` as :func:`read_value` gives it; ``oldest``: the oldest value gives way."""
    return value + struct.pack("<iId", 2, handle, sampling_s * 1000) + (filter_ or NO_STRUCTURE) + struct.pack("<I?", queue_size, oldest)


def deadband(size: float, percent: float) -> bytes:
    """A DataChangeFilter: status and value; absolute, or in percent of EURange."""
    return extension(724, struct.pack("<iId", 1, 2 if percent else 1, percent or size))


def publish(acknowledged: Sequence[tuple[int, int]]) -> Request:
    """Subscription and sequence number of each message that arrived."""
    return Request(826, _array([struct.pack("<II", *one) for one in acknowledged]), answers.PUBLISH)


def republish(subscription: int, sequence: int) -> Request:
    return Request(832, struct.pack("<II", subscription, sequence), answers.REPUBLISH)


def operand(path: Sequence[tuple[int, str]], *, type_: NodeId = BASE_EVENT, attribute: int = VALUE) -> bytes:
    """A field of an event: browse names from the event down."""
    names = _array([struct.pack("<H", namespace) + string(name) for namespace, name in path])
    return node_id(type_) + names + struct.pack("<I", attribute) + NO_TEXT


def event_filter(fields: Sequence[bytes], severity: int, type_: NodeId | None) -> bytes:
    """Which fields of which events (7.22.3): of ``severity`` at least, and of ``type_`` or its subtypes."""
    tests = []
    if severity > 1:  # the least there is; asked for, it would leave out those of servers that say 0
        tests.append(struct.pack("<i", 4) + _array([extension(603, operand([(0, "Severity")])), extension(597, variant(5, severity))]))
    if type_ is not None:
        tests.append(struct.pack("<i", 14) + _array([extension(597, b"\x11" + node_id(type_))]))
    both = struct.pack("<i", 10) + _array([extension(594, struct.pack("<I", one)) for one in (1, 2)])
    where = [both, *tests] if len(tests) > 1 else tests
    return extension(727, _array(fields) + _array(where))


def close_session() -> Request:
    return Request(473, b"\x01", 476)


def header(token: bytes, timestamp: int, handle: int, timeout_s: float) -> bytes:
    """What stands before every request. ``token`` is the session's, encoded."""
    return token + struct.pack("<qIIiI", timestamp, handle, 0, -1, int(timeout_s * 1000)) + NO_STRUCTURE


def refresh_conditions(subscription: int) -> Request:
    """Tell again which conditions hold (OPC 10000-9, 5.5.7)."""
    return call(CONDITION, CONDITION_REFRESH, [variant(UINT32, subscription)])


TRUE: Final = variant(BOOLEAN, True)
