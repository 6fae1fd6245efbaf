"""The words that everybody speaks: kinds, qualities, tags, devices, batches, commands and outcomes.

A :class:`Batch` is a set of NumPy columns and never a list of values: nothing between the driver and the
broker makes a Python object for each value. What a value *is* (its kind, its unit) is settled once, when the
configuration is applied, and stands in :class:`Tag`; a batch carries slot numbers into ``device.tags``.

A batch is never edited once it is handed on. Missing is a quality, not ``None``.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import IntEnum, StrEnum
from typing import Any, Final

import msgspec
import numpy as np
from numpy.typing import NDArray


class Kind(StrEnum):
    """What a tag's value is, after scaling. Integers keep every bit; floats carry NaN and infinity as IEEE 754 does."""

    BOOL = "bool"
    INT8 = "int8"
    INT16 = "int16"
    INT32 = "int32"
    INT64 = "int64"
    UINT8 = "uint8"
    UINT16 = "uint16"
    UINT32 = "uint32"
    UINT64 = "uint64"
    FLOAT32 = "float32"
    FLOAT64 = "float64"
    STRING = "string"
    BYTES = "bytes"


class Column(StrEnum):
    """The five kinds of value column. All values of one batch share one of them."""

    BOOL = "bool"
    INT = "int"
    UINT = "uint"
    FLOAT = "float"
    OBJECT = "object"


COLUMN_OF: Final[dict[Kind, Column]] = {
    Kind.BOOL: Column.BOOL,
    Kind.INT8: Column.INT,
    Kind.INT16: Column.INT,
    Kind.INT32: Column.INT,
    Kind.INT64: Column.INT,
    Kind.UINT8: Column.UINT,
    Kind.UINT16: Column.UINT,
    Kind.UINT32: Column.UINT,
    Kind.UINT64: Column.UINT,
    Kind.FLOAT32: Column.FLOAT,
    Kind.FLOAT64: Column.FLOAT,
    Kind.STRING: Column.OBJECT,
    Kind.BYTES: Column.OBJECT,
}

DTYPE_OF: Final[dict[Column, np.dtype[Any]]] = {  # Any: the element type differs by column, which is the point
    Column.BOOL: np.dtype(np.bool_),
    Column.INT: np.dtype(np.int64),
    Column.UINT: np.dtype(np.uint64),
    Column.FLOAT: np.dtype(np.float64),
    Column.OBJECT: np.dtype(np.object_),
}

COLUMN_OF_DTYPE: Final[dict[str, Column]] = {
    "b": Column.BOOL,
    "i": Column.INT,
    "u": Column.UINT,
    "f": Column.FLOAT,
    "O": Column.OBJECT,
}
"""By ``dtype.kind``."""


class Quality(IntEnum):
    """OPC UA status codes (Part 4, 7.39; data access meanings in Part 8, 6.3.2). The top two bits are the severity."""

    GOOD = 0x00000000
    UNCERTAIN = 0x40000000
    UNCERTAIN_LAST_USABLE_VALUE = 0x40900000
    UNCERTAIN_SENSOR_NOT_ACCURATE = 0x40930000
    BAD = 0x80000000
    BAD_CONFIGURATION_ERROR = 0x80890000
    BAD_NOT_CONNECTED = 0x808A0000
    BAD_DEVICE_FAILURE = 0x808B0000
    BAD_SENSOR_FAILURE = 0x808C0000
    BAD_OUT_OF_SERVICE = 0x808D0000
    BAD_NO_COMMUNICATION = 0x80310000
    BAD_WAITING_FOR_INITIAL_DATA = 0x80320000
    BAD_NODE_ID_UNKNOWN = 0x80340000
    BAD_NOT_READABLE = 0x803A0000
    BAD_NOT_WRITABLE = 0x803B0000
    BAD_OUT_OF_RANGE = 0x803C0000
    BAD_NOT_SUPPORTED = 0x803D0000
    BAD_TIMEOUT = 0x800A0000
    BAD_DECODING_ERROR = 0x80070000
    BAD_RESOURCE_UNAVAILABLE = 0x80040000

    @property
    def is_bad(self) -> bool:
        return bool(self & 0x80000000)


SEVERITY_MASK: Final = 0xC0000000
"""``quality & SEVERITY_MASK`` is 0 for good, 0x40000000 for uncertain, 0x80000000 for bad."""


class Tag(msgspec.Struct, frozen=True, kw_only=True):
    """One value of a device, as everything behind the driver sees it (kind and unit after scaling)."""

    name: str
    kind: Kind
    unit: str = ""
    writable: bool = False
    scan_s: float = 0.0
    """Period at which a new value is to be expected, in seconds; 0 where the device decides."""
    deadband: float = 0.0
    """A change up to this size is not reported, in the tag's unit."""
    deadband_percent: float = 0.0
    """A change up to this share of the last reported value is not reported, in percent."""
    max_silence_s: float = 600.0
    """A value is reported at least this often even if it does not change; 0 reports every scan."""


@dataclass(frozen=True, slots=True, eq=False)
class Device:
    """One addressable thing behind a connection. ``name`` is unique in a site; a tag's slot is its place in ``tags``."""

    connection: str
    name: str
    tags: tuple[Tag, ...]


@dataclass(frozen=True, slots=True, eq=False)
class Batch:
    """The columns that one scan of one device brought. All columns have the same length, at least 1.

    Every tag in a batch has the same :class:`Column`: a scan that brings floats and bools brings two batches.
    Where the quality is bad, the value is the zero of its column (``""`` or ``b""`` for objects) and means nothing.
    """

    device: Device
    tag: NDArray[np.uint32]
    """Slot numbers into ``device.tags``; each at most once, unless the device itself delivers a history."""
    value: NDArray[Any]  # Any: bool_, int64, uint64, float64 or object; see DTYPE_OF
    quality: NDArray[np.uint32]
    time_ns: NDArray[np.int64]
    """UTC, nanoseconds since 1970; the source's time where the device gives one, else that of the answer, to some ms."""
    lost: bool = False
    """True in the one batch (per column kind) that says: from here on the device does not answer."""

    def __len__(self) -> int:
        return len(self.tag)

    @property
    def column(self) -> Column:
        return COLUMN_OF_DTYPE[self.value.dtype.kind]


_SLOTS: Final = np.arange(65536, dtype=np.uint32).tobytes()


def rows_of(tag: NDArray[np.uint32]) -> slice | NDArray[np.uint32]:
    """What to index a column of all slots with, to get at those of ``tag``.

    A slice where they follow each other: it costs a third of what an array costs to read with, and a fifth to write with.
    """
    first, slots = int(tag[0]), tag.tobytes()
    return slice(first, first + len(tag)) if slots == _SLOTS[4 * first : 4 * first + len(slots)] else tag


def one_moment(time_ns: int, count: int) -> NDArray[np.int64]:
    """``count`` equal stamps in the memory of one, read-only; :func:`is_one_moment` knows them without looking at each."""
    return np.ndarray(count, np.int64, np.int64(time_ns), 0, (0,))


def is_one_moment(time_ns: NDArray[np.int64]) -> bool:
    """Whether all stamps, one at least, are equal."""
    if time_ns.strides == (0,):
        return True
    times = time_ns.tobytes()  # bytes are compared in a tenth of the time that numbers take
    return times == times[:8] * len(time_ns)


def silence(device: Device, quality: Quality, time_ns: int, *, lost: bool) -> list[Batch]:
    """Batches that give every tag of ``device`` one bad quality: what is said when nothing can be read."""
    slots: dict[Column, list[int]] = {}
    for slot, tag in enumerate(device.tags):
        slots.setdefault(COLUMN_OF[tag.kind], []).append(slot)
    return [
        Batch(
            device=device,
            tag=np.array(at, dtype=np.uint32),
            value=blank(device, at, column),
            quality=np.full(len(at), quality, dtype=np.uint32),
            time_ns=np.full(len(at), time_ns, dtype=np.int64),
            lost=lost,
        )
        for column, at in slots.items()
    ]


def blank(device: Device, slots: list[int], column: Column) -> NDArray[Any]:  # Any: see Batch.value
    """A column of meaningless values of the right kind, for slots whose quality is bad."""
    if column is not Column.OBJECT:
        return np.zeros(len(slots), dtype=DTYPE_OF[column])
    values = np.empty(len(slots), dtype=np.object_)
    values[:] = [b"" if device.tags[slot].kind is Kind.BYTES else "" for slot in slots]
    return values


class Command(msgspec.Struct, frozen=True, kw_only=True):
    """A wish to change something in the field."""

    id: str
    """Idempotency key: the same id is carried out at most once."""
    device: str
    tag: str
    value: bool | int | float | str | bytes
    deadline_ns: int
    """UTC, nanoseconds; after it the command is ``expired`` and must not be sent."""


class OutcomeState(StrEnum):
    VERIFIED = "verified"
    """Written, acknowledged by the device, read back and found equal."""
    MISMATCH = "mismatch"
    """Acknowledged, but what was read back differs (a clamped or ignored value)."""
    REFUSED = "refused"
    """A driver says: not sent, or the device said no. The gateway says it of what was never sent alone: a device's no ends as failed."""
    EXPIRED = "expired"
    """Not sent, for its deadline had passed."""
    FAILED = "failed"
    """It did not come about: nothing could be sent, or the device said no (``by_device``), or nobody can say what became of it."""


class Outcome(msgspec.Struct, frozen=True, kw_only=True):
    """What became of a command."""

    command: str
    state: OutcomeState
    time_ns: int
    detail: str = ""
    read_back: bool | int | float | str | bytes | None = None
    by_device: bool = False
    """FAILED because the device itself said no: nothing has changed."""


LATENESS_BUCKETS_S: Final = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 5.0)


@dataclass(slots=True)
class ScanStats:
    """How punctual a driver's scans are. Counted by the schedule, read by telemetry. Times in seconds."""

    scans: int = 0
    missed: int = 0
    """Scans whose whole period went by before they could start."""
    late_s: list[int] = field(default_factory=lambda: [0] * (len(LATENESS_BUCKETS_S) + 1))
    """Count of scans by lateness, one for each of LATENESS_BUCKETS_S and one above the last."""
    late_sum_s: float = 0.0
    requests: int = 0
    errors: dict[str, int] = field(default_factory=dict)
