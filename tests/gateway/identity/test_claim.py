"""The claim code by itself: written as people write, good for so long and so often."""

from __future__ import annotations

import pytest

from gateway.identity.claim import ATTEMPTS, LASTS_S, Claim
from gateway.objections import NotAllowed
from protocols.clock import ManualClock


def test_it_is_read_as_people_write_it() -> None:
    claim = Claim(ManualClock())
    code = claim.make()
    claim.check(code.lower().replace("-", " ").replace("0", "o").replace("1", "l"))


def test_after_a_few_wrong_ones_the_right_one_is_not_good_either() -> None:
    claim = Claim(ManualClock())
    code = claim.make()
    for _ in range(ATTEMPTS):
        assert claim.open
        with pytest.raises(NotAllowed):
            claim.check("0000-0000-0000-0000")
    assert not claim.open
    with pytest.raises(NotAllowed):
        claim.check(code)
    claim.check(claim.make())


async def test_it_is_good_for_an_hour() -> None:
    clock = ManualClock()
    claim = Claim(clock)
    code = claim.make()
    await clock.advance(LASTS_S - 1)
    claim.check(code)
    await clock.advance(1)
    with pytest.raises(NotAllowed):
        claim.check(code)


@pytest.mark.parametrize("code", ["", "-", "\x00", "x" * 64])
def test_without_a_code_none_is_right(code: str) -> None:
    with pytest.raises(NotAllowed):
        Claim(ManualClock()).check(code)
