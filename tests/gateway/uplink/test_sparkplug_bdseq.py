"""bdSeq goes on over restarts, and a file that is lost or damaged stops nobody."""

from __future__ import annotations

from pathlib import Path

import pytest

from gateway.uplink.bdseq import BdSeq
from protocols.clock import ManualClock


def test_it_goes_on_where_it_was(tmp_path: Path) -> None:
    file = tmp_path / "bdseq.cloud"
    first = BdSeq(file, ManualClock())
    seen = [first.next(), first.next()]
    again = BdSeq(file, ManualClock(time_ns=0))
    assert again.next() == (seen[1] + 1) % 256


def test_255_is_followed_by_0(tmp_path: Path) -> None:
    (tmp_path / "bdseq").write_text("255\n")
    assert BdSeq(tmp_path / "bdseq", ManualClock()).next() == 0


@pytest.mark.parametrize("content", [b"", b"\x00\xff", b"-3", b"9" * 100, b"12 34"])
def test_a_damaged_file_is_replaced(tmp_path: Path, content: bytes) -> None:
    file = tmp_path / "bdseq"
    file.write_bytes(content)
    number = BdSeq(file, ManualClock()).next()
    assert 0 <= number < 256
    assert file.read_text() == f"{number}\n"


def test_a_place_that_cannot_be_written_does_no_harm(tmp_path: Path) -> None:
    numbers = BdSeq(tmp_path / "nowhere" / "bdseq", ManualClock())
    assert numbers.next() == (numbers.next() - 1) % 256


def test_without_a_file_a_restart_does_not_repeat_the_last_number() -> None:
    before = BdSeq(None, ManualClock(time_ns=10**18)).next()
    after = BdSeq(None, ManualClock(time_ns=10**18 + 10**10)).next()
    assert before != after
