"""OPC UA binary encoding, as far as answers hold it that come again and again or may be large (OPC 10000-6, 5.2). Pure.

Our own, for three reasons: an object for each value costs more than all the rest of the way to the journal; nothing that a
server sends may make code (asyncua builds classes from a server's type descriptions); and every length is checked against
what is really there before anything is made. Arrays of numbers stay bytes until an element is asked for, structures until a
field is. What cannot be read raises Malformed and nothing else.
"""

from __future__ import annotations

import struct
import uuid
from datetime import UTC, datetime, timedelta
from typing import Any, Final, NamedTuple

from protocols.opcua.nodes import NodeId

MAX_DEPTH: Final = 16
"""Variants in variants, diagnostics in diagnostics."""
MAX_KEPT: Final = 4096
"""Elements of an array of anything but numbers that are kept; later ones are read over."""

BOOLEAN, SBYTE, BYTE, INT16, UINT16, INT32, UINT32, INT64, UINT64, FLOAT, DOUBLE = range(1, 12)
STRING, DATETIME, GUID, BYTESTRING, XML, NODEID, EXPANDED, STATUS, QNAME, TEXT, EXTENSION, DATAVALUE, VARIANT, DIAGNOSTIC = range(12, 26)

NUMBERS: Final[dict[int, struct.Struct]] = {
    BOOLEAN: struct.Struct("<?"),
    SBYTE: struct.Struct("<b"),
    BYTE: struct.Struct("<B"),
    INT16: struct.Struct("<h"),
    UINT16: struct.Struct("<H"),
    INT32: struct.Struct("<i"),
    UINT32: struct.Struct("<I"),
    INT64: struct.Struct("<q"),
    UINT64: struct.Struct("<Q"),
    FLOAT: struct.Struct("<f"),
    DOUBLE: struct.Struct("<d"),
    STATUS: struct.Struct("<I"),
    DATETIME: struct.Struct("<q"),
}
TICKS_1970: Final = 116_444_736_000_000_000
"""100 ns from 1601 to 1970."""
_FIRST_NS, _LAST_NS = -(2**63), 2**63 - 1
_INT32: Final = struct.Struct("<i")
_UINT32: Final = struct.Struct("<I")
_ITEM: Final = struct.Struct("<IB")
_TICKS: Final = struct.Struct("<q")


class Malformed(ValueError):
    """The bytes are not what the encoding says they must be."""


class Moment(int):
    """A DateTime: UTC, nanoseconds since 1970."""

    def __str__(self) -> str:
        try:
            return (datetime(1970, 1, 1, tzinfo=UTC) + timedelta(microseconds=int(self) // 1000)).isoformat().replace("+00:00", "Z")
        except OverflowError:
            return str(int(self))


class Packed(NamedTuple):
    """An array of numbers, not unpacked."""

    builtin: int
    length: int
    content: bytes

    def element(self, at: int) -> Any:  # Any: one of the builtin types
        form = NUMBERS[self.builtin]
        return _made(self.builtin, form.unpack_from(self.content, at * form.size)[0])


class Kept(list[Any]):
    """An array of anything else: its first elements (at most MAX_KEPT); ``length`` is how many there were."""

    length: int = 0


class Extension(NamedTuple):
    """A structure, not unpacked: the id of its encoding, and its body."""

    encoding: NodeId
    body: bytes


class Localized(str):
    """A text for people, with the locale that the server gave."""

    __slots__ = ()


class Reading(NamedTuple):
    """A value with its status and time. ``builtin`` 0 is null, 0x80 is added for arrays."""

    builtin: int
    value: Any  # Any: whatever the builtin type makes
    status: int
    ticks: int
    """DateTime of the source, else of the server, else 0: 100 ns since 1601."""


class Reader:
    """A place in some bytes that moves on."""

    __slots__ = ("at", "content")

    def __init__(self, content: bytes, at: int = 0) -> None:
        self.content = content
        self.at = at

    def number(self, builtin: int) -> Any:  # Any: bool, int or float
        form = NUMBERS[builtin]
        try:
            value = form.unpack_from(self.content, self.at)[0]
        except struct.error:
            raise Malformed("it ends too early") from None
        self.at += form.size
        return value

    def uint32(self) -> int:
        value: int = self.number(UINT32)
        return value

    def byte(self) -> int:
        try:
            value = self.content[self.at]
        except IndexError:
            raise Malformed("it ends too early") from None
        self.at += 1
        return value

    def take(self, count: int) -> bytes:
        end = self.at + count
        if count < 0 or end > len(self.content):
            raise Malformed(f"{count} bytes are said to follow, {len(self.content) - self.at} do")
        part = self.content[self.at : end]
        self.at = end
        return part

    def count(self) -> int:
        """The length of an array whose elements take a byte at least; none and empty are the same."""
        count: int = self.number(INT32)
        if count > len(self.content) - self.at:
            raise Malformed(f"{count} elements are said to follow in {len(self.content) - self.at} bytes")
        return max(count, 0)

    def bytes_(self) -> bytes | None:
        length: int = self.number(INT32)
        return None if length < 0 else self.take(length)

    def string(self) -> str | None:
        raw = self.bytes_()
        return None if raw is None else raw.decode("utf-8", "replace")

    def node_id(self) -> NodeId:
        form = self.byte()
        shape = form & 0x3F
        if shape == 0:
            found = NodeId(0, self.byte())
        elif shape == 1:
            found = NodeId(self.byte(), self.number(UINT16))
        elif shape == 2:
            found = NodeId(self.number(UINT16), self.number(UINT32))
        elif shape == 3:
            found = NodeId(self.number(UINT16), self.string() or "")
        elif shape == 4:
            found = NodeId(self.number(UINT16), self.guid())
        elif shape == 5:
            found = NodeId(self.number(UINT16), self.bytes_() or b"")
        else:
            raise Malformed(f"a node id of form {form}")
        if form & 0x80:
            self.string()  # a namespace URI: of another server, or said twice
        if form & 0x40:
            self.uint32()
        return found

    def guid(self) -> uuid.UUID:
        return uuid.UUID(bytes_le=self.take(16))

    def extension(self) -> Extension:
        encoding = self.node_id()
        form = self.byte()
        if form == 0:
            return Extension(encoding, b"")
        if form > 2:
            raise Malformed(f"a structure of form {form}")
        body = self.bytes_() or b""
        return Extension(encoding, body if form == 1 else b"")

    def localized(self) -> Localized:
        mask = self.byte()
        if mask & 1:
            self.string()
        return Localized((self.string() if mask & 2 else None) or "")

    def diagnostic(self, depth: int = 0) -> None:
        """Read over: what a server says for its own programmers."""
        if depth > MAX_DEPTH:
            raise Malformed("diagnostics in diagnostics without end")
        mask = self.byte()
        for bit in (0x01, 0x02, 0x08, 0x04):
            if mask & bit:
                self.take(4)
        if mask & 0x10:
            self.string()
        if mask & 0x20:
            self.take(4)
        if mask & 0x40:
            self.diagnostic(depth + 1)

    def variant(self, depth: int = 0) -> tuple[int, Any]:  # Any: see Reading
        """Builtin type (0x80 added for arrays) and value; (0, None) where there is none."""
        mask = self.byte()
        builtin = mask & 0x3F
        if not mask & 0x80:
            return builtin, self.scalar(builtin, depth)
        value = self._array(builtin, depth)
        if mask & 0x40:
            self.take(4 * self.count())  # a matrix is an array, row by row
        return builtin | 0x80, value

    def _array(self, builtin: int, depth: int) -> Packed | Kept:
        count = self.count()
        if builtin in NUMBERS:
            return Packed(builtin, count, self.take(count * NUMBERS[builtin].size))
        kept = Kept()
        kept.length = count
        for at in range(count):
            value = self.scalar(builtin, depth)
            if at < MAX_KEPT:
                kept.append(value)
        return kept

    def scalar(self, builtin: int, depth: int = 0) -> Any:  # Any: see Reading
        if builtin in NUMBERS:
            return _made(builtin, self.number(builtin))
        if builtin == 0:
            return None
        if depth >= MAX_DEPTH:
            raise Malformed("values in values without end")
        if builtin in (STRING, XML):
            return self.string()
        if builtin == BYTESTRING or builtin > DIAGNOSTIC:  # 26 to 31 are kept free, as byte strings (5.2.2.16)
            return self.bytes_()
        if builtin == QNAME:
            self.number(UINT16)
            return self.string()
        if builtin == TEXT:
            return self.localized()
        return self._rare(builtin, depth)

    def _rare(self, builtin: int, depth: int) -> Any:  # Any: see Reading
        if builtin == GUID:
            return str(self.guid())
        if builtin in (NODEID, EXPANDED):
            return self.node_id()
        if builtin == EXTENSION:
            return self.extension()
        if builtin == DATAVALUE:
            return self.data_value(depth + 1).value
        if builtin == VARIANT:
            return self.variant(depth + 1)[1]
        return self.diagnostic(depth)

    def data_value(self, depth: int = 0) -> Reading:
        mask = self.byte()
        builtin, value = self.variant(depth) if mask & 0x01 else (0, None)
        status = self.uint32() if mask & 0x02 else 0
        ticks = self.number(DATETIME) if mask & 0x04 else 0
        if mask & 0x10:
            self.take(2)
        if mask & 0x08:
            server = self.number(DATETIME)
            ticks = ticks or server
        if mask & 0x20:
            self.take(2)
        return Reading(builtin, value, status, ticks)


def time_ns(ticks: int) -> int:
    """UTC nanoseconds since 1970 of a DateTime; 0 where it says that there is none (or lies beyond what we can say)."""
    found = (ticks - TICKS_1970) * 100
    return found if ticks > 0 and _FIRST_NS < found < _LAST_NS else 0


def _made(builtin: int, number: Any) -> Any:  # Any: bool, int or float
    return Moment(time_ns(number)) if builtin == DATETIME else number


class Changes(NamedTuple):
    """What a publish brought, as columns: handles, builtin types, values, status codes, source and server times."""

    handles: list[int]
    builtins: list[int]
    values: list[Any]  # Any: see Reading
    statuses: list[int]
    ticks: list[int]
    """DateTime of the source, else of the server, else 0: 100 ns since 1601, for all at once to be made nanoseconds."""


def changes(reader: Reader) -> Changes:
    """A DataChangeNotification (OPC 10000-4, 7.25.2), up to its last item. Long on purpose: this is the hot path."""
    content, at = reader.content, reader.at + 4
    found = Changes([], [], [], [], [])
    handles, builtins, values = found.handles.append, found.builtins.append, found.values.append
    statuses, ticks = found.statuses.append, found.ticks.append
    numbers, item, date, code = NUMBERS, _ITEM.unpack_from, _TICKS.unpack_from, _UINT32.unpack_from
    count = reader.count()
    try:
        for _ in range(count):
            handle, mask = item(content, at)
            at += 5
            handles(handle)
            if mask & 0x01:
                builtin = content[at]
                form = numbers.get(builtin)
                if form is not None and builtin != DATETIME:
                    values(form.unpack_from(content, at + 1)[0])
                    at += 1 + form.size
                else:
                    reader.at = at
                    builtin, value = reader.variant()
                    values(value)
                    at = reader.at
                builtins(builtin)
            else:
                builtins(0)
                values(None)
            if mask & 0x02:
                statuses(code(content, at)[0])
                at += 4
            else:
                statuses(0)
            stamp = 0
            if mask & 0x04:
                stamp = date(content, at)[0]
                at += 8
            if mask & 0x10:
                at += 2
            if mask & 0x08:
                stamp = stamp or date(content, at)[0]
                at += 8
            if mask & 0x20:
                at += 2
            ticks(stamp)
    except (struct.error, IndexError):
        raise Malformed("it ends too early") from None
    reader.at = at
    return found
