"""Values and journal entries as JSON: the one stated form, wherever Holdfast speaks JSON.

Integers keep every digit. NaN and the infinities, which JSON has no numbers for, are the strings ``"NaN"``,
``"Infinity"`` and ``"-Infinity"``. Bytes are base64. A value whose quality is bad is ``null``. Times are integer
nanoseconds UTC. Pure.
"""

from __future__ import annotations

import base64
from typing import Any

import numpy as np

from gateway.journal.record import Lost, Record
from protocols.model import SEVERITY_MASK, Batch, Column

JsonValue = bool | int | float | str | None


def values(batch: Batch) -> list[JsonValue]:
    """The value column of ``batch``, one JSON value each, in its order."""
    listed: list[Any] = batch.value.tolist()  # Any: what the column holds
    if batch.column is Column.FLOAT and not np.isfinite(batch.value).all():
        listed = [_number(one) for one in listed]
    elif batch.column is Column.OBJECT:
        listed = [base64.b64encode(one).decode() if isinstance(one, bytes) else one for one in listed]
    bad = (batch.quality & SEVERITY_MASK) >= 0x80000000
    for at in np.flatnonzero(bad):
        listed[at] = None
    return listed


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


def _number(value: float) -> float | str:
    if value != value:
        return "NaN"
    if value in (float("inf"), float("-inf")):
        return "Infinity" if value > 0 else "-Infinity"
    return value
