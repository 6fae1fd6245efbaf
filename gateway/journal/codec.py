"""Bytes of the journal: frames that prove themselves, and batches packed into them without losing a bit.

Everything that the journal writes (records, definitions of devices, state) is a *frame*: a header that names lane,
epoch and seq, a body, and a CRC-32 over both. A frame never crosses a page of its file, so it can be found and
checked in raw bytes when the file around it is damaged; what does not fit is cut into numbered parts. Columns are
stored in the narrowest form that gives back every bit; a column that says nothing (all slots in order, all good, one
time) is left out. Pure: no file, no clock.
"""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import IntEnum
from hashlib import blake2b
from struct import Struct
from struct import error as StructError
from typing import Any, Final

import msgspec
import numpy as np
from numpy.typing import NDArray

from gateway.journal.record import Lane, Record
from protocols.model import COLUMN_OF, DTYPE_OF, Batch, Column, Device, Kind, Tag, is_one_moment
from protocols.quiet import quietly

MAGIC: Final = b"\xf5HF\xa9"
VERSION: Final = 1
HEAD: Final = Struct("<4sIIBBBBQQqQIBBBB")
"""magic, crc, length, version, kind, lane, form, epoch, seq, written_ns, definition, count, column, dtype, part, parts"""
REST: Final = Struct("<IBBBBQQqQIBBBB")
"""What the checksum covers of it: all after magic and crc."""
MAX_BODY: Final = 7 * 1024
"""A frame of this body fits into a page of 8192 bytes together with SQLite's own bytes."""
MAX_PARTS: Final = 250
MAX_CONTENT: Final = MAX_BODY * MAX_PARTS
"""Most bytes of one record, definition or state: about 1.7 MiB."""
MAX_DEFINITION: Final = 32 * 1024 * 1024
"""Most bytes of a definition before it was compressed: 65,536 tags with all the names and units that a site document can hold."""
UNDECODABLE: Final = (ValueError, RecursionError)
"""What msgspec raises for bytes that it cannot decode: its own errors are ValueErrors, text that is none is one, and endless
nesting is the other."""
MAX_VALUE: Final = 1024 * 1024
"""Most bytes of one text or byte string; a larger one is dropped as ``too-large``."""

SLACK: Final = 64
"""Bytes of a record of one value besides the value, at most."""

LANES: Final = (Lane.EVENTS, Lane.TELEMETRY)
LANE_NUMBER: Final = {lane: number for number, lane in enumerate(LANES)}

PART_BITS: Final = 8
"""A row's id is ``seq << PART_BITS | part``."""


class FrameKind(IntEnum):
    RECORD = 1
    DEFINITION = 2
    STATE = 3
    FACTS = 4
    HEADS = 6
    """Not 5: a flipped bit must not turn a record into it."""


# How the columns of a record are stored; plain integers, because this is the hot path.
LOST: Final = 1
SLOTS_RANGE: Final = 2
SLOTS_WIDE: Final = 4
QUALITY_ONE: Final = 8
QUALITY_ALL: Final = 16
TIME_ONE: Final = 32

COLUMNS: Final = tuple(Column)
COLUMN_NUMBER: Final = {column: number for number, column in enumerate(COLUMNS)}
STORED: Final = tuple(np.dtype(name) for name in ("u1", "<i1", "<i2", "<i4", "<i8", "<u1", "<u2", "<u4", "<u8", "<f4", "<f8", "O"))
"""By number; the first stands for bits packed eight to a byte."""
BITS: Final = 0
OBJECTS: Final = len(STORED) - 1
NARROW: Final[dict[Kind, int]] = {
    Kind.INT8: 1,
    Kind.INT16: 2,
    Kind.INT32: 3,
    Kind.INT64: 4,
    Kind.UINT8: 5,
    Kind.UINT16: 6,
    Kind.UINT32: 7,
    Kind.UINT64: 8,
    Kind.FLOAT32: 9,
    Kind.FLOAT64: 10,
}
WHOLE: Final = {Column.INT: 4, Column.UINT: 8, Column.FLOAT: 10}
WHOLE_OF_DTYPE: Final = {"i": 4, "u": 8, "f": 10}

RANGE: Final = np.arange(65536, dtype="<u4").tobytes()
GOOD: Final = bytes(4 * 65536)
U32: Final = Struct("<I")


class Unreadable(Exception):
    """Bytes that are no intact frame, or a frame whose content makes no sense."""


@dataclass(slots=True, eq=False)
class Definition:
    """A device as it was when its values were stored, addressed by its content."""

    id: int
    device: Device
    body: bytes
    narrow: dict[str, int] = field(default_factory=dict)
    """By ``dtype.kind`` of a value column: the number of the stored type that probably holds it."""


@dataclass(slots=True, eq=False)
class Piece:
    """A batch, or a part of one that fits a record, packed."""

    batch: Batch
    form: int
    column: int
    dtype: int
    body: bytes
    too_large: bool = False


@dataclass(frozen=True, slots=True)
class Head:
    """The header of an intact frame."""

    kind: int
    lane: Lane
    form: int
    epoch: int
    seq: int
    written_ns: int
    definition: int
    count: int
    column: int
    dtype: int
    part: int
    parts: int


# frames


def frame(
    kind: int,
    lane: int,
    epoch: int,
    seq: int,
    body: bytes,
    *,
    form: int = 0,
    written_ns: int = 0,
    definition: int = 0,
    count: int = 0,
    column: int = 0,
    dtype: int = 0,
    part: int = 0,
    parts: int = 1,
) -> bytes:
    """One frame: header, CRC and ``body`` (at most MAX_BODY bytes)."""
    length = HEAD.size + len(body)
    rest = REST.pack(length, VERSION, kind, lane, form, epoch, seq, written_ns, definition, count, column, dtype, part, parts)
    return b"".join((MAGIC, U32.pack(zlib.crc32(body, zlib.crc32(rest))), rest, body))


def frames(kind: FrameKind, lane: Lane, epoch: int, number: int, content: bytes) -> list[bytes]:
    """``content`` (not a record) in as many frames as it needs. Raises Unreadable beyond MAX_CONTENT."""
    chunks = cut(content)
    return [frame(kind, LANE_NUMBER[lane], epoch, number, chunk, part=part, parts=len(chunks)) for part, chunk in enumerate(chunks)]


def cut(content: bytes) -> list[bytes]:
    if len(content) > MAX_CONTENT:
        raise Unreadable(f"{len(content)} bytes are more than a journal entry can hold ({MAX_CONTENT})")
    return [content[at : at + MAX_BODY] for at in range(0, len(content), MAX_BODY)] or [b""]


def open_frame(data: bytes, at: int = 0) -> tuple[Head, bytes]:
    """Header and body of the frame that begins at ``at``. Raises Unreadable unless every bit is as it was written."""
    end = at + HEAD.size
    if len(data) < end or data[at : at + 4] != MAGIC:
        raise Unreadable("no frame begins here")
    _, crc, length, version, kind, lane, *rest = HEAD.unpack_from(data, at)
    if not HEAD.size <= length <= HEAD.size + MAX_BODY or len(data) < at + length:
        raise Unreadable("the length of the frame is impossible")
    if zlib.crc32(memoryview(data)[at + 8 : at + length]) != crc:
        raise Unreadable("the checksum of the frame is wrong")
    if version != VERSION or lane >= len(LANES):
        raise Unreadable(f"the frame has version {version}, this program reads {VERSION}: use the newer program")
    return Head(kind, LANES[lane], *rest), data[end : at + length]


def peek(data: bytes) -> tuple[int, int]:
    """Values and stamp of a record's frame, unchecked; a part that is not the first has no values."""
    _, _, _, _, _, _, _, _, _, stamp, _, count, _, _, part, _ = HEAD.unpack_from(data)
    return (0 if part else count), stamp


def definition_of(data: bytes) -> int:
    """The definition that a record's frame refers to, unchecked."""
    return int(HEAD.unpack_from(data)[10])


def join(parts: Sequence[bytes]) -> tuple[Head, bytes]:
    """Header (of the first) and content of a record's frames, in order. Raises Unreadable if one is damaged or absent."""
    opened = [open_frame(part) for part in parts]
    head = opened[0][0]
    if [each.part for each, _ in opened] != list(range(head.parts)) or any(
        (each.seq, each.epoch, each.lane, each.kind) != (head.seq, head.epoch, head.lane, head.kind) for each, _ in opened
    ):
        raise Unreadable("parts of the entry are absent")
    return head, opened[0][1] if head.parts == 1 else b"".join(body for _, body in opened)


# definitions


class _Content(msgspec.Struct, array_like=True, frozen=True):
    connection: str
    name: str
    tags: tuple[Tag, ...]


def define(device: Device) -> Definition:
    """The definition of ``device``. Two devices of equal content have the same id."""
    content = msgspec.msgpack.encode(_Content(device.connection, device.name, device.tags))
    number = int.from_bytes(blake2b(content, digest_size=8).digest(), "little")
    return Definition(number, device, zlib.compress(content, 6), _narrow(device))


def undefine(number: int, body: bytes) -> Definition:
    """The definition that ``body`` holds. Raises Unreadable if it is not the one called ``number``."""
    try:
        unpack = zlib.decompressobj()
        content = unpack.decompress(body, MAX_DEFINITION)
        told = msgspec.msgpack.decode(content, type=_Content)
    except (zlib.error, *UNDECODABLE) as error:
        raise Unreadable(f"the definition of a device cannot be read: {error}") from error
    if int.from_bytes(blake2b(content, digest_size=8).digest(), "little") != number:
        raise Unreadable("the definition of a device is another one than it says")
    device = Device(told.connection, told.name, told.tags)
    return Definition(number, device, body, _narrow(device))


def _narrow(device: Device) -> dict[str, int]:
    """For each kind of column the stored type that holds most of the device's tags of that kind."""
    found: dict[str, int] = {}
    for tag in device.tags:
        column = COLUMN_OF[tag.kind]
        if column in WHOLE:
            key = DTYPE_OF[column].kind
            number = NARROW[tag.kind]
            found[key] = number if key == "f" and found.get(key) == NARROW[Kind.FLOAT32] else max(found.get(key, 0), number)
            if tag.kind is Kind.FLOAT32:
                found[key] = number
    return found


# records


def pack(batch: Batch, definition: Definition) -> list[Piece]:
    """The batch in pieces that fit a record each, nearly always one. A single value that is too large has no body."""
    piece = _pack(batch, definition)
    if len(piece.body) <= MAX_BODY:
        return [piece]
    if len(batch) == 1:
        if len(piece.body) > MAX_VALUE + SLACK:
            piece.too_large = True
        return [piece]
    middle = len(batch) // 2
    return pack(_slice(batch, slice(None, middle)), definition) + pack(_slice(batch, slice(middle, None)), definition)


def _slice(batch: Batch, part: slice) -> Batch:
    return Batch(batch.device, batch.tag[part], batch.value[part], batch.quality[part], batch.time_ns[part], batch.lost)


def _pack(batch: Batch, definition: Definition) -> Piece:
    value = batch.value
    form = LOST if batch.lost else 0
    form, slots = _pack_slots(batch.tag, form)
    quality = batch.quality.tobytes()
    if quality == GOOD[: len(quality)]:
        quality = b""
    elif quality == quality[:4] * (len(quality) // 4):
        form, quality = form | QUALITY_ONE, quality[:4]
    else:
        form |= QUALITY_ALL
    if is_one_moment(batch.time_ns):
        form, times = form | TIME_ONE, batch.time_ns[:1].tobytes()
    else:
        times = batch.time_ns.tobytes()
    dtype, values = _pack_values(value, definition)
    body = b"".join((slots, quality, times, values))
    return Piece(batch, form, COLUMN_NUMBER[batch.column], dtype, body)


def _pack_slots(tag: NDArray[np.uint32], form: int) -> tuple[int, bytes]:
    slots = tag.tobytes()
    start = int(tag[0])
    if slots == RANGE[4 * start : 4 * start + len(slots)]:
        return form | SLOTS_RANGE, U32.pack(start)
    if int(tag.max()) < 65536:
        return form, tag.astype("<u2").tobytes()
    return form | SLOTS_WIDE, slots


def _pack_values(value: NDArray[Any], definition: Definition) -> tuple[int, bytes]:  # Any: see Batch.value
    kind = value.dtype.kind
    if kind == "b":
        return BITS, np.packbits(value).tobytes()
    if kind == "O":
        return OBJECTS, _pack_objects(value)
    whole = WHOLE_OF_DTYPE[kind]
    number = definition.narrow.get(kind, whole)
    values = value.tobytes()
    if number != whole:
        short = quietly(value.astype, STORED[number])
        if quietly(short.astype, value.dtype).tobytes() == values:
            return number, short.tobytes()
    return whole, values


def _pack_objects(value: NDArray[np.object_]) -> bytes:
    out: list[bytes] = []
    for each in value:
        content = each.encode("utf-8", "surrogatepass") if isinstance(each, str) else bytes(each)
        out += (U32.pack(len(content) << 1 | isinstance(each, str)), content)
    return b"".join(out)


def record_frames(piece: Piece, definition: int, lane: int, epoch: int, seq: int, written_ns: int) -> list[tuple[int, bytes]]:
    """Rows (id, frame) of one record: one, unless a single large value needs several."""
    body, count = piece.body, len(piece.batch.tag)
    chunks = [body] if len(body) <= MAX_BODY else cut(body)
    return [
        (
            seq << PART_BITS | part,
            frame(
                1,
                lane,
                epoch,
                seq,
                chunk,
                form=piece.form,
                written_ns=written_ns,
                definition=definition,
                count=count,
                column=piece.column,
                dtype=piece.dtype,
                part=part,
                parts=len(chunks),
            ),
        )
        for part, chunk in enumerate(chunks)
    ]


def unpack(head: Head, body: bytes, device: Device) -> Record:
    """The record that was stored. Raises Unreadable if the content does not fit its header."""
    try:
        batch = _unpack(head, body, device)
    except (ValueError, IndexError, StructError) as error:
        raise Unreadable(f"the columns of record {head.seq} cannot be read: {error}") from error
    return Record(head.epoch, head.seq, head.lane, head.written_ns, batch)


def _unpack(head: Head, body: bytes, device: Device) -> Batch:
    count, form, at = head.count, head.form, 0
    if not 0 < count <= 8 * len(body):  # eight bits to a byte are the shortest values
        raise Unreadable(f"record {head.seq} cannot hold {count} values")

    def take(size: int, dtype: str) -> NDArray[Any]:  # Any: the type is in dtype
        nonlocal at
        column = np.frombuffer(body, dtype=dtype, count=size, offset=at)
        at += column.nbytes
        return column

    if form & SLOTS_RANGE:
        start = int(take(1, "<u4")[0])
        if start + count > len(device.tags):
            raise Unreadable(f"record {head.seq} names a tag that its device does not have")
        tag = np.arange(start, start + count, dtype=np.uint32)
    else:
        tag = take(count, "<u4" if form & SLOTS_WIDE else "<u2").astype(np.uint32)
    if form & QUALITY_ALL:
        quality = take(count, "<u4").astype(np.uint32)
    else:
        quality = np.full(count, take(1, "<u4")[0] if form & QUALITY_ONE else 0, dtype=np.uint32)
    time_ns = np.full(count, take(1, "<i8")[0], dtype=np.int64) if form & TIME_ONE else take(count, "<i8").astype(np.int64)
    if int(tag.max()) >= len(device.tags):
        raise Unreadable(f"record {head.seq} names a tag that its device does not have")
    value = _unpack_values(head, body[at:])
    return Batch(device, tag, value, quality, time_ns, bool(form & LOST))


def _unpack_values(head: Head, body: bytes) -> NDArray[Any]:  # Any: see Batch.value
    if head.dtype == OBJECTS:
        return _unpack_objects(head.count, body)
    if head.dtype == BITS:
        if 8 * len(body) < head.count:
            raise Unreadable(f"record {head.seq} is shorter than it says")
        return np.unpackbits(np.frombuffer(body, np.uint8), count=head.count).astype(np.bool_)
    stored = np.frombuffer(body, dtype=STORED[head.dtype], count=head.count)
    with np.errstate(invalid="ignore"):
        return stored.astype(DTYPE_OF[COLUMNS[head.column]])


def _unpack_objects(count: int, body: bytes) -> NDArray[np.object_]:
    values = np.empty(count, dtype=np.object_)
    at = 0
    for index in range(count):
        length, is_text = divmod(U32.unpack_from(body, at)[0], 2)
        at += U32.size
        content = body[at : at + length]
        if len(content) != length:
            raise Unreadable("a text is shorter than it says")
        values[index] = content.decode("utf-8", "surrogatepass") if is_text else content
        at += length
    return values
