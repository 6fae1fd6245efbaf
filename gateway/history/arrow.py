"""Arrow IPC streams and Parquet files of stored values (optional extra ``arrow``). Loaded when one is asked for.

The type of the value column is that of the tags where it is the same for all, else double for numbers of several kinds, and
text where there is any text among them. A bad value is null.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

import numpy as np
import pyarrow as pa  # type: ignore[import-untyped]  # it has no types
import pyarrow.parquet as pq  # type: ignore[import-untyped]  # it has no types

from gateway import readable
from gateway.history.history import Found, Gap, Samples
from gateway.history.sums import BAD
from protocols.model import COLUMN_OF, Column, Kind

ROWS_AT_ONCE: Final = 65_536
"""Of a row group of Parquet, about."""
_TYPES: Final = {Column.BOOL: pa.bool_(), Column.INT: pa.int64(), Column.UINT: pa.uint64(), Column.FLOAT: pa.float64()}


class _Sink:
    """What a writer writes into; :meth:`taken` gives what has come since."""

    def __init__(self) -> None:
        self.closed = False
        self._parts: list[bytes] = []
        self._length = 0

    def write(self, some: Any) -> int:  # Any: whatever has bytes
        content = bytes(some)
        self._parts.append(content)
        self._length += len(content)
        return len(content)

    def tell(self) -> int:
        return self._length

    def flush(self) -> None:
        """Nothing waits."""

    def close(self) -> None:
        self.closed = True

    def readable(self) -> bool:
        return False

    def writable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return False

    def taken(self) -> bytes:
        parts, self._parts = self._parts, []
        return b"".join(parts)


def value_type(series: Sequence[Found]) -> Any:  # Any: pyarrow has no types
    """The type of the column ``value``."""
    kinds = {each.tag.kind for each in series}
    columns = {COLUMN_OF[kind] for kind in kinds}
    if Column.OBJECT in columns:
        return pa.binary() if kinds == {Kind.BYTES} else pa.string()
    return _TYPES[columns.pop()] if len(columns) == 1 else pa.float64()


def schema(series: Sequence[Found]) -> Any:  # Any: pyarrow has no types
    return pa.schema(
        [
            ("time", pa.timestamp("ns", tz="UTC")),
            ("device", pa.string()),
            ("tag", pa.string()),
            ("value", value_type(series)),
            ("unit", pa.string()),
            ("quality", pa.uint32()),
            ("epoch", pa.int64()),
            ("seq", pa.int64()),
        ]
    )


class ArrowStream:
    """An Arrow IPC stream: a record batch for each portion."""

    def __init__(self, series: Sequence[Found]) -> None:
        self._schema = schema(series)
        self._sink = _Sink()
        self._writer = pa.ipc.new_stream(pa.PythonFile(self._sink, mode="w"), self._schema)

    def begin(self) -> bytes:
        return self._sink.taken()

    def portion(self, found: Found, samples: Samples) -> bytes:
        self._writer.write_batch(_batch(self._schema, found, samples))
        return self._sink.taken()

    def end(self, gaps: Sequence[Gap]) -> bytes:
        self._writer.close()
        return self._sink.taken()


class Parquet:
    """A Parquet file; portions are gathered into row groups."""

    def __init__(self, series: Sequence[Found]) -> None:
        self._schema = schema(series)
        self._sink = _Sink()
        self._writer = pq.ParquetWriter(pa.PythonFile(self._sink, mode="w"), self._schema, compression="zstd")
        self._gathered: list[Any] = []  # Any: record batches
        self._rows = 0

    def begin(self) -> bytes:
        return self._sink.taken()

    def portion(self, found: Found, samples: Samples) -> bytes:
        self._gathered.append(_batch(self._schema, found, samples))
        self._rows += len(samples)
        if self._rows >= ROWS_AT_ONCE:
            self._flush()
        return self._sink.taken()

    def end(self, gaps: Sequence[Gap]) -> bytes:
        self._flush()
        self._writer.close()
        return self._sink.taken()

    def _flush(self) -> None:
        if self._gathered:
            self._writer.write_table(pa.Table.from_batches(self._gathered), row_group_size=2 * ROWS_AT_ONCE)
        self._gathered, self._rows = [], 0


def _batch(form: Any, found: Found, samples: Samples) -> Any:  # Any: pyarrow has no types
    count, bad = len(samples), samples.quality >= BAD
    value = form.field("value").type
    columns = [
        pa.array(samples.time_ns, type=form.field("time").type),
        pa.repeat(pa.scalar(found.device, pa.string()), count),
        pa.repeat(pa.scalar(found.tag.name, pa.string()), count),
        _values(value, samples.value, bad),
        pa.repeat(pa.scalar(found.tag.unit, pa.string()), count),
        pa.array(samples.quality),
        pa.array(samples.epoch.astype(np.int64)),
        pa.array(samples.seq.astype(np.int64)),
    ]
    return pa.record_batch(columns, schema=form)


def _values(form: Any, column: Any, bad: Any) -> Any:  # Any: pyarrow has no types
    if column.dtype.kind != "O" and not pa.types.is_string(form):
        return pa.array(column, mask=bad).cast(form, safe=False)
    listed = [None if spoilt else each for each, spoilt in zip(column.tolist(), bad.tolist(), strict=True)]
    if pa.types.is_string(form):
        listed = [None if each is None else str(readable.value(each)) for each in listed]
    return pa.array(listed, type=form)
