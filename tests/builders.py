"""Small makers of tags, devices and batches for tests."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from protocols.model import COLUMN_OF, DTYPE_OF, Batch, Device, Kind, Quality, Tag


def device(*kinds: Kind, name: str = "boiler-1", **tag: Any) -> Device:  # Any: fields of Tag
    """A device with one tag of each kind, called t0, t1, ..."""
    return Device("line-1", name, tuple(Tag(name=f"t{at}", kind=kind, **tag) for at, kind in enumerate(kinds)))


def floats(count: int, name: str = "boiler-1", **tag: Any) -> Device:  # Any: fields of Tag
    return device(*[Kind.FLOAT64] * count, name=name, **tag)


def batch(
    of: Device,
    values: Sequence[Any],  # Any: what the column holds
    *,
    slots: Sequence[int] | None = None,
    quality: int = Quality.GOOD,
    time_ns: int = 1_700_000_000_000_000_000,
    lost: bool = False,
) -> Batch:
    """A batch of ``values`` for ``slots`` (the first ones if not given), all of one quality and time."""
    at = list(range(len(values))) if slots is None else list(slots)
    column = np.empty(len(values), dtype=DTYPE_OF[COLUMN_OF[of.tags[at[0]].kind]])
    column[:] = values
    return Batch(
        device=of,
        tag=np.array(at, dtype=np.uint32),
        value=column,
        quality=np.full(len(values), quality, dtype=np.uint32),
        time_ns=np.full(len(values), time_ns, dtype=np.int64),
        lost=lost,
    )
