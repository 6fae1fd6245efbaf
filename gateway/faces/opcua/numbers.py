"""Node ids, status codes and times from plain values, as asyncua has them. (Its annotations name types that it never makes.)"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any, Final

from asyncua import ua

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_ua: Any = ua  # Any: see above


def standard(number: int) -> ua.NodeId:
    """A node of namespace 0."""
    return ua.NodeId(ua.Int32(number))


def far(identity: int | str, index: int = 0) -> ua.ExpandedNodeId:
    found: ua.ExpandedNodeId = _ua.ExpandedNodeId(identity, index)
    return found


def named(identity: str | bytes, index: int) -> ua.NodeId:
    found: ua.NodeId = _ua.NodeId(identity, index, _ua.NodeIdType.String if isinstance(identity, str) else _ua.NodeIdType.ByteString)
    return found


def status(code: int) -> ua.StatusCode:
    return ua.StatusCode(ua.UInt32(code))


def moment(time_ns: int) -> Any:  # Any: a datetime, UTC
    return _EPOCH + timedelta(microseconds=time_ns // 1000)


def extension(encoding: ua.NodeId, body: bytes) -> ua.ExtensionObject:
    found: ua.ExtensionObject = _ua.ExtensionObject(encoding, Body=body)
    return found
