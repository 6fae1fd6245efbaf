"""What a device was last known to say, whatever it says now, and over a restart."""

from __future__ import annotations

import numpy as np

from gateway.shadow.known import Known, Reported, packed, unpacked
from protocols.model import Batch, Device, Kind, Quality, Tag

DEVICE = Device("line", "boiler", (Tag(name="a", kind=Kind.FLOAT64), Tag(name="on", kind=Kind.BOOL), Tag(name="b", kind=Kind.FLOAT64)))


def floats(a: float, b: float, *, quality: tuple[int, int] = (0, 0), time_ns: int = 1) -> Batch:
    slots, values = np.array([0, 2], np.uint32), np.array([a, b])
    return Batch(DEVICE, slots, values, np.array(quality, np.uint32), np.full(2, time_ns, np.int64))


def test_a_value_that_turns_bad_is_still_known_with_its_time() -> None:
    known = Known(DEVICE)
    known.look([floats(1.5, 2.5)])
    known.look([floats(0.0, 3.5, quality=(Quality.BAD_TIMEOUT, 0), time_ns=2)])
    assert known.all()() == {"a": Reported(1.5, 0, 1), "b": Reported(3.5, 0, 2)}
    assert (known.one("a"), known.one("b"), known.one("on"), known.one("c")) == (Reported(1.5, 0, 1), Reported(3.5, 0, 2), None, None)


def test_what_was_kept_over_a_restart_holds_until_it_is_read_anew() -> None:
    before = Known(DEVICE)
    before.look([floats(1.5, float("nan"))])
    kept = unpacked(packed({**before.all()(), "gone": Reported(7, 0, 1)}))
    known = Known(DEVICE, kept)
    assert known.all()() == {"a": Reported(1.5, 0, 1), "b": Reported("NaN", 0, 1)}, "what is configured no longer is not told"
    known.look([floats(9.0, 0.0, quality=(0, Quality.BAD_TIMEOUT), time_ns=5)])
    assert (known.one("a"), known.one("b")) == (Reported(9.0, 0, 5), Reported("NaN", 0, 1))


def test_what_has_not_changed_is_not_written_again() -> None:
    known = Known(DEVICE)
    known.look([floats(1.5, 2.5)])
    assert known.changed
    known.kept()
    known.look([floats(1.5, 2.5, time_ns=9)])
    known.look([floats(0.0, 0.0, quality=(Quality.BAD_TIMEOUT, Quality.BAD_TIMEOUT))])
    assert not known.changed


def test_what_changed_and_changed_back_is_not_written_again() -> None:
    known = Known(DEVICE)
    known.look([floats(1.5, 2.5)])
    known.kept()
    known.look([floats(9.9, 2.5)])
    assert known.changed
    known.look([floats(1.5, 2.5)])
    assert not known.changed
