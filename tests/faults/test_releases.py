"""Release 0.1.0, this one, 0.1.0 again, this one again, on one folder, with a plant that never stops and a broker that goes away.

The release before is the real one, from the project's history. It is killed at the switch, or stopped, with records that wait; what
each life added to the state is there in the next, and the oracle judges at the end that every scan came, or was in flight in a process
that was killed.
"""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path
from typing import Any, Final

from tests.faults.releases import first_release
from tests.faults.rig import Plan, Rig, rig

MOST_IN_FLIGHT: Final = 20
"""As in ``test_kill``: scans that may die with a process."""


async def test_forth_and_back_and_forth_again_loses_nothing(tmp_path: Path) -> None:
    """Readings, cursors, tokens and revisions are carried over each switch, to the newer release and back."""
    old = first_release(tmp_path / "old")
    baseline = tmp_path / "baseline.json"
    async with rig(tmp_path, Plan(devices=3, prefix=old)) as plant:
        await plant.arrive(30)
        code, told = await health(plant)
        assert (code, told["release"]) == (0, ""), told  # it cannot say which one it is: that is 0.1.0
        baseline.write_text(json.dumps(told))
        assert (await health(plant, "--release", version("holdfast"), wait="1"))[0] == 1
        await lived(plant, "first")
        for turn, (prefix, release) in enumerate((((), version("holdfast")), (old, ""), ((), version("holdfast")))):
            plant.set_broker(turn == 1)  # in two of the switches records wait for the next release
            plant.gateway.prefix = prefix
            await (asyncio.to_thread(plant.gateway.stop) if turn == 2 else plant.kill())
            await plant.start()
            await plant.wait_pending(1)
            plant.set_broker(True)
            code, told = await health(plant, "--baseline", str(baseline), *(("--release", release) if release else ()))
            assert (code, told["release"]) == (0, release), told
            await plant.flows(60)
            await lived(plant, f"turn-{turn}")
        assert await tokens(plant) == {"first", "turn-0", "turn-1", "turn-2"}
        assert json.loads((await said(plant, "history", "--json"))[0])[0]["number"] == 5  # the first, and one of each life
        verdict = await plant.finish(most_in_flight=MOST_IN_FLIGHT, deadline_s=120)
    assert not verdict.lost


async def lived(plant: Rig, name: str) -> None:
    """Have this life leave a token and a revision."""
    await said(plant, "token", "issue", name, "--role", "viewer")
    document = plant.site()
    document["connections"][0]["devices"][0]["tags"][0]["unit"] = name
    await plant.reload(document)


async def tokens(plant: Rig) -> set[str]:
    return {json.loads(line)["id"] for line in await said(plant, "token", "list")}


async def said(plant: Rig, *words: str) -> list[str]:
    """The lines of a command of this release, put to whichever runs."""
    at = 2 if words[0] == "token" else 1
    told = await asyncio.to_thread(plant.gateway.command, *words[:at], str(plant.gateway.site_file), *words[at:])
    return told.splitlines()


async def health(plant: Rig, *options: str, wait: str = "60") -> tuple[int, dict[str, Any]]:  # Any: JSON
    command = [sys.executable, "-m", "gateway", "health", str(plant.gateway.site_file), "--json", "--wait", wait, *options]
    done = await asyncio.to_thread(subprocess.run, command, capture_output=True, text=True, timeout=120, check=False)
    assert done.stdout, done.stderr
    return done.returncode, json.loads(done.stdout)
