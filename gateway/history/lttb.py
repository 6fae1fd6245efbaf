"""Down-sampling for eyes: Largest-Triangle-Three-Buckets (Steinarsson, "Downsampling Time Series for Visual Representation", 2013).

The first and the last point stay. Between them there is a bucket for each point wanted, and of each the one is taken that makes
the largest triangle with the one taken before and with the mean of the next bucket (section 4.2). The buckets come one after
the other because of that; inside each NumPy does the work. Pure.
"""

from __future__ import annotations

import itertools

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]


def lttb(time_ns: Ints, value: Floats, points: int) -> Ints:
    """Indices (rising) of at most ``points`` of the points (at least 1; times rise, values are finite) that show their shape."""
    count = len(time_ns)
    if count <= points:
        return np.arange(count)
    if points < 3:
        return np.array([0, count - 1][:points])
    at = (time_ns - time_ns[0]) * 1e-9
    edges = (np.arange(points - 1) * ((count - 2) / (points - 2)) + 1).astype(np.int64)
    sizes = np.diff(np.append(edges, count))
    mean_at, mean = np.add.reduceat(at, edges) / sizes, np.add.reduceat(value, edges) / sizes
    mean_at[-1], mean[-1] = at[-1], value[-1]
    taken = np.empty(points, dtype=np.int64)
    taken[0], taken[-1] = 0, count - 1
    for bucket in range(points - 2):
        first, end, before = int(edges[bucket]), int(edges[bucket + 1]), int(taken[bucket])
        width, height = at[before] - mean_at[bucket + 1], mean[bucket + 1] - value[before]
        areas = np.abs(width * (value[first:end] - value[before]) - (at[before] - at[first:end]) * height)
        taken[bucket + 1] = first + int(areas.argmax())
    return taken


def lttb_with_gaps(time_ns: Ints, value: Floats, breaks: Ints, points: int) -> tuple[Ints, NDArray[np.bool_]]:
    """Indices of at most ``points`` points, and before which of them a line is broken.

    ``breaks`` are the indices (rising, above 0) of points that do not belong to the one before them. No triangle spans a
    break, and each piece keeps its ends. Where there are more breaks than a third of the points, those where time is longest stay.
    """
    most = max(points // 3 - 1, 0)
    if len(breaks) > most:
        length = time_ns[breaks] - time_ns[breaks - 1]
        breaks = np.sort(breaks[np.argsort(length)[len(breaks) - most :]])
    edges = [0, *breaks.tolist(), len(time_ns)]
    pieces = list(itertools.pairwise(edges))
    spare, total = points - 2 * len(pieces), max(len(time_ns), 1)
    taken, broken = [], []
    for first, end in pieces:
        share = 2 + max(spare, 0) * (end - first) // total
        mine = first + lttb(time_ns[first:end], value[first:end], share)
        taken.append(mine)
        broken.append(np.arange(len(mine)) == (0 if first else -1))
    return np.concatenate(taken), np.concatenate(broken)
