"""The estimate of what an outage fills, held against the journal's own code."""

from __future__ import annotations

import apsw
import numpy as np
import pytest

from gateway.config.budget import PAGE_BYTES, WIDTH, busy, quiet, record_bytes
from gateway.journal import codec
from protocols.model import COLUMN_OF, DTYPE_OF, Batch, Column, Device, Kind, Tag


def device(*tags: Tag) -> Device:
    return Device("c", "d", tags)


def floats(count: int, deadband: float = 0.0, max_silence_s: float = 600.0) -> list[Tag]:
    return [Tag(name=f"t{at}", kind=Kind.FLOAT32, scan_s=1.0, deadband=deadband, max_silence_s=max_silence_s) for at in range(count)]


def on_disk(kind: Kind, values: int, records: int) -> float:
    """Bytes of a record of ``values`` values, as the journal packs and SQLite stores them."""
    tags = device(*(Tag(name=f"t{at}", kind=kind) for at in range(2 * values)))
    definition = codec.define(tags)
    slots = np.arange(0, 2 * values, 2, dtype=np.uint32)  # every other tag has changed: the journal has to say which
    column = COLUMN_OF[kind]
    value = np.full(values, "x" * 32, dtype=object) if column is Column.OBJECT else np.ones(values, dtype=DTYPE_OF[column])
    batch = Batch(tags, slots, value, np.zeros(values, np.uint32), np.full(values, 1_700_000_000 * 10**9, np.int64))
    connection = apsw.Connection(":memory:")
    connection.execute(f"PRAGMA page_size={PAGE_BYTES}").fetchall()
    connection.execute("CREATE TABLE record(id INTEGER PRIMARY KEY, frame BLOB NOT NULL)")
    before = pages(connection)
    for number in range(records):
        for part, piece in enumerate(codec.pack(batch, definition)):
            seq = 10**9 + number * 64 + part
            connection.executemany("INSERT INTO record VALUES(?,?)", codec.record_frames(piece, definition.id, 1, 1, seq, 1))
    return (pages(connection) - before) * PAGE_BYTES / records


def pages(connection: apsw.Connection) -> int:
    return int((connection.execute("PRAGMA page_count").fetchone() or (0,))[0])


@pytest.mark.parametrize("values", [1, 7, 40, 100, 500, 900, 3000])
@pytest.mark.parametrize("kind", [Kind.BOOL, Kind.INT16, Kind.UINT32, Kind.FLOAT32, Kind.STRING])
def test_the_estimate_is_never_below_the_journal_and_not_far_above(kind: Kind, values: int) -> None:
    estimate, real = record_bytes(values, WIDTH[kind]), on_disk(kind, values, records=1000 if values < 500 else 60)
    assert real <= estimate <= 1.2 * real


def test_a_scan_of_one_kind_is_one_record() -> None:
    rate = busy([device(*floats(100))])
    assert rate.values_s == 100
    assert rate.bytes_s == pytest.approx(record_bytes(100, 4))


def test_each_kind_and_period_is_a_record_of_its_own() -> None:
    kinds = [("a", Kind.BOOL, 1.0), ("b", Kind.FLOAT32, 1.0), ("c", Kind.BOOL, 0.5)]
    tags = [Tag(name=name, kind=kind, scan_s=scan_s) for name, kind, scan_s in kinds]
    expected = record_bytes(1, 1 / 8) + record_bytes(1, 4) + 2 * record_bytes(1, 1 / 8)
    assert busy([device(*tags)]).bytes_s == pytest.approx(expected)


def test_the_widest_kind_of_a_record_is_the_width_of_all() -> None:
    tags = [*floats(9), Tag(name="x", kind=Kind.FLOAT64, scan_s=1.0)]
    assert busy([device(*tags)]).bytes_s == pytest.approx(record_bytes(10, 8))


def test_the_cost_is_linear_in_devices() -> None:
    one = busy([device(*floats(10))])
    many = busy([device(*floats(10)) for _ in range(50)])
    assert many.bytes_s == pytest.approx(50 * one.bytes_s)


def test_a_deadband_makes_a_quiet_tag_report_after_its_silence_only() -> None:
    tags = floats(10, deadband=0.5, max_silence_s=600.0)
    assert quiet([device(*tags)]).values_s == pytest.approx(10 / 600)
    assert busy([device(*tags)]).values_s == 10


def test_without_silence_or_deadband_quiet_is_busy() -> None:
    for tags in (floats(10), floats(10, deadband=0.5, max_silence_s=0.0)):
        assert quiet([device(*tags)]) == busy([device(*tags)])


def test_tags_whose_device_decides_when_are_not_counted() -> None:
    assert busy([device(Tag(name="a", kind=Kind.STRING))]).bytes_s == 0
