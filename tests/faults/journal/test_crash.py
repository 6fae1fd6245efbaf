"""The process dies at a random instant: by SIGKILL, and by a power cut that takes unsynced data with it."""

from __future__ import annotations

import random
from pathlib import Path

from tests.faults.journal.crash import Confirmed, judge, run_and_kill
from tests.faults.journal.plant import LONG
from tests.peers.disk import disk

KILLS = 1000 if LONG else 50
CUTS = 1000 if LONG else 50


async def test_a_killed_process_loses_nothing_confirmed(dice: random.Random, tmp_path: Path) -> None:
    confirmed = Confirmed()
    for kill in range(KILLS):
        await run_and_kill(tmp_path / "journal", confirmed, dice.randrange(20, 400), dice.random() * 0.05)
        if kill % 5 == 4 or kill == KILLS - 1:  # in between, the next writer must cope alone
            await judge(tmp_path / "journal", confirmed)


async def test_a_power_cut_loses_nothing_confirmed(dice: random.Random, tmp_path: Path) -> None:
    """A loop-mounted ext4 is shut down without flushing, unmounted, mounted again."""
    confirmed = Confirmed()
    with disk(tmp_path, 192) as power:
        for _ in range(CUTS):
            await run_and_kill(power.mount / "journal", confirmed, dice.randrange(20, 400), dice.random() * 0.05, power.cut)
            power.restore()
            await judge(power.mount / "journal", confirmed)
