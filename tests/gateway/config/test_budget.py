"""The estimate of what an outage fills."""

from __future__ import annotations

import pytest

from gateway.config.budget import RECORD_BYTES, SLOT_BYTES, STORE_OVERHEAD, busy, quiet
from protocols.model import Device, Kind, Tag


def device(*tags: Tag) -> Device:
    return Device("c", "d", tags)


def floats(count: int, deadband: float = 0.0, max_silence_s: float = 600.0) -> list[Tag]:
    return [Tag(name=f"t{at}", kind=Kind.FLOAT32, scan_s=1.0, deadband=deadband, max_silence_s=max_silence_s) for at in range(count)]


def test_a_scan_of_one_kind_is_one_record() -> None:
    rate = busy([device(*floats(100))])
    assert rate.values_s == 100
    assert rate.bytes_s == pytest.approx((RECORD_BYTES + 100 * (SLOT_BYTES + 8)) * STORE_OVERHEAD)


def test_each_kind_and_period_is_a_record_of_its_own() -> None:
    tags = [
        Tag(name="a", kind=Kind.BOOL, scan_s=1.0),
        Tag(name="b", kind=Kind.FLOAT32, scan_s=1.0),
        Tag(name="c", kind=Kind.BOOL, scan_s=0.5),
    ]
    expected = (RECORD_BYTES + 3) + (RECORD_BYTES + 10) + 2 * (RECORD_BYTES + 3)
    assert busy([device(*tags)]).bytes_s == pytest.approx(expected * STORE_OVERHEAD)


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
