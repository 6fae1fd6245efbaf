"""The last value of every tag, by device and column kind."""

from __future__ import annotations

import random

import numpy as np

from gateway.latest import Latest
from protocols.model import Batch, Kind, Quality, silence
from tests.builders import batch, device, floats


def test_before_the_first_answer_every_tag_waits_for_its_data() -> None:
    at, latest = device(Kind.FLOAT32, Kind.BOOL, Kind.STRING, Kind.BYTES), Latest()
    latest.add(at)
    found = latest.batches(at)
    assert sorted(slot for one in found for slot in one.tag.tolist()) == [0, 1, 2, 3]
    assert {code for one in found for code in one.quality.tolist()} == {Quality.BAD_WAITING_FOR_INITIAL_DATA}
    assert not latest.is_lost(at)


def test_values_of_several_kinds_stand_by_their_slots() -> None:
    at, latest = device(Kind.BOOL, Kind.FLOAT32, Kind.BOOL, Kind.UINT64), Latest()
    latest.add(at)
    latest.update(batch(at, [True, False], slots=[0, 2]))
    latest.update(batch(at, [2**64 - 1], slots=[3]))
    values = {slot: value for one in latest.batches(at) for slot, value in zip(one.tag.tolist(), one.value.tolist(), strict=True)}
    assert values == {0: True, 2: False, 1: 0.0, 3: 2**64 - 1}


def test_scans_of_any_tags_in_any_order_leave_the_last_value_of_each() -> None:
    """Also where the same array of slots comes again and again, which is written once."""
    dice = random.Random(5)
    at, latest = floats(8), Latest()
    latest.add(at)
    scans = [np.array(slots, dtype=np.uint32) for slots in ([0, 1, 2, 3, 4, 5, 6, 7], [2, 3], [3, 4, 5], [7, 0])]
    expected = [0.0] * 8
    for turn in range(300):
        slots = scans[dice.choice([0, 0, 0, 1, 2, 3])]
        values = [float(turn * 10 + slot) for slot in slots]
        made = batch(at, values, slots=slots.tolist())
        latest.update(Batch(at, slots, made.value, made.quality, made.time_ns))
        for slot, value in zip(slots.tolist(), values, strict=True):
            expected[slot] = value
        if dice.random() < 0.2:
            assert latest.batches(at)[0].value.tolist() == expected


def test_what_is_handed_out_does_not_change_later() -> None:
    at, latest = floats(1), Latest()
    latest.add(at)
    before = latest.batches(at)[0]
    latest.update(batch(at, [7.0]))
    assert before.value.tolist() == [0.0]


def test_a_device_is_lost_from_its_silence_until_its_next_answer() -> None:
    at, latest = floats(1), Latest()
    latest.add(at)
    for one in silence(at, Quality.BAD_NO_COMMUNICATION, 1, lost=True):
        latest.update(one)
    assert latest.is_lost(at)
    latest.update(batch(at, [1.0]))
    assert not latest.is_lost(at)


def test_a_batch_of_a_device_that_was_replaced_changes_nothing() -> None:
    old, new, latest = floats(1), floats(1), Latest()
    latest.add(old)
    latest.add(new)
    latest.update(batch(old, [1.0]))
    assert latest.batches(new)[0].value.tolist() == [0.0]
    latest.remove(old)
    assert latest.devices() == [new]


def test_a_scan_of_all_tags_is_handed_out_as_it_came_and_nothing_is_copied() -> None:
    at, latest = floats(3), Latest()
    latest.add(at)
    slots = np.arange(3, dtype=np.uint32)
    for turn in range(3):
        made = batch(at, [1.0, 2.0, float(turn)])
        scan = Batch(at, slots, made.value, made.quality, made.time_ns)
        latest.update(scan)
        assert latest.batches(at)[0] is scan


def test_what_had_to_be_copied_is_copied_once_until_another_value_comes() -> None:
    at, latest = floats(3), Latest()
    latest.add(at)
    latest.update(batch(at, [7.0], slots=[1]))
    before = latest.batches(at)[0]
    assert latest.batches(at)[0] is before
    latest.update(batch(at, [8.0], slots=[2]))
    after = latest.batches(at)[0]
    assert (before.value.tolist(), after.value.tolist()) == ([0.0, 7.0, 0.0], [0.0, 7.0, 8.0])


def test_values_stand_in_the_order_of_their_slots_whatever_order_they_came_in() -> None:
    at, latest = floats(3), Latest()
    latest.add(at)
    latest.update(batch(at, [2.0, 0.0, 1.0], slots=[2, 0, 1]))
    assert [(one.tag.tolist(), one.value.tolist()) for one in latest.batches(at)] == [([0, 1, 2], [0.0, 1.0, 2.0])]


def test_the_news_that_a_device_is_lost_is_told_once_and_is_no_part_of_its_values() -> None:
    at, latest = floats(2), Latest()
    latest.add(at)
    latest.update(batch(at, [1.0, 2.0]))
    for one in silence(at, Quality.BAD_NO_COMMUNICATION, 1, lost=True):
        latest.update(one)
    assert [one.lost for one in latest.batches(at)] == [False]


def test_the_best_quality_is_that_of_what_a_device_says_now() -> None:
    at, latest = device(Kind.FLOAT64, Kind.FLOAT64, Kind.BOOL), Latest()
    latest.add(at)
    told = [latest.best_quality(at)]
    for quality in (Quality.UNCERTAIN, Quality.GOOD, Quality.BAD_TIMEOUT):
        latest.update(batch(at, [1.0], slots=[1], quality=quality))
        told += [latest.best_quality(at), latest.best_quality(at)]
    latest.update(batch(at, [True], slots=[2]))
    told.append(latest.best_quality(at))
    for one in silence(at, Quality.BAD_NO_COMMUNICATION, 1, lost=True):
        latest.update(one)
    told.append(latest.best_quality(at))
    waiting, gone = Quality.BAD_WAITING_FOR_INITIAL_DATA, Quality.BAD_NO_COMMUNICATION
    uncertain, good, bad = Quality.UNCERTAIN, Quality.GOOD, Quality.BAD_TIMEOUT
    assert told == [waiting, uncertain, uncertain, good, good, bad, bad, good, gone]


def test_a_device_without_tags_has_said_nothing_good() -> None:
    at, latest = device(), Latest()
    latest.add(at)
    assert latest.best_quality(at) == Quality.BAD_WAITING_FOR_INITIAL_DATA


def test_whoever_listens_is_told_of_each_device_that_comes() -> None:
    latest, told = Latest(), list[int]()
    latest.listen(lambda: told.append(len(latest.devices())))
    for name in ("one", "two"):
        latest.add(floats(1, name))
    assert told == [1, 2]
