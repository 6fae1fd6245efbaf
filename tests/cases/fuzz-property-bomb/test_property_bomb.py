"""See README.md."""

from __future__ import annotations

from pathlib import Path

import pytest

from protocols.sparkplug.payload import Malformed, decode
from tests.fuzz.campaign import MOST_GROWTH, peak_bytes
from tests.fuzz.mutate import join

LINES = Path(__file__).with_name("payload.txt").read_text().splitlines()


@pytest.mark.parametrize("line", LINES)
def test_a_payload_of_tiny_fields_is_refused_before_it_is_built(line: str) -> None:
    numbers, shape, count = line.split()
    content = bytes.fromhex(shape) * int(count)
    for number in reversed(numbers.split(",")):
        content = join([(int(number), 2, content)])
    content = content[: 4 * 1024 * 1024]
    before = peak_bytes(reset=True)
    with pytest.raises(Malformed):
        decode(content)
    assert peak_bytes() - before < MOST_GROWTH
