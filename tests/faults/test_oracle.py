"""The judge can say no: each broken promise, alone in an otherwise perfect run, is found."""

from __future__ import annotations

from typing import Any

import pytest

from tests.faults.oracle import ROUND, Oracle, raw
from tests.peers.cloud import Absence, Arrival, Row, Told

SCANS = 20


def arrival(scan: int, *, seq: int | None = None, epoch: int = 1, device: str = "device-0", off: int = 0) -> Arrival:
    rows = (Row("t7", raw(7, scan) + off, 0, 1000 + scan), Row(ROUND, scan, 0, 1000 + scan))
    return Arrival(device, ("telemetry", epoch, scan if seq is None else seq), False, rows, float(scan))


def perfect(*, without: tuple[int, ...] = ()) -> Oracle:
    oracle = Oracle()
    for scan in range(1, SCANS + 1):
        if scan not in without:
            oracle(arrival(scan))
    oracle(Told("telemetry", 1, 1, SCANS, None))
    return oracle


def ledger(**changed: Any) -> dict[str, Any]:  # Any: JSON
    return {"appended": SCANS, "acknowledged": SCANS, "pending": 0, "dropped": {}, "quarantined": 0} | changed


def test_a_perfect_run_is_found_so() -> None:
    verdict = perfect().judge({"device-0": SCANS}, ledger())
    assert (verdict.records, verdict.values, verdict.duplicates, verdict.in_flight) == (SCANS, 2 * SCANS, 0, 0)


def test_a_repetition_is_no_fault() -> None:
    oracle = perfect()
    oracle(arrival(5))
    assert oracle.judge({"device-0": SCANS}, ledger()).duplicates == 1


def test_an_answer_that_was_on_its_way_at_the_end_is_no_fault() -> None:
    perfect().judge({"device-0": SCANS + 1}, ledger())


def test_a_wrong_value_is_found() -> None:
    oracle = perfect(without=(20,))
    oracle(arrival(20, off=1))
    with pytest.raises(AssertionError, match="the field gave"):
        oracle.judge({"device-0": SCANS}, ledger())


def test_one_name_for_two_readings_is_found() -> None:
    oracle = perfect()
    oracle(arrival(21, seq=5))
    with pytest.raises(AssertionError, match="different content"):
        oracle.judge({"device-0": SCANS + 1}, ledger())


def test_one_reading_under_two_names_is_found() -> None:
    oracle = perfect()
    oracle(arrival(5, seq=21))
    with pytest.raises(AssertionError, match="under another name"):
        oracle.judge({"device-0": SCANS}, ledger(appended=21, acknowledged=21))


def test_disorder_is_found() -> None:
    oracle = perfect(without=(5, 6))
    oracle(arrival(6))
    oracle(arrival(5))
    with pytest.raises(AssertionError, match="goes back"):
        oracle.judge({"device-0": SCANS}, ledger())


def test_history_after_live_is_no_disorder() -> None:
    oracle = perfect(without=(5, 6))
    oracle(arrival(5))
    oracle(arrival(6))
    oracle.judge({"device-0": SCANS}, ledger())


def test_a_seq_that_never_came_is_found() -> None:
    with pytest.raises(AssertionError, match="nobody says why"):
        perfect(without=(5,)).judge({"device-0": SCANS})


def test_the_first_records_missing_are_found() -> None:
    with pytest.raises(AssertionError, match="nobody says why"):
        perfect(without=(1, 2)).judge({"device-0": SCANS})


def test_the_end_of_an_earlier_epoch_missing_is_found() -> None:
    oracle = perfect()
    oracle(arrival(23, seq=1, epoch=2))
    oracle(Told("telemetry", 2, 1, 1, (1, SCANS + 2)))
    with pytest.raises(AssertionError, match="nobody says why"):
        oracle.judge({"device-0": 23}, None, lives=2, most_in_flight=5)


def test_a_gap_that_was_told_with_its_reason_is_no_fault() -> None:
    oracle = perfect(without=(5, 6))
    oracle(Absence("telemetry", 1, 5, 6, "full"))
    verdict = oracle.judge({"device-0": SCANS}, ledger(acknowledged=18, dropped={"full": 2}))
    assert verdict.lost == {"full": 2}


def test_a_scan_that_was_never_appended_is_found() -> None:
    oracle = Oracle()
    for scan in (1, 2, 4):
        oracle(arrival(scan, seq=min(scan, 3)))
    with pytest.raises(AssertionError, match="processes were killed"):
        oracle.judge({"device-0": 4}, ledger(appended=3, acknowledged=3))


def test_more_scans_in_flight_than_a_kill_can_explain_are_found() -> None:
    oracle = Oracle()
    for seq, scan in enumerate((1, 2, 9), 1):
        oracle(arrival(scan, seq=seq))
    oracle.judge({"device-0": 9}, ledger(appended=3, acknowledged=3), lives=2, most_in_flight=6)
    with pytest.raises(AssertionError, match="took 6 scans"):
        oracle.judge({"device-0": 9}, ledger(appended=3, acknowledged=3), lives=2, most_in_flight=5)


def test_fewer_drops_than_scans_that_never_came_are_found() -> None:
    oracle = Oracle()
    for seq, scan in enumerate((1, 2, 9), 1):
        oracle(arrival(scan, seq=seq))
    oracle(Absence("telemetry", 1, 4, 6, "full"))
    with pytest.raises(AssertionError, match="6 scans never came, 3 are counted"):
        oracle.judge({"device-0": 9}, ledger(appended=6, acknowledged=3, dropped={"full": 3}))


@pytest.mark.parametrize("changed", [{"pending": 1}, {"acknowledged": 19}, {"appended": 21}, {"quarantined": 1, "acknowledged": 19}])
def test_a_ledger_that_does_not_balance_is_found(changed: dict[str, Any]) -> None:
    with pytest.raises(AssertionError):
        perfect().judge({"device-0": SCANS}, ledger(**changed))


def test_a_scan_that_the_field_never_gave_is_found() -> None:
    with pytest.raises(AssertionError, match="never gave"):
        perfect().judge({"device-0": SCANS - 1}, ledger())


def test_a_device_of_which_nothing_came_is_found() -> None:
    with pytest.raises(AssertionError):
        perfect().judge({"device-0": SCANS, "device-1": SCANS}, ledger())
