"""The last good value of every tag: what is known of a device that is away.

``latest`` forgets it, as it must, when a device falls silent. Here the columns are looked at every few seconds and what is not
bad is kept: mostly the batch itself that ``latest`` holds, so that a plant with 10,000 tags costs one question a device, and what
has changed is found out when it is to be written. To the disk it goes rarely (see
``shadow.py``), as one text for each device.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
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
        self._written: dict[Column, Batch] = {}
        self._slots: dict[str, int] | None = None

    def look(self, batches: Sequence[Batch]) -> None:
        """Take over what is good in ``batches``, which are the whole device's."""
        for batch in batches:
            before = self._columns.get(batch.column)
            if batch is before:
                continue
            if not batch.quality.any():  # all good, as nearly always
                self._columns[batch.column] = batch
                continue
            bad = (batch.quality & _BAD) != 0
            if not bad.all():
                self._columns[batch.column] = batch if before is None or not bad.any() else _kept(before, batch, bad)

    @property
    def changed(self) -> bool:
        """Whether a value is another than the one that was written to the disk."""
        return any(column not in self._written or not _same(self._written[column], now) for column, now in self._columns.items())

    def kept(self) -> None:
        """What is known now is what is written to the disk."""
        self._written = self._columns.copy()

    def one(self, tag: str) -> Reported | None:
        """Of one tag; None where it was never good."""
        if self._slots is None:
            self._slots = {each.name: slot for slot, each in enumerate(self.device.tags)}
        slot = self._slots.get(tag)
        if slot is None:
            return None
        for batch in self._columns.values():
            row = int(np.searchsorted(batch.tag, slot))  # the latest values stand in the order of their slots
            if row < len(batch) and batch.tag[row] == slot and not batch.quality[row] & _BAD:
                (value,) = readable.values(batch, slice(row, row + 1))
                return Reported(value, int(batch.quality[row]), int(batch.time_ns[row]))
        return self._before.get(tag)

    def all(self) -> Callable[[], dict[str, Reported]]:
        """What gives all of them, as they are now, by tag. 10,000 take a while: it may be called in a thread."""
        return partial(_told, self.device, self._before, list(self._columns.values()))


def _told(device: Device, before: dict[str, Reported], columns: list[Batch]) -> dict[str, Reported]:
    names = {tag.name for tag in device.tags} if before else set()
    told = {name: one for name, one in before.items() if name in names}
    for batch in columns:
        rows = zip(batch.tag.tolist(), readable.values(batch), batch.quality.tolist(), batch.time_ns.tolist(), strict=True)
        told.update((device.tags[slot].name, Reported(value, quality, at)) for slot, value, quality, at in rows if not quality & _BAD)
    return told


def packed(reported: dict[str, Reported]) -> str:
    """All of it as JSON, for the disk."""
    return msgspec.json.encode({name: list(one) for name, one in reported.items()}).decode()


def unpacked(text: bytes | str) -> dict[str, Reported]:
    """Raises ValueError for what is none."""
    kept: dict[str, list[Any]] = msgspec.json.decode(text, type=dict[str, list[Any]])  # Any: a value, a quality, a time
    return {name: Reported(*one) for name, one in kept.items() if len(one) == 3}


def _same(one: Batch, other: Batch) -> bool:
    return one is other or (np.array_equal(one.value, other.value) and np.array_equal(one.quality, other.quality))


def _kept(before: Batch, now: Batch, bad: np.ndarray[Any, np.dtype[np.bool_]]) -> Batch:  # Any: one dimension
    value = np.where(bad, before.value, now.value)
    return Batch(now.device, now.tag, value, np.where(bad, before.quality, now.quality), np.where(bad, before.time_ns, now.time_ns))
