"""A test run that is killed takes its processes with it; as long as it lives they live, whichever thread has started them."""

from __future__ import annotations

import asyncio
import os
import select
import subprocess
import sys
import threading
from pathlib import Path
from typing import Final

import pytest

from tests.peers.fast import FastModbus
from tests.peers.holdfast import Holdfast
from tests.peers.leash import leashed, start
from tests.peers.mosquitto import Mosquitto

ROOT: Final = Path(__file__).parents[2]
DEADLINE_S: Final = 60.0
RUN: Final = "import pathlib, sys; from tests.peers.test_leash import run; run(pathlib.Path(sys.argv[1]))"


def run(folder: Path) -> None:
    """What a test does that is about to be killed: it tells the ids of its processes and waits."""
    site = {"holdfast": 1, "gateway": {"group": "plant", "name": "gw"}, "journal": {"path": "./journal"}, "connections": []}
    gateway, broker = Holdfast(folder / "gateway", {**site, "uplinks": []}), Mosquitto(folder / "broker")
    asyncio.run(asyncio.to_thread(gateway.start))  # the thread ends with the loop
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("asyncio")]
    broker.start()
    broker.freeze()  # who stands still dies as well
    asyncio.run(_with_a_field(gateway, broker))


async def _with_a_field(gateway: Holdfast, broker: Mosquitto) -> None:
    async with FastModbus() as field:
        assert gateway.alive
        print(gateway.pid, broker.pid, field.pid, flush=True)  # noqa: T201 - read by the test
        await asyncio.to_thread(sys.stdin.read)


def test_whoever_kills_a_run_has_killed_its_processes(tmp_path: Path) -> None:
    """Gateway, broker and field are gone when their test is gone, though nobody could clean up."""
    parent = start(
        sys.executable, "-c", RUN, str(tmp_path), stdin=subprocess.PIPE, stdout=subprocess.PIPE, env={**os.environ, "PYTHONPATH": str(ROOT)}
    )
    assert parent.stdout is not None
    with parent:
        watched = [os.pidfd_open(int(pid)) for pid in parent.stdout.readline().split()]
        assert len(watched) == 3
        assert not ended(watched, 0)
        parent.kill()
        parent.wait()
    for each in watched:
        assert ended([each], DEADLINE_S), "it has outlived its test run"
        os.close(each)


def ended(watched: list[int], deadline_s: float) -> list[int]:
    """Which of the processes (pidfd_open(2)) have ended."""
    return select.select(watched, [], [], deadline_s)[0]


async def test_a_thread_that_ends_may_not_start_a_process_for_an_event_loop() -> None:
    """It would die with the thread, not with the run."""
    with pytest.raises(AssertionError, match="die with this thread"):
        await asyncio.to_thread(leashed, "true")
