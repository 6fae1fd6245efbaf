"""Report by exception: a value goes on when it says something new.

New is: a change beyond the tag's deadband (the larger of the absolute and the percent one), any change of quality, or
a silence of ``max_silence_s``. Comparison is with the last *reported* value, so that slow drift cannot hide below the
deadband. NaN equals NaN here, and an infinity equals itself; any step to or from one is new.

Silence is measured between stamps without sign: a wall clock that went back a day does not mute a tag for a day.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from protocols.model import DTYPE_OF, Batch, Column, Device, Quality, rows_of
from protocols.quiet import quietly

_LARGEST = np.finfo(np.float64).max
_NEVER_REPORTED = 0xFFFFFFFF  # no status code: the first value of a tag always differs from it in quality

Rows = slice | NDArray[np.uint32]
"""See :func:`rows_of`."""


@dataclass(slots=True)
class _Reported:
    """What was last reported of the tags of one device in one column kind, by slot."""

    value: NDArray[Any]  # Any: see Batch.value
    quality: NDArray[np.uint32]
    time_ns: NDArray[np.int64]
    deadband: NDArray[np.float64]
    share: NDArray[np.float64]
    silence_ns: NDArray[np.int64]
    has_deadband: bool
    has_share: bool


class ReportByException:
    def __init__(self) -> None:
        self._reported: dict[tuple[int, Column], tuple[Device, _Reported]] = {}

    def sift(self, batch: Batch) -> Batch | None:
        """The part of ``batch`` that is worth reporting, or None. ``batch`` itself where all of it is."""
        last = self._of(batch)
        at = rows_of(batch.tag)
        new = _CHANGED[batch.column](batch.value, last, at)
        count = np.count_nonzero(new)
        if count < len(batch):  # where every value has changed, nothing else need be asked
            new |= batch.quality != last.quality[at]
            new |= np.abs(batch.time_ns - last.time_ns[at]) >= last.silence_ns[at]
            count = np.count_nonzero(new)
            if count == 0:
                return None
        if count < len(batch):
            at = batch.tag[new]
            batch = Batch(batch.device, at, batch.value[new], batch.quality[new], batch.time_ns[new], batch.lost)
        last.value[at] = batch.value
        last.quality[at] = batch.quality
        last.time_ns[at] = batch.time_ns
        return batch

    def forget(self, device: Device) -> None:
        for column in Column:
            self._reported.pop((id(device), column), None)

    def _of(self, batch: Batch) -> _Reported:
        key = (id(batch.device), batch.column)
        found = self._reported.get(key)
        if found is None:
            found = self._reported[key] = (
                batch.device,
                _nothing_reported(batch.device, batch.column),
            )  # holds the device: its id stays its own
        return found[1]


def _nothing_reported(device: Device, column: Column) -> _Reported:
    count = len(device.tags)
    deadband = np.array([tag.deadband for tag in device.tags])
    share = np.array([tag.deadband_percent / 100 for tag in device.tags])
    return _Reported(
        value=np.zeros(count, dtype=DTYPE_OF[column]),
        quality=np.full(count, _NEVER_REPORTED, dtype=np.uint32),
        time_ns=np.zeros(count, dtype=np.int64),
        deadband=deadband,
        share=share,
        silence_ns=np.array([round(tag.max_silence_s * 1e9) for tag in device.tags], dtype=np.int64),
        has_deadband=bool(deadband.any()),
        has_share=bool(share.any()),
    )


def _float_changed(value: NDArray[Any], last: _Reported, at: Rows) -> NDArray[np.bool_]:
    before = last.value[at]
    changed = value != before
    if last.has_deadband or last.has_share:  # inf - inf is NaN, and NaN is not within any deadband
        changed &= ~(np.abs(quietly(np.subtract, value, before)) <= _limit(before, last, at))
    was_nan = before != before
    if np.count_nonzero(was_nan):
        changed &= ~was_nan | (value == value)
    return np.asarray(changed, dtype=np.bool_)


def _integer_changed(value: NDArray[Any], last: _Reported, at: Rows) -> NDArray[np.bool_]:
    before = last.value[at]
    changed = value != before
    if last.has_deadband or last.has_share:
        distance = np.maximum(value, before).astype(np.uint64) - np.minimum(value, before).astype(np.uint64)  # modulo 2^64: exact
        changed &= distance > _limit(before, last, at)
    return np.asarray(changed, dtype=np.bool_)


def _any_changed(value: NDArray[Any], last: _Reported, at: Rows) -> NDArray[np.bool_]:
    return np.asarray(value != last.value[at], dtype=np.bool_)


def _limit(before: NDArray[Any], last: _Reported, at: Rows) -> NDArray[np.float64]:
    limit: NDArray[np.float64] = last.deadband[at]
    if last.has_share:  # 0 * inf: a tag without a percent deadband that was infinite
        limit = np.fmax(limit, quietly(np.multiply, last.share[at], np.abs(before.astype(np.float64))))
        limit = np.minimum(limit, _LARGEST)  # so that a step away from infinity is beyond any deadband
    return limit


_CHANGED = {
    Column.FLOAT: _float_changed,
    Column.INT: _integer_changed,
    Column.UINT: _integer_changed,
    Column.BOOL: _any_changed,
    Column.OBJECT: _any_changed,
}

assert _NEVER_REPORTED not in {int(one) for one in Quality}
