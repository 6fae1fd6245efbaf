"""Events and conditions as values: which fields are asked for, and the JSON object that each event becomes. Pure.

The fields are those that every event has (OPC 10000-5, 6.4) and those of alarms and conditions (OPC 10000-9, 5.5 to 5.8), with
whatever else the tag asks for. What an event does not have is left out of its object.
"""

from __future__ import annotations

import json
from typing import Any, Final

from protocols.opcua import requests
from protocols.opcua.binary import TICKS_1970, Kept, Moment, Packed
from protocols.opcua.columns import as_json
from protocols.opcua.config import Event
from protocols.opcua.nodes import NodeId, named, parse_node
from protocols.opcua.requests import CONDITION
from protocols.opcua.structures import Types

NODE_ID: Final = 1
"""Attribute: of a condition's event, the id of the condition."""
COLUMNS: Final[tuple[tuple[str, str], ...]] = (
    # key in the object, browse path
    ("id", "EventId"),
    ("type", "EventType"),
    ("source_node", "SourceNode"),
    ("source", "SourceName"),
    ("time", "Time"),
    ("message", "Message"),
    ("severity", "Severity"),
    ("condition", "ConditionName"),
    ("branch", "BranchId"),
    ("retain", "Retain"),
    ("enabled", "EnabledState/Id"),
    ("active", "ActiveState/Id"),
    ("acknowledged", "AckedState/Id"),
    ("confirmed", "ConfirmedState/Id"),
    ("suppressed", "SuppressedState/Id"),
    ("shelved", "ShelvingState/CurrentState"),
    ("comment", "Comment"),
)
TIME, TYPE = 4, 1
FRAMES: Final = (NodeId(0, 2787), NodeId(0, 2788), NodeId(0, 2789))
"""Events about the telling of events (refresh starts, ends, is required): nothing happened in the plant."""


def filter_of(event: Event, namespaces: list[str]) -> bytes:
    """The EventFilter of a tag. A type whose namespace the server does not have matches nothing that it could send."""
    fields = [requests.operand(path_of(path)) for _, path in COLUMNS]
    fields += [requests.operand(path_of(path)) for path in event.fields]
    fields.append(requests.operand([], type_=CONDITION, attribute=NODE_ID))
    type_ = parse_node(event.type).on(namespaces) if event.type else None
    return requests.event_filter(fields, event.severity, type_)


def path_of(text: str) -> list[tuple[int, str]]:
    """``A/B`` or ``2:A/2:B`` as browse names."""
    path = []
    for part in text.split("/"):
        number, colon, name = part.partition(":")
        path.append((int(number), name) if colon and number.isascii() and number.isdigit() and int(number) < 65536 else (0, part))
    return path


def said_event(event: Event, fields: list[Any], namespaces: list[str]) -> tuple[str, int] | None:  # Any: see binary.Reading
    """One event as JSON, and its time as a DateTime; None for an event about the telling of events."""
    if len(fields) > TYPE and fields[TYPE] in FRAMES:
        return None
    keys = [*(key for key, _ in COLUMNS), *event.fields, "condition_id"]
    told = {key: _said(value, namespaces) for key, value in zip(keys, fields, strict=False) if value is not None and value != ""}
    time = fields[TIME] if len(fields) > TIME else None
    ticks = TICKS_1970 + int(time) // 100 if isinstance(time, Moment) else 0
    return json.dumps(told, ensure_ascii=False, separators=(",", ":"), default=str), ticks


def _said(value: Any, namespaces: list[str]) -> Any:  # Any: JSON
    if isinstance(value, bytes):
        return value.hex()
    if isinstance(value, NodeId):
        return str(named(value, namespaces))
    if isinstance(value, Moment):
        return str(value)
    if isinstance(value, Packed | Kept):
        return json.loads(as_json(value, Types.none()))
    return value
