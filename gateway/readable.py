"""Values and journal entries as JSON: the one stated form, wherever Holdfast speaks JSON.

Integers keep every digit. NaN and the infinities, which JSON has no numbers for, are the strings ``"NaN"``,
``"Infinity"`` and ``"-Infinity"``. Bytes are base64. A value whose quality is bad is ``null``. Times are integer
nanoseconds UTC. Pure.
"""

from __future__ import annotations

import base64
from typing import Any, Final

import numpy as np

from gateway.journal.record import Lost, Record
from protocols.model import Batch, Column

JsonValue = bool | int | float | str | None
ALL: Final = slice(None)
_BAD: Final = 0x80000000


def values(batch: Batch, rows: slice = ALL) -> list[JsonValue]:
    """The value column of ``batch`` (or its ``rows``), one JSON value each, in its order.

    Columns become lists in one go: the only values touched one by one are those that JSON cannot say.
    """
    column = batch.value[rows]
    listed: list[JsonValue] = column.tolist()
    if batch.column is Column.FLOAT:
        for at in np.flatnonzero(~np.isfinite(column)):
            listed[at] = _number(column[at])
    elif batch.column is Column.OBJECT:
        listed = [_text(one) for one in column]
    for at in np.flatnonzero(batch.quality[rows] & _BAD):
        listed[at] = None
    return listed


def value(one: bool | int | float | str | bytes | None) -> JsonValue:
    """A single value, for those that have no batch."""
    if isinstance(one, float):
        return _number(one)
    return _text(one) if isinstance(one, str | bytes) else one


def _number(value: float) -> float | str:
    """``value``, or its name where JSON has no number for it (RFC 8259, section 6)."""
    if value != value:
        return "NaN"
    if value in (float("inf"), float("-inf")):
        return "Infinity" if value > 0 else "-Infinity"
    return value


def _text(value: str | bytes) -> str:
    """Bytes in base64 (RFC 4648, section 4); a text that UTF-8 can say: a lone surrogate becomes ``?``."""
    return base64.b64encode(value).decode() if isinstance(value, bytes) else value.encode(errors="replace").decode()


def entry(one: Record | Lost) -> dict[str, Any]:  # Any: JSON
    """One journal entry: a record with its columns, or a gap with its reason."""
    if isinstance(one, Lost):
        return {"lost": one.reason, "epoch": one.epoch, "first": one.first, "last": one.last, "records": one.records}
    batch = one.batch
    line: dict[str, Any] = {
        "epoch": one.epoch,
        "seq": one.seq,
        "lane": one.lane.value,
        "device": batch.device.name,
        "tags": [batch.device.tags[slot].name for slot in batch.tag.tolist()],
        "values": values(batch),
        "time_ns": _times(batch),
    }
    if batch.quality.any():
        line["quality"] = batch.quality.tolist()
    if batch.lost:
        line["device_lost"] = True
    return line


def _times(batch: Batch) -> int | list[int]:
    """One number where all values have the same time, else one for each."""
    first = int(batch.time_ns[0])
    return first if (batch.time_ns == first).all() else batch.time_ns.tolist()
