"""The process dies at a random instant: by SIGKILL, and by a power cut that takes unsynced data with it."""

from __future__ import annotations

import shutil
import time
from pathlib import Path

from tests.faults import figures
from tests.faults.journal.conftest import Seeded
from tests.faults.journal.crash import judge, writers
from tests.faults.journal.plant import LONG, Witness
from tests.peers.disk import disk

KILLS = 1000 if LONG else 25
CUTS = 1000 if LONG else 25
LIVES = 25
"""Deaths of one journal, before a new one is begun."""


async def test_a_killed_process_loses_nothing_confirmed(dice: Seeded, tmp_path: Path) -> None:
    """Every (epoch, seq) that was confirmed or given to a reader stands for the same reading after every kill."""
    folder, witness, confirmed, began = tmp_path / "journal", Witness(), 0, time.monotonic()
    async with writers() as starter:
        for kill in range(1, KILLS + 1):
            await starter.run_and_kill(folder, witness, dice.randrange(1, 600), dice.random() * 0.05)
            if kill % 5 == 0 or kill == KILLS:  # in between, the next writer must cope alone
                await judge(folder, witness)
            if kill % LIVES == 0 or kill == KILLS:
                confirmed, witness = confirmed + sum(map(len, witness.stored.values())), Witness()
                shutil.rmtree(folder)
    figures.record(
        "journal.kills", seed=dice.begun_with, kills=KILLS, confirmed=confirmed, lost=0, wrong=0, seconds=round(time.monotonic() - began)
    )


async def test_a_power_cut_loses_nothing_confirmed(dice: Seeded, tmp_path: Path) -> None:
    """A loop-mounted ext4 is shut down without flushing, unmounted, mounted again."""
    witness, confirmed, inside, began = Witness(), 0, 0, time.monotonic()
    with disk(tmp_path, 192) as power:
        folder = power.mount / "journal"
        async with writers() as starter:
            for cut in range(1, CUTS + 1):
                inside += await starter.run_and_kill(folder, witness, dice.randrange(1, 600), dice.random() * 0.05, power)
                power.restore()
                await judge(folder, witness)
                if cut % LIVES == 0 or cut == CUTS:
                    confirmed, witness = confirmed + sum(map(len, witness.stored.values())), Witness()
                    shutil.rmtree(folder)
    figures.record(
        "journal.power-cuts",
        seed=dice.begun_with,
        cuts=CUTS,
        inside_a_call=inside,
        confirmed=confirmed,
        lost=0,
        wrong=0,
        seconds=round(time.monotonic() - began),
    )
