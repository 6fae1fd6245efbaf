"""The last value of every tag, in columns: what a birth certificate, a metric or a person asks for.

Before a device has answered, its tags stand here with BadWaitingForInitialData, so that nobody mistakes silence for zero.

Scans come far more often than questions, and mostly each covers what the one before it covered. So the newest batch of a
column is only kept, and written into the columns when one of other tags follows or somebody asks. Where it is all that the column
has, it is itself what is handed out: nobody edits a batch, and parts of the gateway that look at all devices now and then must
not cost more than the scans. What had to be copied is copied once for all who ask, until another value comes.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from protocols.model import COLUMN_OF, DTYPE_OF, Batch, Column, Device, Quality, blank


@dataclass(slots=True)
class _Standing:
    """One device's last values. ``place[slot]`` says where a slot stands within its column."""

    device: Device
    place: NDArray[np.int64]
    columns: dict[Column, Batch]
    newest: dict[Column, Batch] = field(default_factory=dict)
    """Not written into ``columns`` yet."""
    whole: dict[Column, NDArray[np.uint32]] = field(default_factory=dict)
    """Slots of a batch that are all of its column's, in their order: known again by the array, which most drivers use for each scan."""
    copied: dict[Column, Batch] = field(default_factory=dict)
    """What was handed out of ``columns``, as long as it is true."""
    best: int | None = None
    """The best quality in ``columns``, if somebody has asked since the last value came."""
    lost: bool = False

    def write(self, batch: Batch) -> None:
        column, at = self.columns[batch.column], self.place[batch.tag]
        column.value[at] = batch.value
        column.quality[at] = batch.quality
        column.time_ns[at] = batch.time_ns
        self.copied.pop(batch.column, None)
        self.best = None

    def shown(self, column: Column) -> Batch:
        """The last values of ``column``."""
        newest = self.newest.get(column)
        if newest is not None:
            if self.is_whole(column, newest):
                return newest if not newest.lost else replace(newest, lost=False)
            self.write(newest)
            del self.newest[column]
        copied = self.copied.get(column)
        if copied is None:
            one = self.columns[column]
            copied = self.copied[column] = Batch(one.device, one.tag, one.value.copy(), one.quality.copy(), one.time_ns.copy())
        return copied

    def is_whole(self, column: Column, batch: Batch) -> bool:
        """Whether ``batch`` has every value of ``column``, in its order."""
        if self.whole.get(column) is batch.tag:
            return True
        if not np.array_equal(batch.tag, self.columns[column].tag):
            return False
        self.whole[column] = batch.tag
        return True


class Latest:
    def __init__(self) -> None:
        self._standings: dict[str, _Standing] = {}
        self._listeners: list[Callable[[], None]] = []

    def listen(self, listener: Callable[[], None]) -> None:
        """Have ``listener`` told whenever a device is added. It must be quick, and raise nothing."""
        self._listeners.append(listener)

    def add(self, device: Device) -> None:
        """Make room for a device; a device of the same name is replaced."""
        self._standings[device.name] = _stand(device)
        for listener in self._listeners:
            listener()

    def remove(self, device: Device) -> None:
        standing = self._standings.get(device.name)
        if standing is not None and standing.device is device:
            del self._standings[device.name]

    def update(self, batch: Batch) -> None:
        """Take over the values of ``batch``. A batch of a device that is not here (any more) is ignored."""
        standing = self._standings.get(batch.device.name)
        if standing is None or standing.device is not batch.device:
            return
        column = batch.column
        before = standing.newest.get(column)
        if before is not None and before.tag is not batch.tag:
            standing.write(before)
        standing.newest[column] = batch
        standing.lost = batch.lost

    def devices(self) -> Sequence[Device]:
        return [standing.device for standing in self._standings.values()]

    def device(self, name: str) -> Device | None:
        """The device of this name, as it is configured now."""
        standing = self._standings.get(name)
        return standing.device if standing else None

    def batches(self, device: Device) -> Sequence[Batch]:
        """The last values of every tag of ``device``: one batch for each column kind it has, in the order of their slots.

        They do not change any more, may be kept, and are others' as well: nobody writes into them.
        """
        standing = self._standings[device.name]
        return [standing.shown(column) for column in standing.columns]

    def best_quality(self, device: Device) -> int:
        """The best that is among the last values of ``device``; bad where it does not answer, or has no tags yet."""
        standing = self._standings[device.name]
        if standing.lost:
            return Quality.BAD_NO_COMMUNICATION
        if standing.newest or standing.best is None:
            best = (int(batch.quality.min()) for batch in self.batches(device))
            standing.best = min(best, default=int(Quality.BAD_WAITING_FOR_INITIAL_DATA))
        return standing.best

    def is_lost(self, device: Device) -> bool:
        """True while the device does not answer. False before the first answer or silence has been seen."""
        standing = self._standings.get(device.name)
        return standing is not None and standing.lost


def _stand(device: Device) -> _Standing:
    slots: dict[Column, list[int]] = {}
    place = np.zeros(len(device.tags), dtype=np.int64)
    for slot, tag in enumerate(device.tags):
        mine = slots.setdefault(COLUMN_OF[tag.kind], [])
        place[slot] = len(mine)
        mine.append(slot)
    return _Standing(device, place, {column: _unknown(device, at, column) for column, at in slots.items()})


def _unknown(device: Device, at: list[int], column: Column) -> Batch:
    value: NDArray[Any] = blank(device, at, column)  # Any: see Batch.value
    assert value.dtype == DTYPE_OF[column]
    return Batch(
        device=device,
        tag=np.array(at, dtype=np.uint32),
        value=value,
        quality=np.full(len(at), Quality.BAD_WAITING_FOR_INITIAL_DATA, dtype=np.uint32),
        time_ns=np.zeros(len(at), dtype=np.int64),
    )
