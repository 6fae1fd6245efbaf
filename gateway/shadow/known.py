"""The last good value of every tag: what is known of a device that is away.

``latest`` forgets it, as it must, when a device falls silent. Here the columns are looked at every few seconds and what is not
bad is kept, in columns, so that a plant with 10,000 tags costs a few array operations a device. To the disk it goes rarely (see
``shadow.py``), as one text for each device.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final, NamedTuple

import msgspec
import numpy as np

from gateway import readable
from protocols.model import Batch, Column, Device

_BAD: Final = 0x80000000


class Reported(NamedTuple):
    """One value as a device last reported it."""

    value: readable.JsonValue
    quality: int
    time_ns: int


class Known:
    """The last good values of one device object. ``before``: what was kept of it over a restart."""

    def __init__(self, device: Device, before: dict[str, Reported] | None = None) -> None:
        self.device = device
        self._before = before or {}
        self._columns: dict[Column, Batch] = {}
        self.changed = False
        """Whether a value has changed since ``packed``."""

    def look(self, batches: Sequence[Batch]) -> None:
        """Take over what is good in ``batches``, which are the whole device's."""
        for batch in batches:
            bad = (batch.quality & _BAD) != 0
            if bad.all():
                continue
            before = self._columns.get(batch.column)
            now = batch if before is None or not bad.any() else _kept(before, batch, bad)
            if before is None or not (np.array_equal(before.value, now.value) and np.array_equal(before.quality, now.quality)):
                self.changed = True
            self._columns[batch.column] = now

    def reported(self) -> dict[str, Reported]:
        """By tag, those that were ever good."""
        told = {name: one for name, one in self._before.items() if name in {tag.name for tag in self.device.tags}}
        for batch in self._columns.values():
            rows = zip(batch.tag.tolist(), readable.values(batch), batch.quality.tolist(), batch.time_ns.tolist(), strict=True)
            told.update(
                (self.device.tags[slot].name, Reported(value, quality, at)) for slot, value, quality, at in rows if not quality & _BAD
            )
        return told

    def packed(self) -> bytes:
        """All of it as JSON, for the disk."""
        self.changed = False
        return msgspec.json.encode({name: list(one) for name, one in self.reported().items()})


def unpacked(text: bytes | str) -> dict[str, Reported]:
    """Raises ValueError for what is none."""
    kept: dict[str, list[Any]] = msgspec.json.decode(text, type=dict[str, list[Any]])  # Any: a value, a quality, a time
    return {name: Reported(*one) for name, one in kept.items() if len(one) == 3}


def _kept(before: Batch, now: Batch, bad: np.ndarray[Any, np.dtype[np.bool_]]) -> Batch:  # Any: one dimension
    value = np.where(bad, before.value, now.value)
    return Batch(now.device, now.tag, value, np.where(bad, before.quality, now.quality), np.where(bad, before.time_ns, now.time_ns))
